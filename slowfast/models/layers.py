"""Layers of UniFormer (arXiv 2201.09450) under its public parameter names, for clips and for still images.

Dimension letters: ``B`` clips, ``C`` channels, ``T`` frames, ``H W`` token grid. Maps of a video model are
(B, C, T, H, W), those of an image model (B, C, H, W); ``axes`` is the number of axes behind the channels, 3 or 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.ops.depthwise import DepthwiseConv3d
from slowfast.ops.precision import autocast_dtype, without_autocast

# Norms inside attention blocks and inside patch embeddings use different epsilons in the public models.
BLOCK_NORM_EPS = 1e-6
EMBED_NORM_EPS = 1e-5

# By the number of axes.
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def depthwise_conv(dim: int, kernel_size: int, axes: int) -> nn.Module:
    """Return a depthwise convolution of stride 1 that keeps the size of a map."""
    if axes == 3:
        return DepthwiseConv3d(dim, kernel_size)
    return nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)


class _Pointwise:
    """A convolution of kernel 1 as the matrix product that it is on maps whose channels are last in memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(F.linear(channels_last(x), self.weight.flatten(1), self.bias))


class PointwiseConv2d(_Pointwise, nn.Conv2d):
    """(B, C, H, W) -> (B, C', H, W)."""


class PointwiseConv3d(_Pointwise, nn.Conv3d):
    """(B, C, T, H, W) -> (B, C', T, H, W)."""


def pointwise_conv(dim: int, out_dim: int, axes: int) -> nn.Module:
    """Return a convolution of kernel 1."""
    return {2: PointwiseConv2d, 3: PointwiseConv3d}[axes](dim, out_dim, 1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, T, H, W, C), or (B, C, H, W) -> (B, H, W, C), a view."""
    return x.movedim(1, -1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """(B, T, H, W, C) -> (B, C, T, H, W), or (B, H, W, C) -> (B, C, H, W), a view."""
    return x.movedim(-1, 1)


def drop_path(rate: float) -> nn.Module:
    """Return stochastic depth (arXiv 1603.09382) that drops a residual branch of a clip with probability ``rate``."""
    if not rate:
        return nn.Identity()
    from timm.layers import DropPath  # here, since importing timm takes longer than importing torch

    return DropPath(rate)


class PatchEmbed(nn.Module):
    """Strided convolution and layer norm over channels: (B, C_in, T, H, W) -> (B, C_out, T', H', W').

    Kernel, stride and padding are those of a clip; an image has the last two numbers of each.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int] = (0, 0, 0),
        axes: int = 3,
    ) -> None:
        super().__init__()
        self.proj = CONV[axes](in_channels, embed_dim, kernel[-axes:], stride[-axes:], padding[-axes:])
        self.norm = nn.LayerNorm(embed_dim, eps=EMBED_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_shorter = x.dim() == 5 and x.shape[2] < self.proj.kernel_size[0]
        if is_shorter and x.device.type == "cpu" and autocast_dtype(x) is not None:
            # oneDNN's bfloat16 gradient for the weights is wrong for clips shorter than the kernel (torch 2.15).
            with without_autocast(x):
                x = self.proj(x.float())
        else:
            x = self.proj(x)
        return channels_first(self.norm(channels_last(x)))


class Gelu(nn.GELU):
    """GELU that takes the memory of its input, which nobody else may need, where no gradient will ask for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


class ConvMlp(nn.Module):
    """Two convolutions of kernel 1 with a GELU between them, on (B, C, T, H, W) or (B, C, H, W)."""

    def __init__(self, dim: int, hidden_dim: int, axes: int = 3) -> None:
        super().__init__()
        self.fc1 = pointwise_conv(dim, hidden_dim, axes)
        self.act = Gelu()
        self.fc2 = pointwise_conv(hidden_dim, dim, axes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, on (..., C)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = Gelu()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class _Block(nn.Module):
    """What both kinds of block begin with.

    Attributes:
        is_folded: whether the kernel of ``pos_embed`` adds its input as well, see :mod:`slowfast.models.folding`.
    """

    is_folded = False

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.pos_embed(x) if self.is_folded else x + self.pos_embed(x)


class ConvBlock(_Block):
    """Local block of stages 1 and 2: dynamic position encoding, depthwise aggregation, MLP; all convolutions.

    The aggregation has kernel 5 along every axis.
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float, axes: int = 3) -> None:
        super().__init__()
        self.pos_embed = depthwise_conv(dim, 3, axes)
        self.norm1 = BATCH_NORM[axes](dim)
        self.conv1 = pointwise_conv(dim, dim, axes)
        self.attn = depthwise_conv(dim, 5, axes)
        self.conv2 = pointwise_conv(dim, dim, axes)
        self.norm2 = BATCH_NORM[axes](dim)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), axes)
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._encode(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(_Block):
    """Block of stages 3 and 4: dynamic position encoding, attention, MLP.

    Args:
        dim: channels.
        attention: module on (B, T, H, W, C), of the same output shape; an image is a clip of one frame to it.
        mlp_ratio: hidden width of the MLP over ``dim``.
        drop_path_rate: probability of dropping a residual branch of a clip.
        axes: 3 for maps (B, C, T, H, W), 2 for maps (B, C, H, W).
    """

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path_rate: float, axes: int = 3) -> None:
        super().__init__()
        self.axes = axes
        self.pos_embed = depthwise_conv(dim, 3, axes)
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channels_last(self._encode(x))
        if autocast_dtype(x) == torch.float16:
            # Affinities may leave the range of float16. The paper's runs had this part in float32 too.
            with without_autocast(x):
                return channels_first(self._branches(x.float()))
        return channels_first(self._branches(x))

    def _branches(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x) if self.axes == 3 else self.attn(x.unsqueeze(1)).squeeze(1)
