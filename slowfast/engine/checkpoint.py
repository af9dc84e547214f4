"""Checkpoints: written whole or not at all, found again, loaded without running code from them."""

from __future__ import annotations

import glob
import logging
import os
import re

import torch
import yaml
from torch import nn

from slowfast.config.parser import flat_settings
from slowfast.models.pretrained import read_checkpoint

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = "best.pyth"
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?\.pyth$")


def save_checkpoint(output_dir: str, state: dict, num_newest: int = 2, every: int = 0) -> str:
    """Write ``state`` atomically, remove checkpoints that are not to be kept, and return its path.

    A crash while writing leaves the older checkpoints as they are.

    Args:
        output_dir: folder of the run.
        state: plain data and tensors, with ``epoch`` (epochs done) and ``progress``, whose ``steps`` are those done in
            the epoch after them.
        num_newest: how many of the newest to keep; at least 2, in case the newest is damaged.
        every: keep those of every so many epochs too; 0 keeps none.

    Raises:
        OSError: the disk is full or the folder cannot be written, naming the path.
    """
    steps = state["progress"]["steps"]
    name = f"epoch_{state['epoch']:05d}" + (f"_step_{steps:06d}" if steps else "") + ".pyth"
    path = _write(output_dir, name, state)
    for old in list_checkpoints(output_dir)[num_newest:]:
        epoch, steps = _position(old)
        if not (every and steps == 0 and epoch % every == 0):
            os.remove(old)
    return path


def save_best(output_dir: str, state: dict) -> str:
    """Write ``state`` atomically in place of the best checkpoint so far, and return its path.

    Raises:
        OSError: as :func:`save_checkpoint`.
    """
    return _write(output_dir, BEST, state)


def list_checkpoints(output_dir: str) -> list[str]:
    """Return the checkpoints of a run, newest first, without the best one."""
    paths = glob.glob(os.path.join(glob.escape(os.path.join(output_dir, FOLDER)), "epoch_*.pyth"))
    return sorted((path for path in paths if _NAME.search(path)), key=_position, reverse=True)


def _position(path: str) -> tuple[int, int]:
    """Return epochs done and steps of the next one, from the name of a checkpoint."""
    match = _NAME.search(path)
    return int(match[1]), int(match[2] or 0)


def read_newest(output_dir: str) -> tuple[str, dict] | None:
    """Return path and content of the newest readable checkpoint of a run; None if it has none.

    A damaged one is reported and the one before it is used.

    Raises:
        ValueError: there are checkpoints, but none can be read.
    """
    paths = list_checkpoints(output_dir)
    for path in paths:
        try:
            return path, read_checkpoint(path)
        except ValueError as error:
            logger.warning("%s; trying the checkpoint before it", error)
    if paths:
        raise ValueError(f"none of the checkpoints in {output_dir} can be read; remove them or change OUTPUT_DIR")
    return None


def checkpoint_to_test(output_dir: str, configured: str) -> str:
    """Return the checkpoint to test: ``configured`` if given, else the run's best, else its newest.

    Raises:
        FileNotFoundError: there is none, saying what to do.
    """
    if configured:
        return configured
    best = os.path.join(output_dir, FOLDER, BEST)
    candidates = [path for path in [best, *list_checkpoints(output_dir)] if os.path.isfile(path)]
    if not candidates:
        raise FileNotFoundError(
            f"no checkpoint in {os.path.join(output_dir, FOLDER)}: train first, or set TEST.CHECKPOINT_FILE_PATH"
        )
    return candidates[0]


def load_model_state(model: nn.Module, state: dict[str, torch.Tensor], path: str) -> None:
    """Fill ``model`` with every tensor of a checkpoint.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape: the checkpoint of another architecture.
    """
    target = model.state_dict()
    problems = [f"missing {name}" for name in target if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in target]
    problems += [
        f"{name} is {tuple(state[name].shape)} in the file, {tuple(target[name].shape)} in the model"
        for name in target
        if name in state and state[name].shape != target[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{path} is a checkpoint of another architecture than the configuration describes: "
            f"{'; '.join(problems[:5])}{more}. To start from its weights instead, use MODEL.PRETRAINED"
        )
    model.load_state_dict(state)


def changed_settings(old: str, new: str) -> list[str]:
    """Return "KEY: old -> new" for every setting in which two dumped configurations differ."""
    old_settings, new_settings = flat_settings(yaml.safe_load(old)), flat_settings(yaml.safe_load(new))
    keys = sorted(old_settings.keys() | new_settings.keys())
    return [
        f"{key}: {old_settings.get(key, 'not set')} -> {new_settings.get(key, 'not set')}"
        for key in keys
        if old_settings.get(key) != new_settings.get(key)
    ]


def _write(output_dir: str, name: str, state: dict) -> str:
    folder = os.path.join(output_dir, FOLDER)
    path = os.path.join(folder, name)
    temporary = f"{path}.writing"  # the main process is the only one that writes
    try:
        os.makedirs(folder, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        # torch reports a full disk as a RuntimeError of its zip writer.
        if isinstance(error, (OSError, RuntimeError)):
            raise OSError(f"checkpoint {path} could not be written: {error}") from error
        raise
    return path
