"""Frames of a video that make a clip: 0-based frame numbers, never decreasing.

Sparse sampling takes one frame from each of T equal segments of the whole video (TSN, arXiv 1608.00859);
dense sampling takes T frames over a window of T x rate frames (SlowFast, arXiv 1812.03982).
Videos of any length will do: where there are too few frames, some repeat.

Dimension letters: ``T`` frames of a clip.
"""

from dataclasses import dataclass

import numpy as np

from slowfast.config import clip_frames
from slowfast.config.parser import CfgNode


@dataclass(frozen=True)
class SparseSampler:
    """Sparse sampling of clips of ``clip_frames`` (T) frames."""

    clip_frames: int

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Draw one frame from each segment of a video, both ends of the segment included: int64 (T,)."""
        bounds = self._segment_bounds(num_frames)
        return rng.integers(bounds[:-1], bounds[1:], endpoint=True)

    def test(self, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
        """Return clip ``clip`` of ``num_clips``, equally spaced inside the segments; 0 of 1 is their middle."""
        assert 0 <= clip < num_clips
        segment = (num_frames - 1) / self.clip_frames
        return self._segment_bounds(num_frames)[:-1] + int(segment / (num_clips + 1) * (clip + 1))

    def _segment_bounds(self, num_frames: int) -> np.ndarray:
        """Return the ends of the segments, int64 of shape (T + 1,); neighbours share an end."""
        segment = (num_frames - 1) / self.clip_frames
        # rint rounds half to even, which decides some frames of the published numbers.
        return np.rint(segment * np.arange(self.clip_frames + 1)).astype(np.int64)


@dataclass(frozen=True)
class DenseSampler:
    """Dense sampling of clips of ``clip_frames`` (T) frames over a window of ``clip_frames * rate``."""

    clip_frames: int
    rate: int
    stretch: bool = (
        False  # spread the frames over a video that is shorter than the window, instead of repeating its last
    )

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return a window of a video whose start is uniform (and real): int64 (T,)."""
        return self._window(rng.uniform(0, self._slack(num_frames)), num_frames)

    def test(self, num_frames: int, clip: int, num_clips: int) -> np.ndarray:
        """Return window ``clip`` of ``num_clips``; 0 of 1 is the centre.

        Windows start a whole number of frames apart, the largest for which all of them fit. So the last one may end up
        to ``num_clips - 2`` frames before the video does, and with fewer possible starts than clips all are the first.
        """
        assert 0 <= clip < num_clips
        slack = self._slack(num_frames)
        return self._window(slack // 2 if num_clips == 1 else clip * (slack // (num_clips - 1)), num_frames)

    def _slack(self, num_frames: int) -> int:
        """Return the number of frames by which the video is longer than the window."""
        return max(num_frames - self.clip_frames * self.rate, 0)

    def _window(self, start: float, num_frames: int) -> np.ndarray:
        # From the first to the last frame of the window: the step (T rate - 1) / (T - 1) is a little more than rate.
        span = self.clip_frames * self.rate
        if self.stretch:
            span = min(span, num_frames)
        steps = np.arange(self.clip_frames) * (span - 1) / max(self.clip_frames - 1, 1)
        return np.clip(start + steps, 0, num_frames - 1).astype(np.int64)


# Orders of a clip's frames that take the order of time away, or all of time.
PERTURBATIONS = ("reverse", "shuffle", "single_frame")


def perturbed(frames: np.ndarray, how: str, seed: int) -> np.ndarray:
    """Return the frames (T,) of a clip backwards, in an order drawn from ``seed``, or T times the middle one."""
    if how == "reverse":
        return frames[::-1]
    if how == "shuffle":
        return np.random.default_rng(seed).permutation(frames)
    return np.full_like(frames, frames[len(frames) // 2])


def build_sampler(cfg: CfgNode) -> SparseSampler | DenseSampler:
    """Build the frame sampler that DATA.FRAME_SAMPLING names."""
    if cfg.DATA.FRAME_SAMPLING == "sparse":
        return SparseSampler(clip_frames(cfg))
    return DenseSampler(clip_frames(cfg), cfg.DATA.SAMPLING_RATE, cfg.DATA.SHORT_VIDEO == "stretch")
