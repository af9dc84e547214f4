"""The definition of EMIM attention: gathered windows and two sums, readable beside the paper. Any dtype, slow."""

import torch
import torch.nn.functional as F

from slowfast.ops.emim.motion import attend
from slowfast.ops.emim.rules import outside_image
from slowfast.ops.precision import widened, without_autocast


def attend_reference(query, key, value, window, relative_bias, motion, rules):
    """EMIM between the frames of pairs, (B, F, H, W, N, D) each; see :func:`slowfast.ops.emim.emim_attention`."""
    values = gather_windows(value, window, rules.pad_value)  # (B, F, H, W, N, D, P)

    def sum_values(weights: torch.Tensor) -> torch.Tensor:
        with without_autocast(query):
            return torch.einsum("bfhwnp,bfhwndp->bfhwnd", weights.to(values.dtype), values)

    products = window_products(query, key, window, rules.pad_value)
    bias = None if relative_bias is None else relative_bias.flatten(1)  # (N, P)
    return attend(products, bias, query.shape[-1], motion, outside_image(query, window, rules), sum_values)


def window_products(query: torch.Tensor, key: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Return q . k for every key of the window around the query's place, (B, F, H, W, N, P), in float32 or wider."""
    keys = gather_windows(key, window, pad_value)  # (B, F, H, W, N, D, P)
    with without_autocast(query):
        return torch.einsum("bfhwnd,bfhwndp->bfhwnp", widened(query), widened(keys))


def gather_windows(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Gather the window around every token: (B, F, H, W, N, D) -> (B, F, H, W, N, D, P), p = row * K + column."""
    radius = window // 2
    padded = F.pad(x, (0, 0, 0, 0, radius, radius, radius, radius), value=pad_value)
    return padded.unfold(2, window, 1).unfold(3, window, 1).flatten(-2)
