"""What the folder of a run holds already: nothing, a part of it, all of it, or another run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from slowfast.analysis.study.plan import Run, relevant_settings
from slowfast.engine.checkpoint import list_checkpoints
from slowfast.engine.results import read_results
from slowfast.utils.files import read_text
from slowfast.utils.logging import read_events


def check_folders(runs: Sequence[Run]) -> None:
    """Compare what lies in the folders of the runs with what is asked for.

    Raises:
        ValueError: a folder holds a run with other settings, naming them and what to do.
    """
    for run in runs:
        results = read_results(run.folder)
        dumped = results["config"] if results else _stored_configuration(run.folder)
        if dumped is None:
            continue
        there, asked = relevant_settings(dumped), run.settings
        keys = [key for key in sorted(there | asked) if there.get(key) != asked.get(key)]
        if keys:
            differing = "; ".join(f"{key} is {there.get(key)!r} there and {asked.get(key)!r} here" for key in keys[:5])
            more = f"; and {len(keys) - 5} more keys" if len(keys) > 5 else ""
            raise ValueError(
                f"{run.folder} holds a run with other settings: {differing}{more}. Choose another --out, give the "
                "settings as they were, or remove that folder to run it again"
            )


def is_finished(run: Run) -> bool:
    """Return whether the run is trained to its end and tested; its settings are those of ``check_folders``."""
    results = read_results(run.folder)
    if results is None or relevant_settings(results["config"]) != run.settings:
        return False
    if run.settings["TRAIN.ENABLE"] and epochs_done(run) < run.settings["SOLVER.MAX_EPOCH"]:
        return False
    # A test in the middle of the training was of another checkpoint. Results without checkpoints are believed.
    path = results["checkpoint"]
    return not os.path.isfile(path) or os.path.getmtime(path) == results["checkpoint_time"]


def epochs_done(run: Run) -> int:
    """Return how many epochs of a run are trained and, where validation is due, validated."""
    trained = max((event["epoch"] for event in read_events(run.folder, "train_epoch")), default=0)
    validated = max((event["epoch"] for event in read_events(run.folder, "val")), default=0)
    # The last epoch is always validated.
    return trained if validated >= trained or trained < run.settings["SOLVER.MAX_EPOCH"] else trained - 1


def _stored_configuration(folder: str) -> str | None:
    """Return the configuration of a run that has begun to train; one that failed before that has nothing to lose."""
    return read_text(os.path.join(folder, "config.yaml")) if list_checkpoints(folder) else None
