"""The dense formulation in operators that every exporter knows: what ``dense`` computes, for programs to be exported.

Instead of strided views, which ONNX does not have, rows are moved by padding and cutting at another length: rows of R
numbers, each padded by s and read again as rows of R, lie s places further to the right, one after the other.

Shapes: query, key, value (B, F, H, W, N, D); weights (B, F, H, W, N, P); h x W queries of a block see h' x Wp keys.
"""

import torch
import torch.nn.functional as F

from slowfast.ops.precision import widened

# Larger frames are cut into blocks of K rows.
WHOLE_FRAME_TOKENS = 64


def affinity(query: torch.Tensor, key: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Return query . key for every key of the window around the query's place: (B, F, H, W, N, P)."""
    width = query.shape[3]
    query, keys = _heads_first(widened(query)), _pad(widened(key), window, pad_value)  # (B, F, N, H, W, D)
    parts = []
    for start, stop in _row_blocks(query, window):
        tokens, near = query[:, :, :, start:stop], keys[:, :, :, start : stop + window - 1]
        scores = tokens.flatten(3, 4) @ near.flatten(3, 4).mT  # (B, F, N, h*W, h'*Wp)
        scores = _skew(scores.unflatten(3, (-1, width)))  # (B, F, N, h, W, h'*Wp), all windows from the first column on
        scores = scores.unflatten(-1, near.shape[3:5])[..., :window].flatten(4)  # (B, F, N, h, W*h'*K)
        scores = _skew(scores, window).unflatten(-1, (width, near.shape[3], window))[..., :window, :]
        parts.append(scores.flatten(-2))  # (B, F, N, h, W, P)
    return torch.cat(parts, 3).permute(0, 1, 3, 4, 2, 5)


def context(weights: torch.Tensor, value: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Return the weighted sum of the values in the window around every place: (B, F, H, W, N, D)."""
    height, width = value.shape[2:4]
    values = _pad(value, window, pad_value)  # (B, F, N, Hp, Wp, D)
    weights = _heads_first(weights.to(value.dtype)).unflatten(-1, (window, window))  # (B, F, N, H, W, K, K)
    parts = []
    for start, stop in _row_blocks(weights, window):
        near = values[:, :, :, start : stop + window - 1]
        some = F.pad(weights[:, :, :, start:stop], (0, 0, 0, stop - start - 1))  # (B, F, N, h, W, h', K)
        some = _unskew(some.flatten(4), window).unflatten(-1, (width, -1, window))
        some = _unskew(F.pad(some, (0, width - 1)).flatten(-2))  # (B, F, N, h, W, h'*Wp)
        parts.append(some.flatten(3, 4) @ near.flatten(3, 4))  # (B, F, N, h*W, D)
    return torch.cat(parts, 3).unflatten(3, (height, width)).permute(0, 1, 3, 4, 2, 5)


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    """(B, F, H, W, N, D) -> (B, F, N, H, W, D)."""
    return x.permute(0, 1, 4, 2, 3, 5)


def _pad(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """(B, F, H, W, N, D) -> (B, F, N, Hp, Wp, D), ``pad_value`` around."""
    radius = window // 2
    return F.pad(_heads_first(x), (0, 0, radius, radius, radius, radius), value=pad_value)


def _row_blocks(x: torch.Tensor, window: int) -> list[tuple[int, int]]:
    """Return first and last row of blocks that cover the rows of x (B, F, N, H, W, ...)."""
    height, width = x.shape[3:5]
    step = height if height * width <= WHOLE_FRAME_TOKENS else min(window, height)
    return [(start, min(start + step, height)) for start in range(0, height, step)]


def _skew(x: torch.Tensor, step: int = 1) -> torch.Tensor:
    """Move row r of (..., rows, R) to the left by r * step; what comes in from the right has no meaning."""
    rows, length = x.shape[-2:]
    x = F.pad(x.flatten(-2), (0, rows * step))
    return x.unflatten(-1, (rows, length + step))[..., :length]


def _unskew(x: torch.Tensor, step: int = 1) -> torch.Tensor:
    """Move row r of (..., rows, R) to the right by r * step; the last numbers of rows, which leave, must be zero."""
    rows, length = x.shape[-2:]
    return F.pad(x, (0, step)).flatten(-2)[..., : rows * length].unflatten(-1, (rows, length))
