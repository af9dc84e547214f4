"""UniFormer for video and still images (arXiv 2201.09450): ``B`` clips, ``C`` channels, ``T`` frames, ``K`` classes."""

import re
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, ClassVar

import torch
from torch import nn

from slowfast.models.attention import AttentionFactory, MotionMlp, build_attention
from slowfast.models.build import MODEL_REGISTRY, Model, construct
from slowfast.models.layers import BATCH_NORM, AttentionBlock, ConvBlock, PatchEmbed, checkpointed
from slowfast.utils.errors import UserError


@MODEL_REGISTRY.register()
class Uniformer(Model):
    """Four stages of blocks: two of convolutions, two of attention.

    ``attention`` has for stages 3 and 4 the attention of their blocks, repeated over the stage's depth from its first
    block on: ``[[emim, joint], [emim, joint]]`` is EMIM's E-O pattern (arXiv 2510.18705, Table 8). Stochastic depth
    grows linearly from 0 to ``drop_path_rate``; the first ``checkpoint_num`` blocks per stage recompute their
    activations in the backward pass. ``stem_stride`` (4 px, or 2 for maps of twice the side) is given by MODEL.ARGS;
    all other arguments are the keys of the section UNIFORMER.
    """

    SECTIONS = ("UNIFORMER", "EMIM", "MODEL.ARGS")
    TRAINING_ONLY = ("UNIFORMER.DROP_DEPTH_RATE", "UNIFORMER.INIT_STD", "EMIM.ZERO_INIT_MOTION", "EMIM.BACKEND")
    TINY: ClassVar[dict[str, Any]] = {
        "UNIFORMER.EMBED_DIM": [16, 16, 32, 32],
        "UNIFORMER.DEPTH": [1, 1, 3, 2],
        "UNIFORMER.HEAD_DIM": 16,
        "UNIFORMER.DROP_DEPTH_RATE": 0.0,
        "EMIM.WINDOW": [3, 3],
    }

    axes = 3  # of a map: time, height and width

    def __init__(
        self,
        num_classes: int,
        embed_dim: Sequence[int],
        depth: Sequence[int],
        attention: Sequence[Sequence[AttentionFactory]],
        head_dim: int = 64,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        temporal_downsample: bool = False,
        checkpoint_num: Sequence[int] = (0, 0, 0, 0),
        init_std: float = 0.02,
        stem_stride: int = 4,
    ) -> None:
        super().__init__()
        if stem_stride not in (2, 4):
            raise UserError(f"MODEL.ARGS.stem_stride is {stem_stride!r}; allowed: 4, as published, or 2 (px)")
        for dim in embed_dim[2:]:
            if dim % head_dim:
                raise UserError(f"UNIFORMER.EMBED_DIM {dim} is not a multiple of UNIFORMER.HEAD_DIM {head_dim}")
        if int(min(embed_dim) * mlp_ratio) < 1:
            raise UserError(f"UNIFORMER.MLP_RATIO {mlp_ratio:g} leaves MLPs of {min(embed_dim)} channels without width")
        self.checkpoint_num = tuple(checkpoint_num)

        axes = self.axes
        self.min_side = 8 * stem_stride  # px: that of a token of stage 4
        strides, padding = (2 if temporal_downsample else 1, stem_stride, stem_stride), (4 - stem_stride) // 2
        self.patch_embed1 = PatchEmbed(3, embed_dim[0], (3, 4, 4), strides, (1, padding, padding), axes)
        self.patch_embed2 = PatchEmbed(embed_dim[0], embed_dim[1], (1, 2, 2), (1, 2, 2), axes=axes)
        self.patch_embed3 = PatchEmbed(embed_dim[1], embed_dim[2], (1, 2, 2), (1, 2, 2), axes=axes)
        self.patch_embed4 = PatchEmbed(embed_dim[2], embed_dim[3], (1, 2, 2), (1, 2, 2), axes=axes)

        drop_path = iter(torch.linspace(0, drop_path_rate, sum(depth), device="cpu").tolist())
        for stage, (dim, pattern) in enumerate(zip(embed_dim, ([None], [None], *attention))):
            blocks = nn.ModuleList()
            for make_attention in islice(cycle(pattern), depth[stage]):
                if make_attention is None:
                    blocks.append(ConvBlock(dim, mlp_ratio, next(drop_path), axes))
                else:
                    attn = make_attention(dim, dim // head_dim)
                    blocks.append(AttentionBlock(dim, attn, mlp_ratio, next(drop_path), axes))
            setattr(self, f"blocks{stage + 1}", blocks)

        self.norm = BATCH_NORM[axes](embed_dim[3])
        self.head = nn.Linear(embed_dim[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, MotionMlp):
                module.reset_parameters()

    @classmethod
    def from_config(cls, cfg) -> "Uniformer":
        return construct(
            cls,
            cfg,
            num_classes=cfg.MODEL.NUM_CLASSES,
            embed_dim=cfg.UNIFORMER.EMBED_DIM,
            depth=cfg.UNIFORMER.DEPTH,
            attention=[build_attention(cfg, stage) for stage in (3, 4)],
            head_dim=cfg.UNIFORMER.HEAD_DIM,
            mlp_ratio=cfg.UNIFORMER.MLP_RATIO,
            drop_path_rate=cfg.UNIFORMER.DROP_DEPTH_RATE,
            temporal_downsample=cfg.UNIFORMER.TEMPORAL_DOWNSAMPLE,
            checkpoint_num=cfg.MODEL.CHECKPOINT_NUM,
            init_std=cfg.UNIFORMER.INIT_STD,
        )

    def to_map(self, clips: torch.Tensor) -> torch.Tensor:
        """Return clips (B, 3, T, H, W) as the first map, channels last in memory."""
        # Tokens are the rows of a channels-last map: in this layout attention blocks need no copies.
        return clips.contiguous(memory_format=torch.channels_last_3d)

    def forward_stages(self, clips: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps after stages 1 to 4, (B, C_i, T', H_i, W_i) each, of clips (B, 3, T, H, W)."""
        maps = []
        x = self.to_map(clips)
        if min(x.shape[-2:]) < self.min_side:
            rule = f"at least {self.min_side} px high and wide (DATA.TRAIN_CROP_SIZE, DATA.TEST_CROP_SIZE)"
            raise UserError(f"clips must be {rule}, found {x.shape[-2]} x {x.shape[-1]}")
        for stage in range(1, 5):
            x = getattr(self, f"patch_embed{stage}")(x)
            for index, block in enumerate(getattr(self, f"blocks{stage}")):
                recompute = torch.is_grad_enabled() and index < self.checkpoint_num[stage - 1]
                x = checkpointed(block, x) if recompute else block(x)
            maps.append(x)
        return maps

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        return self.norm(self.forward_stages(clips)[-1])  # (B, C_4, T', H / 32, W / 32)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of clips (B, 3, T, H, W)."""
        x = self.forward_features(clips)
        return self.head(x.mean(dim=tuple(range(2, x.dim()))))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        layers: list[list[nn.Module]] = [[self.patch_embed1]]
        for stage in range(1, 5):
            blocks = [[block] for block in getattr(self, f"blocks{stage}")] or [[]]
            blocks[0] += [getattr(self, f"patch_embed{stage}")] if stage > 1 else []
            layers += blocks
        layers.append([self.norm, self.head])
        return [[parameter for module in layer for parameter in module.parameters()] for layer in layers if layer]

    def stage_of(self, name: str) -> str:
        child = super().stage_of(name)
        if child.startswith("patch_embed"):
            return "stem" if child == "patch_embed1" else "patch embeddings"
        return re.sub(r"^blocks(\d)$", r"stage \1", child)


@MODEL_REGISTRY.register()
class Uniformer2d(Uniformer):
    """The same network without the axis of time, for still images: clips of one frame (B, 3, 1, H, W).

    Maps are (B, C_i, H_i, W_i), convolutions and batch norms two-dimensional under the same parameter names, those of
    the published ImageNet models. EMIM (arXiv 2510.18705, Table 9) attends inside the image, queries, keys and values
    being those of the same frame, and has no motion features.
    """

    TINY: ClassVar[dict[str, Any]] = {**Uniformer.TINY, "DATA.NUM_FRAMES": 1, "EMIM.MOTION": False}

    axes = 2  # of a map: height and width

    @classmethod
    def from_config(cls, cfg) -> "Uniformer2d":
        for section, key in (("EMIM", "MOTION"), ("UNIFORMER", "TEMPORAL_DOWNSAMPLE")):
            if cfg[section][key]:
                raise UserError(
                    f"{section}.{key} is True, but Uniformer2d (MODEL.MODEL_NAME) sees still images: set it to False"
                )
        return super().from_config(cfg)

    def to_map(self, clips: torch.Tensor) -> torch.Tensor:
        """Return clips of one frame (B, 3, 1, H, W) as images (B, 3, H, W), channels last in memory."""
        if clips.dim() != 5 or clips.shape[2] != 1:
            raise UserError(f"still images (DATA.NUM_FRAMES 1) must be (B, 3, 1, H, W), found {tuple(clips.shape)}")
        return clips.squeeze(2).contiguous(memory_format=torch.channels_last)
