"""Pictures of studies, each as PNG and as PDF: accuracies with their intervals, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd


def plot_accuracies(lines: pd.DataFrame, seeds: Mapping[str, Sequence[float]], path: str) -> None:
    """Draw a row per configuration: mean top-1 with its interval, the single seeds, and the cost.

    ``lines`` are those of a table, ``seeds`` the top-1 of the seeds by configuration; ``path`` has no extension.
    """
    figure, axis = plt.subplots(figsize=(6, 1.2 + 0.4 * len(lines)), layout="constrained")
    rows = np.arange(len(lines))
    half = np.nan_to_num(lines["top1_plus_minus"].to_numpy(dtype=float))
    axis.errorbar(lines["top1"], rows, xerr=half, fmt="o", capsize=3, label="mean over the seeds, 95 % interval")
    points = [(value, row) for row, name in zip(rows, lines["config"]) for value in seeds[name]]
    axis.scatter(*zip(*points), s=12, color="white", edgecolors="black", linewidths=0.8, zorder=3, label="one seed")
    names = [f"{name}\n{gflops:.4g} GFLOPs" for name, gflops in zip(lines["config"], lines["gflops"])]
    axis.set_yticks(rows, names, fontsize=8, parse_math=False)
    low, high = axis.get_xlim()
    axis.set(xlabel="top-1 (%)", xlim=(max(low, -2), min(high, 102)), ylim=(len(lines) - 0.5, -0.5))
    _save(figure, [axis], path)


def plot_curves(curves: Mapping[str, Sequence[Sequence[Mapping[int, float]]]], path: str) -> None:
    """Draw validation top-1 and training loss over epochs: mean over the seeds in a band from the worst to the best.

    ``curves`` has by configuration top-1 (percent) and loss, each a mapping from epochs per seed. An epoch that not all
    seeds have is left out: the mean would jump where one ends.
    """
    figure, axes = plt.subplots(2, 1, figsize=(6, 5 + 0.2 * len(curves)), sharex=True, layout="constrained")
    for axis, kind, label in zip(axes, (0, 1), ("validation top-1 (%)", "training loss")):
        for number, (name, of_name) in enumerate(curves.items()):
            values = pd.DataFrame(of_name[kind], dtype=float).dropna(axis="columns").sort_index(axis="columns")
            epochs = values.columns.to_numpy(dtype=float)
            color = plt.get_cmap("tab10" if len(curves) <= 10 else "tab20")(number % 20)
            axis.fill_between(epochs, values.min(), values.max(), color=color, alpha=0.15, linewidth=0)
            axis.plot(epochs, values.mean(), color=color, marker=".", label=name)
        axis.set_ylabel(label)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    _save(figure, axes, path)


def _save(figure: plt.Figure, axes: Sequence[plt.Axes], path: str) -> None:
    for axis in axes:
        axis.grid(alpha=0.3)
    legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    for extension in ("png", "pdf"):
        figure.savefig(f"{path}.{extension}", dpi=150)
    plt.close(figure)
