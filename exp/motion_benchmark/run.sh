#!/usr/bin/env bash
# Make the videos of the motion benchmark and run its study: bash run.sh [options of tools/ablate.py] [KEY VALUE ...].
# Runs again where it was interrupted. STUDY=study_windows.yaml runs the further tables.
# Difficulty and budget are provisional, see README.md: what comes out is no result yet.
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$folder/../.."
source tools/setup_env.sh || exit 1
bash "$folder/data.sh"
exec "$PY" tools/ablate.py --study "$folder/${STUDY:-study.yaml}" "$@"
