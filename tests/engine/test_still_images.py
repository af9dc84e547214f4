"""Still images: a published kind of weight file tested, and a training run."""

import numpy as np
import pytest
import torch
import yaml
from helpers_engine import results, state
from PIL import Image

from slowfast.config import load_cfg
from slowfast.models import build_model

CLASSES = ("ash", "birch", "cedar")
PER_CLASS = 4
SIDE, SHORT_SIDE = 32, 40
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve JPEG files of coloured patterns in train, and twelve others in val."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for path in [root / split / name / f"{i}.jpg" for split in ("train", "val") for name in CLASSES for i in range(4)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (48 + 10 * int(path.stem), 80 - 8 * int(path.stem))  # portraits, then landscapes
        coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def config(tmp_path, root, settings):
    data = {"DATASET": "ImageFolder", "PATH_TO_DATA_DIR": str(root), "NUM_FRAMES": 1, "TRAIN_CROP_SIZE": SIDE}
    data |= {"TEST_CROP_SIZE": SIDE, "TEST_SHORT_SIDE": SHORT_SIDE, "TEST_INTERPOLATION": "bicubic"}
    tree = {
        **settings,
        "DATA": {**data, "MEAN": MEAN, "STD": STD},
        "MODEL": {"MODEL_NAME": "Uniformer2d", "NUM_CLASSES": 3},
        "EMIM": {"WINDOW": [3, 3], "MOTION": False},
        "TRAIN": {"BATCH_SIZE": 4, "EVAL_PERIOD": 1},
        "TEST": {"BATCH_SIZE": 5, "NUM_SPATIAL_CROPS": 1},
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def transform_by_hand(path):
    """Pillow's bicubic short side, the centre, mean and standard deviation: (1, 3, 1, S, S)."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    image = image.resize(tuple(int(length * scale) for length in image.size), Image.Resampling.BICUBIC)
    left, top = (round((length - SIDE) / 2) for length in image.size)
    pixels = (np.asarray(image.crop((left, top, left + SIDE, top + SIDE))) / 255 - MEAN) / STD
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None, :, None]


@pytest.fixture
def weights(config, tmp_path, root):
    """A wrapped file without class names, of a random model whose predictions vary, and those by a plain loop."""
    torch.manual_seed(0)
    model = build_model(load_cfg(str(config))).eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "running" not in name and "norm" not in name:
            tensor.normal_(std=0.3)
    paths = [root / "val" / name / f"{index}.jpg" for name in CLASSES for index in range(PER_CLASS)]
    with torch.no_grad():
        logits = torch.cat([model(transform_by_hand(path)) for path in paths])
        model.head.bias -= logits.mean(dim=0)
    predictions = (logits - logits.mean(dim=0)).argmax(dim=1).numpy()
    assert len(set(predictions)) == 3
    path = tmp_path / "published.pth"
    torch.save({"model": model.state_dict()}, path)
    return path, predictions


def test_a_weight_file_scores_what_a_plain_loop_scores(run, weights, tmp_path):
    path, predictions = weights
    right = (predictions == np.repeat(np.arange(3), PER_CLASS)).reshape(3, PER_CLASS)
    tested = run("TEST.CHECKPOINT_FILE_PATH", path, tasks=("test",))
    assert tested.status == 0 and f"testing {path} (weights only) on 12 videos x 1 views" in tested.out
    found = results(tmp_path / "run")
    assert 0 < found["top1"] < 100 and found["top1"] == pytest.approx(100 * right.mean())
    per_class = (tmp_path / "run" / "per_class_accuracy.csv").read_text().splitlines()[1:]
    assert per_class == [f"{k},{name},4,{100 * right[k].mean():.2f}" for k, name in enumerate(CLASSES)]
    assert found["protocol"].startswith("1 frames x 1 clips x 1 crops, 32x32 px of short side 40 (bicubic)")
    assert found["epoch"] is None
    with np.load(tmp_path / "run" / "test_scores.npz") as scores:
        assert scores["videos"][0] == "val/ash/0.jpg"
        assert scores["scores"].argmax(axis=1).tolist() == predictions.tolist()


def test_a_weight_file_must_fill_the_model_exactly(run, weights, tmp_path):
    state, path = torch.load(weights[0], weights_only=True)["model"], tmp_path / "changed.pth"
    for changed, message in (
        ({key: state[key] for key in state if key != "blocks3.0.attn.rpb"}, 'Missing key(s) in state_dict: "blocks3.0'),
        ({**state, "head.bias": torch.zeros(7)}, "size mismatch for head.bias"),
        ({**state, "gamma": torch.zeros(3)}, 'Unexpected key(s) in state_dict: "gamma"'),
        ({"note": "nothing"}, "holds no tensors"),
    ):
        torch.save(changed, path)
        refused = run("TEST.CHECKPOINT_FILE_PATH", path, tasks=("test",))
        assert refused.status == 2 and message in refused.err


def test_training_on_an_image_folder(run, tmp_path):
    trained = run("SOLVER.MAX_EPOCH", 1, tasks=("train", "test"))
    assert trained.status == 0, trained.err
    found = results(tmp_path / "run")
    assert found["num_videos"] == 12 and found["checkpoint"].endswith("best.pyth") and found["epoch"] == 1
    best = state(tmp_path / "run", "best.pyth")
    assert best["class_names"] == list(CLASSES) and best["model_state"]["patch_embed1.proj.weight"].dim() == 4
