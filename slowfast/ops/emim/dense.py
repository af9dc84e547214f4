"""EMIM without gathered windows, exact and the fastest on a CPU: three operators, and the attention made of them.

``emim::affinity`` (query . window of keys), ``emim::context`` (weighted sum of a window of values) and
``emim::scatter`` (its transpose: every token adds to the window around its place) are all that EMIM needs, forward and
backward, and each one's derivatives are the other two. As operators they are opaque to ``torch.compile``, and FLOP
counters see K * K products a token, whatever is computed beside them; ``torch.export`` is given ``plain`` instead.

With the keys on the padded grid, the score of query (y, x) against displacement (dy, dx) lies in the matrix of all
scores at row ``y * W + x`` and column ``(y + dy) * Wp + (x + dx)``: moving one query to the right moves its window one
column to the right. So all windows together are one strided view of one dense product, and no key or value is copied
K * K times. The product is made for blocks of K rows of queries, which see 2 K - 1 rows of keys, and for as many frames
at a time as keep it in the cache.

Shapes: query, key, value, source (B, F, H, W, N, D); weights (B, F, H, W, N, P), p = row * K + column. Frame f of the
first tensor meets frame f of the second; keys and values outside the image are ``pad_value`` in every channel.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from slowfast.ops.emim import plain
from slowfast.ops.emim.motion import attend
from slowfast.ops.emim.rules import outside_image
from slowfast.ops.precision import wide, without_autocast

# Largest dense product held at a time. On a CPU: what fits beside its factors in the second-level cache of a core.
CPU_BLOCK_BYTES = 2**21
GPU_BLOCK_BYTES = 2**28
# Up to this size the product of a whole frame is not cut into rows: calls would cost more than the rows save.
WHOLE_FRAME_BYTES = 2**18


def attend_dense(query, key, value, window, relative_bias, motion, rules):
    """EMIM between the frames of pairs, (B, F, H, W, N, D) each; see :func:`slowfast.ops.emim.emim_attention`."""
    affinity, context = operators()
    products = affinity(query, key, window, rules.pad_value)  # (B, F, H, W, N, P)
    bias = None if relative_bias is None else relative_bias.flatten(1)  # (N, P)
    outside = outside_image(query, window, rules)
    sum_values = partial(context, value=value, window=window, pad_value=rules.pad_value)
    return attend(products, bias, query.shape[-1], motion, outside, sum_values)


def operators() -> tuple[Callable, Callable]:
    """Return ``affinity`` and ``context``, in operators of ONNX while a program is exported."""
    return (plain.affinity, plain.context) if torch.compiler.is_exporting() else (affinity, context)


@torch.library.custom_op("emim::affinity", mutates_args=())
def affinity(query: torch.Tensor, key: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Return query . key for every key of the window around the query's place, in float32 (float64 for float64)."""
    clips, frames, height, width, heads, _ = query.shape
    dtype = wide(query.dtype)
    out = query.new_empty((clips, frames, height, width, heads, window, window), dtype=dtype)
    with without_autocast(query):
        for q, k, o in _clips(window, query, key, out):
            for some in _frame_blocks(q, window):
                keys = _pad(k[some], window, pad_value, dtype)  # (f, N, Hp, Wp, D)
                for rows in _row_blocks(q, window):
                    queries = _tokens(q[some, rows], dtype)  # (f, N, h*W, D)
                    scores = queries @ _near(keys, rows, window).mT  # (f, N, h*W, h'*Wp)
                    o[some, rows].copy_(_windows(scores, width, window))
    return out.flatten(-2)


