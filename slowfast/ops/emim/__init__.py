"""EMIM window attention between successive frames (arXiv 2510.18705, Eqs. 3-5).

Every token of frame ``t`` attends to a square window around its own place in frame ``t + 1``. The affinities before the
softmax are a cost volume; a small MLP shared by the heads turns each token's ``P`` affinities into motion features,
which are added to the attended values.

Dimension letters in this folder: ``B`` clips, ``T`` frames, ``F`` pairs of frames, ``H W`` token grid, ``N`` heads,
``D`` channels per head, ``K`` window side, ``P`` = K * K displacements, ``G`` hidden channels of the motion MLP.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from slowfast.ops.emim.dense import attend_dense, operators
from slowfast.ops.emim.motion import MotionWeights
from slowfast.ops.emim.natten import attend_natten, why_not_natten
from slowfast.ops.emim.reference import attend_reference, window_products
from slowfast.ops.emim.rules import PAD_VALUE, EmimRules, over_pairs
from slowfast.ops.emim.tiled import attend_tiled
from slowfast.ops.emim.triton import emim_triton, why_not_triton
from slowfast.utils.errors import UserError

__all__ = ["BACKENDS", "PAD_VALUE", "EmimRules", "MotionWeights", "bias_shape", "cost_volume", "emim_attention"]


class Backend(NamedTuple):
    """One implementation for sliding windows, and the reason why it cannot run or None.

    ``why_not`` takes query, window, rules, and whether a backward pass will follow.
    """

    run: Callable[..., torch.Tensor]
    why_not: Callable[..., str | None] = lambda *_: None


BACKENDS = {
    # Definitions count the products of repeated frames too.
    "reference": Backend(partial(over_pairs, attend_reference, distinct=False)),
    "dense": Backend(partial(over_pairs, attend_dense)),
    "natten": Backend(partial(over_pairs, attend_natten), why_not_natten),
    "triton": Backend(emim_triton, why_not_triton),
}

# The Triton kernels have not run on a GPU yet, and are chosen by name only.
AUTO = "dense"


def emim_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int,
    relative_bias: torch.Tensor | None = None,
    motion: MotionWeights | None = None,
    rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
    backend: str = "auto",
) -> torch.Tensor:
    """Attend from each frame to a window of the next one and add motion features made from the affinities.

    With q, k, v of one head, displacement p = (dy, dx) and |dy|, |dx| <= (K - 1) / 2:

        A[t, y, x, p] = q[t, y, x] . k[t + 1, y + dy, x + dx] / sqrt(D) + relative_bias[p]       (Eq. 3)
        F[t, y, x]    = sum_p softmax_p(A)[t, y, x, p] * v[t + 1, y + dy, x + dx]                (Eq. 4)
        M[t, y, x]    = weight2 . QuickGELU(weight1 . A[t, y, x] + bias1) + bias2                (Eq. 5)

    Keys and values outside the image are 1e-6 in every channel, and the last frame repeats the result of the frame
    before it, unless ``rules`` say otherwise; a clip of one frame attends to itself. Affinities and softmax are in
    float32 (float64 for float64), also under autocast. With ``rules.sampling`` "tiled" the window of a token is the
    K x K tile of the grid that it lies in, and p is a place in that tile; grids that are no multiple of K are extended
    below and to the right, as ``rules.padding`` says.

    Args:
        query: (B, T, H, W, N, D), as ``key`` and ``value``.
        window: K, odd (for tiles, any).
        relative_bias: :func:`bias_shape`, the first axis of displacement vertical; None is no bias.
        motion: weights of the motion MLP; None leaves M out.
        rules: which frames meet, and what lies outside the image.
        backend: a name in ``BACKENDS`` or "auto".

    Returns:
        F + M, (B, T, H, W, N, D), in the dtype of ``value``.
    """
    _check(query, key, value, window, relative_bias, motion, rules)
    inputs = (query, key, value, window, relative_bias, motion, rules)
    if rules.sampling == "tiled":
        if backend in ("natten", "triton"):
            raise UserError(f"EMIM.BACKEND {backend} cannot run: it has sliding windows only (EMIM.SAMPLING is tiled)")
        return over_pairs(attend_tiled, *inputs, distinct=backend != "reference")  # plain products in every case
    run, why_not = BACKENDS[AUTO if backend == "auto" else backend]
    trained = [x for x in (query, key, value, relative_bias) if x is not None and x.requires_grad]
    reason = why_not(query, window, rules, torch.is_grad_enabled() and bool(trained))
    if reason is not None:
        raise UserError(f"EMIM.BACKEND {backend} cannot run: {reason}")
    return run(*inputs)


def cost_volume(
    query: torch.Tensor,
    key: torch.Tensor,
    window: int,
    rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
    backend: str = "auto",
) -> torch.Tensor:
    """Return the products of each token with a window of the next frame, (B, T, H, W, N, P), in float32 or wider.

    They are neither scaled nor biased; keys outside the image are ``rules.pad_value``. Arguments as in
    :func:`emim_attention`; windows slide. Backends are "reference", "dense" and "auto".
    """
    assert rules.sampling == "sliding", rules
    if backend in ("natten", "triton"):
        raise UserError(f"EMIM.BACKEND {backend} cannot run: it returns no affinities, which are all of a cost volume")
    _check(query, key, key, window, None, None, rules)
    products, distinct = (window_products, False) if backend == "reference" else (operators()[0], True)
    return over_pairs(
        lambda q, k, *_: products(q, k, window, rules.pad_value), query, key, key, rules, distinct=distinct
    )


def bias_shape(heads: int, window: int, rules: EmimRules) -> tuple[int, int, int]:
    """Return the shape of the relative bias: one value per head and displacement, (N, K, K) or (N, 2K-1, 2K-1)."""
    side = window if rules.sampling == "sliding" else 2 * window - 1
    return heads, side, side


def _check(query, key, value, window, relative_bias, motion, rules) -> None:
    if window < 1 or (rules.sampling == "sliding" and window % 2 == 0):
        raise ValueError(f"a window must be positive and, centred on a token, odd; found {window}")
    *_, heads, channels = grid = query.shape
    hidden = len(motion.weight1) if motion else 0
    of_motion = ((hidden, window * window), (hidden,), (channels, hidden), (channels,))
    names = ("key", "value", "relative_bias", *(f"motion {name}" for name in MotionWeights._fields))
    shapes = (grid, grid, bias_shape(heads, window, rules), *of_motion)
    for name, x, shape in zip(names, (key, value, relative_bias, *(motion or ())), shapes):
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} must have the shape {tuple(shape)}, found {tuple(x.shape)}")
