"""Parameters and multiply-accumulates of a model, in all, per stage and per kind of operator."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slowfast.models.attention import CostVolume, EmimAttention, JointAttention, JointCostVolumeAttention, MotionMlp


@dataclass(frozen=True)
class Complexity:
    """Multiply-accumulates of one forward pass, split in two ways; both splits add up to ``macs``.

    ``by_stage`` follows the network (stem, stages, head), ``by_kind`` has the largest kind of operator first.
    """

    by_stage: dict[str, int]
    by_kind: dict[str, int]

    @property
    def macs(self) -> int:
        return sum(self.by_stage.values())


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned values of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> float:
    """Return the billions of multiply-accumulates that :func:`count_macs` finds, which papers print as GFLOPs."""
    return count_macs(model, clip_shape).macs / 1e9


def count_macs(model: nn.Module, clip_shape: tuple[int, int, int, int]) -> Complexity:
    """Count the multiply-accumulates of one forward pass on the meta device, without computing anything.

    Convolutions, linear layers and attention products count; norms, activations and sums do not. EMIM counts by its
    definition, K * K products per token of all frames, whatever its backend computes instead.

    Args:
        model: any model of the registry; it is left unchanged.
        clip_shape: (3, T, H, W) of one clip.
    """
    model = copy.deepcopy(model).to("meta").eval()
    for module in model.modules():
        if isinstance(module, (EmimAttention, CostVolume)):
            module.backend = "reference"
    clip = torch.empty(1, *clip_shape, device="meta", dtype=next(model.parameters()).dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)

    modules = dict(model.named_modules())
    by_stage = Counter({_stage(name): 0 for name in modules})  # in the order of the network
    by_kind: Counter[str] = Counter()
    for name, flops_of_operators in _own_flops(counter.get_flop_counts(), type(model).__name__).items():
        for operator, flops in flops_of_operators.items():
            by_stage[_stage(name)] += flops // 2
            by_kind[_kind(name, modules[name], operator)] += flops // 2
    return Complexity({stage: macs for stage, macs in by_stage.items() if macs}, dict(by_kind.most_common()))


def _own_flops(counts: dict[str, dict], root: str) -> dict[str, Counter]:
    """Return, by module name, what each module computes itself, of counts that include a module's children."""
    own = {name: Counter(operators) for name, operators in counts.items() if name != "Global"}
    for name, operators in counts.items():
        parent = name.rpartition(".")[0]
        while parent and parent not in counts:  # lists of modules are never called
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent].subtract(operators)
    return {name.removeprefix(root).removeprefix("."): +operators for name, operators in own.items()}


def _stage(name: str) -> str:
    child = name.partition(".")[0]
    if child == "patch_embed1":
        return "stem"
    if child.startswith("patch_embed"):
        return "patch embeddings"
    return re.sub(r"^blocks(\d)$", r"stage \1", child) or "other"


def _kind(name: str, module: nn.Module, operator) -> str:
    *path, last = name.split(".")
    if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.groups > 1:
        return "depthwise convolutions"
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
        if path and path[0].startswith("patch_embed"):
            return "patch-embedding convolutions"
        if last == "head":
            return "head"
        if "motion_conv" in path:
            return "motion MLPs"
        return "MLPs" if "mlp" in path else "projections"
    if isinstance(module, EmimAttention):
        # The motion MLP is not called as a module: its weights are an argument of the operator.
        is_linear = operator in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return "motion MLPs" if is_linear else "EMIM window products"
    if isinstance(module, MotionMlp):
        return "motion MLPs"
    if isinstance(module, CostVolume):
        return "cost volumes"
    return "joint attention products" if isinstance(module, (JointAttention, JointCostVolumeAttention)) else "other"
