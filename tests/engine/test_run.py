"""Whole runs: training, test, results, and what stops them."""

import csv
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_engine import ROOT, results, run_tool

from slowfast.engine.run import main
from slowfast.utils.logging import read_events

BOTH = ("train", "test")
ONE_EPOCH = ("SOLVER.MAX_EPOCH", 1)


def test_a_run_leaves_what_is_needed_to_read_and_repeat_it(run, data_dir, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, board = tmp_path / "run", ("TENSORBOARD.ENABLE", True)
    # Tasks can be switched off; a line of the log that was cut off by a crash does no harm.
    assert run(*board, *ONE_EPOCH, "TEST.ENABLE", False, tasks=BOTH).status == 0
    assert not (out / "test_results.json").exists()
    with open(out / "log.jsonl", "a") as file:
        file.write('{"event": "train_ep')
    first = run(*board, tasks=BOTH)
    assert first.status == 0
    for words in ("world size 1", "24 training and 17 validation", "parameters", "GFLOPs", "learning rate 0.001"):
        assert words in first.out
    assert "mixed clips are right with either class, by chance about 16.7 %" in first.out
    found = results(out)
    assert found["num_videos"] == 17 and found["num_views"] == 17 * 6 and found["bad_videos"] == []
    assert 0 <= found["top1"] <= found["top5"] <= 100
    assert found["protocol"].startswith("4 frames x 2 clips x 3 crops, 32x32 px")
    assert found["checkpoint"].endswith("best.pyth") and "MAX_EPOCH: 2" in found.pop("config")
    with open(out / "per_class_accuracy.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and sum(int(row["num_videos"]) for row in rows) == 17
    assert rows[0]["class"] and not rows[0]["class"].isdigit()
    for name in ("confusion_matrix.png", "learning_curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    epochs = read_events(str(out), "train_epoch")
    assert [event["epoch"] for event in epochs] == [1, 2]
    assert [event["num_videos"] for event in read_events(str(out), "val")] == [17, 17]
    versions = json.loads((out / "environment.json").read_text())["versions"]
    assert torch.__version__.startswith(versions["torch"])
    drawn = EventAccumulator(str(out / "tensorboard"))
    drawn.Reload()
    losses = [scalar.value for scalar in drawn.Scalars("train_epoch/loss")]
    assert losses == pytest.approx([event["loss"] for event in epochs], rel=1e-5)
    (scalar,) = drawn.Scalars("test/mean_class")
    assert scalar.step == 6 and scalar.value == pytest.approx(found["mean_class"])

    # The same command again: nothing is trained or tested a second time.
    before = (out / "test_results.json").stat().st_mtime_ns
    again = run(*board, tasks=BOTH)
    assert again.status == 0 and "training is already finished: 2 epochs" in again.out and "already tested" in again.out
    assert (out / "test_results.json").stat().st_mtime_ns == before
    # A test alone always runs, and gives the same numbers; other videos or labels are tested, too.
    assert run(*board, "TRAIN.ENABLE", False, tasks=BOTH).status == 0
    assert (out / "test_results.json").stat().st_mtime_ns > before
    assert {**results(out), "config": 0} == {**found, "config": 0}
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data/test.txt").write_text("".join((data_dir / "val.txt").read_text().splitlines(True)[:5]))
    other = run(*board, "DATA.PATH_TO_DATA_DIR", tmp_path / "data", tasks=BOTH)
    assert "already tested" not in other.out and results(out)["num_videos"] == 5
    (tmp_path / "data/test.txt").unlink()
    assert "already tested" not in run(*board, "DATA.PATH_TO_DATA_DIR", tmp_path / "data", tasks=BOTH).out
    assert results(out)["num_videos"] == 17


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (["DATA.PATH_TO_DATA_DIR", "nowhere"], [f"{ROOT}/nowhere/val.txt does not exist"]),
        (["MODEL.NUM_CLASSES", 5], ["val.txt:1: label", "MODEL.NUM_CLASSES is 5"]),
        (["MODEL.NUM_CLASSES", 13], ["12 class names, MODEL.NUM_CLASSES is 13"]),
        (["SOLVER.BASE_RL", 1], ["unknown key SOLVER.BASE_RL; did you mean SOLVER.BASE_LR"]),
        (["SOLVER.MAX_EPOCH"], ["KEY VALUE pairs"]),
        (["EMIM.WINDOW", "[4, 7]"], ["EMIM.WINDOW", "stage 3", "odd", "found 4"]),
        (["TRAIN.BATCH_SIZE", 100], ["TRAIN.BATCH_SIZE is 100", "up to 24 (the training videos)"]),
        (["TRAIN.PRECISION", "fp8"], ["TRAIN.PRECISION is 'fp8'; allowed: auto | fp32 | bf16 | fp16"]),
        (["TRAIN.MICRO_BATCH_SIZE", "auto"], ["allowed on a CPU: a number of clips"]),
        (["SOLVER.COSINE_END_LR", 0.1], ["SOLVER.COSINE_END_LR 0.1 is above SOLVER.BASE_LR 0.001"]),
        (["TRAIN.EVAL_VIEWS", "[2, 2]"], ["TRAIN.EVAL_VIEWS", "allowed: 2 values, at least 1 and 1 (centre) | 3"]),
        (["TEST.CHECKPOINT", 3], ["TEST.CHECKPOINT is 3, but SOLVER.MAX_EPOCH 2"]),
        (["TEST.CHECKPOINT", "newest"], ["TEST.CHECKPOINT is 'newest'; allowed: best or last or at least 1"]),
        (["TEST.NUM_SPATIAL_CROPS", 2], ["TEST.NUM_SPATIAL_CROPS", "2", "allowed: 1 (centre) | 3"]),
        (["TRAIN.ENABLE", False, "TEST.ENABLE", False], ["there is nothing to do"]),
        (["SOLVER.MAX_EPOCH=3"], ["KEY VALUE pairs; no = between them"]),
        (["RNG_SEED", 10**30], ["RNG_SEED", "allowed: at least 0 and at most"]),
        (["MODEL.CHECKPOINT_NUM", "[1]"], ["MODEL.CHECKPOINT_NUM is [1]; allowed: 4 values"]),
        (["DATA.LABEL_PATH_TEMPLATE", "{}_{}.txt"], ["DATA.LABEL_PATH_TEMPLATE", "needs one {}"]),
        (["DATA.CLASS_NAMES_FILE", "/tmp"], ["/tmp is a folder: DATA.CLASS_NAMES_FILE"]),
        (["TEST.WEIGHTS", "ema"], ["SOLVER.EMA_DECAY is 0"]),
        (["TEST.CHECKPOINT_FILE_PATH", "/tmp/x.pth"], ["TEST.CHECKPOINT_FILE_PATH is /tmp/x.pth"]),
        (["MODEL.PRETRAINED", "no.pth"], ["MODEL.PRETRAINED", "no.pth", "docs/weights.md"]),
        (["OUTPUT_DIR", "/proc/run"], ["OUTPUT_DIR /proc/run cannot be made"]),
        (["TENSORBOARD.HISTOGRAM_PERIOD", 1], ["but TENSORBOARD.ENABLE is False"]),
        (["WANDB.ENABLE", True], ["needs WANDB.PROJECT" if importlib.util.find_spec("wandb") else "pip install wandb"]),
    ],
)
def test_mistakes_end_with_one_line_and_a_status(run, settings, messages):
    refused = run(*settings, tasks=BOTH)
    assert refused.status == 2 and "Traceback" not in refused.err
    assert all(message in refused.err for message in messages), refused.err


def test_classes_are_counted_where_their_number_is_not_set(run, tmp_path, data_dir):
    unset = ("MODEL.NUM_CLASSES", 0, *ONE_EPOCH)
    named = run(*unset, tasks=BOTH)
    assert named.status == 0 and "MODEL.NUM_CLASSES is 12: the number of class names" in named.out
    assert "NUM_CLASSES: 12" in (tmp_path / "run" / "config.yaml").read_text() and results(tmp_path / "run")["config"]
    # The same as where it is set, as a check: the run is finished.
    assert "already tested" in run("MODEL.NUM_CLASSES", 12, *ONE_EPOCH, tasks=BOTH).out

    lists = tmp_path / "lists"
    lists.mkdir()
    for split, label in (("train", 3), ("val", 8)):
        video = (data_dir / f"{split}.txt").read_text().split()[0]
        (lists / f"{split}.txt").write_text(f"{video} 6 {label}\n" * 2)
    unnamed = ("DATA.PATH_TO_DATA_DIR", lists, "DATA.PATH_PREFIX", data_dir, "OUTPUT_DIR", tmp_path / "new")
    assert "MODEL.NUM_CLASSES is 9: the largest label" in run(*unset, *unnamed, "--dry-run").out
    (lists / "classes.txt").write_text("a\nb\n")
    refused = run(*unset, *unnamed)
    assert refused.status == 2 and "train.txt:1: label 3 is outside 0 to 1" in refused.err


def test_classes_belong_to_the_weights(run, tmp_path):
    assert run(*ONE_EPOCH).status == 0
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(12)))
    refused = run("DATA.CLASS_NAMES_FILE", names, tasks=("test",))
    assert refused.status == 2 and "other class names or another order" in refused.err
    best = tmp_path / "run" / "checkpoints" / "best.pyth"
    fine = run("OUTPUT_DIR", tmp_path / "fine", *ONE_EPOCH, "MODEL.PRETRAINED", best)
    assert fine.status == 0 and " tensors loaded\n" in fine.out  # nothing is said of what is not
    assert "its classifier" not in fine.out
    start = ("OUTPUT_DIR", tmp_path / "renamed", "MODEL.PRETRAINED", best, "DATA.CLASS_NAMES_FILE", names)
    assert "its classifier is of other class names or another order: class 0 is" in run(*ONE_EPOCH, *start).out


