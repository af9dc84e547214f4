"""Records to samples: choose frames, decode them once, transform them.

Dimension letters: ``A`` clips made of one decoded video (augmented copies in training, crops in testing), ``T``
frames, ``H W`` height and width of the decoded frames (px), ``S`` side of the crop (px).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.transform import (
    TestTransform,
    TrainTransform,
    build_test_transform,
    build_train_transform,
)
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.manifest import Record, exclude_records, read_exclusion
from slowfast.datasets.sampling import DenseSampler, SparseSampler, build_sampler
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """The clips of one item.

    Attributes:
        clips: uint8 of shape (A, 3, T, S, S), channels last in memory.
        label: class index.
        video_index: position of the video in the list.
        views: A numbers; in testing the view of each clip, in training that of the augmented copy.
    """

    clips: torch.Tensor
    label: int
    video_index: int
    views: tuple[int, ...]


@dataclass(frozen=True)
class BadVideo:
    """Report in the place of a sample whose video, ``path``, cannot be decoded for a ``reason``."""

    video_index: int
    path: str
    reason: str


def exclude_videos(source: Any, path: str, split: str) -> None:
    """Remove from a source the videos that an exclusion list names ("" for none); the log says how many."""
    if not path:
        return
    num_videos, entries = len(source.records), read_exclusion(path)
    source.records, others = exclude_records(source.records, entries)
    num_excluded = num_videos - len(source.records)
    message = "%s: leaves out %d of %d %s videos (%d of its %d paths name none of these)"
    logger.info(message, path, num_excluded, num_videos, split, len(others), len(entries))
    if not source.records:
        raise UserError(f"{path} (DATA.EXCLUDE_FILE) names all {num_videos} videos of {split}: none is left")


class VideoDataset(Dataset):
    """The videos of one split; subclasses say what an item is.

    Args:
        source: object of a class in ``build.DATASET_REGISTRY``, with ``records``, ``class_names`` and ``open``.
        sampler: frames that make a clip.
        transform: frames to clips.

    Attributes:
        num_videos: number of videos.
        num_views: views of a video over all its items.
        labels: int64 of shape (num_videos,).
    """

    num_views = 1

    def __init__(
        self, source: Any, sampler: SparseSampler | DenseSampler, transform: TrainTransform | TestTransform
    ) -> None:
        self.source = source
        self.sampler = sampler
        self.transform = transform
        self.records = source.records
        self.class_names = source.class_names
        self.num_videos = len(source.records)
        self.labels = np.array([record.label for record in source.records], dtype=np.int64)

    def open(self, record: Record) -> FrameReader:
        """Open the frames of a record."""
        return self.source.open(record)

    def decode(self, video_index: int, choose: Callable[[int], np.ndarray]) -> np.ndarray | BadVideo:
        """Decode the frames (T, H, W, 3) that ``choose(number of frames)`` names."""
        record = self.records[video_index]
        try:
            with self.open(record) as reader:
                return reader.read(choose(reader.num_frames))
        except DecodeError as error:
            return BadVideo(video_index, error.path, f"{error.reason} ({record.origin})")


class TrainVideos(VideoDataset):
    """Randomly augmented clips; the key of an item is ``(epoch, video index)`` or ``(epoch, video index, copy)``.

    Every draw of an item comes from a generator seeded by the seed and the key, so that a sample does not depend on
    the process or worker that makes it, nor on what was made before. ``copy`` counts the times that a video is drawn
    in one epoch; copy 0 is the item without a number.

    Every item holds ``num_copies`` (A) augmented copies of the same decoded frames (repeated augmentation, arXiv
    1901.09335).
    """

    def __init__(self, *args: Any, num_copies: int = 1, seed: int = 0) -> None:
        super().__init__(*args)
        self.num_copies = num_copies
        self.seed = seed

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str, source: Any) -> TrainVideos:
        """Build the videos of a training split."""
        exclude_videos(source, cfg.DATA.EXCLUDE_FILE, split)
        parts = (source, build_sampler(cfg), build_train_transform(cfg))
        return cls(*parts, num_copies=cfg.AUG.NUM_SAMPLE, seed=cfg.RNG_SEED)

    def __len__(self) -> int:
        return self.num_videos

    def generator(self, epoch: int, video_index: int, copy: int = 0) -> np.random.Generator:
        """Return the source of all draws of an item."""
        return np.random.default_rng([self.seed, epoch, video_index, *([copy] if copy else [])])

    def __getitem__(self, key: tuple[int, ...]) -> Sample | BadVideo:
        epoch, video_index, copy = (*key, 0)[:3]
        rng = self.generator(epoch, video_index, copy)
        frames = self.decode(video_index, lambda num_frames: self.sampler.train(num_frames, rng))
        if isinstance(frames, BadVideo):
            return frames
        clips = self.transform(frames, rng, self.num_copies)  # (A, 3, T, S, S)
        views = tuple(range(copy * self.num_copies, (copy + 1) * self.num_copies))
        return Sample(clips, self.records[video_index].label, video_index, views)


class EvalVideos(VideoDataset):
    """Deterministic views; item ``video * num_clips + clip`` holds all crops of one temporal clip.

    View ``clip * num_crops + crop`` of a video is crop ``crop`` of temporal clip ``clip``.
    """

    def __init__(self, *args: Any, num_clips: int = 1) -> None:
        super().__init__(*args)
        self.num_clips = num_clips
        self.num_views = num_clips * self.transform.num_crops

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str, source: Any) -> EvalVideos:
        """Build the views of ``val``, the central one, or ``test``."""
        exclude_videos(source, cfg.DATA.EXCLUDE_FILE, split)
        num_clips, num_crops = 1, 1
        if split == "test":
            num_clips, num_crops = cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
        return cls(source, build_sampler(cfg), build_test_transform(cfg, num_crops), num_clips=num_clips)

    def __len__(self) -> int:
        return self.num_videos * self.num_clips

    def __getitem__(self, index: int) -> Sample | BadVideo:
        video_index, clip = divmod(index, self.num_clips)
        frames = self.decode(video_index, lambda num_frames: self.sampler.test(num_frames, clip, self.num_clips))
        if isinstance(frames, BadVideo):
            return frames
        clips = self.transform(frames)  # (A, 3, T, S, S)
        views = tuple(range(clip * len(clips), (clip + 1) * len(clips)))
        return Sample(clips, self.records[video_index].label, video_index, views)
