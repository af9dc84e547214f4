"""The tables of docs/speed.md and README.md that come from measurements, made from what tools/benchmark.py wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path("docs", "benchmarks")
PAGES = (Path("README.md"), Path("docs", "speed.md"))

_BEGIN = re.compile(r"<!-- (\w+): made by tools/benchmark\.py page -->\n")
_END = "<!-- end of {name} -->"


def make_page(page: str, results: Path = RESULTS) -> str:
    """Return a page with the tables of the results that it has places for.

    A place is a pair of lines, ``<!-- NAME: made by tools/benchmark.py page -->`` and ``<!-- end of NAME -->``, for the
    result ``NAME.json``, written by ``tools/benchmark.py model --json`` or ``scaling --json``.

    Raises:
        ValueError: a place without its end.
        FileNotFoundError: a place without a result.
    """
    made = ""
    while begin := _BEGIN.search(page):
        end = _END.format(name=begin[1])
        _, found, rest = page[begin.end() :].partition(end)
        if not found:
            raise ValueError(f"the line {begin[0].strip()!r} has no line {end!r} behind it")
        figures = json.loads((results / f"{begin[1]}.json").read_text())
        table = scaling_table(figures) if "rows" in figures else model_table(figures)
        made += f"{page[: begin.end()]}{table}\n{end}"
        page = rest
    return made + page


def model_table(found: dict[str, Any]) -> str:
    """Return the Markdown table of a result of ``tools/benchmark.py model``.

    The last column sets each model of the first configuration against that of the second one in the same formulation
    and precision. On a CPU times are given as multiples alone: the absolute ones mean nothing on another machine.
    """
    models = found["models"]
    on_gpu = found["machine"]["device"] != "CPU"
    first, second = _two_configurations(models)
    lines = ["| model | precision | forward | training step | memory of the step |", "|---|---|---|---|---|"]
    if second:
        lines = [f"{lines[0]} time over that of `{second}`: forward, step |", f"{lines[1]}---|"]
    others = {_key(one): one for one in models if _configuration(one) == second}
    for one in models:
        columns = [one["name"], one["precision"]]
        for kind in ("forward", "step"):
            ms, base_ms = one[f"{kind}_ms"], models[0][f"{kind}_ms"]
            ratio = f"{base_ms / ms:.2f}x" if ms and base_ms else ""
            rate = f"{1000 * found['clips'] / ms:.1f} clips/s, " if ms and on_gpu else ""
            columns.append(rate + ratio)
        columns.append(f"{one['step_bytes'] / 2**30:.1f} GiB" if one["step_bytes"] else "")
        if second:
            other = others.get(_key(one)) if _configuration(one) == first else None
            times = [(one[key], other[key]) for key in ("forward_ms", "step_ms")] if other else []
            columns.append(", ".join(f"{ms / other_ms:.2f}" for ms, other_ms in times if ms and other_ms))
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join([*lines, "", f"Speed relative to the first row; {_origin(found)}"])


def scaling_table(found: dict[str, Any]) -> str:
    """Return the Markdown table of a result of ``tools/benchmark.py scaling``, one row per value.

    Times are multiples of those of the first model at the first value of the axis; the memory is that of the step.
    """
    rows = found["rows"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    labels = [f"{name}: {what}" for name in names for what in ("forward", "step", "memory")]
    lines = ["| | " + " | ".join(labels) + " |", "|---|" + "---|" * len(labels)]
    for axis in dict.fromkeys(row["axis"] for row in rows):
        own = [row for row in rows if row["axis"] == axis]
        for value in dict.fromkeys(row["value"] for row in own):
            columns = [f"{axis} {value}"]
            for name in names:
                one = next(row for row in own if row["name"] == name and row["value"] == value)
                columns += [f"{one[key] / own[0][key]:.2f}" for key in ("forward_ms", "step_ms")]
                columns.append(f"{one['step_bytes'] / 2**30:.2f} GiB")
            lines.append("| " + " | ".join(columns) + " |")
    said = f"In {rows[0]['precision']}, as configured but for what is named; times relative to the first"
    return "\n".join([*lines, "", f"{said} of each kind; {_origin(found)}"])


def _origin(found: dict[str, Any]) -> str:
    machine = found["machine"]
    cpu = f"{machine['cpu']}, {machine['threads']} threads"
    where = f"{machine['device']}, CUDA {machine['cuda']}" if machine["device"] != "CPU" else cpu
    return (
        f"batches of {found['clips']} x {found['clip']}, medians of {found['rounds']} rounds in turn, {where}, "
        f"torch {machine['torch']}, {machine['date']}:\n\n`{found['command']}`"
    )


def _two_configurations(models: list[dict[str, Any]]) -> tuple[str, str]:
    names = list(dict.fromkeys(_configuration(one) for one in models))
    return names[0], names[1] if len(names) > 1 else ""


def _configuration(one: dict[str, Any]) -> str:
    return one["name"].partition(" ")[0]


def _key(one: dict[str, Any]) -> tuple[str, str]:
    return one["name"].partition(" ")[2], one["precision"]
