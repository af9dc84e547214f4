"""Explanations as numbers: insertion and deletion curves of maps, and errors of displacements against true motion.

Dimension letters: ``B`` clips, ``T`` frames, ``S`` side of the crop (px), ``h w`` token grid, ``F`` pairs of frames,
``N`` heads, ``P`` displacements of a window, ``M`` tokens.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from slowfast.inference.explain import MAPS, Affinities, class_maps, displacements, enlarge, read_affinities
from slowfast.inference.inputs import Inputs
from slowfast.inference.model import VideoModel
from slowfast.models import build_model
from slowfast.models.attention import EmimAttention
from slowfast.models.motion_prompt import Prompted
from slowfast.ops.emim import EmimRules, cost_volume
from slowfast.synthetic.scenes import CLASS_NAMES, SceneSpec, render, true_motion
from slowfast.utils.errors import UserError
from slowfast.utils.logging import progress_bar

MIN_CLIPS = 48  # half of which must tell the weights of a linear readout
NUM_STEPS = 6  # of an insertion or deletion curve
CURVES, ENDINGS = ("insertion", "deletion"), ("", "_gain", "_interval")
_NUM_RANDOM = 2  # maps without meaning of each kind beside each clip's
_FINE = 8  # steps per token of the search for matching patches
_DIAMETER = (0.38, 0.8)


def scene_spec(model: VideoModel) -> SceneSpec:
    """Return the difficulty of the quickstart's videos, with the frames and the size of the model's clips."""
    size, num_frames = model.cfg.DATA.TEST_CROP_SIZE, model.cfg.DATA.NUM_FRAMES
    if model.cfg.VMP.ENABLE:
        raise UserError("VMP.ENABLE is True: what motion prompts leave of a clip is not compared with its true motion")
    if num_frames < 2:
        raise UserError("motion needs clips of at least 2 frames (DATA.NUM_FRAMES is 1)")
    fastest = math.log(_DIAMETER[1] / _DIAMETER[0]) / (num_frames - 1)
    return SceneSpec(
        size=size, num_frames=num_frames, speed=(0.07, 0.14), zoom=(min(0.08, 0.75 * fastest), 0.12), spin=(20, 40),
        diameter=_DIAMETER, texture_contrast=0.25,
    )  # fmt: skip


def synthetic_clip(spec: SceneSpec, seed: int, index: int) -> tuple[np.random.SeedSequence, int, torch.Tensor]:
    """Return seed, label and frames, uint8 (1, 3, T, S, S), of a clip that is in no data set of this repository."""
    key, label = np.random.SeedSequence(seed, spawn_key=(2, index)), index % len(CLASS_NAMES)
    return key, label, torch.from_numpy(render(key, label, spec)).permute(3, 0, 1, 2)[None]


def evaluate(model: VideoModel, num_clips: int, videos: Inputs | None = None) -> tuple[dict, list[str]]:
    """Measure the explanations of a model; return all figures, and lines that tell the most of them.

    Args:
        num_clips: synthetic clips, half of which fit the linear readout.
        videos: videos for the maps; None for the synthetic clips of the second half.
    """
    if videos is None:
        spec = scene_spec(model)
        frames = (synthetic_clip(spec, 0, index)[2] for index in range(num_clips // 2, num_clips))
        count = num_clips - num_clips // 2
    else:
        frames, count = _central_clips(model, videos), len(videos.records)
    maps = measure_maps(model, (model.normalize(x.to(model.device)) for x in frames), count)
    report = {"maps": maps, "num_synthetic_clips": num_clips}
    lines = ["area under the curve, and its difference to a shuffled map with the 95 % interval"]
    lines += ["map        insertion (more is better)   deletion (less is better)"]
    for name, found in maps.items():
        pairs = ("{:.3f} ({:+.3f} ± {:.3f})".format(*(found[key + end] for end in ENDINGS)) for key in CURVES)
        lines.append("{:10} {:28} {}".format(name, *pairs))
    if any(isinstance(module, EmimAttention) for module in model.model.modules()):
        try:
            report["motion"] = measure_motion(model, num_clips)
        except UserError as error:  # the maps, which took minutes, are measured all the same
            report["no_motion"] = str(error)
            return report, [*lines, "", f"no errors of displacements: {error}"]
        lines += ["", "end-point error, tokens      head   by the softmax (correlation)   by a linear readout"]
        for row in report["motion"]:
            way = f"{row['epe']:.3f} ({row['correlation']:+.2f})"
            lines.append(
                f"{row['block']:11} {row['network']:15} {row['head']!s:>5}   {way:28} {row['epe_readout']:.3f}"
            )
    return report, lines


def _central_clips(model: VideoModel, videos: Inputs) -> Iterator[torch.Tensor]:
    for batch in model.evaluation(videos, 1).loader:
        for bad in batch.bad:
            raise UserError(f"{bad.path}: {bad.reason}")
        yield from batch.clips.split(1)


@torch.no_grad()
def measure_maps(
    model: VideoModel, clips: Iterable[torch.Tensor], num_clips: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return the areas under insertion and deletion curves (arXiv 1806.07421) of maps of the predicted classes.

    A curve is the class's probability while the pixels of a clip are shown (insertion) or replaced (deletion) in the
    order of the map, the highest first; replaced pixels have their mean over the clip's frames, which shows no motion.
    Controls are the class activation map with its places ``shuffled``, alike in all frames, and ``noise``, every cell
    by itself. Noise breaks up motion wherever it is, so that it is hard to beat at deletion, and easy at insertion.

    Args:
        clips: normalised, (1, 3, T, S, S) each.

    Returns:
        Of each map the means ``insertion`` and ``deletion``, and the mean differences to ``shuffled``, paired by clip,
        ``insertion_gain`` and ``deletion_gain``, with half their 95 % intervals, ``..._interval``.
    """
    rng, areas, network = np.random.default_rng(seed), [], model.model
    if isinstance(network, Prompted):  # the pixels are those that its backbone sees
        clips, network = map(network.prompts, clips), network.model
    for clip in progress_bar(clips, num_clips, "insertion and deletion", unit="clip"):
        label = network(clip).argmax(1)
        found = {name: class_maps(network, clip, label, name)[0].cpu().numpy() for name in MAPS}
        flat = found["cam"].reshape(len(found["cam"]), -1)
        shuffled = [flat[:, rng.permutation(flat.shape[1])].reshape(found["cam"].shape) for _ in range(_NUM_RANDOM)]
        noise = [*rng.standard_normal((_NUM_RANDOM, *found["cam"].shape))]
        groups = ([found["cam"]], [found["gradcam"]], shuffled, noise)
        areas.append([
            np.mean([_areas(network, clip, int(label), enlarge(x, clip.shape[2:])) for x in group], axis=0)
            for group in groups
        ])  # fmt: skip
    table = np.array(areas)  # (B, 4, 2)
    gains = table - table[:, 2:3]
    intervals = np.full(gains.shape[1:], np.nan)
    if len(table) > 1:
        intervals = stats.t.ppf(0.975, len(table) - 1) * stats.sem(gains)
    figures = np.stack([table.mean(0), gains.mean(0), intervals], axis=-1)  # (4, 2, 3)
    keys = [curve + ending for curve in CURVES for ending in ENDINGS]
    return {name: dict(zip(keys, x.ravel().tolist())) for name, x in zip((*MAPS, "shuffled", "noise"), figures)}


