"""Learning rate as a pure function of where training is, not of how it came there."""

import math


def cosine_with_warmup(
    progress: float, base_lr: float, max_epoch: float, warmup_epochs: float, warmup_start_lr: float, end_lr: float
) -> float:
    """Return the learning rate after ``progress`` of ``max_epoch`` epochs, a fraction too.

    It rises linearly from ``warmup_start_lr`` to ``base_lr``, then falls by half a cosine to ``end_lr`` (SGDR).
    """
    if progress < warmup_epochs:
        return warmup_start_lr + (base_lr - warmup_start_lr) * progress / warmup_epochs
    share = (progress - warmup_epochs) / (max_epoch - warmup_epochs)
    return end_lr + 0.5 * (base_lr - end_lr) * (1 + math.cos(math.pi * share))
