"""From the official files of four data sets to a tested model, through the commands that users type."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import invented_releases
import pytest
from invented_releases import COMMANDS

from slowfast.engine.run import main as run_main

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "prepare_data.py"

SMALL = """
OUTPUT_DIR: {root}/run
DEVICE: cpu
DATA: {{PATH_TO_DATA_DIR: {root}/set, NUM_FRAMES: 4, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}}
AUG: {{NUM_SAMPLE: 1, AA_TYPE: "", RE_PROB: 0.0}}
MIXUP: {{ENABLE: False}}
DATA_LOADER: {{NUM_WORKERS: 0}}
SOLVER: {{MAX_EPOCH: 1, WARMUP_EPOCHS: 0.5}}
TRAIN: {{BATCH_SIZE: 2, EVAL_PERIOD: 1}}
TENSORBOARD: {{ENABLE: False}}
"""
VIEWS = {"ssv1": 3, "ssv2": 3, "kinetics400": 12, "diving48": 3}


@pytest.fixture(scope="module")
def tool():
    module_spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)

    def run(*arguments):
        """Return the exit status."""
        try:
            module.main([str(argument) for argument in arguments])
        except SystemExit as end:
            return end.code
        return 0

    return run


def write_config(root, *fragments):
    bases = [f"{ROOT}/configs/_base_/{name}.yaml" for name in ("uniformer_tiny", *fragments)]
    path = root / "small.yaml"
    path.write_text(f"_BASE_: [{', '.join(bases)}]" + SMALL.format(root=root))
    return path


@pytest.mark.parametrize(
    ("command", "frames"), [*((command, False) for command in COMMANDS), ("ssv2", True), ("diving48", True)]
)
def test_prepare_check_train_test(tool, tmp_path, capsys, command, frames):
    release = invented_releases.make(command, tmp_path)
    assert tool(*release.arguments(*(["--extract-frames", "--short-side", "40"] if frames else []))) == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line == f"{release.out}: train 4 written, 0 left out; val 2 written, 0 left out"
    for split in ("train", "val"):
        ending = "txt" if frames or command == "ssv1" else "csv"
        expected = release.lines(split)
        if frames:
            expected = [f"frames/{clip_id} {num} {label}" for clip_id, num, label in release.clips[split]]
        assert (release.out / f"{split}.{ending}").read_text().splitlines() == expected

    config = write_config(tmp_path, command, *(["extracted_frames"] if frames else []))
    classes = ["MODEL.NUM_CLASSES", "3"] if command == "ssv1" else []
    assert tool("check", "--cfg", config, "--workers", 1, *classes) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == f"{release.out}/bad_items.csv: train 4 good, 0 bad; val 2 good, 0 bad"
    assert (release.out / "bad_items.csv").read_text() == "path,split,reason\n"

    assert run_main(("train", "test"), "", ["--cfg", str(config), *classes]) == 0
    results = json.loads((tmp_path / "run/test_results.json").read_text())
    assert (results["num_videos"], results["num_views"]) == (2, 2 * VIEWS[command])
    assert results["bad_videos"] == []


def test_the_commands_in_a_shell(tmp_path):
    release = invented_releases.make("ssv2", tmp_path)
    release.path("910003").unlink()
    release.path("910012").write_bytes(b"")

    def run(*arguments):
        command = [sys.executable, str(TOOL), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    prepared = run(*release.arguments())
    assert prepared.returncode == 1, prepared.stderr
    assert prepared.stdout.splitlines()[-1].endswith("train 3 written, 1 left out; val 1 written, 1 left out")
    damaged = release.path("910001")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    config = write_config(tmp_path, "ssv2")
    checked = run("check", "--cfg", config, "--workers", 2)
    assert checked.returncode == 1, checked.stderr
    assert checked.stdout.splitlines()[-1].endswith("bad_items.csv: train 2 good, 1 bad; val 1 good, 0 bad")
    assert "warning: train: 3 videos, the complete data set has 168913" in checked.stderr
    assert "train: 171 of 174 classes have no video" in checked.stderr
    excluded = run("check", "--cfg", config, "DATA.EXCLUDE_FILE", release.out / "bad_items.csv", "--workers", 1)
    assert excluded.returncode == 0, excluded.stderr
    assert excluded.stdout.splitlines()[-1].endswith("(1 of the bad ones are in DATA.EXCLUDE_FILE)")
    part = run("check", "--splits", "val", "--cfg", config)
    assert part.returncode == 2 and "--splits val needs --out" in part.stderr
    part = run("check", "--splits", "val", "--cfg", config, "--out", "val.csv")
    assert part.returncode == 0 and part.stdout == "val.csv: val 1 good, 0 bad\n"
    wrong = run("check", "--cfg", config, "DATA.PATH_TO_DATA_DIR", tmp_path)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1 and "prepare_data.py ssv2" in wrong.stderr
