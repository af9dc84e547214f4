"""Explanations of a prediction: maps of where its evidence lies, and displacements that EMIM's affinities hold.

Dimension letters: ``B`` clips, ``T`` frames, ``S`` side of the crop (px), ``C`` channels, ``T' h w`` map of the last
stage or token grid of a block, ``F`` pairs of frames, ``N`` heads, ``P`` displacements of a window, ``K`` classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from torch import nn

from slowfast.inference.inputs import Inputs, Video
from slowfast.inference.model import VideoModel
from slowfast.models import Model
from slowfast.models.attention import EmimAttention
from slowfast.models.motion_prompt import Prompted
from slowfast.ops.emim import cost_volume
from slowfast.ops.emim.motion import scale_and_bias
from slowfast.ops.emim.rules import outside_image
from slowfast.utils.errors import UserError
from slowfast.utils.metrics import ensemble

MAPS = ("cam", "gradcam")
METHODS = (*MAPS, "motion", "prompts")


@dataclass(frozen=True)
class MotionField:
    """Displacements from each frame to the next one in the softmax of one block; the last head is the mean of all.

    It is where a token attends to. Nothing in training asks that this be where its content went:
    ``inference.evaluate`` measures whether it is.
    """

    block: str
    interval: int  # frames of the clip from one to the next; F is T - interval
    displacement: np.ndarray  # float32 (F, h, w, N + 1, 2): expectation of (x, y) under the softmax, px
    confidence: np.ndarray  # (F, h, w, N + 1): 1 - entropy / log P, 0 where all of the window has the same share
    cycle_error: np.ndarray  # (F, h, w, N + 1): distance from the start after the way there and back, px


@dataclass(frozen=True)
class MotionPrompts:
    """Result of a layer of motion prompts (arXiv 2407.03179) for the later of two neighbouring frames each."""

    difference: np.ndarray  # float32 (T, S, S): D, what the grey frame in [0, 1] has more than the one before
    attention: np.ndarray  # float32 (T, S, S): A(D)
    frames: np.ndarray  # uint8 (T, S, S, 3): the prompts, not normalised any more; grey where A is 0
    curve: np.ndarray  # float32 (2, points): D from -1.1 to 1.1, and A(D)
    slope: float
    shift: float


@dataclass(frozen=True)
class Explanation:
    """The central view of a video, its prediction, and what that rests on."""

    path: str
    frames: np.ndarray  # uint8 (T, S, S, 3)
    label: int  # class that the maps are of
    class_name: str
    top: list[dict]  # label, class and probability of the best classes of this view
    probability: float  # of ``label``
    maps: dict[str, np.ndarray] = field(default_factory=dict)  # float32 (T, S, S)
    motion: list[MotionField] = field(default_factory=list)
    prompts: MotionPrompts | None = None


@torch.no_grad()
def explain(model: VideoModel, video: Video, what: Sequence[str] = ("cam",), label: str | int | None = None):
    """Explain the prediction of the central view of one video.

    Args:
        what: of ``cam`` (class activation map as in figure 4 of arXiv 2510.18705), ``gradcam`` (arXiv 1610.02391),
            ``motion`` (the displacements of every EMIM block) and ``prompts`` (what the backbone sees of a video).
        label: class to explain, by name or number; None is the predicted one.

    Returns:
        An :class:`Explanation`.
    """
    if unknown := [name for name in what if name not in METHODS]:
        raise UserError(f"there is no explanation {unknown[0]!r}; allowed: {', '.join(METHODS)}")
    wanted = None if label is None else find_label(model, label)
    videos = Inputs([video], model.cfg)
    batch = next(iter(model.evaluation(videos, 1).loader))
    for bad in batch.bad:
        raise UserError(f"{bad.path}: {bad.reason}")
    clip = model.normalize(batch.clips.to(model.device))
    network, frames, prompts = model.model, batch.clips[0], None
    if "prompts" in what:
        prompts = motion_prompts(network, clip, model.cfg.DATA.MEAN, model.cfg.DATA.STD)
    if isinstance(network, Prompted):  # its backbone sees the frames from the second one on
        clip, frames, network = network.prompts(clip), frames[:, 1:], network.model
    logits = network(clip)[:, None].float().cpu().numpy()
    (shares,) = ensemble(logits, "mean_probability", model.cfg.DATA.MULTI_LABEL)
    wanted = int(shares.argmax()) if wanted is None else wanted
    maps = {}
    for name in [name for name in MAPS if name in what]:
        found = class_maps(network, clip, torch.tensor([wanted], device=clip.device), name)
        maps[name] = enlarge(found[0].cpu().numpy(), clip.shape[2:])
    return Explanation(
        path=videos.records[0].name,
        frames=frames.permute(1, 2, 3, 0).numpy(),
        label=wanted,
        class_name=model.class_names[wanted],
        top=model.best_classes(shares, shares, 5),
        probability=float(shares[wanted]),
        maps=maps,
        motion=motion_fields(network, clip) if "motion" in what else [],
        prompts=prompts,
    )


def find_label(model: VideoModel, label: str | int) -> int:
    """Return the number of a class that is given by name or number."""
    names = model.class_names
    if label in names:
        return names.index(label)
    if str(label).isdecimal() and int(label) < len(names):
        return int(label)
    near = ", ".join(get_close_matches(str(label), names, cutoff=0.3)) or ", ".join(names[:3])
    raise UserError(f"there is no class {label!r} among the {len(names)} of this model; near it: {near}")


def class_maps(network: Model, clips: torch.Tensor, labels: torch.Tensor, how: str) -> torch.Tensor:
    """Return maps of the evidence for classes, float32 (B, T', h, w), of normalised clips (B, 3, T, S, S).

    Both weigh the channels of the last stage's output, before the final norm. ``cam`` takes the classifier's weights of
    the class and keeps what is negative, as figure 4 of arXiv 2510.18705 does; ``gradcam`` takes the mean gradient of
    the class's logit, and no negative sums (arXiv 1610.02391).
    """
    found: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> None:
        """Make the last map the start of the graph: nothing is kept of what led to it."""
        found.append(x.requires_grad_())
        torch.set_grad_enabled(True)

    with torch.no_grad(), network.watch_map(keep):
        score = network(clips).gather(1, labels[:, None]).sum()
    x = network.as_map(found[0], len(clips))  # (B, C, T', h, w); of images (B, C, h, w)
    if how == "cam":
        if getattr(network.head, "in_features", None) != x.shape[1]:
            raise UserError(f"cam needs a linear classifier of the last stage's {x.shape[1]} channels; use gradcam")
        weights = network.head.weight[labels]
    else:
        weights = network.as_map(torch.autograd.grad(score, found[0])[0], len(clips)).flatten(2).mean(2)
    maps = torch.einsum("bc,bc...->b...", weights, x).detach().float()
    maps = maps if maps.dim() == 4 else maps.unsqueeze(1)
    return maps if how == "cam" else maps.relu()


def enlarge(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Enlarge a map (T', h, w) to a clip's frames and pixels (T, S, S) with cubic splines."""
    return zoom(values, [new / old for new, old in zip(shape, values.shape)], order=3)


def motion_prompts(network: Model, clip: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> MotionPrompts:
    """Return what the layer before a network makes of one normalised clip (1, 3, T + 1, S, S)."""
    if not isinstance(network, Prompted):
        raise UserError(f"{type(network).__name__} has no motion prompts to show: it was built with VMP.ENABLE False")
    layer = network.vmps
    differences = layer.differences(clip)
    offset, scale = (torch.tensor(values).to(clip).view(3, 1, 1, 1) for values in (mean, std))
    frames = layer(clip)[0][0] * scale + offset  # (3, T, S, S)
    points = torch.linspace(-1.1, 1.1, 221).to(differences)
    return MotionPrompts(
        difference=differences[0].float().cpu().numpy(),
        attention=layer.attention(differences)[0].float().cpu().numpy(),
        frames=frames.mul(255).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu().numpy(),
        curve=torch.stack([points, layer.attention(points)]).float().cpu().numpy(),
        slope=float(layer.slope),
        shift=float(layer.shift),
    )


class Affinities(NamedTuple):
    """Affinities of one block as its softmax sees them, there and of the way back, (B, F, h, w, N, P) each."""

    forward: torch.Tensor  # of queries of each frame to keys of the later one
    backward: torch.Tensor  # of queries of the later one to keys of the frame
    window: int
    interval: int


@torch.no_grad()
def read_affinities(network: nn.Module, clips: torch.Tensor) -> dict[str, Affinities]:
    """Return the affinities of every EMIM block, by the block's name, of normalised clips (B, 3, T, S, S)."""
    blocks = {name: module for name, module in network.named_modules() if isinstance(module, EmimAttention)}
    if not blocks:
        raise UserError(f"{type(network).__name__} has no EMIM block, whose affinities motion is read from")
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        for name, block in blocks.items()
    ]
    try:
        network(clips)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, block in blocks.items():
        tokens, interval = seen[name], block.rules.temporal_interval
        if block.rules.sampling != "sliding":
            raise UserError("motion is read from sliding windows only (EMIM.SAMPLING is tiled)")
        if tokens.shape[1] <= interval:
            raise UserError(f"motion needs more than {interval} frames of tokens, found {tokens.shape[1]}")
        way_back = _affinity(block, tokens.flip(1)).flip(1)
        found[name.removesuffix(".attn")] = Affinities(_affinity(block, tokens), way_back, block.window, interval)
    return found


def _affinity(block: EmimAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Return what the softmax of a block sees, (B, F, h, w, N, P), of its input (B, T', h, w, C)."""
    query, key, _ = block.project(tokens)
    products = cost_volume(query, key, block.window, block.rules)[:, : tokens.shape[1] - block.rules.temporal_interval]
    affinity = scale_and_bias(products, None if block.rpb is None else block.rpb.flatten(1), query.shape[-1])
    outside = outside_image(query, block.window, block.rules)
    return affinity if outside is None else affinity.masked_fill(outside, float("-inf"))


def displacements(window: int) -> torch.Tensor:
    """Return the displacements (x, y) of a sliding window, in tokens: float32 (P, 2)."""
    places = torch.arange(window * window)
    return torch.stack([places % window, places // window], dim=1).float() - window // 2


def motion_fields(network: nn.Module, clip: torch.Tensor) -> list[MotionField]:
    """Return the displacement field of every EMIM block of one normalised clip (1, 3, T, S, S)."""
    fields = []
    for name, (forward, backward, window, interval) in read_affinities(network, clip).items():
        shares = forward[0].softmax(-1)  # (F, h, w, N, P)
        token = clip.shape[-1] / forward.shape[3]  # px
        way, back = (_with_mean(x[0].softmax(-1) @ displacements(window).to(x)) for x in (forward, backward))
        entropy = torch.special.entr(shares).sum(-1) / math.log(window * window)
        arrays = (token * way, _with_mean(1 - entropy), token * cycle_error(way, back))
        step = clip.shape[2] // (len(way) + interval)  # frames of the clip per frame of tokens
        arrays = (x.float().repeat_interleave(step, dim=0).cpu().numpy() for x in arrays)
        fields.append(MotionField(name, interval * step, *arrays))
    return fields


def _with_mean(x: torch.Tensor) -> torch.Tensor:
    """Append to the heads, axis 3, their mean."""
    return torch.cat([x, x.mean(3, keepdim=True)], dim=3)


def cycle_error(way: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Return how far from its start a token is after the ``way`` there and ``back``, (F, h, w, N, 2) each, in tokens.

    Between tokens the way back is interpolated linearly, outside the image it is that of the border.
    """
    height, width = way.shape[1:3]
    sizes = torch.tensor([width, height]).to(way)
    rows, columns = (torch.arange(size).to(way) for size in (height, width))
    start = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[:, :, None]  # (h, w, 1, 2)
    place = (2 * (start + way) + 1) / sizes - 1  # -1 to 1 from border to border
    maps, grid = back.permute(0, 3, 4, 1, 2).flatten(0, 1), place.permute(0, 3, 1, 2, 4).flatten(0, 1)
    found = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)  # (F * N, 2, h, w)
    found = found.unflatten(0, (len(way), -1)).permute(0, 3, 4, 1, 2)
    return (way + found).norm(dim=-1)
