"""EMIM attention in Triton kernels for CUDA devices: no gathered windows, hidden channels or dense scores in memory.

Forward, ``window`` writes the attended values and the affinities, and ``mlp`` adds the motion features.
Backward, the gradient of the affinities runs the same way back. Every sum has one owner and one order, so that results
are the same in every run. What is kept for it beside the inputs is one row of affinities per head and token.

Both directions are PyTorch operators, opaque to ``torch.compile`` and counted by FLOP counters as the equations define
them. With TRITON_INTERPRET=1 in the environment from the start, the kernels run on CPU tensors, slowly, for tests.
"""

from __future__ import annotations

import importlib.util
import math
import os

import torch
from torch.utils.flop_counter import register_flop_formula

from slowfast.ops.emim.rules import EmimRules, frame_pairs
from slowfast.ops.emim.triton.plan import Settings, new_saved
from slowfast.ops.precision import autocast_dtype

HAS_TRITON = importlib.util.find_spec("triton") is not None
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

HEAD_DIMS = (32, 64)
MAX_WINDOW = 11
LARGE_SHARED_MEMORY = 131072 + 1024  # bytes; GPUs of data centres have more, others about 100,000
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def emim_triton(query, key, value, window, relative_bias, motion, rules):
    """See :func:`slowfast.ops.emim.emim_attention`."""
    frames, step = query.shape[1], rules.temporal_interval
    pairs = frame_pairs(frames, rules)
    # All that the kernels know of pairs, see ``window``.
    count = len(pairs.source)
    assert pairs.source == list(range(count))
    assert pairs.target == [f + step if f + step < frames else f for f in range(count)]
    assert pairs.output == [t if t < count else t - step for t in range(frames)]
    dtype = torch.promote_types(query.dtype, torch.promote_types(key.dtype, value.dtype))
    if dtype not in DTYPES:
        found = [x.dtype for x in (query, key, value)]
        raise ValueError(f"the kernels compute up to float32, found {found}")
    of_weights = dtype if motion is None else autocast_dtype(query) or motion.weight1.dtype
    # Never float16, whose range raw affinities may leave.
    affinity_dtype = torch.bfloat16 if of_weights == torch.bfloat16 else torch.float32
    settings = (window, count, step, rules.padding == "mask", rules.pad_value, affinity_dtype)
    out, _, _ = triton_forward(
        *(x.to(dtype) for x in (query, key, value)), relative_bias, list(motion or ()), *settings
    )
    return out.to(value.dtype)


def why_not_triton(query: torch.Tensor, window: int, rules: EmimRules, needs_grad: bool) -> str | None:
    """Return why the Triton kernels cannot run EMIM, or None if they can; double backward raises when it is tried."""
    if not HAS_TRITON:
        return "the package triton is not there (pip install triton)"
    if rules.sampling != "sliding":
        return f"its kernels have sliding windows only, found EMIM.SAMPLING {rules.sampling!r}"
    if query.dtype not in DTYPES:
        return f"its kernels compute in float32, float16 and bfloat16, found {query.dtype}"
    if query.shape[-1] not in HEAD_DIMS:
        return f"its kernels have heads of {' or '.join(map(str, HEAD_DIMS))} channels, found {query.shape[-1]}"
    if window > MAX_WINDOW:
        return f"its kernels have windows up to {MAX_WINDOW}, found {window}"
    if IS_INTERPRETED:
        return None if query.device.type == "cpu" else f"TRITON_INTERPRET is for CPU tensors, found {query.device.type}"
    if query.device.type != "cuda" or torch.version.hip:
        return f"its kernels run on NVIDIA's CUDA devices, found {'hip' if torch.version.hip else query.device.type}"
    properties = torch.cuda.get_device_properties(query.device)
    if properties.major < 8:
        return f"its kernels need compute capability 8.0, found {properties.major}.{properties.minor}"
    shared = properties.shared_memory_per_block_optin
    if query.dtype == torch.float32 and window > 9 and shared < LARGE_SHARED_MEMORY:
        return f"window {window} in float32 needs {LARGE_SHARED_MEMORY} bytes of shared memory, found {shared}"
    return None


