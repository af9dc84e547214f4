"""Rendered stimuli as a data set: what is drawn anew, and what is the same for every run."""

import numpy as np
import pytest

from slowfast.config import load_cfg
from slowfast.datasets.build import build_dataset
from slowfast.utils.errors import UserError

STUDY = "configs/motion_study/emim.yaml"


def dataset(split, *overrides):
    return build_dataset(load_cfg(STUDY, ["MODEL.NUM_CLASSES", 8, "DATA.ARGS.num_train", 16, *overrides]), split)


def test_training_clips_are_new_in_every_epoch_and_seed_and_come_from_their_key_alone():
    train = dataset("train")
    clips = [train[key].clips.numpy() for key in ((0, 3), (1, 3), (0, 11), (0, 3))]
    other = dataset("train", "RNG_SEED", 1)[0, 3].clips.numpy()
    assert clips[0].shape == (1, 3, 6, 64, 64)
    np.testing.assert_array_equal(clips[0], clips[3])
    assert not any(np.array_equal(clips[0], each) for each in (*clips[1:3], other))


def test_validation_clips_are_the_same_for_every_seed_and_show_the_texture_of_the_test():
    first, second = (dataset("val", "RNG_SEED", seed)[5].clips.numpy() for seed in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, dataset("val", "DATA.ARGS.test_texture", "cells")[5].clips.numpy())
    assert not np.array_equal(first, dataset("train")[0, 5].clips.numpy())


def test_a_clip_behind_motion_prompts_has_one_more_frame():
    assert dataset("val", "VMP.ENABLE", True)[0].clips.shape == (1, 3, 7, 64, 64)


@pytest.mark.parametrize("num_frames", [8, 16])
def test_gestures_have_the_size_of_the_configuration_and_the_labels_of_the_filmed_ones(num_frames):
    cfg = load_cfg("configs/filmed/pretraining_emim_gestures.yaml", ["DATA.NUM_FRAMES", num_frames])
    train = build_dataset(cfg, "train")
    assert train[0, 7].clips.shape == (1, 3, num_frames, 96, 96) and train[0, 7].label == 7
    # In the order in which tools/prepare_data.py folder lists the classes of the filmed ones.
    assert " ".join(train.class_names) == "carret circlecc del down left right square star tick up"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.SAMPLING_RATE", 2], "DATA.SAMPLING_RATE is 2; allowed for Rendered"),
        (["DATA.TEST_CROP_SIZE", 32], "DATA.TEST_CROP_SIZE is 32; allowed for Rendered .*: 64"),
        (["DATA.DATASET", "ImageFolder"], "DATA.ARGS is {'num_train': 16}, but ImageFolder .* takes none"),
        (["DATA.ARGS.displacement", [1, 4]], r"\[1, 4\] tokens of 8 px a frame, .*: less than 4, half a frame"),
        (["DATA.RANDOM_FLIP", True], "RANDOM_FLIP is True; allowed: False, for it changes the answer to motion"),
        (["TEST.NUM_SPATIAL_CROPS", 3], "must be 1 for Rendered"),
        (["DATA.ARGS.question", "why"], r"question is 'why'; allowed: motion \| appearance \| instance \| gesture"),
        (["DATA.ARGS.question", "instance"], "NUM_CLASSES is 8, but DATA.ARGS.question instance has 128 answers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        dataset("train", *overrides)
