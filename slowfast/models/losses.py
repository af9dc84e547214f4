"""Losses and accuracy of training, whose targets are smoothed and may mix two clips: ``B`` clips, ``K`` classes."""

import inspect
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from slowfast.utils.errors import UserError
from slowfast.utils.metrics import class_counts


def soft_target_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the cross-entropy of logits (B, K) against distributions (B, K), summed over the clips, in float32."""
    return F.cross_entropy(logits.float(), targets.float(), weights, reduction="sum")


def binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean cross-entropy of K yes-or-no questions, logits and targets (B, K), summed over the clips."""
    terms = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), weights, reduction="none")
    return terms.mean(dim=1).sum()


# By the name in LOSS.NAME functions of logits and targets, (B, K) each, that return the sum over the clips; those with
# an argument ``weights``, (K,) or None, take LOSS.CLASS_WEIGHTS.
LOSSES = {"soft_target_cross_entropy": soft_target_cross_entropy, "binary_cross_entropy": binary_cross_entropy}


def build_loss(cfg, labels: np.ndarray, device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the loss of logits and targets that LOSS describes, for training videos with labels (M,) or (M, K)."""
    name, weights, num_classes = cfg.LOSS.NAME, cfg.LOSS.CLASS_WEIGHTS, cfg.MODEL.NUM_CLASSES
    if name not in LOSSES:
        raise UserError(f"LOSS.NAME is {name!r}; allowed: {' | '.join(LOSSES)}")
    loss = LOSSES[name]
    if labels.ndim == 2 and loss is soft_target_cross_entropy:
        raise UserError(f"LOSS.NAME is {name}, for one class per video; allowed with DATA.MULTI_LABEL: any other")
    if not weights:
        return loss
    if "weights" not in inspect.signature(loss).parameters:
        raise UserError(f"LOSS.CLASS_WEIGHTS is {weights}, but the loss {name} has no argument 'weights'; allowed: []")
    if weights == "balanced" and cfg.DATA.TRAIN_SAMPLING == "balanced":
        raise UserError("LOSS.CLASS_WEIGHTS and DATA.TRAIN_SAMPLING are balanced, each for all; allowed: one of them")
    if weights == "balanced":
        counts = class_counts(labels, num_classes)
        mean_count = counts.sum() / np.count_nonzero(counts)
        weights = [mean_count / count if count else 1.0 for count in counts.tolist()]
    if len(weights) != num_classes:
        raise UserError(f"LOSS.CLASS_WEIGHTS has {len(weights)} numbers; allowed: one per class, {num_classes}")
    return partial(loss, weights=torch.tensor(weights, dtype=torch.float32, device=device))


def count_correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the clips whose highest logit is a class of their target, without waiting for the device.

    Logits and targets are (B, K), K >= 2. A mixed clip has two classes and is right with either, so that chance is
    2 / K, one of several labels with any. Classes at the smallest value of a target row are those that label smoothing
    alone put there, if not all are alike.
    """
    own = targets.gather(1, logits.detach().argmax(dim=1, keepdim=True))  # (B, 1)
    lowest, highest = targets.aminmax(dim=1, keepdim=True)
    return ((own > lowest) | (own == highest)).sum()
