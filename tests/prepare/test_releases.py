"""From the official files of four data sets to a tested model, through the commands that users type."""

import json
from pathlib import Path

import invented_releases
import pytest
from invented_releases import COMMANDS

from slowfast.engine.run import main as run_main
from slowfast.utils.errors import UserError
from tools.prepare_data import main

ROOT = Path(__file__).resolve().parents[2]

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


def write_config(root, *fragments):
    bases = [f"{ROOT}/configs/_base_/{name}.yaml" for name in ("uniformer_tiny", *fragments)]
    path = root / "small.yaml"
    path.write_text(f"_BASE_: [{', '.join(bases)}]" + SMALL.format(root=root))
    return str(path)


@pytest.mark.parametrize(("command", "frames"), [*((command, False) for command in COMMANDS), ("diving48", True)])
def test_prepare_train_test(tmp_path, command, frames):
    release = invented_releases.make(command, tmp_path)
    assert main(release.arguments(*(["--extract-frames", "--short-side", "40"] if frames else []))) == 0
    for split in ("train", "val"):
        ending = "txt" if frames or command == "ssv1" else "csv"
        expected = release.lines(split)
        if frames:
            expected = [f"frames/{clip_id} {num} {label}" for clip_id, num, label in release.clips[split]]
        assert (release.out / f"{split}.{ending}").read_text().splitlines() == expected
    config = write_config(tmp_path, command, *(["extracted_frames"] if frames else []))
    classes = ["MODEL.NUM_CLASSES", "3"] if command == "ssv1" else []
    assert run_main(("train", "test"), "", ["--cfg", config, *classes]) == 0
    results = json.loads((tmp_path / "run/test_results.json").read_text())
    assert (results["num_videos"], results["num_views"], results["bad_videos"]) == (2, 2 * VIEWS[command], [])


def test_the_status_tells_whether_something_is_left_out_or_bad(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    release = invented_releases.make("ssv2", tmp_path)
    release.path("910003").unlink()
    release.path("910012").write_bytes(b"")
    assert main(release.arguments()) == 1
    assert caplog.messages[-1].endswith("train 3 written, 1 left out; val 1 written, 1 left out, 174 classes")
    damaged = release.path("910001")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    check = ["check", "--cfg", write_config(tmp_path, "ssv2"), "--workers", "1"]
    assert main(check) == 1
    assert caplog.messages[-1].endswith("bad_items.csv: train 2 good, 1 bad; val 1 good, 0 bad")
    assert "train: 3 videos, the complete data set has 168913 (DATA.EXPECTED_NUM_VIDEOS)" in caplog.messages
    assert any(message.startswith("train: 171 of 174 classes have no video") for message in caplog.messages)
    assert main([*check, "DATA.EXCLUDE_FILE", str(release.out / "bad_items.csv")]) == 0
    assert caplog.messages[-1].endswith("(1 of the bad ones are in DATA.EXCLUDE_FILE)")
    with pytest.raises(UserError, match="prepare_data.py"):
        main([*check, "DATA.PATH_TO_DATA_DIR", str(tmp_path)])
