#!/usr/bin/env bash
# Make the videos of the motion benchmark and run its study: bash run.sh [options of tools/ablate.py] [KEY VALUE ...].
# Runs again where it was interrupted. STUDY=study_windows.yaml and STUDY=study_budget.yaml run the further tables.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
# Paths relative to the repository, as the report names them.
bash exp/motion_benchmark/data.sh
exec "$PY" tools/ablate.py --study "exp/motion_benchmark/${STUDY:-study.yaml}" "$@"
