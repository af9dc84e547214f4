import numpy as np
import pytest
import torch

from slowfast.datasets.augment.erasing import draw_erasing, draw_erasing_box, erase_


def random_erasing(clip, rng, prob=1.0, mode="pixel"):
    return erase_(clip, draw_erasing(rng, *clip.shape[2:], prob), mode)


def test_boxes_follow_area_aspect_and_place():
    rng = np.random.default_rng(0)
    boxes = np.array([draw_erasing_box(rng, 224, 224) for _ in range(3000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height).max() == 224 and (left + width).max() == 224  # the border is reached, never crossed
    share = height * width / 224**2
    assert 0.019 < share.min() < 0.025 and 0.3 < share.max() < 0.336
    assert abs(share.mean() - (0.02 + 1 / 3) / 2) < 0.02
    log_aspect = np.log(height / width)
    assert abs(log_aspect.mean()) < 0.05 and np.abs(log_aspect).max() < np.log(1 / 0.3) + 0.05
    free = height < 200
    assert abs(np.mean(top[free] / (224 - height[free])) - 0.5) < 0.03


def test_several_boxes_share_the_area():
    rng = np.random.default_rng(1)
    boxes = np.array([draw_erasing_box(rng, 224, 224, count=4) for _ in range(500)])
    assert (boxes[:, 2] * boxes[:, 3]).max() < 224**2 / 3 / 4 * 1.1


def test_a_frame_of_one_pixel_is_left_alone():
    for seed in range(20):
        assert not random_erasing(torch.zeros(3, 2, 1, 1), np.random.default_rng(seed), prob=1).any()


def test_one_box_for_all_frames_filled_with_independent_unit_noise():
    clip = random_erasing(torch.full((3, 8, 64, 80), 7.0), np.random.default_rng(3), prob=1.0)
    erased = clip != 7
    assert (erased == erased[:1, :1]).all(), "the box must be the same in all frames and channels"
    rows, columns = erased[0, 0].nonzero(as_tuple=True)
    box = clip[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (box != 7).all(), "the erased region must be a rectangle"
    assert abs(box.mean()) < 0.05 and abs(box.std() - 1) < 0.05
    between_frames = torch.corrcoef(box.transpose(0, 1).reshape(8, -1)) - torch.eye(8)
    assert between_frames.abs().max() < 0.15, "each frame needs its own noise"


def test_const_mode_writes_zero():
    clip = random_erasing(torch.full((3, 2, 32, 32), 7.0), np.random.default_rng(4), prob=1.0, mode="const")
    assert set(clip.unique().tolist()) == {0.0, 7.0}


@pytest.mark.parametrize("prob", [0.0, 0.25, 1.0])
def test_probability(prob):
    rng = np.random.default_rng(5)
    clips = [random_erasing(torch.ones(3, 1, 16, 16), rng, prob) for _ in range(800)]
    erased = np.mean([bool((clip != 1).any()) for clip in clips])
    assert abs(erased - prob) <= (0.06 if prob == 0.25 else 0)


def test_the_seed_of_the_noise_is_drawn_with_the_boxes():
    erasing = draw_erasing(np.random.default_rng(6), 16, 16, prob=1.0, count=2)
    assert len(erasing.boxes) == 2
    first, again = (erase_(torch.zeros(3, 2, 16, 16), erasing) for _ in range(2))
    assert torch.equal(first, again)
    other = erase_(torch.zeros(3, 2, 16, 16), erasing._replace(noise_seed=erasing.noise_seed + 1))
    assert not torch.equal(first, other) and torch.equal(first != 0, other != 0)
