"""Which items each process loads, in which order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class TrainSampler(Sampler):
    """Keys ``(epoch, video index)`` of one process, in steps of one global batch.

    Every epoch is a new permutation of the videos, the same for all processes, cut into global batches of
    which each process takes every ``world_size``-th video: the set of videos of a step does not depend on the
    number of processes. The last, incomplete global batch is dropped.

    Args:
        num_videos: videos of the data set.
        global_batch: videos of a step over all processes.
        rank: of this process.
        world_size: number of processes.
        seed: of the permutations.

    Raises:
        ValueError: the global batch cannot be shared equally, or is larger than the data set.
    """

    def __init__(self, num_videos: int, global_batch: int, rank: int, world_size: int, seed: int) -> None:
        if global_batch < 1 or global_batch % world_size:
            raise ValueError(
                f"TRAIN.BATCH_SIZE is {global_batch} (videos over all processes), it must be a multiple of "
                f"the number of processes, {world_size}"
            )
        if num_videos < global_batch:
            raise ValueError(f"{num_videos} training videos are fewer than one batch, TRAIN.BATCH_SIZE {global_batch}")
        self.num_videos = num_videos
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.epoch = 0
        self.first_step = 0

    @property
    def order(self) -> dict[str, int]:
        """What fixes the videos of every step of an epoch."""
        return {"videos": self.num_videos, "TRAIN.BATCH_SIZE": self.global_batch, "RNG_SEED": self.seed}

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Choose the permutation and the random draws of the next iteration, which leaves out the first steps."""
        self.epoch = epoch
        self.first_step = first_step

    def __len__(self) -> int:
        """Return the number of keys of a whole epoch."""
        return self.num_videos // self.global_batch * (self.global_batch // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # The spawn key keeps this stream apart from those of the samples: [seed, epoch] alone equals [seed,
        # epoch, 0].
        seed = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(1,))
        order = np.random.default_rng(seed).permutation(self.num_videos)
        num_steps = self.num_videos // self.global_batch
        steps = order[: num_steps * self.global_batch].reshape(num_steps, self.global_batch)
        # Rows are steps; the batches of a process are contiguous in what it yields.
        for video_index in steps[self.first_step :, self.rank :: self.world_size].ravel().tolist():
            yield self.epoch, video_index


class EvalSampler(Sampler):
    """A contiguous share of the items: every item belongs to one process, shares differ by at most one.

    Args:
        num_items: items of the data set.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, num_items: int, rank: int, world_size: int) -> None:
        self.items = range(num_items * rank // world_size, num_items * (rank + 1) // world_size)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)
