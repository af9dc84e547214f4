"""Models: importing this package registers all of them."""

from slowfast.models import framewise, slowfast, uniformer, wrapped, x3d  # noqa: F401  (registers their models)
from slowfast.models.build import MODEL_REGISTRY, Model, build_model, model_class

__all__ = ["MODEL_REGISTRY", "Model", "build_model", "model_class"]
