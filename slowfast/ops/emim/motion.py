"""Affinities from products, and motion features from affinities: the parts that all backends share."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from slowfast.ops.precision import autocast_dtype, without_autocast


class MotionWeights(NamedTuple):
    """Weights of the motion MLP f in M = f(A) (Eq. 5): (G, P), (G,), (D, G), (D,)."""

    weight1: torch.Tensor
    bias1: torch.Tensor
    weight2: torch.Tensor
    bias2: torch.Tensor


# QuickGELU(x) = x sigmoid(1.702 x), the activation of the released model.
QUICK_GELU_SLOPE = 1.702


def motion_features(affinity: torch.Tensor, motion: MotionWeights) -> torch.Tensor:
    """Turn affinities (..., P) into motion features (..., D): M = f(A), Eq. 5.

    In the dtype of the weights or of autocast, but never in float16, whose range raw affinities may leave.
    """
    if (autocast_dtype(affinity) or motion.weight1.dtype) == torch.float16:
        with without_autocast(affinity):
            return motion_features(affinity, MotionWeights(*(weight.float() for weight in motion)))
    # QuickGELU with its slope moved into the weights: one pass over the hidden channels, of which there are many.
    slope = QUICK_GELU_SLOPE
    affinity = affinity.to(motion.weight1.dtype)
    hidden = F.silu(F.linear(affinity, slope * motion.weight1, slope * motion.bias1))
    return F.linear(hidden, motion.weight2 / slope, motion.bias2)


def scale_and_bias(products: torch.Tensor, bias: torch.Tensor | None, channels: int) -> torch.Tensor:
    """Return the affinities of the products q . k, (..., P): divided by sqrt(D), plus the bias (Eq. 3)."""
    scale = channels**-0.5
    return products * scale if bias is None else torch.add(bias, products, alpha=scale)


def attend(products, bias, channels: int, motion: MotionWeights | None, outside, context) -> torch.Tensor:
    """Return F + M of the products q . k (Eqs. 3 to 5), ``context`` being the sum of the values by their weights.

    Places ``outside`` (bool, or None) have no share of the softmax, and an affinity of 0 for the motion features.
    """
    affinity = weights = scale_and_bias(products, bias, channels)
    if outside is not None:
        affinity, weights = affinity.masked_fill(outside, 0), affinity.masked_fill(outside, float("-inf"))
    out = context(weights.softmax(dim=-1))
    return out if motion is None else out + motion_features(affinity, motion).to(out.dtype)
