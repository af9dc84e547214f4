"""Tables of a study as CSV for programs and as text for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from slowfast.analysis.study.outcome import ACCURACIES, Finding
from slowfast.analysis.study.plan import Table
from slowfast.utils.files import replacing

# More varied keys than this are one column of text.
_MAX_KEY_COLUMNS = 4


@dataclass(frozen=True)
class Column:
    """A column of a table for people; text is aligned on the left."""

    heading: str
    cells: list[str]
    is_text: bool = False


HOW_TO_READ = (
    "Accuracies in percent: mean over the seeds ± half the 95 % interval (Student's t) over seeds, which says how far "
    "the mean of many seeds may lie from it; the test videos are the same for all. Differences are to the baseline, in "
    "percentage points, paired by seed. GFLOPs are billions of multiply-accumulates per clip; clips/s is the median "
    "over epochs and seeds in training, on the device named."
)


def write_runs_csv(path: str, findings: Sequence[Finding], lines: dict[str, list[dict]]) -> None:
    """Write a line per finished run."""
    counts = {line["same_runs_as"] or line["config"]: line for table in lines.values() for line in table}
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["config", "seed", *ACCURACIES, "num_videos", "train_loss", "wall_sec", "parameters", "gflops"]
            + ["clips_per_sec", "device", "folder"]
        )
        for finding in findings:
            count = counts[finding.run.variant.name]
            writer.writerow(
                [finding.run.variant.name, finding.run.seed]
                + [_number(finding.results[name], 4) for name in ACCURACIES]
                + [finding.results["num_videos"], _number(finding.final_loss, 5), _number(finding.wall_sec, 1)]
                + [count["parameters"], _number(count["gflops"], 4), _number(finding.clips_per_sec, 2)]
                + [finding.environment["device"], finding.run.folder]
            )


def write_table_csv(path: str, table: Table, lines: Sequence[dict]) -> None:
    """Write a line per configuration, with everything that :func:`summarize` knows about it."""
    keys = table.varied_keys()
    names = [name for name in lines[0] if name not in ("settings", "number")]
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["config", *keys, *names[1:]])
        for line in lines:
            values = [setting_text(line["settings"][key]) for key in keys]
            writer.writerow([line["config"], *values, *(_csv_value(line[name]) for name in names[1:])])


def columns(table: Table, lines: Sequence[dict]) -> list[Column]:
    """Return the table for people: the numbers of the lines, names, settings that differ, and what was found."""
    shown = [
        Column("#", [str(line["number"]) for line in lines]),
        Column("configuration", [_name(line) for line in lines], is_text=True),
        *_setting_columns(table, lines),
    ]
    for name, heading in zip(ACCURACIES, ("top-1 (%)", "top-5 (%)", "mean class (%)"), strict=True):
        shown.append(Column(heading, [_plus_minus(line, name, ".2f") for line in lines]))
    if table.baseline:
        cells = [
            "baseline" if line["config"] == table.baseline else _plus_minus(line, "top1_difference", "+.2f")
            for line in lines
        ]
        shown.append(Column("top-1 minus baseline", cells))
    return [
        *shown,
        Column("seeds", [str(len(line["seeds"])) for line in lines]),
        Column("GFLOPs", [_number(line["gflops"], 2 if (line["gflops"] or 0) >= 1 else 4, "–") for line in lines]),
        Column("parameters", ["–" if line["parameters"] is None else f"{line['parameters']:,}" for line in lines]),
        Column("clips/s", [_number(line["clips_per_sec"], 1, "–") for line in lines]),
        Column("training loss", [_number(line["train_loss"], 3, "–") for line in lines]),
    ]


def markdown(columns: Sequence[Column]) -> str:
    """Return columns as a Markdown table."""
    rows = zip(*([column.heading, *column.cells] for column in columns), strict=True)
    heading, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    alignment = ["---" if column.is_text else "---:" for column in columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heading, alignment, *body])


def setting_text(value: Any) -> str:
    """Return a setting as it would stand in a YAML file."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _name(line: dict) -> str:
    return line["config"] + (f" (runs of {line['same_runs_as']})" if line["same_runs_as"] else "")


def _setting_columns(table: Table, lines: Sequence[dict]) -> list[Column]:
    keys = table.varied_keys()
    short = {key: key.rpartition(".")[2] for key in keys}
    names = {key: short[key] if list(short.values()).count(short[key]) == 1 else key for key in keys}
    if len(keys) <= _MAX_KEY_COLUMNS:
        return [Column(names[key], [setting_text(line["settings"][key]) for line in lines], True) for key in keys]
    base = next((line for line in lines if line["config"] == table.baseline), lines[0])["settings"]
    cells = []
    for line in lines:
        own = {key: value for key, value in line["settings"].items() if value != base[key]}
        cells.append(", ".join(f"{names[key]} {setting_text(value)}" for key, value in own.items()) or "–")
    return [Column("settings", cells, is_text=True)]


def _plus_minus(line: dict, name: str, style: str) -> str:
    value, half = line[name], line[f"{name}_plus_minus"]
    if value is None:
        return "–"
    return f"{value:{style}}" + ("" if half is None else f" ± {half:.2f}")


def _number(value: float | None, digits: int, unknown: str = "") -> str:
    return unknown if value is None else f"{value:.{digits}f}"


def _csv_value(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else value
