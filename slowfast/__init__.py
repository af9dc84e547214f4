"""Video action recognition: UniFormer models with motion attention (EMIM, arXiv 2510.18705)."""

__version__ = "1.0.0"
__all__ = ["create_model", "list_models", "load_model", "sample_video"]


def __getattr__(name: str):
    """Import the functions of use when they are asked for: torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from slowfast.inference import model

    return getattr(model, name)
