"""From saved scores, without a model: every metric and picture again, ensembles of runs, comparisons of two."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from slowfast.engine.results import measure, write_json, write_results
from slowfast.engine.scores import Scores, align, combine, load_scores
from slowfast.utils.intervals import METHOD, paired_differences
from slowfast.utils.metrics import ENSEMBLE_METHODS, accuracy_summary

COMPARISON = "comparison.json"


def rescore(
    paths: Sequence[str],
    method: str | None = None,
    weights: Sequence[float] | None = None,
    output_dir: str | None = None,
) -> dict:
    """Compute the results of one score file, or of an ensemble of several.

    Args:
        paths: score files, of the same videos in any order; their numbers of views may differ.
        method: a name of ``metrics.ENSEMBLE_METHODS``; None is that of the files.
        weights: of the runs, see ``scores.combine``.
        output_dir: where to write ``test_results.json``, ``per_class_accuracy.csv`` and ``confusion_matrix.png``;
            None writes nothing.

    Returns:
        The content of ``test_results.json``; ``runs`` has file, weight, protocol and accuracies of each file.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is no score file, the files do not fit together, or an argument is wrong.
    """
    runs = align([load_scores(path) for path in paths])
    method = _common_method(runs) if method is None else method
    scores = combine(runs, method, weights)
    members = [
        {
            "file": run.path,
            "weight": 1.0 if weights is None else weights[index],
            "protocol": _protocol(run, method),
            "checkpoint": run.facts.get("checkpoint"),
            **accuracy_summary(combine([run], method), run.labels),
        }
        for index, run in enumerate(runs)
    ]
    protocols = list(dict.fromkeys(member["protocol"] for member in members))
    results = measure(
        scores,
        runs[0].labels,
        views_per_video=sum(run.logits.shape[1] for run in runs),
        bad_videos=_bad_videos(runs, scores),
        protocol=(f"ensemble of {len(runs)}: " if len(runs) > 1 else "") + " + ".join(protocols),
        ensemble_method=method,
        runs=members,
    )
    if output_dir is not None:
        _make_folder(output_dir, paths)
        names = next((run.class_names for run in runs if run.class_names), None)
        write_results(output_dir, results, scores, runs[0].labels, names)
    return results


def compare(path_a: str, path_b: str, method: str | None = None, output_dir: str | None = None) -> dict:
    """Compare two score files of the same videos; differences are in percentage points, B minus A.

    Args:
        path_a: score file A.
        path_b: score file B.
        method: a name of ``metrics.ENSEMBLE_METHODS`` for both; None leaves each its own.
        output_dir: where to write ``comparison.json``; None writes nothing.

    Returns:
        For top1, top5 and mean_class: ``a``, ``b``, ``difference`` and its ``interval95`` [low, high].

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: as ``rescore``.
    """
    runs = align([load_scores(path) for path in (path_a, path_b)])
    scores = [combine([run], method or _common_method([run])) for run in runs]
    labels = runs[0].labels
    accuracy_a, accuracy_b = (accuracy_summary(each, labels) for each in scores)
    found = {
        "file_a": path_a,
        "file_b": path_b,
        "num_videos": len(labels),
        "interval_method": METHOD,
        **{
            name: {"a": accuracy_a[name], "b": accuracy_b[name], **difference}
            for name, difference in paired_differences(*scores, labels).items()
        },
    }
    if output_dir is not None:
        _make_folder(output_dir, (path_a, path_b))
        write_json(os.path.join(output_dir, COMPARISON), found)
    return found


def comparison_line(name: str, found: dict) -> str:
    """Return the difference of one accuracy, an entry of what ``compare`` returns, as a line of text."""
    low, high = found["interval95"]
    verdict = "B is better" if low > 0 else "A is better" if high < 0 else "the difference may be chance"
    return (
        f"{name}: A {found['a']:.2f} %, B {found['b']:.2f} %, B - A {found['difference']:+.2f} points, "
        f"95 % interval [{low:+.2f}, {high:+.2f}]: {verdict}"
    )


def _common_method(runs: Sequence[Scores]) -> str:
    methods = {run.path: run.facts.get("ensemble_method") for run in runs}
    if len(set(methods.values())) > 1 or None in methods.values():
        found = ", ".join(f"{path}: {method}" for path, method in methods.items())
        raise ValueError(f"the ensemble method is not clear ({found}): give --method {' | '.join(ENSEMBLE_METHODS)}")
    return next(iter(methods.values()))


def _protocol(run: Scores, method: str) -> str:
    return f"{run.facts.get('view_protocol', f'{run.logits.shape[1]} views')}, {method}"


def _bad_videos(runs: Sequence[Scores], scores: np.ndarray) -> list[dict]:
    """Return the videos without a score, with the reason where a file knows it."""
    known = [bad for run in runs for bad in run.facts.get("bad_videos", [])]
    found = {}
    for video in runs[0].videos[np.isnan(scores).any(axis=1)].tolist():
        # A file has full paths here, so that the folder can be found.
        named = [bad for bad in known if bad["path"] == video or bad["path"].endswith(f"/{video}")]
        found[video] = named[0] if named else {"path": video, "reason": "no score in the score file"}
    return list(found.values())


def _make_folder(output_dir: str, paths: Sequence[str]) -> None:
    inputs = {os.path.realpath(os.path.dirname(path) or ".") for path in paths}
    if os.path.realpath(output_dir) in inputs:
        raise ValueError(f"--out {output_dir} is the folder of a score file, whose own results would be lost")
    try:
        os.makedirs(output_dir, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {output_dir} cannot be made: {error.strerror}") from error
