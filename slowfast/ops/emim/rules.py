"""The choices of EMIM that the paper leaves open or studies: which frames meet, and what lies outside the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

# Keys and values outside the image. The paper extends the map with this constant instead of masking.
PAD_VALUE = 1e-6

SAMPLINGS = ("sliding", "tiled")
LAST_FRAMES = ("repeat", "self")
PADDINGS = ("constant", "mask")


@dataclass(frozen=True)
class EmimRules:
    """Layout of windows over frames; the defaults are the released model's.

    Attributes:
        sampling: "sliding", a window around every token; or "tiled", the K x K tile that it lies in (Table 6).
        temporal_interval: frames from a query to its keys (Table 11).
        last_frame: result of a frame without a successor: "repeat" that of the frame ``temporal_interval`` before it,
            or "self", attention to itself, as frames without that one have in any case.
        padding: keys and values outside the image: "constant" (``pad_value``, with a share of the softmax) or "mask"
            (left out of the softmax; affinity 0 for the motion features).
        pad_value: the constant.
    """

    sampling: str = "sliding"
    temporal_interval: int = 1
    last_frame: str = "repeat"
    padding: str = "constant"
    pad_value: float = PAD_VALUE

    def __post_init__(self) -> None:
        for name, allowed in (("sampling", SAMPLINGS), ("last_frame", LAST_FRAMES), ("padding", PADDINGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' | '.join(allowed)}, found {getattr(self, name)!r}")
        if self.temporal_interval < 1:
            raise ValueError(f"temporal_interval must be at least 1, found {self.temporal_interval}")


class FramePairs(NamedTuple):
    """Frames of the queries and of the keys of each pair, and the pair whose result each output frame takes."""

    source: list[int]
    target: list[int]
    output: list[int]


def every_frame(num_frames: int, rules: EmimRules) -> FramePairs:
    """Return one pair for each output frame, also where two frames have the same pair; for definitions."""
    pairs = frame_pairs(num_frames, rules)
    source, target = ([frames[pair] for pair in pairs.output] for frames in (pairs.source, pairs.target))
    return FramePairs(source, target, list(range(num_frames)))


def frame_pairs(num_frames: int, rules: EmimRules) -> FramePairs:
    """Return which frames meet in a clip, each pair once; one frame alone meets itself."""
    step = rules.temporal_interval
    pairs: list[tuple[int, int]] = []
    output = []
    for frame in range(num_frames):
        if frame + step < num_frames:
            pair = (frame, frame + step)
        elif rules.last_frame == "repeat" and frame >= step:
            pair = (frame - step, frame)
        else:
            pair = (frame, frame)
        if pair not in pairs:
            pairs.append(pair)
        output.append(pairs.index(pair))
    return FramePairs([source for source, _ in pairs], [target for _, target in pairs], output)


def take_frames(x: torch.Tensor, frames: list[int]) -> torch.Tensor:
    """Return ``x[:, frames]``, as a view where the frames follow one another."""
    runs = []
    for frame in frames:
        if runs and runs[-1][1] == frame:
            runs[-1][1] = frame + 1
        else:
            runs.append([frame, frame + 1])
    parts = [x[:, start:stop] for start, stop in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def places_inside(height: int, width: int, window: int, device: torch.device) -> torch.Tensor:
    """Return which displacements of a sliding window stay inside the image, bool (H, W, P)."""
    offsets = torch.arange(window, device=device) - window // 2
    sizes = (height, width)
    places = (torch.arange(size, device=device)[:, None] + offsets for size in sizes)  # (H, K) and (W, K)
    rows, columns = ((place >= 0) & (place < size) for place, size in zip(places, sizes))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2)
