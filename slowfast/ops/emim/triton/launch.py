"""Host side of the Triton kernels: layouts, tables, and the order of launches, forward and backward.

Importing this needs Triton; ``slowfast.ops.emim.triton`` does so when the kernels are to run.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton.language as tl

from slowfast.ops.emim.motion import QUICK_GELU_SLOPE
from slowfast.ops.emim.rules import places_inside
from slowfast.ops.emim.triton.mlp import mlp_backward_band, mlp_backward_weights, mlp_forward
from slowfast.ops.emim.triton.plan import (
    Patches,
    Settings,
    new_saved,
    plan_patches,
    power_of_two,
    row_stride,
    tile_index,
)
from slowfast.ops.emim.triton.window import NOTHING, attend_backward_key, attend_backward_query, attend_forward


class Tiles(NamedTuple):
    """Numbers in a dense tile of queries x keys, forward and backward, and warps of their programs."""

    forward: int
    backward: int
    warps: int


class Blocks(NamedTuple):
    """Rows of affinities of a program of the motion MLP, its warps, rows in the sums for weights, hidden channels."""

    rows: int
    warps: int
    weight_rows: int
    hidden: int


# As much at a time as fits into registers and shared memory, see tests/ops/compile_check.py; by the dtype of tokens,
# and by that of affinities. Factors in float32, which those in float16 become, take twice the space.
TILES = {torch.bfloat16: Tiles(8192, 4096, 4), torch.float16: Tiles(4096, 2048, 4), torch.float32: Tiles(4096, 2048, 8)}
BLOCKS = {torch.bfloat16: Blocks(128, 8, 64, 64), torch.float32: Blocks(32, 4, 32, 32)}
STAGES = 2  # of the pipeline that loads weights or rows; a third takes more memory than GPUs without HBM have
# Programs that sum gradients of weights: two for each multiprocessor of an H100. A constant, so that sums do not depend
# on the device.
WEIGHT_PROGRAMS = 264
# The kernels know QuickGELU as z / (1 + 2^-z).
SLOPE = QUICK_GELU_SLOPE * math.log2(math.e)


def attend(query, key, value, bias, motion, settings: Settings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the forward kernels; see :func:`slowfast.ops.emim.triton.triton_forward`."""
    window, num_pairs, step, is_masked, pad_value, affinity_dtype = settings
    query, key, value = _laid_out_alike(query, key, value)
    clips, frames, height, width, heads, channels = query.shape
    places = height * width
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    band, lse = new_saved(query, motion, settings)
    cut = plan_patches(height, width, window, TILES[query.dtype].forward)
    table = _bias_table(bias, query, window)
    with torch.cuda.device_of(query):
        attend_forward[(cut.count * clips * num_pairs, heads)](
            query, key, value, out, band, lse, table, _shares(table, query, window),
            _tiles(table, query, window, cut, of_keys=False), *_sizes(query, settings, cut), channels**-0.5, pad_value,
            BP=_block_of(window), USE_BAND=bool(motion), USE_MASK=is_masked, **_window_constants(query, window, cut),
        )  # fmt: skip
        if motion:
            blocks = BLOCKS[affinity_dtype]
            weights = _padded(motion, window, affinity_dtype)
            rows = clips * num_pairs * places
            mlp_forward[(-(-rows // blocks.rows), heads)](
                band, out, *weights, motion[3].contiguous(), rows, num_pairs * places, (frames - num_pairs) * places,
                heads, BR=blocks.rows, num_warps=blocks.warps, **_mlp_constants(query, weights, settings),
            )  # fmt: skip
    if num_pairs < frames:
        out[:, num_pairs:] = out[:, num_pairs - step : frames - step]
    return out, band, lse


def attend_gradients(grad, query, key, value, bias, motion, band, lse, settings: Settings):
    """Run the backward kernels; see :func:`slowfast.ops.emim.triton.triton_backward`."""
    window, num_pairs, step, is_masked, pad_value, affinity_dtype = settings
    query, key, value = _laid_out_alike(query, key, value)
    clips, frames, height, width, heads, channels = query.shape
    grad = _gradient_of_pairs(grad, settings)
    # Softmax and motion features both add to it. Never rounded to float16, whose range gradients may leave.
    shape = (heads, clips * num_pairs, height * width, row_stride(window))
    grad_affinity = query.new_empty(shape, dtype=torch.promote_types(_product_dtype(query.dtype), affinity_dtype))
    grad_query, grad_key, grad_value = (torch.empty_like(query, memory_format=torch.contiguous_format) for _ in "qkv")
    cut = plan_patches(height, width, window, TILES[query.dtype].backward)
    constants = _window_constants(query, window, cut)
    sizes = _sizes(query, settings, cut)
    table = _bias_table(bias, query, window)
    with torch.cuda.device_of(query):
        if motion:
            grad_band, grad_motion = _mlp_gradients(band, grad, motion, torch.empty_like(grad_affinity), settings)
        else:
            grad_band, grad_motion = grad_affinity, []  # the former is not read
        attend_backward_query[(cut.count * clips * num_pairs, heads)](
            query, key, value, grad, lse, table, _shares(table, query, window),
            _tiles(table, query, window, cut, of_keys=False), grad_band, grad_affinity, grad_query, *sizes,
            channels**-0.5, pad_value, BP=_block_of(window), USE_BAND=bool(motion), USE_MASK=is_masked, **constants,
        )  # fmt: skip
        attend_backward_key[(cut.count * clips * frames, heads)](
            query, key, grad, lse, _tiles(table, query, window, cut, of_keys=True), grad_affinity, grad_key, grad_value,
            *sizes, channels**-0.5, MEETINGS=1 if num_pairs + step == frames else 2, **constants,
        )  # fmt: skip
    grad_query[:, num_pairs:].zero_()  # no pair has its queries there
    if bias is None:
        return grad_query, grad_key, grad_value, query.new_empty(0), grad_motion
    grad_bias = grad_affinity[..., : window * window].sum((1, 2), dtype=torch.float32)
    return grad_query, grad_key, grad_value, grad_bias.view(bias.shape).to(bias.dtype), grad_motion


def _mlp_gradients(band, grad, motion, grad_band, settings) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the gradients of the affinities, written to ``grad_band``, and of the motion weights."""
    blocks = BLOCKS[settings.affinity_dtype]
    weights = _padded(motion, settings.window, settings.affinity_dtype)
    constants = _mlp_constants(grad, weights, settings)
    heads, channels = grad.shape[-2:]
    rows = grad.numel() // (heads * channels)
    mlp_backward_band[(-(-rows // blocks.rows), heads)](
        band, grad, grad_band, *weights, rows, heads, BR=blocks.rows, num_warps=blocks.warps, **constants
    )
    chunks = weights[0].shape[0] // blocks.hidden
    num_blocks = -(-rows // blocks.weight_rows) * heads
    per_program = max(1, -(-num_blocks // max(1, WEIGHT_PROGRAMS // chunks)))
    splits = -(-num_blocks // per_program)
    shapes = [*(weight.shape for weight in weights), (channels,)]
    partial = [grad.new_empty((splits, *shape), dtype=torch.float32) for shape in shapes]
    mlp_backward_weights[(chunks, splits)](
        band, grad, *weights, *partial, rows, heads, BR=blocks.weight_rows, BLOCKS=per_program, num_warps=4, **constants
    )
    grad_weight1, grad_bias1, grad_weight2, grad_bias2 = (x.sum(0) for x in partial)
    hidden, places = motion[0].shape
    found = (
        SLOPE * grad_weight1[:hidden, :places],
        SLOPE * grad_bias1[:hidden],
        grad_weight2[:, :hidden] / SLOPE,
        grad_bias2,
    )
    return grad_band, [x.to(weight.dtype) for x, weight in zip(found, motion)]


def _gradient_of_pairs(grad, settings) -> torch.Tensor:
    """Return the gradient of each pair's result: the sum over the frames that took it, (B, F, H, W, N, D)."""
    frames = grad.shape[1]
    num_pairs, step = settings.num_pairs, settings.step
    if num_pairs == frames:
        return grad.contiguous()
    of_pairs = grad[:, :num_pairs].clone(memory_format=torch.contiguous_format)
    of_pairs[:, num_pairs - step : frames - step] += grad[:, num_pairs:]
    return of_pairs


def _laid_out_alike(query, key, value) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the three with the same strides and no gaps within rows and heads; views of one projection are so."""
    width, _, channels = query.shape[3:]
    is_same = query.stride() == key.stride() == value.stride()
    if is_same and query.stride(2) == width * query.stride(3) and query.stride()[4:] == (channels, 1):
        return query, key, value
    return query.contiguous(), key.contiguous(), value.contiguous()


def _block_of(window: int) -> int:
    return max(16, power_of_two(window * window))


def _bias_table(bias, query, window) -> torch.Tensor:
    """Return the bias (N, P), zeros for none."""
    if bias is None:
        return query.new_zeros((query.shape[-2], window * window), dtype=torch.float32)
    return bias.float().flatten(1).contiguous()


def _tiles(table, query, window, cut: Patches, of_keys: bool) -> torch.Tensor:
    """Return the bias of every place in the dense tiles, (N, patches, BM, BN) or (N, patches, BN, BM)."""
    index = tile_index(*query.shape[2:4], window, cut, of_keys, query.device)
    return F.pad(table, (0, 1), value=NOTHING.value)[:, index]


def _shares(table, query, window) -> torch.Tensor:
    """Return the log of the sum of exp(bias) over the places outside the image around every token, (N, H*W)."""
    inside = places_inside(*query.shape[2:4], window, query.device).flatten(0, 1)  # (H*W, P)
    return table[:, None].masked_fill(inside, NOTHING.value).logsumexp(-1)


def _padded(motion, window, dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weight1, bias1 and weight2 as ``mlp_forward`` describes them."""
    weight1, bias1, weight2, _ = motion
    hidden, places = weight1.shape
    more = -hidden % BLOCKS[dtype].hidden
    padded = (
        F.pad((SLOPE * weight1).to(dtype), (0, _block_of(window) - places, 0, more)),
        F.pad(SLOPE * bias1.float(), (0, more)),
        F.pad((weight2 / SLOPE).to(dtype), (0, more)),
    )
    return tuple(x.contiguous() for x in padded)


def _sizes(query, settings, cut: Patches) -> tuple[int, ...]:
    _, frames, height, width, heads, _ = query.shape
    strides = (*query.stride()[:2], query.stride(3))
    return height, width, frames, settings.num_pairs, settings.step, heads, cut.count, *strides


def _window_constants(query, window, cut: Patches) -> dict:
    return {
        **{"K": window, "D": query.shape[-1], "PS": row_stride(window)},
        **{"TH": cut.rows, "TW": cut.columns, "KH": cut.near_rows, "KW": cut.near_columns},
        **{"BM": cut.block, "BN": cut.near_block, "num_warps": TILES[query.dtype].warps},
        **_arithmetic(query.dtype, _product_dtype(query.dtype)),
    }


def _mlp_constants(tokens, weights, settings) -> dict:
    dtype = settings.affinity_dtype
    return {
        **{"D": tokens.shape[-1], "GP": weights[0].shape[0], "PS": row_stride(settings.window)},
        **{"BP": _block_of(settings.window), "BG": BLOCKS[dtype].hidden, "num_stages": STAGES},
        **_arithmetic(tokens.dtype, dtype),
    }


def _arithmetic(tokens_dtype: torch.dtype, dtype: torch.dtype) -> dict:
    """Return the dtype of products and how float32 ones are made.

    TF32 loses nothing of float16's 11 bits; three products of that kind lose little of float32's 24.
    """
    # Triton's interpreter cannot compute in bfloat16.
    is_bfloat16 = dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") != "1"
    return {
        "DOT": tl.bfloat16 if is_bfloat16 else tl.float32,
        "PRECISION": "tf32" if tokens_dtype == torch.float16 else "tf32x3",
    }


def _product_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of factors of products: float32 for float16, whose range gradients may leave."""
    return torch.float32 if dtype == torch.float16 else dtype
