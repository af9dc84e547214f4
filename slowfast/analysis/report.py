"""Report of a study: tables (CSV, Markdown), pictures, a line per run, and the versions that made them."""

import itertools
import json
import os
import shlex
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from slowfast.analysis.plots import plot_accuracies, plot_curves
from slowfast.analysis.study import Run, Study, Table, check_folders, is_finished, relevant_settings
from slowfast.analysis.tables import in_yaml
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters, training_clip_shape
from slowfast.utils.errors import UserError
from slowfast.utils.files import replacing
from slowfast.utils.metrics import seed_interval
from slowfast.utils.results import read_epochs, read_results, write_json

ACCURACIES = ("top1", "top5", "mean_class")
HOW_TO_READ = (
    "Accuracies in percent: mean over the seeds ± half the 95 % interval (Student's t), which says how far the mean of "
    "many seeds may lie from it. Differences are to the baseline, in percentage points, paired by seed. GFLOPs are "
    "billions of multiply-accumulates per clip; clips_per_sec is the median over the epochs, on the device named. "
    "Where selected_on_test is yes, checkpoints were chosen on the videos of the test, and the accuracies are too high."
)
_MOST_SETTINGS = 8  # in a table for people; the CSV has all


def write_report(study: Study, command: Sequence[str]) -> None:
    """Write ``NAME.csv``, ``.md``, ``.png`` and ``_curves.png`` (and PDF) of every table, ``runs.csv``, ``study.json``.

    They are about the finished runs, and name the others.
    """
    check_folders(study.runs)
    finished = [run for run in study.runs if is_finished(run)]
    if not finished:
        raise UserError(f"none of the {len(study.runs)} runs in {study.out} is finished: there is nothing to report")
    costs = {name: _count(run) for name, run in {run.name: run for run in finished}.items()}
    runs = pd.DataFrame([_read_run(run) | costs[run.name] for run in finished])
    path = os.path.join(study.out, "runs.csv")
    runs.drop(columns=["curves", "versions"]).to_csv(path, index=False, float_format="%.6g")
    facts = {key: runs[key].unique().tolist() for key in ("seed", "protocol", "device", "git_commit", "versions")}
    facts |= {"command": shlex.join(command), "written": time.strftime("%Y-%m-%d %H:%M:%S")}
    if unfinished := [str(run) for run in study.runs if run not in finished]:
        facts["not finished, not part of the means"] = unfinished
    tables = {name: table._asdict() for name, table in study.tables.items()}
    write_json(os.path.join(study.out, "study.json"), {**facts, "tables": tables})
    settings = {run.name: run.settings for run in study.runs}
    for name, table in study.tables.items():
        _write_table(os.path.join(study.out, name), table, settings, runs, facts)


def _count(run: Run) -> dict[str, float]:
    counted = relevant_settings(read_results(run.folder)["config"])["MODEL.NUM_CLASSES"]
    cfg = run.cfg.with_settings("MODEL.NUM_CLASSES", counted)
    with torch.device("meta"):
        model = build_model(cfg)
    return {"parameters": count_parameters(model), "gflops": count_gmacs(model, training_clip_shape(cfg))}


def _read_run(run: Run) -> dict[str, Any]:
    results, epochs = read_results(run.folder), read_epochs(run.folder, "train_epoch")
    with open(os.path.join(run.folder, "environment.json"), encoding="utf-8") as file:
        environment = json.load(file)
    losses = {epoch["epoch"]: epoch["loss"] for epoch in epochs if epoch["loss"] is not None}
    versions = {"python": environment["python"], **environment["versions"]}
    return {
        "config": run.name,
        "seed": run.seed,
        **{name: results[name] for name in (*ACCURACIES, "num_videos", "protocol")},
        "selected_on_test": results.get("selected_on_test"),
        "train_loss": losses[max(losses)] if losses else None,
        "clips_per_sec": pd.Series([epoch["clips_per_sec"] for epoch in epochs], dtype=float).median(),
        "device": environment["device"],
        "git_commit": environment["git_commit"],
        "folder": run.folder,
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items() if version),
        "curves": ({epoch["epoch"]: epoch["top1"] for epoch in read_epochs(run.folder, "val")}, losses),
    }


