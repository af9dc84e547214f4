#!/usr/bin/env bash
# Runs the tests, in an environment that is set up first if necessary; one process per core, each takes whole files.
# Arguments go to pytest:
#   bash tests/run.sh
#   bash tests/run.sh tests/ops -k dense
#   bash tests/run.sh -m "not slow"
#   bash tests/run.sh -n 0 --pdb tests/ops    # in one process
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SETUP_EXTRAS=dev source tools/setup_env.sh || exit 1
# A process per core: threads of theirs would wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$PY" -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
