"""Random erasing (arXiv 1708.04896) of clips: one box for all frames.

Dimension letters: `T` frames, `H W` height and width of a frame (px).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

AREA_RANGE = (0.02, 1 / 3)  # share of the frame, over all boxes
ASPECT_RANGE = (0.3, 1 / 0.3)  # height / width
MAX_TRIES = 100

MODES = ("pixel", "const")


class Erasing(NamedTuple):
    """What to erase from a clip.

    Attributes:
        boxes: (top, left, height, width) in px; none to leave the clip as it is.
        noise_seed: of the noise that fills them.
    """

    boxes: tuple[tuple[int, int, int, int], ...]
    noise_seed: int


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


def draw_erasing(rng: np.random.Generator, height: int, width: int, prob: float = 0.25, count: int = 1) -> Erasing:
    """Draw what to erase from a clip of ``height`` x ``width`` px.

    Args:
        rng: source of the boxes and of the seed of the noise.
        height: of the clip (px).
        width: of the clip (px).
        prob: probability of erasing anything.
        count: number of boxes, which share the erased area.
    """
    if rng.random() >= prob:
        return Erasing((), 0)
    boxes = [draw_erasing_box(rng, height, width, count) for _ in range(count)]
    return Erasing(tuple(box for box in boxes if box is not None), int(rng.integers(2**63)))


def erase_(clip: torch.Tensor, erasing: Erasing, mode: str = "pixel") -> torch.Tensor:
    """Overwrite boxes of a normalised clip, in place.

    The noise comes from a generator of the clip's device, seeded by ``erasing``: it is the same in every process and
    for every order of the clips, but another one on another kind of device.

    Args:
        clip: float32 of shape (3, T, H, W).
        erasing: what to erase.
        mode: ``pixel``, unit normal noise drawn for each frame, pixel and channel; ``const``, zero.

    Returns:
        ``clip``.
    """
    assert mode in MODES, mode
    if not erasing.boxes:
        return clip
    generator = torch.Generator(clip.device).manual_seed(erasing.noise_seed)
    for top, left, height, width in erasing.boxes:
        region = clip[:, :, top : top + height, left : left + width]
        if mode == "const":
            region.zero_()
        else:
            region.copy_(torch.randn(region.shape, generator=generator, device=clip.device))
    return clip
