"""Dtypes that are too coarse for attention, and how to keep autocast from choosing them."""

from contextlib import AbstractContextManager, nullcontext

import torch


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of affinities and softmax: float32, or ``dtype`` if it is wider."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32, or unchanged if it is wider."""
    return x.to(wide(x.dtype))


def without_autocast(x: torch.Tensor) -> AbstractContextManager:
    """Return a context in which products of tensors like ``x`` keep their dtype."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """Return the dtype that autocast gives products of tensors like ``x``; None where it is off."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
