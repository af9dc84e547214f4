"""How time and memory of whole models grow with the clip and the window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slowfast.benchmark.model import common_clip, contestant, race, random_model

# What grows, and the keys that say so.
AXES: dict[str, tuple[str, ...]] = {
    "frames": ("DATA.NUM_FRAMES",),
    "crop": ("DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE"),
    "window": ("EMIM.WINDOW",),
}


def time_scaling(
    cfgs: Mapping[str, Any],
    values: Mapping[str, Sequence[int]],
    precision: str,
    device: torch.device,
    clips: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Time forward passes and training steps, one axis after the other, all models at one value in turn.

    Args:
        cfgs: configurations by file name; what the axes do not change is as they say.
        values: numbers of frames, sides of the crop (px) and of the window (tokens, in all stages) by axis in ``AXES``.
        precision: fp32, bf16 or fp16.
        device: where to.
        clips: of a batch.
        rounds: measurements of each, after one that is not counted.

    Yields:
        For each axis, value and model: ``axis``, ``value``, ``name``, ``precision``, and the medians ``forward_ms``,
        ``forward_bytes``, ``step_ms``, ``step_bytes``.

    Raises:
        ValueError: clips of different sizes.
    """
    for axis, sizes in values.items():
        for size in sizes:
            changed = {path: _changed(cfg, axis, size) for path, cfg in cfgs.items()}
            frames, side = common_clip(changed)
            contestants = []
            for path, cfg in changed.items():
                torch.manual_seed(0)
                contestants.append(contestant(Path(path).stem, random_model(cfg), precision, device))
            batch = torch.randn(clips, 3, frames, side, side, device=device)
            for one in race(contestants, batch, rounds):
                yield {"axis": axis, "value": size, **one.figures()}


def _changed(cfg, axis: str, size: int):
    changed = cfg.clone()
    value = [size] * len(cfg.EMIM.WINDOW) if axis == "window" else size
    changed.merge_from_list([part for key in AXES[axis] for part in (key, value)])
    return changed
