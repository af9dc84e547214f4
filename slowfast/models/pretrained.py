"""Starting weights: files of other projects or of an earlier run, inflated from images to video where needed."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field

import torch
from torch import nn

logger = logging.getLogger(__name__)

# Where files of this code family keep the weights; a file without any of these keys is the state dict itself.
WRAPPERS = ("model_state", "model", "state_dict")
# Moving averages of the weights, read only from files that have nothing else: published results are of the raw weights.
EMA_WRAPPERS = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")

HEAD_PREFIX = "head."
# Part of the name of the tensors that EMIM adds to a UniFormer.
EMIM_TENSOR = re.compile(r"\.attn\.(rpb|motion_conv\.\d+\.(weight|bias))$")
# Modules that make sense only as a whole: a bias of one classifier or motion MLP with the weight of another does not.
WHOLE_MODULE = re.compile(r"^head\.|^.*\.motion_conv\.")


@dataclass
class LoadReport:
    """What became of every tensor of a file (``unexpected``, ``skipped``) and of the model (the others).

    ``skipped`` maps a name to the reason: a shape that does not fit, or another number of classes. ``wrapper`` is the
    entry of the file that the weights come from, "" if the file is the state dict itself.
    """

    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrapper: str = ""

    def lines(self) -> list[str]:
        """Return the report as text, names of larger groups shortened to the first few."""
        counts = (
            f"{len(self.loaded)} tensors loaded, {len(self.inflated)} inflated from 2-D, {len(self.skipped)} skipped, "
            f"{len(self.missing)} missing in the file, {len(self.unexpected)} unexpected"
        )
        details = [f"  skipped {name}: {reason}" for name, reason in list(self.skipped.items())[:8]]
        details += [f"  and {len(self.skipped) - 8} more skipped"] if len(self.skipped) > 8 else []
        for kind in ("missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                details.append(f"  {kind}: {_first(names)}")
        return [counts, *details]


def load_pretrained(model: nn.Module, path: str, min_match: float = 0.5) -> LoadReport:
    """Fill ``model`` with the weights of ``path`` as far as names and shapes agree, and report on every tensor.

    Convolution weights of one dimension less (2-D image models) are inflated: repeated over time and divided by the
    number of repetitions, so that a still clip gives what the image gave (I3D, arXiv 1705.07750). A classifier of
    another number of classes and a motion MLP of another window are left as they are, each as a whole.

    Args:
        model: a model with public UniFormer parameter names.
        path: ``.pth``, ``.pt``, ``.pyth`` or ``.safetensors``, flat or wrapped, with or without ``module.`` prefixes.
        min_match: smallest share of the model's tensors, classifier aside, that the file must fill.

    Returns:
        The report, which is also logged; what a file of this architecture would not leave over is a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weight file, one of the layer-scale variants, or fewer tensors match than ``min_match``
            demands.
    """
    weights, wrapper = read_weights(path)
    target = model.state_dict()
    report = LoadReport(unexpected=[name for name in weights if name not in target], wrapper=wrapper)
    _refuse_layer_scale(path, report.unexpected)
    new_state = {}
    for name, current in target.items():
        if name not in weights:
            # The number of batches seen matters to nothing but averaging momenta, which no model here uses.
            if not name.endswith("num_batches_tracked"):
                report.missing.append(name)
            continue
        fitted, reason = fit_tensor(weights[name], current)
        if fitted is None:
            report.skipped[name] = _explain(name, reason)
        else:
            new_state[name] = fitted
    for name in _rest_of_modules(report.skipped, new_state):
        del new_state[name]
        report.skipped[name] = "the rest of its module does not fit"
    for name, fitted in new_state.items():
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
    logger.info("weights from %s%s: %s", path, f" ({wrapper})" if wrapper else "", "\n".join(report.lines()))
    _warn(path, report)
    return report


def fit_tensor(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor | None, str]:
    """Return ``source`` in shape and precision of ``target``, inflated over time if need be; or None and the reason."""
    if source.shape == target.shape:
        return source.to(target.dtype), ""
    is_2d_kernel = target.dim() == 5 and source.dim() == 4
    if is_2d_kernel and source.shape == target.shape[:2] + target.shape[3:]:
        frames = target.shape[2]
        return (source.to(target.dtype) / frames).unsqueeze(2).repeat(1, 1, frames, 1, 1), ""
    return None, f"shape {tuple(source.shape)} in the file, {tuple(target.shape)} in the model"


def read_weights(path: str) -> tuple[dict[str, torch.Tensor], str]:
    """Read the state dict in a weight file, wrappers and ``module.`` prefixes removed. Never runs code of the file.

    Returns:
        The tensors by name, and the entry of the file that they come from ("" for a file without wrapper).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read or holds no tensors.
    """
    return unwrap_weights(read_checkpoint(path), path)


def unwrap_weights(content: dict, path: str) -> tuple[dict[str, torch.Tensor], str]:
    """Return the state dict in the content of a weight file, as :func:`read_weights` does.

    Raises:
        ValueError: naming ``path``, if it holds no tensors.
    """
    found = [name for name in (*WRAPPERS, *EMA_WRAPPERS) if _holds_tensors(content.get(name))]
    wrapper = found[0] if found else ""
    if wrapper:
        content = content[wrapper]
    if len(found) > 1:
        logger.info("%s: reading %r, not %s", path, wrapper, " or ".join(map(repr, found[1:])))
    elif wrapper in EMA_WRAPPERS:
        logger.info("%s: reading %r, moving averages of the weights; the file has no others", path, wrapper)
    weights = {name.removeprefix("module."): x for name, x in content.items() if isinstance(x, torch.Tensor)}
    if not weights:
        raise ValueError(
            f"{path} holds no tensors at its top level or under {', '.join((*WRAPPERS, *EMA_WRAPPERS))}; it has "
            f"{list(content)[:8]}"
        )
    return weights, wrapper


def _holds_tensors(entry: object) -> bool:
    return isinstance(entry, dict) and any(isinstance(x, torch.Tensor) for x in entry.values())


def read_checkpoint(path: str) -> dict:
    """Return the content of a weight file or checkpoint as it is, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, one of several shards, holds Python objects other than plain data, or is not a
            dict.
    """
    if not os.path.isfile(path):
        problem = "is a folder; name the file in it" if os.path.isdir(path) else "does not exist"
        raise FileNotFoundError(f"weight file {path} {problem} (looked in {os.getcwd()})")
    if path.endswith(".index.json") or re.search(r"-\d{5}-of-\d{5}\.", path):
        raise ValueError(f"{path} is one part of a model saved in several files: join them into one first")
    try:
        if path.endswith(".safetensors"):
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the reader fail in many ways: IndexError, AssertionError, ...
        raise ValueError(f"{path} cannot be read as a weight file: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dict of tensors, found a {type(content).__name__}")
    return content


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f"the package safetensors is needed ({error}); see requirements.txt") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _reason(error: Exception) -> str:
    """Return the part of a message that is about the file; torch's own goes on with how to run what is in it."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return (
            f"it holds Python objects ({foreign[1]}), which could run code when read; save its tensors alone, as a "
            "state dict"
        )
    return str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__


