"""Measurements: counts of a model, and times of operators as ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from slowfast.models import build_model
from slowfast.models.complexity import count_macs, count_parameters
from slowfast.ops.depthwise import DepthwiseConv3d
from slowfast.ops.emim import BACKENDS, EmimRules, MotionWeights, emim_attention


def count_model(cfg) -> dict:
    """Count a configuration for one training clip.

    Returns:
        ``parameters``; ``gflops``, billions of multiply-accumulates; and the same ``by_stage`` and ``by_kind`` of
        operator, which each add up to ``gflops``.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    counts = count_macs(model, (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE))
    return {
        "parameters": count_parameters(model),
        "gflops": counts.macs / 1e9,
        "by_stage": {name: macs / 1e9 for name, macs in counts.by_stage.items()},
        "by_kind": {name: macs / 1e9 for name, macs in counts.by_kind.items()},
    }


def time_emim(
    frames: int = 16,
    size: int = 14,
    heads: int = 5,
    channels: int = 64,
    window: int = 7,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
    clips: int = 1,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Time EMIM attention with every backend that can run.

    Args:
        frames: frames of a clip.
        size: side of the token grid.
        heads: attention heads.
        channels: channels per head.
        window: side of the window.
        dtype: of all tensors.
        repeats: measurements of each backend, after one that is not counted.
        clips: size of the batch.
        device: "cpu" or "cuda".

    Returns:
        For each backend what :func:`time_in_turn` says.
    """
    places = window * window
    tokens = (clips, frames, size, size, 3, heads, channels)
    motion_shapes = ((4 * places, places), (4 * places,), (channels, 4 * places), (channels,))

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype, device=device, requires_grad=True)

    query, key, value = draw(*tokens).unbind(-3)  # views of one projection, as in the model
    bias, motion = draw(heads, window, window), MotionWeights(*(draw(*shape) for shape in motion_shapes))
    rules = EmimRules()
    functions = {}
    for name, backend in BACKENDS.items():
        function = partial(emim_attention, query, key, value, window, bias, motion, rules, name)
        if backend.why_not(query, window, rules, True) is None:
            functions[name] = function
        elif backend.why_not(query, window, rules, False) is None:
            functions[name] = torch.no_grad()(function)
    return time_in_turn(functions, repeats, device)


def time_depthwise(
    clips: int = 1,
    frames: int = 16,
    size: int = 56,
    channels: int = 64,
    kernel: int = 5,
    repeats: int = 5,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Time the depthwise convolution against torch's; see :func:`time_in_turn` for what is returned.

    On a GPU ours is torch's, and what matters is the layout: contiguous tensors go to kernels of PyTorch's own, those
    with the channels last to cuDNN.
    """
    layouts = {"torch": torch.channels_last_3d, "torch, contiguous": torch.contiguous_format}
    functions = {}
    for name, layout in layouts.items():
        x = torch.randn(clips, channels, frames, size, size, dtype=dtype, device=device)
        x = x.contiguous(memory_format=layout).requires_grad_()
        modules = {name: torch.nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels)}
        if name == "torch" and device == "cpu":
            modules["ours"] = DepthwiseConv3d(channels, kernel)
        functions.update({key: partial(module.to(device, dtype), x) for key, module in modules.items()})
    return time_in_turn(functions, repeats, device)


def time_in_turn(
    functions: dict[str, Callable[[], torch.Tensor]], repeats: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Time functions in turn, so that all see the same disturbances of the machine.

    On a GPU the time is that between two marks in its queue. A large tensor is written before the first: inputs are
    then not in the cache, and the host has a head start with its launches.

    Args:
        functions: by name; each returns a tensor.
        repeats: measurements of each, after one that is not counted.
        device: where they run, "cpu" or "cuda".

    Returns:
        For each name the median ``forward_ms``, and ``step_ms`` (forward and backward) if the result has gradients.
    """
    mark, ms_between = _HOST_CLOCK if device == "cpu" else _DEVICE_CLOCK
    flood = torch.empty(0 if device == "cpu" else 2**28, dtype=torch.uint8, device=device)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            flood.zero_()
            start = mark()
            out = function()
            forward, end = mark(), None
            if out.requires_grad:
                out.backward(torch.ones_like(out))
                end = mark()
            times[name].append({"forward_ms": ms_between(start, forward)})
            if end is not None:
                times[name][-1]["step_ms"] = ms_between(start, end)
    return {
        name: {key: statistics.median(one[key] for one in measured[1:]) for key in measured[0]}
        for name, measured in times.items()
    }


def _record_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _ms_between_events(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    end.synchronize()
    return start.elapsed_time(end)


# Each a function that returns a mark, and one that returns the milliseconds between two.
_HOST_CLOCK = (time.perf_counter, lambda start, end: 1000 * (end - start))
_DEVICE_CLOCK = (_record_event, _ms_between_events)
