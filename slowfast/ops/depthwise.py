"""Depthwise 3-D convolution whose gradient is fast on CPUs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from slowfast.ops.precision import autocast_dtype, wide


class DepthwiseConv3d(nn.Conv3d):
    """Depthwise convolution of stride 1 that keeps the size: (B, C, T, H, W) -> the same shape.

    Parameters and results are those of ``nn.Conv3d``, with an odd kernel, padding and groups.
    """

    def __init__(self, dim: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.onnx.is_in_onnx_export():
            return _convolve_frames(x, self.weight, self.bias)
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        tensors = (x, self.weight, self.bias)
        dtype = autocast_dtype(x)
        if dtype is not None:
            tensors = (None if each is None else each.to(dtype) for each in tensors)
        return _SameDepthwise.apply(*tensors)


class _SameDepthwise(torch.autograd.Function):
    """Depthwise convolution with a gradient of its own: of the input by the mirrored kernel, of the weights by frames.

    oneDNN's backward primitive is about ten times slower than a forward convolution of that size.
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
        grad_weight = _weight_gradient(x, grad, weight.shape).to(weight.dtype) if needs_weight else None
        grad_bias = grad.sum((0, 2, 3, 4), dtype=wide(grad.dtype)).to(weight.dtype) if needs_bias else None
        return grad_x, grad_weight, grad_bias


# oneDNN has kernels for the weight gradient of two-dimensional depthwise convolutions up to this width; wider ones, and
# all with three dimensions, take a loop that is 4 to 50 times slower per weight.
_MAX_WIDTH = 3


def _weight_gradient(x: torch.Tensor, grad: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the gradient of the weights, (C, 1, k, k, k), from x and the result's gradient, (B, C, T, H, W).

    For every shift of time it is the gradient of a two-dimensional convolution of all frames, and that one falls apart
    into groups of the kernel's columns. Computed in float32 at least: sums are long, and oneDNN's own in bfloat16 took
    in numbers that were never computed (torch 2.15).
    """
    channels, _, *kernel = shape
    middle = [size // 2 for size in kernel]
    gap = middle[0] if len(x) > 1 else 0
    padded_grad = _frames_in_a_row(grad, gap)
    shifts = range(-middle[0], middle[0] + 1)
    columns = []
    for start in range(0, kernel[2], _MAX_WIDTH):
        width = min(_MAX_WIDTH, kernel[2] - start)
        left = middle[2] - start
        padded_x = _frames_in_a_row(x, gap, left, width - 1 - left)
        plane = (channels, 1, kernel[1], width)
        slices = [_plane_gradient(padded_x, padded_grad, shift, plane, middle[1]) for shift in shifts]
        columns.append(torch.stack(slices, dim=2))
    return torch.cat(columns, dim=-1)


def _frames_in_a_row(x: torch.Tensor, gap: int, left: int = 0, right: int = 0) -> torch.Tensor:
    """Return (B, C, T, H, W) as images with the channels last, (B * (T + gap), C, H, left + W + right).

    ``gap`` empty images after every clip keep shifts from pairing frames of two clips; negative columns are cut off.
    """
    clips = x.permute(0, 2, 3, 4, 1).to(wide(x.dtype))
    padding = (0, 0, left, right, 0, 0, 0, gap)
    return (F.pad(clips, padding) if any(padding) else clips).flatten(0, 1).permute(0, 3, 1, 2)


def _plane_gradient(x: torch.Tensor, grad: torch.Tensor, shift: int, shape: tuple, padding: int) -> torch.Tensor:
    """Return the weights' gradient from the images of x and the result's gradients ``shift`` images earlier."""
    images = len(x)
    x, grad = x[max(0, shift) : max(0, images + shift)], grad[max(0, -shift) : max(0, images - shift)]
    if len(x) == 0:  # a shift that no clip is long enough for
        return grad.new_zeros(shape)
    x, grad = (images.contiguous(memory_format=torch.channels_last) for images in (x, grad))
    _, found, _ = torch.ops.aten.convolution_backward(
        grad, x, grad.new_empty(shape), None, [1, 1], [padding, 0], [1, 1], False, [0, 0], shape[0],
        [False, True, False],
    )  # fmt: skip
    return found


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return F.conv3d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def _convolve_frames(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Convolve as a sum of two-dimensional convolutions, for which ONNX Runtime has kernels five times faster."""
    frames, radius = x.shape[2], weight.shape[-1] // 2
    padded = F.pad(x.movedim(2, 1), (0, 0, 0, 0, 0, 0, radius, radius))  # (B, T + 2r, C, H, W)
    out = bias[:, None, None]
    for shift in range(2 * radius + 1):
        images = padded[:, shift : shift + frames].flatten(0, 1)
        out = out + F.conv2d(images, weight[:, :, shift], padding=radius, groups=len(weight))
    return out.unflatten(0, (-1, frames)).movedim(1, 2)
