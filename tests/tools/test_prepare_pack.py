"""`prepare_data.py pack`: the keys it prints are all that reading the shards needs."""

import importlib.util
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.video_dataset import Sample

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in tmp_path and returns exit status, output and error output."""
    module_spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    tool = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status = 0
        try:
            tool.main(["pack", *map(str, args)])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def data(tmp_path):
    """Two clips of four frames, in both lists."""
    for clip in "ab":
        (tmp_path / "data" / clip).mkdir(parents=True)
        for number in range(1, 5):
            cv2.imwrite(str(tmp_path / "data" / clip / f"{number:05d}.jpg"), np.full((40, 40, 3), 9 * number, np.uint8))
    for split in ("train", "val"):
        (tmp_path / "data" / f"{split}.txt").write_text("a 4 0\nb 4 1\n")
    return tmp_path / "data"


def test_the_command_prints_the_keys_that_read_the_pack(run, data, tmp_path):
    cfg_file = tmp_path / "cfg.yaml"
    cfg_file.write_text(
        "DATA: {PATH_TO_DATA_DIR: data, LABEL_PATH_TEMPLATE: '{}.txt', SOURCE: frames, NUM_FRAMES: 2}\n"
        "MODEL: {NUM_CLASSES: 5}\n"
    )
    status, output, progress = run("--cfg", cfg_file, "--out", "shards", "--workers", 2, "MODEL.NUM_CLASSES", 2)
    assert status == 0
    assert "8 files" in output and "train 2 packed, 0 left out; val 2 packed, 0 left out" in output
    assert progress == ""
    cfg = get_cfg()
    cfg.merge_from_file(str(cfg_file))
    cfg.merge_from_list(shlex.split(output.splitlines()[-1].removeprefix("read it with")))
    cfg.MODEL.NUM_CLASSES = 2
    assert [type(build_dataset(cfg, "test")[index]) for index in range(2)] == [Sample, Sample]

    status, output, _ = run("--cfg", cfg_file, "--out", "shards", "MODEL.NUM_CLASSES", 2)
    assert status == 0 and "complete already" in output


def test_without_a_configuration_file_and_with_a_missing_frame(run, data):
    (data / "b" / "00004.jpg").unlink()
    flags = ["DATA.PATH_TO_DATA_DIR", data, "DATA.LABEL_PATH_TEMPLATE", "{}.txt", "DATA.SOURCE", "frames"]
    status, output, _ = run("--out", "lossy", *flags)
    assert status == 1
    assert "pack_report.csv" in output and "train 1 packed, 1 left out" in output
    status, _, message = run("--out", "lossy", "--shard-mib", 0, *flags)
    assert status == 2
    assert message.startswith("prepare_data.py pack: error: shard_mib (--shard-mib) is 0") and message.count("\n") == 1
