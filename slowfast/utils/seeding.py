"""Random streams that depend on where training is, not on how it came there."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(*key: int) -> None:
    """Seed Python, NumPy and torch from a key such as (seed, epoch, step, rank).

    Seeding anew at every step makes a resumed run draw what an uninterrupted one draws.
    """
    python_seed, numpy_seed, torch_seed = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(python_seed))
    np.random.seed(int(numpy_seed))
    torch.manual_seed(int(torch_seed))
