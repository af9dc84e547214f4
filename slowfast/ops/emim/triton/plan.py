"""Plan of the Triton kernels: their settings, the patches that frames are cut into, the places of windows in them.

Nothing here needs Triton.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

MAX_PATCH_SIDE = 14


class Settings(NamedTuple):
    """Arguments of an operator beside its tensors.

    Attributes:
        window: K.
        num_pairs: F, pairs of frames in a clip.
        step: frames from queries to keys.
        is_masked: give places outside the image no share.
        pad_value: keys and values outside the image.
        affinity_dtype: of the affinities that the motion features are made from, and of the products for them.
    """

    window: int
    num_pairs: int
    step: int
    is_masked: bool
    pad_value: float
    affinity_dtype: torch.dtype


class Patches(NamedTuple):
    """A cut of an H x W grid into patches of ``rows`` x ``columns`` tokens.

    Attributes:
        rows: of a patch; the last may reach beyond the grid.
        columns: of a patch.
        near_rows: the most that windows of a patch's tokens reach inside the grid.
        near_columns: likewise.
        block: the power of two, at least 16, that a patch fits into (BM in the kernels).
        near_block: likewise, what it reaches (BN).
        count: patches of a frame.
    """

    rows: int
    columns: int
    near_rows: int
    near_columns: int
    block: int
    near_block: int
    count: int


@functools.cache
def plan_patches(height: int, width: int, window: int, max_tile: int) -> Patches:
    """Return the cut that computes and loads least, with at most ``max_tile`` numbers in a tile where that is well."""
    radius = window // 2
    cuts = []
    for rows in range(1, min(height, MAX_PATCH_SIDE) + 1):
        for columns in range(1, min(width, MAX_PATCH_SIDE) + 1):
            near = _reach(height, rows, radius), _reach(width, columns, radius)
            count = -(-height // rows) * -(-width // columns)
            cuts.append(Patches(rows, columns, *near, _block(rows * columns), _block(near[0] * near[1]), count))

    def cost(cut: Patches) -> tuple[int, int]:
        # The tile itself, and its rows of queries, keys, values and gradients at about 64 numbers each; twice if
        # registers will be spilled. Of equals the narrowest: its columns divide by small numbers.
        tile = cut.block * cut.near_block
        each = tile + 128 * (cut.block + cut.near_block)
        return cut.count * each * (1 if tile <= max_tile else 2), cut.columns

    return min((cut for cut in cuts if cut.block * cut.near_block <= 2 * max_tile), key=cost)


def _reach(size: int, step: int, radius: int) -> int:
    """Return how many of ``size`` places the windows of ``step`` neighbours cover at most."""
    return max(min(size, start + step + radius) - max(0, start - radius) for start in range(0, size, step))


def _block(number: int) -> int:
    return max(16, power_of_two(number))


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least ``number``."""
    return 1 << (number - 1).bit_length()


@functools.cache
def tile_index(height: int, width: int, window: int, cut: Patches, of_keys: bool, device: torch.device) -> torch.Tensor:
    """Return which displacement each place of each patch's tile is; P where it is none.

    Args:
        height: of the grid.
        width: of the grid.
        window: K.
        cut: into patches.
        of_keys: patches of keys, and the queries that see them; else patches of queries, and the keys that they see.
        device: of the result.

    Returns:
        (patches, BM, BN), integers; (patches, BN, BM) for patches of keys: queries come first.
    """
    radius = window // 2
    tops = torch.arange(0, height, cut.rows).repeat_interleave(-(-width // cut.columns))[:, None]  # (patches, 1)
    lefts = torch.arange(0, width, cut.columns).repeat(-(-height // cut.rows))[:, None]
    own, near = torch.arange(cut.block), torch.arange(cut.near_block)
    y, x = tops + own // cut.columns, lefts + own % cut.columns  # (patches, BM)
    is_own = (own < cut.rows * cut.columns) & (y < height) & (x < width)
    near_tops = (tops - radius).clamp(max=height - cut.near_rows).clamp(min=0)
    near_lefts = (lefts - radius).clamp(max=width - cut.near_columns).clamp(min=0)
    near_y, near_x = near_tops + near // cut.near_columns, near_lefts + near % cut.near_columns  # (patches, BN)
    is_near = (near < cut.near_rows * cut.near_columns) & (near_y < height) & (near_x < width)
    down, right = near_y[:, None] - y[:, :, None], near_x[:, None] - x[:, :, None]  # (patches, BM, BN)
    if of_keys:
        down, right = -down, -right
    in_window = (down.abs() <= radius) & (right.abs() <= radius) & is_own[:, :, None] & is_near[:, None]
    index = (down + radius) * window + right + radius
    index = torch.where(in_window, index, window * window)
    return (index.mT if of_keys else index).contiguous().to(device)


def new_saved(query, motion, settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return new tensors for the affinities, empty without ``motion``, and for the logs of the softmax's sums."""
    clips, _, height, width, heads, _ = query.shape
    shape = (heads, clips * settings.num_pairs, height * width)
    band_shape = (*shape, row_stride(settings.window)) if motion else (0,)
    return query.new_empty(band_shape, dtype=settings.affinity_dtype), query.new_empty(shape, dtype=torch.float32)


def row_stride(window: int) -> int:
    """Return P rounded up so that rows of 2-byte numbers begin at multiples of 16 bytes."""
    return -(-window * window // 8) * 8
