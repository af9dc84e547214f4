"""EMIM window attention between successive frames (arXiv 2510.18705, Eqs. 3-5).

Every token of frame ``t`` attends to a square window around its own place in frame ``t + 1``. The affinities before the
softmax are a cost volume; a small MLP shared by the heads turns each token's ``P`` affinities into motion features,
which are added to the attended values.

Dimension letters in this folder: ``B`` clips, ``T`` frames, ``H W`` token grid, ``N`` heads, ``D`` channels per head,
``K`` window side, ``P`` = K * K displacements, ``G`` hidden channels of the motion MLP.
"""

from __future__ import annotations

import torch

from slowfast.ops.emim.dense import emim_dense
from slowfast.ops.emim.motion import MotionWeights
from slowfast.ops.emim.reference import emim_reference

__all__ = ["BACKENDS", "PAD_VALUE", "MotionWeights", "check_window", "emim_attention", "get_backend"]

BACKENDS = {"reference": emim_reference, "dense": emim_dense}

# What keys and values are outside the image. The paper extends the map with this constant instead of masking.
PAD_VALUE = 1e-6


def emim_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    relative_bias: torch.Tensor,
    motion: MotionWeights | None = None,
    pad_value: float = PAD_VALUE,
    backend: str = "auto",
) -> torch.Tensor:
    """Attend from each frame to a window of the next one and add motion features made from the affinities.

    With q, k, v of one head, displacement p = (dy, dx) and |dy|, |dx| <= (K - 1) / 2:

        A[t, y, x, p] = q[t, y, x] . k[t + 1, y + dy, x + dx] / sqrt(D) + relative_bias[p]       (Eq. 3)
        F[t, y, x]    = sum_p softmax_p(A)[t, y, x, p] * v[t + 1, y + dy, x + dx]                (Eq. 4)
        M[t, y, x]    = weight2 . QuickGELU(weight1 . A[t, y, x] + bias1) + bias2                (Eq. 5)

    Keys and values outside the image are ``pad_value`` in every channel. The last frame has no successor and repeats
    the result of the frame before it; a clip of one frame attends to itself.

    Args:
        query: (B, T, H, W, N, D).
        key: (B, T, H, W, N, D).
        value: (B, T, H, W, N, D).
        relative_bias: (N, K, K), first axis of displacement vertical.
        motion: weights of the motion MLP; None leaves M out.
        pad_value: keys and values outside the image.
        backend: a name in ``BACKENDS`` or "auto".

    Returns:
        F + M, (B, T, H, W, N, D), in the dtype of ``value`` (or of autocast).

    Raises:
        ValueError: shapes that do not fit together, an even window, or an unknown backend.
    """
    _check(query, key, value, relative_bias, motion)
    return get_backend(backend)(query, key, value, relative_bias, motion, pad_value)


def get_backend(name: str):
    """Return the implementation called ``name``; "auto" is the fastest that can run anywhere.

    Raises:
        ValueError: no backend of that name.
    """
    if name == "auto":
        return emim_dense
    if name not in BACKENDS:
        raise ValueError(f"EMIM.BACKEND {name!r} is not one of auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def check_window(window: int, key: str = "window") -> None:
    """Raise ValueError, naming ``key``, unless ``window`` is a positive odd number."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"{key}: the EMIM window must be odd (it is centred on a token), found {window}")


def _check(query, key, value, relative_bias, motion) -> None:
    if query.dim() != 6 or key.shape != query.shape or value.shape != query.shape:
        shapes = [tuple(x.shape) for x in (query, key, value)]
        raise ValueError(f"query, key and value must all be (B, T, H, W, N, D), found {shapes}")
    heads, channels = query.shape[-2:]
    window = relative_bias.shape[-1]
    check_window(window)
    if relative_bias.shape != (heads, window, window):
        raise ValueError(f"relative_bias must be ({heads}, K, K), found {tuple(relative_bias.shape)}")
    if motion is not None:
        hidden = motion.weight1.shape[0]
        expected = ((hidden, window * window), (hidden,), (channels, hidden), (channels,))
        shapes = tuple(tuple(weight.shape) for weight in motion)
        if shapes != expected:
            raise ValueError(f"motion weights must have shapes {expected}, found {shapes}")
