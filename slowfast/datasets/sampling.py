"""Which frames of a video make a clip: 0-based frame numbers, never decreasing.

Sparse sampling takes one frame from each of T equal segments of the whole video (TSN, arXiv 1608.00859);
dense sampling takes T frames over a window of T x rate frames (SlowFast, arXiv 1812.03982).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


def sparse_train(num_frames: int, clip_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one frame from each segment, both of its ends included.

    Args:
        num_frames: frames of the video; fewer than ``clip_frames`` is fine, frames then repeat.
        clip_frames: T.
        rng: source of the draws.

    Returns:
        int64 of shape (T,).
    """
    bounds = _segment_bounds(num_frames, clip_frames)
    return rng.integers(bounds[:-1], bounds[1:], endpoint=True)


def sparse_test(num_frames: int, clip_frames: int, view: int, num_views: int) -> np.ndarray:
    """Return view ``view`` of ``num_views``, equally spaced inside the segments; view 0 of 1 is their middle.

    Returns:
        int64 of shape (clip_frames,).
    """
    assert 0 <= view < num_views
    segment = (num_frames - 1) / clip_frames
    offset = int(segment / (num_views + 1) * (view + 1))
    return _segment_bounds(num_frames, clip_frames)[:-1] + offset


def dense_train(num_frames: int, clip_frames: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a window whose start is uniform (and real) over the video.

    Args:
        num_frames: frames of the video; beyond its end the last frame repeats.
        clip_frames: T.
        rate: the window is T x rate frames long.
        rng: source of the draw.

    Returns:
        int64 of shape (T,).
    """
    return _window(rng.uniform(0, _slack(num_frames, clip_frames, rate)), num_frames, clip_frames, rate)


def dense_test(num_frames: int, clip_frames: int, rate: int, clip: int, num_clips: int) -> np.ndarray:
    """Return window ``clip`` of ``num_clips``, spread over the possible starts; 0 of 1 is the centre.

    Returns:
        int64 of shape (clip_frames,).
    """
    assert 0 <= clip < num_clips
    slack = _slack(num_frames, clip_frames, rate)
    start = slack // 2 if num_clips == 1 else clip * (slack // (num_clips - 1))
    return _window(start, num_frames, clip_frames, rate)


class FrameSampler(Protocol):
    """Chooses the frames of a clip."""

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the frames of a random clip of a video with ``num_frames`` frames."""

    def test(self, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
        """Return the frames of clip ``clip`` of ``num_clips``; 0 of 1 is the central one."""


@dataclass(frozen=True)
class SparseSampler:
    """Sparse sampling of clips of ``clip_frames`` frames."""

    clip_frames: int

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        return sparse_train(num_frames, self.clip_frames, rng)

    def test(self, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
        return sparse_test(num_frames, self.clip_frames, clip, num_clips)


@dataclass(frozen=True)
class DenseSampler:
    """Dense sampling of clips of ``clip_frames`` frames over ``clip_frames * rate``."""

    clip_frames: int
    rate: int

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        return dense_train(num_frames, self.clip_frames, self.rate, rng)

    def test(self, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
        return dense_test(num_frames, self.clip_frames, self.rate, clip, num_clips)


def _segment_bounds(num_frames: int, clip_frames: int) -> np.ndarray:
    """Return the ends of the segments, int64 of shape (clip_frames + 1,); neighbours share an end."""
    segment = (num_frames - 1) / clip_frames
    # rint rounds half to even, which decides some frames of the published numbers.
    return np.rint(segment * np.arange(clip_frames + 1)).astype(np.int64)


def _slack(num_frames: int, clip_frames: int, rate: int) -> int:
    """Return the number of frames by which the video is longer than the window."""
    return max(num_frames - clip_frames * rate, 0)


def _window(start: float, num_frames: int, clip_frames: int, rate: int) -> np.ndarray:
    # From the first to the last frame of the window: the step (T rate - 1) / (T - 1) is a little more than
    # rate.
    steps = np.arange(clip_frames) * (clip_frames * rate - 1) / max(clip_frames - 1, 1)
    return np.clip(start + steps, 0, num_frames - 1).astype(np.int64)
