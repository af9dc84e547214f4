"""The table of models."""

from __future__ import annotations

from fvcore.common.registry import Registry
from torch import nn

MODEL_REGISTRY = Registry("MODEL")
MODEL_REGISTRY.__doc__ = """Models by the name that MODEL.MODEL_NAME gives.

A registered class is an ``nn.Module`` with a classmethod ``from_config(cfg)``. Called with normalised RGB clips
(B, 3, T, H, W) it returns logits (B, MODEL.NUM_CLASSES), also in evaluation mode; a model of still images takes T = 1
only and raises ValueError otherwise. Its classifier is called ``head``.
"""


def build_model(cfg) -> nn.Module:
    """Return the model that ``cfg`` describes, with fresh weights, on the current default device.

    Raises:
        ValueError: MODEL.MODEL_NAME is not registered, or a setting of the model is wrong.
    """
    name = cfg.MODEL.MODEL_NAME
    if name not in MODEL_REGISTRY:
        known = sorted(key for key, _ in MODEL_REGISTRY)
        raise ValueError(f"MODEL.MODEL_NAME {name!r} is not a registered model; known: {', '.join(known)}")
    return MODEL_REGISTRY.get(name).from_config(cfg)
