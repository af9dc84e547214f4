"""Records of a run: one JSON line per event, TensorBoard, Weights & Biases.

``OUTPUT_DIR/log.jsonl`` has an object per line with ``event``, ``time`` (seconds since 1970) and the fields of the
event; a number that is not finite is null. A run that continues repeats the lines of steps that it takes again: the
last one counts. ``slowfast.utils.logging.read_events(OUTPUT_DIR, name)`` returns the events of one name.
"""

import contextlib
import importlib.util
import logging
import time
from pathlib import Path

import numpy as np
import simplejson
import torch
import yaml

from slowfast.utils.errors import UserError
from slowfast.utils.files import replacing
from slowfast.utils.logging import EVENT_LOG, read_events
from slowfast.utils.results import write_json

logger = logging.getLogger(__name__)

# Fields of every event beside "event" and "time". Accuracies, in whose place is mAP where videos have several labels,
# are in percent, epochs count from 1.
_TRAINING = ("step", "epoch", "loss", "top1", "clips_per_sec", "wait_share", "bad_videos")
_ACCURACIES = ("top1", "top5", "mean_class")
EVENTS: dict[str, tuple[str, ...]] = {
    "start": ("command", "git_commit", "python", "versions", "device", "world_size"),
    "train_step": (*_TRAINING, "lr", "grad_norm"),
    "train_epoch": (*_TRAINING, "peak_memory_mib"),
    "nonfinite": ("epoch", "step", "losses", "videos"),
    "bad_video": ("epoch", "path", "reason"),
    "val": ("step", "epoch", "loss", *_ACCURACIES, "num_videos", "bad_videos"),
    "val_ema": ("step", "epoch", "loss", *_ACCURACIES, "num_videos", "bad_videos"),
    "checkpoint": ("epoch", "steps", "path", "best"),
    "test": (
        *_ACCURACIES, "num_videos", "interval95", "interval_method", "num_classes", "num_classes_with_videos",
        "num_views", "views_per_video", "bad_videos", "protocol", "view_protocol", "ensemble_method", "checkpoint",
        "checkpoint_time", "epoch", "selected_on_test", "weights", "precision",
    ),
}  # fmt: skip

WANDB_RUN_ID = "wandb_run_id.txt"


