"""From the bytes of the workers to float clips: normalisation, flips and erasing of the right clips, packed sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slowfast.datasets.augment.erasing import Erasing, draw_erasing, erase_
from slowfast.datasets.augment.finish import Finish, PackedClips, Remainder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NOTHING = Erasing((), 0)


def make_clips(count=3, height=12, width=12):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 2, height, width), generator=generator, dtype=torch.uint8)


def normalized(clips):
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (clips / 255 - mean) / std


def test_clips_are_normalised_as_rgb():
    clips = make_clips()
    finished = Finish(12, MEAN, STD)(clips)
    assert finished.dtype == torch.float32
    torch.testing.assert_close(finished, normalized(clips), rtol=0, atol=1e-5)


def test_whole_clips_are_mirrored_and_only_those_that_should_be():
    clips = make_clips()
    remainders = [Remainder(flip, NOTHING) for flip in (False, True, False)]
    expected = normalized(clips)
    expected[1] = expected[1].flip(-1)
    torch.testing.assert_close(Finish(12, MEAN, STD)(clips, remainders), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["pixel", "const"])
def test_erasing_comes_last(mode):
    clips = make_clips()
    erasing = draw_erasing(np.random.default_rng(0), 12, 12, prob=1.0)
    remainders = [Remainder(True, NOTHING), Remainder(True, erasing), Remainder(False, NOTHING)]
    finished = Finish(12, MEAN, STD, mode)(clips, remainders)
    (top, left, height, width) = erasing.boxes[0]
    by_hand = erase_(normalized(clips)[1].flip(-1), erasing, mode)
    torch.testing.assert_close(finished[1], by_hand, rtol=0, atol=1e-5)
    region = finished[1][:, :, top : top + height, left : left + width]
    assert (region == 0).all() if mode == "const" else abs(region.std() - 1) < 0.3
    torch.testing.assert_close(finished[2], normalized(clips)[2], rtol=0, atol=1e-5)


def test_the_noise_of_a_clip_does_not_depend_on_its_neighbours():
    clips = make_clips(2)
    remainders = [Remainder(False, draw_erasing(np.random.default_rng(seed), 12, 12, prob=1.0)) for seed in range(2)]
    finish = Finish(12, MEAN, STD)
    both = finish(clips, remainders)
    swapped = finish(clips.flip(0), remainders[::-1])
    assert torch.equal(both, swapped.flip(0))
    assert torch.equal(both[1:], finish(clips[1:], remainders[1:]))


def test_packed_clips_are_resized_each_from_its_own_size():
    crops = [make_clips(1, *size)[0] for size in ((5, 9), (12, 12), (30, 7))]
    packed = PackedClips.pack(crops)
    assert len(packed) == 3 and all(torch.equal(a, b) for a, b in zip(packed.unpack(), crops, strict=True))
    finished = Finish(12, MEAN, STD)(packed, [Remainder(index == 0, NOTHING) for index in range(3)])
    for index, crop in enumerate(crops):
        resized = F.interpolate(crop.double(), size=(12, 12), mode="bilinear", align_corners=False)
        expected = normalized(resized.flip(-1) if index == 0 else resized)
        torch.testing.assert_close(finished[index].double(), expected, rtol=0, atol=1e-4)


def test_one_remainder_for_each_clip():
    with pytest.raises(ValueError, match="shorter"):
        Finish(12, MEAN, STD)(make_clips(3), [Remainder(False, NOTHING)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_clips_are_finished_on_the_device_where_they_are():
    crops = PackedClips.pack([make_clips(1, *size)[0] for size in ((5, 9), (12, 12))])
    erasing = draw_erasing(np.random.default_rng(0), 12, 12, prob=1.0)
    remainders = [Remainder(True, NOTHING), Remainder(False, erasing)]
    finish = Finish(12, MEAN, STD)
    on_device = finish(crops.map(lambda data: data.cuda()), remainders)
    assert on_device.is_cuda
    assert torch.equal(on_device, finish(crops.map(lambda data: data.cuda()), remainders))
    torch.testing.assert_close(on_device[0].cpu(), finish(crops, remainders)[0], rtol=0, atol=1e-4)
