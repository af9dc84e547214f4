"""EMIM over tiles instead of sliding windows (arXiv 2510.18705, Table 6): products between tiles of two frames."""

import torch
import torch.nn.functional as F

from slowfast.ops.emim.motion import attend
from slowfast.ops.precision import widened, without_autocast


def attend_tiled(query, key, value, window, relative_bias, motion, rules):
    """EMIM between the frames of pairs, (B, F, H, W, N, D) each, with ``rules.sampling`` "tiled"."""
    height, width, _, channels = query.shape[2:]
    outside = None
    if rules.padding == "mask":
        inside = query.new_ones(1, 1, height, width, 1, 1)
        outside = split(inside, window, 0.0).mT == 0  # (1, 1, Y, X, 1, 1, P)
    query = split(query, window, 0.0)  # (B, F, Y, X, N, P, D), P queries of a tile
    key, value = (split(x, window, rules.pad_value) for x in (key, value))

    def sum_values(weights: torch.Tensor) -> torch.Tensor:
        with without_autocast(query):
            return weights.to(value.dtype) @ value  # (B, F, Y, X, N, P, D)

    with without_autocast(query):
        products = widened(query) @ widened(key).mT  # (B, F, Y, X, N, P, P)
    out = attend(products, _pairwise_bias(relative_bias, window), channels, motion, outside, sum_values)
    x = out.unflatten(5, (window, window)).permute(0, 1, 2, 5, 3, 6, 4, 7)  # (B, F, Y, K, X, K, N, D)
    return x.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def split(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Cut into tiles, padded below and to the right: (B, F, H, W, N, D) -> (B, F, Y, X, N, P, D)."""
    height, width = x.shape[2:4]
    x = F.pad(x, (0, 0, 0, 0, 0, -width % window, 0, -height % window), value=pad_value)
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window))  # (B, F, Y, K, X, K, N, D)
    return x.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5, 6)


def _pairwise_bias(table: torch.Tensor | None, window: int) -> torch.Tensor | None:
    """Look up the bias of every pair of places in a tile by their displacement: (N, 2K-1, 2K-1) -> (N, P, P)."""
    if table is None:
        return None
    places = torch.arange(window * window, device=table.device)
    rows, columns = places // window, places % window
    vertical = rows - rows[:, None] + window - 1  # (P, P): row of the key minus row of the query
    horizontal = columns - columns[:, None] + window - 1
    return table[:, vertical, horizontal]
