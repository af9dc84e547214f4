"""Mixed precision by name."""

from __future__ import annotations

import torch

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(name: str, device: torch.device, key: str) -> str:
    """Return fp32, bf16 or fp16 for a configured name; "auto" is what the device is good at.

    Raises:
        ValueError: naming ``key``, for an unknown name.
    """
    if name == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if name not in _DTYPES:
        raise ValueError(f"{key} must be auto, {', '.join(_DTYPES)}, found {name!r}")
    return name


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a forward pass of this precision runs; fp32 leaves everything as it is."""
    dtype = _DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
