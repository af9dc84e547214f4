"""Synthetic clips whose class is a motion: a textured sprite over a textured background, with camera and distractors.

The twelve motions, relative to the background, are eight directions, approaching, receding, and rotating either way.

A state is a point on a torus: a sprite that leaves the frame re-enters on the other side. A clip starts at a uniformly
drawn state and follows a straight line; the second motion of a pair is the first one played backwards. Therefore an
unordered set of frames has the same distribution in both motions of a pair, and a single frame, whatever its index, in
all motions but approaching and receding. Those two never re-enter nor start again: they stay inside the frame (of a
still camera) and the range of diameters. A mirrored clip changes its class, so flips are no valid augmentation.

Dimension letters: ``L`` frames, ``S`` side of the frame in px, ``R`` side of the sprite's own pixel grid.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from slowfast.synthetic.drawing import BACKGROUND_AMPLITUDE, draw_texture, evaluate_texture, film
from slowfast.utils.errors import UserError

_SPRITE_AMPLITUDE = 90.0  # grey levels (root mean square) at texture_contrast 1
_SPRITE_FREQUENCIES = 2  # periods per diameter of the finest wave: coarse enough to survive the smallest diameter
_COLOUR_SPREAD = 40.0  # grey levels, either way
_DISTRACTOR_SCALE = 0.6  # of the smallest sprite: the class is the motion of the largest object

# Harmonics of an outline with their heights relative to its mean radius; the phases are random. The first is a lump: no
# sprite looks the same after a turn.
_OUTLINE = {1: 0.12, 2: 0.22, 3: 0.16, 4: 0.08}


class Motion(NamedTuple):
    """Pair of classes: ``rate`` (a field of the spec) times ``direction`` in (x, y, log-diameter, angle in radians)."""

    forward: str
    backward: str
    rate: str
    direction: tuple[float, float, float, float]


def _moving(forward: str, backward: str, degrees: float) -> Motion:
    # Clockwise from moving right, since y points down.
    return Motion(forward, backward, "speed", (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0, 0))


MOTIONS = (
    _moving("moving right", "moving left", 0),
    _moving("moving down", "moving up", 90),
    _moving("moving down-right", "moving up-left", 45),
    _moving("moving up-right", "moving down-left", -45),
    Motion("approaching", "receding", "zoom", (0, 0, 1, 0)),
    Motion("rotating clockwise", "rotating counter-clockwise", "spin", (0, 0, 0, math.radians(1))),
)
# In the order of the labels; ``label ^ 1`` is the same motion played backwards.
CLASS_NAMES = tuple(name for motion in MOTIONS for name in (motion.forward, motion.backward))


def _option(default: Any, low: float, high: float, text: str) -> Any:
    return field(default=default, metadata={"bounds": (low, high), "help": text})


@dataclass(frozen=True)
class SceneSpec:
    """Size and difficulty of a set.

    Lengths are fractions of the frame's side. Of two numbers, each clip draws uniformly between them.
    """

    size: int = _option(64, 32, 1024, "side of the square frames, px")
    num_frames: int = _option(12, 2, 9999, "frames per clip")
    speed: tuple = _option((0.04, 0.08), 0.005, 0.25, "speed relative to the background, frame sides per frame")
    zoom: tuple = _option((0.03, 0.06), 0.005, 0.5, "growth of approaching sprites, natural logarithm, per frame")
    spin: tuple = _option((6.0, 12.0), 0.5, 60.0, "speed of rotating sprites, degrees per frame")
    diameter: tuple = _option((0.3, 0.75), 0.1, 0.8, "of the sprite's enclosing circle, frame sides, log-uniform")
    texture_contrast: float = _option(0.4, 0.0, 1.0, "contrast of the textures of sprites and background")
    noise_std: float = _option(4.0, 0.0, 100.0, "standard deviation of the noise, grey levels, per frame")
    camera_jitter: float = _option(0.0, 0.0, 0.2, "standard deviation of the camera's shake, frame sides, per frame")
    camera_pan: tuple = _option((0.0, 0.0), 0.0, 0.25, "speed of the camera in a random direction")
    num_distractors: int = _option(0, 0, 50, "further sprites, smaller than any target and behind it")
    distractor_speed: tuple = _option((0.0, 0.04), 0.0, 0.25, "speed of the distractors in random directions")
    clutter: int = _option(5, 1, 32, "periods per frame side of the finest wave of the background")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, tuple) and not value[0] <= value[1]:
                raise UserError(f"--{item.name.replace('_', '-')} is {value}; allowed: two numbers MIN <= MAX")
        if self.zoom[0] > self.fastest_zoom:
            raise UserError(
                f"--zoom is {self.zoom}; allowed: a MIN up to {self.fastest_zoom:.4f}, which grows "
                f"through all of --diameter {self.diameter} in {self.num_frames} frames"
            )

    @property
    def fastest_zoom(self) -> float:
        """Growth per frame from the smallest to the largest diameter within a clip, natural logarithm."""
        return math.log(self.diameter[1] / self.diameter[0]) / (self.num_frames - 1)


def render(seed: int | np.random.SeedSequence, label: int, spec: SceneSpec) -> np.ndarray:
    """Render one clip: RGB frames (L, S, S, 3) uint8.

    The seed decides everything but the motion: the same seed with ``label ^ 1``, a position in CLASS_NAMES, gives the
    same frames in reverse order.
    """
    artist = _Artist(seed, spec)
    ground, texture, sprites, camera = artist.cast(label)

    def backdrop(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        pixels = spec.texture_contrast * BACKGROUND_AMPLITUDE * evaluate_texture(texture, y, x)
        return np.clip(ground + pixels, 0, 255)

    frames = film(backdrop, sprites, camera, spec.size)
    if spec.noise_std > 0:
        frames += spec.noise_std * artist.rng.standard_normal(frames.shape, np.float32)
    clip = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return clip[::-1].copy() if label % 2 else clip


def true_motion(
    seed: int | np.random.SeedSequence, label: int, spec: SceneSpec, interval: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return how every pixel of the clip that :func:`render` makes moves until ``interval`` frames later.

    Returns:
        Displacements (x, y) in px, float32 (L - interval, S, S, 2), of what is seen at each pixel, and whether that is
        the target, bool (L - interval, S, S).
    """
    _, _, sprites, camera = _Artist(seed, spec).cast(label)
    order = slice(None, None, -1 if label % 2 else 1)
    camera = camera[order]
    motion = np.tile((camera[interval:] - camera[:-interval])[:, None, None], (1, spec.size, spec.size, 1))
    grid = np.arange(spec.size) / spec.size
    places = np.stack(np.meshgrid(grid, grid), axis=-1)  # (S, S, xy), frame sides
    for sprite, states in sprites:
        solid = np.dstack([np.ones_like(sprite[..., :3]), sprite[..., 3]])
        is_seen = film(lambda y, x: np.zeros((len(y), len(x), 3)), [(solid, states[order])], camera, spec.size)[..., 0]
        is_seen = is_seen[:-interval] > 0.5
        now, later = states[order][:-interval], states[order][interval:]
        arm = _shortest(places - (now[:, :2] + camera[:-interval])[:, None, None])  # (L - interval, S, S, xy)
        growth, turn = later[:, 2] / now[:, 2], later[:, 3] - now[:, 3]
        cos, sin = (growth * wave(turn) for wave in (np.cos, np.sin))
        matrix = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
        shift = _shortest(later[:, :2] - now[:, :2]) + camera[interval:] - camera[:-interval]
        moved = np.einsum("tij,tyxj->tyxi", matrix, arm) - arm + shift[:, None, None]
        motion = np.where(is_seen[..., None], moved, motion)
    return (motion * spec.size).astype(np.float32), is_seen


