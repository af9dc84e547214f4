"""The fast RandAugment equals the definition: each operation, in every place of a chain, in every part of the frame."""

import numpy as np
import pytest
from PIL import Image

from slowfast.datasets.augment.rand_augment import INCREASING_OPERATIONS, RandAugment
from slowfast.datasets.augment.region_augment import (
    GEOMETRIC,
    LOCAL,
    POINTWISE,
    STATISTICS,
    augment_region,
    needed_boxes,
)
from slowfast.datasets.augment.warp import Box

RECIPE = "rand-m7-n4-mstd0.5-inc1"
HEIGHT, WIDTH = 45, 68
FRAME = Box(0, 0, HEIGHT, WIDTH)
# Inside, touching each border, the whole, and a single pixel in the corner.
BOXES = (Box(11, 17, 20, 30), Box(0, 0, 12, 15), Box(30, 41, 15, 27), FRAME, Box(HEIGHT - 1, 0, 1, 1))
# Grey levels by which an operation may differ from Pillow's: tables are exact, the others compute in single precision
# where Pillow has doubles or cuts decimals off.
TOLERANCE = {**dict.fromkeys((*POINTWISE, *STATISTICS), 0), **dict.fromkeys((*GEOMETRIC, *LOCAL), 1)}


def make_frames(num_frames=2, height=HEIGHT, width=WIDTH, seed=0):
    """Smooth colours plus noise, different in every frame; the full range in some, part of it in others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in coarse]
    noise = rng.integers(-12, 13, (num_frames, height, width, 3))
    return np.stack([(frame + extra).clip(20 * t, 255 - 30 * t) for t, (frame, extra) in enumerate(zip(smooth, noise))])


def define(augment, frames, drawn, box):
    """The definition, as planes of the box."""
    planes = augment.apply(frames, drawn).transpose(3, 0, 1, 2)
    return planes[:, :, box.top : box.bottom, box.left : box.right].astype(int)


def difference(augment, frames, drawn, box):
    fast = augment_region(augment, frames, drawn, box)
    assert fast.dtype == np.uint8 and fast.shape == (3, len(frames), box.height, box.width)
    return np.abs(fast.astype(int) - define(augment, frames, drawn, box))


def test_every_operation_is_of_one_kind():
    kinds = (GEOMETRIC, POINTWISE, STATISTICS, LOCAL)
    assert sorted(name for kind in kinds for name in kind) == sorted(INCREASING_OPERATIONS)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("name", sorted(INCREASING_OPERATIONS))
def test_operations_equal_their_definition(name, interpolation):
    frames = make_frames().astype(np.uint8)
    for increasing in (True, False):
        augment = RandAugment(increasing=increasing, interpolation=interpolation)
        for strength, sign in ((0.0, 1), (0.13, -1), (0.7, 1), (0.7, -1), (1.0, 1)):
            args = augment.operations[name].arguments(strength, sign, HEIGHT, WIDTH)
            for box in BOXES:
                wrong = difference(augment, frames, [(name, args)], box)
                assert wrong.max() <= TOLERANCE[name], (strength, sign, box)
                assert (wrong > 0).mean() <= 0.05  # most where the exact results are whole numbers


@pytest.mark.parametrize("name", sorted(INCREASING_OPERATIONS))
def test_operations_equal_their_definition_in_every_place_of_a_chain(name):
    """Before and after operations of every kind.

    After exact operations the tolerance is that of the operation. After others it applies to all but a few pixels,
    since what follows can enlarge a difference of one level (solarising does, at its threshold).
    """
    augment = RandAugment.from_string(RECIPE)
    frames = make_frames(seed=1).astype(np.uint8)
    single = (name, augment.operations[name].arguments(0.65, 1, HEIGHT, WIDTH))
    for other in ("Invert", "Solarize", "Equalize", "Contrast", "Rotate", "ShearY", "Sharpness", "Color"):
        around = (other, augment.operations[other].arguments(0.72, -1, HEIGHT, WIDTH))
        for chain in ([around, single], [single, around], [around, single, around], [single, single]):
            tolerances = [TOLERANCE[step] for step, _ in chain]
            for box in BOXES[:3]:
                wrong = difference(augment, frames, chain, box)
                if not any(tolerances[:-1]):
                    assert wrong.max() <= tolerances[-1], (chain, box)
                # A difference of one level can also move the tables of the whole frame by some levels.
                moved = sum(step in STATISTICS for step, _ in chain)
                assert (wrong > sum(tolerances) + 8 * moved).mean() <= 0.01 and wrong.mean() < 0.3, (chain, box)


def test_drawn_chains_equal_their_definition():
    augment = RandAugment.from_string(RECIPE)
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        frames = make_frames(seed=seed).astype(np.uint8)
        height, width = rng.integers(5, HEIGHT), rng.integers(5, WIDTH)
        box = Box(int(rng.integers(HEIGHT - height)), int(rng.integers(WIDTH - width)), int(height), int(width))
        drawn = augment.draw(rng, HEIGHT, WIDTH)
        wrong = difference(augment, frames, drawn, box)
        if all(TOLERANCE[name] == 0 for name, _ in drawn):
            assert wrong.max() == 0
        shares.append((wrong > 1).mean())
        assert wrong.mean() < 0.5, drawn
    assert np.mean(shares) < 0.005


@pytest.mark.parametrize("name", ["Equalize", "AutoContrast", "Contrast"])
@pytest.mark.parametrize("content", ["constant", "two", "small"])
def test_statistics_of_odd_frames(name, content):
    shape = (2, 12, 17, 3) if content == "small" else (2, 40, 40, 3)
    frames = np.full(shape, 77, np.uint8)
    if content == "two":
        frames[:, :9] = 250
    elif content == "small":  # fewer pixels than grey levels, and barely more than steps
        frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    augment = RandAugment(increasing=True)
    args = augment.operations[name].arguments(0.7, 1, *shape[1:3])
    assert not difference(augment, frames, [(name, args)], Box(2, 3, 5, 6)).any()


@pytest.mark.parametrize("name", ["Sharpness", "Rotate", "ShearX"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (1, 20)])
def test_tiny_frames(name, shape):
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    augment = RandAugment(increasing=True)
    args = augment.operations[name].arguments(0.7, 1, *shape)
    assert difference(augment, frames, [(name, args)], Box(0, 0, *shape)).max() <= 1


def test_what_a_warp_moves_in_is_grey():
    augment = RandAugment.from_string(RECIPE)
    frames = make_frames().astype(np.uint8)
    outside = [("TranslateX", (1.0, 0.0, 2.0 * WIDTH, 0.0, 1.0, 0.0))]
    assert (augment_region(augment, frames, outside, BOXES[0]) == 128).all()


def test_only_what_is_needed_is_computed():
    augment = RandAugment.from_string(RECIPE)
    box = Box(10, 20, 8, 9)
    shift = ("TranslateX", (1.0, 0.0, 10.0, 0.0, 1.0, 0.0))
    chain = [("Sharpness", (1.4,)), shift, ("Equalize", ()), ("Invert", ()), ("Sharpness", (0.5,))]
    boxes = needed_boxes(augment, chain, box, FRAME)
    assert boxes[5] == box and boxes[4] == boxes[3] == Box(9, 19, 10, 11)  # one pixel around a 3 x 3 filter
    assert boxes[2] == FRAME  # an equalised frame depends on all of it,
    assert boxes[1] == Box(0, 9, HEIGHT, WIDTH - 9) and boxes[0].left == 8  # but not on what was shifted out
    moved = needed_boxes(augment, [shift], box, FRAME)[0]
    assert (moved.left, moved.right) == (29, 41)  # 10 px to the right, with the four taps of the cubic
    assert moved.top >= 9 and moved.bottom <= 20


def test_frames_with_any_strides_are_read_and_left_alone():
    augment = RandAugment.from_string(RECIPE)
    frames = make_frames().astype(np.uint8)
    before = frames.copy()
    frames.flags.writeable = False
    drawn = [("ShearX", (1.0, 0.1, 0.0, 0.0, 1.0, 0.0)), ("Posterize", (3,))]
    mirrored = augment_region(augment, frames[:, :, ::-1], drawn, BOXES[0])
    np.testing.assert_array_equal(mirrored, augment_region(augment, frames[:, :, ::-1].copy(), drawn, BOXES[0]))
    np.testing.assert_array_equal(frames, before)
