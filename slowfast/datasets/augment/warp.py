"""Colour operations, then one warp: all that happens to the pixels of a training clip before it is normalised.

Every geometric operation of RandAugment is an affine map, and so are crop, resize and flip; maps compose. So a clip
needs one interpolation, straight to the S x S output, whatever was drawn. What differs from working through the draws
one by one in Pillow, whole frames at a time (half a grey level in the median clip):

* one bilinear interpolation instead of several bicubic and a bilinear one;
* colour operations come first, so that what a warp moves in from outside the frame stays grey whatever follows;
* the statistics of AutoContrast, Equalize and Contrast are those of the whole frame, as in Pillow, but before it is
  moved, and from a sample of its rows where it is large. Everything else computes only what the warp will read.

Operations that look at single values are tables of 256 entries, and so are those of the whole frame's statistics once
its histogram is known: a chain of them is composed into one look-up.

Dimension letters: ``T`` frames, ``H W`` height and width of a frame, ``S`` side of the output (px).
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from slowfast.datasets.augment.rand_augment import GEOMETRIC, Operation

# Colour of what a warp moves in from outside the frame; four channels, see ``warp_clip``.
FILL = (128, 128, 128, 128)

# Pixels of a frame that its statistics are taken from, at least.
_SAMPLE_PIXELS = 2**14

_LEVELS = np.arange(256)
_LUMA = np.array([0.299, 0.587, 0.114])


Box = tuple[int, int, int, int]  # top, left, height, width (px)


def warp_clip(
    frames: Sequence[np.ndarray], operations: Sequence[Operation], box: Box, size: int, flip: bool, out: np.ndarray
) -> None:
    """Apply drawn operations, crop, resize and flip to T frames (H, W, 3) alike; fill ``out`` (T, S, S, 3)."""
    colours = plan_colours([operation for operation in operations if operation[0] not in GEOMETRIC])
    moves = [arguments for name, arguments in operations if name in GEOMETRIC]
    if not moves:  # OpenCV's resize is this warp in half of its time
        part = (slice(box[0], box[0] + box[2]), slice(box[1], box[1] + box[3]))
        for frame, result in zip(frames, out):
            pixels = recolour(frame, colours, part)
            pixels = cv2.flip(pixels, 1) if flip else pixels
            cv2.resize(pixels, (size, size), dst=result, interpolation=cv2.INTER_LINEAR)
        return
    matrix = compose_map(moves, box, size, flip)
    part, offset = _part_read(matrix, size, *frames[0].shape[:2])
    matrix = matrix[:2].copy()
    matrix[:, 2] -= offset
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV's pixel centres are whole numbers
    settings = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_CONSTANT}
    for frame, result in zip(frames, out):
        # Four channels fill vector registers: with both conversions still 2.6 times as fast as three.
        pixels = cv2.cvtColor(recolour(frame, colours, part), cv2.COLOR_RGB2RGBA)
        pixels = cv2.warpAffine(pixels, matrix, (size, size), borderValue=FILL, **settings)
        cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB, dst=result)


def compose_map(moves: Sequence[tuple[float, ...]], box: Box, size: int, flip: bool) -> np.ndarray:
    """Compose the map (3, 3) from output to frame coordinates, pixel centres at halves: flip, resize, crop, moves."""
    top, left, height, width = box
    matrix = np.array([[width / size, 0, left], [0, height / size, top], [0, 0, 1]])
    if flip:
        matrix = matrix @ [[-1, 0, size], [0, 1, 0], [0, 0, 1]]
    for move in reversed(moves):
        matrix = np.vstack([np.reshape(move, (2, 3)), [0, 0, 1]]) @ matrix
    return matrix


def _part_read(matrix: np.ndarray, size: int, height: int, width: int) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Return the rows and columns of the frame that the output is made of, and x and y of their first pixel."""
    x, y = (matrix @ [[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])[:2]
    slices = []
    for coordinate, length in ((y, height), (x, width)):
        # Two pixels around it, for the interpolation and the neighbours that Sharpness looks at.
        first = int(np.clip(np.floor(coordinate.min()) - 2, 0, length - 1))
        slices.append(slice(first, int(np.clip(np.ceil(coordinate.max()) + 2, first + 1, length))))
    return tuple(slices), (slices[1].start, slices[0].start)


# A look-up table is uint8 of shape (256,), the same for all channels, or (256, 3).
Colours = Callable[..., np.ndarray]
Step = tuple[str, np.ndarray | tuple[float, ...]]

# Operations on single values: argument -> table.
VALUE_TABLES: dict[str, Colours] = {
    "Invert": lambda: 255 - _LEVELS,
    "Posterize": lambda bits: _LEVELS & (256 - 2 ** (8 - bits)),
    "Solarize": lambda threshold: np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS),
    "SolarizeAdd": lambda addend: np.where(_LEVELS < 128, np.minimum(_LEVELS + addend, 255), _LEVELS),
    "Brightness": lambda factor: (_LEVELS * factor).clip(0, 255),
}


