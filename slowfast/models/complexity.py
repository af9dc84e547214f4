"""Parameters and multiply-accumulates of a model."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slowfast.models.attention import EmimAttention


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned values of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> float:
    """Return the billions of multiply-accumulates of one forward pass, which papers print as GFLOPs.

    Convolutions, linear layers and attention products are counted on the meta device, without computing anything.
    EMIM is counted by its definition, K * K products per token, whatever its backend computes beside them.

    Args:
        model: any model of the registry; it is left unchanged.
        clip_shape: (3, T, H, W) of one clip.
    """
    model = copy.deepcopy(model).to("meta").eval()
    for module in model.modules():
        if isinstance(module, EmimAttention):
            module.backend = "reference"
    clip = torch.empty(1, *clip_shape, device="meta", dtype=next(model.parameters()).dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    return counter.get_total_flops() / 2 / 1e9
