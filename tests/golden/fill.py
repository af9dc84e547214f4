"""Deterministic weights and clips: functions of nothing but a parameter's public name and shape."""

import json
import math
import zlib
from pathlib import Path

import torch


def load_cases() -> dict:
    """Return the golden cases: parameter names and shapes, clip size and float64 logits of released architectures."""
    return json.loads((Path(__file__).parent / "cases.json").read_text())


def golden_state(keys: list) -> dict[str, torch.Tensor]:
    """Return a float64 state dict for (name, shape) pairs: two sine waves per tensor, scaled by its kind."""
    state = {}
    for name, shape in keys:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.long)
            continue
        phase = (zlib.crc32(name.encode()) % 10007) / 10007 * 2 * math.pi
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        wave = torch.sin(i * 0.7390851332 + phase) + torch.sin(i * 0.0918273645 * (1 + phase / 7) + 2 * phase)
        if name.endswith("running_var"):
            wave = 1.0 + 0.2 * wave.abs()
        elif name.endswith("running_mean") or name.endswith("bias"):
            wave = 0.05 * wave
        elif len(shape) == 1:
            wave = 1.0 + 0.1 * wave
        elif name.endswith("rpb"):
            wave = 0.3 * wave
        else:
            wave = wave * (0.7 / math.sqrt(math.prod(shape[1:])))
        state[name] = wave.reshape(shape)
    return state


def golden_clip(frames: int, size: int) -> torch.Tensor:
    """Return a (1, 3, frames, size, size) float64 clip."""
    i = torch.arange(3 * frames * size * size, dtype=torch.float64)
    wave = torch.sin(i * 0.0137) + torch.sin(i * 0.00031 + 1.0) + 0.5 * torch.sin(i * 0.9)
    return wave.reshape(1, 3, frames, size, size)
