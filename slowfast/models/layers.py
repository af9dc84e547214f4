"""Layers of UniFormer (arXiv 2201.09450) under its public parameter names.

Dimension letters: ``B`` clips, ``C`` channels, ``T`` frames, ``H W`` token grid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import DropPath
from torch import nn

from slowfast.ops.depthwise import DepthwiseConv3d

# Norms inside attention blocks and inside patch embeddings use different epsilons in the public models.
BLOCK_NORM_EPS = 1e-6
EMBED_NORM_EPS = 1e-5


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, T, H, W, C), a view."""
    return x.permute(0, 2, 3, 4, 1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """(B, T, H, W, C) -> (B, C, T, H, W), a view."""
    return x.permute(0, 4, 1, 2, 3)


class PatchEmbed(nn.Module):
    """Strided convolution and layer norm over channels: (B, C_in, T, H, W) -> (B, C_out, T', H', W')."""

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, embed_dim, kernel, stride, padding)
        self.norm = nn.LayerNorm(embed_dim, eps=EMBED_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(self.norm(channels_last(self.proj(x))))


class ConvMlp(nn.Module):
    """Two 1x1x1 convolutions with a GELU between them, on (B, C, T, H, W)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(dim, hidden_dim, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv3d(hidden_dim, dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, on (..., C)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvBlock(nn.Module):
    """Local block of stages 1 and 2: dynamic position encoding, 5x5x5 depthwise aggregation, MLP; all convolutions."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv3d(dim, 3)
        self.norm1 = nn.BatchNorm3d(dim)
        self.conv1 = nn.Conv3d(dim, dim, 1)
        self.attn = DepthwiseConv3d(dim, 5)
        self.conv2 = nn.Conv3d(dim, dim, 1)
        self.norm2 = nn.BatchNorm3d(dim)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(nn.Module):
    """Block of stages 3 and 4: dynamic position encoding, attention, MLP.

    Args:
        dim: channels.
        attention: module on (B, T, H, W, C), of the same output shape.
        mlp_ratio: hidden width of the MLP over ``dim``.
        drop_path: probability of dropping a residual branch of a clip.
    """

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = DepthwiseConv3d(dim, 3)
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channels_last(x + self.pos_embed(x))
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return channels_first(x)


# Builds the attention of one block from its channels and number of heads.
AttentionFactory = Callable[[int, int], nn.Module]
