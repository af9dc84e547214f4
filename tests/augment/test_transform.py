import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.erasing import draw_erasing, erase_
from slowfast.datasets.augment.finish import Finish, PackedClips
from slowfast.datasets.augment.rand_augment import RandAugment
from slowfast.datasets.augment.transform import (
    TestTransform,
    TrainTransform,
    build_test_transform,
    build_train_transform,
    draw_crop_box,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
AREA, ASPECT = (0.08, 1.0), (0.75, 1.3333)
LEVEL = 1 / (255 * min(STD))  # at least one grey level, in units of the normalised clips


def make_frames(num_frames=4, height=60, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def make_ramp(height, width, axis):
    """Frames whose values are the pixel's coordinate along an axis (1 rows, 2 columns)."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    ramp = np.arange((height, width)[axis - 1]).reshape(shape)
    return np.broadcast_to(ramp, (2, height, width, 3)).astype(np.uint8)


def literal_train_transform(frames, rng, size, flip_prob, augment):
    """The recipe word for word: full-size frames are normalised, then cropped, resized, flipped, erased."""
    if augment is not None:
        frames = augment(frames, rng)
    clip = torch.from_numpy(frames.copy()).float() / 255
    clip = ((clip - torch.tensor(MEAN)) / torch.tensor(STD)).permute(3, 0, 1, 2)
    top, left, height, width = draw_crop_box(rng, *clip.shape[2:], AREA, ASPECT)
    clip = clip[:, :, top : top + height, left : left + width]
    clip = F.interpolate(clip, size=(size, size), mode="bilinear", align_corners=False)
    if rng.random() < flip_prob:
        clip = clip.flip(-1)
    return erase_(clip, draw_erasing(rng, size, size, 0.25), "pixel")


def finish_train(transform, frames, rng):
    """Both parts of the pipeline, with the bytes in between."""
    clip, remainder = transform(frames, rng)
    assert clip.dtype == torch.uint8 and clip.is_contiguous()
    clips = clip[None] if transform.resize else PackedClips.pack([clip])
    (finished,) = Finish(transform.size, MEAN, STD)(clips, [remainder])
    return finished


@pytest.mark.parametrize("resize", [True, False])
def test_train_transform_equals_the_literal_order(resize):
    # Only the bytes between worker and training process round, to the nearest level, if the worker resizes.
    tolerance = 0.5 * LEVEL if resize else 0
    transform = TrainTransform(32, AREA, ASPECT, 0.5, None, erase_prob=0.25, resize=resize)
    for seed in range(40):
        frames = make_frames(seed=seed)
        fast = finish_train(transform, frames, np.random.default_rng(seed))
        literal = literal_train_transform(frames, np.random.default_rng(seed), 32, 0.5, None)
        assert fast.shape == (3, 4, 32, 32) and fast.dtype == torch.float32
        torch.testing.assert_close(fast, literal, rtol=0, atol=tolerance + 2e-5)


@pytest.mark.parametrize("resize", [True, False])
def test_train_transform_equals_the_literal_order_with_rand_augment(resize):
    augment = RandAugment.from_string("rand-m7-n4-mstd0.5-inc1")
    transform = TrainTransform(32, AREA, ASPECT, 0.5, augment, erase_prob=0.25, resize=resize)
    rounding = 0.5 if resize else 0
    for seed in range(40):
        frames = make_frames(seed=seed)
        fast = finish_train(transform, frames, np.random.default_rng(seed))
        literal = literal_train_transform(frames, np.random.default_rng(seed), 32, 0.5, augment)
        wrong = (fast - literal).abs() / LEVEL
        assert (wrong > rounding + 0.01).float().mean() < 0.05, seed  # see test_region_augment
        assert wrong.mean() < rounding + 0.2


def test_train_transform_is_reproducible_and_leaves_its_input():
    frames = make_frames()
    before = frames.copy()
    frames.flags.writeable = False  # as decoders may hand them out
    cfg = get_cfg()
    cfg.DATA.TRAIN_CROP_SIZE = 32
    transform = build_train_transform(cfg)
    rng = np.random.default_rng(1)
    first, second = transform(frames, rng), transform(frames, rng)
    again = transform(frames, np.random.default_rng(1))
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert not torch.equal(first[0], second[0])
    np.testing.assert_array_equal(frames, before)


def test_where_the_crop_is_resized_does_not_change_the_draws():
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.TRAIN_CROP_SIZE", 32, "AUG.RE_PROB", 1.0, "DATA.RANDOM_FLIP", True])
    here = build_train_transform(cfg)
    cfg.DATA.AUGMENT_DEVICE = "device"
    there = build_train_transform(cfg)
    for seed in range(20):
        clips = [finish_train(one, make_frames(), np.random.default_rng(seed)) for one in (here, there)]
        torch.testing.assert_close(*clips, rtol=0, atol=0.5 * LEVEL + 2e-5)


def test_train_transform_treats_all_frames_alike():
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.TRAIN_CROP_SIZE", 24, "DATA.RANDOM_FLIP", True])
    transform = build_train_transform(cfg)
    still = np.repeat(make_frames(1), 4, axis=0)
    for seed in range(20):
        clip, _ = transform(still, np.random.default_rng(seed))
        assert (clip == clip[:, :1]).all()


def test_half_of_the_clips_are_to_be_mirrored():
    transform = TrainTransform(16, flip_prob=0.5)
    rng = np.random.default_rng(2)
    flips = [transform(make_frames(1, 16, 16), rng)[1].flip for _ in range(400)]
    assert 0.4 < np.mean(flips) < 0.6


def test_no_flip_by_default():
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


def test_crop_of_a_fitting_frame_is_the_whole_frame():
    assert draw_crop_box(np.random.default_rng(5), 40, 50, (1.0, 1.0), (1.25, 1.25)) == (0, 0, 40, 50)


def test_test_transform_equals_the_literal_order():
    frames = make_frames(height=60, width=97)
    crops = TestTransform(32, 3)(frames)
    assert crops.dtype == torch.uint8
    crops = Finish(32, MEAN, STD)(crops)
    clip = (torch.from_numpy(frames).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    clip = clip.permute(3, 0, 1, 2)
    long = math.floor(97 / 60 * 32)
    clip = F.interpolate(clip, size=(32, long), mode="bilinear", align_corners=False)
    assert crops.shape == (3, 3, 4, 32, 32) and crops.dtype == torch.float32
    for crop, left in zip(crops, (0, math.ceil((long - 32) / 2), long - 32), strict=True):
        # Bytes between worker and model: rounded to the nearest level.
        torch.testing.assert_close(crop, clip[..., left : left + 32], rtol=0, atol=0.5 * LEVEL + 2e-5)


@pytest.mark.parametrize(("height", "width", "axis"), [(20, 33, 2), (33, 20, 1)])
def test_crops_lie_along_the_longer_side(height, width, axis):
    ramp = make_ramp(height, width, axis)
    three = TestTransform(20, 3)(ramp)  # no resampling; the offsets are 0, ceil(13 / 2) and 13
    for crop, offset in zip(three, (0, 7, 13), strict=True):
        line = crop[0, 0, :, 0] if axis == 1 else crop[0, 0, 0, :]
        assert line.tolist() == list(range(offset, offset + 20))
    one = TestTransform(20, 1)(ramp)
    assert one.shape[0] == 1 and torch.equal(one[0], three[1])


def test_square_frames_give_three_equal_crops():
    crops = TestTransform(24, 3)(make_frames(height=48, width=48))
    assert torch.equal(crops[0], crops[1]) and torch.equal(crops[0], crops[2])


@pytest.mark.parametrize("size", [224, 256])
def test_every_frame_size_gives_full_crops(size):
    transform = TestTransform(size, 3)
    for height, width in [(1, 1), (240, 427), (427, 240), (244, 112), (115, 112), (size, size + 1)]:
        assert transform(make_frames(1, height, width)).shape == (3, 3, 1, size, size)


def test_channels_are_normalised_as_rgb():
    frames = np.empty((2, 8, 8, 3), dtype=np.uint8)
    frames[:] = (255, 102, 0)
    expected = [(1 - 0.5) / 0.2, (0.4 - 0.4) / 0.25, (0 - 0.3) / 0.3]
    train = finish_train(TrainTransform(8), frames, np.random.default_rng(6))
    (test,) = Finish(8, MEAN, STD)(TestTransform(8, 1)(frames))
    for channel, value in enumerate(expected):
        torch.testing.assert_close(train[channel], torch.full((2, 8, 8), value), atol=1e-5, rtol=0)
        torch.testing.assert_close(test[channel], torch.full((2, 8, 8), value), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_crops", [0, 2, 5])
def test_other_numbers_of_crops_are_refused(num_crops):
    with pytest.raises(ValueError, match=rf"TEST\.NUM_SPATIAL_CROPS.* {num_crops};"):
        build_test_transform(get_cfg(), num_crops)


@pytest.mark.parametrize(
    "frames", [make_frames().astype(np.float32), make_frames()[0], make_frames()[..., :1], make_frames()[:0]]
)
def test_frames_of_another_form_are_refused(frames):
    with pytest.raises(ValueError, match="uint8"):
        TestTransform(8, 1)(frames)
    with pytest.raises(ValueError, match="uint8"):
        TrainTransform(8)(frames, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DATA.MEAN", [0.5]),
        ("DATA.STD", [0.2, 0.2, 0.0]),
        ("DATA.TRAIN_CROP_SIZE", 0),
        ("DATA.AUGMENT_DEVICE", "cuda"),
        ("DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.0, 1.0]),
        ("DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.5, 1.5]),
        ("DATA.TRAIN_JITTER_ASPECT_RELATIVE", [1.3, 0.7]),
        ("AUG.AA_TYPE", "rand-m7-n4-mstd0.5-inc2"),
        ("AUG.INTERPOLATION", "lanczos"),
        ("AUG.RE_PROB", 1.5),
        ("AUG.RE_COUNT", 0),
        ("AUG.RE_MODE", "rand"),
    ],
)
def test_build_train_transform_names_the_wrong_key(key, value):
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=key.replace(".", r"\.")) as error:
        build_train_transform(cfg)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("DATA.TEST_CROP_SIZE", -1), ("DATA.MEAN", []), ("DATA.STD", [])])
def test_build_test_transform_names_the_wrong_key(key, value):
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        build_test_transform(cfg, 1)


def test_transforms_can_be_sent_to_worker_processes():
    cfg = get_cfg()
    frames = make_frames(num_frames=1)
    train, test = build_train_transform(cfg), build_test_transform(cfg, 3)
    sent_train, sent_test = pickle.loads(pickle.dumps((train, test)))
    assert torch.equal(sent_train(frames, np.random.default_rng(0))[0], train(frames, np.random.default_rng(0))[0])
    assert torch.equal(sent_test(frames), test(frames))


def test_built_transforms_follow_the_configuration():
    cfg = get_cfg()
    keys = ["AUG.AA_TYPE", "", "AUG.RE_PROB", 0.0, "DATA.RANDOM_FLIP", True, "DATA.TRAIN_CROP_SIZE", 40]
    cfg.merge_from_list([*keys, "DATA.TEST_CROP_SIZE", 48])
    train = build_train_transform(cfg)
    assert train.rand_augment is None and train.flip_prob == 0.5
    assert train(make_frames(), np.random.default_rng(7))[0].shape == (3, 4, 40, 40)
    assert build_test_transform(cfg, 3)(make_frames()).shape == (3, 3, 4, 48, 48)
