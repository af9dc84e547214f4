"""`prepare_data.py synthetic` and `scenes`: run from any folder, and a wrong flag is one clear line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


def test_the_command_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(TOOL), "synthetic", "--out", "set", "--num-train", "4", "--num-val", "2"]
    command += ["--size", "32", "--num-frames", "4", "--workers", "2", "--distractor-speed", "0.01", "0.02"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "written" in first.stdout
    assert first.stderr == ""
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "complete already" in again.stdout
    assert json.loads((tmp_path / "set/dataset.json").read_text())["distractor_speed"] == [0.01, 0.02]


@pytest.fixture(scope="module")
def tool():
    module_spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def test_scenes_have_their_own_flags_and_two_lists(tool, tmp_path, capsys):
    flags = ["--num-train", "3", "--num-val", "2", "--size", "32", "--num-frames", "2", "--workers", "1"]
    tool.main(["scenes", "--out", str(tmp_path), *flags, "--camera-pan", "0.01", "0.02", "--clutter", "4"])
    assert "3 train and 2 val clips as frames, written" in capsys.readouterr().out
    lists = sorted(path.name for path in tmp_path.glob("*.txt"))
    assert lists == [
        *("classes.txt", "classes_appearance.txt"),
        *("train.txt", "train_appearance.txt", "val.txt", "val_appearance.txt"),
    ]
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["generator"] == "synthetic scenes"
    assert description["camera_pan"] == [0.01, 0.02]
    with pytest.raises(SystemExit):  # the motion set has no camera that pans
        tool.main(["synthetic", "--out", str(tmp_path / "set"), "--camera-pan", "0.01", "0.02"])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--num-train", "-1"], ["--num-train", "-1", "1 to"]),
        (["--num-val", "0"], ["--num-val", "0", "1 to"]),
        (["--size", "8"], ["--size", "8", "32 to 1024"]),
        (["--size", "33", "--format", "webm"], ["--size", "33", "even"]),
        (["--num-frames", "1"], ["--num-frames", "1", "2 to 9999"]),
        (["--format", "avi"], ["--format", "avi", "webm"]),
        (["--speed", "0.2", "0.1"], ["--speed", "0.2", "MIN <= MAX"]),
        (["--speed", "0", "0.1"], ["--speed", "0.0", "0.005 to 0.25"]),
        (["--speed", "nan", "0.1"], ["--speed", "nan", "0.005 to 0.25"]),
        (["--diameter", "0.3", "0.3"], ["--zoom", "--diameter", "0.3"]),
        (["--noise-std", "loud"], ["--noise-std", "loud"]),
        (["--seed", "-3"], ["--seed", "-3"]),
        (["--workers", "0"], ["--workers", "0"]),
        (["--sped", "1"], ["--sped"]),
    ],
)
def test_a_wrong_flag_is_one_clear_line(tool, tmp_path, capsys, flags, named):
    with pytest.raises(SystemExit) as exit_info:
        tool.main(["synthetic", "--out", str(tmp_path / "set"), *flags])
    message = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert message.count("\n") == 1
    assert [word for word in named if word not in message] == []
    assert not (tmp_path / "set").exists()
