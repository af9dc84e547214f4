"""Cross-validation: every configuration trained on every fold, and the answers of all folds as those of one test.

``M`` videos, ``V`` views, ``K`` classes.
"""

import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from slowfast.analysis.scores import combine, compare, rescore
from slowfast.analysis.study import Run, Study, build_study, is_finished
from slowfast.datasets.build import build_dataset
from slowfast.datasets.manifest import read_manifest
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, replacing
from slowfast.utils.metrics import METHOD, confusion_matrix
from slowfast.utils.results import SCORES, Scores, load_scores, read_epochs, save_scores, write_json

logger = logging.getLogger(__name__)

HOW_TO_READ = (
    "Answers of the tests of all folds as those of one, every video once. Accuracies in percent with 95 % intervals "
    "over the videos; the difference is to the baseline with the same seed, in percentage points, paired by video. "
    "Minutes are those of the training of all folds, one after the other. Where selected_on_test is yes, checkpoints "
    "were chosen on the videos of the test, and the accuracies are too high."
)


class Arm(NamedTuple):
    """A configuration with a seed, and its run on every fold, by the name of the fold."""

    name: str
    seed: int
    runs: dict[str, Run]


def find_folds(data: str, shots: int = 0) -> dict[str, list[str]]:
    """Return by fold the settings that read the lists that ``prepare_data.py folder`` made in ``data``.

    Raises:
        UserError: there are none, or a video is in two validation lists, or both trained and validated.
    """
    name = f"shots{shots}_fold" if shots else "fold"
    found = [path for ending in ("csv", "txt") for path in Path(data).glob(f"{name}*/val.{ending}")
             if re.fullmatch(rf"{name}[0-9]+", path.parent.name)]  # fmt: skip
    found.sort(key=lambda path: int(path.parent.name.removeprefix(name)))
    if not found:
        made = "; made by tools/prepare_data.py folder --folds" + (f" ... --shots {shots}" if shots else "")
        raise UserError(f"{data} (--data) has no lists {name}1/val.csv or .txt{made}")
    if twice := [path for path in found if path.with_suffix(".csv") in found and path.suffix == ".txt"]:
        raise UserError(f"{twice[0]} is beside a list of videos, val.csv: remove the lists of an earlier call")
    validated: set[str] = set()
    trained: set[str] = set()
    for path in found:
        kind = ("frames" if path.suffix == ".txt" else "video", 0)
        lists = (read_manifest(str(path.with_stem(split)), data, *kind) for split in ("train", "val"))
        train, val = ({record.path for record in records} for records in lists)
        if shared := val & (validated | train):
            problem = f"{len(shared)} of its videos are in another fold or trained on, such as {min(shared)}"
            raise UserError(f"{path}: {problem}; remove the lists of an earlier call")
        validated, trained = validated | val, trained | train
    if lost := trained - validated:
        problem = "%s: %d videos are trained on and never validated, such as %s: is a fold missing?"
        logger.warning(problem, data, len(lost), min(lost))
    return {
        path.parent.name: [
            *("DATA.PATH_TO_DATA_DIR", os.path.abspath(data)),
            *("DATA.LABEL_PATH_TEMPLATE", f"{path.parent.name}/{{}}{path.suffix}"),
            *("DATA.SOURCE", "frames" if path.suffix == ".txt" else "video"),
        ]
        for path in found
    }


def build_arms(
    folds: Mapping[str, Sequence[str]], cfgs: Sequence[str], seeds: Sequence[int], out: str, overrides: Sequence[Any]
) -> list[Arm]:
    """Return the arms of a cross-validation, whose runs are in ``out/FOLD/CONFIGURATION/seedN``."""
    arms: dict[tuple[str, int], Arm] = {}
    for fold, settings in folds.items():
        built = build_study({"table": {"cfgs": cfgs}}, seeds, os.path.join(out, fold), [*overrides, *settings])
        runs = {(run.name, run.seed): run._replace(name=f"{fold} {run.name}") for run in built.runs}
        for name, shared in built.tables["table"].rows.items():
            for seed in seeds:
                arms.setdefault((name, seed), Arm(name, seed, {})).runs[fold] = runs[shared, seed]
    return list(arms.values())


def check_lists(arms: Sequence[Arm]) -> None:
    """Refuse tests of other videos or labels than the lists of the folds have now."""
    from slowfast.engine.test import are_of  # torch takes seconds, for which a wrong key need not wait

    for run in (run for arm in arms for run in arm.runs.values()):
        path = os.path.join(run.folder, SCORES)
        if os.path.isfile(path) and not are_of(path, build_dataset(run.cfg, "test")):
            problem = f"was trained and tested on other videos or labels than {run.cfg.DATA.PATH_TO_DATA_DIR} lists"
            raise UserError(f"{run.folder} {problem}: choose another --out, or remove that folder")


def as_study(arms: Sequence[Arm], out: str) -> Study:
    """Return all runs of the arms, fold by fold, as a study that can be run."""
    runs = {run.folder: run for fold in arms[0].runs for run in (arm.runs[fold] for arm in arms)}
    return Study(out, {}, list(runs.values()))


