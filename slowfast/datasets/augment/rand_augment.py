"""RandAugment (arXiv 1909.13719) for clips: every frame gets the same operations with the same arguments.

Drawing the parameters (`RandAugment.draw`) and applying them (`RandAugment.apply`) are separate. Pillow defines what an
operation does, and `RandAugment.apply` is that definition; training uses the fast equivalent of ``region_augment``.

Dimension letters: `T` frames, `H W` height and width of a frame (px).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 10.0

# Probability with which a chosen operation is applied.
APPLY_PROB = 0.5

# Colour of what a geometric operation moves in from outside the frame.
FILL = (128, 128, 128)

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

GRAMMAR = (
    "rand[-mM][-nN][-mstdS][-inc1] with M the magnitude (0 to 10, default 10), N the number of operations "
    "(1 or more, default 2), S the standard deviation of the magnitude (0 to 10, default 0), "
    "inc1 the increasing-severity set"
)

# Pillow's affine coefficients (a, b, c, d, e, f): output (x, y) is read at (a x + b y + c, d x + e y + f).
Affine = tuple[float, float, float, float, float, float]
Arguments = tuple[float, ...]


def _rotation(degrees: float, height: int, width: int) -> Affine:
    """Counter-clockwise rotation about the centre of the frame."""
    # Rounded as Pillow's own `rotate` does, so that both read from the same coordinates.
    cos = round(math.cos(math.radians(degrees)), 15)
    sin = round(math.sin(math.radians(degrees)), 15)
    centre_x, centre_y = width / 2, height / 2
    shift_x = centre_x - cos * centre_x + sin * centre_y
    shift_y = centre_y - sin * centre_x - cos * centre_y
    return cos, -sin, shift_x, sin, cos, shift_y


class Operation(NamedTuple):
    """One kind of operation.

    Attributes:
        arguments: ``(strength in [0, 1], sign -1 or 1, H, W) -> arguments``.
        apply: ``(frame, arguments, resampling filter) -> frame``.
    """

    arguments: Callable[[float, int, int, int], Arguments]
    apply: Callable[[Image.Image, Arguments, Image.Resampling], Image.Image]


def _geometric(matrix: Callable[[float, int, int], Affine]) -> Operation:
    """An affine warp; ``matrix`` maps (signed strength, H, W) to its coefficients."""

    def arguments(strength: float, sign: int, height: int, width: int) -> Affine:
        return matrix(sign * strength, height, width)

    def apply(frame: Image.Image, args: Arguments, resampling: Image.Resampling) -> Image.Image:
        return frame.transform(frame.size, Image.Transform.AFFINE, args, resample=resampling, fillcolor=FILL)

    return Operation(arguments, apply)


def _parameterless(function: Callable[[Image.Image], Image.Image]) -> Operation:
    return Operation(lambda *_: (), lambda frame, args, resampling: function(frame))


def _tonal(function: Callable[[Image.Image, float], Image.Image], value: Callable[[float], float]) -> Operation:
    """A change of pixel values; ``value`` maps the strength to the argument of ``function``."""
    return Operation(lambda strength, *_: (value(strength),), lambda frame, args, resampling: function(frame, *args))


def _signed_enhancement(enhancer: type) -> Operation:
    """A blend with a degenerate frame by a factor of 0.1 to 1.9; 1 changes nothing."""
    return Operation(
        # Not below 0.1, where 1 - 0.9 would fall in floating point.
        lambda strength, sign, *_: (max(0.1, 1.0 + sign * 0.9 * strength),),
        lambda frame, args, resampling: enhancer(frame).enhance(*args),
    )


def _enhancement(enhancer: type) -> Operation:
    return _tonal(lambda frame, factor: enhancer(frame).enhance(factor), lambda s: 0.1 + 1.8 * s)


def _posterize(frame: Image.Image, bits: int) -> Image.Image:
    # Not ImageOps.posterize: it refuses 0 bits (a black frame), which the strongest magnitude asks for.
    mask = 256 - 2 ** (8 - bits)
    return frame.point([value & mask for value in range(256)] * 3)


def _solarize_add(frame: Image.Image, addend: float) -> Image.Image:
    return frame.point([min(255, value + addend) if value < 128 else value for value in range(256)] * 3)


# The common original scaling: Posterize and Solarize weaken with the magnitude, enhancements are least at 5.
ORIGINAL_OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _parameterless(ImageOps.autocontrast),
    "Equalize": _parameterless(ImageOps.equalize),
    "Invert": _parameterless(ImageOps.invert),
    "Rotate": _geometric(lambda s, height, width: _rotation(30 * s, height, width)),
    "Posterize": _tonal(_posterize, lambda s: int(4 * s)),  # bits kept
    "Solarize": _tonal(ImageOps.solarize, lambda s: int(256 * s)),  # threshold
    "SolarizeAdd": _tonal(_solarize_add, lambda s: int(110 * s)),
    "Color": _enhancement(ImageEnhance.Color),
    "Contrast": _enhancement(ImageEnhance.Contrast),
    "Brightness": _enhancement(ImageEnhance.Brightness),
    "Sharpness": _enhancement(ImageEnhance.Sharpness),
    "ShearX": _geometric(lambda s, height, width: (1.0, 0.3 * s, 0.0, 0.0, 1.0, 0.0)),
    "ShearY": _geometric(lambda s, height, width: (1.0, 0.0, 0.0, 0.3 * s, 1.0, 0.0)),
    "TranslateX": _geometric(lambda s, height, width: (1.0, 0.0, 0.45 * s * width, 0.0, 1.0, 0.0)),
    "TranslateY": _geometric(lambda s, height, width: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * s * height)),
}

# "inc1": the severity of every operation grows with the magnitude.
INCREASING_OPERATIONS: dict[str, Operation] = ORIGINAL_OPERATIONS | {
    "Posterize": _tonal(_posterize, lambda s: 4 - int(4 * s)),
    "Solarize": _tonal(ImageOps.solarize, lambda s: 256 - int(256 * s)),
    "Color": _signed_enhancement(ImageEnhance.Color),
    "Contrast": _signed_enhancement(ImageEnhance.Contrast),
    "Brightness": _signed_enhancement(ImageEnhance.Brightness),
    "Sharpness": _signed_enhancement(ImageEnhance.Sharpness),
}


class RandAugment:
    """Random operations on the uint8 RGB frames of a clip, the same for all frames.

    ``num_ops`` operations are chosen uniformly with replacement; each is applied with probability 0.5, at a
    magnitude drawn from a normal distribution and clipped to [0, 10].

    Args:
        magnitude: mean magnitude, 0 to 10.
        num_ops: operations chosen per clip.
        magnitude_std: standard deviation of the magnitude.
        increasing: use the set whose severity always grows with the magnitude.
        interpolation: of the geometric operations, ``bicubic`` or ``bilinear``.
    """

    def __init__(
        self,
        magnitude: float = 10.0,
        num_ops: int = 2,
        magnitude_std: float = 0.0,
        increasing: bool = False,
        interpolation: str = "bicubic",
    ) -> None:
        if interpolation not in RESAMPLING:
            allowed = " | ".join(RESAMPLING)
            raise ValueError(f"interpolation (AUG.INTERPOLATION) is {interpolation!r}; allowed: {allowed}")
        self.magnitude = magnitude
        self.num_ops = num_ops
        self.magnitude_std = magnitude_std
        self.increasing = increasing
        self.interpolation = interpolation
        self.resampling = RESAMPLING[interpolation]

    @classmethod
    def from_string(cls, spec: str, interpolation: str = "bicubic") -> RandAugment:
        """Build from a string such as ``rand-m7-n4-mstd0.5-inc1``.

        Raises:
            ValueError: the string does not follow the grammar, or a value is out of range.
        """
        return cls(**parse_rand_augment(spec), interpolation=interpolation)

    @property
    def operations(self) -> dict[str, Operation]:
        """The table of operations; not stored, since its functions cannot be sent to a worker process."""
        return INCREASING_OPERATIONS if self.increasing else ORIGINAL_OPERATIONS

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[tuple[str, Arguments]]:
        """Draw the operations for one clip of ``height`` x ``width`` px, in the order of application.

        Returns:
            Pairs of an operation's name and its arguments: the affine coefficients of a geometric operation,
            the one number of the others, or nothing. The list is empty when chance applies none.
        """
        names = rng.choice(list(self.operations), size=self.num_ops)
        is_applied = rng.random(self.num_ops) < APPLY_PROB
        magnitudes = rng.normal(self.magnitude, self.magnitude_std, size=self.num_ops)
        strengths = magnitudes.clip(0.0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        signs = rng.choice((-1, 1), size=self.num_ops)
        draws = zip(names.tolist(), is_applied, strengths.tolist(), signs.tolist(), strict=True)
        return [
            (name, self.operations[name].arguments(strength, sign, height, width))
            for name, applied, strength, sign in draws
            if applied
        ]

    def apply(self, frames: np.ndarray, drawn: list[tuple[str, Arguments]]) -> np.ndarray:
        """Apply drawn operations to every frame.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3); not changed.
            drawn: what `draw` returned for these H and W.

        Returns:
            uint8 RGB of shape (T, H, W, 3); ``frames`` itself if nothing was drawn.
        """
        if not drawn:
            return frames
        return np.stack([np.asarray(self.apply_to_image(Image.fromarray(frame), drawn)) for frame in frames])

    def apply_to_image(self, image: Image.Image, drawn: list[tuple[str, Arguments]]) -> Image.Image:
        """Apply drawn operations to one frame, RGB."""
        for name, args in drawn:
            image = self.operations[name].apply(image, args, self.resampling)
        return image

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw and apply: uint8 (T, H, W, 3) -> uint8 (T, H, W, 3)."""
        return self.apply(frames, self.draw(rng, *frames.shape[1:3]))


