"""The choices of EMIM that the paper leaves open or studies: which frames meet, and what lies outside the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

# What keys and values are outside the image. The paper extends the map with this constant instead of masking.
PAD_VALUE = 1e-6

SAMPLINGS = ("sliding", "tiled")
LAST_FRAMES = ("repeat", "self")
PADDINGS = ("constant", "mask")


@dataclass(frozen=True)
class EmimRules:
    """How windows are laid over frames; the defaults are the released model's.

    Attributes:
        sampling: "sliding", a window centred on every token; or "tiled", the K x K tile that the token lies in
            (Table 6).
        temporal_interval: frames from a query to its keys (Table 11).
        last_frame: what a frame without a successor does: "repeat" the result of the frame ``temporal_interval``
            before it, or attend to it-"self", as frames without that one do in any case.
        padding: keys and values outside the image: "constant" (``pad_value``, with a share of the softmax) or "mask"
            (left out of the softmax; affinity 0 for the motion features).
        pad_value: the constant.

    Raises:
        ValueError: naming the configuration key, the value and what is allowed.
    """

    sampling: str = "sliding"
    temporal_interval: int = 1
    last_frame: str = "repeat"
    padding: str = "constant"
    pad_value: float = PAD_VALUE

    def __post_init__(self) -> None:
        for name, allowed in (("sampling", SAMPLINGS), ("last_frame", LAST_FRAMES), ("padding", PADDINGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"EMIM.{name.upper()} must be {' | '.join(allowed)}, found {getattr(self, name)!r}")
        if self.temporal_interval < 1:
            raise ValueError(f"EMIM.TEMPORAL_INTERVAL must be at least 1, found {self.temporal_interval}")


class FramePairs(NamedTuple):
    """Pair ``i`` is (``source[i]``, ``target[i]``), the frames of its queries and of its keys.

    Output frame ``t`` is the result of pair ``output[t]``.
    """

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
    rows = torch.arange(height, device=device)[:, None] + offsets  # (H, K)
    columns = torch.arange(width, device=device)[:, None] + offsets  # (W, K)
    rows_inside = (rows >= 0) & (rows < height)
    columns_inside = (columns >= 0) & (columns < width)
    return (rows_inside[:, None, :, None] & columns_inside[None, :, None, :]).flatten(2)
