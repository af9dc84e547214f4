"""The draws of RandAugment: arguments as timm's rules give them, their distribution, and the grammar."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from plain_pipeline import apply_with_pillow

from slowfast.datasets.augment.rand_augment import INCREASING_SET, ORIGINAL_SET, RandAugment
from slowfast.utils.errors import UserError

RECIPE = "rand-m7-n4-mstd0.5-inc1"
# Operations whose magnitude means something else in the increasing set.
RESCALED = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


@pytest.mark.parametrize("name", sorted(ORIGINAL_SET))
def test_operations_are_those_of_an_independent_implementation(name, monkeypatch):
    timm = pytest.importorskip("timm.data.auto_augment")
    sign = 1
    monkeypatch.setattr(timm, "_randomly_negate", lambda value: sign * value)
    image = Image.fromarray(np.random.default_rng(0).integers(30, 230, (37, 52, 3), dtype=np.uint8))
    for operations in (ORIGINAL_SET, INCREASING_SET):
        timm_name = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}.get(name, name)
        timm_name += "Increasing" if operations is INCREASING_SET and name in RESCALED else ""
        for magnitude, sign in ((0.0, 1), (3.3, 1), (7.0, -1), (9.99, 1), (10.0, -1)):
            to_args = timm.LEVEL_TO_ARG[timm_name]
            timm_args = to_args(magnitude, {"translate_pct": 0.45}) if to_args else ()
            ours = apply_with_pillow(image, (name, operations[name](magnitude / 10, sign, 37, 52)))
            if name == "Posterize" and timm_args == (0,):  # recent Pillow refuses this: black, by definition
                assert not np.asarray(ours).any()
                continue
            settings = {"resample": Image.BICUBIC, "fillcolor": (128, 128, 128)}
            theirs = timm.NAME_TO_OP[timm_name](image, *timm_args, **settings)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_names_are_uniform_with_replacement_and_half_of_the_draws_are_applied():
    augment = RandAugment.from_string(RECIPE)
    rng = np.random.default_rng(0)
    clips = [augment.draw(rng, 100, 200) for _ in range(6000)]
    names = Counter(name for drawn in clips for name, _ in drawn)
    lengths = Counter(map(len, clips))

    expected = 6000 * 4 * 0.5 / 15
    assert set(names) == set(INCREASING_SET) and len(names) == 15
    assert all(abs(count - expected) < 5 * expected**0.5 for count in names.values())
    binomial = {0: 1 / 16, 1: 4 / 16, 2: 6 / 16, 3: 4 / 16, 4: 1 / 16}
    assert all(abs(lengths[k] / 6000 - p) < 5 * (p * (1 - p) / 6000) ** 0.5 for k, p in binomial.items())
    assert any(len({name for name, _ in drawn}) < len(drawn) for drawn in clips)


def test_magnitudes_are_normal_and_signs_fair():
    augment = RandAugment.from_string("rand-m7-n50-mstd0.5-inc1")
    rng = np.random.default_rng(1)
    drawn = [operation for _ in range(1500) for operation in augment.draw(rng, 100, 200)]
    shifts = np.array([args[2] / (0.45 * 200) * 10 for name, args in drawn if name == "TranslateX"])
    assert len(shifts) > 2000
    assert abs(np.abs(shifts).mean() - 7) < 0.06 and abs(np.abs(shifts).std() - 0.5) < 0.04
    assert abs(np.sign(shifts).mean()) < 0.1


def test_magnitudes_are_clipped_to_the_allowed_range():
    rng = np.random.default_rng(2)
    for spec, bound in (("rand-m10-n50-mstd3-inc1", 0), ("rand-m0-n50-mstd3-inc1", 256)):
        drawn = [operation for _ in range(200) for operation in RandAugment.from_string(spec).draw(rng, 9, 9)]
        thresholds = np.array([args[0] for name, args in drawn if name == "Solarize"])
        assert thresholds.min() >= 0 and thresholds.max() <= 256
        assert 0.4 < np.mean(thresholds == bound) < 0.6  # half of a normal lies beyond its mean


def test_the_generator_decides_everything():
    augment = RandAugment.from_string(RECIPE)
    first, again, other = ([augment.draw(rng, 9, 9) for _ in range(8)] for rng in map(np.random.default_rng, (4, 4, 5)))
    assert first == again != other


def test_grammar():
    assert RandAugment.from_string(RECIPE) == RandAugment(7, 4, 0.5, True)
    assert RandAugment.from_string("rand-m9-mstd0.5-inc1") == RandAugment(9, 2, 0.5, True)
    assert RandAugment.from_string("rand-inc1-n1-m2.5") == RandAugment(2.5, 1, 0, True)
    assert RandAugment.from_string("rand") == RandAugment(10, 2, 0, False)


@pytest.mark.parametrize(
    "spec",
    ["augmix-m3", "m7-n4", "rand_m7", "rand-rand", "rand-m7-"]
    + ["rand-m11", "rand-m7-n0", "rand-n2.5", "rand-mstd11", "rand-m7-inc0", "rand-m7-m8"],
)
def test_grammar_errors_name_the_key_and_the_part(spec):
    bad_part = spec.split("-")[0 if not spec.startswith("rand-") else -1]
    with pytest.raises(UserError, match=rf"AUG\.AA_TYPE '{spec}': part '{bad_part}' is unknown or repeated"):
        RandAugment.from_string(spec)
