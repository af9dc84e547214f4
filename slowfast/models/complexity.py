"""Parameters and multiply-accumulates of a model, in all, per stage and per kind of operator."""

import copy
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import getitem

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slowfast.config import clip_frames
from slowfast.models.attention import EmimAttention, MotionMlp
from slowfast.models.build import Model, build_model, model_class
from slowfast.models.layers import Mlp, PatchEmbed


@dataclass(frozen=True)
class Complexity:
    """Multiply-accumulates of one forward pass: from stem to head, and by kind of operator, the largest first."""

    by_stage: dict[str, int]
    by_kind: dict[str, int]

    @property
    def macs(self) -> int:
        return sum(self.by_stage.values())


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned values of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: Model, clip_shape: tuple[int, int, int, int]) -> float:
    """Return the billions of multiply-accumulates that :func:`count_macs` finds, which papers print as GFLOPs."""
    return count_macs(model, clip_shape).macs / 1e9


def training_clip_shape(cfg) -> tuple[int, int, int, int]:
    """Return the shape (3, T, H, W) of a clip in training."""
    return 3, clip_frames(cfg), cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE


def view_gflops(cfg, counted: dict[str, float]) -> float:
    """Return :func:`count_gmacs` of one view in testing; ``counted`` is a cache of such counts."""
    frames, side = clip_frames(cfg), cfg.DATA.TEST_CROP_SIZE
    sections = {name: reduce(getitem, name.split("."), cfg) for name in model_class(cfg).SECTIONS}
    # Without the number of classes: the head takes less than a thousandth of the total.
    key = f"{cfg.MODEL.MODEL_NAME} {frames} {cfg.VMP.ENABLE} {side} {sections}"
    if key not in counted:
        cfg = cfg.with_settings("MODEL.NUM_CLASSES", cfg.MODEL.NUM_CLASSES or 2)
        with torch.device("meta"):
            model = build_model(cfg)
        counted[key] = count_gmacs(model, (3, frames, side, side))
    return counted[key]


def count_macs(model: Model, clip_shape: tuple[int, int, int, int]) -> Complexity:
    """Count the multiply-accumulates of one forward pass on the meta device, without computing anything.

    Convolutions, linear layers and attention products count; norms, activations and sums do not. EMIM counts by its
    definition, K * K products per token of all frames, whatever its backend computes instead.

    ``clip_shape`` is (3, T, H, W) of one clip; the model is left unchanged.
    """
    model = copy.deepcopy(model).to("meta").eval()
    modules = dict(model.named_modules())
    for module in modules.values():
        if hasattr(module, "backend"):
            module.backend = "reference"
    clip = torch.empty(1, *clip_shape, device="meta", dtype=next(model.parameters()).dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)

    by_stage = Counter({model.stage_of(name): 0 for name in modules})  # in the order of the network
    by_kind: Counter[str] = Counter()
    for name, flops_of_operators in _own_flops(counter.get_flop_counts(), type(model).__name__).items():
        for operator, flops in flops_of_operators.items():
            by_stage[model.stage_of(name)] += flops // 2
            by_kind["head" if modules[name] is model.head else _kind(name, modules, operator)] += flops // 2
    return Complexity({stage: macs for stage, macs in by_stage.items() if macs}, dict(by_kind.most_common()))


def _own_flops(counts: dict[str, dict], root: str) -> dict[str, Counter]:
    """Return, by module name, the counts of each module itself, of counts that include a module's children."""
    own = {name: Counter(operators) for name, operators in counts.items() if name != "Global"}
    for name, operators in counts.items():
        while name := name.rpartition(".")[0]:
            if name in own:  # lists of modules are never called
                own[name].subtract(operators)
                break
    return {name.removeprefix(root).removeprefix("."): +operators for name, operators in own.items()}


def _kind(name: str, modules: dict[str, nn.Module], operator) -> str:
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    if getattr(module, "groups", 1) > 1:
        return "depthwise convolutions"
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
        kinds = {PatchEmbed: "patch-embedding convolutions", Mlp: "MLPs", MotionMlp: MotionMlp.products}
        default = "convolutions" if max(getattr(module, "kernel_size", [1])) > 1 else "projections"
        return kinds.get(type(parent), default)
    if isinstance(module, EmimAttention) and operator in (torch.ops.aten.mm, torch.ops.aten.addmm):
        # The motion MLP is not called as a module: its weights are an argument of the operator.
        return MotionMlp.products
    is_projection = operator in (torch.ops.aten.mm, torch.ops.aten.addmm)  # of weights that are no module
    return getattr(module, "products", "projections" if is_projection else "attention products")
