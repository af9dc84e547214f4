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

Dimension letters: `L` frames, `S` side of the frame in px, `R` side of the sprite's own pixel grid, `K` waves
per axis of a texture.
"""

import math
from dataclasses import dataclass, field, fields

import cv2
import numpy as np

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
CLASS_NAMES: tuple[str, ...] = tuple(
    name for forward, backward, _ in _MOTIONS for name in (forward, backward)
)

_BACKGROUND_FREQUENCIES = 5  # periods per frame side of the finest wave
_SPRITE_FREQUENCIES = (
    2  # periods per diameter of the finest wave: coarse enough to survive the smallest diameter
)
_BACKGROUND_AMPLITUDE = 60.0  # grey levels (standard deviation) at texture_contrast 1
_SPRITE_AMPLITUDE = 110.0
_COLOUR_SPREAD = 40.0  # grey levels, either way
# Of the first harmonics of the sprite's outline, relative to its mean radius. Only their phases are random,
# so that no sprite comes out round or otherwise symmetric under rotation.
_OUTLINE_AMPLITUDES = (0.12, 0.22, 0.16, 0.08)
_DISTRACTOR_SCALE = 0.6  # of the smallest sprite: the class is the motion of the largest object
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


def _parameter(default: object, low: float, high: float, text: str):
    return field(default=default, metadata={"low": low, "high": high, "help": text})


@dataclass(frozen=True)
class MotionSpec:
    """Size and difficulty of the clips.

    Lengths are fractions of the frame's side, so that a set looks the same at every size. Pairs are the ends
    of a range from which each clip draws uniformly. Each field carries its bounds, meaning and unit.

    Raises:
        ValueError: If a value is out of bounds; the message names the field and its command-line flag.
    """

    size: int = _parameter(64, 32, 1024, "side of the square frames, px")
    num_frames: int = _parameter(12, 2, 9999, "frames per clip")
    speed: tuple[float, float] = _parameter(
        (0.04, 0.08), 0.005, 0.25, "speed of the eight moving classes, frame sides per frame"
    )
    zoom: tuple[float, float] = _parameter(
        (0.03, 0.06), 0.005, 0.5, "growth of approaching sprites, natural logarithm of size per frame"
    )
    spin: tuple[float, float] = _parameter(
        (6.0, 12.0), 0.5, 60.0, "speed of rotating sprites, degrees per frame"
    )
    diameter: tuple[float, float] = _parameter(
        (0.3, 0.75), 0.1, 0.8, "diameter of the sprite's enclosing circle, frame sides, log-uniform"
    )
    texture_contrast: float = _parameter(
        0.4, 0.0, 1.0, "contrast of the textures of sprite and background; 0 is plain colours"
    )
    noise_std: float = _parameter(
        4.0, 0.0, 100.0, "standard deviation of the sensor noise, grey levels of 255, independent per frame"
    )
    camera_jitter: float = _parameter(
        0.0, 0.0, 0.2, "standard deviation of the camera's shake, frame sides, independent per frame"
    )
    num_distractors: int = _parameter(0, 0, 50, "further sprites, smaller than any target and behind it")
    distractor_speed: tuple[float, float] = _parameter(
        (0.0, 0.04), 0.0, 0.25, "speed of the distractors in random directions, frame sides per frame"
    )

    def __post_init__(self) -> None:
        for parameter in fields(self):
            value = getattr(self, parameter.name)
            is_range = isinstance(parameter.default, tuple)
            for number in value if is_range else (value,):
                check_bounds(parameter.name, number, parameter.metadata["low"], parameter.metadata["high"])
            if is_range and (len(value) != 2 or value[0] > value[1]):
                flag = parameter.name.replace("_", "-")
                raise ValueError(f"{parameter.name} (--{flag}) is {value}; allowed: two numbers MIN <= MAX")
        fastest = self.size_period / _MIN_FRAMES_PER_SIZE_CYCLE
        if self.zoom[1] > fastest:
            raise ValueError(
                f"zoom (--zoom) is {self.zoom}; allowed: at most {fastest:.3f} with diameter (--diameter) "
                f"{self.diameter}, so that a cycle of sizes takes {_MIN_FRAMES_PER_SIZE_CYCLE} frames"
            )

    @property
    def size_period(self) -> float:
        """Length of the cycle of sizes: the natural logarithm of largest over smallest diameter."""
        return math.log(self.diameter[1] / self.diameter[0])


def _draw_texture(rng: np.random.Generator, num_frequencies: int) -> np.ndarray:
    """Draw the Fourier coefficients (K, K, 3) of a smooth periodic colour texture with unit variance."""
    frequencies = np.arange(-num_frequencies, num_frequencies + 1)
    radius = np.hypot(frequencies[:, None], frequencies)
    is_used = (radius > 0) & (radius <= num_frequencies)  # the mean is not
    weight = np.where(is_used, 1 / np.maximum(radius, 1), 0)
    coefficients = rng.standard_normal((*weight.shape, 3)) + 1j * rng.standard_normal((*weight.shape, 3))
    return (coefficients * (weight / np.linalg.norm(weight))[..., None]).astype(np.complex64)


def _evaluate_texture(coefficients: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Evaluate a texture at rows `y` (H,) and columns `x` (W,), in periods; returns (H, W, 3) float32."""
    num_frequencies = len(coefficients) // 2
    waves = 2j * np.pi * np.arange(-num_frequencies, num_frequencies + 1)
    rows, columns = (np.exp(np.outer(grid, waves)).astype(np.complex64) for grid in (y, x))
    half = np.tensordot(rows, coefficients, axes=1)  # (H, K, 3)
    return np.matmul(columns, half).real  # (W, K) x (H, K, 3) -> (H, W, 3)


