"""Models: importing this package registers all of them."""

from slowfast.models import uniformer  # noqa: F401  (registers Uniformer)
from slowfast.models.build import MODEL_REGISTRY, build_model

__all__ = ["MODEL_REGISTRY", "build_model"]
