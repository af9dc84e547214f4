"""RandAugment on the part of the frames that the crop will show: the fast way to what `RandAugment.apply` defines.

The operations are known before any of them runs, so the crop box is pulled back through them from last to first, and
each computes only the pixels that later ones read. Operations that depend on statistics of the frame need all of it.

* Operations on single values become tables of 256 entries, made by Pillow itself; neighbours in a chain are composed.
* `Contrast`, `AutoContrast` and `Equalize` become one table per frame (and channel).
* Affine warps are done for all frames and channels at once, see ``warp``.

Clips are held as planes here, uint8 (3, T, H, W): all that follows works on single channels.

Dimension letters: `T` frames, `H W` height and width of a frame, `h w` of a region (px).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from slowfast.datasets.augment.rand_augment import Arguments, RandAugment
from slowfast.datasets.augment.warp import CUT, Box, source_box, warp

GEOMETRIC = frozenset({"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"})
POINTWISE = frozenset({"Brightness", "Invert", "Posterize", "Solarize", "SolarizeAdd"})

# Pillow's ImageFilter.SMOOTH, the degenerate frame of Sharpness.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13

_RAMP = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))


def augment_region(
    augment: RandAugment, frames: np.ndarray, drawn: list[tuple[str, Arguments]], box: Box
) -> np.ndarray:
    """Apply drawn operations and cut a box out of the result.

    Equal to ``augment.apply(frames, drawn)`` cut to the box but for single grey levels, where Pillow computes in
    other precision: none for operations that become tables, at most one for each of the others.

    Args:
        augment: the definition of the operations.
        frames: uint8 RGB of shape (T, H, W, 3), with any strides; not changed.
        drawn: what ``augment.draw`` returned for these H and W.
        box: the wanted part of the frames.

    Returns:
        Planes, uint8 of shape (3, T, box.height, box.width).
    """
    frame = Box(0, 0, *frames.shape[1:3])
    boxes = needed_boxes(augment, drawn, box, frame)
    planes = split_planes(frames, boxes[0])
    table = None  # what is still to be looked up: (256,) or (3, T, 256)
    for (name, args), before, after in zip(drawn, boxes[:-1], boxes[1:], strict=True):
        if name in POINTWISE:
            pointwise = _pointwise_table(augment, name, args)
            table = pointwise if table is None else pointwise[table]
            continue
        planes, table = _look_up(planes, table), None
        if name in GEOMETRIC:
            planes = warp(planes, before, after, frame, args, augment.interpolation)
        elif name in STATISTICS:
            table = STATISTICS[name](planes, *args)
            planes = planes[after.within(before)]
        else:
            planes = LOCAL[name](planes, before, after, frame, *args)
    return _look_up(planes, table)


def needed_boxes(augment: RandAugment, drawn: list[tuple[str, Arguments]], box: Box, frame: Box) -> list[Box]:
    """Return the part of the frame that is needed before each operation, and last ``box``, what is wanted after all."""
    boxes = [box]
    for name, args in reversed(drawn):
        if name in STATISTICS:
            boxes.append(frame)
        elif name in GEOMETRIC:
            boxes.append(source_box(boxes[-1], frame, args, augment.interpolation))
        elif name == "Sharpness":
            boxes.append(boxes[-1].grown(1, frame))
        else:
            boxes.append(boxes[-1])
    return boxes[::-1]


def split_planes(frames: np.ndarray, box: Box) -> np.ndarray:
    """Cut a box out of frames (T, H, W, 3) and separate the channels: (3, T, box.height, box.width)."""
    planes = np.empty((3, len(frames), box.height, box.width), np.uint8)
    rows, columns = box.within()[2:]
    for t, frame in enumerate(frames):
        cv2.split(np.ascontiguousarray(frame[rows, columns]), list(planes[:, t]))
    return planes


def _look_up(planes: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """Map values through one table for all planes, (256,), or one for each, (3, T, 256)."""
    if table is None:
        return planes
    if table.ndim == 1:
        rows = np.ascontiguousarray(planes).reshape(-1, planes.shape[-1])
        return cv2.LUT(rows, table).reshape(planes.shape)
    mapped = np.empty(planes.shape, np.uint8)
    for index in np.ndindex(planes.shape[:2]):
        cv2.LUT(planes[index], table[index], mapped[index])
    return mapped


def _pointwise_table(augment: RandAugment, name: str, args: Arguments) -> np.ndarray:
    """Return what the operation makes of every value: uint8 (256,)."""
    ramp = augment.operations[name].apply(_RAMP, args, augment.resampling)
    return np.ascontiguousarray(np.asarray(ramp)[0, :, 0])


def _autocontrast_tables(planes: np.ndarray) -> np.ndarray:
    low = planes.min(axis=(2, 3)).astype(float)[..., None]
    high = planes.max(axis=(2, 3)).astype(float)[..., None]
    values = np.arange(256)
    scale = 255 / np.where(high > low, high - low, 255)
    stretched = (values * scale - low * scale).clip(0, 255)
    return np.where(high > low, stretched, values).astype(np.uint8)


def _equalize_tables(planes: np.ndarray) -> np.ndarray:
    tables = np.empty((*planes.shape[:2], 256), np.uint8)
    for index in np.ndindex(planes.shape[:2]):
        counts = cv2.calcHist([planes[index]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        occupied = counts[counts > 0]
        step = (counts.sum() - occupied[-1]) // 255
        if step == 0:  # also where all pixels have one value
            tables[index] = np.arange(256)
            continue
        below = np.cumsum(counts) - counts
        tables[index] = ((step // 2 + below) // step).clip(max=255)
    return tables


def _contrast_tables(planes: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean luma of the frame."""
    ramp = _RAMP.getchannel(0)
    means = [int(luma.mean() + 0.5) for luma in _luma(planes)]
    blended = [Image.blend(Image.new("L", ramp.size, mean), ramp, factor) for mean in means]
    tables = np.concatenate([np.asarray(table) for table in blended])  # (T, 256)
    return np.broadcast_to(tables, (3, *tables.shape))


