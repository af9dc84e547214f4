"""Layers of UniFormer (arXiv 2201.09450) under its public parameter names, for clips and for still images.

Maps of a video model are (B, C, T, H, W), those of an image model (B, C, H, W): clips, channels, frames and token grid.
``axes`` is the number of axes behind the channels, 3 or 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slowfast.ops.layers import Conv3d, Gelu, channels_first, channels_last, depthwise_conv, pointwise_conv
from slowfast.ops.precision import autocast_dtype, without_autocast

# Norms inside attention blocks and inside patch embeddings use different epsilons in the public models.
BLOCK_NORM_EPS = 1e-6
EMBED_NORM_EPS = 1e-5

CONV = {2: nn.Conv2d, 3: Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drop a residual branch of a clip with probability ``rate`` in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty((len(x), *[1] * (x.dim() - 1))).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)


class PatchEmbed(nn.Module):
    """Strided convolution and layer norm over channels: (B, C_in, T, H, W) -> (B, C_out, T', H', W').

    Kernel, stride and padding are those of a clip; an image has the last two numbers of each.
    """

    def __init__(self, in_channels: int, embed_dim: int, kernel, stride, padding=(0, 0, 0), axes: int = 3) -> None:
        super().__init__()
        self.proj = CONV[axes](in_channels, embed_dim, kernel[-axes:], stride[-axes:], padding[-axes:])
        self.norm = nn.LayerNorm(embed_dim, eps=EMBED_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return channels_first(self.norm(channels_last(self.proj(x))))


class Mlp(nn.Module):
    """Two layers with a GELU between them: linear ones on (..., C), or convolutions of kernel 1 on maps of ``axes``."""

    def __init__(self, dim: int, hidden_dim: int, axes: int | None = None) -> None:
        super().__init__()
        self.fc1 = pointwise_conv(dim, hidden_dim, axes) if axes else nn.Linear(dim, hidden_dim)
        self.act = Gelu()
        self.fc2 = pointwise_conv(hidden_dim, dim, axes) if axes else nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvBlock(nn.Module):
    """Local block of stages 1 and 2: dynamic position encoding, depthwise aggregation, MLP; all convolutions."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float, axes: int = 3) -> None:
        super().__init__()
        self.pos_embed = depthwise_conv(dim, 3, axes)
        self.norm1 = BATCH_NORM[axes](dim)
        self.conv1 = pointwise_conv(dim, dim, axes)
        self.attn = depthwise_conv(dim, 5, axes)
        self.conv2 = pointwise_conv(dim, dim, axes)
        self.norm2 = BATCH_NORM[axes](dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), axes)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(nn.Module):
    """Block of stages 3 and 4: dynamic position encoding, attention, MLP.

    ``attention`` maps (B, T, H, W, C) to the same shape; an image is a clip of one frame to it.
    """

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path_rate: float, axes: int = 3) -> None:
        super().__init__()
        self.axes = axes
        self.pos_embed = depthwise_conv(dim, 3, axes)
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channels_last(x + self.pos_embed(x))
        if autocast_dtype(x) == torch.float16:
            # Affinities may leave the range of float16. The paper's runs had this part in float32 too.
            with without_autocast(x):
                return channels_first(self._branches(x.float()))
        return channels_first(self._branches(x))

    def _branches(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm1(x)
        attended = self.attn(tokens) if self.axes == 3 else self.attn(tokens.unsqueeze(1)).squeeze(1)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))


def checkpointed(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run ``block`` and drop its activations; the backward pass computes them again."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return _checkpointed_norms(block, x, norms) if norms else checkpoint(block, x, use_reentrant=False)


@torch.compiler.disable  # which takes no context function
def _checkpointed_norms(block: nn.Module, x: torch.Tensor, norms: list[nn.Module]) -> torch.Tensor:
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _frozen_statistics(norms)))


@contextmanager
def _frozen_statistics(norms: list[nn.Module]) -> Iterator[None]:
    """Keep batch norms from counting the batch a second time in the recomputation."""
    settings = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, settings):
            norm.momentum, norm.num_batches_tracked = momentum, counter
