"""Still images through the tools: a published kind of weight file tested, and a training run."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers_engine import run_tool
from PIL import Image

from slowfast.config.defaults import get_cfg
from slowfast.engine.run import main
from slowfast.models import build_model

CLASSES = ("ash", "birch", "cedar")
PER_CLASS = 4
SIDE, SHORT_SIDE = 32, 40
SETTINGS = {
    "DATA": {
        "DATASET": "ImageFolder",
        "NUM_FRAMES": 1,
        "TRAIN_CROP_SIZE": SIDE,
        "TEST_CROP_SIZE": SIDE,
        "TEST_SHORT_SIDE": SHORT_SIDE,
        "TEST_INTERPOLATION": "bicubic",
        "MEAN": [0.485, 0.456, 0.406],
        "STD": [0.229, 0.224, 0.225],
    },
    "AUG": {"AA_TYPE": "rand-m9-mstd0.5-inc1", "NUM_SAMPLE": 1},
    "DATA_LOADER": {"NUM_WORKERS": 0},
    "MODEL": {"MODEL_NAME": "Uniformer2d", "NUM_CLASSES": 3},
    "UNIFORMER": {"EMBED_DIM": [8, 8, 16, 16], "DEPTH": [1, 1, 2, 2], "HEAD_DIM": 8},
    "EMIM": {"WINDOW": [3, 3], "MOTION": False},
    "SOLVER": {"MAX_EPOCH": 1, "WARMUP_EPOCHS": 0.5, "CLIP_GRADIENT": 0.0},
    "TRAIN": {"BATCH_SIZE": 4, "EVAL_PERIOD": 1},
    "TEST": {"BATCH_SIZE": 5, "NUM_SPATIAL_CROPS": 1},
    "TENSORBOARD": {"ENABLE": False},
}


def transform_by_hand(path):
    """Pillow's bicubic short side, the centre, mean and standard deviation: (3, 1, S, S)."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    image = image.resize(tuple(int(length * scale) for length in image.size), Image.Resampling.BICUBIC)
    left, top = (round((length - SIDE) / 2) for length in image.size)
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE))) / 255
    pixels = (pixels - SETTINGS["DATA"]["MEAN"]) / SETTINGS["DATA"]["STD"]
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[:, None]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve JPEG files of coloured patterns in train, and twelve others in val."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for index in range(PER_CLASS):
                size = (48 + 10 * index, 80 - 8 * index)  # portraits, then landscapes
                coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                image.save(root / split / name / f"{index}.jpg")
    return root


@pytest.fixture
def config(tmp_path, root):
    settings = json.loads(json.dumps(SETTINGS))
    settings["DATA"]["PATH_TO_DATA_DIR"] = str(root)
    settings["OUTPUT_DIR"] = str(tmp_path / "run")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def read_config(path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


@pytest.fixture
def weights(config, tmp_path, root):
    """A wrapped file without class names, of a random model whose predictions vary, and those by a plain loop."""
    torch.manual_seed(0)
    model = build_model(read_config(config)).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "running" not in name and "norm" not in name:
            tensor.normal_(std=0.3)
    paths = [root / "val" / name / f"{index}.jpg" for name in CLASSES for index in range(PER_CLASS)]
    with torch.no_grad():
        model.head.bias -= torch.cat([model(transform_by_hand(path)[None]) for path in paths]).mean(dim=0)
        predictions = [model(transform_by_hand(path)[None]).argmax().item() for path in paths]
    assert len(set(predictions)) == 3
    path = tmp_path / "published.pth"
    torch.save({"model": model.state_dict()}, path)
    return path, np.array(predictions)


def test_a_weight_file_scores_what_a_plain_loop_scores(config, weights, tmp_path):
    path, predictions = weights
    labels = np.repeat(np.arange(3), PER_CLASS)
    tested = run_tool("test_net.py", "--cfg", config, "TEST.CHECKPOINT_FILE_PATH", path)
    assert tested.returncode == 0, tested.stderr
    assert f"testing {path} (weights only) on 12 videos x 1 views" in tested.stdout
    results = json.loads((tmp_path / "run" / "test_results.json").read_text())
    assert 0 < results["top1"] < 100
    assert results["top1"] == pytest.approx(100 * (predictions == labels).mean())
    per_class = (tmp_path / "run" / "per_class_accuracy.csv").read_text().splitlines()[1:]
    right = [(predictions == labels)[labels == label].mean() for label in range(3)]
    assert per_class == [f"{k},{name},4,{100 * right[k]:.2f}" for k, name in enumerate(CLASSES)]
    assert results["protocol"].startswith("1 frames x 1 clips x 1 crops, 32x32 px of short side 40 (bicubic)")
    assert results["epoch"] is None
    with np.load(tmp_path / "run" / "test_scores.npz") as scores:
        assert scores["videos"][0] == "val/ash/0.jpg"
        assert scores["scores"].argmax(axis=1).tolist() == predictions.tolist()


def test_a_weight_file_must_fill_the_model_exactly(config, weights, tmp_path, capsys):
    state = torch.load(weights[0], weights_only=True)["model"]

    def message_for(changed):
        torch.save(changed, tmp_path / "changed.pth")
        settings = ("TEST.CHECKPOINT_FILE_PATH", str(tmp_path / "changed.pth"))
        assert main(("test",), "test run", ["--cfg", str(config), *settings]) == 2
        return capsys.readouterr().err

    without = {name: tensor for name, tensor in state.items() if name != "blocks3.0.attn.rpb"}
    assert 'Missing key(s) in state_dict: "blocks3.0.attn.rpb"' in message_for(without)
    assert "size mismatch for head.bias" in message_for({**state, "head.bias": torch.zeros(7)})
    assert 'Unexpected key(s) in state_dict: "gamma"' in message_for({**state, "gamma": torch.zeros(3)})
    assert "holds no tensors" in message_for({"note": "nothing"})


def test_training_on_an_image_folder(config, tmp_path):
    trained = run_tool("run_net.py", "--cfg", config)
    assert trained.returncode == 0, trained.stderr
    results = json.loads((tmp_path / "run" / "test_results.json").read_text())
    assert results["num_videos"] == 12 and results["checkpoint"].endswith("best.pyth") and results["epoch"] == 1
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.pyth", weights_only=True)
    assert state["class_names"] == list(CLASSES) and state["model_state"]["patch_embed1.proj.weight"].dim() == 4