def summarize(table: Table, settings: dict[str, dict[str, Any]], runs: pd.DataFrame) -> pd.DataFrame:
    """Return a line per configuration of a table: settings that differ, means and intervals over the seeds.

    ``settings`` are by the name of runs; ``runs`` has a line per finished run.
    """
    own_settings = [settings[name] for name in table.rows.values()]
    names = dict.fromkeys(itertools.chain(*own_settings))  # MODEL.ARGS are other ones for other networks
    keys = [key for key in names if any(other.get(key) != own_settings[0].get(key) for other in own_settings)]
    by_name = {name: runs[runs["config"] == name].set_index("seed") for name in settings}
    lines = []
    for row, name in table.rows.items():
        own = by_name[name]
        line = {"config": row, **{key: in_yaml(settings[name][key]) if key in settings[name] else "" for key in keys}}
        line |= {"same_runs_as": name if name != row else "", "seeds": " ".join(map(str, own.index))}
        figures = {accuracy: own[accuracy] for accuracy in ACCURACIES}
        if table.baseline:
            # A seed fixes the order of the data: what is hard in it is hard for both.
            pairs = (own["top1"] - by_name[table.rows[table.baseline]]["top1"]).dropna()
            figures["top1_difference"] = pairs if row != table.baseline else pairs[:0]
        for figure, values in figures.items():
            mean, half = seed_interval(values.tolist()) if len(values) else (None, None)
            line |= {figure: mean, f"{figure}_plus_minus": half}
        line["selected_on_test"] = "yes" if own["selected_on_test"].any() else "no"
        lines.append(line | {key: own[key].median() for key in ("gflops", "parameters", "clips_per_sec", "train_loss")})
    return pd.DataFrame(lines)


def markdown(lines: pd.DataFrame) -> str:
    """Return the lines of a table for people, means with their intervals; settings where a page has room for them."""
    settings = list(lines.columns[1 : lines.columns.get_loc("same_runs_as")])
    lines = lines.drop(columns=settings if len(settings) > _MOST_SETTINGS else [])
    figures = [name for name in lines if f"{name}_plus_minus" in lines]
    is_shared = lines["same_runs_as"].any()
    shown = lines.drop(columns=[f"{name}_plus_minus" for name in figures] + ([] if is_shared else ["same_runs_as"]))
    shown["parameters"] = shown["parameters"].map("{:.0f}".format, na_action="ignore")
    for name in figures:
        pairs = zip(lines[name].astype(float), lines[f"{name}_plus_minus"].astype(float))
        shown[name] = [f"{mean:.2f} ± {half:.2f}".replace(" ± nan", "").replace("nan", "") for mean, half in pairs]
    return shown.astype(object).where(shown.notna(), None).to_markdown(index=False, floatfmt=".4g", missingval="")


def _write_table(path: str, table: Table, settings: dict, runs: pd.DataFrame, facts: dict) -> None:
    lines = summarize(table, settings, runs)
    lines.to_csv(f"{path}.csv", index=False, float_format="%.6g")
    with replacing(f"{path}.md") as file:
        file.write(f"# {table.title}\n\n{markdown(lines)}\n\n{HOW_TO_READ}\n\n")
        for key, value in {"baseline": table.baseline, **facts}.items():
            file.write(f"* {key}: {'; '.join(map(str, value)) if isinstance(value, list) else value}\n")
    own = {row: runs[runs["config"] == name] for row, name in table.rows.items() if name in set(runs["config"])}
    top1 = {row: of_row["top1"].tolist() for row, of_row in own.items()}
    plot_accuracies(lines[lines["config"].isin(own)], top1, path)
    plot_curves({row: list(zip(*of_row["curves"])) for row, of_row in own.items()}, f"{path}_curves")
