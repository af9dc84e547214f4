"""What the runs of a study have found: one record per run, one line per configuration."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from slowfast.analysis.study.plan import Run, Study, Table, Variant
from slowfast.engine.results import SCORES, read_epochs, read_results
from slowfast.engine.scores import combine, load_scores
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.utils.intervals import seed_interval
from slowfast.utils.logging import read_events
from slowfast.utils.metrics import confusion_matrix

ACCURACIES = ("top1", "top5", "mean_class")


@dataclass(frozen=True)
class Finding:
    """A finished run.

    ``results`` is the content of ``test_results.json``, ``environment`` that of ``environment.json``; ``losses`` and
    ``val_top1`` (percent) are by epoch; ``clips_per_sec`` is the median over the epochs, ``wall_sec`` the time of all
    commands that it took.
    """

    run: Run
    results: dict
    environment: dict
    losses: dict[int, float]
    val_top1: dict[int, float]
    clips_per_sec: float | None
    wall_sec: float

    @property
    def final_loss(self) -> float | None:
        return self.losses[max(self.losses)] if self.losses else None


def read_finding(run: Run) -> Finding:
    """Read the folder of a finished run."""
    epochs = read_epochs(run.folder, "train_epoch")
    with open(os.path.join(run.folder, "environment.json"), encoding="utf-8") as file:
        environment = json.load(file)
    speeds = [epoch["clips_per_sec"] for epoch in epochs]
    return Finding(
        run=run,
        results=read_results(run.folder),
        environment=environment,
        losses={epoch["epoch"]: epoch["loss"] for epoch in epochs if epoch["loss"] is not None},
        val_top1={epoch["epoch"]: epoch["top1"] for epoch in read_epochs(run.folder, "val")},
        clips_per_sec=statistics.median(speeds) if speeds else None,
        wall_sec=wall_sec(read_events(run.folder)),
    )


def wall_sec(events: Sequence[dict]) -> float:
    """Return the seconds that the commands of a run took together, of all its events; pauses between do not count."""
    return sum(after["time"] - before["time"] for before, after in pairwise(events) if after["event"] != "start")


def summarize(study: Study, findings: Sequence[Finding]) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of every table, by its name.

    A line has ``number``, ``config``, ``same_runs_as`` (or ""), ``settings`` (of the keys in which the rows differ),
    ``seeds``, means over the seeds and half the widths of their 95 % intervals (``top1``, ``top1_plus_minus``, ...),
    ``gflops``, ``parameters``, ``clips_per_sec``, ``device``, ``train_loss``, ``wall_sec`` and, in a table with a
    baseline, the difference to it of the seeds that both have (``top1_difference``, ``..._plus_minus``, ``..._seeds``).
    None stands for what is not known.
    """
    by_variant: dict[str, list[Finding]] = {}
    for finding in findings:
        by_variant.setdefault(finding.run.variant.name, []).append(finding)
    # Not of the others: a model that cannot be built may be why a run has failed.
    counts = {variant.name: _count(variant.cfg) for variant in study.variants() if variant.name in by_variant}
    lines = {}
    for table in study.tables:
        keys = table.varied_keys()
        baseline = next((by_variant.get(row.variant.name, []) for row in table.rows if row.name == table.baseline), [])
        lines[table.name] = []
        for number, row in enumerate(table.rows, start=1):
            own = by_variant.get(row.variant.name, [])
            line = {
                "number": number,
                "config": row.name,
                "same_runs_as": row.variant.name if row.variant.name != row.name else "",
                "settings": {key: row.variant.settings[key] for key in keys},
                "seeds": [finding.run.seed for finding in own],
                **_means(own),
                "gflops": counts.get(row.variant.name, {}).get("gflops"),
                "parameters": counts.get(row.variant.name, {}).get("parameters"),
                "clips_per_sec": _median([finding.clips_per_sec for finding in own]),
                "device": "; ".join(_distinct(finding.environment["device"] for finding in own)),
                "train_loss": _mean([finding.final_loss for finding in own]),
                "wall_sec": _mean([finding.wall_sec for finding in own]),
            }
            if table.baseline:
                line.update(_difference(own, baseline if row.name != table.baseline else []))
            lines[table.name].append(line)
    return lines


def _count(cfg) -> dict[str, float]:
    with torch.device("meta"):
        model = build_model(cfg)
    clip = (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    return {"parameters": count_parameters(model), "gflops": count_gmacs(model, clip)}


def _means(findings: Sequence[Finding]) -> dict[str, float | None]:
    columns = {}
    for name in ACCURACIES:
        values = [finding.results[name] for finding in findings]
        columns[name], columns[f"{name}_plus_minus"] = seed_interval(values) if values else (None, None)
    return columns


def _difference(findings: Sequence[Finding], baseline: Sequence[Finding]) -> dict[str, Any]:
    """Return by how many points the top-1 is better than the baseline's, paired by seed: a seed fixes the order of the
    data, so that what is hard in it is hard for both."""
    base = {finding.run.seed: finding.results["top1"] for finding in baseline}
    pairs = {f.run.seed: f.results["top1"] - base[f.run.seed] for f in findings if f.run.seed in base}
    mean, half = seed_interval(list(pairs.values())) if pairs else (None, None)
    return {"top1_difference": mean, "top1_difference_plus_minus": half, "top1_difference_seeds": list(pairs)}


def notes(table: Table, study: Study, findings: Sequence[Finding]) -> list[str]:
    """Return what a reader has to know before comparing the lines of a table."""
    names = {row.variant.name for row in table.rows}
    own = [finding for finding in findings if finding.run.variant.name in names]
    found = []
    have = {(finding.run.variant.name, finding.run.seed) for finding in own}
    missing = [str(run) for run in study.runs() if run.variant.name in names and _key(run) not in have]
    if missing:
        found.append(f"Not finished, and not part of the means: {', '.join(missing)}.")
    for what, values in (
        ("other protocols", _distinct(finding.results["protocol"] for finding in own)),
        ("other numbers of videos", _distinct(str(finding.results["num_videos"]) for finding in own)),
        ("other devices, so that speeds cannot be compared", _distinct(f.environment["device"] for f in own)),
        ("other versions of the code", _distinct(str(finding.environment["git_commit"]) for finding in own)),
    ):
        if len(values) > 1:
            found.append(f"The runs have {what}: {'; '.join(values)}.")
    return found


def mean_confusion(variant: Variant, findings: Sequence[Finding]) -> tuple[np.ndarray, list[str]] | None:
    """Return the counts (K, K), mean over the seeds, and the names of the classes; None without score files."""
    matrices, names = [], None
    for finding in findings:
        path = os.path.join(finding.run.folder, SCORES)
        if finding.run.variant.name != variant.name or not os.path.isfile(path):
            continue
        scores = load_scores(path)
        num_classes = scores.logits.shape[2]
        combined = combine([scores], finding.results["ensemble_method"])
        matrices.append(confusion_matrix(combined, scores.labels, num_classes))
        names = scores.class_names or [str(label) for label in range(num_classes)]
    return (np.mean(matrices, axis=0), names) if matrices else None


def _key(run: Run) -> tuple[str, int]:
    return run.variant.name, run.seed


def _distinct(values) -> list[str]:
    return list(dict.fromkeys(values))


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return statistics.median(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return statistics.fmean(known) if known else None
