"""Starting weights: files of other projects or of an earlier run, inflated from images to video where needed."""

from __future__ import annotations

import logging
import os
import pickle
from dataclasses import dataclass, field

import torch
from torch import nn

logger = logging.getLogger(__name__)

# Where files of this code family keep the weights; a file without any of these keys is the state dict itself.
WRAPPERS = ("model_state", "model", "state_dict")
HEAD_PREFIX = "head."


@dataclass
class LoadReport:
    """What became of every tensor of a file (``unexpected``, ``skipped``) and of the model (the others).

    ``skipped`` maps a name to the reason: a shape that does not fit, or another number of classes.
    """

    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as text, names of larger groups shortened to the first few."""
        counts = (
            f"{len(self.loaded)} tensors loaded, {len(self.inflated)} inflated from 2-D, {len(self.skipped)} skipped, "
            f"{len(self.missing)} missing in the file, {len(self.unexpected)} unexpected"
        )
        details = [f"  skipped {name}: {reason}" for name, reason in list(self.skipped.items())[:8]]
        for kind in ("missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                details.append(f"  {kind}: {', '.join(names[:8])}{more}")
        return [counts, *details]


def load_pretrained(model: nn.Module, path: str, min_match: float = 0.5) -> LoadReport:
    """Fill ``model`` with the weights of ``path`` as far as names and shapes agree, and report on every tensor.

    Convolution weights of one dimension less (2-D image models) are inflated: repeated over time and divided by the
    number of repetitions, so that a still clip gives what the image gave (I3D, arXiv 1705.07750). A classifier of
    another number of classes is left as it is.

    Args:
        model: a model with public UniFormer parameter names.
        path: ``.pth``, ``.pt``, ``.pyth`` or ``.safetensors``, flat or wrapped, with or without ``module.`` prefixes.
        min_match: smallest share of the model's tensors, classifier aside, that the file must fill.

    Returns:
        The report, which is also logged.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weight file, or fewer tensors match than ``min_match`` demands.
    """
    weights = read_weights(path)
    target = model.state_dict()
    report = LoadReport(unexpected=[name for name in weights if name not in target])
    new_state = {}
    for name, current in target.items():
        if name not in weights:
            # The number of batches seen matters to nothing but averaging momenta, which no model here uses.
            if not name.endswith("num_batches_tracked"):
                report.missing.append(name)
            continue
        fitted, reason = fit_tensor(weights[name], current)
        if fitted is None:
            report.skipped[name] = reason
            continue
        new_state[name] = fitted
        (report.loaded if fitted.shape == weights[name].shape else report.inflated).append(name)

    wanted = [name for name in target if not name.startswith(HEAD_PREFIX) and not name.endswith("num_batches_tracked")]
    matched = sum(name in new_state for name in wanted)
    if not matched or matched < min_match * len(wanted):
        raise ValueError(
            f"{path}: only {matched} of the model's {len(wanted)} tensors match by name and shape, at least "
            f"{min_match:.0%} (MODEL.PRETRAINED_MIN_MATCH) must; is it a checkpoint of this architecture? "
            f"The file has {_sample(weights)}; the model has {_sample(target)}"
        )
    model.load_state_dict(new_state, strict=False)
    logger.info("weights from %s: %s", path, "\n".join(report.lines()))
    return report


def fit_tensor(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor | None, str]:
    """Return ``source`` in the shape of ``target``, inflated over time if need be; or None and the reason."""
    if source.shape == target.shape:
        return source, ""
    is_2d_kernel = target.dim() == 5 and source.dim() == 4
    if is_2d_kernel and source.shape == target.shape[:2] + target.shape[3:]:
        frames = target.shape[2]
        return (source / frames).unsqueeze(2).repeat(1, 1, frames, 1, 1), ""
    return None, f"shape {tuple(source.shape)} in the file, {tuple(target.shape)} in the model"


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a weight file, wrappers and ``module.`` prefixes removed. Never runs code of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read or holds no tensors.
    """
    content = read_checkpoint(path)
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    weights = {name.removeprefix("module."): x for name, x in content.items() if isinstance(x, torch.Tensor)}
    if not weights:
        raise ValueError(f"{path} holds no tensors; its top-level keys are {list(content)[:8]}")
    return weights


def read_checkpoint(path: str) -> dict:
    """Return the content of a weight file or checkpoint as it is, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, holds Python objects other than plain data, or is not a dict.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weight file {path} does not exist (looked in {os.getcwd()})")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a weight file: {reason}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise ValueError(f"{path} cannot be read as a weight file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict of tensors, found a {type(content).__name__}")
    return content


def _sample(weights: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in list(weights.items())[:3])
