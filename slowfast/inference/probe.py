"""Probes: a classifier trained on the features of a frozen model, which are computed once.

Dimension letters: ``M`` videos, ``N`` tokens of a video (of all its views), ``C`` channels, ``K`` classes.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slowfast.analysis.crossval import find_folds, pool, write_pooled, write_table
from slowfast.datasets.manifest import Record, read_class_names, read_manifest
from slowfast.inference.inputs import Inputs
from slowfast.inference.model import VideoModel, load_model
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, replacing
from slowfast.utils.logging import progress_bar
from slowfast.utils.results import Scores

logger = logging.getLogger(__name__)

CACHE = "features.npz"
_NUM_STEPS = 100


class Linear(nn.Module):
    """Logits (M, K) of the mean of the tokens (M, N, C)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(tokens.mean(1))


class Attentive(nn.Module):
    """Logits (M, K) of tokens (M, N, C), weighted by learned queries: one head of attention for 32 channels."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        num_heads = max(1, dim // 32)
        self.query = nn.Linear(dim, num_heads)
        self.head = nn.Linear(num_heads * dim, num_classes)
        # Equal heads would stay equal.
        nn.init.normal_(self.query.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        for parameter in (self.query.bias, *self.head.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        weights = self.query(tokens).softmax(1)  # (M, N, heads)
        return self.head((weights.mT @ tokens).flatten(1))


PROBES = {"linear": Linear, "attentive": Attentive}


def probe(
    model: str,
    data: str,
    kinds: Sequence[str],
    shots: int,
    out: str,
    device: str = "auto",
    decay: float = 1e-3,
    opts: Sequence[str] = (),
) -> None:
    """Train probes on every fold of a data set and write their pooled results, as a cross-validation does.

    Args:
        model: source of :func:`slowfast.inference.model.load_model`; it sees the views of its test.
        data: folder of the folds that ``prepare_data.py folder`` made.
        kinds: names of PROBES.
        shots: training clips a class, 0 for all.
        out: folder of the features and of what :func:`slowfast.analysis.crossval.write_table` writes.
        device: of the model.
        decay: weight of the squared weights in the loss.
        opts: KEY VALUE pairs over the settings of the model: other frames, crops or views.
    """
    if not 0 <= decay < math.inf:
        raise UserError(f"--decay is {decay:g}; allowed: at least 0")
    lists = [[_read(data, fold, split) for split in ("train", "val")] for fold in find_folds(data, shots).values()]
    names = read_class_names(os.path.join(data, "classes.txt"), 0)
    make_folder(Path(out))
    paths = sorted({record.path for parts in lists for part in parts for record in part})
    if wrong := [key for key in opts[::2] if not key.startswith(("DATA.", "TEST."))]:
        raise UserError(f"{wrong[0]} is of the trained model and cannot be changed; allowed: keys of DATA and TEST")
    loaded = load_model(model, device)
    loaded = VideoModel(loaded.model, loaded.cfg.with_settings(*opts), loaded.class_names, device)
    features = cached_features(os.path.join(out, CACHE), loaded, paths, "attentive" not in kinds)
    tokens = dict(zip(paths, torch.from_numpy(features)))
    facts = {"view_protocol": f"frozen {model}", "ensemble_method": "sum_logits"}
    results = {}
    for kind in kinds:
        parts = []
        for train, val in lists:
            x, unseen = (torch.stack([tokens[record.path] for record in part]).float() for part in (train, val))
            logits = train_probe(PROBES[kind], x, [record.label for record in train], unseen, len(names), decay)
            videos, labels = (np.array([getattr(record, key) for record in val]) for key in ("name", "label"))
            parts.append(Scores(videos, labels, logits[:, None], names, facts))
        results[kind, 0] = write_pooled(os.path.join(out, "pooled", kind), pool(parts))
    write_table(results, kinds[0], out, {"model": model})


def _read(data: str, settings: Sequence[str], split: str) -> list[Record]:
    """Read a list of a fold, whose ``settings`` are KEY VALUE pairs."""
    values = dict(zip(settings[::2], settings[1::2]))
    path = os.path.join(data, values["DATA.LABEL_PATH_TEMPLATE"].format(split))
    return read_manifest(path, data, values["DATA.SOURCE"], 0)


def cached_features(path: str, model: VideoModel, videos: Sequence[str], is_pooled: bool) -> np.ndarray:
    """Return features float16 (M, N, C) of videos from the file ``path``, computed and written if it is of others.

    Tokens of the last map of all views of the test, or with ``is_pooled`` their mean (N 1).
    """
    files = [os.stat(video) if os.path.exists(video) else None for video in videos]  # another one by the same name
    facts = [(video, file and (file.st_size, file.st_mtime_ns)) for video, file in zip(videos, files)]
    digest = hashlib.sha256(json.dumps([facts, is_pooled, model.cfg.dump()]).encode())
    for name, weight in model.model.state_dict().items():
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    if os.path.isfile(path):
        with np.load(path) as file:
            if str(file["of"]) == digest.hexdigest():
                logger.info("features of %d videos from %s", len(videos), path)
                return file["features"]
    features = compute_features(model, videos, is_pooled)
    with replacing(path, "wb") as file:
        np.savez(file, of=np.array(digest.hexdigest()), videos=np.array(videos), features=features)
    return features


@torch.no_grad()
def compute_features(model: VideoModel, videos: Sequence[str], is_pooled: bool) -> np.ndarray:
    """Return the features of videos, see :func:`cached_features`."""
    loader = model.evaluation(Inputs(videos, model.cfg)).loader
    found: list[list[np.ndarray]] = [[] for _ in videos]
    for batch in progress_bar(loader, len(loader), "features"):
        for bad in batch.bad:
            raise UserError(f"{bad.path}: {bad.reason}")
        maps = model.model.forward_features(model.normalize(batch.clips.to(model.device)))
        tokens = maps.float().flatten(2).mT  # (B, N, C) of a view
        tokens = tokens.mean(1, keepdim=True) if is_pooled else tokens
        for video, own in zip(batch.video_index.tolist(), tokens.cpu().numpy()):
            found[video].append(own.astype(np.float16))
    joined = np.stack([np.concatenate(views) for views in found])
    return joined.mean(1, keepdims=True, dtype=np.float32).astype(np.float16) if is_pooled else joined


def train_probe(
    kind: type[nn.Module], x: torch.Tensor, labels: Sequence[int], unseen: torch.Tensor, num_classes: int, decay: float
) -> np.ndarray:
    """Train a probe on tokens ``x`` (M, N, C) and return its logits of ``unseen`` tokens, (M', K).

    By L-BFGS on the whole set; channels are scaled to mean 0 and variance 1 of what is trained.
    """
    mean, std = x.mean((0, 1)), x.std((0, 1)).clamp_min(1e-6)
    x, unseen, target = (x - mean) / std, (unseen - mean) / std, torch.as_tensor(labels)
    probe = kind(x.shape[2], num_classes)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=_NUM_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = decay * sum(weight.square().sum() for weight in probe.parameters() if weight.dim() > 1)
        total = F.cross_entropy(probe(x), target) + penalty
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        return probe(unseen).numpy()