def _refuse_layer_scale(path: str, unexpected: list[str]) -> None:
    scales = [name for name in unexpected if re.search(r"\.gamma_[12]$", name)]
    if scales:
        raise ValueError(
            f"{path} is a layer-scale variant ({_first(scales, 2)}): its blocks are scaled by tensors that this model "
            "does not have, and their weights mean nothing without; use the file without layer scale"
        )


def _explain(name: str, reason: str) -> str:
    if name.startswith(HEAD_PREFIX):
        return f"{reason}: another number of classes; the classifier starts afresh"
    return f"{reason}: another EMIM.WINDOW or kind of window" if EMIM_TENSOR.search(name) else reason


def _rest_of_modules(skipped: dict[str, str], fitting: dict[str, torch.Tensor]) -> list[str]:
    """Return the names that fit but belong to a module of which something was skipped and that is loaded whole."""
    broken = {match[0] for name in skipped if (match := WHOLE_MODULE.match(name))}
    return [name for name in fitting if (match := WHOLE_MODULE.match(name)) and match[0] in broken]


def _warn(path: str, report: LoadReport) -> None:
    """Warn of what is left over though a file of this architecture, or a UniFormer to become an EMIM, has it all."""
    for problem, names in (
        ("lacks tensors of the backbone", report.missing),
        ("has tensors of the backbone in other shapes", report.skipped),
    ):
        of_backbone = [name for name in names if not name.startswith(HEAD_PREFIX) and not EMIM_TENSOR.search(name)]
        if of_backbone:
            logger.warning("%s %s, which start afresh: %s", path, problem, _first(of_backbone))
    if report.unexpected:
        is_variant = any(name.startswith("aux_head.") for name in report.unexpected)
        hint = "; it is a token-labelling variant, not the one that the paper started from" if is_variant else ""
        logger.warning("%s has tensors that the model has no place for: %s%s", path, _first(report.unexpected), hint)


def _first(names: list[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _sample(weights: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in list(weights.items())[:3])
