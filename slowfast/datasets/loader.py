"""Items to batches: the order in which each process loads them, and how they are joined.

Dimension letters: ``B`` clips of a batch, ``T`` frames, ``S`` side of the crop (px).
"""

import functools
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from traceback import extract_tb
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from slowfast.config import clip_frames
from slowfast.config.parser import CfgNode
from slowfast.datasets.build import check_files
from slowfast.datasets.video_dataset import BadVideo, Sample, VideoDataset
from slowfast.utils.errors import UserError

# A decoder that hangs in native code cannot be interrupted: the loader gives up instead of waiting for ever.
STALL_TIMEOUT_SEC = 900


@dataclass(eq=False)
class TrainSampler(Sampler):
    """Keys of training items of one process, in steps of one global batch.

    Every epoch is a new permutation of the videos, the same for all processes, cut into global batches of
    which each process takes every ``world_size``-th video: the set of videos of a step does not depend on the
    number of processes. The last, incomplete global batch is dropped.

    With ``repeats`` R > 1 every video stands R times in a row and the order is cut to the length of one epoch, so that
    about a share 1 / R of the videos is seen in it; where R divides the global batch the copies of a video land in one,
    and on different processes if there are as many (the sampler of DeiT, arXiv 2012.12877).

    With ``labels``, one per video, every class that has videos is drawn equally often, give or take one, instead of
    every video once: videos of rare classes several times, those of frequent ones not in every epoch.
    """

    num_videos: int
    global_batch: int
    rank: int
    world_size: int
    seed: int
    repeats: int = 1
    labels: np.ndarray | None = None
    epoch: int = field(default=0, init=False)
    first_step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.global_batch % self.world_size or self.num_videos < self.global_batch:
            raise UserError(
                f"TRAIN.BATCH_SIZE is {self.global_batch} (videos over all processes); allowed: multiples of "
                f"{self.world_size} (the processes) up to {self.num_videos} (the training videos)"
            )

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Choose the permutation and the random draws of the next iteration, which leaves out the first steps."""
        self.epoch = epoch
        self.first_step = first_step

    def __len__(self) -> int:
        return self.num_videos // self.global_batch * (self.global_batch // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield ``(epoch, video index, copy)``, the batches of this process one after the other."""
        # The spawn key keeps this stream apart from those of the samples: [seed, epoch] equals [seed, epoch, 0].
        seed = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(1,))
        rng = np.random.default_rng(seed)
        num_steps = self.num_videos // self.global_batch
        if self.labels is None:
            videos = rng.permutation(self.num_videos)
            times_before = np.zeros_like(videos)
        else:
            videos, times_before = draw_balanced(self.labels, -(-num_steps * self.global_batch // self.repeats), rng)
        position = np.arange(num_steps * self.global_batch).reshape(num_steps, self.global_batch)  # rows are steps
        for place in position[self.first_step :, self.rank :: self.world_size].ravel().tolist():
            drawn, copy = divmod(place, self.repeats)
            yield self.epoch, int(videos[drawn]), int(times_before[drawn]) * self.repeats + copy


def draw_balanced(labels: np.ndarray, num_drawn: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw videos so that classes, and the videos of each class, come equally often, give or take one.

    Returns:
        Indices of the videos in random order, and how often each was drawn before, (num_drawn,) both.
    """
    classes = rng.permutation(np.unique(labels))  # the first ones get what is left over
    drawn = []
    for rank, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        num_own = (num_drawn + len(classes) - 1 - rank) // len(classes)
        rounds = max(1, -(-num_own // len(members)))
        videos = [rng.permutation(members) for _ in range(rounds)]
        drawn.append(np.stack([np.concatenate(videos), np.arange(rounds).repeat(len(members))])[:, :num_own])
    return tuple(rng.permutation(np.concatenate(drawn, axis=1), axis=1))


def eval_share(num_items: int, rank: int, world_size: int) -> range:
    """Return the contiguous share of a process: every item belongs to one, shares differ by at most one."""
    return range(num_items * rank // world_size, num_items * (rank + 1) // world_size)


class Batch(NamedTuple):
    """Clips of several videos, those of one video next to each other; B is 0 if no video could be decoded."""

    clips: torch.Tensor  # uint8 (B, 3, T, S, S), channels last in memory
    labels: torch.Tensor  # int64 (B,), or where videos have several labels 0 and 1, (B, K)
    video_index: torch.Tensor  # int64 (B,), positions of the videos in the list
    view: torch.Tensor  # int64 (B,), the view of the video; in training the number of the augmented copy
    bad: Sequence[BadVideo] = ()  # items that could not be decoded, which have no clips here

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return the batch with all its tensors on ``device``."""
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self[:4]), self.bad)


def collate(items: Sequence[Sample | BadVideo], clip_shape: tuple[int, ...]) -> Batch:
    """Join items in order: all clips of the first video, then of the second; without any, (0, *clip_shape)."""
    samples = [item for item in items if isinstance(item, Sample)]
    clips = [clip for sample in samples for clip in sample.clips.permute(0, 2, 3, 4, 1)]  # (T, S, S, 3)
    if clips:
        joined = default_collate(clips).permute(0, 4, 1, 2, 3)  # in a worker it writes straight into shared memory
    else:
        joined = torch.empty(0, *clip_shape, dtype=torch.uint8)
    rows = [(sample.video_index, view) for sample in samples for view in sample.views]
    video_index, view = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    labels = np.array([sample.label for sample in samples for _ in sample.views], dtype=np.int64)
    return Batch(
        joined, torch.from_numpy(labels), video_index, view, [item for item in items if isinstance(item, BadVideo)]
    )


def construct_loader(cfg: CfgNode, split: str, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Build the loader of ``Batch`` objects of one process.

    In training call ``loader.sampler.set_epoch(epoch)`` before each epoch. In validation and test the numbers of
    batches may differ between processes, and may be zero.
    """
    dataset = check_files(cfg, split, rank, world_size)
    if split == "train":
        labels = dataset.labels if cfg.DATA.TRAIN_SAMPLING == "balanced" else None
        if labels is not None and labels.ndim == 2:
            raise UserError("DATA.TRAIN_SAMPLING is balanced; allowed with DATA.MULTI_LABEL: uniform")
        order = (cfg.TRAIN.BATCH_SIZE, rank, world_size, cfg.RNG_SEED, cfg.AUG.SAMPLER_REPEATS, labels)
        sampler = TrainSampler(dataset.num_videos, *order)
        batch_size, side = cfg.TRAIN.BATCH_SIZE // world_size, cfg.DATA.TRAIN_CROP_SIZE
    else:
        sampler = eval_share(len(dataset), rank, world_size)
        batch_size, side = -(-cfg.TEST.BATCH_SIZE // world_size), cfg.DATA.TEST_CROP_SIZE
    return make_loader(cfg, dataset, batch_size, sampler, side, cfg.DATA_LOADER.NUM_WORKERS)


def make_loader(
    cfg: CfgNode, dataset: VideoDataset, batch_size: int, sampler: Iterable, side: int, num_workers: int
) -> DataLoader:
    """Make the loader of a data set whose clips are ``side`` px wide and high."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        timeout=STALL_TIMEOUT_SEC if num_workers else 0,
        # Forked workers share the records in memory; decoders are only opened inside the workers.
        multiprocessing_context="fork" if num_workers else None,
        worker_init_fn=_init_worker,
        collate_fn=functools.partial(collate, clip_shape=(3, clip_frames(cfg), side, side)),
        pin_memory=cfg.DEVICE != "cpu" and torch.cuda.is_available(),
        # Its own generator, so that loading draws nothing from the generator of the training process.
        generator=torch.Generator().manual_seed(cfg.RNG_SEED),
    )


def explained(error: Exception) -> Exception:
    """Return an error that says what to do about a lost worker process; any other ``error`` as it is."""
    told = str(error)
    # A worker that is lost while it hands over a batch ends the connection, of which torch says nothing.
    if isinstance(error, (EOFError, OSError)) and "_try_get_data" in {x.name for x in extract_tb(error.__traceback__)}:
        told = f"DataLoader worker was lost with a batch ({type(error).__name__})."
    if "DataLoader" not in told:
        return error
    return UserError(
        f"the data loader failed: {told.splitlines()[0].strip()} A killed worker usually means that memory ran "
        "out (see `dmesg`): use fewer DATA_LOADER.NUM_WORKERS. A bus error means that shared memory is full (in "
        "containers: --shm-size), a time-out that a video or the storage hangs"
    )


def shut_down(loader: DataLoader) -> None:
    """End the workers of a loader, also those that hang in a decoder and hear no signal but SIGKILL."""
    iterator = loader._iterator  # of persistent workers
    if iterator is not None:
        iterator._shutdown_workers()
        for worker in iterator._workers:
            worker.kill()


def _init_worker(worker_id: int) -> None:
    # Parallelism comes from the number of workers alone.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # A scheduler's signal or Ctrl-C reaches the whole group of processes; the training process decides when to end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
