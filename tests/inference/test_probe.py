"""Probes of a frozen model: features are computed once, and what can be told from them is told."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_engine import load_tool

from slowfast import load_model
from slowfast.inference import probe as module
from slowfast.inference.probe import PROBES, cached_features, train_probe
from slowfast.utils.errors import UserError


@pytest.mark.parametrize("kind", PROBES)
def test_separable_features_are_separated(kind):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    tokens = torch.randn(40, 3, 16, generator=generator) + 4 * torch.eye(16)[labels][:, None]
    logits = train_probe(PROBES[kind], tokens[:20], labels[:20].tolist(), tokens[20:], 4, 1e-3)
    assert (logits.argmax(1) == labels[20:].numpy()).mean() > 0.9


def test_attention_finds_the_token_that_tells():
    """One token of 30 is marked, and its class is lost in the mean of all."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    tokens = torch.randn(400, 30, 8, generator=generator)
    tokens[:, 0, 0] += 8
    tokens[:, 0, 1] = 2.0 * labels - 1
    right = {}
    for name, kind in PROBES.items():
        logits, again = (
            train_probe(kind, tokens[:200], labels[:200].tolist(), tokens[200:], 2, 1e-3) for _ in range(2)
        )
        np.testing.assert_array_equal(logits, again)
        right[name] = (logits.argmax(1) == labels[200:].numpy()).mean()
    assert right["attentive"] > 0.95 > 0.75 > right["linear"]


@pytest.fixture
def folds(tmp_path, data_dir):
    """Folder of two folds of the miniature clips."""
    lines = (data_dir / "train.txt").read_text().splitlines()
    for fold in range(2):
        (tmp_path / f"data/fold{fold + 1}").mkdir(parents=True)
        for name, own in (("val", lines[fold::2]), ("train", lines[1 - fold :: 2])):
            text = "".join(f"{data_dir}/{line}\n" for line in own)
            (tmp_path / f"data/fold{fold + 1}/{name}.txt").write_text(text)
    (tmp_path / "data/classes.txt").write_bytes((data_dir / "classes.txt").read_bytes())
    return tmp_path / "data"


def test_features_are_computed_once_and_answers_pooled(tmp_path, folds, monkeypatch):
    arguments = ["--model", "emim_tiny_motion", "--data", folds, "--out", tmp_path / "out", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["probe.py", *map(str, arguments)])
    tool = load_tool("probe")
    tool.main()
    first = (tmp_path / "out/crossval.csv").read_bytes()
    monkeypatch.setattr(module, "compute_features", None)
    tool.main()
    assert (tmp_path / "out/crossval.csv").read_bytes() == first
    table = pd.read_csv(tmp_path / "out/crossval.csv")
    assert table.config.tolist() == ["linear", "attentive"] and table.videos.tolist() == [24, 24]


def test_features_of_another_model_are_not_taken(tmp_path, data_dir):
    model, (line, other, *_) = load_model("emim_tiny_motion", "cpu"), (data_dir / "val.txt").read_text().splitlines()
    path, video = str(tmp_path / "features.npz"), f"{data_dir}/{line.split()[0]}"
    first = cached_features(path, model, [video], is_pooled=True)
    assert first.shape == (1, 1, 96)
    assert first[0, 0] == pytest.approx(model.features(video, views="test"), abs=2e-2)
    with torch.no_grad():
        model.model.norm.bias += 1
    changed = cached_features(path, model, [video], is_pooled=True)
    assert changed == pytest.approx(first + 1, abs=1e-2)
    (tmp_path / "clip").symlink_to(video)
    here = [cached_features(path, model, [str(tmp_path / "clip")], is_pooled=True)]
    (tmp_path / "clip").unlink()
    (tmp_path / "clip").symlink_to(f"{data_dir}/{other.split()[0]}")  # another video by the same name
    here += [cached_features(path, model, [str(tmp_path / "clip")], is_pooled=True)]
    assert (here[0] == changed).all() and (here[1] != changed).any()
    with pytest.raises(UserError, match="--decay is nan; allowed: at least 0"):
        module.probe("emim_tiny_motion", str(data_dir), ["linear"], 0, str(tmp_path), decay=float("nan"))
    with pytest.raises(UserError, match="nothing.mp4"):
        cached_features(path, model, ["nothing.mp4"], is_pooled=True)
