"""Synthetic motion clips: twelve classes that only the order of the frames tells apart.

A textured sprite moves over a textured background. What it does is the class: it moves in one of eight
directions, approaches, recedes, or rotates clockwise or counter-clockwise. Everything else (textures,
colours, outline, place, size, angle, speed) is drawn independently of the class.

The sprite's state is a point on a four-dimensional torus (x, y, log-diameter, angle), each coordinate a
fraction of its period: a sprite that leaves the frame re-enters on the other side, one that has grown to the
largest diameter starts again at the smallest. A clip follows a straight line on that torus from a uniformly
drawn state, and the second class of each pair is the first one played backwards. Two properties follow,
exactly:

* Any single frame, whatever its index, has the same distribution in all twelve classes: the uniform
  distribution on a torus does not change under a shift.
* Any unordered set of frames has the same distribution in both classes of a pair, since reversing time only
  reorders the frames. This includes noise, camera jitter and distractors.

A mirrored clip changes its class ("moving right" becomes "moving left"), so flips are no valid augmentation.

Dimension letters: `L` frames, `S` side of the frame in px, `R` side of the sprite's own pixel grid.
"""

import math
from dataclasses import dataclass, field, fields

import numpy as np

from slowfast.synthetic.drawing import draw_texture, evaluate_texture, film, make_sprite, sprite_grid

# Class, the same played backwards, direction in the state space (x, y, log-diameter, angle); y points down.
_DIAGONAL = math.sqrt(0.5)
_MOTIONS = (
    ("moving right", "moving left", (1.0, 0.0, 0.0, 0.0)),
    ("moving down", "moving up", (0.0, 1.0, 0.0, 0.0)),
    ("moving down-right", "moving up-left", (_DIAGONAL, _DIAGONAL, 0.0, 0.0)),
    ("moving up-right", "moving down-left", (_DIAGONAL, -_DIAGONAL, 0.0, 0.0)),
    ("approaching", "receding", (0.0, 0.0, 1.0, 0.0)),
    ("rotating clockwise", "rotating counter-clockwise", (0.0, 0.0, 0.0, 1.0)),
)
CLASS_NAMES: tuple[str, ...] = tuple(name for forward, backward, _ in _MOTIONS for name in (forward, backward))

_BACKGROUND_FREQUENCIES = 5  # periods per frame side of the finest wave
_SPRITE_FREQUENCIES = 2  # periods per diameter of the finest wave: coarse enough to survive the smallest diameter
_SPRITE_AMPLITUDE = 110.0  # grey levels (standard deviation) at texture_contrast 1
_COLOUR_SPREAD = 40.0  # grey levels, either way
# Of the first harmonics of the sprite's outline, relative to its mean radius. Only their phases are random,
# so that no sprite comes out round or otherwise symmetric under rotation.
_OUTLINE_AMPLITUDES = (0.12, 0.22, 0.16, 0.08)
_DISTRACTOR_SCALE = 0.6  # of the smallest sprite
_MIN_FRAMES_PER_SIZE_CYCLE = 4


def reversed_label(label: int) -> int:
    """Return the label of the class that `label` becomes when its clips are played backwards."""
    return label ^ 1


def check_bounds(name: str, value: float, low: float, high: float) -> None:
    """Check a numeric parameter that a user can set by a flag of the same name.

    Raises:
        ValueError: If `value` is not finite or lies outside `[low, high]`.
    """
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} (--{name.replace('_', '-')}) is {value}; allowed: {low} to {high}")


def parameter(default: object, low: float, high: float, text: str):
    """Declare a field of a spec: its default, its bounds and, for the command line, its meaning and unit."""
    return field(default=default, metadata={"low": low, "high": high, "help": text})


