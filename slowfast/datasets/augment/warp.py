"""Affine warps of clips, as Pillow defines them, of a part of the frames only.

Pillow computes coordinates and weights anew for every pixel of every frame, and filters along both axes. Here

* what only shifts rows, or columns, by amounts of their own (translations and shears) is a filter of four taps along
  them, with the same weights for all pixels of a row and all frames;
* any other warp (rotations) is a sparse matrix over pixels, made once and applied to all 3 T values of a pixel at once.

Dimension letters: `T` frames, `P` = 3 T planes, `h w` height and width of a box (px), `K` input pixels of an output
pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from slowfast.datasets.augment.rand_augment import FILL, Affine

# Added before OpenCV rounds to nearest, as Pillow cuts the decimals off. What floating point leaves just below a whole
# number shall not fall to the next one.
CUT = -0.5 + 1 / 4096

# Side of the square pieces in which a warp is computed (px): their floats stay in the cache, whatever the frame's size.
_TILE = 160


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column to the right."""
        return self.left + self.width

    def grown(self, margin: int, frame: Box) -> Box:
        """Return the box with a margin on all sides, as far as the frame reaches."""
        return box_of(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin, frame)

    def within(self, outer: Box | None = None) -> tuple[slice, slice, slice, slice]:
        """Return the index that cuts this box out of planes (3, T, h, w) of ``outer``, by default of the frame."""
        top, left = (0, 0) if outer is None else (outer.top, outer.left)
        rows = slice(self.top - top, self.bottom - top)
        return slice(None), slice(None), rows, slice(self.left - left, self.right - left)


def box_of(top: int, left: int, bottom: int, right: int, frame: Box) -> Box:
    """Return the part of a box that lies in the frame; at least one pixel of it, if need be the nearest."""
    top, left = (min(max(low, 0), size - 1) for low, size in ((top, frame.height), (left, frame.width)))
    bottom, right = min(max(bottom, top + 1), frame.height), min(max(right, left + 1), frame.width)
    return Box(top, left, bottom - top, right - left)


def _bicubic_weights(d: np.ndarray | float) -> tuple[np.ndarray | float, ...]:
    """Return the weights of pixels -1, 0, 1 and 2, d right of pixel 0: the cubic with a = -1, which Pillow's
    ``transform`` uses (its ``resize`` has -0.5, OpenCV -0.75)."""
    square = d * d
    cube = square * d
    return 2 * square - d - cube, 1 - 2 * square + cube, d + square - cube, cube - square


def _bilinear_weights(d: np.ndarray | float) -> tuple[np.ndarray | float, ...]:
    return 1 - d, d


class _Kernel(NamedTuple):
    offset: int  # of the first pixel
    size: int
    weights: Callable[[np.ndarray | float], tuple[np.ndarray | float, ...]]


_KERNELS = {"bicubic": _Kernel(-1, 4, _bicubic_weights), "bilinear": _Kernel(0, 2, _bilinear_weights)}


def source_box(target: Box, frame: Box, matrix: Affine, interpolation: str) -> Box:
    """Return the part of the frame that the pixels ``target`` of its warped version are made of."""
    kernel = _KERNELS[interpolation]
    corners = [
        _coordinates(matrix, np.array([[x + 0.5]]), np.array([[y + 0.5]]))
        for x in (target.left, target.right - 1)
        for y in (target.top, target.bottom - 1)
    ]
    columns, rows = ([float(coordinate.item()) - 0.5 for coordinate in axis] for axis in zip(*corners, strict=True))
    return box_of(
        math.floor(min(rows)) + kernel.offset,
        math.floor(min(columns)) + kernel.offset,
        math.floor(max(rows)) + kernel.offset + kernel.size,
        math.floor(max(columns)) + kernel.offset + kernel.size,
        frame,
    )


def warp(planes: np.ndarray, source: Box, target: Box, frame: Box, matrix: Affine, interpolation: str) -> np.ndarray:
    """Warp a part of the frames; what lies outside of them is grey.

    Args:
        planes: uint8 of shape (3, T, h, w), the part ``source`` of the frames, see ``source_box``.
        source: where that part is.
        target: the wanted part of the warped frames.
        frame: the whole frame.
        matrix: output (x, y) is read at (a x + b y + c, d x + e y + f), with pixel centres at halves.
        interpolation: bicubic | bilinear.

    Returns:
        uint8 of shape (3, T, target.height, target.width).
    """
    kernel = _KERNELS[interpolation]
    a, b, c, d, e, f = matrix
    stack = planes.reshape(-1, source.height, source.width)
    if (a, d, e, f) == (1, 0, 1, 0):
        shifts = b * (np.arange(target.top, target.bottom) + 0.5) + c
        rows = stack[:, target.top - source.top : target.bottom - source.top]
        warped = _shift_rows(rows, shifts, source.left, target.left, target.width, frame.width, kernel)
    elif (a, b, c, e) == (1, 0, 0, 1):
        shifts = d * (np.arange(target.left, target.right) + 0.5) + f
        columns = _transpose(stack[:, :, target.left - source.left : target.right - source.left])
        shifted = _shift_rows(columns, shifts, source.top, target.top, target.height, frame.height, kernel)
        warped = _transpose(shifted)
    else:
        warped = np.empty((len(stack), target.height, target.width), np.uint8)
        for top in range(target.top, target.bottom, _TILE):
            for left in range(target.left, target.right, _TILE):
                tile = Box(top, left, min(_TILE, target.bottom - top), min(_TILE, target.right - left))
                tile_source = source_box(tile, frame, matrix, interpolation)
                part = stack[tile_source.within(source)[1:]]
                warped[tile.within(target)[1:]] = _warp_tile(part, tile_source, tile, frame, matrix, kernel)
    return warped.reshape(*planes.shape[:2], target.height, target.width)


