#!/usr/bin/env bash
# Test the best checkpoint over all views: bash test.sh [KEY VALUE ...].
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$folder/../.."
source tools/setup_env.sh || exit 1
export NPROC_PER_NODE=${NPROC_PER_NODE:-1}
exec bash exp/launch.sh tools/test_net.py --cfg "$folder/config.yaml" "$@"