def _color(planes: np.ndarray, before: Box, after: Box, frame: Box, factor: float) -> np.ndarray:
    """Blend with the luma of each pixel."""
    assert before == after
    luma = _luma(planes)
    return np.stack([_blend(luma, plane, factor) for plane in planes])


def _sharpness(planes: np.ndarray, before: Box, after: Box, frame: Box, factor: float) -> np.ndarray:
    """Blend with the smoothed frame, whose outermost pixels are those of the frame."""
    # One call for all planes; what it mixes across their seams is either cut off or put back below.
    smooth = cv2.filter2D(planes.reshape(-1, before.width), -1, _SMOOTH).reshape(planes.shape)
    for axis, starts, stops, length in (
        (2, before.top == 0, before.bottom == frame.height, before.height),
        (3, before.left == 0, before.right == frame.width, before.width),
    ):
        for edge in [0] * starts + [length - 1] * stops:
            line = (slice(None),) * axis + (edge,)
            smooth[line] = planes[line]
    inside = after.within(before)
    return _blend(np.ascontiguousarray(smooth[inside]), np.ascontiguousarray(planes[inside]), factor)


def _blend(degenerate: np.ndarray, planes: np.ndarray, factor: float) -> np.ndarray:
    """Return degenerate + factor (planes - degenerate) as Pillow's ``Image.blend`` rounds it."""
    first, second = (array.reshape(-1, array.shape[-1]) for array in (degenerate, planes))
    return cv2.addWeighted(first, 1 - factor, second, factor, CUT).reshape(planes.shape)


def _luma(planes: np.ndarray) -> np.ndarray:
    """Return Pillow's luma of every pixel: (3, T, h, w) -> (T, h, w)."""
    frames = (Image.fromarray(cv2.merge(list(planes[:, t]))) for t in range(planes.shape[1]))
    return np.stack([np.asarray(frame.convert("L")) for frame in frames])


# Tables that depend on the whole frame: planes (3, T, H, W) and arguments -> uint8 (3, T, 256).
STATISTICS: dict[str, Callable[..., np.ndarray]] = {
    "AutoContrast": _autocontrast_tables,
    "Contrast": _contrast_tables,
    "Equalize": _equalize_tables,
}

# Operations that combine channels or neighbours: planes of the box before, that box, the box after, the frame, and
# arguments -> planes of the box after.
LOCAL: dict[str, Callable[..., np.ndarray]] = {"Color": _color, "Sharpness": _sharpness}
