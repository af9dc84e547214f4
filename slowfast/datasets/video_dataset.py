"""Records to samples: choose frames, decode them once, transform them.

Dimension letters: `A` clips made of one decoded video (augmented copies in training, crops in testing), `T`
frames, `H W` height and width of the decoded frames (px), `S` side of the crop (px).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from slowfast.datasets.augment.finish import Remainder
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.manifest import Record
from slowfast.datasets.sampling import FrameSampler


@dataclass(frozen=True)
class Sample:
    """The clips of one item.

    Attributes:
        clips: A clips, uint8 of shape (A, 3, T, S, S), or of (3, T, h, w) each where their sizes differ.
        label: class index.
        video_index: position of the video in the list.
        views: A numbers; in testing the view of each clip, in training that of the augmented copy.
        remainders: in training what is left to do to each clip, see ``finish``; in testing none.
    """

    clips: torch.Tensor | tuple[torch.Tensor, ...]
    label: int
    video_index: int
    views: tuple[int, ...]
    remainders: tuple[Remainder, ...] = ()


@dataclass(frozen=True)
class BadVideo:
    """What stands in the place of a sample whose video cannot be decoded.

    Attributes:
        video_index: position of the video in the list.
        path: the file or folder.
        reason: what is wrong with it.
    """

    video_index: int
    path: str
    reason: str


class VideoDataset(Dataset):
    """The videos of one list; subclasses say what an item is.

    Args:
        records: the videos.
        sampler: which frames make a clip.
        open_reader: opens the frames of a record.
        class_names: in label order, or None.

    Attributes:
        num_videos: number of videos.
        num_views: views of a video over all its items.
        labels: int64 of shape (num_videos,).
    """

    num_views = 1

    def __init__(
        self,
        records: Sequence[Record],
        sampler: FrameSampler,
        open_reader: Callable[[Record], FrameReader],
        class_names: list[str] | None = None,
    ) -> None:
        self.records = records
        self.sampler = sampler
        self.open_reader = open_reader
        self.class_names = class_names
        self.labels = np.array([record.label for record in records], dtype=np.int64)

    def open(self, record: Record) -> FrameReader:
        """Open the frames of a record."""
        return self.open_reader(record)

    @property
    def num_videos(self) -> int:
        return len(self.records)

    def _decode(self, video_index: int, choose: Callable[[int], np.ndarray]) -> np.ndarray | BadVideo:
        """Return the frames (T, H, W, 3) that ``choose(number of frames)`` names."""
        record = self.records[video_index]
        try:
            with self.open_reader(record) as reader:
                return reader.read(choose(reader.num_frames))
        except DecodeError as error:
            return BadVideo(video_index, error.path, f"{error.reason} ({record.origin})")


class TrainVideos(VideoDataset):
    """Randomly augmented clips; the key of an item is ``(epoch, video index)``.

    Every draw of an item comes from a generator seeded by (seed, epoch, video index), so that a sample does
    not depend on the process or worker that makes it, nor on what was made before.

    Args:
        records: see ``VideoDataset``.
        sampler: see ``VideoDataset``.
        open_reader: see ``VideoDataset``.
        transform: (T, H, W, 3) uint8 and a generator -> a clip of bytes and what is left to do to it.
        num_copies: A, augmented copies of the same decoded frames (repeated augmentation, arXiv 1901.09335).
        seed: of all draws.
        class_names: see ``VideoDataset``.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sampler: FrameSampler,
        open_reader: Callable[[Record], FrameReader],
        transform: Callable[[np.ndarray, np.random.Generator], tuple[torch.Tensor, Remainder]],
        num_copies: int = 1,
        seed: int = 0,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__(records, sampler, open_reader, class_names)
        self.transform = transform
        self.num_copies = num_copies
        self.seed = seed

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, key: tuple[int, int]) -> Sample | BadVideo:
        epoch, video_index = key
        rng = self.generator(epoch, video_index)
        frames = self._decode(video_index, lambda num_frames: self.sampler.train(num_frames, rng))
        if isinstance(frames, BadVideo):
            return frames
        return self.augment(frames, video_index, rng)

    def generator(self, epoch: int, video_index: int) -> np.random.Generator:
        """Return the source of all draws of an item."""
        return np.random.default_rng([self.seed, epoch, video_index])

    def augment(self, frames: np.ndarray, video_index: int, rng: np.random.Generator) -> Sample:
        """Make the augmented copies of a decoded video, frames of shape (T, H, W, 3)."""
        clips, remainders = zip(*[self.transform(frames, rng) for _ in range(self.num_copies)], strict=True)
        if len({clip.shape for clip in clips}) == 1:
            clips = torch.stack(clips)
        views = tuple(range(self.num_copies))
        return Sample(clips, self.records[video_index].label, video_index, views, remainders)


class EvalVideos(VideoDataset):
    """Deterministic views; item ``video * num_clips + clip`` holds all crops of one temporal clip.

    View ``clip * num_crops + crop`` of a video is crop ``crop`` of temporal clip ``clip``.

    Args:
        records: see ``VideoDataset``.
        sampler: see ``VideoDataset``.
        open_reader: see ``VideoDataset``.
        transform: (T, H, W, 3) uint8 -> (num_crops, 3, T, S, S) uint8.
        num_clips: temporal clips of a video.
        num_crops: spatial crops of a clip.
        class_names: see ``VideoDataset``.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sampler: FrameSampler,
        open_reader: Callable[[Record], FrameReader],
        transform: Callable[[np.ndarray], torch.Tensor],
        num_clips: int = 1,
        num_crops: int = 1,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__(records, sampler, open_reader, class_names)
        self.transform = transform
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.num_views = num_clips * num_crops

    def __len__(self) -> int:
        return self.num_videos * self.num_clips

    def __getitem__(self, index: int) -> Sample | BadVideo:
        video_index, clip = divmod(index, self.num_clips)
        frames = self._decode(video_index, lambda num_frames: self.sampler.test(num_frames, clip, self.num_clips))
        if isinstance(frames, BadVideo):
            return frames
        clips = self.transform(frames)  # (num_crops, 3, T, S, S)
        views = tuple(range(clip * self.num_crops, (clip + 1) * self.num_crops))
        assert len(clips) == self.num_crops
        return Sample(clips, self.records[video_index].label, video_index, views)