def parse_rand_augment(spec: str) -> dict[str, float | int | bool]:
    """Read a string such as ``rand-m7-n4-mstd0.5-inc1`` into arguments of `RandAugment`.

    Raises:
        ValueError: an unknown, malformed or repeated part, or a value out of range.
    """

    def fail(reason: str) -> ValueError:
        return ValueError(f"AUG.AA_TYPE {spec!r}: {reason}; expected {GRAMMAR}")

    start, *parts = spec.split("-")
    if start != "rand":
        raise fail(f"it starts with {start!r}, not 'rand'")
    values: dict[str, str] = {}
    for part in parts:
        match = re.fullmatch(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)", part)
        if match is None:
            raise fail(f"part {part!r} is not understood")
        key, value = match.groups()
        if key in values:
            raise fail(f"part {part!r} repeats {key!r}")
        # Other parsers read any digit after "inc", even 0, as on; refusing all but 1 leaves no doubt.
        is_valid = {
            "m": float(value) <= MAX_MAGNITUDE,
            "n": value.isdigit() and int(value) >= 1,
            "mstd": float(value) <= MAX_MAGNITUDE,
            "inc": value == "1",
        }[key]
        if not is_valid:
            raise fail(f"the value of part {part!r} is not allowed")
        values[key] = value
    return {
        "magnitude": float(values.get("m", 10)),
        "num_ops": int(values.get("n", 2)),
        "magnitude_std": float(values.get("mstd", 0)),
        "increasing": "inc" in values,
    }
