"""The definition of EMIM attention: gathered windows and two sums, readable beside the paper. Any dtype, slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from slowfast.ops.emim.motion import motion_features, scale_and_bias
from slowfast.ops.emim.rules import every_frame, places_inside
from slowfast.ops.precision import widened, without_autocast


def emim_reference(query, key, value, window, relative_bias, motion, rules):
    """See :func:`slowfast.ops.emim.emim_attention`."""
    height, width, _, channels = query.shape[2:]
    source, target, _ = every_frame(query.shape[1], rules)
    keys = gather_windows(key[:, target], window, rules.pad_value)  # (B, T, H, W, N, D, P)
    values = gather_windows(value[:, target], window, rules.pad_value)  # (B, T, H, W, N, D, P)
    products = window_products(query[:, source], keys)  # (B, T, H, W, N, P)
    affinity = scale_and_bias(products, None if relative_bias is None else relative_bias.flatten(1), channels)
    weights = affinity
    if rules.padding == "mask":
        outside = ~places_inside(height, width, window, query.device)[:, :, None]  # (H, W, 1, P)
        affinity, weights = affinity.masked_fill(outside, 0), affinity.masked_fill(outside, float("-inf"))
    weights = weights.softmax(dim=-1).to(values.dtype)
    with without_autocast(query):
        out = torch.einsum("bthwnp,bthwndp->bthwnd", weights, values)
    return out if motion is None else out + motion_features(affinity, motion).to(out.dtype)


def cost_volume_reference(query, key, window, rules):
    """See :func:`slowfast.ops.emim.cost_volume`."""
    source, target, _ = every_frame(query.shape[1], rules)
    return window_products(query[:, source], gather_windows(key[:, target], window, rules.pad_value))


def window_products(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return q . k for queries (B, T, H, W, N, D) and windows (B, T, H, W, N, D, P), in float32 or wider."""
    with without_autocast(query):
        return torch.einsum("bthwnd,bthwndp->bthwnp", widened(query), widened(keys))


def gather_windows(x: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Gather the window around every token: (B, T, H, W, N, D) -> (B, T, H, W, N, D, P), p = row * K + column."""
    radius = window // 2
    padded = F.pad(x, (0, 0, 0, 0, radius, radius, radius, radius), value=pad_value)
    return padded.unfold(2, window, 1).unfold(3, window, 1).flatten(-2)
