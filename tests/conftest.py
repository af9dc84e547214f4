"""What every test shares: few threads, no GPU tests where there is no GPU, a miniature data set for whole runs."""

import json
import logging
import os

import pytest
import yaml

# Small tensors gain nothing from many threads, and the processes of a distributed test share the cores. An
# environment variable, set before torch is imported, reaches the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


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
    from slowfast.synthetic.scenes import SceneSpec
    from slowfast.synthetic.writer import write_dataset

    folder = tmp_path_factory.mktemp("motion")
    write_dataset(folder, SceneSpec(size=32, num_frames=6), 24, 17, "frames")
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
def package_log_as_it_was():
    """Undo what a run in the test's own process does to the package's logger."""
    logger = logging.getLogger("slowfast")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate = propagate
    for handler in [handler for handler in logger.handlers if handler not in handlers]:
        logger.removeHandler(handler)
        handler.close()


def pytest_collection_modifyitems(items):
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_tests:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
