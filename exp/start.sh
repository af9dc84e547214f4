#!/usr/bin/env bash
# What run.sh and test.sh of every experiment call: bash exp/start.sh TOOL FOLDER [--dry-run] [KEY VALUE ...]
# starts tools/TOOL.py with FOLDER/config.yaml on all processes of this node (see exp/launch.sh).
set -euo pipefail
unset CDPATH
tool="$1" folder=$(cd "$2" && pwd)
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/setup_env.sh || exit 1
exec bash exp/launch.sh "tools/$tool.py" --cfg "$folder/config.yaml" "$@"
