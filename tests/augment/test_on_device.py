"""Bytes to float clips: normalisation, erasing of whole clips, and the stages of a training batch in their order."""

import numpy as np
import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.on_device import Normalize, RandomErasing, build_normalize, build_train_batch_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


def make_clips(count=3, size=12):
    generator = torch.Generator().manual_seed(count)
    clips = torch.randint(0, 256, (count, 2, size, size, 3), generator=generator, dtype=torch.uint8)
    return clips.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_clips_are_normalised_as_rgb_in_any_memory_format(device):
    clips = make_clips().to(device)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1, 1) for values in (MEAN, STD))
    normalize = Normalize(MEAN, STD)
    for given in (clips, clips.contiguous(), clips[:0]):
        floats = normalize(given)
        assert floats.dtype == torch.float32 and (floats.stride(1) == 1 or not len(given))  # channels last
        torch.testing.assert_close(floats, (given / 255 - mean) / std, rtol=0, atol=1e-5)


def test_memory_is_used_again_only_when_nothing_refers_to_it():
    normalize, clips = Normalize(MEAN, STD), make_clips()
    kept = normalize(clips)[1:]
    before = kept.clone()
    second = normalize(255 - clips)
    assert torch.equal(kept, before) and second.untyped_storage().data_ptr() != kept.untyped_storage().data_ptr()
    place = second.data_ptr()
    del second
    assert normalize(clips).data_ptr() == place


def test_boxes_are_drawn_from_the_ranges_of_erasing():
    def erased(count, num_clips):
        erase = RandomErasing(1.0, count, "const")
        return erase(torch.ones(num_clips, 3, 1, 112, 112), np.random.default_rng(0))[:, 0, 0] == 0

    masks = erased(1, 2000)
    rows, columns = masks.any(2).numpy(), masks.any(1).numpy()
    height, width = rows.sum(1), columns.sum(1)
    assert rows[:, -1].any() and columns[:, -1].any()  # the border is reached
    share = height * width / 112**2
    np.testing.assert_array_equal(masks.sum((1, 2)), height * width)
    assert 0.018 < share.min() < 0.026 and 0.3 < share.max() < 0.34
    assert 1.1 < np.abs(np.log(height / width)).max() < np.log(1 / 0.3) + 0.05
    assert 0.1 < erased(4, 300).float().mean() < 0.2  # several boxes share the area


def test_one_box_for_all_frames_filled_with_independent_unit_noise():
    (clip,) = RandomErasing(1.0)(torch.full((1, 3, 8, 64, 80), 7.0), np.random.default_rng(3))
    erased = clip != 7
    assert (erased == erased[:1, :1]).all(), "the box must be the same in all frames and channels"
    rows, columns = erased[0, 0].nonzero(as_tuple=True)
    box = clip[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (box != 7).all(), "the erased region must be a rectangle"
    assert abs(box.mean()) < 0.05 and abs(box.std() - 1) < 0.05
    between_frames = torch.corrcoef(box.transpose(0, 1).reshape(8, -1)) - torch.eye(8)
    assert between_frames.abs().max() < 0.15, "each frame needs its own noise"


def test_each_clip_has_its_own_draws():
    for prob, low, high in ((0.0, 0, 0), (0.25, 0.19, 0.31), (1.0, 1, 1)):
        clips = RandomErasing(prob)(torch.ones(800, 3, 1, 16, 16), np.random.default_rng(5))
        masks = (clips != 1)[:, 0, 0]
        assert low <= masks.any(dim=(1, 2)).double().mean() <= high
        assert prob == 0 or len(masks.unique(dim=0)) > 50


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_depends_on_the_generator_alone(device):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.NUM_CLASSES", 5, "AUG.RE_PROB", 1.0])
    transform = build_train_batch_transform(cfg)
    clips, labels = make_clips(4).to(device), torch.arange(4, device=device)
    state = torch.get_rng_state()
    first, again, other = (transform(clips, labels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == clips.shape and first[0].dtype == first[1].dtype == torch.float32
    assert torch.equal(state, torch.get_rng_state())
    nothing, targets = transform(clips[:0], labels[:0], np.random.default_rng(0))
    assert nothing.shape == (0, *clips.shape[1:]) and targets.shape == (0, 5)


def test_clips_are_erased_before_they_are_mixed():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.NUM_CLASSES", 2, "AUG.RE_PROB", 1.0, "MIXUP.CUTMIX_ALPHA", 0.0])
    cfg.merge_from_list(["MIXUP.LABEL_SMOOTH_VALUE", 0.0])
    clips, labels = make_clips(2, 32), torch.tensor([0, 1])
    mixed, targets = build_train_batch_transform(cfg)(clips, labels, np.random.default_rng(0))
    cfg.MIXUP.ENABLE = False
    erased, _ = build_train_batch_transform(cfg)(clips, labels, np.random.default_rng(0))
    share = targets[0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * erased + (1 - share) * erased.flip(0))


def test_evaluation_only_normalises():
    torch.testing.assert_close(build_normalize(get_cfg())(make_clips()), (make_clips() / 255 - 0.45) / 0.225)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_host_does_not_wait_for_the_device():
    cfg = get_cfg().with_settings("AUG.RE_PROB", 1.0, "MODEL.NUM_CLASSES", 5)
    transform, clips, labels = build_train_batch_transform(cfg), make_clips(4).cuda(), torch.arange(4).cuda()
    transform(clips, labels, np.random.default_rng(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed in range(10):
            transform(clips, labels, np.random.default_rng(seed))
    finally:
        torch.cuda.set_sync_debug_mode("default")
