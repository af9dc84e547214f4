"""Learning curves and confusion matrices as PNG files."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

# Beyond this many classes, names on the axes cannot be read any more.
_MAX_NAMED_CLASSES = 60


def plot_learning_curves(train: Sequence[dict], val: Sequence[dict], path: str) -> None:
    """Draw training loss, and training and validation top-1, over epochs.

    Args:
        train: entries with ``epoch``, ``loss`` and ``top1`` (percent).
        val: entries with ``epoch`` and ``top1`` (percent); may be empty.
        path: PNG file to write.
    """
    figure, (loss_axis, accuracy_axis) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = [entry["epoch"] for entry in train]
    loss_axis.plot(epochs, [entry["loss"] for entry in train], marker=".", color="tab:blue")
    loss_axis.set(xlabel="epoch", ylabel="training loss")
    accuracy_axis.plot(
        epochs, [entry["top1"] for entry in train], marker=".", color="tab:blue", label="training (augmented)"
    )
    if val:
        accuracy_axis.plot(
            [entry["epoch"] for entry in val],
            [entry["top1"] for entry in val],
            marker="o",
            color="tab:orange",
            label="validation",
        )
    accuracy_axis.set(xlabel="epoch", ylabel="top-1 (%)", ylim=(0, 101))
    accuracy_axis.legend(loc="lower right")
    for axis in (loss_axis, accuracy_axis):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], path: str, is_compact: bool = False) -> None:
    """Draw counts (K, K), rows the true class, as shares of each row.

    Args:
        matrix: counts, or means of counts.
        class_names: K names; left out of the picture if they are too many to read.
        path: PNG file to write.
        is_compact: one of several side by side: smaller, without the scale of the colors.
    """
    num_classes = len(matrix)
    named = num_classes <= _MAX_NAMED_CLASSES
    side = min(2 + 0.18 * num_classes, 9) if is_compact else min(4 + 0.32 * num_classes, 16)
    figure, axis = plt.subplots(figsize=(side + (0 if is_compact else 1), side), layout="constrained")
    rows = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted class", ylabel="true class")
    if named:
        # A name may contain dollar signs, which are not formulas.
        axis.set_xticks(range(num_classes), class_names, rotation=90, parse_math=False)
        axis.set_yticks(range(num_classes), class_names, parse_math=False)
    if is_compact:
        axis.tick_params(labelsize=6.5)
        axis.xaxis.label.set_fontsize(7.5)
        axis.yaxis.label.set_fontsize(7.5)
    if num_classes <= 20:
        size = 5 if is_compact else 8
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            count = f"{round(matrix[row, column], 1):g}"
            axis.text(column, row, count, ha="center", va="center", color=color, fontsize=size)
    if not is_compact:
        figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
    figure.savefig(path, dpi=180 if is_compact else 120)
    plt.close(figure)
