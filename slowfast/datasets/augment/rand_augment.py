"""RandAugment (arXiv 1909.13719): which operations a clip gets, and how strongly. ``warp`` applies them.

Dimension letters: ``H W`` height and width of the frames (px).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slowfast.utils.errors import UserError

MAX_MAGNITUDE = 10.0
APPLY_PROB = 0.5  # of a chosen operation

# Moves of the whole frame. Their arguments are Pillow's six numbers (a, b, c, d, e, f): output (x, y) is read at
# (a x + b y + c, d x + e y + f), with pixel centres at halves. All other operations change colours and have one
# argument or none.
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")

GRAMMAR = (
    "rand[-mM][-nN][-mstdS][-inc1] with M the magnitude (0 to 10, default 10), N the operations (1 or more, default "
    "2), S the standard deviation of the magnitude (0 to 10, default 0), inc1 the increasing-severity set"
)
# Other parsers read any digit after "inc", even 0, as on; refusing all but 1 leaves no doubt.
MAGNITUDE = r"10(\.0+)?|\d(\.\d+)?"
VALUES = {"rand": "", "m": MAGNITUDE, "n": r"[1-9]\d*", "mstd": MAGNITUDE, "inc": "1"}

Arguments = tuple[float, ...]
Operation = tuple[str, Arguments]


def _rotation(degrees: float, height: int, width: int) -> Arguments:
    """Counter-clockwise rotation about the centre of the frame."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


# (strength 0 to 1, sign -1 or 1, H, W) -> arguments, by the rules that timm made common. In the original set Posterize
# and Solarize weaken with the magnitude, and enhancements are least in the middle.
ORIGINAL_SET: dict[str, Callable[[float, int, int, int], Arguments]] = {
    "AutoContrast": lambda *_: (),
    "Equalize": lambda *_: (),
    "Invert": lambda *_: (),
    "Rotate": lambda strength, sign, height, width: _rotation(30 * sign * strength, height, width),
    "Posterize": lambda strength, *_: (int(4 * strength),),  # bits kept
    "Solarize": lambda strength, *_: (int(256 * strength),),  # threshold
    "SolarizeAdd": lambda strength, *_: (int(110 * strength),),
    **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), lambda strength, *_: (0.1 + 1.8 * strength,)),
    "ShearX": lambda strength, sign, height, width: (1.0, 0.3 * sign * strength, 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda strength, sign, height, width: (1.0, 0.0, 0.0, 0.3 * sign * strength, 1.0, 0.0),
    "TranslateX": lambda strength, sign, height, width: (1.0, 0.0, 0.45 * sign * strength * width, 0.0, 1.0, 0.0),
    "TranslateY": lambda strength, sign, height, width: (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * sign * strength * height),
}

# "inc1": the severity of every operation grows with the magnitude. A factor of 1 changes nothing.
INCREASING_SET = ORIGINAL_SET | {
    "Posterize": lambda strength, *_: (4 - int(4 * strength),),
    "Solarize": lambda strength, *_: (256 - int(256 * strength),),
    **dict.fromkeys(
        ("Color", "Contrast", "Brightness", "Sharpness"),
        lambda strength, sign, *_: (max(0.1, 1.0 + sign * 0.9 * strength),),  # 1 - 0.9 is a little less than 0.1
    ),
}


@dataclass
class RandAugment:
    """Draws of random operations, for all frames of a clip at once.

    ``num_ops`` operations are chosen uniformly with replacement; each is applied with probability 0.5, at a
    magnitude drawn from a normal distribution and clipped to [0, 10].
    """

    magnitude: float = 10.0  # mean
    num_ops: int = 2  # operations chosen per clip
    magnitude_std: float = 0.0
    increasing: bool = False  # use the set whose severity always grows with the magnitude

    @classmethod
    def from_string(cls, spec: str) -> "RandAugment":
        """Build from a string such as ``rand-m7-n4-mstd0.5-inc1``."""
        values: dict[str, str] = {}
        for part in spec.split("-"):
            key = part.rstrip(".0123456789")
            is_known = key not in values and (key == "rand") != bool(values)
            if not is_known or not re.fullmatch(VALUES.get(key, "(?!)"), part.removeprefix(key)):
                raise UserError(f"AUG.AA_TYPE {spec!r}: part {part!r} is unknown or repeated; expected {GRAMMAR}")
            values[key] = part.removeprefix(key)
        magnitude, std = float(values.get("m", 10)), float(values.get("mstd", 0))
        return cls(magnitude, int(values.get("n", 2)), std, "inc" in values)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[Operation]:
        """Draw the operations of one clip of ``height`` x ``width`` px, in the order of application."""
        operations = INCREASING_SET if self.increasing else ORIGINAL_SET
        names = rng.choice(list(operations), size=self.num_ops)
        is_applied = rng.random(self.num_ops) < APPLY_PROB
        magnitudes = rng.normal(self.magnitude, self.magnitude_std, size=self.num_ops)
        strengths = magnitudes.clip(0.0, MAX_MAGNITUDE) / MAX_MAGNITUDE
        signs = rng.choice((-1, 1), size=self.num_ops)
        return [
            (name, operations[name](strength, sign, height, width))
            for name, applied, strength, sign in zip(names.tolist(), is_applied, strengths.tolist(), signs.tolist())
            if applied
        ]
