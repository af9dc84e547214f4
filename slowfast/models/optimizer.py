"""Optimizer, its weight-decay groups and its layer-wise learning rates."""

import logging
import re
from collections import Counter

import torch
from torch import nn

from slowfast.models.build import Model
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

# Position tables and class tokens, by the last part of a name.
TABLES = re.compile(r"pos_embed|(position|time)_embeddings|(cls|class)_token|(spatial|temporal)_pos|rel_pos|bias_table")
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def weight_decay_groups(model: nn.Module, weight_decay: float, decay_relative_bias: bool = False) -> list[dict]:
    """Split the trained parameters into a group with weight decay and one without, and log how many are of each kind.

    Without: parameters of norms, everything else of at most one axis (biases), position tables and, unless
    ``decay_relative_bias``, EMIM's relative bias.
    """
    of_norms = {p for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    kinds = {parameter: _kind(name, parameter, parameter in of_norms) for name, parameter in trained.items()}
    decayed_kinds = ("weights", "relative bias") if decay_relative_bias else ("weights",)
    named = [
        f"{weight_decay if kind in decayed_kinds else 0:g} for {count} {kind}"
        for kind, count in Counter(kinds.values()).items()
    ]
    logger.info("weight decay of tensors: %s", ", ".join(named))
    # Groups list parameters in the order of the model: checkpoints know a parameter's state by its place.
    decayed = [parameter for parameter, kind in kinds.items() if kind in decayed_kinds]
    exempt = [parameter for parameter, kind in kinds.items() if kind not in decayed_kinds]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def _kind(name: str, parameter: nn.Parameter, is_of_norm: bool) -> str:
    if name.rpartition(".")[2] == "rpb":
        return "relative bias"
    if is_of_norm:
        return "norms"
    if parameter.dim() <= 1:
        return "biases and other vectors"
    return "position tables" if TABLES.search(name.rpartition(".")[2]) else "weights"


def split_by_layer(groups: list[dict], model: Model, layer_decay: float) -> list[dict]:
    """Split groups by layer, each with its ``lr_scale``: ``layer_decay`` to the number of layers above it."""
    layers = model.layer_groups()
    if not layers:
        order = f"{type(model).__name__} does not say in which order its layers are (layer_groups)"
        raise UserError(f"SOLVER.LAYER_DECAY is {layer_decay:g}, but {order}: set it to 1")
    depths = {parameter: depth for depth, layer in enumerate(layers) for parameter in layer}
    split: dict[tuple[int, int], dict] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            depth = depths[parameter]
            scale = layer_decay ** (len(layers) - 1 - depth)
            split.setdefault((depth, index), {**group, "params": [], "lr_scale": scale})["params"].append(parameter)
    logger.info("learning rates from %.3g (stem) to 1 (head) times the base rate", layer_decay ** (len(layers) - 1))
    return [split[key] for key in sorted(split)]


def build_optimizer(model: Model, cfg) -> torch.optim.Optimizer:
    """Return AdamW (arXiv 1711.05101) or SGD as the SOLVER section describes it."""
    solver = cfg.SOLVER
    groups = weight_decay_groups(model, solver.WEIGHT_DECAY, solver.DECAY_RELATIVE_BIAS)
    if solver.LAYER_DECAY != 1:
        groups = split_by_layer(groups, model, solver.LAYER_DECAY)
    lr, momentum = solver.BASE_LR, solver.MOMENTUM
    if solver.OPTIMIZING_METHOD == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=tuple(solver.BETAS), fused=True)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    for group in groups:
        for parameter in group["params"]:  # without it, the first step would take memory as it is if it is skipped
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
