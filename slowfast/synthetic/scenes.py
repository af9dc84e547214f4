"""Synthetic scenes: clips with a moving camera, distractors and clutter that ask two questions.

How does it move? The largest sprite moves in one of twelve directions, 30 degrees apart, that form time-reversed
pairs. What moves? The same sprite has one of twelve kinds, a pattern inside an outline. Both labels
belong to every clip and are independent of each other, so that one set of videos tests what a network does for motion
and what it does for appearance, with the same number of classes and the same chance level.

The camera pans evenly in a random direction, and the label is the motion relative to the background: what a human calls
"moving left" while the camera follows, and what labels of filmed actions mean. Neither the path of the sprite in the
image nor that of the background suffices; their difference does. Distractors, smaller sprites
without a pattern, drift over the same background and hide behind the target.

Both properties of `slowfast.synthetic.specs` hold exactly:

* Any single frame has the same distribution in all motions. What a frame shows is a point on a torus, the states of
  target, distractors and background; it is drawn uniformly and independently of the motion, and moves by a shift
  that is independent of it. A uniform distribution on a torus does not change under a shift.
* Any unordered set of frames has the same distribution in both motions of a pair: the second is the first one
  played backwards, camera, distractors and noise included.

Scenes are grey, and things differ from what is behind them by their texture above all: networks that begin with random
weights spend most of a short training on strong random colours otherwise, which tell nothing.

The kind is drawn independently of everything else. Any single frame shows it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slowfast.synthetic.drawing import draw_texture, evaluate_texture, film, make_sprite, sprite_grid
from slowfast.synthetic.specs import SpriteSpec, check_label, distractor_diameter, draw_distractor_states, parameter

_NUM_DIRECTIONS = 12
# Degrees, clockwise from moving right since y points down; a direction, then the same played backwards.
_ANGLES = [angle for forward in range(0, 180, 360 // _NUM_DIRECTIONS) for angle in (forward, forward + 180)]
DIRECTION_NAMES: tuple[str, ...] = tuple(f"moving at {angle} degrees" for angle in _ANGLES)

_OUTLINES = {"two-lobed": (2, 0.25), "three-lobed": (3, 0.3), "five-lobed": (5, 0.3)}  # lobes, their relative height
_PATTERNS = ("cloudy", "striped", "checked", "ringed")
KIND_NAMES: tuple[str, ...] = tuple(f"{pattern} {outline}" for outline in _OUTLINES for pattern in _PATTERNS)

_PLAIN_KINDS = [kind for kind, name in enumerate(KIND_NAMES) if name.startswith("cloudy")]  # of distractors

_PATTERN_AMPLITUDE = 90.0  # grey levels (root mean square) at texture_contrast 1
_PATTERN_PERIODS = 3.0  # per diameter of the sprite
_CLOUD_FREQUENCIES = 2  # periods per diameter of the finest wave
# Of the colour texture that all sprites have, relative to the pattern, and of a lump on every outline, relative to
# its radius: no sprite looks the same after a turn.
_CLOUD_SHARE = 0.5
_LUMP = 0.12


@dataclass(frozen=True)
class SceneSpec(SpriteSpec):
    """Size and difficulty of the scenes; fields and errors as in `SpriteSpec`."""

    size: int = parameter(64, 32, 1024, "side of the square frames, px")
    num_frames: int = parameter(8, 2, 9999, "frames per clip")
    speed: tuple[float, float] = parameter(
        (0.025, 0.05), 0.005, 0.25, "speed relative to the background, frame sides per frame"
    )
    diameter: tuple[float, float] = parameter(
        (0.4, 0.7), 0.1, 0.8, "diameter of the sprite's enclosing circle, frame sides, log-uniform"
    )
    texture_contrast: float = parameter(1.0, 0.0, 1.0, "contrast of the textures of sprites and background")
    num_distractors: int = parameter(1, 0, 50, "further sprites, smaller than any target and behind it")
    distractor_speed: tuple[float, float] = parameter(
        (0.0, 0.02), 0.0, 0.25, "speed of the distractors in random directions, frame sides per frame"
    )
    camera_pan: tuple[float, float] = parameter(
        (0.0, 0.01), 0.0, 0.25, "speed of the camera's pan in a random direction, frame sides per frame"
    )
    grey_spread: float = parameter(
        16.0, 0.0, 128.0, "largest distance of the means of sprites and background from mid-grey, grey levels"
    )
    clutter: int = parameter(3, 1, 32, "periods per frame side of the finest wave of the background")


def _draw_pattern(rng: np.random.Generator, name: str, grid: np.ndarray) -> np.ndarray:
    """Draw a pattern (R, R, 3) with a root mean square of about 1 on the points `grid` (R,) of both axes."""
    clouds = evaluate_texture(_draw_grey_texture(rng, _CLOUD_FREQUENCIES), grid, grid)
    phases = rng.uniform(0, 2 * np.pi, 2)  # drawn whatever the pattern
    y, x = grid[:, None], grid
    wave = 2 * np.pi * _PATTERN_PERIODS
    height = {
        "cloudy": 0 * x * y,
        "striped": np.sin(wave * x + phases[0]) + 0 * y,
        "checked": math.sqrt(2) * np.sin(wave * x + phases[0]) * np.sin(wave * y + phases[1]),
        "ringed": np.sin(wave * np.hypot(x - 0.5, y - 0.5) + phases[0]),
    }[name]
    if name == "cloudy":
        return clouds
    return math.sqrt(2) * height[..., None] + _CLOUD_SHARE * clouds


def _draw_outline(rng: np.random.Generator, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Draw an outline: angles in radians (any shape) to distances from the centre."""
    lobes, height = _OUTLINES[name]
    phases = rng.uniform(0, 2 * np.pi, 2)
    return lambda angle: 1 + height * np.cos(lobes * angle + phases[0]) + _LUMP * np.cos(angle + phases[1])


