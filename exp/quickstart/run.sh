#!/usr/bin/env bash
# Make the synthetic motion data set, train a small EMIM network on it, test it over several views: bash run.sh
# [KEY VALUE ...]. Runs again where it was interrupted.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$folder/../.."
source tools/setup_env.sh || exit 1
"$PY" tools/prepare_data.py synthetic --out data/quickstart --format mp4 \
    --num-train 2880 --num-val 480 --size 64 --num-frames 12 --seed 0
exec bash exp/launch.sh tools/run_net.py --cfg "$folder/config.yaml" "$@"