def _draw_sprite(
    rng: np.random.Generator, colour: np.ndarray, contrast: float, resolution: int
) -> np.ndarray:
    """Draw a sprite (R, R, 4) float32: colour, and signed distance to the outline in radii, inside > 0.

    A distance instead of an opacity keeps the outline one pixel sharp at every scale.
    """
    texture = _draw_texture(rng, _SPRITE_FREQUENCIES)
    phases = rng.uniform(0, 2 * np.pi, len(_OUTLINE_AMPLITUDES))
    harmonics = np.arange(1, len(_OUTLINE_AMPLITUDES) + 1)

    def outline(angle: np.ndarray) -> np.ndarray:
        return 1 + np.cos(angle[..., None] * harmonics + phases) @ np.array(_OUTLINE_AMPLITUDES)

    grid = (np.arange(resolution) + 0.5) / resolution  # of the diameter
    y, x = 2 * grid[:, None] - 1, 2 * grid - 1
    largest = outline(np.linspace(0, 2 * np.pi, 256)).max()
    distance = outline(np.arctan2(y, x)) / largest - np.hypot(y, x)
    pixels = colour + contrast * _SPRITE_AMPLITUDE * _evaluate_texture(texture, grid, grid)
    return np.dstack([np.clip(pixels, 0, 255), distance]).astype(np.float32)