def _draw_grey(rng: np.random.Generator, spec: SceneSpec) -> np.ndarray:
    """Draw a mean colour (3,): a grey around the middle one, so that things differ by their texture above all."""
    return np.full(3, 128 + rng.uniform(-spec.grey_spread, spec.grey_spread))


def _draw_grey_texture(rng: np.random.Generator, num_frequencies: int) -> np.ndarray:
    """Draw the coefficients of a texture whose three channels are the same."""
    return np.repeat(draw_texture(rng, num_frequencies)[..., :1], 3, axis=-1)


def _draw_sprite(
    rng: np.random.Generator, kind: int, colour: np.ndarray, contrast: float, resolution: int
) -> np.ndarray:
    """Draw a sprite (R, R, 4) float32 of a kind, see `make_sprite`."""
    pattern, outline = KIND_NAMES[kind].split(" ")
    pixels = colour + contrast * _PATTERN_AMPLITUDE * _draw_pattern(rng, pattern, sprite_grid(resolution))
    return make_sprite(pixels, _draw_outline(rng, outline))


def _draw_target_states(rng: np.random.Generator, angle: float, spec: SceneSpec) -> np.ndarray:
    """Draw the path of the target in a direction, played forwards: states (L, 4) as for distractors."""
    pace = rng.uniform(*spec.speed)
    x, y, size, turn = rng.uniform(size=4)
    rates = pace * np.array([math.cos(angle), math.sin(angle), 0, 0])
    start = [x, y, spec.diameter[0] * math.exp(size * spec.size_period), 2 * math.pi * turn]
    states = start + np.arange(spec.num_frames)[:, None] * rates
    states[:, :2] %= 1
    return states


def render_scene(seed: int | np.random.SeedSequence, label: int, kind: int, spec: SceneSpec) -> np.ndarray:
    """Render one clip.

    The seed decides everything but the motion and the pattern and outline of the target: the same seed with
    `reversed_label(label)` gives the same clip with its frames in reverse order.

    Args:
        seed: Seed of the clip.
        label: How it moves, an index into `DIRECTION_NAMES`.
        kind: What moves, an index into `KIND_NAMES`.
        spec: Size and difficulty.

    Returns:
        RGB frames (L, S, S, 3) uint8.

    Raises:
        ValueError: If there is no class `label` or no `kind`.
    """
    check_label("label", label, len(DIRECTION_NAMES))
    check_label("kind", kind, len(KIND_NAMES))
    motion, is_backward = divmod(label, 2)
    rng = np.random.default_rng(seed)
    contrast = spec.texture_contrast

    ground, colour = _draw_grey(rng, spec), _draw_grey(rng, spec)
    texture = _draw_grey_texture(rng, spec.clutter)
    target = _draw_sprite(rng, kind, colour, contrast, math.ceil(spec.diameter[1] * spec.size))
    target_states = _draw_target_states(rng, math.radians(_ANGLES[2 * motion]), spec)

    sprites = []  # from back to front
    for _ in range(spec.num_distractors):
        resolution = math.ceil(distractor_diameter(spec) * spec.size)
        pixels = _draw_sprite(rng, int(rng.choice(_PLAIN_KINDS)), _draw_grey(rng, spec), contrast, resolution)
        sprites.append((pixels, draw_distractor_states(rng, spec)))
    sprites.append((target, target_states))

    heading, pace = rng.uniform(0, 2 * np.pi), rng.uniform(*spec.camera_pan)
    camera = np.arange(spec.num_frames)[:, None] * pace * np.array([np.cos(heading), np.sin(heading)])  # (L, xy)
    camera = camera + spec.camera_jitter * rng.standard_normal(camera.shape)
    clip = film(rng, ground, texture, contrast, sprites, camera, spec.size, spec.noise_std)
    return clip[::-1].copy() if is_backward else clip
