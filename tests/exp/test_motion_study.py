"""The motion study: its statistics, and that tables, plots and pages say what its runs found."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "exp" / "motion_study"
RESULTS = FOLDER / "results"
_spec = importlib.util.spec_from_file_location("report", FOLDER / "report.py")
report = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report)


def test_clips_to_an_accuracy_are_interpolated_and_unknown_if_it_is_not_reached():
    assert report.clips_to(50, [0, 400, 800], [0, 25, 75]) == 600
    assert report.clips_to(80, [0, 400, 800], [0, 25, 75]) is None


def test_interval_grows_with_what_differs_between_seeds_and_between_videos():
    rng = np.random.default_rng(0)
    same = np.tile(rng.random(256) < 0.5, (3, 1))  # seeds agree on every video
    split = np.repeat([[0.0], [0.5], [1.0]], 256, axis=1)  # videos agree in every seed
    by_videos, by_seeds = report.resampled([same]), report.resampled([split])
    assert by_videos[0] == 100 * same.mean() and by_videos[1] < by_videos[0] < by_videos[2]
    assert 10 < by_videos[2] - by_videos[1] < 14  # twice 1.96 standard errors of 256 videos
    assert by_seeds == (50.0, 0.0, 100.0)
    assert report.resampled([same, same], report.minus) == (0.0, 0.0, 0.0)  # paired by seed and by video


@pytest.mark.parametrize(
    ("interval", "said"), [((1, 5), "ahead"), ((-5, -1), "behind"), ((-2, 2.5), "no effect"), ((-2, 4), "open")]
)
def test_verdict(interval, said):
    assert report.verdict(*interval) == said


def test_tables_follow_from_the_runs(tmp_path):
    (tmp_path / "runs.csv").write_bytes((RESULTS / "runs.csv").read_bytes())
    report.write_report(tmp_path)
    assert (tmp_path / "tables.md").read_text() == (RESULTS / "tables.md").read_text()
    runs = pd.read_csv(RESULTS / "runs.csv", dtype={"right": str})
    assert not runs.duplicated(report.KEYS).any() and 0 not in set(runs["seed"])  # which is for pilots
    np.testing.assert_allclose(100 * report.answers(runs).mean(axis=1), runs["top1"], atol=1e-3)


@pytest.mark.parametrize("page", ["README.md", "exp/motion_study/README.md"])
def test_pages_state_intervals_of_the_tables(page):
    text, tables = (ROOT / page).read_text().replace("\n", " "), (RESULTS / "tables.md").read_text()
    lines = re.findall(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", text)
    assert lines and not [line for line in lines if line not in tables]
