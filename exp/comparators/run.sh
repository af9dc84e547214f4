#!/usr/bin/env bash
# Train and test every network of the comparison with three seeds: bash run.sh [options of tools/ablate.py] [KEY VALUE ...].
# Runs again where it was interrupted. STUDY=study_motion.yaml runs half of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
for study in ${STUDY:-study_motion.yaml study_appearance.yaml}; do
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$PY" tools/ablate.py --study "exp/comparators/$study" --jobs 2 "$@"
done
