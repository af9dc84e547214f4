"""Samples to batches.

Dimension letters: `B` clips of a batch, `T` frames, `S` side of the crop (px).
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import torch
from torch.utils.data import DataLoader, default_collate

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.finish import PackedClips, Remainder
from slowfast.datasets.build import build_dataset
from slowfast.datasets.samplers import EvalSampler, TrainSampler
from slowfast.datasets.video_dataset import BadVideo, Sample

# A decoder that hangs in native code cannot be interrupted: the loader gives up instead of waiting for ever.
STALL_TIMEOUT_SEC = 900


@dataclass(frozen=True)
class Batch:
    """Clips of several videos, those of one video next to each other.

    Attributes:
        clips: uint8 of shape (B, 3, T, S, S), or packed crops of different sizes; ``finish`` turns either into what
            models take. B is 0 if no video could be decoded.
        labels: int64 of shape (B,).
        video_index: int64 of shape (B,), positions of the videos in the list.
        view: int64 of shape (B,), the view of the video (in training: the number of the augmented copy).
        bad: the items that could not be decoded, which have no clips here.
        remainders: in training what is left to do to each clip, B of them; in testing none.
    """

    clips: torch.Tensor | PackedClips
    labels: torch.Tensor
    video_index: torch.Tensor
    view: torch.Tensor
    bad: list[BadVideo] = field(default_factory=list)
    remainders: tuple[Remainder, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with all its tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the loader calls this."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function) -> Batch:
        clips = self.clips.map(function) if isinstance(self.clips, PackedClips) else function(self.clips)
        names = ("labels", "video_index", "view")
        return replace(self, clips=clips, **{name: function(getattr(self, name)) for name in names})


def collate(items: Sequence[Sample | BadVideo], clip_shape: tuple[int, ...]) -> Batch:
    """Join items into a batch, in order: first all clips of the first video, then all of the second, ...

    Args:
        items: what the data set returned.
        clip_shape: shape of a clip that is not packed, (3, T, S, S).
    """
    samples = [item for item in items if isinstance(item, Sample)]
    clips = [clip for sample in samples for clip in sample.clips]
    rows = [(sample.label, sample.video_index, view) for sample in samples for view in sample.views]
    labels, video_index, view = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return Batch(
        clips=_join(clips, clip_shape),
        labels=labels.contiguous(),
        video_index=video_index.contiguous(),
        view=view.contiguous(),
        bad=[item for item in items if isinstance(item, BadVideo)],
        remainders=tuple(remainder for sample in samples for remainder in sample.remainders),
    )


def _join(clips: list[torch.Tensor], clip_shape: tuple[int, ...]) -> torch.Tensor | PackedClips:
    if not clips:
        return torch.empty(0, *clip_shape, dtype=torch.uint8)
    if all(clip.shape == clip_shape for clip in clips):
        return default_collate(clips)  # in a worker it writes straight into shared memory
    return PackedClips.pack(clips)


def construct_loader(cfg: CfgNode, split: str, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Build the loader of ``Batch`` objects of one process.

    In training call ``loader.sampler.set_epoch(epoch)`` before each epoch. In validation and test every
    process gets its exact share of the items, so the numbers of batches may differ between processes, and may
    be zero.

    Args:
        cfg: the configuration.
        split: ``train``, ``val`` or ``test``.
        rank: of this process.
        world_size: number of processes.

    Raises:
        FileNotFoundError: a list file does not exist.
        ValueError: a wrong value in the configuration or a list.
    """
    num_workers = cfg.DATA_LOADER.NUM_WORKERS
    for key, value, minimum in (
        ("DATA_LOADER.NUM_WORKERS", num_workers, 0),
        ("DATA_LOADER.PREFETCH_FACTOR", cfg.DATA_LOADER.PREFETCH_FACTOR, 1),
        ("TEST.BATCH_SIZE", cfg.TEST.BATCH_SIZE, 1),
    ):
        if value < minimum:
            raise ValueError(f"{key} is {value}, it must be at least {minimum}")
    dataset = build_dataset(cfg, split)
    if split == "train":
        sampler = TrainSampler(dataset.num_videos, cfg.TRAIN.BATCH_SIZE, rank, world_size, cfg.RNG_SEED)
        batch_size = cfg.TRAIN.BATCH_SIZE // world_size
        side = cfg.DATA.TRAIN_CROP_SIZE
    else:
        sampler = EvalSampler(len(dataset), rank, world_size)
        batch_size = -(-cfg.TEST.BATCH_SIZE // world_size)
        side = cfg.DATA.TEST_CROP_SIZE
    worker_options = {}
    if num_workers:
        worker_options = {
            "persistent_workers": True,
            "prefetch_factor": cfg.DATA_LOADER.PREFETCH_FACTOR,
            "timeout": STALL_TIMEOUT_SEC,
            # Forked workers share the records in memory; decoders are only opened inside the workers.
            "multiprocessing_context": "fork" if "fork" in multiprocessing.get_all_start_methods() else None,
            "worker_init_fn": _init_worker,
        }
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=functools.partial(collate, clip_shape=(3, cfg.DATA.NUM_FRAMES, side, side)),
        pin_memory=cfg.DEVICE != "cpu" and torch.cuda.is_available(),
        # Its own generator, so that loading draws nothing from the generator of the training process.
        generator=torch.Generator().manual_seed(cfg.RNG_SEED),
        **worker_options,
    )


def explained(error: RuntimeError) -> Exception:
    """Return an error that says what to do about a lost worker process; ``error`` itself if it is about something else.

    PyTorch reports the loss of a worker, or a worker that does not answer, as a RuntimeError.
    """
    if "DataLoader" not in str(error):
        return error
    return OSError(
        f"the data loader failed: {str(error).splitlines()[0].strip()} A killed worker usually means that memory ran "
        "out (see `dmesg`): use fewer DATA_LOADER.NUM_WORKERS or a smaller DATA_LOADER.PREFETCH_FACTOR. A bus error "
        "means that shared memory is full (in containers: --shm-size), a time-out that a video or the storage hangs"
    )


def _init_worker(worker_id: int) -> None:
    # Parallelism comes from the number of workers alone.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
