"""Decoded frames to the bytes of clips, in the worker: random augmentation for training, fixed crops for testing.

``on_device`` does the rest in the training process. Every random number comes from the generator that the caller
passes, so a clip is reproducible from a seed. Clips have the channels in the middle, (3, T, S, S), as models take them,
and last in memory, as images are decoded and as the models compute: nothing is transposed on the way.

Dimension letters: ``T`` frames, ``H W`` height and width of the decoded frames (px), ``S`` side of the crop (px).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from PIL import Image

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.rand_augment import RandAugment
from slowfast.datasets.augment.warp import warp_clip
from slowfast.utils.errors import UserError

CROP_TRIES = 10


class TrainTransform:
    """RandAugment, random resized crop and flip, the same for all frames.

    Args:
        size: side of the square output (px).
        area_range: smallest and largest share of the frame that the crop covers.
        aspect_range: smallest and largest width / height of the crop.
        flip_prob: probability of mirroring the clip.
        rand_augment: of the full frames, before all else; None to leave it out.
    """

    def __init__(
        self,
        size: int,
        area_range: tuple[float, float] = (0.08, 1.0),
        aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.0,
        rand_augment: RandAugment | None = None,
    ) -> None:
        self.size = size
        self.area_range = area_range
        self.aspect_range = aspect_range
        self.flip_prob = flip_prob
        self.rand_augment = rand_augment

    def __call__(self, frames: np.ndarray, rng: np.random.Generator, num_copies: int = 1) -> torch.Tensor:
        """Augment one clip, ``num_copies`` times with new draws.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3); not changed.
            rng: source of every random number.
            num_copies: number of augmented copies.

        Returns:
            uint8 of shape (num_copies, 3, T, S, S).
        """
        _check_frames(frames)
        num_frames, height, width = frames.shape[:3]
        clips = np.empty((num_copies, num_frames, self.size, self.size, 3), np.uint8)
        for clip in clips:
            operations = [] if self.rand_augment is None else self.rand_augment.draw(rng, height, width)
            box = draw_crop_box(rng, height, width, self.area_range, self.aspect_range)
            flip = bool(rng.random() < self.flip_prob)
            warp_clip(frames, operations, box, self.size, flip, out=clip)
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)  # (num_copies, 3, T, S, S)


class TestTransform:
    """Scale the short side, then take square crops along the longer side, centred along the other.

    The scaled frames are rounded to whole grey levels: bilinear ones by half a level at most, and not at all where
    nothing is scaled; the bicubic ones of ImageNet's protocol are whole by definition.

    Args:
        size: side of the square crops (px).
        num_crops: 3 (start, centre and end of the longer side) or 1 (centre).
        short_side: length to which the short side is scaled (px), at least ``size``; None for ``size``.
        interpolation: a name in ``TEST_RESIZES``.
    """

    __test__ = False  # not a test case, in spite of its name

    def __init__(
        self, size: int, num_crops: int, short_side: int | None = None, interpolation: str = "bilinear"
    ) -> None:
        self.size = size
        self.num_crops = num_crops
        self.short_side = size if short_side is None else short_side
        self.interpolation = interpolation
        assert num_crops in (1, 3) and self.short_side >= size and interpolation in TEST_RESIZES

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """Cut the crops of one clip.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3).

        Returns:
            uint8 of shape (num_crops, 3, T, S, S); crops from left to right, or from top to bottom of frames taller
            than wide.
        """
        _check_frames(frames)
        height, width = frames.shape[1:3]
        short = min(height, width)
        # Integer division: the floor of a quotient of floats can come out one too small.
        scaled = height * self.short_side // short, width * self.short_side // short
        resize = TEST_RESIZES[self.interpolation]
        clip = torch.from_numpy(np.stack([resize(frame, *scaled) for frame in frames]))
        long_axis, short_axis = (1, 2) if height > width else (2, 1)
        clip = clip.narrow(short_axis, self._centre(clip.shape[short_axis] - self.size), self.size)
        slack = clip.shape[long_axis] - self.size
        centre = self._centre(slack)
        offsets = (centre,) if self.num_crops == 1 else (0, centre, slack)
        crops = torch.stack([clip.narrow(long_axis, offset, self.size) for offset in offsets])
        return crops.permute(0, 4, 1, 2, 3)  # (num_crops, 3, T, S, S)

    def _centre(self, slack: int) -> int:
        # The protocols of video (SlowFast) and of ImageNet do not agree on the middle of an odd number of pixels.
        return round(slack / 2) if self.interpolation == "bicubic" else math.ceil(slack / 2)


def draw_crop_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area_range: tuple[float, float],
    aspect_range: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draw the box of a random resized crop (arXiv 1409.4842): area uniform, log aspect ratio uniform.

    Args:
        rng: source of every random number.
        height: of the frame (px).
        width: of the frame (px).
        area_range: share of the frame.
        aspect_range: width / height.

    Returns:
        (top, left, box height, box width) in px. If no draw fits into the frame: the largest centred box
        whose aspect ratio lies in the range.
    """
    for _ in range(CROP_TRIES):
        area = rng.uniform(*area_range) * height * width
        aspect = math.exp(rng.uniform(math.log(aspect_range[0]), math.log(aspect_range[1])))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height, endpoint=True))
            left = int(rng.integers(width - box_width, endpoint=True))
            return top, left, box_height, box_width
    aspect = min(max(width / height, aspect_range[0]), aspect_range[1])
    box_width = max(1, min(width, round(height * aspect)))
    box_height = max(1, min(height, round(width / aspect)))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resize_bilinear(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a frame (H, W, 3) bilinearly, without antialiasing, and round to whole grey levels."""
    # In floats: what OpenCV makes of bytes is off by up to a whole level, for its weights are rounded too.
    return cv2.convertScaleAbs(cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def resize_antialiased(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a frame (H, W, 3) bicubically with antialiasing, to whole grey levels: what Pillow does, by Pillow."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


# What DATA.TEST_INTERPOLATION may name.
TEST_RESIZES = {"bilinear": resize_bilinear, "bicubic": resize_antialiased}


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """Build the training transform from DATA and AUG."""
    data = cfg.DATA
    return TrainTransform(
        size=data.TRAIN_CROP_SIZE,
        area_range=tuple(data.TRAIN_JITTER_SCALES_RELATIVE),
        aspect_range=tuple(data.TRAIN_JITTER_ASPECT_RELATIVE),
        flip_prob=0.5 if data.RANDOM_FLIP else 0.0,
        rand_augment=RandAugment.from_string(cfg.AUG.AA_TYPE) if cfg.AUG.AA_TYPE else None,
    )


def build_test_transform(cfg: CfgNode, num_crops: int) -> TestTransform:
    """Build the transform of validation (``num_crops`` 1) and test (TEST.NUM_SPATIAL_CROPS) from DATA."""
    size, short_side = cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TEST_SHORT_SIDE
    if 0 < short_side < size:
        raise UserError(f"DATA.TEST_SHORT_SIDE is {short_side}; allowed: 0 | DATA.TEST_CROP_SIZE ({size}) or more px")
    return TestTransform(size, num_crops, short_side or size, cfg.DATA.TEST_INTERPOLATION)


def _check_frames(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}; allowed: uint8 of (T, H, W, 3)")
