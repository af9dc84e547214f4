"""A miniature data set and configuration on which whole runs take seconds."""

import json
from pathlib import Path

import pytest
import yaml

from slowfast.engine.events import EVENTS
from slowfast.synthetic.specs import MotionSpec
from slowfast.synthetic.writer import write_dataset

SETTINGS = {
    "DATA": {"SOURCE": "frames", "LABEL_PATH_TEMPLATE": "{}.txt", "NUM_FRAMES": 4, "TRAIN_CROP_SIZE": 32},
    "AUG": {"NUM_SAMPLE": 2, "AA_TYPE": "rand-m7-n2-mstd0.5-inc1"},
    "DATA_LOADER": {"NUM_WORKERS": 0},
    "MODEL": {"NUM_CLASSES": 12},
    "UNIFORMER": {"EMBED_DIM": [8, 8, 16, 16], "DEPTH": [1, 1, 2, 2], "HEAD_DIM": 8},
    "EMIM": {"WINDOW": [3, 3]},
    "SOLVER": {"MAX_EPOCH": 2, "WARMUP_EPOCHS": 0.5, "BASE_LR": 1e-3},
    "TRAIN": {"BATCH_SIZE": 8, "EVAL_PERIOD": 1},
    "TEST": {"BATCH_SIZE": 5, "NUM_ENSEMBLE_VIEWS": 2, "NUM_SPATIAL_CROPS": 3},
    "TENSORBOARD": {"ENABLE": False},
}
SETTINGS["DATA"]["TEST_CROP_SIZE"] = 32


@pytest.fixture(scope="session")
def settings():
    """Settings of runs of seconds, as in a YAML file, without data and output folders."""
    return json.loads(json.dumps(SETTINGS))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Folder of 24 training and 17 validation clips as JPEG frames."""
    folder = tmp_path_factory.mktemp("motion")
    write_dataset(folder, MotionSpec(size=32, num_frames=6), 24, 17, "frames")
    return folder


@pytest.fixture
def config(tmp_path, data_dir):
    """Path of a configuration whose run goes to ``tmp_path / "run"``."""
    settings = json.loads(json.dumps(SETTINGS))
    settings["DATA"]["PATH_TO_DATA_DIR"] = str(data_dir)
    settings["OUTPUT_DIR"] = str(tmp_path / "run")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(autouse=True)
def events_are_documented(tmp_path):
    """Check that every event that a test's runs have logged has exactly the documented fields."""
    yield
    for log in filter(Path.is_file, tmp_path.glob("**/log.jsonl")):
        for line in log.read_text().splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # of a run that was killed
                continue
            name = event["event"]
            assert name in EVENTS, f"slowfast/engine/events.py lacks the event {name}"
            assert set(event) == {"event", "time", *EVENTS[name].fields}, f"slowfast/engine/events.py: fields of {name}"
            assert isinstance(event["time"], float)
