"""The learning rate as a pure function of training progress."""

from __future__ import annotations

import math


def cosine_with_warmup(
    progress: float, base_lr: float, max_epoch: float, warmup_epochs: float, warmup_start_lr: float, end_lr: float
) -> float:
    """Return the learning rate at ``progress`` epochs (fractional): linear warm-up, then half a cosine (SGDR).

    Args:
        progress: epochs done, 0 <= progress <= max_epoch.
        base_lr: rate at the end of the warm-up.
        max_epoch: epoch at which the rate reaches ``end_lr``.
        warmup_epochs: length of the warm-up, 0 for none.
        warmup_start_lr: rate at progress 0 if there is a warm-up.
        end_lr: final rate.
    """
    if progress < warmup_epochs:
        return warmup_start_lr + (base_lr - warmup_start_lr) * progress / warmup_epochs
    share = (progress - warmup_epochs) / (max_epoch - warmup_epochs)
    return end_lr + 0.5 * (base_lr - end_lr) * (1 + math.cos(math.pi * share))
