"""X3D (arXiv 2004.04730), ResNets of depthwise bottlenecks, under the parameter names of PyTorchVideo.

``B`` clips, ``C`` channels, ``T`` frames, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from slowfast.models.build import MODEL_REGISTRY
from slowfast.models.slowfast import Bottleneck, Head, ResidualBlock, ResidualNet, Stage, Stem
from slowfast.ops.depthwise import DepthwiseConv3d
from slowfast.ops.layers import Conv3d

BOTTLENECK = 2.25  # channels inside a block over those of its result


class SqueezeExcitation(nn.Module):
    """Channels weighted by what their means say (arXiv 1709.01507), through a sixteenth of them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(8, int(dim / 16 + 4) // 8 * 8)  # multiples of 8, not less than nine tenths of what was asked for
        hidden += 8 if hidden < 0.9 * dim / 16 else 0
        self.block = nn.Sequential(nn.Conv3d(dim, hidden, 1), nn.ReLU(), nn.Conv3d(hidden, dim, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.block(x.mean((2, 3, 4), keepdim=True))


class SeparableConv(nn.Module):
    """Spatial convolution, then a depthwise one over five frames; the public model calls them the other way round."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_t = nn.Conv3d(3, dim, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.conv_xy = Conv3d(dim, dim, (5, 1, 1), padding=(2, 0, 0), groups=dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_xy(self.conv_t(x))


class ProjectedPool(nn.Module):
    """Features (B, ``dim_out``) of the last map: ``inner`` channels, their mean, and more channels of that."""

    def __init__(self, dim: int, inner: int, dim_out: int) -> None:
        super().__init__()
        self.pre_conv, self.pre_norm = nn.Conv3d(dim, inner, 1, bias=False), nn.BatchNorm3d(inner)
        self.post_conv = nn.Conv3d(inner, dim_out, 1, bias=False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.pre_norm(self.pre_conv(x)).relu_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.post_conv(self.features(x).mean((2, 3, 4), keepdim=True)).relu_().flatten(1)


@MODEL_REGISTRY.register()
class X3D(ResidualNet):
    """Stages of ``width`` (1, 2, 4, 8) channels and ``depth`` blocks at the full frame rate.

    XS, S and M are this network for 4, 13 and 16 frames of 160, 160 and 224 px; L has depth 5, 10, 25, 15.
    """

    TINY: ClassVar[dict[str, Any]] = {"MODEL.ARGS": {"width": 8, "depth": [1, 2, 1, 1], "dropout": 0.0}}

    def __init__(
        self,
        num_classes: int,
        width: int = 24,
        depth: Sequence[int] = (3, 5, 11, 7),
        dropout: float = 0.5,
        checkpoint_num: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        super().__init__()
        blocks, dim = [Stem(SeparableConv(width), width)], width
        for stage, (count, recomputed) in enumerate(zip(depth, checkpoint_num, strict=True)):
            blocks.append(_stage(dim, width * 2**stage, count, recomputed))
            dim = width * 2**stage
        pool = ProjectedPool(dim, int(BOTTLENECK * dim), 2048)
        self.blocks = nn.ModuleList([*blocks, Head(2048, num_classes, dropout, pool)])
        self.initialize()

    def forward_stages(self, clips: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps after stages 1 to 4, (B, C_i, T, H_i, W_i) each, of clips (B, 3, T, H, W)."""
        maps = [self.blocks[0](clips)]
        for block in self.blocks[1:-1]:
            maps.append(block(maps[-1]))
        return maps[1:]

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.blocks[-1].pool.features(self.forward_stages(clips)[-1])

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of clips (B, 3, T, H, W)."""
        return self.blocks[-1](self.forward_stages(clips)[-1])


def _stage(dim: int, out_dim: int, depth: int, recomputed: int) -> Stage:
    """Return bottlenecks, every other one from the first on with squeeze and excitation; the first halves the map."""
    blocks, inner = [], int(BOTTLENECK * out_dim)
    for index in range(depth):
        conv_a, conv_c = nn.Conv3d(dim, inner, 1, bias=False), nn.Conv3d(inner, out_dim, 1, bias=False)
        halving = {"stride": (1, 2, 2), "padding": 1, "groups": inner, "bias": False}
        conv_b = DepthwiseConv3d(inner, 3, bias=False) if index else Conv3d(inner, inner, 3, **halving)
        squeeze = nn.Identity() if index % 2 else SqueezeExcitation(inner)
        branch = Bottleneck(conv_a, conv_b, nn.Sequential(nn.BatchNorm3d(inner), squeeze), nn.SiLU(), conv_c)
        shortcut = None if index else nn.Conv3d(dim, out_dim, 1, (1, 2, 2), bias=False)
        norm = nn.BatchNorm3d(out_dim) if dim != out_dim else None
        blocks.append(ResidualBlock(branch, shortcut, norm))
        dim = out_dim
    return Stage(blocks, recomputed)