def _areas(network: nn.Module, clip: torch.Tensor, label: int, values: np.ndarray) -> tuple[float, float]:
    """Return the areas under the insertion and the deletion curve of a map (T, S, S) of one clip."""
    order = np.argsort(-values, axis=None, kind="stable")
    rank = np.empty(order.size)
    rank[order] = np.arange(order.size) / order.size
    shares = torch.linspace(0, 1, NUM_STEPS + 1).view(-1, 1, 1, 1, 1)
    is_first = (torch.from_numpy(rank).view(values.shape).float() < shares).to(clip.device)  # (steps + 1, 1, T, S, S)
    still = clip.mean(2, keepdim=True)
    batch = torch.cat([torch.where(is_first, clip, still), torch.where(is_first, still, clip)])
    curves = network(batch).float().softmax(1)[:, label].view(2, -1).cpu()
    return tuple(torch.trapezoid(curves, dx=1 / NUM_STEPS).tolist())


class Tokens(NamedTuple):
    """Tokens that targets cover by half or more: their affinities, and displacements (x, y) in tokens."""

    affinity: np.ndarray  # (M, N, P)
    found: np.ndarray  # (M, N, 2)
    truth: np.ndarray  # (M, 2)


@torch.no_grad()
def measure_motion(model: VideoModel, num_clips: int, seed: int = 0) -> list[dict]:
    """Return end-point errors of displacements against the true motion of synthetic targets, in tokens.

    Two ways to read a displacement out of a window of affinities: where the softmax looks (its expectation), and the
    linear function of the affinities that fits best on the first half of the clips. The second asks whether the
    affinities know the motion, the first whether they do so by matching. All errors are of the second half.

    Controls are fresh weights; no motion at all; and raw patches, minus whose squared differences stand for
    affinities, while the first way is a search for the best match in steps of an eighth of a token.

    Returns:
        A row per block, network ("trained", "random weights", "raw patches", "no motion") and head (a number, or "all":
        the mean displacement of the heads, and the function of all their affinities), with ``epe`` of the first way,
        ``correlation`` of its displacements with the truth, and ``epe_readout``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(model.cfg).to(model.device).eval()
    middle = num_clips // 2
    halves = [_collect(model, fresh, some, seed) for some in (range(middle), range(middle, num_clips))]
    rows = []
    for (block, network), fitted in halves[0].items():
        measured = halves[1][block, network]
        heads = range(measured.affinity.shape[1])
        for head in [[one] for one in heads] + [[*heads]] * (len(heads) > 1):
            facts = {"block": block, "network": network, "head": "all" if len(head) == len(heads) else head[0]}
            some, others = (Tokens(x.affinity[:, head], x.found[:, head], x.truth) for x in (fitted, measured))
            rows.append(facts | displacement_errors(some, others))
        if network == "raw patches":
            still = float(np.linalg.norm(measured.truth, axis=1).mean())
            facts |= {"network": "no motion", "epe": still, "correlation": 0.0, "epe_readout": still}
            rows.append(facts)
    return rows


def _collect(model: VideoModel, fresh: nn.Module, indices: range, seed: int) -> dict[tuple[str, str], Tokens]:
    """Return the tokens on targets of synthetic clips by block and network."""
    spec, parts, grids = scene_spec(model), {}, {}
    for index in progress_bar(indices, len(indices), "true motion", unit="clip"):
        key, label, frames = synthetic_clip(spec, seed, index)
        clip = model.normalize(frames.to(model.device))
        for network, run in (("trained", model.model), ("random weights", fresh)):
            for block, found in read_affinities(run, clip).items():
                truth, is_target = true_tokens(key, label, spec, found)
                way = found.forward.softmax(-1) @ displacements(found.window).to(found.forward)
                cases = [(network, found.forward[0], way[0])]
                grid = (*found.forward.shape[2:4], found.window, found.interval)
                if network == "trained" and grids.setdefault(grid, block) == block:  # alike for all blocks of a stage
                    cases.append(("raw patches", _compare_patches(frames, found)[0], _match_patches(frames, found)))
                for name, *of_tokens in cases:
                    parts.setdefault((block, name), []).append((*(x.cpu()[is_target] for x in of_tokens), truth))
    return {key: Tokens(*(torch.cat(x).float().numpy() for x in zip(*some))) for key, some in parts.items()}


def true_tokens(key, label: int, spec: SceneSpec, found: Affinities) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the true motion (m, 2) of the tokens on the target, in tokens, and which they are, bool (F, h, w)."""
    return covered_tokens(*true_motion(key, label, spec, interval=found.interval), found)


