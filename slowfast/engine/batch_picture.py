"""A picture of a training batch: some clips, some of their frames, and the classes that each was mixed from.

Dimension letters: `B` clips, `T` frames, `H W` height and width (px), `K` classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

# Of a batch, what fits on a screen.
_MAX_CLIPS = 8
_MAX_FRAMES = 6
# Frames are shown in this range of sizes: small ones enlarged by whole factors, large ones reduced (px).
_MIN_SIDE = 144
_MAX_SIDE = 224
# A share of a mix below half a percent is shown as none.
_MIN_SHARE = 0.005

_MARGIN, _GAP, _CAPTION_HEIGHT, _BAR_HEIGHT, _TITLE_HEIGHT = 16, 4, 30, 5, 64
_BACKGROUND, _TEXT, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_COLORS = ((31, 119, 180), (196, 78, 0))  # of the first and the second class


def draw_batch(
    clips: torch.Tensor,
    targets: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    label_smoothing: float,
    class_names: Sequence[str] | None,
    title: str,
) -> np.ndarray:
    """Draw the first clips of a batch, one a row, with frames evenly spread from the first to the last.

    Above each row stand the classes of the clip, and a bar in their shares.

    Args:
        clips: float of shape (B, 3, T, H, W), normalised, on any device; B at least 1.
        targets: of shape (B, K): smoothed, and mixed of at most two classes.
        mean: what normalisation subtracted, per channel of RGB in [0, 1].
        std: what it divided by.
        label_smoothing: weight of the uniform distribution in the targets.
        class_names: K names, or None for numbers.
        title: first line of the picture.

    Returns:
        The picture, uint8 of shape (height, width, 3).
    """
    num_clips, _, num_frames = clips.shape[:3]
    shown_clips = min(num_clips, _MAX_CLIPS)
    indices = np.unique(np.linspace(0, num_frames - 1, min(num_frames, _MAX_FRAMES)).round().astype(int))
    frames = _to_bytes(clips[:shown_clips, :, indices.tolist()], mean, std)  # (B, T, H, W, 3)
    names = class_names or [f"class {label}" for label in range(targets.shape[1])]

    width, height = _shown_size(*frames.shape[2:4])
    row_height = _CAPTION_HEIGHT + _BAR_HEIGHT + _GAP + height + _MARGIN
    # A still image alone would leave no room for the captions.
    page_width = max(2 * _MARGIN + len(indices) * (width + _GAP) - _GAP, 640)
    page = Image.new("RGB", (page_width, _TITLE_HEIGHT + shown_clips * row_height), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    content_width = page_width - 2 * _MARGIN
    _write(draw, (_MARGIN, 12), title, 20, _TEXT, content_width)
    numbers = ", ".join(str(index + 1) for index in indices)
    subtitle = f"clips 1 to {shown_clips} of {num_clips}; frames {numbers} of {num_frames}; {frames.shape[3]} x "
    _write(draw, (_MARGIN, 38), f"{subtitle}{frames.shape[2]} px", 14, _FAINT, content_width)

    for row, target in enumerate(targets[:shown_clips].float().cpu().numpy()):
        top = _TITLE_HEIGHT + row * row_height
        _draw_caption(draw, (_MARGIN, top), content_width, _mix(target, label_smoothing, names))
        for column, frame in enumerate(frames[row]):
            left = _MARGIN + column * (width + _GAP)
            page.paste(_scaled(frame, width, height), (left, top + _CAPTION_HEIGHT + _BAR_HEIGHT + _GAP))
    return np.asarray(page)


def write_png(pixels: np.ndarray, path: str) -> None:
    """Write a picture, uint8 (height, width, 3), whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = f"{path}.writing"
    try:
        Image.fromarray(pixels).save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def _to_bytes(clips: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undo the normalisation: (B, 3, T, H, W) -> uint8 (B, T, H, W, 3). Noise of random erasing may saturate."""
    offset, scale = (torch.tensor(values).view(-1, 1, 1, 1) for values in (mean, std))
    grey_levels = (clips.float().cpu() * scale + offset).mul(255).nan_to_num(0).round().clamp(0, 255)
    return grey_levels.byte().permute(0, 2, 3, 4, 1).numpy()


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Return width and height at which frames are shown (px)."""
    side = max(height, width)
    factor = -(-_MIN_SIDE // side) if side < _MIN_SIDE else min(1.0, _MAX_SIDE / side)
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _scaled(frame: np.ndarray, width: int, height: int) -> Image.Image:
    image = Image.fromarray(frame)
    # Enlarged pixels keep their edges, so that what is seen is what is there.
    method = Image.Resampling.NEAREST if width > image.width else Image.Resampling.BOX
    return image.resize((width, height), method)


def _mix(target: np.ndarray, label_smoothing: float, names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the classes of one target (K,) and their shares, the larger first."""
    shares = (target - label_smoothing / len(target)) / (1 - label_smoothing)
    largest = np.argsort(-shares, kind="stable")[:2]
    return [(names[label], float(shares[label])) for label in largest if shares[label] >= _MIN_SHARE]


def _draw_caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, mix: list[tuple[str, float]]) -> None:
    """Write the classes side by side, each in its color and half of the width, above a bar in their shares."""
    left, top = corner
    bar_top = top + _CAPTION_HEIGHT
    start = left
    for index, ((name, share), color) in enumerate(zip(mix, _COLORS, strict=False)):
        percent = f"{100 * share:.0f} %  " if len(mix) > 1 else ""
        place = left + index * width // len(mix)
        _write(draw, (place, top + 4), f"{percent}{name}", 17, color, width // len(mix) - _MARGIN)
        end = left + round(width * share) if index + 1 < len(mix) else left + width
        draw.rectangle((start, bar_top, end - 1, bar_top + _BAR_HEIGHT - 1), fill=color)
        start = end


def _write(draw, corner: tuple[int, int], text: str, size: int, color: tuple[int, int, int], width: int) -> None:
    """Write one line, shortened to ``width`` (px) if it is longer."""
    # Matplotlib brings a font that has more than the Latin alphabet.
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
    shown = text
    while shown and draw.textlength(shown if shown == text else f"{shown}…", font=font) > width:
        shown = shown[:-1]
    draw.text(corner, shown if shown == text else f"{shown}…", fill=color, font=font)
