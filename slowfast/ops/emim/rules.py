"""The choices of EMIM that the paper leaves open or studies: which frames meet, and what lies outside the image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

# Keys and values outside the image. The paper extends the map with this constant instead of masking.
PAD_VALUE = 1e-6


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

    sampling: Literal["sliding", "tiled"] = "sliding"
    temporal_interval: int = 1
    last_frame: Literal["repeat", "self"] = "repeat"
    padding: Literal["constant", "mask"] = "constant"
    pad_value: float = PAD_VALUE


class FramePairs(NamedTuple):
    """Frames of the queries and of the keys of each pair, and the pair whose result each output frame takes."""

    source: list[int]
    target: list[int]
    output: list[int]


def frame_pairs(num_frames: int, rules: EmimRules, distinct: bool = True) -> FramePairs:
    """Return which frames meet in a clip; not ``distinct``, as often as definitions count them, for every frame."""
    step = rules.temporal_interval
    wanted = []
    for frame in range(num_frames):
        if frame + step < num_frames:
            wanted.append((frame, frame + step))
        elif rules.last_frame == "repeat" and frame >= step:
            wanted.append((frame - step, frame))
        else:
            wanted.append((frame, frame))
    pairs = list(dict.fromkeys(wanted)) if distinct else wanted
    source, target = ([pair[side] for pair in pairs] for side in (0, 1))
    return FramePairs(source, target, [pairs.index(pair) for pair in wanted])


def over_pairs(attend: Callable[..., torch.Tensor], query, key, value, *arguments, distinct: bool = True):
    """Return for every frame of a clip the result of ``attend`` for the pair of frames that rules, last, give it."""
    pairs = frame_pairs(query.shape[1], arguments[-1], distinct)
    key, value = (take_frames(x, pairs.target) for x in (key, value))
    return take_frames(attend(take_frames(query, pairs.source), key, value, *arguments), pairs.output)


def take_frames(x: torch.Tensor, frames: list[int]) -> torch.Tensor:
    """Return ``x[:, frames]``, as a view where the frames follow one another."""
    starts = [place for place, frame in enumerate(frames) if place == 0 or frame != frames[place - 1] + 1]
    stops = [*starts[1:], len(frames)]
    parts = [x[:, frames[start] : frames[stop - 1] + 1] for start, stop in zip(starts, stops)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def places_inside(height: int, width: int, window: int, device: torch.device) -> torch.Tensor:
    """Return which displacements of a sliding window stay inside the image, bool (H, W, P)."""
    offsets = torch.arange(window, device=device) - window // 2
    sizes = (height, width)
    places = (torch.arange(size, device=device)[:, None] + offsets for size in sizes)  # (H, K) and (W, K)
    rows, columns = ((place >= 0) & (place < size) for place, size in zip(places, sizes))
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2)


def outside_image(query: torch.Tensor, window: int, rules: EmimRules) -> torch.Tensor | None:
    """Return the displacements that ``rules`` leave out for queries (B, F, H, W, N, D), bool (H, W, 1, P), or None."""
    is_masked = rules.padding == "mask"
    return ~places_inside(*query.shape[2:4], window, query.device)[:, :, None] if is_masked else None
