"""Picture of how the time and the memory of models grow: linear against quadratic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

_LABELS = {"frames": "frames", "crop": "side of the frames (px)", "window": "window (tokens)"}
_COLUMN_WIDTH, _ROW_HEIGHT = 2.9, 2.7  # inches


def plot_scaling(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw the time (relative) and the memory of training steps, logarithmically, one column per axis that grows.

    Times are multiples of the first model's at the first value of each axis: a straight line of slope one is linear
    growth. Two thin lines from there show linear and quadratic growth with the number of tokens.

    Args:
        rows: what :func:`slowfast.benchmark.scaling.time_scaling` yields.
        path: PNG file to write.
    """
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, grid = plt.subplots(
        2, len(axes), figsize=(0.6 + _COLUMN_WIDTH * len(axes), 0.5 + 2 * _ROW_HEIGHT), layout="constrained",
        squeeze=False, sharex="col",
    )  # fmt: skip
    for column, axis in enumerate(axes):
        own = [row for row in rows if row["axis"] == axis]
        time_axis, memory_axis = grid[:, column]
        base = own[0]
        for name in names:
            line = [row for row in own if row["name"] == name]
            values = [row["value"] for row in line]
            time_axis.plot(values, [row["step_ms"] / base["step_ms"] for row in line], "o-", markersize=4, label=name)
            memory_axis.plot(values, [row["step_bytes"] / 2**30 for row in line], "o-", markersize=4, label=name)
        values = sorted({row["value"] for row in own})
        if axis != "window":
            tokens_power = 2 if axis == "crop" else 1  # tokens grow with the square of the side
            for power, style, label in ((1, ":", "linear in tokens"), (2, "--", "quadratic")):
                growth = [(value / values[0]) ** (power * tokens_power) for value in values]
                time_axis.plot(values, growth, style, color="0.6", linewidth=1, label=label)
                if power == 1:
                    start = base["step_bytes"] / 2**30
                    memory_axis.plot(values, [start * factor for factor in growth], style, color="0.6", linewidth=1)
        for axes_of_one in (time_axis, memory_axis):
            if axis != "window":
                axes_of_one.set_xscale("log")
                axes_of_one.set_yscale("log")
                axes_of_one.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes_of_one.yaxis.set_major_formatter("{x:g}")
            else:
                axes_of_one.set_ylim(bottom=0)
            axes_of_one.set_xticks(values, [str(value) for value in values])
            axes_of_one.minorticks_off()
            axes_of_one.grid(alpha=0.3)
        memory_axis.set_xlabel(_LABELS[axis])
    grid[0, 0].set_ylabel("time of a training step\n(times that of the first point)")
    grid[1, 0].set_ylabel("memory of a training step (GiB)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
