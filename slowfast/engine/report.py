"""Report on a training run: what it counts, logs and draws, and when it has stopped to learn.

Values of the steps stay on the device until they are read, once per LOG_PERIOD.
"""

import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import nn
from torch.utils.data import DataLoader

from slowfast.datasets.loader import Batch
from slowfast.engine.record import Recorder
from slowfast.utils.distributed import Process, all_reduce_sum, gather_to_all
from slowfast.utils.errors import UserError
from slowfast.utils.logging import format_duration, progress_bar
from slowfast.utils.pictures import draw_batch, write_png

logger = logging.getLogger(__name__)

# Steps in a row that TRAIN.ON_NONFINITE skip leaves out before it gives up.
MAX_SKIPPED = 10
# Scale of the loss in fp16 below which gradients overflow whatever it is.
MIN_LOSS_SCALE = 2.0**-10
# Share of the time waiting for data above which an epoch's report says what to do.
STALLED_SHARE = 0.5
# Of many videos, how many an error names; the log names all.
_NUM_NAMED = 5


@dataclass
class Counts:
    """Sums over training steps and all processes, and the rates they give."""

    clips: float = 0.0
    loss: float = 0.0
    correct: float = 0.0
    waited: float = 0.0  # for data (s)
    elapsed: float = 0.0  # s
    bad_videos: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: "Counts") -> None:
        """Add the sums of other steps."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def scalars(self, num_processes: int) -> dict[str, float]:
        """Return means and rates by the names of the event log."""
        return {
            "loss": self.loss / max(self.clips, 1),
            "top1": 100 * self.correct / max(self.clips, 1),
            "clips_per_sec": num_processes * self.clips / max(self.elapsed, 1e-9),
            "wait_share": self.waited / max(self.elapsed, 1e-9),
            "bad_videos": len(self.bad_videos),
        }

    state_dict = asdict


@dataclass(eq=False)
class Report:
    """The report of one process on its training; only the main one writes."""

    recorder: Recorder
    process: Process
    paths: Sequence[str]  # of the training videos, by index
    scaler: torch.amp.GradScaler
    draw: Callable | None  # draws the first batch of some epochs (clips, targets, epoch, step); None for no pictures
    log_period: int  # steps between two readings
    may_skip: bool  # leave steps out that are not finite, instead of ending the run
    max_bad_share: float  # of the videos
    histogram_period: int  # epochs between two sets of histograms; 0 for none
    _steps: list[tuple] = field(default_factory=list)  # unread: number, values on the device, clips, videos, rate
    _recent: Counts = field(default_factory=Counts)  # of this process, since the last reading
    _num_skipped: int = 0  # in a row
    _num_moves: int = 0  # steps that should have changed weights, since these were looked at
    _sums: torch.Tensor | None = None  # of every trained parameter, to see whether it moves

    def watch(self, loader: DataLoader, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``first_step`` on, with a progress bar where there is a terminal."""
        self.epoch, self.num_steps, self._step = epoch, len(loader), first_step
        self._first_step, self._started = first_step, time.perf_counter()
        loader.sampler.set_epoch(epoch, first_step)
        self._bar = progress_bar(
            None, self.num_steps, f"epoch {epoch + 1}", self.process.is_main, initial=first_step, plain_lines=False
        )
        with self._bar:
            batches = iter(loader)
            for _ in range(first_step, self.num_steps):
                started = time.perf_counter()
                if not self._steps:  # the time of saving a checkpoint counts as none of training
                    self._read_at = started
                batch = next(batches)
                self._recent.waited += time.perf_counter() - started
                yield batch
                self._bar.update()

    def add(
        self, batch: Batch, clips: torch.Tensor, targets: torch.Tensor, values: torch.Tensor, learning_rate: float
    ) -> None:
        """Keep what a step gave, see ``train.take_step``, until it is read; draw the first batch of some epochs."""
        if self.draw is not None and self._step == 0 and len(clips):
            self.draw(clips, targets, self.epoch, self.epoch * self.num_steps)
        videos = sorted(set(batch.video_index.tolist()))  # never left the host
        self._steps.append((self._step, values, len(batch.clips), videos, learning_rate))
        self._recent.bad_videos += [{"path": bad.path, "reason": bad.reason} for bad in batch.bad]
        self._step += 1

    def watch_weights(self, model: nn.Module) -> list[str]:
        """Return the trained parameters that have not changed since the last call."""
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._num_moves = 0
        before, self._sums = self._sums, torch.stack([x.detach().double().sum() for x in trained.values()])
        if before is None:
            return []
        # Biases that are still zero move by any rate; a weight that moves at all does so by more.
        return [name for name, move in zip(trained, (self._sums - before).abs().tolist()) if move < 1e-12]

    def is_due(self, step: int) -> bool:
        """Return whether the values are read after ``step`` steps of the epoch."""
        return step % self.log_period == 0

    def read(self, counts: Counts, wants_stop: bool) -> bool:
        """Read the steps since the last time, log them and add them to ``counts``, those of the epoch.

        Returns:
            Whether any process ``wants_stop``.

        Raises:
            FloatingPointError: a step was not finite and must not be skipped, or the loss scale has collapsed.
            UserError: too many bad videos.
        """
        steps, self._steps = self._steps, []
        rows = torch.stack([values for _, values, *_ in steps]).tolist()  # waits for the device
        recent, self._recent = self._recent, Counts()
        recent.elapsed = time.perf_counter() - self._read_at
        for (number, _, num_clips, videos, rate), (loss, correct, norm) in zip(steps, rows, strict=True):
            self._num_moves += math.isfinite(norm) and rate > 0
            if self._is_counted(number, loss, norm, videos):
                recent.add(Counts(num_clips, loss, correct))
        is_stopped, recent = self._agree(recent, wants_stop)
        counts.add(recent)
        bad, num_videos = {bad["path"]: bad["reason"] for bad in counts.bad_videos}, len(self.paths)  # some drawn twice
        if len(bad) > self.max_bad_share * num_videos:
            named = _some([f"{path}: {reason}" for path, reason in bad.items()])
            raise UserError(
                f"{len(bad)} of {num_videos} training videos cannot be decoded, more than DATA.MAX_BAD_SHARE "
                f"{self.max_bad_share:g} allows: {named}"
            )
        self._log(recent, steps[-1][-1], rows[-1][2])
        return is_stopped

    def end_epoch(self, counts: Counts, model: nn.Module) -> None:
        """Log the whole epoch; all processes must call it."""
        for bad in counts.bad_videos:
            self.recorder.event("bad_video", epoch=self.epoch + 1, **bad)
        if counts.bad_videos and self.process.is_main:
            named = _some(["{path}: {reason}".format(**bad) for bad in counts.bad_videos])
            logger.warning("%d videos skipped, not decodable (all in log.jsonl): %s", len(counts.bad_videos), named)
        peak = max(gather_to_all(peak_mib(self.process.device)))
        scalars, step = counts.scalars(self.process.world_size), (self.epoch + 1) * self.num_steps
        self.recorder.scalars("train_epoch", step, epoch=self.epoch + 1, **scalars, peak_memory_mib=round(peak, 1))
        logger.info(
            "epoch %d: loss %.4f, top-1 %.2f %%, %.1f clips/s%s%s, memory at most %.0f MiB",
            self.epoch + 1, scalars["loss"], scalars["top1"], scalars["clips_per_sec"], _waiting(scalars["wait_share"]),
            f", {scalars['bad_videos']} bad videos" if scalars["bad_videos"] else "", peak,
        )  # fmt: skip
        if curves := model.scalars():
            self.recorder.draw("model", step, **curves)
            logger.info("epoch %d: %s", self.epoch + 1, ", ".join(f"{key} {x:.4g}" for key, x in curves.items()))
        if self._num_moves and (unmoved := self.watch_weights(model)):
            if len(unmoved) == len(self._sums):
                raise FloatingPointError(f"epoch {self.epoch + 1} has not changed any weight: raise SOLVER.BASE_LR")
            logger.warning("%d parameters have not changed in this epoch: %s", len(unmoved), _some(unmoved))
        if scalars["wait_share"] > STALLED_SHARE:
            logger.warning(
                "training waited for data: use more DATA_LOADER.NUM_WORKERS; `tools/benchmark.py loader --cfg FILE` "
                "says how many, and where the time goes"
            )
        if self.process.is_main and self.histogram_period and (self.epoch + 1) % self.histogram_period == 0:
            for name, parameter in model.named_parameters():
                tensors = {f"weights/{name}": parameter, f"gradients/{name}": parameter.grad}
                self.recorder.histograms({key: value for key, value in tensors.items() if value is not None}, step)

    def _agree(self, recent: Counts, wants_stop: bool) -> tuple[bool, Counts]:
        """Return whether any process was asked to stop, and the counts of all."""
        *sums, bad_videos = vars(recent).values()
        mine = torch.tensor([*sums, len(bad_videos), wants_stop], dtype=torch.float64, device=self.process.device)
        *sums, num_bad, num_stops = all_reduce_sum(mine).tolist()
        bad_videos = [bad for share in gather_to_all(bad_videos) for bad in share] if num_bad else []
        return num_stops > 0, Counts(*sums, bad_videos)

    def _is_counted(self, number: int, loss: float, norm: float, videos: list[int]) -> bool:
        """Return whether a step was finite, or only the loss scale too high; else report and skip it, or stop.

        All processes have the same gradient norms, so all of them get to the same steps here.
        """
        if math.isfinite(norm):
            self._num_skipped = 0
            return True
        losses, videos = zip(*gather_to_all((loss, [self.paths[video] for video in videos])), strict=True)
        videos = [path for share in videos for path in share]
        reason = "the gradient" if all(map(math.isfinite, losses)) else f"the loss is {sum(losses)}, the gradient"
        where = f"{reason} is {norm} at step {number} of epoch {self.epoch + 1}"
        if self.scaler.is_enabled() and all(map(math.isfinite, losses)):
            if (scale := self.scaler.get_scale()) > MIN_LOSS_SCALE:
                return True
            raise FloatingPointError(f"{where}, and the loss scale has fallen to {scale:.3g}. Try TRAIN.PRECISION bf16")
        self.recorder.event(
            "nonfinite", epoch=self.epoch + 1, step=number, losses=list(map(str, losses)), videos=videos
        )
        self._num_skipped += 1
        if self.may_skip and self._num_skipped <= MAX_SKIPPED:
            logger.warning("%s: step skipped; its videos are in log.jsonl", where)
            return False
        raise FloatingPointError(
            f"{where}{f' after {MAX_SKIPPED} skipped steps in a row' if self.may_skip else ''}; videos {_some(videos)} "
            "(all in log.jsonl). Try TRAIN.PRECISION bf16 or fp32, a lower SOLVER.BASE_LR or a longer "
            "SOLVER.WARMUP_EPOCHS; TRAIN.ON_NONFINITE skip leaves such steps out"
        )

    def _log(self, recent: Counts, learning_rate: float, grad_norm: float) -> None:
        scalars = {"lr": learning_rate, "grad_norm": grad_norm, **recent.scalars(self.process.world_size)}
        step = self.epoch * self.num_steps + self._step
        self.recorder.scalars("train_step", step, epoch=self.epoch + 1, **scalars)
        self._bar.set_postfix(loss=f"{scalars['loss']:.3f}", top1=f"{scalars['top1']:.1f}")
        # The line of the epoch says it all where it is short, and follows at its end.
        if self._bar.disable and self.log_period < self.num_steps > self._step:
            pace = (time.perf_counter() - self._started) / (self._step - self._first_step)
            left = format_duration(pace * (self.num_steps - self._step))
            logger.info(
                "epoch %d step %d/%d: loss %.4f, top-1 %.1f %%, lr %.2e, %.1f clips/s%s, %s left in the epoch",
                self.epoch + 1, self._step, self.num_steps, scalars["loss"], scalars["top1"], learning_rate,
                scalars["clips_per_sec"], _waiting(scalars["wait_share"]), left,
            )  # fmt: skip


def draw_training_batch(
    recorder: Recorder, path: str, period: int, facts: tuple, clips: torch.Tensor, targets: torch.Tensor, epoch: int,
    step: int,
) -> None:  # fmt: skip
    """Draw a batch of every ``period``-th epoch to ``path`` and the recorder; ``facts`` are those of ``draw_batch``."""
    if epoch % period == 0:
        pixels = draw_batch(clips, targets, *facts, title=f"Training batch of epoch {epoch + 1}")
        write_png(pixels, path)
        recorder.image("train_batch", pixels, step)
        logger.info("epoch %d: a picture of the first batch is in %s", epoch + 1, path)


def _waiting(share: float) -> str:
    return f", {100 * share:.0f} % of the time waiting for data" if share >= 0.005 else ""


def _some(items: Sequence[str]) -> str:
    more = f"; and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return "; ".join(items[:_NUM_NAMED]) + more


def peak_mib(device: torch.device) -> float:
    """Return the most memory in use so far (MiB): allocated on a CUDA device, else resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes, or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
