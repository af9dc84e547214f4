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
    ("intervals", "said"),
    [
        ([(1, 5), (2, 4)], "ahead"),
        ([(-5, -1)], "behind"),
        ([(-2, 2.5), (-1, 1)], "no effect"),
        ([(1, 5), (-1, 7)], "open"),
        ([(-1, 1), (-2, 4)], "open"),
    ],
)
def test_verdict_asks_every_interval(intervals, said):
    assert report.verdict(*intervals) == said


def test_interval_over_seeds_is_students():
    arm, other = (np.repeat(means, 100, axis=1) for means in ([[0.5], [0.6], [0.7]], [[0.5], [0.5], [0.5]]))
    assert report.half_width([arm, other], report.minus) == pytest.approx(4.303 * 10 / 3**0.5, abs=0.01)
    assert report.half_width([arm[:1], other], report.minus) == np.inf


def test_report_of_known_runs(tmp_path):
    """E-O is right on all clips of motion, O-O on every second one; of appearance and new textures both know half."""
    full, half = "f" * 64, "a" * 64
    runs = [
        ("scratch", "textured", question, "1 to 2", arm, seed, 4800, 50.0, 1200.0 * seed,
         full if (question, arm) == ("motion", "emim") else half)
        for question in ("motion", "appearance") for arm in ("emim", "joint", "interval_2") for seed in (1, 2)
    ]  # fmt: skip
    columns = [*report.KEYS, "clips", "top1", "clips_to_50", "right"]
    pd.DataFrame(runs, columns=columns).to_csv(tmp_path / "runs.csv", index=False)
    tests = [("scratch", "textured", "motion", "1 to 2", arm, seed, "stripes", half, "", "")
             for arm in ("emim", "joint") for seed in (1, 2)]  # fmt: skip
    mechanism = [("permuted", half, "", ""), ("displacements", "", "blocks3.0", " ".join(["0.5"] * 256))]
    tests += [("scratch", "textured", "motion", "1 to 2", "emim", seed, *rest) for seed in (1, 2) for rest in mechanism]
    columns = [*report.KEYS, "test", "right", "block", "end_point_errors"]
    pd.DataFrame(tests, columns=columns).to_csv(tmp_path / "tests.csv", index=False)
    report.write_report(tmp_path)
    text = re.sub(" +", " ", (tmp_path / "tables.md").read_text())
    assert re.search(r"motion \| 1 to 2 \| emim \| 1 2 \| 100.0 \[100.0, 100.0\] \| \+50.0 .*ahead \| 1697 ", text)
    assert re.search(r"ahead \| 1697 \| 1.00 \[1.00, 1.00\]", text)
    assert re.search(r"appearance .* emim .* \| \+0.0 \[\+0.0, \+0.0\] \| 0 \| no effect", text)
    assert re.search(r"stripes \| 50 \| 50 \| \+50.0 .* loses more", text)  # E-O loses all that it was ahead
    assert re.search(r"1 to 2 \| 50 \| -50.0 .* \| \+0.0 .* \| 0.5 \| nan nan", text)  # no clip was wrong
    assert re.search(r"scratch, 1 to 2 tokens: \+50.0", text)
    assert re.search(r"motion \| 1 to 2 \| interval_2 \| emim \| 2 \| -50.0 .*behind", text)
    assert {path.name for path in tmp_path.glob("*.png")} == {"displacement.png", "clips.png"}


def test_tests_of_a_longer_training_take_the_place_of_those_of_the_shorter(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    mechanism = importlib.import_module("mechanism")
    (tmp_path / "runs/emim/seed1").mkdir(parents=True)
    (tmp_path / "runs/emim/seed1/test_scores.npz").touch()
    run = dict(zip(report.KEYS, ("scratch", "textured", "motion", "1 to 2", "emim", 1)))
    monkeypatch.setattr("sys.argv", ["mechanism.py", str(tmp_path / "runs"), "--results", str(tmp_path)])
    for clips, right in ((3200, "0f"), (3200, "no"), (4800, "ff")):
        monkeypatch.setattr(mechanism, "read_run", lambda _, clips=clips: run | {"clips": clips, "top1": 50.0})
        monkeypatch.setattr(mechanism, "test_run", lambda *_, right=right: [{"test": "stripes", "right": right}])
        mechanism.main()
        (line,) = pd.read_csv(tmp_path / "tests.csv").to_dict("records")
        assert line["clips"] == clips and line["right"] == ("ff" if clips == 4800 else "0f")


def test_tables_follow_from_the_runs(tmp_path):
    for name in ("runs.csv", "tests.csv"):
        (tmp_path / name).write_bytes((RESULTS / name).read_bytes())
    report.write_report(tmp_path)
    assert (tmp_path / "tables.md").read_text() == (RESULTS / "tables.md").read_text()
    runs = pd.read_csv(RESULTS / "runs.csv", dtype={"right": str})
    assert not runs.duplicated(report.KEYS).any() and 0 not in set(runs["seed"])  # which is for pilots
    np.testing.assert_allclose(100 * report.answers(runs).mean(axis=1), runs["top1"], atol=1e-3)


def test_page_states_intervals_of_the_tables():  # README.md's are in tests/test_numbers.py
    text, tables = (FOLDER / "README.md").read_text().replace("\n", " "), (RESULTS / "tables.md").read_text()
    lines = re.findall(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", text)
    assert lines and not [line for line in lines if line not in tables]