class Recorder:
    """Records events of a run, until the end of its ``with`` block.

    Args:
        output_dir: folder of the run; ``log.jsonl`` and ``tensorboard/`` are written there.
        enabled: False records nothing (all processes but the main one).
        tensorboard: write scalars, texts, images and histograms to TensorBoard too.
        wandb_run: a run of Weights & Biases that mirrors TensorBoard, to be finished at the end.
    """

    def __init__(self, output_dir: str, enabled: bool, tensorboard: bool, wandb_run=None) -> None:
        self.output_dir, self.enabled = output_dir, enabled
        self.path = Path(output_dir, EVENT_LOG)
        # A run that died while writing leaves half a line, which the next event must not continue.
        if enabled and self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n"):
            self._append("\n")
        self._has_board = enabled and tensorboard
        self._wandb_run = wandb_run
        self._writer = None
        # Steps beyond it are taken again: TensorBoard hides what it has of them. To be set before anything is drawn.
        self.resumed_at: int | None = None
        self.environment: dict = {}  # content of environment.json
        self._has_started = False
        self._texts: dict[str, str] = {}  # shown when the board is opened, after it is known where the run resumes

    def _board(self):
        if self._writer is None and self._has_board:
            from torch.utils.tensorboard import SummaryWriter  # takes a second

            purge_step = None if self.resumed_at is None else self.resumed_at + 1
            self._writer = SummaryWriter(f"{self.output_dir}/tensorboard", purge_step=purge_step)
            for name, content in self._texts.items():
                self._writer.add_text(name, "\n".join(f"    {line}" for line in content.splitlines()))
        return self._writer

    def event(self, name: str, **fields) -> None:
        """Append a JSON line; NaN and infinity become null, which plain JSON does not have."""
        expected = set(EVENTS[name]) - set(_ACCURACIES) | {"mAP"} if "mAP" in fields else set(EVENTS[name])
        assert set(fields) == expected, f"fields of event {name}"
        if self.enabled:
            line = {"event": name, "time": round(time.time(), 3), **fields}
            self._append(simplejson.dumps(line, ignore_nan=True) + "\n")

    def begin_anew(self) -> None:
        """Move what an attempt without a checkpoint has logged to ``log.old.jsonl``; TensorBoard hides what it drew."""
        self.resumed_at = 0
        if self.enabled and self.path.exists():
            with self.path.with_name("log.old.jsonl").open("a", encoding="utf-8") as file:
                file.write(self.path.read_text(encoding="utf-8"))
            self.path.unlink()

    def start(self, config: str) -> None:
        """Record settings and environment, once, of a run that nothing has refused: what was there may be replaced."""
        if self.enabled and not self._has_started:
            self._has_started = True
            with replacing(self.path.with_name("config.yaml")) as file:
                file.write(config)
            write_json(str(self.path.with_name("environment.json")), self.environment)
            self.event("start", **self.environment)
            self._texts["config"] = config

    def _append(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error

    def scalars(self, name: str, step: int, **fields: float) -> None:
        """Append a JSON line and draw every field at ``step`` (training steps since the start of the run)."""
        self.event(name, step=step, **fields)
        self.draw(name, step, **fields)

    def draw(self, name: str, step: int, **fields: float) -> None:
        """Draw every field in TensorBoard."""
        for field, value in fields.items() if self._has_board else ():
            self._board().add_scalar(f"{name}/{field}", value, step)

    def has(self, name: str, **fields) -> bool:
        """Return whether an event with these fields is recorded already."""
        return any(fields.items() <= event.items() for event in read_events(self.output_dir, name))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 (H, W, 3)."""
        if self._has_board:
            self._board().add_image(name, pixels, step, dataformats="HWC")

    def histograms(self, tensors: dict[str, torch.Tensor], step: int) -> None:
        """Show the distribution of the finite values of every tensor in TensorBoard."""
        for name, tensor in tensors.items() if self._has_board else ():
            values = tensor.detach().float().flatten()
            finite = values[values.isfinite()]
            if len(finite) < len(values):
                logger.warning("%s: %d of %d values are not finite", name, len(values) - len(finite), len(values))
            if len(finite):
                self._board().add_histogram(name, finite.cpu().numpy(), step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, error_type, *_) -> None:
        # On a full disk the writer fails again; the error that ended the run is the one to be seen.
        with contextlib.suppress(OSError) if error_type else contextlib.nullcontext():
            if self._writer is not None:
                self._writer.close()
        if self._wandb_run is not None:
            self._wandb_run.finish(exit_code=int(error_type is not None))


def build_recorder(cfg, is_main: bool) -> Recorder:
    """Build the recorder of a process; only that of the main one records."""
    wandb, board = cfg.WANDB, cfg.TENSORBOARD
    if board.HISTOGRAM_PERIOD and not board.ENABLE:
        raise UserError(f"TENSORBOARD.HISTOGRAM_PERIOD is {board.HISTOGRAM_PERIOD}, but TENSORBOARD.ENABLE is False")
    if wandb.ENABLE:  # on every process, so that all of them stop with the same message
        found = importlib.util.find_spec("wandb")
        if found is None or found.origin is None:  # the package calls the folder of its data like itself
            raise UserError("WANDB.ENABLE is True, but the package is not installed: pip install wandb")
        if not wandb.PROJECT or not board.ENABLE:
            raise UserError("WANDB.ENABLE needs WANDB.PROJECT, any new name too, and TENSORBOARD.ENABLE, to mirror it")
    run = _start_wandb(cfg.OUTPUT_DIR, wandb.PROJECT, yaml.safe_load(cfg.dump())) if wandb.ENABLE and is_main else None
    return Recorder(cfg.OUTPUT_DIR, is_main, board.ENABLE, run)


def _start_wandb(output_dir: str, project: str, config: dict):
    """Start or continue the run whose identity is in ``wandb_run_id.txt``."""
    import wandb

    path = Path(output_dir, WANDB_RUN_ID)
    run_id = path.read_text().strip() if path.exists() else None
    settings = {"settings": wandb.Settings(console="off"), "allow_val_change": True, "sync_tensorboard": True}
    try:
        run = wandb.init(project=project, id=run_id, resume="allow", dir=output_dir, config=config, **settings)
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases: {error} (log in: `wandb login`; WANDB_MODE=offline needs none)") from error
    path.write_text(f"{run.id}\n")
    return run
