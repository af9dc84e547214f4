"""Crops, flips and scales: training clips follow their draws, testing crops are where the protocols say."""

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.transform import (
    TestTransform,
    TrainTransform,
    build_test_transform,
    build_train_transform,
    draw_crop_box,
)

AREA, ASPECT = (0.08, 1.0), (0.75, 1.3333)


def make_frames(num_frames=4, height=60, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def make_ramp(height, width, axis):
    """Frames whose values are the pixel's coordinate along an axis (1 rows, 2 columns)."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    ramp = np.arange((height, width)[axis - 1]).reshape(shape)
    return np.broadcast_to(ramp, (2, height, width, 3)).astype(np.uint8)


def test_training_clips_are_the_drawn_crop_resized_and_flipped():
    transform = TrainTransform(32, AREA, ASPECT, flip_prob=0.5)
    for seed in range(10):
        frames = np.concatenate([make_ramp(60, 90, 1)[:1] * 4, make_ramp(60, 90, 2)[:1] * 2])
        clip = transform(frames, np.random.default_rng(seed))[0]
        assert clip.shape == (3, 2, 32, 32) and clip.dtype == torch.uint8
        rng = np.random.default_rng(seed)
        top, left, height, width = draw_crop_box(rng, 60, 90, AREA, ASPECT)
        literal = torch.from_numpy(frames).permute(3, 0, 1, 2).float()
        literal = literal[:, :, top : top + height, left : left + width]
        literal = F.interpolate(literal, size=(32, 32), mode="bilinear", align_corners=False)
        literal = literal.flip(-1) if rng.random() < 0.5 else literal
        torch.testing.assert_close(clip.float(), literal, rtol=0, atol=1)


def test_training_clips_are_reproducible_and_copies_differ():
    frames = make_frames()
    before = frames.copy()
    cfg = get_cfg()
    cfg.DATA.TRAIN_CROP_SIZE = 32
    transform = build_train_transform(cfg)
    copies = transform(frames, np.random.default_rng(1), num_copies=2)
    rng = np.random.default_rng(1)
    assert torch.equal(copies, torch.cat([transform(frames, rng), transform(frames, rng)]))
    assert not torch.equal(*copies)
    np.testing.assert_array_equal(frames, before)


def test_half_of_the_clips_are_mirrored_and_none_by_default():
    ramp = make_ramp(16, 16, 2)
    for prob, low, high in ((0.5, 0.4, 0.6), (0.0, 0, 0)):
        transform, rng = TrainTransform(16, flip_prob=prob), np.random.default_rng(2)
        clips = [transform(ramp, rng)[0, 0, 0, 0].int() for _ in range(400)]
        assert low <= np.mean([bool(row[0] > row[-1]) for row in clips]) <= high
    assert build_train_transform(get_cfg()).flip_prob == 0


def test_crop_boxes_follow_area_aspect_and_place():
    rng = np.random.default_rng(3)
    boxes = np.array([draw_crop_box(rng, 240, 320, AREA, ASPECT) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert top.min() == 0 and left.min() == 0
    assert (top + height).max() == 240 and (left + width).max() == 320
    aspect = width / height
    assert 0.73 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.36
    small = height * width / (240 * 320) < 0.5  # larger areas are rejected more often than they fit
    share = height[small] * width[small] / (240 * 320)
    assert 0.078 < share.min() < 0.085 and abs(share.mean() - 0.29) < 0.01
    assert abs(np.mean(np.log(aspect[small]))) < 0.01
    assert abs(np.mean(top[small] / (240 - height[small])) - 0.5) < 0.02
    assert abs(np.mean(left[small] / (320 - width[small])) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("height", "width", "box"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (1, 50, (0, 24, 1, 1))]
)
def test_crop_of_a_frame_that_no_draw_fits_is_central_with_the_nearest_aspect(height, width, box):
    rng = np.random.default_rng(4)
    assert draw_crop_box(rng, height, width, (1.0, 1.0), ASPECT) == box


def test_testing_equals_the_literal_order():
    frames = make_frames(height=60, width=97)
    crops = TestTransform(32, 3)(frames)
    long = math.floor(97 / 60 * 32)
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2).float()
    clip = F.interpolate(clip, size=(32, long), mode="bilinear", align_corners=False)
    assert crops.shape == (3, 3, 4, 32, 32) and crops.dtype == torch.uint8
    for crop, left in zip(crops, (0, math.ceil((long - 32) / 2), long - 32), strict=True):
        torch.testing.assert_close(crop.float(), clip[..., left : left + 32], rtol=0, atol=0.501)  # whole levels


@pytest.mark.parametrize(("height", "width", "axis"), [(20, 33, 2), (33, 20, 1)])
def test_crops_lie_along_the_longer_side(height, width, axis):
    ramp = make_ramp(height, width, axis)
    three = TestTransform(20, 3)(ramp)  # no resampling; the offsets are 0, ceil(13 / 2) and 13
    for crop, offset in zip(three, (0, 7, 13), strict=True):
        line = crop[0, 0, :, 0] if axis == 1 else crop[0, 0, 0, :]
        assert line.tolist() == list(range(offset, offset + 20))
    one = TestTransform(20, 1)(ramp)
    assert one.shape[0] == 1 and torch.equal(one[0], three[1])


def test_short_side_longer_than_the_crop_centres_the_other_axis():
    transform = TestTransform(32, 3, short_side=40)  # no resampling
    for crop, left in zip(transform(make_ramp(40, 60, 2)), (0, 14, 28), strict=True):
        assert crop[0, 0, 0].tolist() == list(range(left, left + 32))
    for crop in transform(make_ramp(40, 60, 1)):
        assert crop[0, 0, :, 0].tolist() == list(range(4, 36))


def test_a_short_side_below_the_crop_is_named():
    cfg = get_cfg()
    cfg.DATA.TEST_SHORT_SIDE = 223
    with pytest.raises(ValueError, match=r"DATA\.TEST_SHORT_SIDE is 223; allowed: 0 \| DATA\.TEST_CROP_SIZE \(224\)"):
        build_test_transform(cfg, 1)


def test_built_transforms_follow_the_configuration_and_travel_to_workers():
    cfg = get_cfg()
    keys = ["AUG.AA_TYPE", "", "DATA.RANDOM_FLIP", True, "DATA.TRAIN_CROP_SIZE", 40]
    cfg.merge_from_list([*keys, "DATA.TEST_CROP_SIZE", 48])
    train, test = build_train_transform(cfg), build_test_transform(cfg, 3)
    assert train.rand_augment is None and train.flip_prob == 0.5
    sent_train, sent_test = pickle.loads(pickle.dumps((train, test)))
    clips, sent_clips = (one(make_frames(), np.random.default_rng(7)) for one in (train, sent_train))
    assert clips.shape == (1, 3, 4, 40, 40) and torch.equal(clips, sent_clips)
    assert test(make_frames()).shape == (3, 3, 4, 48, 48) and torch.equal(test(make_frames()), sent_test(make_frames()))
