"""Attention modules of a UniFormer block: joint space-time attention, EMIM in its place, and the paper's variants.

Dimension letters: ``B`` clips, ``T`` frames, ``H W`` token grid, ``C`` channels, ``N`` heads, ``D`` channels per head.
Every module maps (B, T, H, W, C) to the same shape and is built from ``(dim, num_heads)`` and its own keywords.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.ops.emim import (
    EmimRules,
    MotionWeights,
    bias_shape,
    check_backend,
    check_window,
    cost_volume,
    emim_attention,
)
from slowfast.ops.emim.motion import motion_features, quick_gelu
from slowfast.ops.precision import widened


class JointAttention(nn.Module):
    """Softmax attention of every token to all T * H * W tokens of the clip."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = split_heads(self.qkv(x), self.num_heads)
        return self.proj(joint_attention(query, key, value).flatten(-2))


def split_heads(qkv: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split (B, T, H, W, 3 * C) into query, key and value, (B, T, H, W, N, D) each."""
    return qkv.unflatten(-1, (3, num_heads, -1)).unbind(-3)


def joint_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Let every token attend to all T * H * W tokens of its clip; (B, T, H, W, N, D) each, and the result too."""
    grid = query.shape[1:4]
    query, key, value = (x.flatten(1, 3).transpose(1, 2) for x in (query, key, value))  # (B, N, T*H*W, D)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).unflatten(1, grid)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quick_gelu(x)


class MotionMlp(nn.Sequential):
    """The MLP f in M = f(A) (Eq. 5), shared by the heads: (..., P) affinities to (..., D) motion features.

    Args:
        window: side of the window, P = window * window.
        channels: D, channels per head.
        zero_init: whether f starts as zero.
    """

    def __init__(self, window: int, channels: int, zero_init: bool) -> None:
        places = window * window
        super().__init__(nn.Linear(places, 4 * places), QuickGELU(), nn.Linear(4 * places, channels))
        self.zero_init = zero_init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise; to be called after any initialisation that runs over all linear layers."""
        first, _, last = self
        for layer in (first, last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.zero_init:
            nn.init.zeros_(last.weight)

    @property
    def weights(self) -> MotionWeights:
        first, _, last = self
        return MotionWeights(first.weight, first.bias, last.weight, last.bias)

    def forward(self, affinity: torch.Tensor) -> torch.Tensor:
        return motion_features(affinity, self.weights)


class EmimAttention(nn.Module):
    """Window attention to the next frame plus motion features from its affinities (arXiv 2510.18705, section 3).

    Args:
        dim: channels.
        num_heads: heads; ``dim`` must be a multiple of it.
        qkv_bias: bias of the query, key and value projection.
        window: side of the window (tokens), odd unless ``rules`` say tiles.
        motion: add the motion features (Table 7).
        relative_bias: learn a bias per head and displacement.
        zero_init_motion: start the motion branch at zero, which keeps pre-trained attention as it was at step 0.
        rules: which frames meet, and what lies outside the image.
        backend: implementation, see :func:`slowfast.ops.emim.emim_attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        window: int = 7,
        motion: bool = True,
        relative_bias: bool = True,
        zero_init_motion: bool = True,
        rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_window(window, rules=rules)
        check_backend(backend)
        self.num_heads = num_heads
        self.window = window
        self.rules = rules
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.rpb = None
        if relative_bias:
            self.rpb = nn.Parameter(torch.zeros(bias_shape(num_heads, window, rules)))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        self.motion_conv = MotionMlp(window, dim // num_heads, zero_init_motion) if motion else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = split_heads(self.qkv(x), self.num_heads)
        motion = None if self.motion_conv is None else self.motion_conv.weights
        out = emim_attention(query, key, value, self.window, self.rpb, motion, self.rules, self.backend)
        return self.proj(out.flatten(-2))


class CostVolume(nn.Module):
    """Products of tokens with windows of the next frame, see :func:`slowfast.ops.emim.cost_volume`; no parameters."""

    def __init__(self, window: int, rules: EmimRules, backend: str) -> None:
        super().__init__()
        check_window(window)
        check_backend(backend)
        self.window = window
        self.rules = rules
        self.backend = backend

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return cost_volume(query, key, self.window, self.rules, self.backend)


class JointCostVolumeAttention(nn.Module):
    """Joint attention with a traditional cost volume beside it: the paper's counter-proposal (Table 10).

    The paper says no more than that. Built here: queries of a frame and keys of the next one are normalised to length
    one, their products over a window with zeros outside the image are the cost volume, EMIM's motion MLP reads it, and
    its features are added to the attended values before the projection.

    Args:
        dim: channels.
        num_heads: heads; ``dim`` must be a multiple of it.
        qkv_bias: bias of the query, key and value projection.
        window: side of the window (tokens), odd.
        zero_init_motion: start the motion branch at zero.
        rules: which frames meet; windows must be sliding.
        backend: as in EMIM.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        window: int = 7,
        zero_init_motion: bool = True,
        rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if rules.sampling != "sliding":
            raise ValueError(f"EMIM.SAMPLING must be sliding for joint_cost_volume attention, found {rules.sampling!r}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.cost_volume = CostVolume(window, replace(rules, pad_value=0.0), backend)
        self.motion_conv = MotionMlp(window, dim // num_heads, zero_init_motion)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = split_heads(self.qkv(x), self.num_heads)
        out = joint_attention(query, key, value)
        query, key = (F.normalize(widened(x), dim=-1) for x in (query, key))
        motion = self.motion_conv(self.cost_volume(query, key))
        return self.proj((out + motion.to(out.dtype)).flatten(-2))


# What UNIFORMER.STAGE3_ATTENTION and STAGE4_ATTENTION may name.
ATTENTIONS = {"joint": JointAttention, "emim": EmimAttention, "joint_cost_volume": JointCostVolumeAttention}

# Builds the attention of one block from its channels and number of heads.
AttentionFactory = Callable[[int, int], nn.Module]


def build_attention(cfg) -> list[list[AttentionFactory]]:
    """Return, for stages 3 and 4, what builds the attention of their blocks, from the UNIFORMER and EMIM sections.

    Raises:
        ValueError: naming the key, the value found and what is allowed.
    """
    check_backend(cfg.EMIM.BACKEND)
    if len(cfg.EMIM.WINDOW) != 2:
        raise ValueError(f"EMIM.WINDOW has one entry for stage 3 and one for stage 4, found {cfg.EMIM.WINDOW}")
    rules = EmimRules(
        sampling=cfg.EMIM.SAMPLING,
        temporal_interval=cfg.EMIM.TEMPORAL_INTERVAL,
        last_frame=cfg.EMIM.LAST_FRAME,
        padding=cfg.EMIM.PADDING,
    )
    stages = []
    for stage, window in zip((3, 4), cfg.EMIM.WINDOW, strict=True):
        check_window(window, f"EMIM.WINDOW for stage {stage}", rules)
        shared = {
            "window": window,
            "zero_init_motion": cfg.EMIM.ZERO_INIT_MOTION,
            "rules": rules,
            "backend": cfg.EMIM.BACKEND,
        }
        options = {
            "joint": {},
            "emim": {**shared, "motion": cfg.EMIM.MOTION, "relative_bias": cfg.EMIM.RELATIVE_BIAS},
            "joint_cost_volume": shared,
        }
        names = cfg.UNIFORMER[f"STAGE{stage}_ATTENTION"]
        if not names or not set(names) <= set(ATTENTIONS):
            raise ValueError(f"UNIFORMER.STAGE{stage}_ATTENTION lists names from {list(ATTENTIONS)}, found {names}")
        if "joint_cost_volume" in names and not cfg.EMIM.MOTION:
            raise ValueError(
                f"EMIM.MOTION is False, but motion features are all that joint_cost_volume in "
                f"UNIFORMER.STAGE{stage}_ATTENTION adds to joint attention: name joint instead"
            )
        stages.append([partial(ATTENTIONS[name], qkv_bias=cfg.UNIFORMER.QKV_BIAS, **options[name]) for name in names])
    return stages
