"""Registry of models, and the contract of its members."""

from typing import Any, ClassVar

from fvcore.common.registry import Registry
from torch import nn

from slowfast.utils.errors import UserError

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

    @classmethod
    def from_config(cls, cfg) -> "Model":
        raise NotImplementedError

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters by depth, from stem to head; [] where SOLVER.LAYER_DECAY is not supported."""
        return []

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
    return model_class(cfg).from_config(cfg)
