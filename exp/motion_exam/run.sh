#!/usr/bin/env bash
# Let a network take the motion exam: bash run.sh --cfg FILE | --model NAME [options of tools/motion_exam.py].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$PY" tools/motion_exam.py "$@"
