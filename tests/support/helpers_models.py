"""Small models for tests, built through the configuration as users build them."""

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.models import MODEL_REGISTRY, build_model


def make_cfg(**settings):
    """Return a configuration; KEY__SUB stands for KEY.SUB."""
    cfg = get_cfg().with_settings("MODEL.NUM_CLASSES", 174)
    for key, value in settings.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def tiny_cfg(name="Uniformer", **settings):
    """Return the configuration of the smallest model of a registered class, with five classes."""
    if name == "Transformers":
        pytest.importorskip("transformers")
    tiny = {key.replace(".", "__"): value for key, value in MODEL_REGISTRY.get(name).TINY.items()}
    return make_cfg(**{"MODEL__MODEL_NAME": name, **tiny, "MODEL__NUM_CLASSES": 5, **settings})


def tiny_model(name="Uniformer", **settings):
    """Return a model of a few thousand parameters; a UniFormer has EMIM and joint blocks."""
    return build_model(tiny_cfg(name, **settings))


def awake(model):
    """Give motion MLPs and last norms of residual branches, which start as zero, weights that are not zero."""
    for name, parameter in model.named_parameters():
        if name.endswith(("motion_conv.2.weight", "norm_c.weight")):
            torch.nn.init.normal_(parameter, std=0.2)
    return model
