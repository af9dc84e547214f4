#!/usr/bin/env bash
# Dry runs of run.sh and test.sh of every experiment, on miniature data sets in their official layouts and on finished
# runs to start from, all made for it: bash tests/exp/dry_run_all.sh [NAME ...], without names all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
SETUP_EXTRAS=dev source tools/setup_env.sh || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work NPROC_PER_NODE=1 OMP_NUM_THREADS=1

dry_run() {
    local name="$1" script="$2" log="$work/$1.$2.log"
    shift 2
    if bash "exp/$name/$script" --dry-run "$@" >"$log" 2>&1 && grep -q '^dry run: ' "$log"; then
        echo "dry run of exp/$name/$script: ok"
    else
        echo "dry run of exp/$name/$script: FAILED"
        cat "$log"
        return 1
    fi
}
export -f dry_run

"$PY" tests/support/stand_ins.py "$work" "$@" >"$work/jobs"
xargs -P "$(nproc)" -L 1 bash -c 'dry_run "$@"' _ <"$work/jobs"
