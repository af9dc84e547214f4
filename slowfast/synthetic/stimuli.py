"""Stimuli that ask how something moves, or what it is: an object over a background of noise, on a torus.

``textured``    a disc with a grating of one of eight orientations over noise: every frame shows where and what it is.
``camouflage``  a disc, or one of eight outlines, cut from noise like that of the background: one frame shows nothing.
``noise``       the outline stays where it is; noise moves one way inside of it and another way outside.

The motion is one of eight directions relative to the background, which may itself pan. The middle of a clip looks the
same whatever the direction, places are uniform, and the same seed with the opposite direction gives the same frames in
reverse order. So no single frame tells the direction, and no unordered set of frames tells it from its opposite.

Noise is moved by its Fourier coefficients, which blurs nothing between whole pixels. Where object and background meet,
camouflage and noise mix them with weights whose squares add up to 1, so that no seam in contrast shows the outline (of
grain and stripes; cells and dots are not Gaussian, so that their mixture is another texture).

Dimension letters: ``L`` frames, ``S`` side of the frame in px.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from slowfast.utils.errors import UserError

STIMULI = ("textured", "camouflage", "noise")
QUESTIONS = ("motion", "appearance", "instance")
TEXTURES = ("grain", "stripes", "cells", "dots")
DIRECTIONS = tuple(f"moving at {45 * index} degrees" for index in range(8))  # clockwise from right
ORIENTATIONS = tuple(f"grating at {22.5 * index:g} degrees" for index in range(8))
OUTLINES = ("bar -", "bar \\", "bar |", "bar /", "disc", "ring", "pair -", "pair |")
_DISC = OUTLINES.index("disc")
NUM_INSTANCES = 128  # still objects to tell apart, each with noise of its own

_LARGEST = sys.float_info.max
_CONTRAST = 45.0  # grey levels, standard deviation of the noise
_PERIOD = 6.0  # px, of the grating


class Arguments:
    """Base of what DATA.ARGS describes: a data class whose defaults say what is allowed, and ``words`` which words."""

    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> "Arguments":
        """Check names and values of a mapping, DATA.ARGS."""
        defaults = {item.name: item.default for item in fields(cls)}
        values = {}
        for name, value in args.items():
            if name not in defaults:
                raise UserError(f"DATA.ARGS: no argument {name!r}; allowed: {', '.join(defaults)}")
            if name in cls.words:
                allowed, is_valid = " | ".join(map(repr, cls.words[name])), value in cls.words[name]
            elif isinstance(defaults[name], tuple):
                allowed = "two numbers, 0 <= MIN <= MAX"
                is_pair = isinstance(value, (list, tuple)) and len(value) == 2
                is_valid = is_pair and all(type(end) in (int, float) for end in value) and 0 <= value[0] <= value[1]
                is_valid = is_valid and value[1] <= _LARGEST
                value = tuple(value) if is_valid else value
            else:
                kinds, low = ((int,), 1) if isinstance(defaults[name], int) else ((int, float), 0)
                high = 1 if name == "grow" else _LARGEST
                allowed = f"a {'whole ' if low else ''}number from {low}" + (f" to {high}" if name == "grow" else "")
                is_valid = type(value) in kinds and low <= value <= high
            if not is_valid:
                raise UserError(f"DATA.ARGS.{name} is {value!r}; allowed: {allowed}")
            values[name] = value
        return cls(**values)


@dataclass(frozen=True)
class StimulusSpec(Arguments):
    """Scene and question of a stimulus; of two numbers, each clip draws uniformly between them.

    Attributes:
        stimulus: one of STIMULI.
        question: how it moves, what it is, or which of NUM_INSTANCES still objects (of ``textured``) it is.
        displacement: relative to the background, tokens a frame.
        token: side of a token, px.
        pan: speed of the background in a random direction, tokens a frame.
        radius: of the object, sides of the frame.
        texture: of the noise in training, one of TEXTURES.
        test_texture: the same in validation and test; "" for that of the training.
        grain: standard deviation of the noise's blur, px.
        surround: speed of what is around ``noise``, in another direction, in speeds of the object.
        grow: share of the training in which the displacement, of ``noise`` the surround's speed, grows epoch by epoch,
            to have its full size from the next epoch on.
        num_train: clips an epoch, new ones in each.
        num_val: clips of validation and test, the same for every seed.
    """

    words: ClassVar = {"stimulus": STIMULI, "question": QUESTIONS, "texture": TEXTURES, "test_texture": ("", *TEXTURES)}

    stimulus: str = "camouflage"
    question: str = "motion"
    displacement: tuple = (0.5, 1.5)
    token: int = 8
    pan: tuple = (0.0, 0.0)
    radius: tuple = (0.19, 0.27)
    texture: str = "grain"
    test_texture: str = ""
    grain: float = 1.5
    surround: float = 1.0
    grow: float = 0.1
    num_train: int = 400
    num_val: int = 256

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        if self.question == "instance":
            return tuple(f"object {index}" for index in range(NUM_INSTANCES))
        return DIRECTIONS if self.question == "motion" else self.kinds

    @property
    def kinds(self) -> tuple[str, ...]:
        """Looks of the object."""
        return ORIENTATIONS if self.stimulus == "textured" else OUTLINES

    def at_epoch(self, epoch: int, num_epochs: int) -> "StimulusSpec":
        """Return the stimuli of an epoch of the training (from 0 on), smaller steps at its beginning."""
        share = min(1.0, (epoch + 1) / (self.grow * num_epochs + 1))
        if self.stimulus == "noise":
            return replace(self, surround=share * self.surround)
        return replace(self, displacement=tuple(share * end for end in self.displacement))

    def in_test(self) -> "StimulusSpec":
        """Return the stimuli of validation and test."""
        return replace(self, texture=self.test_texture or self.texture)

    def draw(self, seed: Any, label: int, num_frames: int, size: int) -> "Stimulus":
        """Draw a clip."""
        return Stimulus(seed, label, self, num_frames, size)


class Stimulus:
    """One clip: ``num_frames`` (L) frames of side ``size`` (S), whose draws all come from ``seed``.

    ``label`` answers the spec's question; the answer to the other question is drawn.
    """

    def __init__(self, seed: Any, label: int, spec: StimulusSpec, num_frames: int, size: int) -> None:
        rng = np.random.default_rng(seed)
        self.spec, self.size, self.label = spec, size, label
        motion, kind = rng.integers(8, size=2)
        if spec.question == "motion":
            motion = label
            kind = kind if spec.stimulus == "textured" else _DISC
        elif spec.question == "appearance":
            kind = label
        self.kind = int(kind)
        sign, angle = (-1 if motion >= 4 else 1), math.radians(45 * (motion % 4))
        speed, pan = (spec.token * rng.uniform(*bounds) for bounds in (spec.displacement, spec.pan))
        heading, other = rng.uniform(0, 2 * np.pi), math.radians(45 * rng.integers(1, 8))
        background = pan * np.array([math.cos(heading), math.sin(heading)])
        relative = speed * np.array([math.cos(angle), math.sin(angle)])
        if spec.stimulus == "noise":  # both move, the background another way
            around = spec.surround * speed
            background = background + around * np.array([math.cos(angle + other), math.sin(angle + other)])
            relative = relative - background
        self.background_velocity = sign * background  # (x, y), px a frame
        self.object_velocity = sign * (background + relative)
        self.times = np.arange(num_frames) - (num_frames - 1) / 2
        self.place, self.radius = rng.uniform(0, size, 2), size * rng.uniform(*spec.radius)
        self.phase = rng.uniform(0, 2 * np.pi)
        family = spec.texture, spec.grain, rng.uniform(0, np.pi)
        self.ground = _texture(rng, size, *family)
        if spec.question == "instance":
            rng, self.place = np.random.default_rng([label, 1]), np.round(self.place)
            self.kind, self.radius, self.phase = label % 8, size * sum(spec.radius) / 2, 0.0
        self.noise = _texture(rng, size, *family)

    def masks(self) -> np.ndarray:
        """Return the signed distance to the object's outline, px, inside > 0: (L, S, S)."""
        outline = OUTLINES[self.kind] if self.spec.stimulus != "textured" else "disc"
        return _distance(outline, *self._offsets(), self.radius)

    def frames(self) -> np.ndarray:
        """Render the clip: RGB (L, S, S, 3) uint8."""
        distance, times = self.masks(), self.times[:, None]
        origin = self.place if self.spec.question == "instance" else 0  # its noise belongs to the object
        ground = _shifted(self.ground, times * self.background_velocity)
        inside = _shifted(self.noise, times * self.object_velocity + origin)
        if self.spec.stimulus == "textured":
            x, y = self._offsets()
            angle = math.radians(22.5 * self.kind)
            wave = 2 * np.pi / _PERIOD * (math.cos(angle) * x + math.sin(angle) * y) + self.phase
            opacity = np.clip(distance + 0.5, 0, 1)
            picture = ground + opacity * ((inside + 2 * np.sin(wave)) / math.sqrt(3) - ground)
        else:
            # A blend over two grains, of variance 1 everywhere.
            share = distance / (2 * self.spec.grain + 1e-6) + 0.5
            picture, edge = np.where(share > 0.5, inside, ground), (share > 0) & (share < 1)
            turn = share[edge] * np.pi / 2
            picture[edge] = np.cos(turn) * ground[edge] + np.sin(turn) * inside[edge]
        grey = np.clip(np.rint(128 + _CONTRAST * picture), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)

    def flow(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the motion (x, y) of what is seen, px a frame, float32 (L, S, S, 2), and where the object is."""
        is_object = self.masks() > 0
        motion = np.where(is_object[..., None], self.object_velocity, self.background_velocity)
        return motion.astype(np.float32), is_object

    def _offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the shortest ways on the torus from the object's middle to columns (L, 1, S) and rows (L, S, 1)."""
        moves = self.spec.stimulus != "noise"
        middle = self.place + moves * self.times[:, None] * self.object_velocity
        half, grid = self.size / 2, np.arange(self.size)
        x, y = ((grid - middle[:, [axis]] + half) % self.size - half for axis in (0, 1))
        return x[:, None, :], y[:, :, None]


def _distance(outline: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    shape, _, axis = outline.partition(" ")
    if shape == "bar":
        angle = math.radians(45 * "-\\|/".index(axis))
        along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        return np.minimum(1.4 * radius - np.abs(along), 0.5 * radius - np.abs(across))
    if shape == "pair":
        x, y = (np.abs(x) - 0.8 * radius, y) if axis == "-" else (x, np.abs(y) - 0.8 * radius)
        return 0.7 * radius - np.hypot(x, y)
    if shape == "ring":
        return 0.3 * radius - np.abs(np.hypot(x, y) - 0.9 * radius)
    return radius - np.hypot(x, y)


def _texture(rng: np.random.Generator, size: int, family: str, grain: float, angle: float) -> np.ndarray:
    """Draw noise of unit variance that is periodic in the frame: Fourier coefficients (S, S // 2 + 1)."""
    coefficients = np.fft.rfft2(rng.standard_normal((size, size)))
    y, x = 2 * np.pi * np.fft.fftfreq(size)[:, None], 2 * np.pi * np.fft.rfftfreq(size)
    stretch = 4 if family == "stripes" else 1  # of the grain, in one direction
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    blur = np.exp(-(grain**2) / 2 * ((stretch * along) ** 2 + across**2))
    coefficients = coefficients * blur
    coefficients[0, 0] = 0
    if family in ("cells", "dots"):
        field = np.fft.irfft2(coefficients, s=(size, size))
        field = field / field.std()
        field = np.tanh(3 * field) if family == "cells" else np.exp(1.5 * field)
        coefficients = np.fft.rfft2(field - field.mean())
    return coefficients / np.fft.irfft2(coefficients, s=(size, size)).std()


def _shifted(coefficients: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return noise moved by shifts (x, y), px (L, 2), on the torus: (L, S, S)."""
    size = len(coefficients)
    x, y = (np.exp(-2j * np.pi * np.outer(shift, frequencies(size)))
            for shift, frequencies in zip(shifts.T, (np.fft.rfftfreq, np.fft.fftfreq)))  # fmt: skip
    return np.fft.irfft2(coefficients * y[:, :, None] * x[:, None], s=(size, size))
