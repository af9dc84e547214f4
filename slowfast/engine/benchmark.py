"""Measurements: counts of a model, and times of operators as ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.ops.depthwise import DepthwiseConv3d
from slowfast.ops.emim import BACKENDS, MotionWeights, emim_attention


def count_model(cfg) -> dict[str, float]:
    """Return ``parameters`` and ``gflops`` (billions of multiply-accumulates per training clip) of a configuration."""
    with torch.device("meta"):
        model = build_model(cfg)
    clip_shape = (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
    return {"parameters": count_parameters(model), "gflops": count_gmacs(model, clip_shape)}


def time_emim(
    frames: int = 16,
    size: int = 14,
    heads: int = 5,
    channels: int = 64,
    window: int = 7,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
) -> dict[str, dict[str, float]]:
    """Time EMIM attention of one clip on the CPU with every backend.

    Args:
        frames: frames of the clip.
        size: side of the token grid.
        heads: attention heads.
        channels: channels per head.
        window: side of the window.
        dtype: of all tensors.
        repeats: measurements of each backend, after one that is not counted.

    Returns:
        For each backend what :func:`time_in_turn` says.
    """
    places = window * window
    shapes = (*[(1, frames, size, size, heads, channels)] * 3, (heads, window, window))
    motion_shapes = ((4 * places, places), (4 * places,), (channels, 4 * places), (channels,))
    tensors = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]
    motion = MotionWeights(*(torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in motion_shapes))
    return time_in_turn(
        {name: partial(emim_attention, *tensors, motion, backend=name) for name in BACKENDS}, repeats
    )


def time_depthwise(
    clips: int = 1, frames: int = 16, size: int = 56, channels: int = 64, kernel: int = 5, repeats: int = 5
) -> dict[str, dict[str, float]]:
    """Time the depthwise convolution against torch's on the CPU; see :func:`time_in_turn` for what is returned."""
    shape = (clips, channels, frames, size, size)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    modules = {
        "torch": torch.nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels),
        "ours": DepthwiseConv3d(channels, kernel),
    }
    return time_in_turn({name: partial(module, x) for name, module in modules.items()}, repeats)


def time_in_turn(functions: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, dict[str, float]]:
    """Time functions in turn, so that all see the same disturbances of the machine.

    Args:
        functions: by name; each returns a tensor that can be differentiated.
        repeats: measurements of each, after one that is not counted.

    Returns:
        For each name the median ``forward_ms`` and ``step_ms`` (forward and backward).
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            out = function()
            forward = time.perf_counter()
            out.sum().backward()
            times[name].append((forward - start, time.perf_counter() - start))
    return {
        name: {
            "forward_ms": 1000 * statistics.median(forward for forward, _ in measured[1:]),
            "step_ms": 1000 * statistics.median(step for _, step in measured[1:]),
        }
        for name, measured in times.items()
    }