def _shift_rows(
    planes: np.ndarray, shifts: np.ndarray, first: int, start: int, width: int, length: int, kernel: _Kernel
) -> np.ndarray:
    """Return rows whose pixel x is read at x + shift.

    Args:
        planes: uint8 of shape (P, h, w), pixels ``first`` and following of each row.
        shifts: of each row, (h,).
        first: see ``planes``.
        start: first wanted pixel of each row.
        width: number of wanted pixels.
        length: number of pixels of a whole row; beyond them all is grey.
        kernel: of the interpolation.

    Returns:
        uint8 of shape (P, h, width).
    """
    num_planes, height = planes.shape[:2]
    rows = np.ascontiguousarray(planes).reshape(num_planes * height, -1)
    margin = kernel.size // 2  # where the frame ends, taps reach that far beyond it
    rows = cv2.copyMakeBorder(rows, 0, 0, margin, margin, cv2.BORDER_REPLICATE).reshape(num_planes, height, -1)
    shifted = np.full((num_planes, height, width), FILL[0], np.uint8)
    # A translation is one filter for all rows.
    groups = [slice(None)] if (shifts == shifts[0]).all() else [slice(row, row + 1) for row in range(height)]
    for group in groups:
        shift = float(shifts[group][0])
        low = max(math.ceil(-shift - 0.5), start)  # the first and one past the last pixel that come from the frame
        high = min(math.ceil(length - shift - 0.5), start + width)
        if low >= high:
            continue
        floor = math.floor(low + shift)
        weights = np.array([kernel.weights(low + shift - floor)], np.float32)
        left = floor + kernel.offset - first + margin
        read = rows[:, group, left : left + high - low + kernel.size - 1]
        read = read.reshape(-1, read.shape[-1])
        filtered = cv2.filter2D(read, -1, weights, anchor=(0, 0), delta=CUT)[:, : high - low]
        shifted[:, group, low - start : high - start] = filtered.reshape(num_planes, -1, high - low)
    return shifted


def _transpose(planes: np.ndarray) -> np.ndarray:
    """Swap height and width: (P, h, w) -> (P, w, h)."""
    transposed = np.empty((planes.shape[0], planes.shape[2], planes.shape[1]), np.uint8)
    for plane, out in zip(planes, transposed, strict=True):
        cv2.transpose(plane, out)
    return transposed


def _warp_tile(planes: np.ndarray, source: Box, target: Box, frame: Box, matrix: Affine, kernel: _Kernel) -> np.ndarray:
    """Warp planes (P, h, w) of the source to those of the target, by any matrix."""
    indices, weights = _sparse_rows(source, target, frame, matrix, kernel)
    num_planes, num_pixels = len(planes), source.height * source.width
    pixels = torch.empty(num_pixels + 1, num_planes)
    pixels[:-1] = torch.from_numpy(cv2.transpose(planes.reshape(num_planes, num_pixels)))
    pixels[-1] = FILL[0]  # what lies outside
    with torch.no_grad():
        warped = F.embedding_bag(indices, pixels, mode="sum", per_sample_weights=weights).numpy()
    values = cv2.addWeighted(warped, 1, warped, 0, CUT, dtype=cv2.CV_8U)  # (target pixels, P)
    return cv2.transpose(values).reshape(num_planes, target.height, target.width)


def _sparse_rows(
    source: Box, target: Box, frame: Box, matrix: Affine, kernel: _Kernel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which pixels of the source make each pixel of the target, int32 (h w, K), and their float32 weights."""
    centres_x = np.arange(target.left, target.right)[None, :] + 0.5
    centres_y = np.arange(target.top, target.bottom)[:, None] + 0.5
    x, y = _coordinates(matrix, centres_x, centres_y)
    columns, column_weights = _taps(x, source.left, frame.width, kernel)
    rows, row_weights = _taps(y, source.top, frame.height, kernel)
    indices = rows[..., :, None] * np.int32(source.width) + columns[..., None, :]  # (h, w, rows, columns)
    indices = indices.reshape(target.height * target.width, -1)
    weights = (row_weights[..., :, None] * column_weights[..., None, :]).reshape(indices.shape)
    is_outside = (x < 0) | (x >= frame.width) | (y < 0) | (y >= frame.height)
    indices[is_outside.ravel()] = source.height * source.width  # weights sum to one
    return torch.from_numpy(indices), torch.from_numpy(weights)


def _coordinates(matrix: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where to read, for x of shape (1, w) and y of shape (h, 1): two float64 of shape (h, w)."""
    a, b, c, d, e, f = matrix
    return a * x + b * y + c, d * x + e * y + f


def _taps(coordinate: np.ndarray, first: int, length: int, kernel: _Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Return positions along one axis, counted from ``first`` on, and their weights: (h, w, kernel size) each.

    Pixels beyond the border are those of the border. Where the coordinate lies outside of the frame, positions may lie
    outside of the source.
    """
    floor = np.floor(coordinate - 0.5)
    nearest = floor.astype(np.int32)
    positions = np.empty((*nearest.shape, kernel.size), np.int32)
    weights = np.empty(positions.shape, np.float32)
    fraction = (coordinate - 0.5 - floor).astype(np.float32)
    for tap, weight in enumerate(kernel.weights(fraction)):
        positions[..., tap] = np.clip(nearest + (kernel.offset + tap), 0, length - 1) - first
        weights[..., tap] = weight
    return positions, weights
