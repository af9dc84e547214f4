"""Order test: which answers turn into the opposite class when a clip runs backwards."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from slowfast.analysis.crossval import Arm, pool
from slowfast.analysis.scores import combine
from slowfast.analysis.study import is_finished
from slowfast.engine.run import main as run
from slowfast.utils.errors import UserError
from slowfast.utils.files import replacing
from slowfast.utils.results import SCORES, Scores, load_scores


def order_test(arms: Sequence[Arm], pairs: Sequence[str], out: str, report_only: bool = False) -> pd.DataFrame:
    """Test the finished arms backwards and write ``order.csv`` to ``out``: of the clips of some classes, shares.

    A network that sees order answers a reversed clip of ``left`` with ``right``; one without it answers as before.

    Args:
        arms: of a cross-validation.
        pairs: classes that are reversals of each other, ``left=right``.
        out: folder of the table.
        report_only: of the tests that are there, without others.
    """
    lines = []
    for arm in arms:
        folders = [one.folder for one in arm.runs.values()]
        if all(map(is_finished, arm.runs.values())) and (not report_only or all(map(_has_backwards, folders))):
            plain = pool([load_scores(os.path.join(folder, SCORES)) for folder in folders])
            back = pool([_backwards(folder, arm.seed) for folder in folders])
            lines.append({"config": arm.name, "seed": arm.seed, **count(plain, back, pairs)})
    table = pd.DataFrame(lines)
    with replacing(os.path.join(out, "order.csv")) as file:
        table.to_csv(file, index=False, float_format="%.2f")
    return table


def _has_backwards(folder: str) -> bool:
    """Return whether a run has a test with reversed clips of the checkpoint of its plain test."""
    path, plain = os.path.join(folder, "perturb_reverse", SCORES), load_scores(os.path.join(folder, SCORES))
    keys = ("checkpoint", "checkpoint_time")
    return os.path.isfile(path) and all(load_scores(path).facts[key] == plain.facts[key] for key in keys)


def _backwards(folder: str, seed: int) -> Scores:
    """Return the scores of the test of a run with reversed clips, which is made where it is not there yet."""
    if not _has_backwards(folder):
        settings = os.path.join(os.path.dirname(folder), "settings.yaml")
        overrides = ["RNG_SEED", str(seed), "OUTPUT_DIR", os.path.abspath(folder)]
        if run(("test",), "", ["--cfg", settings, *overrides], "reverse"):
            raise UserError(f"{folder} cannot be tested backwards, see above")
    return load_scores(os.path.join(folder, "perturb_reverse", SCORES))


def opposites(pairs: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Return the label of the opposite class of every class in ``pairs``, such as ``left=right``."""
    opposite = {}
    for pair in pairs:
        ends = pair.split("=")
        if len(ends) != 2 or not {*ends} <= {*names}:
            raise UserError(f"--order-test {pair!r} is not A=B of two classes; known: {', '.join(names)}")
        one, other = map(names.index, ends)
        if one == other or {one, other} & opposite.keys():
            raise UserError(f"--order-test {pair!r}: a class is the reversal of one other class")
        opposite |= {one: other, other: one}
    return opposite


def count(plain: Scores, back: Scores, pairs: Sequence[str]) -> dict[str, float]:
    """Return the number of clips of the classes in ``pairs`` and shares in percent, with 95 % Wilson intervals.

    ``right``: of the plain clips, ``turned``: of the reversed ones, answered as the opposite class, ``kept``: answered
    as their own class all the same. Both score sets are of the same clips in the same order.
    """
    opposite = opposites(pairs, plain.class_names or [])
    chosen = np.isin(plain.labels, [*opposite])
    labels = plain.labels[chosen]
    scores = [combine([one], one.facts["ensemble_method"])[chosen] for one in (plain, back)]
    answers = [np.where(np.isnan(one).any(axis=1), -1, one.argmax(axis=1)) for one in scores]
    turned = np.array([opposite[label] for label in labels])
    found = {"clips": len(labels)}
    for key, hits in (
        ("right", answers[0] == labels),
        ("turned", answers[1] == turned),
        ("kept", answers[1] == labels),
    ):
        low, high = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
        found |= {key: 100 * hits.mean(), f"{key}_low": 100 * low, f"{key}_high": 100 * high}
    return found
