"""Times and memory of whole models, formulation against formulation, in one run."""

from __future__ import annotations

import copy
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.benchmark.plain_model import plain_copy
from slowfast.engine.precision import autocast
from slowfast.models import build_model
from slowfast.models.attention import MotionMlp
from slowfast.models.folding import folded
from slowfast.ops.precision import wide

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# What a model is turned into. Those that are not for training are timed in their forward pass alone.
FORMULATIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": plain_copy,
    "fast": copy.deepcopy,
    "folded": folded,
    "compiled": lambda model: torch.compile(copy.deepcopy(model)),
    # On a GPU the whole pass is recorded once and played back: launches cost the host nothing.
    "graphed": lambda model: torch.compile(folded(model), mode="reduce-overhead"),
}
_FOR_INFERENCE = ("folded", "graphed")


@dataclass(frozen=True)
class Contestant:
    """One model in one precision.

    Attributes:
        name: of the model and its formulation.
        precision: fp32, bf16 or fp16.
        forward: clips -> logits, without gradients, with weights and clips of that dtype.
        step: clips -> logits, with gradients and float32 weights under autocast, as in training; or None.
    """

    name: str
    precision: str
    forward: Callable[[torch.Tensor], torch.Tensor]
    step: Callable[[torch.Tensor], torch.Tensor] | None


@dataclass(frozen=True)
class Measured:
    """Medians of one contestant: milliseconds, and the bytes that a pass holds beyond what was held before it.

    ``logits`` are those of the forward pass.
    """

    name: str
    precision: str
    forward_ms: float
    forward_bytes: int
    step_ms: float | None
    step_bytes: int | None
    logits: torch.Tensor

    def figures(self) -> dict:
        """Return what was measured, without the logits."""
        return {key: value for key, value in vars(self).items() if key != "logits"}


def time_models(
    cfgs: dict[str, Any],
    formulations: Sequence[str],
    precisions: Sequence[str],
    device: torch.device,
    clips: int,
    rounds: int,
    train: bool = True,
) -> list[Measured]:
    """Time the models of configurations, which must take clips of the same size; the plain one of the first only.

    Args:
        cfgs: configurations by file name.
        formulations: names in ``FORMULATIONS``.
        precisions: fp32, bf16, fp16; all of one are timed before the next.
        device: where to.
        clips: of a batch.
        rounds: measurements of each, after one that is not counted.
        train: whether training steps are timed as well.

    Raises:
        ValueError: clips of different sizes, or formulations of one model that do not agree.
    """
    frames, side = common_clip(cfgs)
    torch.manual_seed(0)
    models = {Path(path).stem: random_model(cfg) for path, cfg in cfgs.items()}
    first = next(iter(models))
    batch = torch.randn(clips, 3, frames, side, side, device=device)
    measured = []
    for precision in precisions:
        contestants = [
            contestant(f"{name} {formulation}", FORMULATIONS[formulation](model), precision, device,
                       train and formulation not in _FOR_INFERENCE)
            for name, model in models.items()
            for formulation in formulations
            if formulation != "plain" or name == first
        ]  # fmt: skip
        measured += race(contestants, batch, rounds)
    _check_agreement(measured)
    return measured


def common_clip(cfgs: Mapping[str, Any]) -> tuple[int, int]:
    """Return frames and side (px) of the clips that all configurations, given by file name, train on.

    Raises:
        ValueError: they are not the same.
    """
    sizes = {path: (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE) for path, cfg in cfgs.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"clips (DATA.NUM_FRAMES, DATA.TRAIN_CROP_SIZE) must be of one size, found {sizes}")
    return next(iter(sizes.values()))


def random_model(cfg) -> nn.Module:
    """Build the model of a configuration with a motion branch that does something."""
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, MotionMlp):
            nn.init.xavier_uniform_(module[-1].weight)  # it may start as zero, which would hide it from the comparison
    return model


def _check_agreement(measured: list[Measured]) -> None:
    """Raise ValueError where formulations of a model in float32 give other logits than the first one."""
    first: dict[str, Measured] = {}
    for one in (one for one in measured if one.precision == "fp32"):
        base = first.setdefault(one.name.partition(" ")[0], one)
        if not torch.allclose(one.logits, base.logits, rtol=1e-3, atol=1e-4):
            worst = (one.logits - base.logits).abs().max()
            raise ValueError(f"{one.name} and {base.name} differ by {worst:.2g}: times of them mean nothing")


def contestant(name: str, model: nn.Module, precision: str, device: torch.device, train: bool = True) -> Contestant:
    """Make a contestant of a model, which is left alone: copies are timed."""
    dtype = DTYPES[precision]
    inference = copy.deepcopy(model).to(device, dtype).eval()
    training = copy.deepcopy(model).to(device).train() if train else None

    def forward(clips: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return inference(clips.to(dtype))

    def step(clips: torch.Tensor) -> torch.Tensor:
        training.zero_grad(set_to_none=True)
        with autocast(precision, device):
            logits = training(clips)
        F.cross_entropy(logits.float(), torch.zeros(len(clips), dtype=torch.int64, device=device)).backward()
        return logits.detach()

    return Contestant(name, precision, forward, step if train else None)


def race(contestants: Iterable[Contestant], clips: torch.Tensor, rounds: int) -> list[Measured]:
    """Time contestants in turn, so that all see the same disturbances of the machine.

    Args:
        contestants: each must still be usable after its turn.
        clips: (B, 3, T, H, W), on the device.
        rounds: measurements of each, after one that is not counted.

    Returns:
        For each contestant its medians, and the logits of its forward pass.
    """
    contestants = list(contestants)
    kinds = ("forward", "step")
    passes = [(index, kind) for index, one in enumerate(contestants) for kind in kinds if _pass(one, kind)]
    logits, num_bytes = {}, {}
    times: dict[tuple[int, str], list[float]] = {key: [] for key in passes}
    for index, kind in passes:
        logits[index, kind] = _pass(contestants[index], kind)(clips).cpu()
        # Not in the passes that are timed: they would begin with the memory of the process handed back, and spend
        # time on getting it anew, which a process that runs for longer does not.
        num_bytes[index, kind] = _memory(_pass(contestants[index], kind), clips)
    for _ in range(rounds):
        for index, kind in passes:
            times[index, kind].append(_milliseconds(_pass(contestants[index], kind), clips))
    medians = {key: statistics.median(measured) for key, measured in times.items()}
    return [
        Measured(
            one.name,
            one.precision,
            medians[index, "forward"],
            num_bytes[index, "forward"],
            medians.get((index, "step")),
            num_bytes.get((index, "step")),
            logits[index, "forward"].to(wide(logits[index, "forward"].dtype)),
        )
        for index, one in enumerate(contestants)
    ]


def _pass(one: Contestant, kind: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    return one.forward if kind == "forward" else one.step


def _milliseconds(function: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> float:
    _wait_for(clips.device)
    start = time.perf_counter()
    function(clips)
    _wait_for(clips.device)
    return 1000 * (time.perf_counter() - start)


def _memory(function: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> int:
    """Return the peak of memory in a pass over what was held before it, in bytes."""
    before = _start_peak(clips.device)
    function(clips)
    _wait_for(clips.device)
    return _peak(clips.device) - before


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


_LIBC = ctypes.CDLL(None)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _start_peak(device: torch.device) -> int:
    """Forget the peak so far; return what is held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not _CLEAR.exists():
        raise OSError(f"the peak of memory on a CPU is read from Linux' {_CLEAR}, which is not there")
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)  # what was freed would otherwise be taken again without showing
    _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])
