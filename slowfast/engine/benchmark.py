"""Measurements: counts of a model, and times of the EMIM backends as ratios within one run."""

from __future__ import annotations

import statistics
import time

import torch

from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
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
    """Time EMIM attention of one clip on the CPU, the backends in turn so that all see the same disturbances.

    Args:
        frames: frames of the clip.
        size: side of the token grid.
        heads: attention heads.
        channels: channels per head.
        window: side of the window.
        dtype: of all tensors.
        repeats: measurements of each backend, after one that is not counted.

    Returns:
        For each backend the median ``forward_ms`` and ``step_ms`` (forward and backward).
    """
    places = window * window
    shapes = (*[(1, frames, size, size, heads, channels)] * 3, (heads, window, window))
    motion_shapes = ((4 * places, places), (4 * places,), (channels, 4 * places), (channels,))
    tensors = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]
    motion = MotionWeights(*(torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in motion_shapes))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in BACKENDS}
    for _ in range(repeats + 1):
        for name in BACKENDS:
            start = time.perf_counter()
            out = emim_attention(*tensors, motion, backend=name)
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
