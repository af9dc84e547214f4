"""Gestures: a pointing hand whose fingertip draws one of ten paths, as the filmed ones of EgoGestAR do.

A scene is 4/3 wide and 1 high, with y downwards; a clip shows a square of it, as the crops of a filmed clip do. The
hand is a right one, whose arm comes from below. Between rests at both ends the fingertip draws the path, more slowly at
its corners, before a background that the camera moves. All but the path is drawn independently of the class, and the
two classes of a pair of REVERSALS are, with the same seed, the same frames forwards and backwards.

Dimension letters: ``L`` frames, ``S`` side of the frame in px.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from slowfast.synthetic.drawing import draw_texture, evaluate_texture
from slowfast.synthetic.stimuli import Arguments
from slowfast.utils.errors import UserError

_ROUND = np.linspace(0, 2 * np.pi, 33)
_TIPS = np.radians([234, 90, -54, 162, 18, 234])  # of the star, counter-clockwise from right
# Corners (x, y) in a box of side 1. The names, and the order of drawing, are those of the filmed set.
PATHS = {
    "carret": ((0, 1), (0.5, 0), (1, 1)),
    "circlecc": tuple(zip(0.5 + 0.5 * np.cos(_ROUND), 0.5 - 0.5 * np.sin(_ROUND))),
    "del": ((0, 0), (1, 1), (0, 1), (1, 0)),
    "down": ((0.5, 0), (0.5, 1)),
    "left": ((1, 0.5), (0, 0.5)),
    "right": ((0, 0.5), (1, 0.5)),
    "square": ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)),
    "star": tuple(zip(0.5 + 0.5 * np.cos(_TIPS), 0.5 - 0.5 * np.sin(_TIPS))),
    "tick": ((0, 0.1), (0.4, 1), (1, 0)),
    "up": ((0.5, 1), (0.5, 0)),
}
REVERSALS = {"right": "left", "down": "up"}
_WIDTH = 4 / 3  # of a scene


@dataclass(frozen=True)
class GestureSpec(Arguments):
    """Variety of the gestures; of two numbers, each clip draws uniformly between them.

    Attributes:
        question: of which the class is the answer.
        extent: of the path, shares of the width and of the height of the scene.
        scatter: standard deviation of a corner's place (of a circle's, as a whole), sides of the path's box.
        rest: before and after the path, shares of the clip.
        camera: way of the background, heights of the scene.
        brightness: factors, two a clip, from near one of which it goes towards the other.
        distractors: number of blobs that move behind the hand, in straight lines.
        noise: standard deviation in a frame, grey levels.
        num_train: clips an epoch, new ones in each.
        num_val: clips of validation and test, the same for every seed.
    """

    words: ClassVar = {"question": ("gesture",)}

    question: str = "gesture"
    extent: tuple = (0.35, 0.75)
    scatter: float = 0.06
    rest: tuple = (0.02, 0.2)
    camera: tuple = (0.0, 0.06)
    brightness: tuple = (0.5, 1.2)
    distractors: tuple = (0, 2)
    noise: tuple = (0.0, 6.0)
    num_train: int = 400
    num_val: int = 200

    def __post_init__(self) -> None:
        if self.rest[1] >= 0.5:
            raise UserError(f"DATA.ARGS.rest is {list(self.rest)}; allowed: less than 0.5, for it comes twice")
        if self.extent[0] == 0:
            raise UserError(f"DATA.ARGS.extent is {list(self.extent)}; allowed: more than 0")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return tuple(PATHS)

    def at_epoch(self, epoch: int, num_epochs: int) -> "GestureSpec":
        """Return the same: nothing grows."""
        return self

    def in_test(self) -> "GestureSpec":
        """Return the same: tests are like the training."""
        return self

    def draw(self, seed: Any, label: int, num_frames: int, size: int) -> "Gesture":
        """Draw a clip."""
        return Gesture(seed, label, self, num_frames, size)


class Gesture:
    """One clip: ``num_frames`` (L) frames of side ``size`` (S), whose draws all come from ``seed``."""

    def __init__(self, seed: Any, label: int, spec: GestureSpec, num_frames: int, size: int) -> None:
        rng = np.random.default_rng(seed)
        self.spec, self.size, name = spec, size, spec.class_names[label]
        self.is_reversed = name in REVERSALS
        view = rng.uniform(0.85, 1)
        self.scale = size / view  # px a height of the scene
        self.origin = rng.uniform(0, 1, 2) * (_WIDTH - view, 1 - view)
        # One frame of each segment of the whole, as sparse sampling takes them.
        times = (np.arange(num_frames) + rng.uniform(0, 1, num_frames)) / num_frames
        self.tips = self._tips(rng, PATHS[REVERSALS.get(name, name)], times)
        self.shoulder = rng.uniform((0.75, 1.2), (1.5, 2.0))
        self.bend, self.reach = rng.uniform(0.1, 0.6), rng.uniform(0.8, 1.4)
        heading, way = rng.uniform(0, 2 * np.pi), rng.uniform(*spec.camera)
        shake = rng.normal(0, 0.1 * way, (num_frames, 2))
        self.camera = shake + np.outer(times - 0.5, (way * math.cos(heading), way * math.sin(heading)))
        first, last = rng.uniform(*spec.brightness, 2)
        self.gains = (first + last) / 2 + (last - first) / 2 * (times - 0.5)
        self.times, self._looks = times, rng.integers(2**63)

    def frames(self) -> np.ndarray:
        """Render the clip: RGB (L, S, S, 3) uint8."""
        rng = np.random.default_rng(self._looks)
        background, margin = self._background(rng)
        skin = rng.uniform(50, 250) * np.array([1, rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.85)], np.float32)
        has_sleeve, sleeve, sleeve_at = rng.random() < 0.4, _colour(rng), rng.uniform(0.1, 0.6)
        shade, noise = rng.uniform(0, 0.5), rng.uniform(*self.spec.noise)
        blobs = self._blobs(rng)
        pictures = []
        for time, gain, shift, (distance, along) in zip(self.times, self.gains.tolist(), self.camera, self._hand()):
            shift = margin - shift * self.scale
            window = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
            how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            picture = cv2.warpAffine(background, window, (self.size, self.size), flags=how)
            for place, velocity, radius, colour in blobs:
                x, y = self._grid(place + velocity * time)
                picture = _paste(picture, colour, (radius - np.hypot(x, y)) * self.scale)
            lit = 1 - shade + shade * np.clip(distance / (0.05 * self.reach * self.scale), 0, 1)[..., None]
            colour = np.where(has_sleeve & (along > sleeve_at)[..., None], sleeve, skin * lit)
            picture = gain * _paste(picture, colour, distance)
            picture += noise * rng.standard_normal(picture.shape, np.float32)
            pictures.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
        return np.stack(pictures[::-1] if self.is_reversed else pictures)

    def masks(self) -> np.ndarray:
        """Return the signed distance to the outline of hand and arm, px, inside > 0: (L, S, S)."""
        distances = np.stack([distance for distance, _ in self._hand()])
        return distances[::-1] if self.is_reversed else distances

    def path(self) -> np.ndarray:
        """Return where the fingertip is (x, y), px, (L, 2); it may be out of sight."""
        path = (self.tips - self.origin) * self.scale - 0.5
        return path[::-1] if self.is_reversed else path

    def _tips(self, rng: np.random.Generator, corners: Any, times: np.ndarray) -> np.ndarray:
        """Place a path in the scene, and the fingertip on it at the times (from 0 to 1): (L, 2)."""
        size = rng.uniform(*self.spec.extent, 2) * (_WIDTH, 1)
        middle = rng.uniform(0.4, 0.6) * _WIDTH, 0.05 + size[1] / 2 + rng.uniform(0, max(0.7 - size[1], 0.05))
        # All is drawn, whatever the path needs, so that what comes after does not depend on the class.
        scatter, pace = rng.normal(0, self.spec.scatter, (6, 2)), np.exp(rng.normal(0, 0.2, 5))
        start, rests, slow = rng.uniform(-0.3, 1.3), rng.uniform(*self.spec.rest, 2), rng.uniform(0, 1)
        corners = np.array(corners) - 0.5
        if is_round := len(corners) == len(_ROUND):
            turned = np.array([[math.cos(start), -math.sin(start)], [math.sin(start), math.cos(start)]])
            corners, pace, slow = corners @ turned, np.ones(len(corners)), 0
        corners = middle + size * (corners + scatter[: 1 if is_round else len(corners)])
        length = np.hypot(*np.diff(corners, axis=0).T)
        ends = np.concatenate([[0], np.cumsum(length * pace[: len(length)])])
        progress = np.clip((times - rests[0]) / (1 - sum(rests)), 0, 1) * ends[-1]
        stroke = np.clip(np.searchsorted(ends, progress, side="right") - 1, 0, len(length) - 1)
        share = (progress - ends[stroke]) / np.diff(ends)[stroke]
        share = (1 - slow) * share + slow * share**2 * (3 - 2 * share)
        return corners[stroke] + share[:, None] * (corners[stroke + 1] - corners[stroke])

    def _hand(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for every frame the signed distance (S, S) to the hand, px, and how far along the arm a pixel is."""
        found, reach, down = [], self.reach, np.array([0, 1])
        for tip in self.tips:
            arm = (self.shoulder - tip) / np.hypot(*(self.shoulder - tip))
            finger = (1 - self.bend) * down + self.bend * arm
            finger = finger / np.hypot(*finger)
            knuckle = tip + 0.15 * reach * finger
            wrist = knuckle + 0.13 * reach * (finger + arm) / 2
            parts = (
                (tip + 0.02 * reach * finger, knuckle, 0.02 * reach, 0.025 * reach),
                (knuckle, wrist, 0.06 * reach, 0.05 * reach),
                (wrist, self.shoulder, 0.045 * reach, 0.12 * reach),
            )
            bars = [self._bar(*part) for part in parts]
            found.append((np.max([distance for distance, _ in bars], axis=0) * self.scale, bars[2][1]))
        return found

    def _bar(self, start: np.ndarray, end: np.ndarray, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed distance to a bar with round ends, of two radii, and how far along it a pixel is."""
        x, y = self._grid(start)
        dx, dy = (end - start).tolist()  # Python's numbers leave float32 as it is
        along = np.clip((x * dx + y * dy) / (dx**2 + dy**2), 0, 1)
        return first + (last - first) * along - np.hypot(x - along * dx, y - along * dy), along

    def _grid(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ways (x, y) from a place of the scene to every pixel, (1, S) and (S, 1)."""
        x, y = ((np.arange(self.size) + 0.5) / self.scale + self.origin[axis] - place[axis] for axis in (0, 1))
        return x[None].astype(np.float32), y[:, None].astype(np.float32)

    def _background(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Draw what is behind the hand, larger than the frame by a margin (px) for the camera: (S + 2 margin, ...)."""
        margin = math.ceil(np.abs(self.camera).max() * self.scale) + 1
        side = self.size + 2 * margin
        grid = np.arange(side) / side
        picture = np.full((side, side, 3), _colour(rng), np.float32)
        for finest in (2, 12):  # waves a side: light and shade, and things
            stretch = rng.choice([0.05, 1, 1], 2)  # curtains and shelves
            texture = evaluate_texture(draw_texture(rng, finest), stretch[0] * grid, stretch[1] * grid)
            texture = (1 - (grey := rng.random())) * texture + grey * texture.mean(axis=-1, keepdims=True)
            sharp = rng.choice([0, 4])
            texture = np.tanh(sharp * texture) if sharp else texture
            picture += rng.uniform(0, 45) * texture
        for _ in range(rng.integers(0, 6)):
            (left, right), (top, bottom) = np.sort(rng.integers(0, side, (2, 2)), axis=1)
            opacity = rng.uniform(0.2, 1)
            part = picture[top:bottom, left:right]
            part += opacity * (_colour(rng) - part)
        return picture, margin

    def _blobs(self, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, float, np.ndarray]]:
        """Draw distractors: place, velocity (heights of the scene a clip), radius and colour."""
        count = round(rng.uniform(*self.spec.distractors))
        draws = [(rng.uniform(0, (_WIDTH, 1)), rng.normal(0, 0.15, 2), rng.uniform(0.03, 0.12)) for _ in range(count)]
        return [(*drawn, _colour(rng)) for drawn in draws]


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour, more often muted than not: RGB (3,) float32."""
    return (rng.uniform(0, 255) + rng.uniform(0, 0.7) * rng.uniform(-128, 128, 3)).astype(np.float32)


def _paste(picture: np.ndarray, colour: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Lay a colour over a picture (S, S, 3) where the signed distance (S, S), px, says."""
    opacity = np.clip(distance + 0.5, 0, 1)[..., None]
    return picture + opacity * (colour - picture)
