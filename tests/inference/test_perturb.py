"""Tests with the frames out of order: what they decode, and that they touch nothing of the plain test."""

import csv
import runpy

import numpy as np
import pytest
import torch
from helpers_engine import ROOT

from slowfast.config import load_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.sampling import PERTURBATIONS, perturbed
from slowfast.engine.run import main
from slowfast.utils.results import load_scores

KEPT = (".npz", ".json", ".csv", ".png", ".yaml")


def test_orders_of_frames():
    frames = np.array([2, 3, 5, 8, 13, 21])
    assert perturbed(frames, "reverse", 0).tolist() == [21, 13, 8, 5, 3, 2]
    assert perturbed(frames, "single_frame", 0).tolist() == 6 * [8]
    orders = [perturbed(frames, "shuffle", seed).tolist() for seed in (0, 1, 0)]
    assert sorted(orders[0]) == frames.tolist() and orders[0] == orders[2] != orders[1]


def test_clips_are_those_of_the_plain_test_in_another_order(config):
    dataset = build_dataset(load_cfg(str(config)), "test")
    plain = dataset[3]
    dataset.perturb = "reverse"
    torch.testing.assert_close(dataset[3].clips, plain.clips.flip(2))
    dataset.perturb = "single_frame"
    torch.testing.assert_close(dataset[3].clips, plain.clips[:, :, 2:3].expand_as(plain.clips))


def test_results_stand_beside_those_of_the_plain_test(config, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert main(("train", "test"), "", ["--cfg", str(config), "SOLVER.MAX_EPOCH", "1"]) == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.suffix in KEPT}
    arguments = ["test_net.py", "--cfg", str(config), "SOLVER.MAX_EPOCH", "1", "--perturb"]
    for order in PERTURBATIONS:
        monkeypatch.setattr("sys.argv", [*arguments, order])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools/test_net.py"), run_name="__main__")
        assert ended.value.code == 0
    assert before == {name: (folder / name).read_bytes() for name in before}
    plain, found = (load_scores(str(path / "test_scores.npz")) for path in (folder, folder / "perturb_reverse"))
    assert found.videos.tolist() == plain.videos.tolist() and not np.allclose(found.logits, plain.logits)
    assert "frames: reverse" in found.facts["protocol"]
    with open(folder / "perturb_shuffle" / "difference.csv", newline="") as file:
        *rows, total = csv.DictReader(file)
    assert len(rows) == 12 and int(total["num_videos"]) == 17 == sum(int(row["num_videos"]) for row in rows)
    for row in [row for row in [*rows, total] if row["difference"]]:
        change = float(row["top1_percent"]) - float(row["plain_top1_percent"])
        assert float(row["difference"]) == pytest.approx(change, abs=0.011)

    capsys.readouterr()
    command = ["--cfg", str(config), "SOLVER.MAX_EPOCH", "1", "TEST.NUM_SPATIAL_CROPS", "1"]
    assert (folder / "perturb_single_frame/difference.csv").exists()
    assert main(("test",), "", command, "single_frame") == 0
    assert "there is no difference to it" in capsys.readouterr().out  # of other views
    assert not (folder / "perturb_single_frame/difference.csv").exists()  # nor that of before
    (folder / "test_scores.npz").unlink()
    assert main(("test",), "", command, "single_frame") == 0
    assert "there is no difference to it" in capsys.readouterr().out
