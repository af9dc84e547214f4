"""The definition of EMIM attention: gathered windows and two sums, readable beside the paper. Any dtype, slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from slowfast.ops.emim.motion import at_least_float32, motion_features


def emim_reference(query, key, value, relative_bias, motion, pad_value):
    """See :func:`slowfast.ops.emim.emim_attention`."""
    num_frames, channels = query.shape[1], query.shape[-1]
    window = relative_bias.shape[-1]
    source, target = frame_pairs(num_frames)
    query = query[:, source] * channels**-0.5
    keys = gather_windows(key[:, target], window, pad_value)  # (B, T, H, W, N, D, P)
    values = gather_windows(value[:, target], window, pad_value)  # (B, T, H, W, N, D, P)

    affinity = torch.einsum("bthwnd,bthwndp->bthwnp", query, keys)
    affinity = at_least_float32(affinity) + relative_bias.flatten(1)
    weights = affinity.softmax(dim=-1).to(values.dtype)
    out = torch.einsum("bthwnp,bthwndp->bthwnd", weights, values)
    return out if motion is None else out + motion_features(affinity, motion)


def frame_pairs(num_frames: int) -> tuple[list[int], list[int]]:
    """Return, for every output frame, the frame of the queries and the frame of the keys (0-based)."""
    if num_frames == 1:
        return [0], [0]
    target = [min(t + 1, num_frames - 1) for t in range(num_frames)]
    return [t - 1 for t in target], target


def gather_windows(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Gather the window around every token: (B, T, H, W, N, D) -> (B, T, H, W, N, D, P), p = row * K + column."""
    radius = window // 2
    padded = F.pad(x, (0, 0, 0, 0, radius, radius, radius, radius), value=pad_value)
    return padded.unfold(2, window, 1).unfold(3, window, 1).flatten(-2)
