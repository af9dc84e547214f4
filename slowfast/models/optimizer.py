"""The optimizer and its weight-decay groups."""

from __future__ import annotations

import logging

import torch
from torch import nn

logger = logging.getLogger(__name__)


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split the parameters into those with weight decay and those without.

    Without: everything one-dimensional (biases, norms) and EMIM's relative bias, which is a bias too.
    """
    decayed, exempt = [], []
    for name, parameter in model.named_parameters():
        is_bias = parameter.dim() <= 1 or name.endswith(".rpb")
        (exempt if is_bias else decayed).append(parameter)
    for label, group in (("with", decayed), ("without", exempt)):
        values = sum(parameter.numel() for parameter in group)
        logger.info("optimizer: %d tensors (%s values) %s weight decay", len(group), f"{values:,}", label)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, cfg) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) as the SOLVER section describes it."""
    groups = weight_decay_groups(model, cfg.SOLVER.WEIGHT_DECAY)
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, betas=tuple(cfg.SOLVER.BETAS), eps=cfg.SOLVER.EPS)