def covered_tokens(motion: np.ndarray, is_target: np.ndarray, found: Affinities) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what :func:`true_tokens` does of the motion of pixels, px (F, S, S, 2), and the target's, (F, S, S)."""
    height, width = found.forward.shape[2:4]
    if len(motion) != found.forward.shape[1]:
        raise UserError("true motion is known frame by frame, but the stem halves time (UNIFORMER.TEMPORAL_DOWNSAMPLE)")
    mask = torch.from_numpy(is_target)[:, None].float()
    both = torch.cat([torch.from_numpy(motion).permute(0, 3, 1, 2) * mask, mask], dim=1)
    x, y, share = F.adaptive_avg_pool2d(both, (height, width)).unbind(1)  # (F, h, w)
    is_covered = share >= 0.5
    truth = torch.stack([x, y], dim=-1)[is_covered] / share[is_covered][:, None]
    return truth * width / motion.shape[2], is_covered


def _compare_patches(frames: torch.Tensor, found: Affinities) -> torch.Tensor:
    """Return minus the mean squared difference of patches of pixels, one per token, in the place of affinities."""
    height, width = found.forward.shape[2:4]
    x = (frames.to(found.forward.device).float() / 255).unflatten(4, (width, -1)).unflatten(3, (height, -1))
    patches = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)[:, :, :, :, None]  # (1, T, h, w, 1, D)
    size = patches.square().sum(-1, keepdim=True)
    # - |a - b|^2 = [2 a, -1] [b, |b|^2] - |a|^2
    query, key = torch.cat([2 * patches, -torch.ones_like(size)], -1), torch.cat([patches, size], -1)
    num_pairs = found.forward.shape[1]
    products = cost_volume(query, key, found.window, EmimRules(temporal_interval=found.interval))[:, :num_pairs]
    return (products - size[:, :num_pairs]) / patches.shape[-1]