@dataclass(frozen=True)
class SpriteSpec:
    """What all sets of moving sprites have in common.

    Lengths are fractions of the frame's side, so that a set looks the same at every size. Pairs are the ends
    of a range from which each clip draws uniformly. Each field carries its bounds, meaning and unit.

    Raises:
        ValueError: If a value is out of bounds; the message names the field and its command-line flag.
    """

    size: int = parameter(64, 32, 1024, "side of the square frames, px")
    num_frames: int = parameter(12, 2, 9999, "frames per clip")
    speed: tuple[float, float] = parameter(
        (0.04, 0.08), 0.005, 0.25, "speed of the moving classes, frame sides per frame"
    )
    diameter: tuple[float, float] = parameter(
        (0.3, 0.75), 0.1, 0.8, "diameter of the sprite's enclosing circle, frame sides, log-uniform"
    )
    texture_contrast: float = parameter(
        0.4, 0.0, 1.0, "contrast of the textures of sprite and background; 0 is plain colours"
    )
    noise_std: float = parameter(
        4.0, 0.0, 100.0, "standard deviation of the sensor noise, grey levels of 255, independent per frame"
    )
    camera_jitter: float = parameter(
        0.0, 0.0, 0.2, "standard deviation of the camera's shake, frame sides, independent per frame"
    )
    num_distractors: int = parameter(0, 0, 50, "further sprites, smaller than any target and behind it")
    distractor_speed: tuple[float, float] = parameter(
        (0.0, 0.04), 0.0, 0.25, "speed of the distractors in random directions, frame sides per frame"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            is_range = isinstance(item.default, tuple)
            for number in value if is_range else (value,):
                check_bounds(item.name, number, item.metadata["low"], item.metadata["high"])
            if is_range and (len(value) != 2 or value[0] > value[1]):
                flag = item.name.replace("_", "-")
                raise ValueError(f"{item.name} (--{flag}) is {value}; allowed: two numbers MIN <= MAX")

    @property
    def size_period(self) -> float:
        """The natural logarithm of largest over smallest diameter: the length of a cycle of sizes."""
        return math.log(self.diameter[1] / self.diameter[0])


@dataclass(frozen=True)
class MotionSpec(SpriteSpec):
    """Size and difficulty of the clips; fields and errors as in `SpriteSpec`."""

    zoom: tuple[float, float] = parameter(
        (0.03, 0.06), 0.005, 0.5, "growth of approaching sprites, natural logarithm of size per frame"
    )
    spin: tuple[float, float] = parameter((6.0, 12.0), 0.5, 60.0, "speed of rotating sprites, degrees per frame")

    def __post_init__(self) -> None:
        super().__post_init__()
        fastest = self.size_period / _MIN_FRAMES_PER_SIZE_CYCLE
        if self.zoom[1] > fastest:
            raise ValueError(
                f"zoom (--zoom) is {self.zoom}; allowed: at most {fastest:.3f} with diameter (--diameter) "
                f"{self.diameter}, so that a cycle of sizes takes {_MIN_FRAMES_PER_SIZE_CYCLE} frames"
            )


def _draw_sprite(rng: np.random.Generator, colour: np.ndarray, contrast: float, resolution: int) -> np.ndarray:
    """Draw a sprite (R, R, 4) float32 of random texture and outline, see `make_sprite`."""
    texture = draw_texture(rng, _SPRITE_FREQUENCIES)
    phases = rng.uniform(0, 2 * np.pi, len(_OUTLINE_AMPLITUDES))
    harmonics = np.arange(1, len(_OUTLINE_AMPLITUDES) + 1)

    def outline(angle: np.ndarray) -> np.ndarray:
        return 1 + np.cos(angle[..., None] * harmonics + phases) @ np.array(_OUTLINE_AMPLITUDES)

    grid = sprite_grid(resolution)
    return make_sprite(colour + contrast * _SPRITE_AMPLITUDE * evaluate_texture(texture, grid, grid), outline)


def draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mean colours (3,) of background and target in grey levels.

    They are half a cycle of grey levels apart, give or take the spread: the sprite never melts into the ground.
    """
    ground = rng.uniform(0, 256, 3)
    return ground, (ground + 128 + rng.uniform(-_COLOUR_SPREAD, _COLOUR_SPREAD, 3)) % 256


def _draw_target_states(rng: np.random.Generator, motion: int, spec: MotionSpec) -> np.ndarray:
    """Draw the path of the target, played forwards.

    Args:
        rng: Source of its start and of its rates, which are all drawn whatever the motion.
        motion: Index of a pair of classes.
        spec: Size and difficulty.

    Returns:
        States (L, 4): x, y and diameter in frame sides, angle in radians.
    """
    time = np.arange(spec.num_frames)[:, None]  # (L, 1)
    # In periods of the state (x, y, log-diameter, angle).
    speed, zoom, spin = (rng.uniform(*bounds) for bounds in (spec.speed, spec.zoom, spec.spin))
    rates = np.array([speed, speed, zoom / spec.size_period, spin / 360]) * _MOTIONS[motion][2]
    states = (rng.uniform(size=4) + time * rates) % 1  # (L, 4)
    states[:, 2] = spec.diameter[0] * np.exp(states[:, 2] * spec.size_period)
    states[:, 3] *= 2 * np.pi
    return states


def distractor_diameter(spec: SpriteSpec) -> float:
    """Return the diameter of distractors in frame sides: the class is the motion of the largest object."""
    return _DISTRACTOR_SCALE * spec.diameter[0]


def draw_distractor_states(rng: np.random.Generator, spec: SpriteSpec) -> np.ndarray:
    """Draw a straight path of a distractor: states (L, 4) as for the target."""
    time = np.arange(spec.num_frames)[:, None]  # (L, 1)
    heading, pace = rng.uniform(0, 2 * np.pi), rng.uniform(*spec.distractor_speed)
    rates = np.array([pace * np.cos(heading), pace * np.sin(heading), 0, 0])
    return [*rng.uniform(size=2), distractor_diameter(spec), rng.uniform(0, 2 * np.pi)] + time * rates


def check_label(name: str, label: int, num_classes: int) -> None:
    """Check a label.

    Raises:
        ValueError: If there is no such class.
    """
    if not 0 <= label < num_classes:
        raise ValueError(f"{name} is {label}; allowed: 0 to {num_classes - 1}")


def render_clip(seed: int | np.random.SeedSequence, label: int, spec: MotionSpec) -> np.ndarray:
    """Render one clip.

    The seed decides everything but the motion: the same seed with `reversed_label(label)` gives the same clip
    with its frames in reverse order.

    Args:
        seed: Seed of the clip.
        label: Index into `CLASS_NAMES`.
        spec: Size and difficulty.

    Returns:
        RGB frames (L, S, S, 3) uint8.

    Raises:
        ValueError: If there is no class `label`.
    """
    check_label("label", label, len(CLASS_NAMES))
    motion, is_backward = divmod(label, 2)
    rng = np.random.default_rng(seed)
    size, contrast = spec.size, spec.texture_contrast

    ground, colour = draw_colours(rng)
    ground_texture = draw_texture(rng, _BACKGROUND_FREQUENCIES)
    target = _draw_sprite(rng, colour, contrast, math.ceil(spec.diameter[1] * size))
    target_states = _draw_target_states(rng, motion, spec)

    sprites = []  # from back to front
    for _ in range(spec.num_distractors):
        pixels = _draw_sprite(rng, rng.uniform(0, 256, 3), contrast, math.ceil(distractor_diameter(spec) * size))
        sprites.append((pixels, draw_distractor_states(rng, spec)))
    sprites.append((target, target_states))

    camera = spec.camera_jitter * rng.standard_normal((spec.num_frames, 2))  # (L, xy), frame sides
    clip = film(rng, ground, ground_texture, contrast, sprites, camera, size, spec.noise_std)
    return clip[::-1].copy() if is_backward else clip
