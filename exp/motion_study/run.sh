#!/usr/bin/env bash
# Run the motion study: bash run.sh [options of tools/ablate.py] [KEY VALUE ...]. Runs again where it was interrupted.
# STARTS="stills scratch" and CELLS="STIMULUS:QUESTION:DISPLACEMENT[:EPOCHS] ..." choose a part, STUDY its arms, OUT its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
out=${OUT:-exp/motion_study/output}
cells="camouflage:motion:1,2 textured:motion:1,2 camouflage:motion:0.5,1 textured:motion:0.5,1
    textured:appearance:1,2 camouflage:motion:2,3:12 textured:motion:2,3:12"
for start in ${STARTS:-stills scratch}; do
    settings=(DATA.ARGS.grow 0.5)
    if [ "$start" = stills ]; then
        if [ ! -e "$out/stills/test_results.json" ]; then
            "$PY" tools/run_net.py --cfg configs/motion_study/stills.yaml OUTPUT_DIR "$out/stills"
        fi
        # Repeated over time, as is usual, they blur what moves, and neither arm of the pilot left chance.
        settings+=(MODEL.PRETRAINED "$out"/stills/checkpoints/epoch_00040.pyth MODEL.INFLATION center)
    fi
    for cell in ${CELLS:-$cells}; do
        IFS=: read -r stimulus question displacement epochs <<<"$cell"
        "$PY" tools/ablate.py --study "exp/motion_study/${STUDY:-study.yaml}" --jobs 2 --out "$out/$start/$stimulus-$question-$displacement" \
            DATA.ARGS.stimulus "$stimulus" DATA.ARGS.question "$question" \
            DATA.ARGS.displacement "[$displacement]" SOLVER.MAX_EPOCH "${epochs:-8}" "${settings[@]}" "$@"
    done
done
