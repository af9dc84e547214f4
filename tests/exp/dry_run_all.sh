#!/usr/bin/env bash
# Dry runs of every experiment's training and test, on miniature data sets in their official layouts and on finished
# runs to start from, all made for it: bash tests/exp/dry_run_all.sh [NAME ...], without names all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SETUP_EXTRAS=dev source tools/setup_env.sh || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
OMP_NUM_THREADS="$(nproc)" "$PY" tests/support/stand_ins.py "$work" "$@"
