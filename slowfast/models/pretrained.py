"""Starting weights: files of other projects or of an earlier run, inflated from images to video where needed."""

import argparse
import itertools
import logging
import math
import os
import pathlib
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.build import Model
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

# Entries in which programs keep weights; a file without any of them is the state dict itself. Moving averages come
# last, for files that have nothing else: published results are of the raw weights.
WRAPPERS = ("model_state", "model", "state_dict", "model_state_dict", "net")
WRAPPERS += ("model_ema", "state_dict_ema", "ema_state_dict", "ema_state", "ema")
# Prefixes of parallel, compiled and nested models, in any order.
PREFIXES = re.compile(r"^((module|_orig_mod|model|backbone)\.)+")

# Tensors whose shape depends on the ablation, and the part of a name up to a module that is loaded as a whole, as the
# classifier is: a bias of one motion MLP with the weight of another means nothing.
EMIM = re.compile(r"\.attn\.(rpb|motion_conv\.\d+\.(weight|bias))$|\.emim\.")
WHOLE_MODULE = re.compile(r"^.*\.motion_conv\.")
INFLATIONS = ("average", "center")
# Batches that a norm has seen: of use to averaging momenta alone, which no model here has.
COUNTER = "num_batches_tracked"


@dataclass
class LoadReport:
    """Names of all tensors by their fate, with the reason for ``skipped``; ``source`` tells entry and prefixes."""

    source: str = ""
    loaded: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    class_names: list[str] | None = None  # of the classifier in the file, where it has them
    head: str = ""  # beginning of the classifier's names

    @property
    def has_head(self) -> bool:
        return any(name.startswith(self.head) for name in self.loaded)

    def __str__(self) -> str:
        kinds = {"missing in the file": self.missing, "unexpected": self.unexpected}
        all_kinds = {
            "tensors loaded": self.loaded,
            "inflated from 2-D": self.inflated,
            "position tables resized": self.resized,
            "skipped": self.skipped,
            **kinds,
        }
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in all_kinds.items() if names)
        causes: dict[str, list[str]] = {}
        for name, reason in self.skipped.items():
            causes.setdefault(reason.partition(": ")[2], []).append(name)
        lines = [f"  skipped: {_first(_groups(names))} ({self.skipped[names[0]]})" for names in causes.values()]
        lines += [f"  {kind}: {_first(_groups(names))}" for kind, names in kinds.items() if names]
        lines += [f"  resized: {name}, {grids}" for name, grids in self.resized.items()]
        return "\n".join([self.source + counts, *lines])


def load_pretrained(model: nn.Module, path: str, inflation: str = "average") -> LoadReport:
    """Fill ``model`` with the weights of ``path`` as far as names and shapes agree, and report on every tensor.

    Convolution weights of one dimension less (2-D image models) are inflated, so that a still clip gives what the image
    gave: "average" repeats them over time and divides by the number of repetitions (I3D, arXiv 1705.07750), which
    blurs what moves; "center" puts them in the middle and zeros elsewhere (ViViT, arXiv 2103.15691). A classifier of
    another number of classes and a motion MLP of another window are left as they are, each as a whole. A file that
    fills less than half of the model's tensors, classifier aside, is refused.
    """
    if inflation not in INFLATIONS:
        raise UserError(f"inflation is {inflation!r}; allowed: {', '.join(INFLATIONS)}")
    target = model.state_dict()
    content = read_checkpoint(path)
    weights, source = unwrap_weights(content, path, target)
    missing = [name for name in target if name not in weights and not name.endswith(COUNTER)]
    report = LoadReport(source, missing=missing, head=_head_prefix(model))
    report.unexpected = [name for name in weights if name not in target]
    report.class_names = content.get("class_names")
    if scales := [name for name in report.unexpected if re.search(r"\.gamma_[12]$", name)]:
        reason = "its weights mean nothing without the tensors that scale its blocks, which this model does not have"
        raise UserError(f"{path} is a layer-scale variant ({_first(scales, 2)}): {reason}; use one without layer scale")
    grids = {name: model.position_grids(name) if isinstance(model, Model) else [] for name in target}
    fitted = {name: fit_tensor(weights[name], x, inflation) for name, x in target.items() if name in weights}
    for name in [name for name, x in fitted.items() if x is None and grids[name]]:
        fitted[name], grid = resize_positions(weights[name], target[name], *grids[name])
        if grid:
            report.resized[name] = "{} to {}".format(*(" x ".join(map(str, one)) for one in (grid, grids[name][0])))
    for name in [name for name, x in fitted.items() if x is None]:
        hint = ": another number of classes" if name.startswith(report.head) else ""
        hint = ": another EMIM.WINDOW or kind of window" if EMIM.search(name) else hint
        found, wanted = tuple(weights[name].shape), tuple(target[name].shape)
        report.skipped[name] = f"shape {found} in the file, {wanted} in the model{hint}"
    wholes = {name: report.head if name.startswith(report.head) else _whole_module(name) for name in fitted}
    broken = {wholes[name] for name in report.skipped} - {""}
    for name, x in fitted.items():
        if x is not None and wholes[name] in broken:
            report.skipped[name] = "the rest of its module does not fit"
    fitted = {name: x for name, x in fitted.items() if name not in report.skipped}
    for name in [name for name in fitted if name not in report.resized]:
        (report.loaded if fitted[name].shape == weights[name].shape else report.inflated).append(name)
    wanted = [name for name in target if not name.startswith(report.head) and not name.endswith(COUNTER)]
    matched = sum(name in fitted for name in wanted)
    if not matched or matched < len(wanted) / 2:
        named = ([f"{name} {tuple(x.shape)}" for name, x in some.items()] for some in (weights, target))
        rule = f"only {matched} of the model's {len(wanted)} tensors match by name and shape"
        examples = "The file has {}; the model {}".format(*(_first(names, 3) for names in named))
        raise UserError(f"{path}: {rule}; is it a checkpoint of this architecture? {examples}")
    model.load_state_dict(fitted, strict=False)
    logger.info("weights from %s: %s", path, report)
    _warn(path, report)
    return report