def test_the_checkpoint_that_is_tested_and_whether_it_was_chosen_on_the_test_videos(run, tmp_path, data_dir):
    lists, kept = shutil.copytree(data_dir, tmp_path / "lists"), tmp_path / "run" / "checkpoints"
    assert run("SOLVER.MAX_EPOCH", 3).status == 0

    def test(*settings):
        tested = run("DATA.PATH_TO_DATA_DIR", lists, "SOLVER.MAX_EPOCH", 3, *settings, tasks=("test",))
        found = results(tmp_path / "run") if tested.status == 0 else {"checkpoint": "", "selected_on_test": None}
        assert (
            ("TOO HIGH" in tested.out)
            == ("on which this checkpoint was chosen" in tested.out)
            == bool(found["selected_on_test"])
        )
        return Path(found["checkpoint"]).name, found["selected_on_test"], tested.err

    assert test()[:2] == ("best.pyth", True)
    assert test("TEST.CHECKPOINT", "last")[:2] == ("epoch_00003.pyth", False)
    assert test("TEST.CHECKPOINT", 2)[:2] == ("epoch_00002.pyth", False)
    gone = test("TEST.CHECKPOINT", 1)[2]
    assert "TEST.CHECKPOINT is 1, but" in gone and "only epoch_00003.pyth, epoch_00002.pyth, best.pyth" in gone
    # A list of its own: of the same videos, in another order and without one; of others.
    (lists / "test.txt").write_text("\n".join((lists / "val.txt").read_text().splitlines()[:0:-1]))
    assert test()[:2] == ("best.pyth", True)
    shutil.copy(lists / "train.txt", lists / "test.txt")
    assert test()[:2] == ("best.pyth", False)
    (kept / "best.pyth").unlink()
    assert "has no best.pyth" in test()[2]


