"""Pictures of studies: accuracy against cost, and learning curves of one configuration among the others.

They are narrow, so that their text can be read on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke

_OWN, _BASELINE, _OTHERS = "tab:blue", "0.15", "0.8"
_WIDTH = 5.0  # inches
_MAX_HALF_WIDTH = 38  # characters of a name in two columns

# Where the number of a point may stand (pt from the point): the first place where it hides nothing.
_OFFSETS = [(radius * x, radius * y) for radius in (9, 15, 22) for x, y in
            ((1, 0), (-1, 0), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8), (0, 1), (0, -1))]  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A configuration: cost (GFLOPs), mean accuracy (percent), half its interval (or None) and one value per seed."""

    name: str
    gflops: float
    accuracy: float
    plus_minus: float | None
    seeds: Sequence[float]
    is_baseline: bool = False


@dataclass(frozen=True)
class Curves:
    """A configuration: validation top-1 (percent) and training loss by epoch, one mapping per seed."""

    top1: Sequence[Mapping[int, float]]
    loss: Sequence[Mapping[int, float]]
    is_baseline: bool = False


def plot_accuracy_and_cost(points: Sequence[tuple[int, Point]], path: str | Path) -> None:
    """Draw accuracy with its interval, and the single seeds, over GFLOPs.

    Args:
        points: number in the picture, and what it stands for.
        path: PNG file to write.
    """
    labels = [f"{number}  {point.name}" + (" (baseline)" if point.is_baseline else "") for number, point in points]
    num_columns = 2 if len(points) > 6 and max(map(len, labels)) <= _MAX_HALF_WIDTH else 1
    list_rows = -(-len(points) // num_columns)
    figure, (axis, list_axis) = plt.subplots(
        2, 1, figsize=(_WIDTH, 3.6 + 0.19 * list_rows), height_ratios=(3.6, 0.19 * list_rows), layout="constrained"
    )
    limits = _cost_limits(points)
    places = _side_by_side([point.gflops for _, point in points], limits[1] - limits[0])
    colors = [_BASELINE if point.is_baseline else _OWN for _, point in points]
    for (_, point), place, color in zip(points, places, colors, strict=True):
        axis.errorbar(place, point.accuracy, yerr=point.plus_minus, fmt="o", markersize=6, capsize=3, color=color)
        seeds = {"s": 9, "color": "white", "edgecolors": color, "linewidths": 0.8, "zorder": 3}
        axis.scatter([place] * len(point.seeds), point.seeds, **seeds)
    is_moved = not np.allclose(places, [point.gflops for _, point in points])
    label = "GFLOPs per clip" + (" (nearly equal ones side by side)" if is_moved else "")
    axis.set(xlabel=label, ylabel="top-1 (%)", xlim=limits, ylim=_accuracy_limits(points))
    axis.grid(alpha=0.3)
    axis.xaxis.get_major_locator().set_params(nbins=5)
    list_axis.axis("off")
    for place, (label, color) in enumerate(zip(labels, colors, strict=True)):
        column, row = divmod(place, list_rows)
        position = (0.5 * column, 1 - (row + 0.5) / list_rows)
        list_axis.text(*position, label, fontsize=8, color=color, va="center", parse_math=False)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the places of the numbers are found for this layout
    numbers = [number for number, _ in points]
    _number_points(axis, numbers, np.stack([places, [point.accuracy for _, point in points]], axis=1), colors)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _cost_limits(points: Sequence[tuple[int, Point]]) -> tuple[float, float]:
    """Return limits of at least a tenth of the cost, so that almost equal costs look almost equal."""
    costs = [point.gflops for _, point in points]
    centre, half = (min(costs) + max(costs)) / 2, (max(costs) - min(costs)) / 2
    half = max(1.3 * half, 0.05 * centre)
    return centre - half, centre + half


def _accuracy_limits(points: Sequence[tuple[int, Point]]) -> tuple[float, float]:
    """Return limits around all seeds and intervals, within what an accuracy can be."""
    halves = [(point.accuracy, point.plus_minus or 0.0) for _, point in points]
    seeds = [seed for _, point in points for seed in point.seeds]
    low = min(*seeds, *(mean - half for mean, half in halves))
    high = max(*seeds, *(mean + half for mean, half in halves))
    low, high = max(low, 0.0), min(high, 100.0)
    pad = max(0.06 * (high - low), 0.5)
    return low - pad, high + pad


def _side_by_side(costs: Sequence[float], width: float) -> np.ndarray:
    """Return where on an axis of that width to draw costs, so that those which hardly differ do not hide each other."""
    order = np.argsort(costs, kind="stable")
    near = np.diff(np.asarray(costs)[order]) < 0.02 * width
    group = np.concatenate([[0], np.cumsum(~near)])
    places = np.array(costs, dtype=float)
    for members in (order[group == number] for number in range(group[-1] + 1)):
        centred = np.arange(len(members)) - (len(members) - 1) / 2
        places[members] += min(0.045, 0.3 / len(members)) * width * centred
    return places


def _number_points(axis, numbers: Sequence[int], places: np.ndarray, colors: Sequence[str]) -> None:
    """Write the numbers of points at ``places``, (M, 2), beside them and apart from each other."""
    pixels = axis.transData.transform(places)
    per_pt = axis.figure.dpi / 72
    taken = [tuple(pixel) for pixel in pixels]
    for number, place, (x, y), color in zip(numbers, places, pixels, colors, strict=True):
        ends = [(x + right * per_pt, y + up * per_pt) for right, up in _OFFSETS]
        distances = [min(np.hypot(there[0] - x1, there[1] - y1) for x1, y1 in taken) for there in ends]
        chosen = next((i for i, gap in enumerate(distances) if gap > 8 * per_pt), int(np.argmax(distances)))
        taken.append(ends[chosen])
        axis.annotate(
            str(number), place, _OFFSETS[chosen], textcoords="offset points", ha="center", va="center", fontsize=9,
            fontweight="bold", color=color, path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def plot_curves(own: int, all_curves: Sequence[Curves], path: str | Path) -> None:
    """Draw validation top-1 and training loss over epochs: mean over the seeds in a band from the worst to the best.

    The means of the other configurations stand behind in grey, the baseline's dashed, with the same axes for all.

    Args:
        own: which of ``all_curves`` the picture is about.
        all_curves: of all configurations.
        path: PNG file to write.
    """
    figure, axes = plt.subplots(2, 1, figsize=(3.6, 4.2), sharex=True, layout="constrained")
    for axis, name, label in zip(axes, ("top1", "loss"), ("validation top-1 (%)", "training loss"), strict=True):
        for place, curves in enumerate(all_curves):
            epochs, mean, low, high = band(getattr(curves, name))
            if place == own:
                axis.fill_between(epochs, low, high, color=_OWN, alpha=0.25, linewidth=0)
                axis.plot(epochs, mean, color=_OWN, marker=".", markersize=4, zorder=3)
            elif curves.is_baseline:
                axis.plot(epochs, mean, color=_BASELINE, linestyle="--", linewidth=1, zorder=2)
            else:
                axis.plot(epochs, mean, color=_OTHERS, linewidth=1, zorder=1)
        ends = [end for curves in all_curves for end in _extent(getattr(curves, name))]
        if ends:
            pad = 0.05 * (max(ends) - min(ends)) or 0.5
            axis.set_ylim(min(ends) - pad, max(ends) + pad)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _extent(curves: Sequence[Mapping[int, float]]) -> list[float]:
    _, _, low, high = band(curves)
    return [low.min(), high.max()] if len(low) else []


def band(curves: Sequence[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return epochs, and mean, smallest and largest value at each, of curves that map epochs to values.

    An epoch that not all of the curves have is left out: the mean would jump where one ends.
    """
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    if not epochs:
        return (np.empty(0),) * 4
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    return np.array(epochs), values.mean(axis=0), values.min(axis=0), values.max(axis=0)
