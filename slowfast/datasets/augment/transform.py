"""Decoded frames to the bytes of clips, in the worker: random augmentation for training, fixed crops for testing.

``on_device`` does the rest in the training process. Every random number comes from the generator that the caller
passes, so a clip is reproducible from a seed. Clips have the channels in the middle, (3, T, S, S), as models take them,
and last in memory, as images are decoded and as the models compute: nothing is transposed on the way.

Dimension letters: ``T`` frames, ``H W`` height and width of the decoded frames (px), ``S`` side of the crop (px).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.rand_augment import RandAugment
from slowfast.datasets.augment.warp import Box, warp_clip
from slowfast.utils.errors import UserError

BOX_TRIES = 10
Range = tuple[float, float]


@dataclass
class TrainTransform:
    """RandAugment, random resized crop and flip, the same for all frames."""

    size: int  # side of the square output (px)
    area_range: Range = (0.08, 1.0)  # share of the frame that the crop covers
    aspect_range: Range = (3 / 4, 4 / 3)  # width / height of the crop
    flip_prob: float = 0.0
    rand_augment: RandAugment | None = None  # of the full frames, before all else

    def __call__(self, frames: Sequence[np.ndarray], rng: np.random.Generator, num_copies: int = 1) -> torch.Tensor:
        """Augment T uint8 RGB frames (H, W, 3) to ``num_copies`` clips, uint8 (num_copies, 3, T, S, S)."""
        height, width = frames[0].shape[:2]
        clips = np.empty((num_copies, len(frames), self.size, self.size, 3), np.uint8)
        for clip in clips:
            operations = [] if self.rand_augment is None else self.rand_augment.draw(rng, height, width)
            box = draw_crop_box(rng, height, width, self.area_range, self.aspect_range)
            flip = bool(rng.random() < self.flip_prob)
            warp_clip(frames, operations, box, self.size, flip, out=clip)
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)  # (num_copies, 3, T, S, S)


@dataclass
class TestTransform:
    """Scale the short side, then take square crops along the longer side, centred along the other.

    The scaled frames are rounded to whole grey levels: bilinear ones by half a level at most, and not at all where
    nothing is scaled; the bicubic ones of ImageNet's protocol are whole by definition.
    """

    __test__ = False  # not a test case, in spite of its name

    size: int  # side of the square crops (px)
    num_crops: int  # 3 (start, centre and end of the longer side) or 1 (centre)
    short_side: int = 0  # length to which the short side is scaled (px), at least ``size``; 0 for ``size``
    interpolation: str = "bilinear"  # without antialiasing; ``bicubic``, with it

    def __call__(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Cut crops of T uint8 RGB frames (H, W, 3), left to right or top to bottom: uint8 (num_crops, 3, T, S, S)."""
        height, width = frames[0].shape[:2]
        short, short_side = min(height, width), self.short_side or self.size
        # Integer division: the floor of a quotient of floats can come out one too small.
        scaled = height * short_side // short, width * short_side // short
        resize = resize_antialiased if self.interpolation == "bicubic" else resize_bilinear
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


def draw_box(rng: np.random.Generator, height: int, width: int, area_range: Range, aspect_range: Range) -> Box | None:
    """Draw a box in a frame (px): area (share of the frame) and log width / height uniform; None if no draw fits."""
    for _ in range(BOX_TRIES):
        area = rng.uniform(*area_range) * height * width
        aspect = math.exp(rng.uniform(math.log(aspect_range[0]), math.log(aspect_range[1])))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height, endpoint=True))
            left = int(rng.integers(width - box_width, endpoint=True))
            return top, left, box_height, box_width
    return None


def draw_crop_box(rng: np.random.Generator, height: int, width: int, area_range: Range, aspect_range: Range) -> Box:
    """Draw the box of a random resized crop (arXiv 1409.4842); if none fits, the largest centred one."""
    if box := draw_box(rng, height, width, area_range, aspect_range):
        return box
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


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """Build the training transform from DATA and AUG."""
    data = cfg.DATA
    augment = RandAugment.from_string(cfg.AUG.AA_TYPE) if cfg.AUG.AA_TYPE else None
    ranges = tuple(data.TRAIN_JITTER_SCALES_RELATIVE), tuple(data.TRAIN_JITTER_ASPECT_RELATIVE)
    return TrainTransform(data.TRAIN_CROP_SIZE, *ranges, 0.5 if data.RANDOM_FLIP else 0.0, augment)


def build_test_transform(cfg: CfgNode, num_crops: int) -> TestTransform:
    """Build the transform of validation (``num_crops`` 1) and test (TEST.NUM_SPATIAL_CROPS) from DATA."""
    size, short_side = cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TEST_SHORT_SIDE
    if 0 < short_side < size:
        raise UserError(f"DATA.TEST_SHORT_SIDE is {short_side}; allowed: 0 | DATA.TEST_CROP_SIZE ({size}) or more px")
    return TestTransform(size, num_crops, short_side, cfg.DATA.TEST_INTERPOLATION)