def test_training_keeps_the_checkpoint_that_is_to_be_tested(run, tmp_path):
    settings = (
        "SOLVER.MAX_EPOCH",
        4,
        "TRAIN.EVAL_PERIOD",
        4,
        "TRAIN.CHECKPOINT_PERIOD",
        2,
        "TRAIN.CHECKPOINT_STEPS",
        2,
    )
    assert run(*settings, "TEST.CHECKPOINT", 1, tasks=BOTH).status == 0
    found = results(tmp_path / "run")
    assert found["epoch"] == 1 and found["checkpoint"].endswith("epoch_00001.pyth") and not found["selected_on_test"]


def test_a_run_that_validation_has_ended_is_chosen_on_its_videos(run, tmp_path):
    settings = ("SOLVER.MAX_EPOCH", 9, "SOLVER.STOP_AFTER", 1, "TEST.CHECKPOINT", "last", "SOLVER.BASE_LR", 1e-5)
    assert run(*settings, tasks=BOTH).status == 0
    found = results(tmp_path / "run")
    assert found["epoch"] < 9 and found["selected_on_test"] and "epoch_0" in found["checkpoint"]


def test_validation_of_several_views_is_what_a_test_of_them_gives(run, tmp_path):
    ran = run(*ONE_EPOCH, "TRAIN.EVAL_VIEWS", "[2, 3]", tasks=BOTH)
    assert ran.status == 0 and "(17 videos x 2 clips x 3 crops)" in ran.out
    (val,), found = read_events(str(tmp_path / "run"), "val"), results(tmp_path / "run")
    assert all(val[name] == found[name] for name in ("top1", "top5", "mean_class"))
    with np.load(tmp_path / "run" / "test_scores.npz") as saved:
        scores, logits, labels = saved["scores"], saved["logits"].astype(float), saved["labels"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(scores, probabilities.mean(axis=1), rtol=1e-12)
    assert val["loss"] == pytest.approx(-np.log(probabilities[np.arange(17), :, labels]).mean())
    with open(tmp_path / "run" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    predictions = logits.sum(axis=1).argmax(axis=1)  # by DATA.ENSEMBLE_METHOD
    assert [int(row["prediction"]) for row in rows] == predictions.tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(scores.max(axis=1), abs=1e-6)


def test_bad_videos_are_skipped_in_training_and_never_replaced_in_testing(run, tmp_path, data_dir):
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    victims = {split: (broken / f"{split}.txt").read_text().split()[0] for split in ("train", "val")}
    (broken / victims["train"] / "00002.jpg").unlink()
    (broken / victims["val"] / "00003.jpg").write_bytes(b"no image")
    settings = ("DATA.PATH_TO_DATA_DIR", broken, *ONE_EPOCH, "DATA.NUM_FRAMES", 6)

    refused = run(*settings, "DATA.MAX_BAD_SHARE", 0.01)
    assert refused.status == 2 and "1 of 24 training videos cannot be decoded" in refused.err
    trained = run(*settings)
    assert trained.status == 0 and "1 bad videos" in trained.out and victims["train"] in trained.out
    refused = run(*settings, tasks=("test",))
    assert refused.status == 2 and victims["val"] in refused.err and "TEST.ON_BAD_VIDEO count_wrong" in refused.err
    assert run(*settings, "TEST.ON_BAD_VIDEO", "count_wrong", tasks=("test",)).status == 0
    found = results(tmp_path / "run")
    assert [bad["path"] for bad in found["bad_videos"]] == [str(broken / victims["val"])]
    assert found["num_videos"] == 17

    for line in (broken / "val.txt").read_text().splitlines():
        (broken / line.split()[0] / "00003.jpg").write_bytes(b"no image")
    refused = run(*settings, "OUTPUT_DIR", tmp_path / "new")
    assert refused.status == 2 and "none of the 17 videos can be decoded" in refused.err


def test_missing_files_are_found_before_the_training(run, tmp_path, data_dir):
    lists = tmp_path / "lists"
    lists.mkdir()
    names = ("DATA.CLASS_NAMES_FILE", data_dir / "classes.txt")
    settings = ("DATA.PATH_TO_DATA_DIR", lists, "DATA.PATH_PREFIX", data_dir, *names, *ONE_EPOCH)

    def lose(**lost):
        for split, count in {"train": 0, "val": 0, "test": 0, **lost}.items():
            lines = (data_dir / f"{'train' if split == 'train' else 'val'}.txt").read_text().splitlines(keepends=True)
            lines[:count] = [line.replace("frames/", "gone/") for line in lines[:count]]
            (lists / f"{split}.txt").write_text("".join(lines))

    lose(test=4)
    for dry in ((), ("--dry-run",)):
        refused = run(*settings, *dry, tasks=BOTH)
        assert refused.status == 2 and "4 of 17 listed files of test do not exist" in refused.err
        assert f"{data_dir}/gone/" in refused.err and "test.txt:3) and others" in refused.err
        assert "TEST.ON_BAD_VIDEO count_wrong" in refused.err and not (tmp_path / "run" / "checkpoints").exists()
    lose(test=17)
    assert "check DATA.PATH_PREFIX" in run(*settings, "TEST.ON_BAD_VIDEO", "count_wrong", tasks=("test",)).err
    lose(train=2)
    refused = run(*settings)
    assert (
        refused.status == 2 and "2 of 24 listed files of train" in refused.err and "MAX_BAD_SHARE 0.05" in refused.err
    )
    lose(train=1)
    trained = run(*settings)
    assert trained.status == 0 and "1 of 24 listed files of train do not exist" in trained.out


def test_tools_are_the_same_code(config, tmp_path, monkeypatch, capsys):
    for name in ("train_net", "test_net"):
        assert not (tmp_path / "run" / "test_results.json").exists()
        monkeypatch.setattr(sys, "argv", [name, "--cfg", str(config), *map(str, ONE_EPOCH)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        assert ended.value.code == 0
    assert "test: top-1" in capsys.readouterr().out
    wrong = run_tool("run_net.py", "--cfg", config, "TRAIN.BATCH", 3)
    assert wrong.returncode == 2 and "unknown key TRAIN.BATCH" in wrong.stderr
    assert main(("train",), "", ["--cfg", "none.yaml"]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
