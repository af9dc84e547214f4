"""What the backends share: pairing of frames, the motion MLP and the softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class MotionWeights(NamedTuple):
    """Weights of the motion MLP f in M = f(A) (Eq. 5): (G, P), (G,), (D, G), (D,)."""

    weight1: torch.Tensor
    bias1: torch.Tensor
    weight2: torch.Tensor
    bias2: torch.Tensor


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Return x * sigmoid(1.702 x), the GELU approximation of the released model."""
    return x * torch.sigmoid(1.702 * x)


def motion_features(affinity: torch.Tensor, motion: MotionWeights) -> torch.Tensor:
    """Turn affinities (..., P) into motion features (..., D): M = f(A), Eq. 5."""
    hidden = quick_gelu(F.linear(affinity.to(motion.weight1.dtype), motion.weight1, motion.bias1))
    return F.linear(hidden, motion.weight2, motion.bias2)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32, or unchanged if it is wider: half-precision softmax loses small weights."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def num_pairs(num_frames: int) -> int:
    """Return how many different (frame, next frame) pairs a clip has; a single frame is paired with itself."""
    return max(num_frames - 1, 1)


def repeat_last_pair(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Extend results of the pairs, (B, num_pairs, ...), to all frames, (B, T, ...), repeating the last pair."""
    return torch.cat((x, x[:, -1:]), dim=1) if num_frames > 1 else x