@torch.library.custom_op("emim::context", mutates_args=())
def context(weights: torch.Tensor, value: torch.Tensor, window: int, pad_value: float) -> torch.Tensor:
    """Return the weighted sum of the values in the window around every place, in the dtype of ``value``."""
    width = value.shape[3]
    dtype = _product_dtype(value)
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    scatter_buffers: dict[torch.Size, torch.Tensor] = {}
    with without_autocast(value):
        for v, w, o in _clips(window, value, weights.unflatten(-1, (window, window)), out):
            for some in _frame_blocks(v, window):
                values = _pad(v[some], window, pad_value, dtype)  # (f, N, Hp, Wp, D)
                for rows in _row_blocks(v, window):
                    near = _near(values, rows, window)  # (f, N, h'*Wp, D)
                    dense = _dense(w[some, rows], near, scatter_buffers)  # (f, N, h*W, h'*Wp)
                    o[some, rows].copy_((dense @ near).transpose(1, 2).unflatten(1, (-1, width)))  # (f, h, W, N, D)
    return out


@torch.library.custom_op("emim::scatter", mutates_args=())
def scatter(weights: torch.Tensor, source: torch.Tensor, window: int) -> torch.Tensor:
    """Add every token, weighted, to the places of the window around it, in the dtype of ``source``.

    What falls outside the image is lost.
    """
    height, width = source.shape[2:4]
    radius = window // 2
    dtype = _product_dtype(source)
    out = torch.empty_like(source, memory_format=torch.contiguous_format)
    scatter_buffers: dict[torch.Size, torch.Tensor] = {}
    with without_autocast(source):
        for x, w, o in _clips(window, source, weights.unflatten(-1, (window, window)), out):
            for some in _frame_blocks(x, window):
                sums = _pad(torch.zeros_like(x[some]), window, 0.0, dtype)  # (f, N, Hp, Wp, D)
                for rows in _row_blocks(x, window):
                    tokens = _tokens(x[some, rows], dtype)  # (f, N, h*W, D)
                    near = _near(sums, rows, window)  # (f, N, h'*Wp, D)
                    near += _dense(w[some, rows], near, scatter_buffers).mT @ tokens
                inside = sums[:, :, radius : radius + height, radius : radius + width]
                o[some].copy_(inside.permute(0, 2, 3, 1, 4))
    return out


def _product_dtype(x: torch.Tensor) -> torch.dtype:
    # float16 has too small a range for gradients, and is slow on CPUs.
    return torch.float32 if x.dtype == torch.float16 else x.dtype


