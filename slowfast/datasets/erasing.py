"""Random erasing (arXiv 1708.04896) of clips: one box for all frames.

Dimension letters: `T` frames, `H W` height and width of a frame (px).
"""

from __future__ import annotations

import math

import numpy as np
import torch

AREA_RANGE = (0.02, 1 / 3)  # share of the frame, over all boxes
ASPECT_RANGE = (0.3, 1 / 0.3)  # height / width
MAX_TRIES = 100

MODES = ("pixel", "const")


def draw_erasing_box(
    rng: np.random.Generator, height: int, width: int, count: int = 1
) -> tuple[int, int, int, int] | None:
    """Draw one of ``count`` boxes for a frame of ``height`` x ``width`` px.

    Returns:
        (top, left, box height, box width) in px, or None if no draw fitted into the frame.
    """
    for _ in range(MAX_TRIES):
        area = rng.uniform(*AREA_RANGE) * height * width / count
        aspect = math.exp(rng.uniform(math.log(ASPECT_RANGE[0]), math.log(ASPECT_RANGE[1])))
        box_height = round(math.sqrt(area * aspect))
        box_width = round(math.sqrt(area / aspect))
        if box_height < height and box_width < width:
            top = int(rng.integers(height - box_height, endpoint=True))
            left = int(rng.integers(width - box_width, endpoint=True))
            return top, left, box_height, box_width
    return None


def random_erasing(
    clip: torch.Tensor, rng: np.random.Generator, prob: float = 0.25, count: int = 1, mode: str = "pixel"
) -> torch.Tensor:
    """Overwrite boxes of a normalised clip, in place.

    Args:
        clip: float32 of shape (3, T, H, W) on the CPU.
        rng: source of the boxes and of the noise.
        prob: probability of erasing anything.
        count: number of boxes, which share the erased area.
        mode: ``pixel``, unit normal noise drawn for each frame, pixel and channel; ``const``, zero.

    Returns:
        ``clip``.
    """
    assert mode in MODES, mode
    if rng.random() >= prob:
        return clip
    for _ in range(count):
        box = draw_erasing_box(rng, *clip.shape[2:], count)
        if box is None:
            continue
        top, left, height, width = box
        region = clip[:, :, top : top + height, left : left + width]
        if mode == "const":
            region.zero_()
        else:
            region.copy_(torch.from_numpy(rng.standard_normal(region.shape, dtype=np.float32)))
    return clip
