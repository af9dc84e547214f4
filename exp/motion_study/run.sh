#!/usr/bin/env bash
# Run the motion study from scratch: bash run.sh [options of tools/ablate.py] [KEY VALUE ...].
# Runs again where it was interrupted. STUDY=study_camouflage_1_2.yaml runs one displacement.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
for study in ${STUDY:-$(cd exp/motion_study && ls study_*.yaml)}; do
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$PY" tools/ablate.py --study "exp/motion_study/$study" --jobs 2 "$@"
done