def _shortest(vector: np.ndarray) -> np.ndarray:
    """Return the shortest way on the torus, in frame sides."""
    return (vector + 0.5) % 1 - 0.5


class _Artist:
    """Source of the random draws of one clip."""

    def __init__(self, seed: int | np.random.SeedSequence, spec: SceneSpec) -> None:
        self.rng = np.random.default_rng(seed)
        self.spec = spec

    def cast(self, label: int) -> tuple[np.ndarray, np.ndarray, list[tuple], np.ndarray]:
        """Draw the ground's colour and texture, the sprites with their paths, the target last, and the camera's path.

        All of them are those of the motion played forwards, ``label & ~1``.
        """
        spec = self.spec
        ground, colour = self.colour(), self.colour()
        # Half a cycle apart: the sprite never melts into the ground.
        colour = (ground + 128 + _COLOUR_SPREAD * (colour / 128 - 1)) % 256
        texture = draw_texture(self.rng, spec.clutter)
        target = self.sprite(colour, spec.diameter[1]), self.path(MOTIONS[label // 2])
        distractors = [self.distractor() for _ in range(spec.num_distractors)]
        camera = np.arange(spec.num_frames)[:, None] * self.velocity(spec.camera_pan)  # (L, xy)
        return (
            ground,
            texture,
            [*distractors, target],
            camera + spec.camera_jitter * self.rng.standard_normal(camera.shape),
        )

    def colour(self) -> np.ndarray:
        return self.rng.uniform(0, 256, 3)

    def velocity(self, bounds: tuple) -> np.ndarray:
        heading, pace = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(*bounds)
        return pace * np.array([np.cos(heading), np.sin(heading)])

    def sprite(self, colour: np.ndarray, diameter: float) -> np.ndarray:
        """Draw a sprite (R, R, 4) as ``film`` takes it."""
        resolution = math.ceil(diameter * self.spec.size)
        grid = (np.arange(resolution) + 0.5) / resolution
        texture = evaluate_texture(draw_texture(self.rng, _SPRITE_FREQUENCIES), grid, grid)
        pixels = colour + self.spec.texture_contrast * _SPRITE_AMPLITUDE * texture
        phases = self.rng.uniform(0, 2 * np.pi, 6)[2:]  # six, so that a seed gives the clip that it always gave

        def radius(angle: np.ndarray) -> np.ndarray:
            waves = zip(_OUTLINE.items(), phases)
            return 1 + sum(height * np.cos(number * angle + phase) for (number, height), phase in waves)

        y, x = 2 * grid[:, None] - 1, 2 * grid - 1
        distance = radius(np.arctan2(y, x)) / radius(np.linspace(0, 2 * np.pi, 256)).max() - np.hypot(y, x)
        return np.dstack([np.clip(pixels, 0, 255), distance]).astype(np.float32)

    def path(self, motion: Motion) -> np.ndarray:
        """Draw the target's path, played forwards: states (L, 4) as ``film`` takes them."""
        spec = self.spec
        pace, x, y, size, turn = self.rng.uniform(size=5)
        slow, fast = getattr(spec, motion.rate)
        rate, room, border = slow + (fast - slow) * pace, math.log(spec.diameter[1] / spec.diameter[0]), 0.0
        if motion.rate == "zoom":
            rate = slow + (min(fast, spec.fastest_zoom) - slow) * pace
            room -= rate * (spec.num_frames - 1)
            border = spec.diameter[1] * math.exp((size - 1) * room) / 2 + 1 / spec.size  # by the largest diameter
        start = [border + x * (1 - 2 * border), border + y * (1 - 2 * border), 0, 2 * math.pi * turn]
        states = start + np.arange(spec.num_frames)[:, None] * (rate * np.array(motion.direction))
        states[:, 2] = spec.diameter[0] * math.exp(size * room) * np.exp(states[:, 2])
        states[:, :2] %= 1
        return states

    def distractor(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw a small sprite and its path."""
        diameter = _DISTRACTOR_SCALE * self.spec.diameter[0]
        sprite, velocity = self.sprite(self.colour(), diameter), self.velocity(self.spec.distractor_speed)
        start = [*self.rng.uniform(size=2), diameter, self.rng.uniform(0, 2 * np.pi)]
        return sprite, start + np.arange(self.spec.num_frames)[:, None] * [*velocity, 0, 0]
