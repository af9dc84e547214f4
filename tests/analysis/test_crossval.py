"""Cross-validation: folds that are sound, answers pooled once, and a run of it in miniature."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers_engine import load_tool

from slowfast.analysis import study
from slowfast.analysis.crossval import find_folds, pool, write_pooled, write_table
from slowfast.analysis.order import count
from slowfast.engine.run import main
from slowfast.utils.errors import UserError
from slowfast.utils.metrics import accuracy_intervals
from slowfast.utils.results import Scores, load_scores

NAMES = ["left", "right", "up", "down", "square"]


def scores(answers, labels, first=0):
    """Return scores of videos whose prediction is known."""
    videos = np.array([f"video{first + i}" for i in range(len(labels))])
    facts = {"ensemble_method": "sum_logits", "view_protocol": "invented"}
    return Scores(videos, np.array(labels), np.eye(5)[answers][:, None], NAMES, facts)


@pytest.fixture
def lists(tmp_path):
    """Write lists by name into a folder of data, and return the folder."""

    def write(**names):
        for name, videos in names.items():
            path = tmp_path / "data" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".csv").write_text("".join(f"{video}.mp4,{i % 2}\n" for i, video in enumerate(videos)))
        return str(tmp_path / "data")

    return write


def test_folds_are_found_in_the_order_of_their_numbers(lists, caplog):
    data = lists(**{f"fold{i}__{s}": v for i in (10, 2, 1) for s, v in (("train", ["a", "b"]), ("val", [f"c{i}"]))})
    lists(shots2_fold1__train=["a"], shots2_fold1__val=["c"])
    assert [*find_folds(data)] == ["fold1", "fold2", "fold10"] and [*find_folds(data, 2)] == ["shots2_fold1"]
    assert "DATA.SOURCE video" in " ".join(find_folds(data)["fold2"])
    assert "2 videos are trained on and never validated" in caplog.text  # here a and b
    Path(data, "fold1/val.csv~").touch()  # of an editor
    assert len(find_folds(data)) == 3


def test_lists_of_frames_beside_those_of_videos_are_refused(lists):
    data = lists(fold1__train=["a"], fold1__val=["b"])
    Path(data, "fold1/val.txt").write_text("b 8 1\n")
    with pytest.raises(UserError, match="fold1/val.txt is beside a list of videos, val.csv"):
        find_folds(data)


@pytest.mark.parametrize(
    ("names", "shots", "message"),
    [
        ({"train": ["a"], "val": ["b"]}, 0, r"has no lists fold1/val.csv or .txt; made by .* --folds$"),
        ({"fold1__train": ["a"], "fold1__val": ["b"]}, 3, r"has no lists shots3_fold1/.*--shots 3"),
        ({"fold1__train": ["a", "b"], "fold1__val": ["b"]}, 0, "1 of its videos are .* trained on, such as .*b.mp4"),
        (
            {"fold1__train": ["a"], "fold1__val": ["b"], "fold2__train": ["a"], "fold2__val": ["b"]},
            0,
            "fold2/val.csv: 1 of its videos are in another fold",
        ),
    ],
)
def test_folds_that_would_tell_too_much_are_refused(lists, names, shots, message):
    with pytest.raises(UserError, match=message):
        find_folds(lists(**names), shots)


def test_every_answer_counts_once():
    parts = [scores([0, 1, 2], [0, 1, 1]), scores([4], [4], first=3)]
    pooled = pool(parts)
    assert pooled.videos.tolist() == [f"video{i}" for i in range(4)] and pooled.facts["num_folds"] == 2
    assert (pooled.logits[:, 0].argmax(1) == pooled.labels).tolist() == [True, True, False, True]
    with pytest.raises(UserError, match="1 videos were tested in more than one fold, such as video2"):
        pool([parts[0], scores([4], [4], first=2)])


def test_order_is_seen_by_networks_that_have_it_alone():
    labels = [0, 1, 2, 3, 4]
    plain, turned = scores(labels, labels), scores([1, 0, 3, 2, 0], labels)
    pairs = ["left=right", "up=down"]
    sees, blind = count(plain, turned, pairs), count(plain, plain, pairs)
    assert (sees["clips"], sees["right"], sees["turned"], sees["kept"]) == (4, 100, 100, 0)
    assert (blind["right"], blind["turned"], blind["kept"]) == (100, 0, 100)
    assert blind["turned_low"] == 0 < blind["turned_high"] < 60
    with pytest.raises(UserError, match="--order-test 'up=over' is not A=B of two classes; known: left, right"):
        count(plain, turned, ["up=over"])
    with pytest.raises(UserError, match="'left=up': a class is the reversal of one other class"):
        count(plain, turned, ["left=right", "left=up"])
    plain.logits[:2], turned.logits[:2] = np.nan, np.nan  # without a score no answer is right
    half = count(plain, turned, pairs)
    assert (half["right"], half["turned"], half["kept"]) == (50, 50, 0)


def test_the_table_has_pooled_accuracies_and_paired_differences(tmp_path):
    labels = [0, 1, 2, 3, 4] * 4
    answers = {"a": [0] * 20, "b": labels, "c": labels[:10] + [0] * 10}
    results = {
        (name, 0): write_pooled(f"{tmp_path}/{name}", pool([scores(own, labels)])) for name, own in answers.items()
    }
    write_table(results, "a", str(tmp_path), {"command": "none"})
    table = pd.read_csv(tmp_path / "crossval.csv", index_col="config")
    assert table.right.tolist() == [4, 20, 12] and table.videos.tolist() == 3 * [20]
    assert table.loc[["b", "c"], "difference"].tolist() == [80, 40] and np.isnan(table.difference["a"])
    assert (table.low < table.top1 + 0.01).all() and table.high["b"] == 100 > table.low["b"]
    interval = accuracy_intervals(np.eye(5)[answers["c"]], np.array(labels))["top1"]
    assert table.loc["c", ["low", "high"]].tolist() == pytest.approx(interval, abs=0.01)
    matrices = json.loads((tmp_path / "crossval.json").read_text())["confusion_matrices"]
    for name, content in zip(answers, matrices):
        read = pd.read_csv(tmp_path / name / "confusion_matrix.csv", index_col=0)
        assert read.to_numpy().tolist() == content["confusion_matrix"] and read.index.tolist() == NAMES
        assert np.trace(read) == table.right[name] and (tmp_path / name / "confusion_matrix.png").is_file()
    assert "+80.0 [" in (tmp_path / "crossval.md").read_text()


@pytest.fixture
def in_process(monkeypatch):
    """Train the runs of a study here, for new processes import torch anew; note which."""
    started = []

    def run_missing(built, jobs):
        for run in [run for run in built.runs if not study.is_finished(run)]:
            started.append(str(run))
            folder = Path(run.folder)
            folder.mkdir(parents=True)
            (folder.parent / "settings.yaml").write_text(run.cfg.dump())
            arguments = ["--cfg", str(folder.parent / "settings.yaml"), "OUTPUT_DIR", run.folder]
            assert main(("train", "test"), "", arguments) == 0
        return []

    monkeypatch.setattr(study, "run_missing", run_missing)
    return started


def test_every_fold_is_trained_once_and_tested_both_ways(tmp_path, settings, data_dir, in_process, monkeypatch):
    lines = [f"{data_dir}/{line}\n" for line in (data_dir / "train.txt").read_text().splitlines()[:12]]
    for fold in range(2):
        folder = tmp_path / f"data/fold{fold + 1}"
        folder.mkdir(parents=True)
        (folder / "val.txt").write_text("".join(lines[fold::2]))
        (folder / "train.txt").write_text("".join(lines[1 - fold :: 2]))
    names = (data_dir / "classes.txt").read_text()
    (tmp_path / "data/classes.txt").write_text(names)
    settings["SOLVER"]["MAX_EPOCH"], settings["AUG"]["NUM_SAMPLE"], settings["TRAIN"]["BATCH_SIZE"] = 1, 1, 6
    settings["TEST"] |= {"NUM_ENSEMBLE_VIEWS": 1, "NUM_SPATIAL_CROPS": 1, "CHECKPOINT": "last"}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--data", tmp_path / "data", "--cfgs", tmp_path / "one.yaml", "--out", tmp_path / "out"]
    arguments += ["DEVICE", "cpu", "--order-test", "=".join(names.splitlines()[:2])]
    monkeypatch.setattr("sys.argv", ["crossval.py", *map(str, arguments)])
    tool = load_tool("crossval")
    monkeypatch.setattr("sys.argv", ["crossval.py", *map(str, arguments), "left=rihgt"])
    with pytest.raises(UserError, match="--order-test 'left=rihgt' is not A=B of two classes"):
        tool.main()
    assert not in_process  # told before anything is trained
    monkeypatch.setattr("sys.argv", ["crossval.py", *map(str, arguments)])
    assert tool.main() == tool.main() == 0
    assert in_process == ["fold1 one seed 0", "fold2 one seed 0"]
    own = load_scores(str(tmp_path / "out/pooled/one_seed0/scores/test_scores.npz"))
    assert {*own.videos} == {line.split()[0] for line in lines} and len(own.videos) == 12
    (line,) = pd.read_csv(tmp_path / "out/crossval.csv").to_dict("records")
    assert line["right"] == (own.logits[:, 0].argmax(1) == own.labels).sum()
    assert pd.read_csv(tmp_path / "out/order.csv").config.tolist() == ["one"]
    scores_of_fold = tmp_path / "out/fold2/one/seed0/perturb_reverse/test_scores.npz"
    scores_of_fold.unlink()
    monkeypatch.setattr("sys.argv", ["crossval.py", *map(str, arguments), "--report-only"])
    assert tool.main() == 0 and not scores_of_fold.exists()
    # The lists are made anew, with another label: what was trained is of the old ones.
    path = tmp_path / "data/fold1/val.txt"
    path.write_text(path.read_text()[:-2] + ("0\n" if path.read_text()[-2] != "0" else "1\n"))
    with pytest.raises(UserError, match="fold1/one/seed0 was trained and tested on other videos or labels"):
        tool.main()
