"""The optimizer and its weight-decay groups."""

from __future__ import annotations

import logging
import re
from collections import Counter

import torch
from torch import nn

logger = logging.getLogger(__name__)

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Last component of the name of EMIM's relative bias, whatever its shape.
RELATIVE_BIAS = "rpb"


def weight_decay_groups(model: nn.Module, weight_decay: float, decay_relative_bias: bool = False) -> list[dict]:
    """Split the parameters into those with weight decay and those without, and log how many there are of each kind.

    Without: parameters of norms, everything else of at most one axis (biases), and EMIM's relative bias.

    Args:
        model: the model, wrapped or not; a parameter used twice is listed once.
        weight_decay: of the first group.
        decay_relative_bias: count EMIM's relative bias among the weights.

    Returns:
        Two groups for an optimizer, with decay and without.
    """
    of_norms = {p for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    # Groups list parameters in the order of the model: checkpoints know a parameter's state by its place.
    decayed, exempt = [], []
    counts: Counter[tuple[float, str]] = Counter()
    values: Counter[tuple[float, str]] = Counter()
    for name, parameter in model.named_parameters():
        kind = _kind(name, parameter, parameter in of_norms)
        is_decayed = kind == "weights" or (kind == "relative bias" and decay_relative_bias)
        (decayed if is_decayed else exempt).append(parameter)
        row = (weight_decay if is_decayed else 0.0, kind)
        counts[row] += 1
        values[row] += parameter.numel()
    for (decay, kind), count in counts.items():
        logger.info("weight decay %g: %s, %d tensors, %s values", decay, kind, count, f"{values[decay, kind]:,}")
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def _kind(name: str, parameter: nn.Parameter, is_of_norm: bool) -> str:
    if name.rpartition(".")[2] == RELATIVE_BIAS:
        return "relative bias"
    if is_of_norm:
        return "norms"
    return "one-dimensional" if parameter.dim() <= 1 else "weights"


def layer_groups(groups: list[dict], model: nn.Module, layer_decay: float) -> list[dict]:
    """Split groups by layer, each with its ``lr_scale``: ``layer_decay`` to the number of layers above it.

    Layers are the blocks in their order, the stem below them, norm and head above; a patch embedding belongs to the
    block that follows it. Without decay the groups stay as they are.
    """
    if layer_decay == 1:
        return groups
    places = {parameter: _place(name) for name, parameter in model.named_parameters()}
    layers = {place: index for index, place in enumerate(sorted(set(places.values())))}
    split: dict[tuple[int, int], dict] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            layer = layers[places[parameter]]
            scale = layer_decay ** (len(layers) - 1 - layer)
            split.setdefault((layer, index), {**group, "params": [], "lr_scale": scale})["params"].append(parameter)
    logger.info("learning rates from %.3g (stem) to 1 (head) times the base rate", layer_decay ** (len(layers) - 1))
    return [split[key] for key in sorted(split)]


def _place(name: str) -> tuple[int, int]:
    """Return (stage, block) of a parameter of UniFormer: (0, 0) is the stem, (5, 0) what comes after the stages."""
    match = re.search(r"(?:^|\.)(patch_embed|blocks)(\d)\.(?:(\d+)\.)?", name)
    if match is None:
        return 5, 0
    kind, stage, block = match[1], int(match[2]), int(match[3] or 0)
    return (0, 0) if kind == "patch_embed" and stage == 1 else (stage, block)


def build_optimizer(model: nn.Module, cfg) -> torch.optim.Optimizer:
    """Return AdamW (arXiv 1711.05101) or SGD as the SOLVER section describes it.

    Raises:
        ValueError: an unknown name or a value out of its range.
    """
    solver = cfg.SOLVER
    if not 0 < solver.LAYER_DECAY <= 1:
        raise ValueError(f"SOLVER.LAYER_DECAY must be above 0 and at most 1 (off), found {solver.LAYER_DECAY}")
    if not 0 <= solver.MOMENTUM < 1:
        raise ValueError(f"SOLVER.MOMENTUM must be at least 0 and below 1, found {solver.MOMENTUM}")
    groups = weight_decay_groups(model, solver.WEIGHT_DECAY, solver.DECAY_RELATIVE_BIAS)
    groups = layer_groups(groups, model, solver.LAYER_DECAY)
    if solver.OPTIMIZING_METHOD == "adamw":
        return torch.optim.AdamW(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS), eps=solver.EPS)
    if solver.OPTIMIZING_METHOD == "sgd":
        return torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.MOMENTUM > 0)
    raise ValueError(f"SOLVER.OPTIMIZING_METHOD must be adamw or sgd, found {solver.OPTIMIZING_METHOD!r}")
