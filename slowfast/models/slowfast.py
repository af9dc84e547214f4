"""SlowFast networks (arXiv 1812.03982), ResNets of bottleneck blocks, under the parameter names of PyTorchVideo.

``B`` clips, ``C`` channels, ``T`` frames of the fast pathway, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from slowfast.models.build import MODEL_REGISTRY, Model, construct
from slowfast.models.layers import checkpointed
from slowfast.ops.layers import Conv3d
from slowfast.utils.errors import UserError


class Bottleneck(nn.Module):
    """Three convolutions with norms; the last norm starts at zero, so that a block begins as its shortcut."""

    def __init__(self, conv_a: nn.Module, conv_b: nn.Module, norm_b: nn.Module, act_b: nn.Module, conv_c: nn.Module):
        super().__init__()
        self.conv_a, self.norm_a = conv_a, nn.BatchNorm3d(conv_a.out_channels)
        self.conv_b, self.norm_b, self.act_b = conv_b, norm_b, act_b
        self.conv_c, self.norm_c = conv_c, nn.BatchNorm3d(conv_c.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_a(self.conv_a(x)).relu_()
        x = self.act_b(self.norm_b(self.conv_b(x)))
        return self.norm_c(self.conv_c(x))


class ResidualBlock(nn.Module):
    """A bottleneck beside a shortcut, ``branch1_conv`` and ``branch1_norm`` where these are not the identity."""

    def __init__(self, branch2: nn.Module, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.branch1_conv, self.branch1_norm, self.branch2 = conv, norm, branch2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.branch1_conv is None else self.branch1_conv(x)
        shortcut = shortcut if self.branch1_norm is None else self.branch1_norm(shortcut)
        return (shortcut + self.branch2(x)).relu_()


class Stage(nn.Module):
    """Residual blocks in a row, the first ``num_recomputed`` of which recompute activations in the backward pass."""

    def __init__(self, blocks: Sequence[nn.Module], num_recomputed: int = 0) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(blocks)
        self.num_recomputed = num_recomputed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, block in enumerate(self.res_blocks):
            recompute = torch.is_grad_enabled() and index < self.num_recomputed
            x = checkpointed(block, x) if recompute else block(x)
        return x


class Stem(nn.Module):
    """Convolution, norm and, in SlowFast, a spatial maximum of 3 x 3."""

    def __init__(self, conv: nn.Module, dim: int, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = conv, nn.BatchNorm3d(dim), pool or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.norm(self.conv(x)).relu_())


class Head(nn.Module):
    """Classifier ``proj`` of a map (B, C, T, H, W), behind its mean or another ``pool`` and dropout."""

    def __init__(self, dim: int, num_classes: int, dropout: float, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.pool, self.dropout, self.proj = pool, nn.Dropout(dropout), nn.Linear(dim, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.dropout(x.mean((2, 3, 4)) if self.pool is None else self.pool(x)))


class ResidualNet(Model):
    """Networks whose ``blocks`` are a stem, four stages and, last, a :class:`Head`."""

    SECTIONS = ("MODEL.ARGS",)
    preferred: ClassVar[dict[str, Any]] = {"DATA.MEAN": [0.45] * 3, "DATA.STD": [0.225] * 3}

    blocks: nn.ModuleList

    @classmethod
    def from_config(cls, cfg) -> "ResidualNet":
        return construct(cls, cfg, num_classes=cfg.MODEL.NUM_CLASSES, checkpoint_num=cfg.MODEL.CHECKPOINT_NUM)

    @property
    def head(self) -> nn.Module:
        return self.blocks[-1].proj

    def initialize(self) -> None:
        """Draw weights as the published networks did (arXiv 1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.norm_c.weight)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        groups: list[list[nn.Parameter]] = []
        for block in self.blocks:
            depth = max([len(stage.res_blocks) for stage in block.modules() if isinstance(stage, Stage)], default=1)
            layers = [[] for _ in range(depth)]  # of both pathways together; what fuses them belongs to the last
            for name, parameter in block.named_parameters():
                _, is_within, rest = name.partition("res_blocks.")
                layers[int(rest.partition(".")[0]) if is_within else -1].append(parameter)
            groups += [layer for layer in layers if layer]
        return groups

    def stage_of(self, name: str) -> str:
        index = name.removeprefix("blocks.").partition(".")[0]
        return {"0": "stem", str(len(self.blocks) - 1): "head"}.get(index, f"stage {index}")


