#!/usr/bin/env bash
# Make the synthetic motion data set, train a small EMIM network on it, test it over several views: bash run.sh
# [--dry-run] [KEY VALUE ...]. Runs again where it was interrupted.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
source tools/setup_env.sh || exit 1
# One process is enough for it; NPROC_PER_NODE=2 starts two.
export NPROC_PER_NODE=${NPROC_PER_NODE:-1}
"$PY" tools/prepare_data.py synthetic --out data/quickstart --format mp4 --num-train 2880 --num-val 480 \
    --size 64 --num-frames 8 --seed 0 --speed 0.07 0.14 --zoom 0.08 0.12 --spin 20 40 --diameter 0.38 0.8 \
    --texture-contrast 0.25
exec bash exp/start.sh run_net "$here" "$@"