def _paste(frame: np.ndarray, sprite: np.ndarray, x: float, y: float, diameter: float, angle: float) -> None:
    """Composite a sprite in place onto a frame (S, S, 3) float32 whose opposite borders are joined.

    Args:
        frame: Picture to draw on.
        sprite: Sprite (R, R, 4) from `_draw_sprite`.
        x: Column of the sprite's centre, px, any real number.
        y: Row of the sprite's centre, px.
        diameter: Diameter of the enclosing circle, px, at most `S - 3`.
        angle: Clockwise rotation as seen by the viewer, radians.
    """
    side = math.ceil(diameter) + 3
    left, top = math.floor(x) - side // 2, math.floor(y) - side // 2
    # The affine map from patch pixels to sprite pixels, that is the inverse of the sprite's own motion.
    scale = len(sprite) / diameter
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    centre, column, row = (len(sprite) - 1) / 2, x - left, y - top
    inverse = np.array(
        [[cos, sin, centre - cos * column - sin * row], [-sin, cos, centre + sin * column - cos * row]]
    )
    patch = cv2.warpAffine(
        sprite,
        inverse,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, -1),
    )
    opacity = np.clip(patch[..., 3:] * (diameter / 2) + 0.5, 0, 1)
    rows = (np.arange(top, top + side) % len(frame))[:, None]
    columns = np.arange(left, left + side) % len(frame)
    below = frame[rows, columns]
    frame[rows, columns] = below + opacity * (patch[..., :3] - below)


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
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f"label is {label}; allowed: 0 to {len(CLASS_NAMES) - 1}")
    motion, is_backward = divmod(label, 2)
    rng = np.random.default_rng(seed)
    size, num_frames, contrast = spec.size, spec.num_frames, spec.texture_contrast
    time = np.arange(num_frames)[:, None]  # (L, 1)

    # Half a cycle of grey levels apart, give or take the spread: the sprite never melts into the ground.
    ground = rng.uniform(0, 256, 3)
    colour = (ground + 128 + rng.uniform(-_COLOUR_SPREAD, _COLOUR_SPREAD, 3)) % 256
    ground_texture = _draw_texture(rng, _BACKGROUND_FREQUENCIES)
    target = _draw_sprite(rng, colour, contrast, math.ceil(spec.diameter[1] * size))

    # The motion, in periods of the state (x, y, log-diameter, angle). All rates are drawn whatever the class.
    speed, zoom, spin = (rng.uniform(*bounds) for bounds in (spec.speed, spec.zoom, spec.spin))
    rates = np.array([speed, speed, zoom / spec.size_period, spin / 360]) * _MOTIONS[motion][2]
    states = (rng.uniform(size=4) + time * rates) % 1  # (L, 4)
    # From here on in (frame sides, frame sides, frame sides, radians).
    states[:, 2] = spec.diameter[0] * np.exp(states[:, 2] * spec.size_period)
    states[:, 3] *= 2 * np.pi

    sprites = []  # from back to front: pixels, states
    small = _DISTRACTOR_SCALE * spec.diameter[0]
    for _ in range(spec.num_distractors):
        pixels = _draw_sprite(rng, rng.uniform(0, 256, 3), contrast, math.ceil(small * size))
        heading, pace = rng.uniform(0, 2 * np.pi), rng.uniform(*spec.distractor_speed)
        rates = np.array([pace * np.cos(heading), pace * np.sin(heading), 0, 0])
        sprites.append((pixels, [*rng.uniform(size=2), small, rng.uniform(0, 2 * np.pi)] + time * rates))
    sprites.append((target, states))

    jitter = spec.camera_jitter * rng.standard_normal((num_frames, 2))  # (L, xy), frame sides
    grid = np.arange(size) / size
    clip = np.empty((num_frames, size, size, 3), np.uint8)
    for t, (shift_x, shift_y) in enumerate(jitter):
        if t == 0 or spec.camera_jitter > 0:
            texture = _evaluate_texture(ground_texture, grid - shift_y, grid - shift_x)
            background = np.clip(ground + contrast * _BACKGROUND_AMPLITUDE * texture, 0, 255)
        frame = background.astype(np.float32)
        for pixels, path in sprites:
            x, y, diameter, angle = path[t]
            _paste(frame, pixels, (x + shift_x) * size, (y + shift_y) * size, diameter * size, angle)
        if spec.noise_std > 0:
            frame += spec.noise_std * rng.standard_normal(frame.shape, np.float32)
        clip[t] = np.clip(np.rint(frame), 0, 255)
    return clip[::-1].copy() if is_backward else clip
