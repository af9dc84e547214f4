"""Where the numbers of a run go: one JSON line per event, TensorBoard, and Weights & Biases."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch
import yaml

from slowfast.engine.wandb_run import WandbRun, check_wandb
from slowfast.utils.logging import EventLog

logger = logging.getLogger(__name__)


class Recorder:
    """Records events of a run, until the end of its ``with`` block.

    Args:
        output_dir: folder of the run; ``log.jsonl`` (see :mod:`slowfast.engine.events`) and ``tensorboard/`` are
            written there.
        enabled: False records nothing (all processes but the main one).
        tensorboard: write scalars, texts, images and histograms to TensorBoard too.
        wandb: gets scalars and images too.
    """

    def __init__(self, output_dir: str, enabled: bool, tensorboard: bool, wandb: WandbRun | None = None) -> None:
        self._events = EventLog(output_dir, enabled)
        self._wandb = wandb
        self._writer = None
        if enabled and tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(f"{output_dir}/tensorboard")

    def event(self, name: str, **fields) -> None:
        """Append a JSON line."""
        self._events.write(name, **fields)

    def scalars(self, name: str, step: int, **fields: float) -> None:
        """Append a JSON line and draw every field at ``step`` (training steps since the start of the run)."""
        self.event(name, step=step, **fields)
        if self._writer is not None:
            for field, value in fields.items():
                self._writer.add_scalar(f"{name}/{field}", value, step)
        if self._wandb is not None:
            self._wandb.log(step, {f"{name}/{field}": value for field, value in fields.items()})

    def text(self, name: str, content: str) -> None:
        """Show preformatted text in TensorBoard."""
        if self._writer is not None:
            indented = "\n".join(f"    {line}" for line in content.splitlines())
            self._writer.add_text(name, indented)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 (H, W, 3)."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")
        if self._wandb is not None:
            self._wandb.log_image(step, name, pixels)

    def histograms(self, named_tensors: Iterable[tuple[str, torch.Tensor]], step: int) -> None:
        """Show the distribution of the finite values of every tensor in TensorBoard."""
        for name, tensor in named_tensors if self._writer is not None else ():
            values = tensor.detach().float().flatten()
            finite = values[values.isfinite()]
            if len(finite) < len(values):
                logger.warning("%s: %d of %d values are not finite", name, len(values) - len(finite), len(values))
            if len(finite):
                self._writer.add_histogram(name, finite, step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, error_type, *_) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish(has_failed=error_type is not None)


def build_recorder(cfg, is_main: bool) -> Recorder:
    """Build the recorder of a process; only that of the main one records.

    Raises:
        ValueError: a wrong setting of WANDB, or nobody is logged in there.
        ImportError: WANDB.ENABLE without the package.
        ConnectionError: Weights & Biases cannot be reached.
    """
    wandb = None
    if cfg.WANDB.ENABLE:
        # On every process, so that all of them stop with the same message and none waits for the main one.
        mode = check_wandb(cfg.WANDB.PROJECT, cfg.WANDB.MODE)
        if is_main:
            wandb = WandbRun(
                cfg.OUTPUT_DIR, cfg.WANDB.PROJECT, cfg.WANDB.ENTITY, cfg.WANDB.NAME, mode, yaml.safe_load(cfg.dump())
            )
    return Recorder(cfg.OUTPUT_DIR, is_main, cfg.TENSORBOARD.ENABLE, wandb)
