"""The paper's Something-Something V1 run by its path: what it says without data, and a run on an invented set."""

import json
import os
import subprocess
import sys
from pathlib import Path

from slowfast.synthetic.scenes import SceneSpec
from slowfast.synthetic.writer import write_dataset

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "exp" / "uniformer_s16_sthv1_pre1k_uniformer_extra_attn64_ATTN_ATTN_7_7_LG"


def run(script, *settings):
    environment = {**os.environ, "PYTHON": sys.executable, "NPROC_PER_NODE": "1"}
    command = ["bash", str(FOLDER / script), *map(str, settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd="/")


def test_without_data_and_without_weights_it_says_what_to_get(tmp_path):
    failed = run("run.sh", "OUTPUT_DIR", tmp_path, "DATA.PATH_TO_DATA_DIR", tmp_path / "nowhere")
    assert failed.returncode != 0
    for words in ("does not exist", "Get Something-Something V1", "prepare_data.py ssv1", "DATA.PATH_TO_DATA_DIR"):
        assert words in failed.stderr
    write_dataset(tmp_path / "set", SceneSpec(size=32, num_frames=4), 12, 2, "frames")
    settings = ("DATA.PATH_TO_DATA_DIR", tmp_path / "set", "MODEL.NUM_CLASSES", 12, "TRAIN.BATCH_SIZE", 4)
    failed = run("run.sh", "OUTPUT_DIR", tmp_path, *settings, "MODEL.PRETRAINED", "pretrained/none.pth")
    assert failed.returncode != 0
    assert "Get uniformer_small_in1k.pth" in failed.stderr and "MODEL.PRETRAINED" in failed.stderr


def test_trains_and_tests_on_a_set_in_its_layout(tmp_path):
    write_dataset(tmp_path / "set", SceneSpec(size=32, num_frames=16), 12, 3, "frames")
    settings = (
        *("OUTPUT_DIR", tmp_path / "run", "DATA.PATH_TO_DATA_DIR", tmp_path / "set", "MODEL.PRETRAINED", ""),
        *("MODEL.NUM_CLASSES", 12, "SOLVER.MAX_EPOCH", 1, "TRAIN.BATCH_SIZE", 2, "DATA_LOADER.NUM_WORKERS", 0),
        *("DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
    )
    finished = run("run.sh", *settings)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "run" / "test_results.json").read_text())
    assert (results["num_videos"], results["num_views"]) == (3, 9)
    assert run("test.sh", *settings).returncode == 0
    assert json.loads((tmp_path / "run" / "test_results.json").read_text()) == results
