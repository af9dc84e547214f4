"""Attention modules of a UniFormer block: joint space-time attention, and EMIM in its place.

Dimension letters: ``B`` clips, ``T`` frames, ``H W`` token grid, ``C`` channels, ``N`` heads, ``D`` channels per head.
Every module maps (B, T, H, W, C) to the same shape and is built from ``(dim, num_heads)`` and its own keywords.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.ops.emim import MotionWeights, check_window, emim_attention, get_backend
from slowfast.ops.emim.motion import quick_gelu


class JointAttention(nn.Module):
    """Softmax attention of every token to all T * H * W tokens of the clip."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).flatten(1, 3).unflatten(-1, (3, self.num_heads, -1))  # (B, T*H*W, 3, N, D)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, N, T*H*W, D) each
        out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2).unflatten(1, x.shape[1:4]))


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quick_gelu(x)


class EmimAttention(nn.Module):
    """Window attention to the next frame plus motion features from its affinities (arXiv 2510.18705, section 3).

    Args:
        dim: channels.
        num_heads: heads; ``dim`` must be a multiple of it.
        qkv_bias: bias of the query, key and value projection.
        window: side of the window (tokens), odd.
        motion: add the motion features (Table 7).
        zero_init_motion: start the motion branch at zero, which keeps pre-trained attention as it was at step 0.
        backend: implementation, see :func:`slowfast.ops.emim.emim_attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        window: int = 7,
        motion: bool = True,
        zero_init_motion: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_window(window)
        get_backend(backend)
        self.num_heads = num_heads
        self.backend = backend
        self.zero_init_motion = zero_init_motion
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.rpb = nn.Parameter(torch.zeros(num_heads, window, window))
        nn.init.trunc_normal_(self.rpb, std=0.02)
        self.motion_conv = None
        if motion:
            displacements = window * window
            self.motion_conv = nn.Sequential(
                nn.Linear(displacements, 4 * displacements),
                QuickGELU(),
                nn.Linear(4 * displacements, dim // num_heads),
            )
            self.reset_motion()

    def reset_motion(self) -> None:
        """Initialise the motion MLP; to be called after any initialisation that runs over all linear layers."""
        if self.motion_conv is not None:
            first, _, last = self.motion_conv
            for layer in (first, last):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            if self.zero_init_motion:
                nn.init.zeros_(last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)  # (B, T, H, W, N, D) each
        out = emim_attention(query, key, value, self.rpb, self._motion_weights(), backend=self.backend)
        return self.proj(out.flatten(-2))

    def _motion_weights(self) -> MotionWeights | None:
        if self.motion_conv is None:
            return None
        first, _, last = self.motion_conv
        return MotionWeights(first.weight, first.bias, last.weight, last.bias)


# What UNIFORMER.STAGE3_ATTENTION and STAGE4_ATTENTION may name.
ATTENTIONS = {"joint": JointAttention, "emim": EmimAttention}
