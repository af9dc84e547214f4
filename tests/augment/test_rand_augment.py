import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from slowfast.datasets.augment.rand_augment import (
    INCREASING_OPERATIONS,
    ORIGINAL_OPERATIONS,
    RandAugment,
    parse_rand_augment,
)

RECIPE = "rand-m7-n4-mstd0.5-inc1"
SETS = {"increasing": INCREASING_OPERATIONS, "original": ORIGINAL_OPERATIONS}
# Operations whose magnitude means something else in the increasing set.
RESCALED = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


def make_frames(num_frames=3, height=37, width=52, seed=0):
    """Smooth colours plus noise, different in every frame, neither black nor white at the extremes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 200, (num_frames, 5, 7, 3), dtype=np.uint8)
    smooth = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in coarse]
    return np.stack(smooth) + rng.integers(0, 30, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0.0, 3.3, 7.0, 9.99, 10.0])
@pytest.mark.parametrize("name", sorted(ORIGINAL_OPERATIONS))
@pytest.mark.parametrize("set_name", sorted(SETS))
def test_operations_equal_an_independent_implementation(set_name, name, magnitude, sign, monkeypatch):
    timm = pytest.importorskip("timm.data.auto_augment")
    monkeypatch.setattr(timm, "_randomly_negate", lambda value: sign * value)
    timm_name = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}.get(name, name)
    if set_name == "increasing" and name in RESCALED:
        timm_name += "Increasing"
    to_args = timm.LEVEL_TO_ARG[timm_name]
    timm_args = to_args(magnitude, {"translate_pct": 0.45}) if to_args else ()
    if name == "Posterize" and timm_args == (0,):  # recent Pillow refuses this: black, by definition
        monkeypatch.setitem(timm.NAME_TO_OP, timm_name, lambda image, *_, **__: Image.new("RGB", image.size))

    frames = make_frames()
    for interpolation, resample in (("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)):
        augment = RandAugment(increasing=set_name == "increasing", interpolation=interpolation)
        args = augment.operations[name].arguments(magnitude / 10, sign, *frames.shape[1:3])
        ours = augment.apply(frames, [(name, args)])
        for frame, our_frame in zip(frames, ours, strict=True):
            image = Image.fromarray(frame)
            settings = {"resample": resample, "fillcolor": (128, 128, 128)}
            theirs = timm.NAME_TO_OP[timm_name](image, *timm_args, **settings)
            np.testing.assert_array_equal(our_frame, np.asarray(theirs))


def test_operations_chain_in_the_drawn_order():
    augment = RandAugment.from_string(RECIPE)
    frames = make_frames()
    drawn = [("Brightness", (0.4,)), ("Invert", ()), ("TranslateX", (1.0, 0.0, 9.0, 0.0, 1.0, 0.0))]
    one_by_one = frames
    for operation in drawn:
        one_by_one = augment.apply(one_by_one, [operation])
    np.testing.assert_array_equal(augment.apply(frames, drawn), one_by_one)
    assert (augment.apply(frames, drawn[::-1]) != one_by_one).any()


def test_names_are_uniform_with_replacement_and_half_of_the_draws_are_applied():
    augment = RandAugment.from_string(RECIPE)
    rng = np.random.default_rng(0)
    clips = [augment.draw(rng, 100, 200) for _ in range(6000)]
    names = Counter(name for drawn in clips for name, _ in drawn)
    lengths = Counter(map(len, clips))

    expected = 6000 * 4 * 0.5 / 15
    assert set(names) == set(INCREASING_OPERATIONS) and len(names) == 15
    assert all(abs(count - expected) < 5 * expected**0.5 for count in names.values())
    binomial = {0: 1 / 16, 1: 4 / 16, 2: 6 / 16, 3: 4 / 16, 4: 1 / 16}
    assert all(abs(lengths[k] / 6000 - p) < 5 * (p * (1 - p) / 6000) ** 0.5 for k, p in binomial.items())
    assert any(len({name for name, _ in drawn}) < len(drawn) for drawn in clips)


def test_magnitudes_are_normal_and_signs_fair():
    augment = RandAugment.from_string("rand-m7-n50-mstd0.5-inc1")
    rng = np.random.default_rng(1)
    shifts = [
        args[2] / (0.45 * 200) * 10
        for _ in range(1500)
        for name, args in augment.draw(rng, 100, 200)
        if name == "TranslateX"
    ]
    assert len(shifts) > 2000
    assert abs(np.mean(np.abs(shifts)) - 7) < 0.06
    assert abs(np.std(np.abs(shifts)) - 0.5) < 0.04
    assert abs(np.mean(np.sign(shifts))) < 0.1


def test_magnitudes_are_clipped_to_the_allowed_range():
    rng = np.random.default_rng(2)
    for spec, bound in (("rand-m10-n50-mstd3-inc1", 0), ("rand-m0-n50-mstd3-inc1", 256)):
        thresholds = [
            args[0]
            for _ in range(200)
            for name, args in RandAugment.from_string(spec).draw(rng, 9, 9)
            if name == "Solarize"
        ]
        assert all(0 <= threshold <= 256 for threshold in thresholds)
        assert 0.4 < np.mean(np.array(thresholds) == bound) < 0.6  # half of a normal lies beyond its mean


def test_all_frames_of_a_clip_get_the_same_operations():
    augment = RandAugment.from_string(RECIPE)
    still = np.repeat(make_frames(1), 4, axis=0)
    rng = np.random.default_rng(3)
    num_changed = 0
    for _ in range(30):
        augmented = augment(still, rng)
        np.testing.assert_array_equal(augmented, np.repeat(augmented[:1], 4, axis=0))
        num_changed += (augmented != still).any()
    assert num_changed > 15


def test_the_generator_decides_everything_and_the_input_stays():
    augment = RandAugment.from_string(RECIPE)
    frames = make_frames()
    before = frames.copy()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = [augment(frames, rng) for rng in [np.random.default_rng(4)] for _ in range(8)]
    again = [augment(frames, rng) for rng in [np.random.default_rng(4)] for _ in range(8)]
    np.testing.assert_array_equal(first, again)
    assert any((first[0] != clip).any() for clip in first[1:])
    np.testing.assert_array_equal(frames, before)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_rows_with_any_strides_are_read_correctly():
    augment = RandAugment()
    frames = make_frames()
    drawn = [("Posterize", (3,))]
    mirrored = augment.apply(frames[:, :, ::-1], drawn)
    np.testing.assert_array_equal(mirrored, augment.apply(frames, drawn)[:, :, ::-1])


@pytest.mark.parametrize(
    ("spec", "magnitude", "num_ops", "std", "increasing"),
    [
        (RECIPE, 7, 4, 0.5, True),
        ("rand-m9-mstd0.5-inc1", 9, 2, 0.5, True),
        ("rand-inc1-n1-m2.5", 2.5, 1, 0, True),
        ("rand", 10, 2, 0, False),
    ],
)
def test_grammar(spec, magnitude, num_ops, std, increasing):
    assert parse_rand_augment(spec) == {
        "magnitude": magnitude,
        "num_ops": num_ops,
        "magnitude_std": std,
        "increasing": increasing,
    }


@pytest.mark.parametrize(
    ("spec", "bad_part"),
    [
        ("augmix-m3", "augmix"),
        ("rand-m11", "m11"),
        ("rand-m7-n0", "n0"),
        ("rand-n2.5", "n2.5"),
        ("rand-m7-mstd11", "mstd11"),
        ("rand-m7-mstd", "mstd"),
        ("rand-m7-inc0", "inc0"),
        ("rand-m7-w0", "w0"),
        ("rand-m7-m8", "m8"),
        ("rand-m-3", "m"),
        ("rand-m7-", "''"),
        ("rand_m7", "rand_m7"),
    ],
)
def test_grammar_errors_name_the_key_and_the_part(spec, bad_part):
    with pytest.raises(ValueError, match=r"AUG\.AA_TYPE") as error:
        RandAugment.from_string(spec)
    assert bad_part in str(error.value).split(";")[0].removeprefix(f"AUG.AA_TYPE {spec!r}")


def test_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match=r"AUG\.INTERPOLATION.*'nearest'.*bicubic \| bilinear"):
        RandAugment(interpolation="nearest")