def _head_prefix(model: nn.Module) -> str:
    """Return the beginning of the names of the classifier's tensors."""
    head = getattr(model, "head", None)
    return next((name for name, module in model.named_modules() if module is head), "head") + "."


def _whole_module(name: str) -> str:
    match = WHOLE_MODULE.match(name)
    return match[0] if match else ""


def fit_tensor(source: torch.Tensor, target: torch.Tensor, inflation: str) -> torch.Tensor | None:
    """Return ``source`` in shape and precision of ``target``, inflated over time if need be; None if it cannot fit."""
    if source.shape == target.shape:
        return source.to(target.dtype)
    if target.dim() == 5 and source.shape == target.shape[:2] + target.shape[3:]:
        frames = target.shape[2]
        if inflation == "center":
            before = frames // 2
            return F.pad(source.to(target.dtype).unsqueeze(2), (0, 0, 0, 0, before, frames - 1 - before))
        return (source.to(target.dtype) / frames).unsqueeze(2).repeat(1, 1, frames, 1, 1)
    return None


def resize_positions(
    source: torch.Tensor, target: torch.Tensor, grid: tuple[int, ...], published: tuple[int, ...] = ()
) -> tuple[torch.Tensor | None, tuple[int, ...]]:
    """Return a position table in the shape of ``target``, whose grid is ``grid``, and the grid that it had.

    Linear interpolation along every axis of the grid; None and () if it cannot fit. The file does not say its grid. Two
    axes are a square; three (time, height, width) are those of the ``published`` weights, or others than the wanted
    ones in time or space alone; if that could be either, they are not guessed.
    """
    axes = [axis for axis, sizes in enumerate(zip(source.shape, target.shape)) if sizes[0] != sizes[1]]
    if source.dim() != target.dim() or len(axes) != 1:
        return None, ()
    num_first = target.shape[axes[0]] - math.prod(grid)
    count = source.shape[axes[0]] - num_first
    if count <= 0:
        return None, ()
    candidates = {(count,)} if len(grid) == 1 else {(*grid[:-2], *[math.isqrt(count // math.prod(grid[:-2]))] * 2)}
    if len(grid) == 3:
        candidates |= {(count // math.prod(grid[1:]), *grid[1:])}
    candidates = {published} if math.prod(published or (0,)) == count else candidates
    found = [one for one in candidates if math.prod(one) == count > 0]
    if len(found) != 1:
        return None, ()
    first, table = source.float().movedim(axes[0], -1).split([num_first, count], dim=-1)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    table = F.interpolate(table.reshape(1, -1, *found[0]), grid, mode=mode, align_corners=False)
    table = torch.cat([first, table.reshape(*first.shape[:-1], -1)], dim=-1)
    return table.movedim(-1, axes[0]).to(target.dtype), found[0]


def unwrap_weights(content: dict, path: str, names: Collection[str] = ()) -> tuple[dict[str, torch.Tensor], str]:
    """Return the state dict in the content of the weight file ``path``, and a note on its entry and prefixes.

    Prefixes are stripped, except from ``names``, those of the model's own tensors; a model behind motion prompts, or
    around that of another library, finds those of what is inside.
    """
    dicts = {key: entry for key, entry in {**content, "": content}.items() if isinstance(entry, dict)}
    tensors = {key: {name: x for name, x in some.items() if isinstance(x, torch.Tensor)} for key, some in dicts.items()}
    entries = [key for key in (*WRAPPERS, "") if tensors.get(key)]
    if not entries:
        places = ", ".join(WRAPPERS)
        raise UserError(f"{path} holds no tensors at its top level or under {places}; it has {list(content)[:8]}")
    entry, *others = entries
    bare = {name: name if name in names else PREFIXES.sub("", name) for name in tensors[entry]}
    prefixes = sorted({name.removesuffix(bare[name]) for name in bare} - {""})
    nested = ("", "model.", "model.model.")  # behind motion prompts, of another library, or both
    bare = {name: next((x + short for x in nested if x + short in names), short) for name, short in bare.items()}
    mine = {short for short in bare.values() if short in names or not names}
    if twice := [short for short, count in Counter(bare.values()).items() if count > 1 and short in mine]:
        found = " and ".join(name for name, short in bare.items() if short == twice[0])
        raise UserError(f"{path} has several tensors for {twice[0]}: {found}; keep those of one model in it")
    note = f"entry {entry!r}{''.join(f', not {other!r}' for other in others if other)}; " if entry else ""
    note += f"prefix {' and '.join(prefixes)} stripped; " if prefixes else ""
    return {bare[name]: x for name, x in tensors[entry].items()}, note


def read_checkpoint(path: str) -> dict:
    """Return the content of a weight file or checkpoint as it is, on the CPU; code in it is never run."""
    if not os.path.isfile(path):
        problem = "is a folder; name the file in it" if os.path.isdir(path) else "does not exist"
        raise UserError(f"weight file {os.path.abspath(path)} {problem}")
    if path.endswith(".index.json") or re.search(r"-\d{5}-of-\d{5}\.", path):
        raise UserError(f"{path} is one part of a model saved in several files: join them into one first")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the reader fail in many ways: IndexError, AssertionError, ...
        raise UserError(f"{path} cannot be read as a weight file: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a dict of tensors, found a {type(content).__name__}")
    return content


def _plain_data() -> list:
    """Return the classes that training programs leave beside weights, and that hold data alone."""
    dtypes = [type(np.dtype(code)) for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]]
    makers = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]  # functions that make scalars and arrays
    renamed = [(maker, f"numpy.{core}.multiarray.{maker.__name__}") for maker in makers for core in ("core", "_core")]
    names = itertools.product(("pathlib", "pathlib._local"), ("", "Pure"), ("Posix", "Windows"))
    paths = [(pathlib.PurePosixPath, f"{module}.{pure}{system}Path") for module, pure, system in names]
    return [argparse.Namespace, np.dtype, np.ndarray, *dtypes, *renamed, *paths]


def _reason(error: Exception) -> str:
    """Return the part of a message that is about the file; torch's own goes on with how to run what is in it."""
    if isinstance(error, ImportError):
        return f"the package safetensors is needed ({error}); see requirements.txt"
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it holds Python objects ({foreign[1]}), which could run code; save its tensors alone, as a state dict"
    return str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__


def _warn(path: str, report: LoadReport) -> None:
    """Warn of leftovers, unless they are those of a UniFormer that becomes an EMIM."""
    lost = [name for name in (*report.missing, *report.skipped) if not name.startswith(report.head)]
    afresh = [name for name in lost if not EMIM.search(name)]
    if afresh:
        message = "%s lacks tensors of the backbone or has them in other shapes; they start afresh: %s"
        logger.warning(message, path, _first(_groups(afresh)))
    if report.unexpected:
        is_variant = any(name.startswith("aux_head.") for name in report.unexpected)
        hint = "; it is a token-labelling variant, not the one that the paper started from" if is_variant else ""
        unexpected = _first(_groups(report.unexpected))
        logger.warning("%s has tensors that the model has no place for: %s%s", path, unexpected, hint)


def _groups(names: list[str]) -> list[str]:
    """Return names that differ in numbers of stages, blocks or layers as one, with how many they are."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\d+(?=\.\d)|(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    return [f"{len(members)} x {group}" if len(members) > 1 else members[0] for group, members in groups.items()]


def _first(names: list[str], count: int = 8) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
