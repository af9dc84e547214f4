#!/usr/bin/env bash
# Make the videos of the motion benchmark, and the same at another speed: bash data.sh. Complete sets are
# left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
# Counts are multiples of 144, so that every motion meets every kind equally often.
make() {
    "$PY" tools/prepare_data.py scenes --format frames --num-train 7200 --num-val 720 --seed 0 --num-distractors 2 \
        --clutter 4 --camera-pan 0 0.02 "$@"
}
make --out data/motion_benchmark --speed 0.025 0.05
make --out data/motion_benchmark_fast --speed 0.08 0.12
