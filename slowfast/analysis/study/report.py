"""A study's files: tables, pictures, where they come from, and one HTML page that holds all of it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence

from slowfast.analysis.study.folders import check_folders, is_finished
from slowfast.analysis.study.outcome import Finding, mean_confusion, notes, read_finding, summarize
from slowfast.analysis.study.page import Figures, Section, page
from slowfast.analysis.study.plan import Study, Table
from slowfast.analysis.study.tables import HOW_TO_READ, columns, markdown, write_runs_csv, write_table_csv
from slowfast.engine.results import write_json
from slowfast.utils.files import replacing
from slowfast.utils.logging import format_duration

_COST = "Mean over the seeds with its 95 % interval; the small points are the single seeds."
_CURVES = (
    "Mean over the seeds, in a band from the worst to the best of them; the other configurations in grey, a baseline "
    "dashed. The axes are the same for all."
)
_CONFUSION = "Rows are the true classes, columns the predicted ones; numbers of videos, mean over the seeds."


def write_report(study: Study, command: Sequence[str]) -> str:
    """Write everything about the finished runs of a study to its folder; return the path of the page.

    Per table NAME: ``NAME.csv``, ``NAME.md`` and ``NAME.png``; for all together ``runs.csv``, ``study.json``,
    ``plots/`` and ``report.html``, which needs none of the other files.

    Args:
        study: what was to be run; runs that are not finished are named in the report.
        command: arguments of the program.

    Raises:
        ValueError: a folder holds a run with other settings, or no run is finished.
    """
    runs = study.runs()
    check_folders(runs)
    findings = [read_finding(run) for run in runs if is_finished(run)]
    if not findings:
        raise ValueError(f"none of the {len(runs)} runs in {study.out} is finished: there is nothing to report")
    lines = summarize(study, findings)
    facts = _provenance(study, findings, command)
    write_runs_csv(os.path.join(study.out, "runs.csv"), findings, lines)
    write_json(os.path.join(study.out, "study.json"), facts)
    os.makedirs(os.path.join(study.out, "plots"), exist_ok=True)
    confusion = _draw_confusion(study, findings)
    sections = [_write_table(study, table, lines[table.name], findings, facts, confusion) for table in study.tables]
    path = os.path.join(study.out, "report.html")
    title = study.out if len(sections) > 1 else sections[0].title
    with replacing(path) as file:
        file.write(page(title, [_summary(facts), HOW_TO_READ], sections, _facts_in_words(facts)))
    return path


def _provenance(study: Study, findings: Sequence[Finding], command: Sequence[str]) -> dict:
    """Return the content of ``study.json``. What all runs should have in common is a list of all that they have."""

    def distinct(key: str) -> list:
        values = [finding.environment[key] for finding in findings]
        return [value for place, value in enumerate(values) if value not in values[:place]]

    return {
        "command": list(command),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seeds": list(study.seeds),
        "overrides": list(study.overrides),
        "git_commits": distinct("git_commit"),
        "devices": distinct("device"),
        "world_sizes": distinct("world_size"),
        "pythons": distinct("python"),
        "versions": distinct("versions"),
        "protocols": list(dict.fromkeys(finding.results["protocol"] for finding in findings)),
        "num_runs": len(study.runs()),
        "total_wall_sec": sum(finding.wall_sec for finding in findings),
        "tables": {
            table.name: {
                "title": table.title,
                "baseline": table.baseline,
                "configurations": {row.name: {"file": row.file, "runs": row.variant.name} for row in table.rows},
            }
            for table in study.tables
        },
        "runs": [
            {
                "config": finding.run.variant.name,
                "seed": finding.run.seed,
                "folder": finding.run.folder,
                "time": finding.environment["time"],
                "device": finding.environment["device"],
                "git_commit": finding.environment["git_commit"],
                "wall_sec": finding.wall_sec,
            }
            for finding in findings
        ],
    }


def _summary(facts: dict) -> str:
    seeds = f"{len(facts['seeds'])} seeds" if len(facts["seeds"]) > 1 else "one seed"
    return f"{len(facts['runs'])} of {facts['num_runs']} runs, {seeds}, {'; '.join(facts['devices'])}, {facts['time']}."


def _facts_in_words(facts: dict) -> list[tuple[str, str]]:
    times = sorted(run["time"] for run in facts["runs"])
    versions = [
        ", ".join(f"{package} {version}" for package, version in versions.items() if version)
        for versions in facts["versions"]
    ]
    return [
        ("Command", shlex.join(facts["command"])),
        ("Written", facts["time"]),
        ("Runs", f"{len(facts['runs'])} of {facts['num_runs']}, last started between {times[0]} and {times[-1]}"),
        ("Time of the runs", f"{format_duration(facts['total_wall_sec'])} in all (h:mm:ss)"),
        ("Seeds", ", ".join(map(str, facts["seeds"]))),
        ("Overrides", shlex.join(facts["overrides"]) or "none"),
        ("Test", "; ".join(facts["protocols"])),
        ("Device", "; ".join(facts["devices"])),
        ("Processes per run", ", ".join(map(str, facts["world_sizes"]))),
        ("Code", "; ".join(str(commit) for commit in facts["git_commits"])),
        ("Versions", "; ".join(f"python {python}" for python in facts["pythons"]) + ", " + "; ".join(versions)),
        *(
            (f"Files of {name}", ", ".join(row["file"] for row in table["configurations"].values()))
            for name, table in facts["tables"].items()
        ),
    ]


def _write_table(
    study: Study, table: Table, lines: Sequence[dict], findings: Sequence[Finding], facts: dict,
    confusion: dict[str, str],
) -> Section:  # fmt: skip
    """Write the CSV, Markdown and PNG files of a table; return its section of the page."""
    path = os.path.join(study.out, table.name)
    shown, remarks = columns(table, lines), notes(table, study, findings)
    write_table_csv(f"{path}.csv", table, lines)
    with replacing(f"{path}.md") as file:
        file.write(f"# {table.title or table.name}\n\n{markdown(shown)}\n{HOW_TO_READ}\n\n")
        file.write("".join(f"{remark}\n\n" for remark in remarks))
        file.write("".join(f"* {name}: {value}\n" for name, value in _facts_in_words(facts)))
    _draw_cost(table, lines, findings, f"{path}.png")
    names = [row.name for row in table.rows]
    matrices = {row.variant.name: row.name for row in reversed(table.rows) if row.variant.name in confusion}
    figures = [
        Figures("Accuracy against cost", _COST, [("Top-1 accuracy against GFLOPs", f"{path}.png")]),
        Figures("Learning curves", _CURVES, _draw_curves(study, table, findings)),
        Figures("Confusion", _CONFUSION, [(name, confusion[key]) for key, name in reversed(matrices.items())]),
    ]
    marked = names.index(table.baseline) if table.baseline else None
    return Section(table.title or table.name, shown, marked, remarks, figures)


def _draw_cost(table: Table, lines: Sequence[dict], findings: Sequence[Finding], path: str) -> None:
    from slowfast.analysis.plots import Point, plot_accuracy_and_cost  # matplotlib: not at the start

    points = []
    for row, line in zip(table.rows, lines, strict=True):
        seeds = [f.results["top1"] for f in findings if f.run.variant.name == row.variant.name]
        if seeds:
            point = Point(
                row.name, line["gflops"], line["top1"], line["top1_plus_minus"], seeds, row.name == table.baseline
            )
            points.append((line["number"], point))
    if points:
        plot_accuracy_and_cost(points, path)


def _draw_curves(study: Study, table: Table, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Draw a picture per configuration that has finished runs; return captions and files."""
    from slowfast.analysis.plots import Curves, plot_curves

    curves = {}
    for row in table.rows:
        own = [finding for finding in findings if finding.run.variant.name == row.variant.name]
        if own:
            top1, losses = [f.val_top1 for f in own], [f.losses for f in own]
            curves[row.name] = Curves(top1, losses, row.name == table.baseline)
    pictures = []
    for place, name in enumerate(curves):
        path = os.path.join(study.out, "plots", f"{table.name}_{name}_curves.png")
        plot_curves(place, list(curves.values()), path)
        pictures.append((name, path))
    return pictures


def _draw_confusion(study: Study, findings: Sequence[Finding]) -> dict[str, str]:
    """Draw the mean confusion matrix of every variant with score files; return the files by its name."""
    from slowfast.engine.pictures import plot_confusion_matrix

    paths = {}
    for variant in study.variants():
        found = mean_confusion(variant, findings)
        if found is not None:
            paths[variant.name] = os.path.join(study.out, "plots", f"{variant.name}_confusion.png")
            plot_confusion_matrix(*found, paths[variant.name], is_compact=True)
    return paths
