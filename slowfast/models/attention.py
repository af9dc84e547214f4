"""Attention modules of a UniFormer block: joint space-time attention, EMIM in its place, and the paper's variants.

Every module maps (B, T, H, W, C) to the same shape: clips, frames, token grid, channels, which are
``N`` heads of ``D``. A new one is a class and a row of ``ATTENTIONS``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.ops.emim import EmimRules, MotionWeights, bias_shape, cost_volume, emim_attention
from slowfast.ops.emim.motion import motion_features
from slowfast.ops.precision import widened
from slowfast.utils.errors import UserError


class Attention(nn.Module):
    """Projections that all attentions have; ``products`` names the rest of their operations in tables of costs."""

    products = "joint attention products"

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    @classmethod
    def from_config(cls, cfg, stage: int, dim: int, num_heads: int) -> "Attention":
        return cls(dim, num_heads)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return query, key and value, (B, T, H, W, N, D) each, views of one projection."""
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)


class JointAttention(Attention):
    """Softmax attention of every token to all T * H * W tokens of the clip."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(self.attend(*self.project(x)).flatten(-2))

    def attend(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return the attended values of query, key and value, (B, T, H, W, N, D) each, and the result too."""
        query, key, value = (x.flatten(1, 3).transpose(1, 2) for x in tokens)  # (B, N, T*H*W, D)
        out = F.scaled_dot_product_attention(query, key, value)
        return out.transpose(1, 2).unflatten(1, tokens[0].shape[1:4])


