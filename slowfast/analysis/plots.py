"""Pictures of studies, each as PNG and as PDF: accuracies with their intervals, and learning curves."""

from collections.abc import Mapping, Sequence

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_COLOURS = [entry["color"] for entry in matplotlib.style.library["tableau-colorblind10"]["axes.prop_cycle"]]


def plot_accuracies(lines: pd.DataFrame, seeds: Mapping[str, Sequence[float]], path: str) -> Figure:
    """Draw a row per configuration: mean top-1 with its interval, the single seeds, and the cost.

    ``lines`` are those of a table, ``seeds`` the top-1 of the seeds by configuration; ``path`` has no extension.
    """
    figure = Figure(figsize=(6, 1.2 + 0.4 * len(lines)), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(lines))
    half = np.nan_to_num(lines["top1_plus_minus"].to_numpy(dtype=float))
    axis.errorbar(lines["top1"], rows, xerr=half, fmt="o", capsize=3, label="mean over the seeds, 95 % interval")
    points = [(value, row) for row, name in zip(rows, lines["config"]) for value in seeds[name]]
    axis.scatter(*zip(*points), s=12, color="white", edgecolors="black", linewidths=0.8, zorder=3, label="one seed")
    names = [f"{name}\n{gflops:.4g} GFLOPs" for name, gflops in zip(lines["config"], lines["gflops"])]
    axis.set_yticks(rows, names, fontsize=8, parse_math=False)
    low, high = axis.get_xlim()
    axis.set(xlabel="top-1 (%)", xlim=(max(low, -2), min(high, 102)), ylim=(len(lines) - 0.5, -0.5))
    return _save(figure, path)


def plot_curves(curves: Mapping[str, Sequence[Sequence[Mapping[int, float]]]], path: str) -> Figure:
    """Draw validation top-1 and training loss over epochs: mean over the seeds in a band from the worst to the best.

    ``curves`` has by configuration top-1 (percent) and loss, each a mapping from epochs per seed. An epoch that not all
    seeds have is left out: the mean would jump where one ends.
    """
    figure = Figure(figsize=(6, 5 + 0.2 * len(curves)), layout="constrained")
    axes = figure.subplots(2, sharex=True)
    for kind, (axis, label) in enumerate(zip(axes, ("validation top-1 (%)", "training loss"))):
        for number, (name, of_name) in enumerate(curves.items()):
            values = pd.DataFrame(of_name[kind], dtype=float).dropna(axis="columns").sort_index(axis="columns")
            epochs = values.columns.to_numpy(dtype=float)
            color, marker = _COLOURS[number % len(_COLOURS)], "osv^DPX*"[number % 8]
            axis.fill_between(epochs, values.min(), values.max(), color=color, alpha=0.15, linewidth=0)
            axis.plot(epochs, values.mean(), color=color, marker=marker, markersize=4, label=name)
        axis.set_ylabel(label)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return _save(figure, path)


def _save(figure: Figure, path: str) -> Figure:
    for axis in figure.axes:
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    for extension in ("png", "pdf"):
        figure.savefig(f"{path}.{extension}", dpi=150)
    return figure
