"""Whole runs: training, test, results, resuming, and what stops them."""

import csv
import json
import shutil

import pytest
import torch
from helpers_engine import run_tool

from slowfast.engine.run import main
from slowfast.utils.logging import read_events


def run(config, *settings, tasks=("train", "test")):
    return main(tasks, "test run", ["--cfg", str(config), *map(str, settings)])


def results(folder):
    return json.loads((folder / "test_results.json").read_text())


def weights(folder, epoch):
    return torch.load(folder / "checkpoints" / f"epoch_{epoch:05d}.pyth", weights_only=True)["model_state"]


def test_a_run_leaves_what_is_needed_to_read_and_repeat_it(config, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(config, "TENSORBOARD.ENABLE", True) == 0
    found = results(out)
    assert found["num_videos"] == 17 and found["num_views"] == 17 * 6 and found["bad_videos"] == []
    assert 0 <= found["top1"] <= found["top5"] <= 100
    assert found["protocol"].startswith("4 frames x 2 clips x 3 crops, 32x32 px")
    assert found["checkpoint"].endswith("best.pyth") and "MAX_EPOCH: 2" in found["config"]
    with open(out / "per_class_accuracy.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and sum(int(row["num_videos"]) for row in rows) == 17
    assert rows[0]["class"] and not rows[0]["class"].isdigit()
    for name in ("confusion_matrix.png", "learning_curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    epochs = read_events(str(out), "train_epoch")
    assert [event["epoch"] for event in epochs] == [1, 2]
    assert [event["num_videos"] for event in read_events(str(out), "val")] == [17, 17]
    environment = json.loads((out / "environment.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0] or environment["versions"]["torch"]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    losses = [scalar.value for scalar in board.Scalars("train_epoch/loss")]
    assert losses == pytest.approx([event["loss"] for event in epochs], rel=1e-5)

    printed = capsys.readouterr().out
    for words in ("world size 1", "24 training and 17 validation", "parameters", "GFLOPs", "learning rate 0.001"):
        assert words in printed

    # The same command again: nothing is trained or tested a second time.
    before = (out / "test_results.json").stat().st_mtime_ns
    assert run(config, "TENSORBOARD.ENABLE", True) == 0
    printed = capsys.readouterr().out
    assert "training is already finished: 2 epochs" in printed and "already tested" in printed
    assert (out / "test_results.json").stat().st_mtime_ns == before
    # A test alone always runs, and gives the same numbers.
    assert run(config, "TENSORBOARD.ENABLE", True, tasks=("test",)) == 0
    assert (out / "test_results.json").stat().st_mtime_ns > before
    assert results(out) == found


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (["DATA.PATH_TO_DATA_DIR", "nowhere"], ["nowhere/val.txt does not exist"]),
        (["MODEL.NUM_CLASSES", 5], ["val.txt:1: label", "MODEL.NUM_CLASSES is 5"]),
        (["SOLVER.BASE_RL", 1], ["unknown key SOLVER.BASE_RL; did you mean SOLVER.BASE_LR"]),
        (["EMIM.WINDOW", "[4, 7]"], ["EMIM.WINDOW", "stage 3", "odd", "found 4"]),
        (["TRAIN.BATCH_SIZE", 100], ["TRAIN.BATCH_SIZE is 100", "up to the number of training videos, 24"]),
        (["TRAIN.PRECISION", "fp8"], ["TRAIN.PRECISION is 'fp8'; allowed: auto | fp32 | bf16 | fp16"]),
        (["SOLVER.COSINE_END_LR", 0.1], ["SOLVER.COSINE_END_LR 0.1 is above SOLVER.BASE_LR 0.001"]),
        (["TEST.NUM_SPATIAL_CROPS", 2], ["TEST.NUM_SPATIAL_CROPS", "2", "allowed: 1 (centre) | 3"]),
        (["TRAIN.ENABLE", False, "TEST.ENABLE", False], ["there is nothing to do"]),
        (["MODEL.PRETRAINED", "no.pth"], ["MODEL.PRETRAINED", "no.pth", "docs/data.md"]),
        (["OUTPUT_DIR", "/proc/run"], ["OUTPUT_DIR /proc/run cannot be made"]),
    ],
)
def test_mistakes_end_with_one_line_and_a_status(config, capsys, settings, messages):
    assert run(config, *settings) == 2
    error = capsys.readouterr().err
    assert all(message in error for message in messages), error
    assert "Traceback" not in error


def test_missing_file_and_overrides_without_value(config, capsys):
    assert main(("train",), "", ["--cfg", "none.yaml"]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
    assert run(config, "SOLVER.MAX_EPOCH") == 2
    assert "KEY VALUE pairs" in capsys.readouterr().err


def test_other_class_order_is_noticed(config, tmp_path, capsys):
    assert run(config, "SOLVER.MAX_EPOCH", 1, tasks=("train",)) == 0
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(12)))
    assert run(config, "DATA.CLASS_NAMES_FILE", names, tasks=("test",)) == 2
    assert "other class names or another order" in capsys.readouterr().err


def test_bad_videos_are_skipped_in_training_and_never_replaced_in_testing(config, tmp_path, data_dir, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    victims = {split: (broken / f"{split}.txt").read_text().split()[0] for split in ("train", "val")}
    (broken / victims["train"] / "00002.jpg").unlink()
    (broken / victims["val"] / "00003.jpg").write_bytes(b"no image")
    settings = ("DATA.PATH_TO_DATA_DIR", broken, "SOLVER.MAX_EPOCH", 1, "DATA.NUM_FRAMES", 6)

    assert run(config, *settings, "DATA.MAX_BAD_SHARE", 0.01, tasks=("train",)) == 2
    assert "1 of 24 training videos cannot be decoded" in capsys.readouterr().err
    assert run(config, *settings, tasks=("train",)) == 0
    printed = capsys.readouterr().out
    assert "1 bad videos" in printed and victims["train"] in printed
    assert run(config, *settings, tasks=("test",)) == 2
    error = capsys.readouterr().err
    assert victims["val"] in error and "TEST.ON_BAD_VIDEO count_wrong" in error
    assert run(config, *settings, "TEST.ON_BAD_VIDEO", "count_wrong", tasks=("test",)) == 0
    found = results(tmp_path / "run")
    assert [bad["path"] for bad in found["bad_videos"]] == [str(broken / victims["val"])]
    assert found["num_videos"] == 17


def test_pretrained_weights_of_other_classes(config, tmp_path, capsys):
    assert run(config, "SOLVER.MAX_EPOCH", 1, tasks=("train",)) == 0
    best = tmp_path / "run" / "checkpoints" / "best.pyth"
    again = ("OUTPUT_DIR", tmp_path / "fine", "SOLVER.MAX_EPOCH", 1, "MODEL.PRETRAINED", best)
    assert run(config, *again, "MODEL.NUM_CLASSES", 13, "DATA.CLASS_NAMES_FILE", "", tasks=("train",)) == 2
    assert "12 class names, MODEL.NUM_CLASSES is 13" in capsys.readouterr().err
    assert run(config, *again, tasks=("train",)) == 0
    assert "0 skipped, 0 missing" in capsys.readouterr().out


def test_tools_are_the_same_code(config, tmp_path):
    trained = run_tool("train_net.py", "--cfg", config, "SOLVER.MAX_EPOCH", 1)
    assert trained.returncode == 0, trained.stderr
    assert not (tmp_path / "run" / "test_results.json").exists()
    tested = run_tool("test_net.py", "--cfg", config, "SOLVER.MAX_EPOCH", 1)
    assert tested.returncode == 0, tested.stderr
    assert "test: top-1" in tested.stdout
    wrong = run_tool("run_net.py", "--cfg", config, "TRAIN.BATCH", 3)
    assert wrong.returncode == 2 and "unknown key TRAIN.BATCH" in wrong.stderr


def test_tasks_can_be_switched_off(config, tmp_path):
    assert run(config, "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False) == 0
    assert not (tmp_path / "run" / "test_results.json").exists()
    assert run(config, "SOLVER.MAX_EPOCH", 1, "TRAIN.ENABLE", False) == 0
    assert results(tmp_path / "run")["num_videos"] == 17


def test_log_survives_a_half_written_line(config, tmp_path):
    assert run(config, "SOLVER.MAX_EPOCH", 1, tasks=("train",)) == 0
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('{"event": "train_ep')
    assert run(config) == 0
    assert [event["epoch"] for event in read_events(str(tmp_path / "run"), "train_epoch")] == [1, 2]


def test_split_without_any_good_video(config, tmp_path, data_dir, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    lines = (broken / "val.txt").read_text().splitlines()
    (broken / "val.txt").write_text("\n".join(line.replace("frames/", "gone/") for line in lines))
    assert run(config, "DATA.PATH_TO_DATA_DIR", broken, "SOLVER.MAX_EPOCH", 1) == 2
    assert "none of the 17 videos can be decoded" in capsys.readouterr().err
