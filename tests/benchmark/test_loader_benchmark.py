"""The loader's benchmark times every stage, and the command prints what it should; a plain pipeline makes its clips."""

import numpy as np
import pytest
import torch
from helpers_engine import load_tool
from plain_pipeline import plain_clips

from slowfast.benchmark.loader import STAGES, _use_synthetic_frames, time_stages
from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.on_device import RandomErasing, build_normalize
from slowfast.datasets.build import build_dataset
from slowfast.utils.errors import UserError

SMALL = ["DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "TRAIN.BATCH_SIZE", 4, "DATA_LOADER.NUM_WORKERS", 0]


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list([*SMALL, "DEVICE", "cpu"])
    _use_synthetic_frames(cfg, tmp_path, "64x48")
    return cfg


def test_the_plain_pipeline_makes_the_same_clips(cfg):
    cfg.merge_from_list(["DATA.RANDOM_FLIP", True, "AUG.NUM_SAMPLE", 4])
    dataset, normalize = build_dataset(cfg, "train"), build_normalize(cfg)
    differences = []
    for video in range(8):
        plain = plain_clips(cfg, dataset, video, np.empty(0), dataset.generator(0, video), RandomErasing(0.0))
        fast = normalize(dataset[0, video].clips)
        differences += [(a - b).abs().mean().item() * 255 * 0.225 for a, b in zip(fast, plain)]
    # Half of them within a grey level or so; where fill and statistics come into it, a clip is another one.
    assert np.median(differences) < 1.5 and np.quantile(differences, 0.75) < 8


def test_every_stage_takes_time_and_undecodable_videos_are_left_out(cfg, tmp_path):
    for video in range(7):
        for image in (tmp_path / str(video)).iterdir():
            image.write_bytes(b"")
    ms = time_stages(cfg, torch.device("cpu"), 1)
    assert set(ms) == {*STAGES} and min(ms.values()) > 0
    for image in (tmp_path / "7").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="none of the videos of a round can be decoded"):
        time_stages(cfg, torch.device("cpu"), 1)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs ``tools/benchmark.py loader`` in this process."""
    config = tmp_path / "config.yaml"
    config.write_text("DATA: {SOURCE: frames, LABEL_PATH_TEMPLATE: '{}.txt'}\n")

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["benchmark.py", "loader", "--cfg", str(config), *map(str, arguments)])
        load_tool("benchmark").main()

    return run


def test_the_command(command, capsys):
    keys = ["DATA.PACKED", "no/pack", "DATA.EXCLUDE_FILE", "none.csv", "DATA.PATH_PREFIX", "nowhere"]
    options = ["--synthetic", "64x48", "--rounds", 1, "--step-ms", 100]
    command(*options, *SMALL, "DEVICE", "cpu", *keys)
    printed = capsys.readouterr().out
    for words in (*STAGES, "torch", "clips/s per core", "decoding", "a step of 100 ms on 4 videos"):
        assert words in printed
    assert "clips/s with 0 workers" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--synthetic", "427"], ["--synthetic", "'427'", "WIDTHxHEIGHT"]),
        (["DATA.PATH_TO_DATA_DIR", "nowhere"], ["nowhere/val.txt", "does not exist"]),
    ],
)
def test_wrong_options_are_named(command, options, words):
    with pytest.raises(UserError) as error:
        command(*options)
    assert [word for word in words if word not in str(error.value)] == []
