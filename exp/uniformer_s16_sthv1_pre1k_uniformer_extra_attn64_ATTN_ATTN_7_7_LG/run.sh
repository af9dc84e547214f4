#!/usr/bin/env bash
# Train and then test: bash run.sh [KEY VALUE ...]. Runs again where it was interrupted.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$folder/../.."
source tools/setup_env.sh || exit 1
exec bash exp/launch.sh tools/run_net.py --cfg "$folder/config.yaml" "$@"
