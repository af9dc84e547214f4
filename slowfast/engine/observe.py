"""A look into training: the batch as the model gets it, and the distributions of weights and gradients.

Looking draws no random number and changes nothing, so that a run is the same with and without it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch
from torch import nn

from slowfast.engine.batch_picture import draw_batch, write_png
from slowfast.engine.record import Recorder

logger = logging.getLogger(__name__)

BATCH_PICTURE = "train_batch.png"


class Observer:
    """Shows the first batch of some epochs, and histograms at the end of some.

    Args:
        output_dir: folder of the run; ``train_batch.png`` is written there.
        recorder: gets the picture and the histograms.
        images_period: epochs between two pictures, the first one in the first epoch; 0 for none.
        histogram_period: epochs between two sets of histograms; 0 for none.
        mean: what normalisation subtracted, per channel of RGB in [0, 1].
        std: what it divided by.
        label_smoothing: of the targets.
        class_names: one per class, or None for numbers.
    """

    def __init__(
        self,
        output_dir: str,
        recorder: Recorder,
        images_period: int,
        histogram_period: int,
        mean: Sequence[float],
        std: Sequence[float],
        label_smoothing: float,
        class_names: Sequence[str] | None,
    ) -> None:
        self._path = os.path.join(output_dir, BATCH_PICTURE)
        self._recorder = recorder
        self._images_period = images_period
        self._histogram_period = histogram_period
        self._mean, self._std = mean, std
        self._label_smoothing = label_smoothing
        self._class_names = class_names
        self._due: tuple[int, int] | None = None  # epoch and step of the picture that the next batch gives

    def start_epoch(self, epoch: int, step: int) -> None:
        """Note that an epoch (counted from 0) starts, or is entered again, after ``step`` steps of the training."""
        is_due = self._images_period > 0 and epoch % self._images_period == 0
        self._due = (epoch, step) if is_due else None

    def see_batch(self, clips: torch.Tensor, targets: torch.Tensor) -> None:
        """Draw the batch if a picture is due.

        Args:
            clips: float of shape (B, 3, T, H, W), as the model gets them.
            targets: of shape (B, K), rows summing to one.
        """
        if self._due is None:
            return
        (epoch, step), self._due = self._due, None
        pixels = draw_batch(
            clips,
            targets,
            self._mean,
            self._std,
            self._label_smoothing,
            self._class_names,
            title=f"Training batch of epoch {epoch + 1} as the model sees it",
        )
        write_png(pixels, self._path)
        self._recorder.image("train_batch", pixels, step)
        logger.info("epoch %d: a picture of the first batch is in %s", epoch + 1, self._path)

    def end_epoch(self, model: nn.Module, epoch: int, step: int) -> None:
        """Record the weights after an epoch (counted from 0), and the gradients of its last step, after clipping."""
        if self._histogram_period == 0 or (epoch + 1) % self._histogram_period:
            return
        model = getattr(model, "module", model)  # of DistributedDataParallel
        for kind in ("weights", "gradients"):
            tensors = (
                (f"{kind}/{name}", parameter if kind == "weights" else parameter.grad)
                for name, parameter in model.named_parameters()
            )
            self._recorder.histograms(((name, tensor) for name, tensor in tensors if tensor is not None), step)


def build_observer(cfg, recorder: Recorder, is_main: bool, class_names: Sequence[str] | None) -> Observer:
    """Build the observer of a process; only the main one looks.

    Raises:
        ValueError: a wrong setting of TENSORBOARD, naming it.
    """
    for key in ("IMAGES_PERIOD", "HISTOGRAM_PERIOD"):
        if cfg.TENSORBOARD[key] < 0:
            raise ValueError(f"TENSORBOARD.{key} is {cfg.TENSORBOARD[key]}; allowed: 0 (off) or more")
    if cfg.TENSORBOARD.HISTOGRAM_PERIOD and not cfg.TENSORBOARD.ENABLE:
        raise ValueError(
            f"TENSORBOARD.HISTOGRAM_PERIOD is {cfg.TENSORBOARD.HISTOGRAM_PERIOD}, but TENSORBOARD.ENABLE is False; "
            "set the one to 0 or the other to True"
        )
    return Observer(
        cfg.OUTPUT_DIR,
        recorder,
        images_period=cfg.TENSORBOARD.IMAGES_PERIOD if is_main else 0,
        histogram_period=cfg.TENSORBOARD.HISTOGRAM_PERIOD if is_main else 0,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE,
        class_names=class_names,
    )
