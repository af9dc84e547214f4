#!/usr/bin/env bash
# Train small networks on filmed actions and test them by cross-validation:
#   FILMED_DIR=/folder/of/clips bash exp/filmed/run.sh weizmann|egogestar [options of tools/crossval.py] [KEY VALUE ...]
#   FILMED_DIR=/folder/of/clips bash exp/filmed/run.sh synthetic_to_filmed [options] [KEY VALUE ...]
# The last one trains on rendered gestures, and then on 0, 1, 2, 5 and 10 filmed ones a class.
# ARMS="emim joint" chooses files of configs/filmed. Runs again where it was interrupted.
set -euo pipefail
unset CDPATH
set_name=${1:-}
if [ "$set_name" = synthetic_to_filmed ]; then
    out=exp/filmed/output_synthetic_to_filmed
    export ARMS=${ARMS:-emim_gestures joint_gestures}
    for arm in $ARMS; do # no shot: what the rendered gestures have trained, as it is
        [[ "$arm" == *_gestures ]] || continue
        test=(TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH "output/filmed/pretraining_$arm/checkpoints/best.pyth")
        ARMS=$arm bash "$0" egogestar --out "$out/0shots_$arm" "${test[@]}" "${@:2}"
    done
    for shots in 1 2 5 10; do
        bash "$0" egogestar --shots "$shots" --out "$out/${shots}shots" "${@:2}"
    done
    cd "$(dirname "${BASH_SOURCE[0]}")/../../$out"
    {
        echo "shots,config,seed,right,videos,top1,low,high"
        for shots in 0 1 2 5 10; do
            for table in "${shots}shots"*/crossval.csv; do
                if [ -f "$table" ]; then tail -n +2 "$table" | cut -d, -f1-7 | sed "s/^/$shots,/"; fi
            done
        done
    } >.shots.csv.tmp
    mv .shots.csv.tmp shots.csv
    cat shots.csv
    exit
fi
case "$set_name" in
    weizmann)
        get="github.com/hueihan/Action_Recognition, commit f8e9999, folder data/WIS/video: CLASS/PERSON_CLASS.avi"
        lists=(--pattern "{class}/{person}_*" --folds person)
        # No class has a direction.
        options=() settings=(DATA.RANDOM_FLIP True)
        ;;
    egogestar)
        get="github.com/varunj/EgoGestAR, commit 90188de, folder testvideo: testvideo_CLASS_N.mp4"
        lists=(--pattern "testvideo_{class}_*" --without unclassified --folds stratified 5 --shots 1 2 5 10)
        lists+=(--extract-frames --short-side 128) # once, for they are large
        # The whole path of a finger, which is the class.
        options=(--order-test left=right up=down) settings=(DATA.FRAME_SAMPLING sparse)
        ;;
    *)
        echo "usage: FILMED_DIR=FOLDER bash exp/filmed/run.sh weizmann|egogestar|synthetic_to_filmed [options] [KEY VALUE ...]" >&2
        exit 2
        ;;
esac
shift
if [ ! -d "${FILMED_DIR:-}/$set_name" ]; then
    echo "error: FILMED_DIR is '${FILMED_DIR:-}', which has no folder $set_name; get its clips from $get" >&2
    exit 2
fi
videos=$(cd "$FILMED_DIR" && pwd)/$set_name
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup_env.sh || exit 1
if [ ! -f "data/$set_name/classes.txt" ]; then
    # Status 1: some clips cannot be used, as it says.
    "$PY" tools/prepare_data.py folder --videos "$videos" --out "data/$set_name" "${lists[@]}" || [ $? = 1 ]
fi
read -ra arms <<<"${ARMS:-emim joint r2plus1d frames emim_pretrained joint_pretrained r2plus1d_pretrained emim_prompts}"
for arm in "${arms[@]}"; do
    for start in "${arm%_*}" "$arm"; do # from synthetic motions, and from there to gestures
        pretraining=configs/filmed/pretraining_$start.yaml
        if [[ "$arm" == *_@(pretrained|gestures) && -f "$pretraining" ]]; then
            [[ "$start" == *_gestures ]] || bash exp/quickstart/run.sh --dry-run # makes the videos
            "$PY" tools/run_net.py --cfg "$pretraining"
        fi
    done
done
arms=("${arms[@]/#/configs/filmed/}")
exec "$PY" tools/crossval.py --data "data/$set_name" --cfgs "${arms[@]/%/.yaml}" ${options[@]+"${options[@]}"} \
    --out "exp/filmed/output_$set_name" "${settings[@]}" "$@"
