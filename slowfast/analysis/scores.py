"""Saved scores without a model: metrics and pictures again, ensembles of runs, comparisons of two.

Letters: ``M`` videos, ``V`` views, ``K`` classes.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder
from slowfast.utils.metrics import ENSEMBLE_METHODS, METHOD, accuracy_summary, ensemble, paired_differences
from slowfast.utils.results import Scores, load_scores, measure, write_json, write_results


def rescore(
    paths: Sequence[str], method: str | None = None, weights: list[float] | None = None, output_dir: str | None = None
) -> dict:
    """Return the content of ``test_results.json`` for one score file, or for an ensemble of several by ``weights``.

    ``method`` is a name of ENSEMBLE_METHODS, or None for that of the files. All files of a test go to ``output_dir``.
    """
    runs = align([load_scores(path) for path in paths])
    method = method or _common_method(runs)
    scores = combine(runs, method, weights)
    members = [
        {
            "file": run.path,
            "weight": weight,
            "protocol": f"{run.facts.get('view_protocol', f'{run.logits.shape[1]} views')}, {method}",
            "checkpoint": run.facts.get("checkpoint"),
            **accuracy_summary(combine([run], method), run.labels),
        }
        for run, weight in zip(runs, weights or [1.0] * len(runs))
    ]
    protocol = " + ".join(dict.fromkeys(member["protocol"] for member in members))
    prefix = f"ensemble of {len(runs)}: " if len(runs) > 1 else ""
    facts = {"protocol": prefix + protocol, "ensemble_method": method, "runs": members}
    facts["selected_on_test"] = any(run.facts.get("selected_on_test") for run in runs)
    num_views = sum(run.logits.shape[1] for run in runs)
    results = measure(scores, runs[0].labels, num_views, _bad_videos(runs, scores), **facts)
    if output_dir is not None:
        _make_folder(output_dir, paths)
        named = replace(runs[0], class_names=next((run.class_names for run in runs if run.class_names), None))
        write_results(output_dir, results, named, scores, combine(runs, "mean_probability", weights))
    return results


def compare(path_a: str, path_b: str, method: str | None = None, output_dir: str | None = None) -> dict:
    """Compare two score files of the same videos, by ``method`` or each by its own; write ``comparison.json`` if asked.

    top1, top5 and mean_class have each ``a``, ``b``, ``difference`` (percentage points, B minus A) and ``interval95``.
    """
    runs = align([load_scores(path) for path in (path_a, path_b)])
    scores = [combine([run], method or _common_method([run])) for run in runs]
    labels = runs[0].labels
    a, b = (accuracy_summary(each, labels) for each in scores)
    differences = paired_differences(*scores, labels)
    found = {"file_a": path_a, "file_b": path_b, "num_videos": len(labels), "interval_method": METHOD}
    found |= {name: {"a": a[name], "b": b[name], **difference} for name, difference in differences.items()}
    if output_dir is not None:
        _make_folder(output_dir, (path_a, path_b))
        write_json(os.path.join(output_dir, "comparison.json"), found)
    return found


def comparison_line(name: str, found: dict) -> str:
    """Return the difference of one accuracy, an entry of the result of ``compare``, as a line of text."""
    low, high = found["interval95"]
    verdict = "B is better" if low > 0 else "A is better" if high < 0 else "the difference may be chance"
    return (
        f"{name}: A {found['a']:.2f} %, B {found['b']:.2f} %, B - A {found['difference']:+.2f} points, "
        f"95 % interval [{low:+.2f}, {high:+.2f}]: {verdict}"
    )


def align(runs: Sequence[Scores]) -> list[Scores]:
    """Return the runs with the videos of each in the order of the first one; runs of other tasks are refused."""
    # A path may be listed twice: sorted by label too, equal lines fall on each other.
    orders = [np.lexsort((run.labels, run.videos)) for run in runs]
    position = np.argsort(orders[0])
    aligned = [runs[0]]
    for run, order in zip(runs[1:], orders[1:]):
        _check_same_task(runs[0], run)
        index = order[position]
        aligned.append(replace(run, videos=run.videos[index], labels=run.labels[index], logits=run.logits[index]))
    return aligned


def combine(runs: Sequence[Scores], method: str, weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the scores (M, K) of one run by an ensemble method, or of several together.

    A run counts by its weight, however many views it has: of several runs, which ``align`` has aligned, the weighted
    mean of the mean logits (sum_logits), mean probabilities (mean_probability, for models whose logits differ in scale)
    or largest logits (max) is taken. A video without a score in one of the runs has none.
    """
    weights = np.ones(len(runs)) if weights is None else np.asarray(weights)
    if len(weights) != len(runs) or not (np.isfinite(weights).all() and min(weights) >= 0 and sum(weights) > 0):
        allowed = "one for each, none negative, not all 0"
        raise UserError(f"weights of {len(runs)} score files are {weights.tolist()}; allowed: {allowed}")
    if len(runs) == 1:
        return ensemble(runs[0].logits, method)  # to the last digit the scores of the test
    num_summed = [run.logits.shape[1] if method == "sum_logits" else 1 for run in runs]
    return sum(
        share / num * ensemble(run.logits, method) for run, num, share in zip(runs, num_summed, weights / weights.sum())
    )


def _check_same_task(first: Scores, run: Scores) -> None:
    here, there = (Counter(zip(each.videos.tolist(), each.labels.tolist())) for each in (first, run))
    if here != there:
        only = [(one.path, mine - other) for one, mine, other in ((first, here, there), (run, there, here))]
        found = [f"{pairs.total()} only in {path}, such as {next(iter(pairs))}" for path, pairs in only if pairs]
        raise UserError(f"the score files are not about the same videos and labels: {'; '.join(found)}")
    if first.logits.shape[2] != run.logits.shape[2]:
        raise UserError(f"{first.path} has {first.logits.shape[2]} classes, {run.path} has {run.logits.shape[2]}")
    for label, names in enumerate(zip(first.class_names or (), run.class_names or ())):
        if names[0] != names[1]:
            raise UserError(f"class {label} is {names[0]!r} in {first.path} and {names[1]!r} in {run.path}")


def _common_method(runs: Sequence[Scores]) -> str:
    methods = {run.path: run.facts.get("ensemble_method") for run in runs}
    if len(set(methods.values())) > 1 or None in methods.values():
        found = ", ".join(f"{path}: {method}" for path, method in methods.items())
        raise UserError(f"the ensemble method is not clear ({found}): give --method {' | '.join(ENSEMBLE_METHODS)}")
    return next(iter(methods.values()))


def _bad_videos(runs: Sequence[Scores], scores: np.ndarray) -> list[dict]:
    """Return the videos without a score, with the reason where a file knows it."""
    known = [bad for run in runs for bad in run.facts.get("bad_videos", [])]
    found = {}
    for video in runs[0].videos[np.isnan(scores).any(axis=1)].tolist():
        unknown = {"path": video, "reason": "no score in the score file"}
        # A file has full paths here, so that the folder can be found.
        found[video] = next((bad for bad in known if f"/{bad['path']}".endswith(f"/{video}")), unknown)
    return list(found.values())


def _make_folder(output_dir: str, paths: Sequence[str]) -> None:
    if os.path.realpath(output_dir) in {os.path.realpath(os.path.dirname(path) or ".") for path in paths}:
        raise UserError(f"--out {output_dir} is the folder of a score file, whose own results would be lost")
    make_folder(Path(output_dir))
