"""EMIM attention from the operators of ``windows``: exact, and the fastest on a CPU."""

from __future__ import annotations

from slowfast.ops.emim import windows
from slowfast.ops.emim.motion import motion_features, scale_and_bias
from slowfast.ops.emim.rules import frame_pairs, places_inside, take_frames


def emim_dense(query, key, value, window, relative_bias, motion, rules):
    """See :func:`slowfast.ops.emim.emim_attention`."""
    height, width, _, channels = query.shape[2:]
    pairs = frame_pairs(query.shape[1], rules)
    query, key, value = (
        take_frames(x, frames) for x, frames in ((query, pairs.source), (key, pairs.target), (value, pairs.target))
    )
    bias = None if relative_bias is None else relative_bias.flatten(1)  # (N, P)
    affinity = scale_and_bias(windows.affinity(query, key, window, rules.pad_value), bias, channels)
    weights = affinity  # (B, F, H, W, N, P)
    if rules.padding == "mask":
        outside = ~places_inside(height, width, window, query.device)[:, :, None]  # (H, W, 1, P)
        affinity, weights = affinity.masked_fill(outside, 0), affinity.masked_fill(outside, float("-inf"))
    out = windows.context(weights.softmax(dim=-1), value, window, rules.pad_value)
    if motion is not None:
        out = out + motion_features(affinity, motion).to(out.dtype)
    return take_frames(out, pairs.output)


def cost_volume_dense(query, key, window, rules):
    """See :func:`slowfast.ops.emim.cost_volume`."""
    pairs = frame_pairs(query.shape[1], rules)
    query, key = take_frames(query, pairs.source), take_frames(key, pairs.target)
    return take_frames(windows.affinity(query, key, window, rules.pad_value), pairs.output)
