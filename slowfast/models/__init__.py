"""Models: importing this package registers all of them."""

from slowfast.models import uniformer  # noqa: F401  (registers Uniformer and Uniformer2d)
from slowfast.models.build import MODEL_REGISTRY, Model, build_model, model_class

__all__ = ["MODEL_REGISTRY", "Model", "build_model", "model_class"]