class Fusion(nn.Module):
    """Lateral connection: the fast pathway, its frames strided to the slow ones, beside the channels of the slow."""

    def __init__(self, fast_dim: int, kernel: int, alpha: int) -> None:
        super().__init__()
        stride, padding = (alpha, 1, 1), (kernel // 2, 0, 0)
        self.conv_fast_to_slow = Conv3d(fast_dim, 2 * fast_dim, (kernel, 1, 1), stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(2 * fast_dim)

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        return torch.cat([slow, self.norm(self.conv_fast_to_slow(fast)).relu_()], dim=1)


class Pathways(nn.Module):
    """The same part of the slow and of the fast pathway, and the fusion behind it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: nn.Module | None) -> None:
        super().__init__()
        self.multipathway_blocks, self.multipathway_fusion = nn.ModuleList([slow, fast]), fusion

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        return (slow if self.multipathway_fusion is None else self.multipathway_fusion(slow, fast)), fast


@MODEL_REGISTRY.register()
class SlowFast(ResidualNet):
    """A slow pathway of every ``alpha``-th frame beside a fast one of all frames and an eighth of the channels.

    ``width`` is the number of channels of the slow stem, ``depth`` that of blocks per stage (3, 4, 6, 3 is R50),
    ``fusion_kernel`` the frames that a lateral connection sees.
    """

    TINY: ClassVar[dict[str, Any]] = {
        "MODEL.ARGS": {"width": 16, "depth": [1, 2, 1, 1], "alpha": 2, "dropout": 0.0},
        "DATA.NUM_FRAMES": 4,
    }
    preferred: ClassVar[dict[str, Any]] = {
        **ResidualNet.preferred, "DATA.NUM_FRAMES": 32, "DATA.TRAIN_CROP_SIZE": 224
    }  # fmt: skip

    def __init__(
        self,
        num_classes: int,
        alpha: int = 4,
        fusion_kernel: int = 7,
        width: int = 64,
        depth: Sequence[int] = (3, 4, 6, 3),
        dropout: float = 0.5,
        checkpoint_num: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        super().__init__()
        self.alpha = alpha
        dims = (width, width // 8)
        stems = (_stem(dims[0], 1), _stem(dims[1], 5))
        blocks: list[nn.Module] = [Pathways(*stems, Fusion(dims[1], fusion_kernel, alpha))]
        for stage, (count, recomputed) in enumerate(zip(depth, checkpoint_num, strict=True)):
            out_dims = (width * 4 * 2**stage, width * 4 * 2**stage // 8)
            stride = 1 if stage == 0 else 2
            slow = _stage(dims[0] + 2 * dims[1], out_dims[0], count, 1 if stage < 2 else 3, stride, recomputed)
            fast = _stage(dims[1], out_dims[1], count, 3, stride, recomputed)
            fusion = Fusion(out_dims[1], fusion_kernel, alpha) if stage < 3 else None
            blocks.append(Pathways(slow, fast, fusion))
            dims = out_dims
        # Without parameters in the public model: there it pools and joins the pathways.
        self.blocks = nn.ModuleList([*blocks, nn.Identity(), Head(sum(dims), num_classes, dropout)])
        self.initialize()

    @classmethod
    def from_config(cls, cfg) -> "SlowFast":
        model = super().from_config(cfg)
        model.slow_frames(cfg.DATA.NUM_FRAMES)
        return model

    def slow_frames(self, num_frames: int) -> list[int]:
        """Return the frames of the slow pathway, spread from the first to the last one."""
        if num_frames % self.alpha:
            rule = f"a multiple of alpha {self.alpha} (MODEL.ARGS)"
            raise UserError(f"DATA.NUM_FRAMES must be {rule} for SlowFast, found {num_frames}")
        count = num_frames // self.alpha
        return [index * (num_frames - 1) // max(count - 1, 1) for index in range(count)]

    def map_source(self) -> tuple[nn.Module, str]:
        return self, "forward_features"

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        slow, fast = clips[:, :, self.slow_frames(clips.shape[2])], clips
        for block in self.blocks[:5]:
            slow, fast = block(slow, fast)
        # The mean of alpha frames, so that both pathways make one map (B, C, T / alpha, H / 32, W / 32).
        return torch.cat([slow, fast.unflatten(2, (-1, self.alpha)).mean(3)], dim=1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of clips (B, 3, T, H, W)."""
        return self.blocks[-1](self.forward_features(clips))


def _stem(dim: int, frames: int) -> Stem:
    conv = Conv3d(3, dim, (frames, 7, 7), (1, 2, 2), (frames // 2, 3, 3), bias=False)
    return Stem(conv, dim, nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))


def _stage(dim: int, out_dim: int, depth: int, frames: int, stride: int, recomputed: int) -> Stage:
    """Return bottlenecks whose first convolution sees ``frames`` and whose second halves the map if ``stride`` is 2."""
    blocks, inner = [], out_dim // 4
    for _ in range(depth):
        conv_a = Conv3d(dim, inner, (frames, 1, 1), padding=(frames // 2, 0, 0), bias=False)
        conv_b = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        conv_c = nn.Conv3d(inner, out_dim, 1, bias=False)
        branch = Bottleneck(conv_a, conv_b, nn.BatchNorm3d(inner), nn.ReLU(inplace=True), conv_c)
        if dim == out_dim and stride == 1:
            blocks.append(ResidualBlock(branch))
        else:
            shortcut = nn.Conv3d(dim, out_dim, 1, (1, stride, stride), bias=False)
            blocks.append(ResidualBlock(branch, shortcut, nn.BatchNorm3d(out_dim)))
        dim, stride = out_dim, 1
    return Stage(blocks, recomputed)
