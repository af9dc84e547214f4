"""EMIM window attention between successive frames (arXiv 2510.18705, Eqs. 3-5).

Every token of frame ``t`` attends to a square window around its own place in frame ``t + 1``. The affinities before the
softmax are a cost volume; a small MLP shared by the heads turns each token's ``P`` affinities into motion features,
which are added to the attended values.

Dimension letters in this folder: ``B`` clips, ``T`` frames, ``F`` pairs of frames, ``H W`` token grid, ``N`` heads,
``D`` channels per head, ``K`` window side, ``P`` = K * K displacements, ``G`` hidden channels of the motion MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from slowfast.ops.emim.dense import cost_volume_dense, emim_dense
from slowfast.ops.emim.motion import MotionWeights
from slowfast.ops.emim.natten import emim_natten, why_not_natten
from slowfast.ops.emim.reference import cost_volume_reference, emim_reference
from slowfast.ops.emim.rules import PAD_VALUE, EmimRules, every_frame
from slowfast.ops.emim.tiled import emim_tiled
from slowfast.ops.emim.triton import emim_triton, why_not_triton
from slowfast.utils.errors import UserError

__all__ = ["BACKENDS", "PAD_VALUE", "EmimRules", "MotionWeights", "bias_shape", "cost_volume", "emim_attention"]


class Backend(NamedTuple):
    """One implementation for sliding windows: an :func:`emim_attention`, and the reason why it cannot run, or None.

    ``why_not`` takes the query, on the device and in the dtype of the computation, window, rules, and whether a
    backward pass will follow.
    """

    run: Callable[..., torch.Tensor]
    why_not: Callable[..., str | None] = lambda *_: None


BACKENDS = {
    "reference": Backend(emim_reference),
    "dense": Backend(emim_dense),
    "natten": Backend(emim_natten, why_not_natten),
    "triton": Backend(emim_triton, why_not_triton),
}

# Order in which "auto" tries them; the Triton kernels have not run on a GPU yet, and are chosen by name only.
FASTEST_FIRST = ("dense",)


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
        backend: a name in ``BACKENDS``, or "auto" for the fastest that can run.

    Returns:
        F + M, (B, T, H, W, N, D), in the dtype of ``value``.
    """
    _check_tokens(query, key, value)
    _check_window(query, window, relative_bias, motion, rules)
    run = _choose(backend, query, key, value, relative_bias, window, rules)
    return run(query, key, value, window, relative_bias, motion, rules)


def cost_volume(
    query: torch.Tensor,
    key: torch.Tensor,
    window: int,
    rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
    backend: str = "auto",
) -> torch.Tensor:
    """Return the products of each token with a window of the next frame, (B, T, H, W, N, P), in float32 or wider.

    They are neither scaled nor biased. Arguments as in :func:`emim_attention`; windows slide, and keys outside the
    image are ``rules.pad_value``. Backends are "reference", "dense" and "auto".
    """
    if rules.sampling != "sliding":
        raise ValueError(f"a cost volume has sliding windows, found sampling {rules.sampling!r}")
    _check_tokens(query, key, key)
    _check_window(query, window, None, None, rules)
    if backend in ("natten", "triton"):
        raise UserError(f"EMIM.BACKEND {backend} cannot run: it returns no affinities, which are all of a cost volume")
    _check_backend(backend)
    return (cost_volume_reference if backend == "reference" else cost_volume_dense)(query, key, window, rules)


def bias_shape(heads: int, window: int, rules: EmimRules) -> tuple[int, int, int]:
    """Return the shape of the relative bias: one value per head and displacement, (N, K, K) or (N, 2K-1, 2K-1)."""
    side = window if rules.sampling == "sliding" else 2 * window - 1
    return heads, side, side


def _choose(name: str, query, key, value, bias, window, rules) -> Callable[..., torch.Tensor]:
    _check_backend(name)
    if rules.sampling == "tiled":
        if name not in ("auto", "dense", "reference"):
            raise UserError(f"EMIM.BACKEND {name} cannot run: it has sliding windows only (EMIM.SAMPLING is tiled)")
        # Plain products in every case; the reference makes those of repeated frames too, as definitions count them.
        return partial(emim_tiled, choose_pairs=every_frame) if name == "reference" else emim_tiled
    inputs = (query, key, value) if bias is None else (query, key, value, bias)
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    for candidate in FASTEST_FIRST if name == "auto" else (name,):
        reason = BACKENDS[candidate].why_not(query, window, rules, needs_grad)
        if reason is None:
            return BACKENDS[candidate].run
    raise UserError(f"EMIM.BACKEND {name} cannot run: {reason}")


def _check_backend(name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"backend must be auto | {' | '.join(BACKENDS)}, found {name!r}")


def _check_tokens(query, key, value) -> None:
    tokens = (query, key, value)
    if query.dim() != 6 or key.shape != query.shape or value.shape != query.shape:
        shapes = [tuple(x.shape) for x in tokens]
        raise ValueError(f"query, key and value must all be (B, T, H, W, N, D), found {shapes}")
    if 0 in query.shape[1:]:
        raise ValueError(f"T, H, W, N and D must be at least 1, found (B, T, H, W, N, D) = {tuple(query.shape)}")
    if not all(x.is_floating_point() for x in tokens):
        raise ValueError(f"query, key and value must be floating point, found {[x.dtype for x in tokens]}")


def _check_window(query, window, relative_bias, motion, rules) -> None:
    heads, channels = query.shape[-2:]
    if window < 1 or (rules.sampling == "sliding" and window % 2 == 0):
        raise ValueError(f"a window must be positive and, centred on a token, odd; found {window}")
    if relative_bias is not None and relative_bias.shape != bias_shape(heads, window, rules):
        expected = bias_shape(heads, window, rules)
        raise ValueError(f"relative_bias must be {expected}, found {tuple(relative_bias.shape)}")
    if motion is not None:
        hidden = motion.weight1.shape[0]
        expected = ((hidden, window * window), (hidden,), (channels, hidden), (channels,))
        shapes = tuple(tuple(weight.shape) for weight in motion)
        if shapes != expected:
            raise ValueError(f"motion weights must have shapes {expected}, found {shapes}")
