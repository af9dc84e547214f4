"""Records to samples: choose frames, decode them once, transform them.

Dimension letters: ``A`` clips made of one decoded video (augmented copies in training, crops in testing), ``T``
frames, ``H W`` height and width of the decoded frames (px), ``S`` side of the crop (px).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from slowfast.datasets.augment.transform import TestTransform, TrainTransform
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.manifest import Record, label_array
from slowfast.datasets.sampling import DenseSampler, SparseSampler, perturbed


@dataclass(frozen=True)
class Sample:
    """The clips of one item."""

    clips: torch.Tensor  # uint8 (A, 3, T, S, S), channels last in memory
    label: np.ndarray  # a number, or for several labels 0 and 1 (K,)
    video_index: int  # position of the video in the list
    views: tuple[int, ...]  # A numbers: in testing the view of each clip, in training that of the augmented copy


@dataclass(frozen=True)
class BadVideo:
    """Report in the place of a sample whose video, ``path``, cannot be decoded for a ``reason``."""

    video_index: int
    path: str
    reason: str


class VideoDataset(Dataset):
    """The videos of one split of a ``source`` (see ``build.DATASET_REGISTRY``); subclasses say what an item is."""

    num_views = 1  # of a video over all its items

    def __init__(
        self,
        source: Any,
        sampler: SparseSampler | DenseSampler,
        transform: TrainTransform | TestTransform,
        num_classes: int = 0,
    ) -> None:
        self.open: Callable[[Record], FrameReader] = source.open
        self.find_missing: Callable[[list[Record]], list[str]] | None = getattr(source, "find_missing", None)
        self.at_epoch: Callable[[Record, int], Record] | None = getattr(source, "at_epoch", None)
        self.sampler = sampler
        self.transform = transform
        self.records = source.records
        self.class_names = source.class_names
        self.num_videos = len(source.records)
        self.labels = label_array(source.records, num_classes)  # (num_videos,), of several labels (num_videos, K)

    def decode(
        self, video_index: int, choose: Callable[[int], np.ndarray], epoch: int | None = None
    ) -> list[np.ndarray] | BadVideo:
        """Decode the T frames (H, W, 3) that ``choose(number of frames)`` names, in an epoch of the training."""
        record = self.records[video_index]
        if self.at_epoch and epoch is not None:
            record = self.at_epoch(record, epoch)
        try:
            with self.open(record) as reader:
                return reader.read_each(choose(reader.num_frames))
        except DecodeError as error:
            place = f" ({record.origin})" if record.origin else ""
            return BadVideo(video_index, error.path, f"{error.reason}{place}")

    def make_item(
        self, video_index: int, part: int, choose: Callable[[int], np.ndarray], *draws: Any, epoch: int | None = None
    ) -> Sample | BadVideo:
        """Decode frames and make A clips, whose views start at ``part * A``."""
        frames = self.decode(video_index, choose, epoch)
        if isinstance(frames, BadVideo):
            return frames
        clips = self.transform(frames, *draws)  # (A, 3, T, S, S)
        views = range(part * len(clips), (part + 1) * len(clips))
        return Sample(clips, self.labels[video_index], video_index, tuple(views))


class TrainVideos(VideoDataset):
    """Randomly augmented clips; the key of an item is ``(epoch, video index)`` or ``(epoch, video index, copy)``.

    Every draw of an item comes from a generator seeded by the seed and the key, so that a sample does not depend on
    the process or worker that makes it, nor on what was made before. ``copy`` counts the times that a video is drawn
    in one epoch; copy 0 is the item without a number. Every item holds ``num_copies`` (A) augmented copies of the same
    decoded frames (repeated augmentation, arXiv 1901.09335).
    """

    def __init__(self, *args: Any, num_copies: int = 1, seed: int = 0) -> None:
        super().__init__(*args)
        self.num_copies = num_copies
        self.seed = seed

    def __len__(self) -> int:
        return self.num_videos

    def generator(self, epoch: int, video_index: int, copy: int = 0) -> np.random.Generator:
        """Return the source of all draws of an item."""
        return np.random.default_rng([self.seed, epoch, video_index, *([copy] if copy else [])])

    def __getitem__(self, key: tuple[int, ...]) -> Sample | BadVideo:
        epoch, video_index, copy = (*key, 0)[:3]
        rng = self.generator(epoch, video_index, copy)
        choose = functools.partial(self.sampler.train, rng=rng)
        return self.make_item(video_index, copy, choose, rng, self.num_copies, epoch=epoch)


class EvalVideos(VideoDataset):
    """Deterministic views; item ``video * num_clips + clip`` holds all crops of one temporal clip.

    View ``clip * num_crops + crop`` of a video is crop ``crop`` of temporal clip ``clip``. ``perturb`` is an order of
    its frames, one of ``sampling.PERTURBATIONS``, or "".
    """

    perturb = ""

    def __init__(self, *args: Any, num_clips: int = 1) -> None:
        super().__init__(*args)
        self.num_clips = num_clips
        self.num_views = num_clips * self.transform.num_crops

    def __len__(self) -> int:
        return self.num_videos * self.num_clips

    def __getitem__(self, index: int) -> Sample | BadVideo:
        video_index, clip = divmod(index, self.num_clips)

        def choose(num_frames: int) -> np.ndarray:
            frames = self.sampler.test(num_frames, clip, self.num_clips)
            return perturbed(frames, self.perturb, video_index) if self.perturb else frames

        return self.make_item(video_index, clip, choose)