def _autocontrast(counts: np.ndarray) -> np.ndarray:
    """Stretch each channel to the whole range."""
    low, high = (counts > 0).argmax(0), 255 - (counts[::-1] > 0).argmax(0)
    scale = 255 / np.where(high > low, high - low, 255)
    return np.where(high > low, ((_LEVELS[:, None] - low) * scale).clip(0, 255), _LEVELS[:, None])


def _equalize(counts: np.ndarray) -> np.ndarray:
    """Make the levels of each channel equally frequent, by Pillow's formula."""
    last = np.take_along_axis(counts, 255 - (counts[::-1] > 0).argmax(0)[None], 0)
    step = (counts.sum(0) - last) / 255  # Pillow rounds it down, which would depend on the size of the sample
    below = counts.cumsum(0) - counts
    return np.where(step >= 1, ((step / 2 + below) / np.maximum(step, 1)).clip(0, 255), _LEVELS[:, None])


def _contrast(counts: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the mean luma of the frame."""
    mean = np.floor(_LUMA @ (_LEVELS @ counts / counts.sum(0)) + 0.5)
    return (mean + factor * (_LEVELS - mean)).clip(0, 255)


# Operations by the statistics of a frame: histogram (256, 3) and argument -> table.
STATISTICS: dict[str, Colours] = {"AutoContrast": _autocontrast, "Contrast": _contrast, "Equalize": _equalize}


def _color(frame: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the luma of each pixel: a linear map of the channels."""
    return cv2.transform(frame, factor * np.eye(3) + (1 - factor) * _LUMA)


def _sharpness(frame: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the smoothed frame, whose 3 x 3 weights are 5 in the middle and 1 around it, of 13."""
    around = 9 / 13 * (1 - factor)
    return cv2.addWeighted(frame, 1 - around, cv2.blur(frame, (3, 3)), around, 0)


# Operations that combine channels or neighbours: frame (H, W, 3) and argument -> frame.
PIXELWISE: dict[str, Colours] = {"Color": _color, "Sharpness": _sharpness}


def plan_colours(operations: Sequence[Operation]) -> list[Step]:
    """Turn colour operations into steps, those on single values into look-up tables (named ``table``)."""
    return [
        ("table", VALUE_TABLES[name](*arguments).astype(np.uint8)) if name in VALUE_TABLES else (name, arguments)
        for name, arguments in operations
    ]


def recolour(frame: np.ndarray, steps: Sequence[Step], part: tuple[slice, slice]) -> np.ndarray:
    """Apply colour operations to a frame (H, W, 3) and return a part of it."""
    last_statistics = max((i for i, (name, _) in enumerate(steps) if name in STATISTICS), default=-1)
    table = None  # still to be looked up
    for index, (name, value) in enumerate(steps):
        if name in PIXELWISE:
            if index > last_statistics:  # nothing depends on the rest of the frame any more
                frame, part = frame[part], (slice(None), slice(None))
            frame, table = PIXELWISE[name](_look_up(frame, table), *value), None
        elif name in STATISTICS:
            table = _compose(table, STATISTICS[name](_histogram(frame, table), *value).astype(np.uint8))
        else:
            table = _compose(table, value)
    return _look_up(frame[part], table)


def _look_up(frame: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    if table is None:
        return frame
    return cv2.LUT(frame, table if table.ndim == 1 else table[None])


def _compose(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    """Return the table that looks up in the first, then in the second."""
    if first is None:
        return second
    if second.ndim == 1:
        return second[first]
    return np.take_along_axis(second, np.broadcast_to(first.reshape(256, -1), second.shape), 0)


def _histogram(frame: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """Count the values of each channel, as they are after a look-up: (256, 3)."""
    rows = frame[:: max(1, frame.shape[0] * frame.shape[1] // _SAMPLE_PIXELS)]
    counts = [cv2.calcHist([rows], [channel], None, [256], [0, 256]).reshape(256) for channel in range(3)]
    counts = np.stack(counts, axis=1)
    if table is None:
        return counts
    columns = np.broadcast_to(table.reshape(256, -1), counts.shape)
    return np.stack([np.bincount(column, count, 256) for column, count in zip(columns.T, counts.T)], axis=1)
