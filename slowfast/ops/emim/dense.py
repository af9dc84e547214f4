"""EMIM attention without gathered windows: dense products per frame pair, windows read from the result as a view.

With the keys on the padded grid, the score of query (y, x) against displacement (dy, dx) lies in the matrix of all
scores at row ``y * W + x`` and column ``(y + dy) * Wp + (x + dx)``: moving one query to the right moves its window one
column to the right. So all windows together are one strided view, and no key or value is ever copied P times.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from slowfast.ops.emim.motion import at_least_float32, motion_features, num_pairs, repeat_last_pair


def emim_dense(query, key, value, relative_bias, motion, pad_value):
    """See :func:`slowfast.ops.emim.emim_attention`."""
    _, frames, height, width, _, channels = query.shape
    window = relative_bias.shape[-1]
    pairs = num_pairs(frames)
    query = _heads_first(query[:, :pairs] * channels**-0.5)  # (B, T-1, N, H*W, D)
    key = _heads_first(_pad(key[:, -pairs:], window, pad_value))  # (B, T-1, N, Hp*Wp, D)
    value = _heads_first(_pad(value[:, -pairs:], window, pad_value))  # (B, T-1, N, Hp*Wp, D)

    scores = query @ key.transpose(-1, -2)  # (B, T-1, N, H*W, Hp*Wp)
    affinity = _ReadWindows.apply(scores, height, width, window)  # (B, T-1, N, H*W, P)
    affinity = at_least_float32(affinity) + relative_bias.flatten(1)[:, None]
    weights = affinity.softmax(dim=-1).to(scores.dtype)
    out = _WriteWindows.apply(weights, height, width, window) @ value  # (B, T-1, N, H*W, D)
    if motion is not None:
        out = out + motion_features(affinity, motion)
    out = out.transpose(2, 3).unflatten(2, (height, width))  # (B, T-1, H, W, N, D)
    return repeat_last_pair(out, frames)


def _pad(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    radius = window // 2
    return F.pad(x, (0, 0, 0, 0, radius, radius, radius, radius), value=pad_value)


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2, 3).transpose(2, 3)  # (B, T, H, W, N, D) -> (B, T, N, H*W, D)


def _windows(scores: torch.Tensor, height: int, width: int, window: int) -> torch.Tensor:
    """View contiguous scores (..., H*W, Hp*Wp) as (..., H, W, K, K), the window of every query."""
    padded_width = width + window - 1
    row = scores.shape[-1]
    *lead, _, _ = scores.shape
    strides = (*scores.stride()[:-2], width * row + padded_width, row + 1, padded_width, 1)
    return scores.as_strided((*lead, height, width, window, window), strides, scores.storage_offset())


class _ReadWindows(torch.autograd.Function):
    """(..., H*W, Hp*Wp) -> (..., H*W, P). Its adjoint is ``_WriteWindows``."""

    @staticmethod
    def forward(ctx, scores, height, width, window):
        ctx.grid = height, width, window
        return _windows(scores.contiguous(), height, width, window).flatten(-2).flatten(-3, -2)

    @staticmethod
    def backward(ctx, grad):
        return _WriteWindows.apply(grad, *ctx.grid), None, None, None


class _WriteWindows(torch.autograd.Function):
    """(..., H*W, P) -> (..., H*W, Hp*Wp), zero outside the windows. Its adjoint is ``_ReadWindows``."""

    @staticmethod
    def forward(ctx, band, height, width, window):
        ctx.grid = height, width, window
        padded = (height + window - 1) * (width + window - 1)
        dense = band.new_zeros((*band.shape[:-1], padded))
        windows = band.unflatten(-1, (window, window)).unflatten(-3, (height, width))  # (..., H, W, K, K)
        _windows(dense, height, width, window).copy_(windows)
        return dense

    @staticmethod
    def backward(ctx, grad):
        return _ReadWindows.apply(grad, *ctx.grid), None, None, None