def pool(parts: Sequence[Scores]) -> Scores:
    """Return the scores of tests of different videos, of the same classes, as those of one test."""
    first = parts[0]
    videos = np.concatenate([part.videos for part in parts])
    if twice := [video for video, count in Counter(videos.tolist()).items() if count > 1]:
        raise UserError(f"{len(twice)} videos were tested in more than one fold, such as {twice[0]} ({first.path})")
    for part in parts[1:]:
        if part.logits.shape[1:] != first.logits.shape[1:] or part.class_names != first.class_names:
            raise UserError(f"{first.path} and {part.path} have other views or classes")
    facts = {key: first.facts[key] for key in ("view_protocol", "ensemble_method") if key in first.facts}
    facts |= {"selected_on_test": any(part.facts.get("selected_on_test") for part in parts), "num_folds": len(parts)}
    facts["bad_videos"] = [bad for part in parts for bad in part.facts.get("bad_videos", [])]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "logits")}
    return replace(first, videos=videos, facts=facts, path="", **arrays)


def write_pooled(folder: str, pooled: Scores) -> dict:
    """Write the files of a test of pooled scores to ``folder``, and the confusion matrix as CSV; return its results."""
    make_folder(Path(folder, "scores"))
    path = os.path.join(folder, "scores", SCORES)  # the files of a test are not written beside its scores
    save_scores(path, pooled, combine([pooled], "mean_probability"))
    results = rescore([path], output_dir=folder)
    names = pooled.class_names or [str(label) for label in range(pooled.logits.shape[2])]
    matrix = confusion_matrix(combine([pooled], pooled.facts["ensemble_method"]), pooled.labels, len(names))
    with replacing(os.path.join(folder, "confusion_matrix.csv")) as file:
        pd.DataFrame(matrix, names, names).to_csv(file, index_label="true class")
    return results | {"scores": path, "class_names": names, "confusion_matrix": matrix.tolist()}


def report(arms: Sequence[Arm], baseline: str, out: str, command: Sequence[str]) -> None:
    """Write the pooled results of every arm whose folds are all finished, and a table of them, to ``out``."""
    results, unfinished = {}, []
    for arm in arms:
        missing = [fold for fold, run in arm.runs.items() if not is_finished(run)]
        if missing:
            unfinished.append(f"{arm.name} seed {arm.seed}: {', '.join(missing)}")
            continue
        pooled = pool([load_scores(os.path.join(run.folder, SCORES)) for run in arm.runs.values()])
        own = write_pooled(os.path.join(out, "pooled", f"{arm.name}_seed{arm.seed}"), pooled)
        results[arm.name, arm.seed] = own | {"minutes": sum(map(_training_minutes, arm.runs.values()))}
    if not results:
        raise UserError(f"no configuration has all its folds finished yet, in {out}: there is nothing to report")
    write_table(results, baseline, out, {"command": shlex.join(command), "not finished": unfinished})


def _training_minutes(run: Run) -> float:
    """Return the length of a training, without the time in which it was interrupted."""
    times = [event["time"] for event in read_epochs(run.folder, "train_epoch")]
    return float(np.median(np.diff(times)) * len(times) / 60) if len(times) > 1 else float("nan")


def write_table(results: Mapping[tuple[str, int], dict], baseline: str, out: str, facts: dict) -> None:
    """Write ``crossval.csv``, ``.md`` and ``.json``: a line for the results of every arm and seed."""
    lines = []
    for (name, seed), own in results.items():
        (low, high), right = own["interval95"]["top1"], round(own["top1"] * own["num_videos"] / 100)
        line = {"config": name, "seed": seed, "right": right, "videos": own["num_videos"], "top1": own["top1"]}
        line |= {"low": low, "high": high, "mean_class": own["mean_class"], "difference": None}
        if name != baseline and (baseline, seed) in results:
            found = compare(results[baseline, seed]["scores"], own["scores"])["top1"]
            line |= {"difference": found["difference"], "difference_low": found["interval95"][0]}
            line["difference_high"] = found["interval95"][1]
        line["selected_on_test"] = "yes" if own["selected_on_test"] else "no"
        lines.append(line | {"minutes": own.get("minutes")})
    table = pd.DataFrame(lines)
    with replacing(os.path.join(out, "crossval.csv")) as file:
        table.to_csv(file, index=False, float_format="%.2f")
    shown = table.drop(columns=["low", "high", "difference_low", "difference_high"], errors="ignore").astype(object)
    shown["top1"] = [f"{line['top1']:.1f} [{line['low']:.1f}, {line['high']:.1f}]" for line in lines]
    shown["difference"] = [
        f"{line['difference']:+.1f} [{line['difference_low']:+.1f}, {line['difference_high']:+.1f}]"
        if line["difference"] is not None
        else ""
        for line in lines
    ]
    facts = {"baseline": baseline, **facts, "protocol": next(iter(results.values()))["protocol"], "intervals": METHOD}
    with replacing(os.path.join(out, "crossval.md")) as file:
        file.write(f"{shown.to_markdown(index=False, floatfmt='.1f', missingval='')}\n\n{HOW_TO_READ}\n\n")
        for key, value in [(key, value) for key, value in facts.items() if value]:
            file.write(f"* {key}: {'; '.join(value) if isinstance(value, list) else value}\n")
    keys = ("class_names", "confusion_matrix")
    matrices = [
        {"config": name, "seed": seed, **{key: own[key] for key in keys}} for (name, seed), own in results.items()
    ]
    write_json(os.path.join(out, "crossval.json"), {**facts, "arms": lines, "confusion_matrices": matrices})
