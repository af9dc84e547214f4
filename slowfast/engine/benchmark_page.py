"""The tables of docs/speed.md and README.md that come from measurements, made from what tools/benchmark.py wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path("docs", "benchmarks")
PAGES = (Path("README.md"), Path("docs", "speed.md"))

_BEGIN, _END = "<!-- {name}: made by tools/benchmark.py page -->", "<!-- end of {name} -->"


def make_page(page: str, results: Path = RESULTS) -> str:
    """Return a page with the table of every result that it has a place for.

    A place is a pair of lines, ``<!-- NAME: made by tools/benchmark.py page -->`` and ``<!-- end of NAME -->``, for the
    result ``NAME.json``, written by ``tools/benchmark.py model --json``.

    Raises:
        ValueError: a place without its end.
    """
    for file in sorted(results.glob("*.json")):
        begin, end = _BEGIN.format(name=file.stem), _END.format(name=file.stem)
        if begin not in page:
            continue
        before, _, rest = page.partition(begin)
        if end not in rest:
            raise ValueError(f"the line {begin!r} has no line {end!r} behind it")
        page = f"{before}{begin}\n{model_table(json.loads(file.read_text()))}\n{end}{rest.partition(end)[2]}"
    return page


def model_table(found: dict[str, Any]) -> str:
    """Return the Markdown table of a result of ``tools/benchmark.py model``.

    On a CPU times are given as multiples of the first row's alone: the absolute ones mean nothing on another machine.
    """
    machine, models = found["machine"], found["models"]
    on_gpu = machine["device"] != "CPU"
    lines = [
        "| model | precision | forward | training step | memory of the step |",
        "|---|---|---|---|---|",
    ]
    for one in models:
        columns = [one["name"], one["precision"]]
        for kind in ("forward", "step"):
            ms, base_ms = one[f"{kind}_ms"], models[0][f"{kind}_ms"]
            ratio = f"{base_ms / ms:.2f}x" if ms and base_ms else ""
            rate = f"{1000 * found['clips'] / ms:.1f} clips/s, " if ms and on_gpu else ""
            columns.append(rate + ratio)
        columns.append(f"{one['step_bytes'] / 2**30:.1f} GiB" if one["step_bytes"] else "")
        lines.append("| " + " | ".join(columns) + " |")
    cpu = f"{machine['cpu']}, {machine['threads']} threads"
    where = f"{machine['device']}, CUDA {machine['cuda']}" if on_gpu else cpu
    lines += [
        "",
        f"Speed relative to the first row; batches of {found['clips']} x {found['clip']}, medians of {found['rounds']} "
        f"rounds in turn, {where}, torch {machine['torch']}, {machine['date']}:",
        "",
        f"`{found['command']}`",
    ]
    return "\n".join(lines)
