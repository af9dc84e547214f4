"""Colour operations and the warp, against Pillow one operation at a time; geometry against coordinates."""

import numpy as np
import pytest
from PIL import Image
from plain_pipeline import apply_with_pillow

from slowfast.datasets.augment.rand_augment import GEOMETRIC, INCREASING_SET, ORIGINAL_SET, RandAugment
from slowfast.datasets.augment.transform import draw_crop_box
from slowfast.datasets.augment.warp import warp_clip

HEIGHT, WIDTH, SIZE = 90, 120, 64
BOX = (10, 15, 70, 80)
WHOLE = (0, 0, HEIGHT, WIDTH)


def make_frames(num_frames=2, height=HEIGHT, width=WIDTH, seed=0):
    """Smooth colours plus noise, different in every frame; the full range in some, part of it in others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in coarse]
    noise = rng.integers(-6, 7, (num_frames, height, width, 3))
    parts = [(frame + extra).clip(20 * t, 255 - 30 * t) for t, (frame, extra) in enumerate(zip(smooth, noise))]
    return np.stack(parts).astype(np.uint8)


def warp(frames, operations=(), box=BOX, size=SIZE, flip=False):
    out = np.full((len(frames), size, size, 3), 77, np.uint8)
    warp_clip(frames, operations, box, size, flip, out)
    return out


def in_pillow(frames, operations, box=BOX, size=SIZE):
    """One operation after the other on whole frames, then crop and resize (bilinear, without antialiasing)."""
    top, left, height, width = box
    to_box = (width / size, 0, left, 0, height / size, top)
    result = []
    for image in map(Image.fromarray, frames):
        for operation in operations:
            image = apply_with_pillow(image, operation)
        result.append(image.transform((size, size), Image.Transform.AFFINE, to_box, Image.Resampling.BILINEAR))
    return np.stack([np.asarray(image) for image in result])


def difference(frames, operations, **settings):
    return np.abs(warp(frames, operations, **settings).astype(int) - in_pillow(frames, operations, **settings))


@pytest.mark.parametrize("name", sorted(INCREASING_SET))
def test_each_operation_alone_is_within_two_grey_levels_of_pillow(name):
    frames = make_frames()
    for operations in (INCREASING_SET, ORIGINAL_SET):
        for strength, sign in ((0.0, 1), (0.3, -1), (0.7, 1), (0.7, -1), (1.0, 1)):
            drawn = [(name, operations[name](strength, sign, HEIGHT, WIDTH))]
            for box in (BOX, (0, 0, 30, 40), WHOLE):
                assert difference(frames, drawn, box=box).mean() < 2, (strength, sign, box)


def test_drawn_clips_stay_close_to_pillows_order():
    """Half of them within a level: one interpolation instead of several, fill and statistics differ in the others."""
    augment, rng = RandAugment.from_string("rand-m7-n4-mstd0.5-inc1"), np.random.default_rng(0)
    frames = make_frames()
    differences = []
    for _ in range(60):
        drawn = augment.draw(rng, HEIGHT, WIDTH)
        box = draw_crop_box(rng, HEIGHT, WIDTH, (0.08, 1.0), (0.75, 1.3333))
        differences.append(difference(frames, drawn, box=box).mean())
    assert np.median(differences) < 1 and np.quantile(differences, 0.75) < 6


def test_tables_are_exact_alone_and_composed():
    frames = make_frames()
    chain = [("Solarize", (100,)), ("Brightness", (1.6,)), ("Invert", ()), ("SolarizeAdd", (77,)), ("Posterize", (3,))]
    for drawn in (*[[operation] for operation in chain], chain, chain[::-1]):
        unscaled = {"box": (3, 5, SIZE, SIZE)}
        assert not difference(frames, drawn, **unscaled).any()


@pytest.mark.parametrize("name", ["AutoContrast", "Contrast", "Equalize"])
def test_statistics_are_those_of_the_whole_frame_as_the_operations_before_left_it(name):
    frames = make_frames()
    frames[:, 60:] = 250  # outside of the box
    single = (name, (1.6,) if name == "Contrast" else ())
    for before in ([], [("Solarize", (90,))], [("Color", (1.5,))], [("Invert", ()), ("Sharpness", (1.7,))], [single]):
        assert difference(frames, [*before, single], box=(0, 0, 40, 40)).mean() < 2, before


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Sharpness", "Rotate"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (40, 40)])
def test_odd_frames(name, shape):
    frames = np.full((1, *shape, 3), 77, np.uint8)
    drawn = [(name, INCREASING_SET[name](0.3, 1, *shape))]
    assert np.abs(warp(frames, drawn, box=(0, 0, *shape), size=20)[:, 9:11, 9:11].astype(int) - 77).max() <= 3


def test_coordinates_are_right_to_a_tenth_of_a_pixel():
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    ramp = np.stack([2 * columns, 2 * rows, np.zeros_like(rows)], axis=-1)[None].astype(np.uint8)  # half pixels
    steps = np.arange(SIZE) + 0.5
    x, y = np.meshgrid(steps, steps)
    moves = [(name, INCREASING_SET[name](0.4, sign, HEIGHT, WIDTH)) for name in GEOMETRIC for sign in (-1, 1)]
    for drawn in ([], *[[move] for move in moves], moves[::3], moves[1::4]):
        for flip in (False, True):
            at = np.stack([SIZE - x if flip else x, y, np.ones_like(x)])
            at[0], at[1] = at[0] * BOX[3] / SIZE + BOX[1], at[1] * BOX[2] / SIZE + BOX[0]
            for _, (a, b, c, d, e, f) in reversed(drawn):
                at = np.stack([a * at[0] + b * at[1] + c, d * at[0] + e * at[1] + f, at[2]])
            inside = (at[0] > 1) & (at[0] < WIDTH - 1) & (at[1] > 1) & (at[1] < HEIGHT - 1)
            found = warp(ramp, drawn, flip=flip)[0] / 2 + 0.5  # pixel centres at halves
            wrong = np.abs(found[..., :2] - np.moveaxis(at[:2], 0, -1))[inside]
            assert wrong.max() < 0.25 + 0.1, (drawn, flip)  # a quarter of a pixel is the rounding to grey levels
            assert abs(np.mean(wrong)) < 0.15 and inside.mean() > 0.3


def test_all_frames_alike_and_the_input_stays():
    still = np.repeat(make_frames(1), 4, axis=0)
    before = still.copy()
    still.flags.writeable = False  # as decoders may hand them out
    augment, rng = RandAugment.from_string("rand-m7-n4-mstd0.5-inc1"), np.random.default_rng(3)
    for _ in range(20):
        clip = warp(still, augment.draw(rng, HEIGHT, WIDTH))
        assert (clip == clip[:1]).all()
    np.testing.assert_array_equal(still, before)


def test_the_fill_is_grey_whatever_follows():
    outside = ("TranslateX", (1.0, 0.0, 2.0 * WIDTH, 0.0, 1.0, 0.0))
    for drawn in ([outside], [outside, ("Invert", ()), ("Posterize", (1,)), ("Equalize", ())]):
        assert (warp(make_frames(), drawn) == 128).all()


def test_a_flip_mirrors_and_an_unscaled_crop_copies():
    frames = make_frames()
    clip = warp(frames, box=(3, 5, SIZE, SIZE))
    assert (warp(np.full((1, 20, 20, 3), 250, np.uint8), box=(0, 0, 20, 20)) == 250).all()  # no fill at the border
    np.testing.assert_array_equal(clip, frames[:, 3 : 3 + SIZE, 5 : 5 + SIZE])
    np.testing.assert_array_equal(warp(frames, box=(3, 5, SIZE, SIZE), flip=True), clip[:, :, ::-1])


def test_frames_with_any_strides_are_read():
    frames = make_frames()
    drawn = [("ShearX", (1.0, 0.1, 0.0, 0.0, 1.0, 0.0)), ("Equalize", ()), ("Sharpness", (1.5,)), ("Posterize", (3,))]
    mirrored = warp(frames[:, :, ::-1], drawn)
    np.testing.assert_array_equal(mirrored, warp(np.ascontiguousarray(frames[:, :, ::-1]), drawn))
