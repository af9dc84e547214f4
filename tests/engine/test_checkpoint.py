"""Checkpoints: whole or not there, found again, and refused when they do not fit."""

import os

import pytest
import torch
from torch import nn

from slowfast.engine.checkpoint import (
    changed_settings,
    checkpoint_to_test,
    list_checkpoints,
    load_model_state,
    read_newest,
    save_best,
    save_checkpoint,
)


def save(folder, epoch, steps=0, is_best=False):
    state = {"epoch": epoch, "progress": {"steps": steps}, "weights": torch.full((3,), float(epoch))}
    if is_best:
        save_best(str(folder), state)
    return save_checkpoint(str(folder), state)


def test_newest_is_found_and_older_ones_removed(tmp_path):
    assert read_newest(str(tmp_path)) is None
    for epoch in (1, 2, 9, 10):
        path = save(tmp_path, epoch, is_best=epoch == 2)
    assert read_newest(str(tmp_path))[0] == path
    assert read_newest(str(tmp_path))[1]["epoch"] == 10
    assert [os.path.basename(p) for p in list_checkpoints(str(tmp_path))] == ["epoch_00010.pyth", "epoch_00009.pyth"]
    best = checkpoint_to_test(str(tmp_path), "")
    assert torch.load(best, weights_only=True)["epoch"] == 2
    assert checkpoint_to_test(str(tmp_path), path) == path


def test_checkpoints_within_an_epoch_lie_between_those_of_epochs(tmp_path):
    for epoch, steps in ((1, 0), (1, 20), (1, 100), (2, 0), (2, 5)):
        newest = save(tmp_path, epoch, steps)
        assert list_checkpoints(str(tmp_path))[0] == newest
    names = [os.path.basename(path) for path in list_checkpoints(str(tmp_path))]
    assert names == ["epoch_00002_step_000005.pyth", "epoch_00002.pyth"]


def test_damaged_newest_gives_way_to_the_one_before(tmp_path, caplog):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    with open(newest, "r+b") as file:
        file.truncate(os.path.getsize(newest) // 2)
    assert read_newest(str(tmp_path))[1]["epoch"] == 1
    assert newest in caplog.text and "cannot be read" in caplog.text
    with open(list_checkpoints(str(tmp_path))[1], "wb"):
        pass
    with pytest.raises(ValueError, match="none of the checkpoints"):
        read_newest(str(tmp_path))


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def fail(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="epoch_00002.pyth could not be written.*No space left"):
        save(tmp_path, 2)
    assert os.listdir(tmp_path / "checkpoints") == ["epoch_00001.pyth"]


def test_other_architecture_is_refused_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)).state_dict()
    with pytest.raises(ValueError, match=r"x.pyth .*another architecture.*1.weight is \(5, 3\) in the file, \(4, 3\)"):
        load_model_state(model, state, "x.pyth")
    state.pop("0.bias")
    with pytest.raises(ValueError, match="missing 0.bias"):
        load_model_state(model, state, "x.pyth")


def test_nothing_to_test(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first, or set TEST.CHECKPOINT_FILE_PATH"):
        checkpoint_to_test(str(tmp_path), "")


def test_changed_settings_are_listed():
    old, new = "A: {B: 1, C: [2]}\nD: x\n", "A: {B: 3, C: [2]}\nE: y\n"
    assert changed_settings(old, new) == ["A.B: 1 -> 3", "D: x -> not set", "E: not set -> y"]