def _match_patches(frames: torch.Tensor, found: Affinities) -> torch.Tensor:
    """Return the displacement of the best match of every patch in its window, (F, h, w, 1, 2), in tokens."""
    height, width = found.forward.shape[2:4]
    x = F.adaptive_avg_pool2d(frames[0].transpose(0, 1).float(), (_FINE * height, _FINE * width))  # (T, 3, ., .)
    reach = found.window // 2 * _FINE
    now, later = x[: -found.interval], F.pad(x[found.interval :], (reach,) * 4, mode="replicate")
    best = torch.full((len(now), height, width), float("inf"))
    way = torch.zeros(*best.shape, 2)
    for dy, dx in itertools.product(range(-reach, reach + 1), repeat=2):
        moved = later[:, :, reach + dy :, reach + dx :][:, :, : _FINE * height, : _FINE * width]
        difference = F.avg_pool2d((now - moved).square().mean(1), _FINE)
        is_better = difference < best
        best = torch.where(is_better, difference, best)
        way[is_better] = torch.tensor([dx / _FINE, dy / _FINE])
    return way.unsqueeze(3)


def displacement_errors(fitted: Tokens, measured: Tokens) -> dict[str, float]:
    """Return the errors of both ways to read one or several heads, whose displacements are averaged."""
    found = measured.found.mean(1)  # (M, 2)
    design, design_measured = (linear_design(x.affinity) for x in (fitted, measured))
    weights, *_ = np.linalg.lstsq(design, fitted.truth, rcond=None)
    correlation = np.corrcoef(found.ravel(), measured.truth.ravel())[0, 1]
    return {
        "epe": _end_point_error(found, measured.truth),
        "correlation": float(correlation),
        "epe_readout": _end_point_error(design_measured @ weights, measured.truth),
    }


def linear_design(affinity: np.ndarray) -> np.ndarray:
    """Return the rows of a linear fit, (M, n P + 1); places outside the image, masked, count as 0."""
    flat = np.where(np.isfinite(affinity), affinity, 0).reshape(len(affinity), -1)
    return np.column_stack([flat, np.ones(len(flat))])


def _end_point_error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth, axis=1).mean())
