"""Pictures of a run: a training batch, learning curves, a confusion matrix.

Dimension letters: ``B`` clips, ``T`` frames, ``H W`` height and width (px), ``K`` classes.
"""

import importlib.util
import os
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from slowfast.utils.files import replacing

# Of a batch, what fits on a screen; frames are enlarged by whole factors or reduced to about this side (px).
_MAX_CLIPS, _MAX_FRAMES, _SIDE, _GAP, _LINE = 8, 6, 160, 4, 30
# A share of a mix below half a percent is shown as none.
_MIN_SHARE = 0.005
# Beyond this many classes, names on the axes cannot be read any more.
_MAX_NAMED_CLASSES = 60


def draw_batch(
    clips: torch.Tensor,
    targets: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    label_smoothing: float,
    class_names: Sequence[str] | None,
    title: str,
) -> np.ndarray:
    """Draw the first clips of a batch, one a row below its classes, frames evenly spread from the first to the last.

    Args:
        clips: float (B, 3, T, H, W), normalised by ``mean`` and ``std``, on any device; B at least 1.
        targets: (B, K): smoothed by ``label_smoothing``, and mixed of the classes of at most two clips.

    Returns:
        The picture, uint8 (height, width, 3).
    """
    num_frames, height, width = clips.shape[2:]
    chosen = np.unique(np.linspace(0, num_frames - 1, min(num_frames, _MAX_FRAMES)).round().astype(int)).tolist()
    offset, scale = (torch.tensor(values).view(-1, 1, 1, 1) for values in (mean, std))
    shown = clips[:_MAX_CLIPS, :, chosen].float().cpu() * scale + offset
    factor = _SIDE / max(height, width)
    factor = round(factor) if factor > 1 else factor
    # (B, 3, T, H, W) -> rows (B, H, T W, 3); noise of erasing may saturate
    shown = F.interpolate(shown.nan_to_num(0).transpose(1, 2).flatten(0, 1), scale_factor=factor, mode="nearest")
    shown = F.pad(shown.mul(255).round().clamp(0, 255), (0, _GAP, 0, _GAP), value=255).unflatten(0, (-1, len(chosen)))
    rows = shown.byte().permute(0, 3, 1, 4, 2).flatten(2, 3).numpy()
    numbers = ", ".join(str(index + 1) for index in chosen)
    page_width = max(rows.shape[2], 4 * _SIDE)
    strips = [text_line(f"{title}; frames {numbers} of {num_frames}, {width} x {height} px", page_width)]
    for row, target in zip(rows, targets.float().cpu().numpy()):
        strips += [text_line(describe_target(target, label_smoothing, class_names), page_width)]
        strips += [np.pad(row, ((0, 0), (0, page_width - row.shape[1]), (0, 0)), constant_values=255)]
    return np.concatenate(strips)


def describe_target(target: np.ndarray, label_smoothing: float, class_names: Sequence[str] | None) -> str:
    """Return the classes of a target (K,) and their shares of the mix, the larger first."""
    # Smoothing spreads over all classes of a target that sums to one, else, of several labels, over yes and no.
    num_answers = len(target) if abs(target.sum() - 1) < 1e-3 else 2
    shares = (target - label_smoothing / num_answers) / (1 - label_smoothing)
    labels = [label for label in np.argsort(-shares, kind="stable") if shares[label] >= _MIN_SHARE]
    names = [class_names[label] if class_names else f"class {label}" for label in labels]
    return " + ".join(f"{100 * shares[label]:.0f} % {name}" for label, name in zip(labels, names))


def text_line(text: str, width: int) -> np.ndarray:
    """Draw a line of text, cut where it ends."""
    # Matplotlib brings a font that has more than the Latin alphabet; importing it would take half a second.
    folder = importlib.util.find_spec("matplotlib").submodule_search_locations[0]
    font = ImageFont.truetype(os.path.join(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"), 15)
    line = Image.new("RGB", (width, _LINE), (255, 255, 255))
    ImageDraw.Draw(line).text((_GAP, 6), text, fill=(30, 30, 30), font=font)
    return np.asarray(line)


def write_png(pixels: np.ndarray, path: str) -> None:
    """Write a picture, uint8 (height, width, 3), completely or not at all."""
    with replacing(path, "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")


def plot_learning_curves(train: Sequence[dict], val: Sequence[dict], path: str) -> None:
    """Draw loss and top-1 (percent) of ``train``, an entry per epoch, and top-1 of ``val``, which may be empty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axis, accuracy_axis = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in train]
    loss_axis.plot(epochs, [entry["loss"] for entry in train], marker=".")
    loss_axis.set(xlabel="epoch", ylabel="training loss")
    accuracy_axis.plot(epochs, [entry["top1"] for entry in train], marker=".", label="training (augmented), top-1")
    if val:
        epochs, metric = [entry["epoch"] for entry in val], "mAP" if "mAP" in val[0] else "top1"
        label = f"validation, {metric.replace('top1', 'top-1')}"
        accuracy_axis.plot(epochs, [entry[metric] for entry in val], marker="o", label=label)
    accuracy_axis.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 101))
    accuracy_axis.legend()
    for axis in (loss_axis, accuracy_axis):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=120)


def plot_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], path: str) -> None:
    """Draw counts (K, K), rows the true class, as shares of each row; names only where they can be read."""
    from matplotlib.figure import Figure

    num_classes = len(matrix)
    side = min(4 + 0.32 * num_classes, 16)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class")
    if num_classes <= _MAX_NAMED_CLASSES:
        # A name may contain dollar signs, which are not formulas.
        axis.set_xticks(range(num_classes), class_names, rotation=90, parse_math=False)
        axis.set_yticks(range(num_classes), class_names, parse_math=False)
    if num_classes <= 20:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{matrix[row, column]:g}", ha="center", va="center", color=color, fontsize=8)
    numbers = "; numbers: videos" if num_classes <= 20 else ""
    figure.colorbar(image, ax=axis, shrink=0.8, label=f"share of the true class{numbers}")
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=120)
