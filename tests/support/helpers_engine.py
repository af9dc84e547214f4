"""Runs of the tools as a user starts them, and what they leave."""

import importlib.util
import json
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from slowfast.utils.logging import read_events

ROOT = Path(__file__).parents[2]


def run_tool(name, *arguments, launcher=(), **options):
    """Run a tool of the repository as a user does; return the finished process with its text output."""
    command = [sys.executable, *launcher, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def load_tool(name):
    """Return the module of a tool, to call it in this process: a new one imports torch anew."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def free_port():
    """Return a port below those that the kernel gives away itself, or a test beside this one may get it first."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("none of 100 ports is free")


class Killed(BaseException):
    """Death of the process, as far as what is on disk is concerned."""


def die(*_):
    raise Killed


def state(folder, name):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def losses(folder, event="train_step"):
    """Return every (step, loss, accuracy) that is logged; a step taken again counts with all its lines."""
    return {(event["step"], event["loss"], event["top1"]) for event in read_events(str(folder), event)}


def assert_same_end(folder, expected_folder, last):
    """Compare losses, averages of epochs, weights, moments and batch-norm statistics bit for bit."""
    for event in ("train_step", "train_epoch"):
        assert losses(folder, event) == losses(expected_folder, event)
    for part in ("model_state", "ema_state", "optimizer_state", "counts"):
        found, expected = (state(out, last)[part] for out in (folder, expected_folder))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def results(folder):
    return json.loads((folder / "test_results.json").read_text())
