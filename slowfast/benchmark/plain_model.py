"""A network in its obvious formulation, which the fast one is measured against; it computes the same.

Windows are gathered for every token, joint attention is a softmax over a matrix that is held in memory, maps lie
channels first in memory, and tokens are copied out of them and back in every block. Nothing trains with this.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from slowfast.models.attention import EmimAttention, JointAttention, split_heads
from slowfast.models.layers import AttentionBlock, PatchEmbed, PointwiseConv3d, channels_first, channels_last
from slowfast.models.uniformer import Uniformer
from slowfast.ops.depthwise import DepthwiseConv3d


class _PlainUniformer(Uniformer):
    def to_map(self, clips: torch.Tensor) -> torch.Tensor:
        super().to_map(clips)  # for its checks
        return clips.contiguous()


class _PlainConv3d(nn.Conv3d):
    """torch's own convolution."""


class _PlainPatchEmbed(PatchEmbed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).contiguous()


class _PlainBlock(AttentionBlock):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channels_last(self._encode(x)).contiguous()
        return channels_first(self._branches(x)).contiguous()


class _PlainJointAttention(JointAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = x.shape[1:4]
        heads = split_heads(self.qkv(x), self.num_heads)
        query, key, value = (part.flatten(1, 3).transpose(1, 2) for part in heads)  # (B, N, T*H*W, D)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
        out = (weights @ value).transpose(1, 2).reshape(*x.shape[:1], *grid, -1)
        return self.proj(out)


_PLAIN = {
    Uniformer: _PlainUniformer,
    DepthwiseConv3d: _PlainConv3d,
    PointwiseConv3d: _PlainConv3d,
    PatchEmbed: _PlainPatchEmbed,
    AttentionBlock: _PlainBlock,
    JointAttention: _PlainJointAttention,
}


def plain_copy(model: Uniformer) -> Uniformer:
    """Return a copy of a video model in the obvious formulation, with weights of its own.

    Raises:
        ValueError: a model that is no video UniFormer.
    """
    if type(model) is not Uniformer:
        raise ValueError(f"only MODEL.MODEL_NAME Uniformer has a plain formulation, found {type(model).__name__}")
    model = copy.deepcopy(model)
    for module in model.modules():
        # Same parameters and settings; the forward pass is what differs.
        module.__class__ = _PLAIN.get(type(module), type(module))
        if isinstance(module, EmimAttention):
            module.backend = "reference"
    return model
