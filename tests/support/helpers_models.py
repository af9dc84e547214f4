"""Small models for tests, built through the configuration as users build them."""

from slowfast.config.defaults import get_cfg
from slowfast.models import build_model

TINY = {
    "UNIFORMER.EMBED_DIM": [16, 16, 32, 32],
    "UNIFORMER.DEPTH": [1, 1, 3, 2],
    "UNIFORMER.HEAD_DIM": 16,
    "UNIFORMER.DROP_DEPTH_RATE": 0.0,
    "EMIM.WINDOW": [3, 3],
    "MODEL.NUM_CLASSES": 5,
}


def make_cfg(**settings):
    """Return a configuration; KEY__SUB stands for KEY.SUB."""
    cfg = get_cfg()
    for key, value in settings.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def tiny_model(**settings):
    """Return a model of a few thousand parameters with EMIM and joint blocks."""
    tiny = {key.replace(".", "__"): value for key, value in TINY.items()}
    return build_model(make_cfg(**{**tiny, **settings}))
