"""Registry of models, and the contract of its members."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from fvcore.common.registry import Registry
from torch import nn

from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

MODEL_REGISTRY = Registry("MODEL")  # subclasses of Model by the name that MODEL.MODEL_NAME gives


class Model(nn.Module):
    """Contract of a registered model.

    Called with normalised RGB clips (B, 3, T, H, W) it returns logits (B, MODEL.NUM_CLASSES), also in evaluation mode.
    A classmethod ``from_config(cfg)`` builds it, and its classifier is called ``head``.

    Attributes:
        SECTIONS: sections of the configuration that define what the model computes.
        TRAINING_ONLY: keys of these sections that do not change what trained weights mean.
        TINY: settings of a model that tests train in a moment, on clips of any length unless DATA.NUM_FRAMES is there.
    """

    SECTIONS: ClassVar[tuple[str, ...]] = ()
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ()
    TINY: ClassVar[dict[str, Any]] = {}

    head: nn.Module
    # Of the last training step, added to the loss of each of its clips.
    penalty: torch.Tensor | float = 0.0

    @classmethod
    def from_config(cls, cfg) -> "Model":
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Model":
        """Choose the mode; batch norms whose parameters are all frozen (MODEL.FREEZE) always evaluate."""
        super().train(mode)
        for module in self.modules():
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase) and module.affine
            if is_norm and not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()
        return self

    def forward_features(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the map (B, C, T', H', W') whose mean the classifier sees, of clips (B, 3, T, H, W)."""
        raise UserError(f"{type(self).__name__} has no features to give")

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters by depth, from stem to head; [] where SOLVER.LAYER_DECAY is not supported."""
        return []

    def scalars(self) -> dict[str, float]:
        """Return numbers of the model that are worth a curve, by name; they are recorded once per epoch."""
        return {}

    def stage_of(self, name: str) -> str:
        """Return the part of the network, for tables of costs, that the module or parameter ``name`` belongs to."""
        return name.partition(".")[0] or "other"


def model_class(cfg) -> type[Model]:
    """Return the class that MODEL.MODEL_NAME names."""
    name = cfg.MODEL.MODEL_NAME
    if name not in MODEL_REGISTRY:
        known = ", ".join(sorted(key for key, _ in MODEL_REGISTRY))
        raise UserError(f"MODEL.MODEL_NAME {name!r} is not a registered model; known: {known}")
    return MODEL_REGISTRY.get(name)


def build_model(cfg) -> Model:
    """Return the model that ``cfg`` describes, with fresh weights, on the current default device."""
    if not cfg.MODEL.NUM_CLASSES:
        raise UserError("MODEL.NUM_CLASSES is 0, which runs find out from their data: set it to build a model alone")
    model = model_class(cfg).from_config(cfg)
    if cfg.VMP.ENABLE:
        from slowfast.models.motion_prompt import with_prompts

        model = with_prompts(model, cfg)
    return model


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train no parameter whose name fits one of the ``patterns`` (as of file names), and log how many those are."""
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        names = [name for name in parameters if fnmatchcase(name, pattern)]
        if not names:
            near = ", ".join(get_close_matches(pattern, parameters, cutoff=0.3)) or ", ".join([*parameters][:3])
            raise UserError(f"MODEL.FREEZE: no parameter of {type(model).__name__} fits {pattern!r}; near it: {near}")
        for name in names:
            parameters[name].requires_grad_(False)
    frozen = [parameter for parameter in parameters.values() if not parameter.requires_grad]
    if len(frozen) == len(parameters):
        raise UserError(f"MODEL.FREEZE is {list(patterns)}: nothing is left to train")
    if patterns:
        sizes = [sum(parameter.numel() for parameter in some) for some in (frozen, parameters.values())]
        facts = (len(frozen), len(parameters), f"{sizes[0]:,}", f"{sizes[1]:,}")
        logger.info("frozen: %d of %d parameters, %s of %s values", *facts)
