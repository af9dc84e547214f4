"""`prepare_data.py pack`: the keys it prints are all that reading the pack needs."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.utils.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


def run(capsys, *args):
    """Return exit status, output and error output of the command."""
    module_spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    tool = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(tool)
    try:
        status = tool.main(["pack", *map(str, args)]) or 0
    except SystemExit as error:
        status = error.code
    return status, *capsys.readouterr()


def test_the_command_prints_the_keys_that_read_the_pack(tmp_path, capsys):
    for clip in "ab":
        (tmp_path / "data" / clip).mkdir(parents=True)
        for number in range(1, 5):
            cv2.imwrite(str(tmp_path / "data" / clip / f"{number:05d}.jpg"), np.full((40, 40, 3), 9 * number, np.uint8))
    for split in ("train", "val"):
        (tmp_path / "data" / f"{split}.txt").write_text("a 4 0\nb 4 1\n")
    settings = [
        "DATA.PATH_TO_DATA_DIR",
        tmp_path / "data",
        "DATA.LABEL_PATH_TEMPLATE",
        "{}.txt",
        "MODEL.NUM_CLASSES",
        2,
    ]
    settings += ["DATA.SOURCE", "frames"]
    status, output, _ = run(capsys, "--out", tmp_path / "pack", *settings)
    assert status in (0, None)
    assert "train 2 packed, 0 left out; val 2 packed, 0 left out" in output
    cfg = get_cfg()
    cfg.merge_from_list([*map(str, settings), *shlex.split(output.splitlines()[-1].removeprefix("read it with"))])
    dataset = build_dataset(cfg, "test")
    assert [dataset.open(record).read([3]).shape for record in dataset.records] == [(1, 40, 40, 3)] * 2

    (tmp_path / "data" / "b" / "00004.jpg").unlink()
    status, output, _ = run(capsys, "--out", tmp_path / "lossy", *settings)
    assert status == 1 and "train 1 packed, 1 left out" in output
    with pytest.raises(UserError, match="--out"):
        run(capsys, "--out", tmp_path / "data", *settings)