def _clips(window: int, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield tensors (B, F, ...) clip by clip, (F, ...) each; all as one, (B*F, ...), if several fit into a block."""
    clips, frames = tensors[0].shape[:2]
    if clips > 1 and _frames_in_block(tensors[0][0], window) >= 2 * frames:
        yield tuple(x.flatten(0, 1) for x in tensors)  # some may be copied for that; the last is written to, and is not
    else:
        yield from zip(*tensors)


def _frame_blocks(x: torch.Tensor, window: int) -> Iterator[slice]:
    """Yield slices that cover the frames of x (F, H, W, N, D)."""
    step = _frames_in_block(x, window)
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def _frames_in_block(x: torch.Tensor, window: int) -> int:
    budget = CPU_BLOCK_BYTES if x.device.type == "cpu" else GPU_BLOCK_BYTES
    return max(1, budget // _dense_bytes(x, window, next(_row_blocks(x, window)).stop))


def _row_blocks(x: torch.Tensor, window: int) -> Iterator[slice]:
    """Yield slices that cover the rows of x (F, H, W, N, D): all at once where a frame is small, else K at a time."""
    height = x.shape[1]
    step = height if _dense_bytes(x, window, height) <= WHOLE_FRAME_BYTES else min(height, window)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _dense_bytes(x: torch.Tensor, window: int, rows: int) -> int:
    """Return the size of the dense product of one frame's ``rows``, in float32."""
    width, heads = x.shape[2:4]
    return 4 * heads * rows * width * (rows + window - 1) * (width + window - 1)


def _pad(x: torch.Tensor, window: int, pad_value: float, dtype: torch.dtype) -> torch.Tensor:
    """(f, H, W, N, D) -> (f, N, Hp, Wp, D), ``pad_value`` around."""
    radius = window // 2
    x = x.permute(0, 3, 1, 2, 4).to(dtype)
    return F.pad(x, (0, 0, radius, radius, radius, radius), value=pad_value).contiguous()


def _tokens(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(f, h, W, N, D) -> (f, N, h*W, D)."""
    return x.to(dtype).flatten(1, 2).transpose(1, 2)


def _near(padded: torch.Tensor, rows: slice, window: int) -> torch.Tensor:
    """Return what the windows of ``rows`` see: (f, N, Hp, Wp, D) -> (f, N, h'*Wp, D), a view."""
    return padded[:, :, rows.start : rows.stop + window - 1].flatten(2, 3)


def _dense(weights: torch.Tensor, near: torch.Tensor, buffers: dict) -> torch.Tensor:
    """Spread weights (f, h, W, N, K, K) over what ``near`` holds: (f, N, h*W, h'*Wp), zero outside the windows.

    A matrix of a shape already in ``buffers`` is used again: its windows are all overwritten, the rest stays zero.
    """
    frames, height, width, heads, window, _ = weights.shape
    shape = torch.Size((frames, heads, height * width, near.shape[2]))
    if shape not in buffers:
        buffers[shape] = near.new_zeros(shape)
    _windows(buffers[shape], width, window).copy_(weights)
    return buffers[shape]


def _windows(scores: torch.Tensor, width: int, window: int) -> torch.Tensor:
    """View contiguous scores (f, N, h*W, h'*Wp) as (f, h, W, N, K, K), the window of every query."""
    frames, heads, queries, keys = scores.shape
    padded_width = width + window - 1
    shape = (frames, queries // width, width, heads, window, window)
    strides = (heads * queries * keys, width * keys + padded_width, keys + 1, queries * keys, padded_width, 1)
    return scores.as_strided(shape, strides)


@affinity.register_fake
def _(query, key, window, pad_value):
    return query.new_empty((*query.shape[:-1], window * window), dtype=wide(query.dtype))


@context.register_fake
@scatter.register_fake
def _(weights, tokens, *_):
    return torch.empty_like(tokens, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output) -> None:
    first, second, ctx.window, *pad_value = inputs
    ctx.pad_value = pad_value[0] if pad_value else 0.0
    ctx.save_for_backward(first, second)


def _affinity_backward(ctx, grad):
    query, key = ctx.saved_tensors
    grad_query = context(grad, key, ctx.window, ctx.pad_value) if ctx.needs_input_grad[0] else None
    grad_key = scatter(grad, query, ctx.window) if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None


def _context_backward(ctx, grad):
    weights, value = ctx.saved_tensors
    grad_weights = affinity(grad, value, ctx.window, ctx.pad_value) if ctx.needs_input_grad[0] else None
    grad_value = scatter(weights, grad, ctx.window) if ctx.needs_input_grad[1] else None
    return None if grad_weights is None else grad_weights.to(weights.dtype), grad_value, None, None


def _scatter_backward(ctx, grad):
    weights, source = ctx.saved_tensors
    grad_weights = affinity(source, grad, ctx.window, 0.0) if ctx.needs_input_grad[0] else None
    grad_source = context(weights, grad, ctx.window, 0.0) if ctx.needs_input_grad[1] else None
    return None if grad_weights is None else grad_weights.to(weights.dtype), grad_source, None


affinity.register_autograd(_affinity_backward, setup_context=_save)
context.register_autograd(_context_backward, setup_context=_save)
scatter.register_autograd(_scatter_backward, setup_context=_save)


@register_flop_formula([torch.ops.emim.affinity, torch.ops.emim.context, torch.ops.emim.scatter])
def _flops(first_shape, tokens_shape, window, *_, **__) -> int:
    return 2 * window * window * tokens_shape.numel()
