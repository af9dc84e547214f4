"""The loader's benchmark: the plain pipeline gives the same clips, and the command prints what it should."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from helpers_engine import ROOT
from PIL import Image

from slowfast.benchmark.loader import STAGES, LoaderTimes, plain_clip, time_stages, write_synthetic_frames
from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.finish import build_finish
from slowfast.datasets.build import build_dataset

SMALL = ["DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "TRAIN.BATCH_SIZE", 4, "DATA_LOADER.NUM_WORKERS", 0]


@pytest.fixture
def cfg(tmp_path):
    write_synthetic_frames(tmp_path, 4, 64, 48, 6)
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.SOURCE", "frames", "DATA.PATH_TO_DATA_DIR", str(tmp_path), *SMALL])
    cfg.merge_from_list(["DATA.LABEL_PATH_TEMPLATE", "{}.txt", "DEVICE", "cpu"])
    return cfg


def test_the_plain_pipeline_makes_the_same_clips(cfg):
    cfg.merge_from_list(["AUG.RE_PROB", 0.5, "DATA.RANDOM_FLIP", True])
    transform, finish = build_dataset(cfg, "train").transform, build_finish(cfg, "train")
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    images = [Image.fromarray(frame) for frame in frames]
    level = 1 / (255 * 0.225)
    for seed in range(20):
        plain_rng, rng = np.random.default_rng(seed), np.random.default_rng(seed)
        for _ in range(2):  # the second copy needs the first to leave the generator in the same state
            clip, remainder = transform(frames, rng)
            (fast,) = finish(clip[None], [remainder])
            plain = plain_clip(images, plain_rng, transform, cfg.DATA.MEAN, cfg.DATA.STD, cfg.AUG.RE_MODE)
            wrong = (fast - plain).abs() / level
            assert (wrong > 0.51).float().mean() < 0.05 and wrong.mean() < 0.5


@pytest.mark.parametrize("device", ["cpu", "device"])
def test_every_stage_takes_time(cfg, device):
    cfg.DATA.AUGMENT_DEVICE = device
    threads = torch.get_num_threads()
    times = time_stages(cfg, torch.device("cpu"), videos_per_round=2, rounds=2, compare_plain=True)
    assert list(times.stages_ms) == list(STAGES) and times.clips_per_video == 2
    assert min(times.stages_ms.values()) >= 0 and times.stages_ms["augment"] > 0
    assert times.plain_ms > 0
    assert torch.get_num_threads() == threads


def test_undecodable_videos_are_left_out_until_none_is_left(cfg, tmp_path, caplog):
    for video in range(3):
        (tmp_path / str(video) / "00001.jpg").write_bytes(b"")
        (tmp_path / str(video) / "00002.jpg").write_bytes(b"")
    cfg.DATA.FRAME_SAMPLING = "dense"
    cfg.DATA.NUM_FRAMES = 6
    cfg.DATA.SAMPLING_RATE = 1  # every frame of the video
    assert time_stages(cfg, torch.device("cpu"), 4, 1).worker_ms > 0
    assert "left out, not decodable" in caplog.text
    (tmp_path / "3" / "00001.jpg").unlink()
    with pytest.raises(ValueError, match=r"none of the videos \[.*\] \(counted from 0\) can be decoded"):
        time_stages(cfg, torch.device("cpu"), 4, 1)


def test_workers_for_a_step():
    stages = dict.fromkeys(STAGES, 10.0)
    times = LoaderTimes(stages, clips_per_video=2)
    assert times.worker_ms == 40  # all but the finish
    assert [times.workers_for(8, step_ms) for step_ms in (320, 319, 160, 1000)] == [1, 2, 2, 1]


@pytest.fixture
def command(monkeypatch):
    """Runs ``tools/benchmark.py loader`` in this process, for a new one imports torch anew."""
    spec = importlib.util.spec_from_file_location("benchmark_tool", ROOT / "tools" / "benchmark.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        config = ROOT / "configs/emim_s16_ssv1_in1k.yaml"
        monkeypatch.setattr("sys.argv", ["benchmark.py", "loader", "--cfg", str(config), *map(str, arguments)])
        try:
            tool.main()
        except (ValueError, OSError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return run


def test_the_command(command, capsys):
    options = ["--synthetic", "64x48", "--videos", 2, "--rounds", 1, "--compare-plain", "--step-ms", 100]
    assert command(*options, "--batches", 2, *SMALL, "DEVICE", "cpu") == 0
    printed = capsys.readouterr().out
    for words in (*STAGES, "torch", "cores", "clips/s per core", "plain pipeline", "a step of 100 ms on 4 videos"):
        assert words in printed
    assert "clips/s with 0 workers" in printed


def test_synthetic_frames_take_the_place_of_any_data(command):
    options = ["--synthetic", "64x48", "--videos", 2, "--rounds", 1, "--stages-only"]
    keys = ["DATA.PACKED", "no/pack", "DATA.EXCLUDE_FILE", "none.csv", "DATA.PATH_PREFIX", "nowhere"]
    assert command(*options, *SMALL, "DEVICE", "cpu", *keys) == 0


def test_a_decoder_that_is_not_installed_is_named(command, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    (tmp_path / "train.txt").write_text("a.mp4,0\nb.mp4,1\n")
    keys = ["DATA.SOURCE", "video", "DATA.PATH_TO_DATA_DIR", tmp_path, "DATA.DECODING_BACKEND", "decord"]
    assert command(*keys, "DEVICE", "cpu") == 2
    assert capsys.readouterr().err.startswith("error: DATA.DECODING_BACKEND is decord, which cannot run here")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--synthetic", "427"], ["--synthetic", "'427'", "WIDTHxHEIGHT"]),
        (["--rounds", "0"], ["--rounds", "positive int", "'0'"]),
        (["--step-ms", "-5"], ["--step-ms", "positive float", "'-5'"]),
        (["DATA.PATH_TO_DATA_DIR", "nowhere"], ["nowhere/train.txt", "does not exist"]),
    ],
)
def test_wrong_options_are_named(command, capsys, options, words):
    try:
        status = command(*options)
    except SystemExit as exit_info:  # argparse
        status = exit_info.code
    assert status == 2
    message = capsys.readouterr().err
    assert [word for word in words if word not in message] == []