class MotionMlp(nn.Sequential):
    """The MLP f in M = f(A) (Eq. 5), shared by the heads: (..., window * window) affinities to (..., channels)."""

    products = "motion MLPs"

    def __init__(self, window: int, channels: int, zero_init: bool) -> None:
        places = window * window
        # Between them the activation, whose place keeps the public names; ``forward`` computes it.
        super().__init__(nn.Linear(places, 4 * places), nn.Identity(), nn.Linear(4 * places, channels))
        self.zero_init = zero_init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise; to be called after an initialisation of all linear layers."""
        for layer in (self[0], self[2]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.zero_init:
            nn.init.zeros_(self[2].weight)

    @property
    def weights(self) -> MotionWeights:
        return MotionWeights(self[0].weight, self[0].bias, self[2].weight, self[2].bias)

    def forward(self, affinity: torch.Tensor) -> torch.Tensor:
        return motion_features(affinity, self.weights)


class EmimAttention(Attention):
    """Window attention to the next frame plus motion features from its affinities (arXiv 2510.18705, section 3).

    ``window``, ``rules`` and ``backend`` are those of :func:`slowfast.ops.emim.emim_attention`; ``motion`` adds the
    motion features (Table 7), and ``zero_init_motion`` starts them at zero, which keeps pre-trained attention.
    """

    products = "EMIM window products"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int = 7,
        motion: bool = True,
        relative_bias: bool = True,
        zero_init_motion: bool = True,
        rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads)
        self.window, self.rules, self.backend = window, rules, backend
        self.rpb = None
        if relative_bias:
            self.rpb = nn.Parameter(torch.zeros(bias_shape(num_heads, window, rules)))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        self.motion_conv = MotionMlp(window, dim // num_heads, zero_init_motion) if motion else None

    @classmethod
    def from_config(cls, cfg, stage: int, dim: int, num_heads: int) -> "EmimAttention":
        return cls(dim, num_heads, motion=cfg.EMIM.MOTION, relative_bias=cfg.EMIM.RELATIVE_BIAS, **_shared(cfg, stage))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(x)
        motion = None if self.motion_conv is None else self.motion_conv.weights
        out = emim_attention(query, key, value, self.window, self.rpb, motion, self.rules, self.backend)
        return self.proj(out.flatten(-2))


class CostVolume(nn.Module):
    """Products of tokens with windows of the next frame, see :func:`slowfast.ops.emim.cost_volume`."""

    products = "cost volumes"

    def __init__(self, window: int, rules: EmimRules, backend: str) -> None:
        super().__init__()
        self.window, self.rules, self.backend = window, rules, backend

    def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return cost_volume(query, key, self.window, self.rules, self.backend)


class JointCostVolumeAttention(JointAttention):
    """Joint attention with a traditional cost volume beside it: the paper's counter-proposal (Table 10).

    The paper says no more than that. Built here: queries of a frame and keys of the next one are normalised to length
    one, their products over a sliding window with zeros outside the image are the cost volume, EMIM's motion MLP reads
    it, and its features are added to the attended values before the projection.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int = 7,
        zero_init_motion: bool = True,
        rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads)
        self.cost_volume = CostVolume(window, replace(rules, pad_value=0.0), backend)
        self.motion_conv = MotionMlp(window, dim // num_heads, zero_init_motion)

    @classmethod
    def from_config(cls, cfg, stage: int, dim: int, num_heads: int) -> "JointCostVolumeAttention":
        name = f"joint_cost_volume in UNIFORMER.STAGE{stage}_ATTENTION"
        if cfg.EMIM.SAMPLING != "sliding" or not cfg.EMIM.MOTION:
            found = f"found {cfg.EMIM.SAMPLING} and {cfg.EMIM.MOTION}"
            raise UserError(f"EMIM.SAMPLING must be sliding and EMIM.MOTION True for {name}, {found}")
        return cls(dim, num_heads, **_shared(cfg, stage))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(x)
        out = self.attend(query, key, value)
        motion = self.motion_conv(self.cost_volume(*(F.normalize(widened(x), dim=-1) for x in (query, key))))
        return self.proj((out + motion.to(out.dtype)).flatten(-2))


def _shared(cfg, stage: int) -> dict:
    """Return the keywords that attentions with windows have in common."""
    emim = cfg.EMIM
    window = emim.WINDOW[stage - 3]
    if emim.SAMPLING == "sliding" and window % 2 == 0:
        raise UserError(f"EMIM.WINDOW for stage {stage} must be odd where EMIM.SAMPLING is sliding; found {window}")
    if emim.BACKEND in ("natten", "triton") and find_spec(emim.BACKEND) is None:
        raise UserError(f"EMIM.BACKEND {emim.BACKEND} needs that package, which is not installed (pip install)")
    frames = cfg.DATA.NUM_FRAMES // (2 if cfg.UNIFORMER.TEMPORAL_DOWNSAMPLE else 1)
    if 1 < frames <= emim.TEMPORAL_INTERVAL:  # every frame would look at itself
        raise UserError(f"EMIM.TEMPORAL_INTERVAL is {emim.TEMPORAL_INTERVAL}; allowed: less than the {frames} frames")
    rules = EmimRules(emim.SAMPLING, emim.TEMPORAL_INTERVAL, emim.LAST_FRAME, emim.PADDING)
    return {"window": window, "zero_init_motion": emim.ZERO_INIT_MOTION, "rules": rules, "backend": emim.BACKEND}


# Names in UNIFORMER.STAGE3_ATTENTION and STAGE4_ATTENTION.
ATTENTIONS = {"joint": JointAttention, "emim": EmimAttention, "joint_cost_volume": JointCostVolumeAttention}

AttentionFactory = Callable[[int, int], nn.Module]  # from channels and heads of a block


def build_attention(cfg, stage: int) -> list[AttentionFactory]:
    """Return the builders of the attention of successive blocks of ``stage``, one per name in its pattern."""
    key = f"STAGE{stage}_ATTENTION"
    names = cfg.UNIFORMER[key]
    if not names or not set(names) <= set(ATTENTIONS):
        raise UserError(f"UNIFORMER.{key} lists names from {list(ATTENTIONS)}, found {names}")
    return [partial(ATTENTIONS[name].from_config, cfg, stage) for name in names]