@torch.library.custom_op("emim::triton_forward", mutates_args=())
def triton_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    motion: list[torch.Tensor],
    window: int,
    num_pairs: int,
    step: int,
    is_masked: bool,
    pad_value: float,
    affinity_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return EMIM attention and the tensors that its gradient needs.

    Args:
        query: (B, T, H, W, N, D), as ``key`` and ``value``.
        bias: (N, K, K) or None.
        motion: the four tensors of ``MotionWeights``, or none.
        window: and all that follows, see :class:`Settings`.

    Returns:
        (B, T, H, W, N, D); affinities (N, B*F, H*W, PS), none without ``motion``; and logs of the softmax's sums,
        (N, B*F, H*W), float32.
    """
    from slowfast.ops.emim.triton.launch import attend

    settings = Settings(window, num_pairs, step, is_masked, pad_value, affinity_dtype)
    return attend(query, key, value, bias, motion, settings)


@torch.library.custom_op("emim::triton_backward", mutates_args=())
def triton_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    motion: list[torch.Tensor],
    band: torch.Tensor,
    lse: torch.Tensor,
    window: int,
    num_pairs: int,
    step: int,
    is_masked: bool,
    pad_value: float,
    affinity_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Return the gradients of query, key, value, bias (empty without one) and motion weights (none without them).

    Args:
        grad: (B, T, H, W, N, D), gradient of the output of :func:`triton_forward`.
        query: and all that follows as there, ``band`` and ``lse`` being its other results.
    """
    from slowfast.ops.emim.triton.launch import attend_gradients

    settings = Settings(window, num_pairs, step, is_masked, pad_value, affinity_dtype)
    return attend_gradients(grad, query, key, value, bias, motion, band, lse, settings)


@triton_forward.register_fake
def _(query, key, value, bias, motion, *settings):
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, *new_saved(query, motion, Settings(*settings))


@triton_backward.register_fake
def _(grad, query, key, value, bias, motion, *_):
    tokens = [torch.empty_like(query, memory_format=torch.contiguous_format) for _ in "qkv"]
    grad_bias = query.new_empty(0 if bias is None else bias.shape, dtype=(query if bias is None else bias).dtype)
    return *tokens, grad_bias, [weight.new_empty(weight.shape) for weight in motion]


def _save(ctx, inputs, output) -> None:
    query, key, value, bias, motion, *ctx.settings = inputs
    _, band, lse = output
    ctx.has_bias = bias is not None
    ctx.save_for_backward(query, key, value, band, lse, *([bias] if ctx.has_bias else []), *motion)
    ctx.mark_non_differentiable(band, lse)


def _backward(ctx, grad, *_):
    query, key, value, band, lse, *others = ctx.saved_tensors
    bias, motion = (others[0], others[1:]) if ctx.has_bias else (None, others)
    *tokens, grad_bias, grad_motion = triton_backward(grad, query, key, value, bias, motion, band, lse, *ctx.settings)
    return *tokens, grad_bias if ctx.has_bias else None, grad_motion, *[None] * len(ctx.settings)


def _no_second_derivative(ctx, *_):
    raise NotImplementedError("the Triton kernels have no second derivatives; EMIM.BACKEND dense has them")


triton_forward.register_autograd(_backward, setup_context=_save)
triton_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.emim.triton_forward)
def _forward_flops(query_shape, key_shape, value_shape, bias_shape, motion_shapes, window, num_pairs, *_, **__) -> int:
    return _flops(query_shape, motion_shapes, window, num_pairs)


@register_flop_formula(torch.ops.emim.triton_backward)
def _backward_flops(grad_shape, query_shape, *others, **__) -> int:
    _, _, _, motion_shapes, _, _, window, num_pairs, *_ = others
    return 2 * _flops(query_shape, motion_shapes, window, num_pairs)


def _flops(query_shape, motion_shapes, window: int, num_pairs: int) -> int:
    """Count products with keys, with values, and of the motion MLP, as the equations have them."""
    clips, _, height, width, heads, channels = query_shape
    weights = sum(math.prod(shape) for shape in motion_shapes if len(shape) == 2)
    return 2 * clips * num_pairs * height * width * heads * (2 * window * window * channels + weights)
