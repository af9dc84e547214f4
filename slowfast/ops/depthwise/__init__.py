"""Depthwise 3-D convolution whose gradient is fast on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from slowfast.ops.precision import widened


class DepthwiseConv3d(nn.Conv3d):
    """Depthwise convolution of stride 1 that keeps the size: (B, C, T, H, W) -> the same shape.

    Parameters and results are those of ``nn.Conv3d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)``.

    Args:
        dim: channels C.
        kernel_size: side of the kernel over time, height and width; odd.

    Raises:
        ValueError: an even kernel.
    """

    def __init__(self, dim: int, kernel_size: int) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"a kernel that keeps the size must be odd, found {kernel_size}")
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        return _SameDepthwise.apply(x, weight, bias)


class _SameDepthwise(torch.autograd.Function):
    """The gradient of the input as what it is, a convolution with the mirrored kernel.

    oneDNN computes the same from its backward primitive, about ten times slower than a forward convolution of that
    size (``tools/benchmark.py depthwise``).
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        if x.is_contiguous(memory_format=torch.channels_last_3d):
            # A sum or a mean hands back an expanded gradient; in another layout than x everything below is slow.
            grad = grad.contiguous(memory_format=torch.channels_last_3d)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_x = _convolve(grad, weight.flip(2, 3, 4), None) if needs_x else None
        channels = weight.shape[0]
        unit, padding = [1, 1, 1], [size // 2 for size in weight.shape[2:]]
        # In float32: for bfloat16 clips with fewer frames than the kernel, oneDNN's sum for the weights takes in
        # numbers that were never computed (torch 2.15), and it is slower.
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            widened(grad), widened(x), widened(weight), [channels], unit, padding, unit, False, [0, 0, 0], channels,
            [False, needs_weight, needs_bias],
        )  # fmt: skip
        if needs_weight:
            # oneDNN leaves another stride on the axis of length one, which distributed training would warn about.
            grad_weight = grad_weight.flatten().view_as(weight).to(weight.dtype)
        if needs_bias:
            grad_bias = grad_bias.to(weight.dtype)
        return grad_x, grad_weight, grad_bias


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.conv3d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])
