"""Layers of ``torch.nn`` with the same parameters and results, faster or safer on maps with channels last in memory."""

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.ops.depthwise import DepthwiseConv3d


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, T, H, W, C), a view."""
    return x.movedim(1, -1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """(B, T, H, W, C) -> (B, C, T, H, W), a view."""
    return x.movedim(-1, 1)


class Gelu(nn.GELU):
    """GELU, in place when gradients are disabled; nobody else may need its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` that is fast on CPUs over time alone, and right for clips shorter than the kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            return super().forward(x)
        padding = self.padding
        if x.shape[2] < self.kernel_size[0]:
            # Where oneDNN pads by itself, its gradient for the weights is wrong there (torch 2.14): in bfloat16, and in
            # any precision for kernels of 7 in steps of 2, which crash, too.
            x = F.pad(x, (0, 0, 0, 0, *2 * padding[:1]))
            padding = (0, *padding[1:])
        if self.kernel_size[0] > 1 and self.kernel_size[1:] == self.stride[1:] == (1, 1) and padding[1:] == (0, 0):
            # Kernels (K, 1, 1) are slow in three dimensions, by im2col or a loop, and fast in two: time and place.
            settings = ((self.stride[0], 1), (padding[0], 0), (self.dilation[0], 1), self.groups)
            return F.conv2d(x.flatten(3), self.weight.flatten(3), self.bias, *settings).unflatten(3, x.shape[3:])
        return F.conv3d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class PointwiseConv3d(nn.Conv3d):
    """A convolution of kernel 1, (B, C, T, H, W) -> (B, C', T, H, W), as the matrix product that it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(F.linear(channels_last(x), self.weight.flatten(1), self.bias))


def pointwise_conv(dim: int, out_dim: int, axes: int) -> nn.Module:
    """Return a convolution of kernel 1 for maps (B, C, T, H, W), ``axes`` 3, or (B, C, H, W), ``axes`` 2."""
    return PointwiseConv3d(dim, out_dim, 1) if axes == 3 else nn.Conv2d(dim, out_dim, 1)


def depthwise_conv(dim: int, kernel_size: int, axes: int) -> nn.Module:
    """Return a depthwise convolution of stride 1 that keeps the size of a map."""
    if axes == 3:
        return DepthwiseConv3d(dim, kernel_size)
    return nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
