"""Models: importing this package registers all of them."""

from slowfast.models import uniformer, uniformer2d  # noqa: F401  (registers Uniformer and Uniformer2d)
from slowfast.models.build import MODEL_REGISTRY, build_model

__all__ = ["MODEL_REGISTRY", "build_model"]
