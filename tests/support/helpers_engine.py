"""Runs of the tools as a user starts them, and what they leave."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from slowfast.utils.logging import read_events

ROOT = Path(__file__).parents[2]


def run_tool(name, *arguments, launcher=(), **options):
    """Run a tool of the repository as a user does; return the finished process with its text output."""
    command = [sys.executable, *launcher, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


class Killed(BaseException):
    """Death of the process, as far as what is on disk is concerned."""


def state(folder, name):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def losses(folder):
    """Return the loss of every step; of those that were taken twice, the last."""
    return {event["step"]: event["loss"] for event in read_events(str(folder), "train_step")}


def results(folder):
    return json.loads((folder / "test_results.json").read_text())
