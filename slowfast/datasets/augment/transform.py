"""Decoded frames to the bytes of clips, in the worker: random augmentation for training, fixed crops for testing.

``finish`` does the rest in the training process. Every random number comes from the generator that the caller passes,
so a clip is reproducible from a seed.

Dimension letters: `T` frames, `H W` height and width of the decoded frames (px), `S` side of the crop (px).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from PIL import Image

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.erasing import MODES, draw_erasing
from slowfast.datasets.augment.finish import AUGMENT_DEVICES, Remainder
from slowfast.datasets.augment.rand_augment import RESAMPLING, RandAugment
from slowfast.datasets.augment.region_augment import augment_region, split_planes
from slowfast.datasets.augment.warp import Box

CROP_TRIES = 10


class TrainTransform:
    """RandAugment and random resized crop, the same for all frames; flip and random erasing are drawn, for ``finish``.

    By definition the whole augmented frames are normalised before they are cropped. Cropping the bytes and
    normalising the small result comes to the same, since bilinear weights sum to one, and is cheaper. Sending the
    resized crop as bytes rounds it, by half a grey level at most.

    Args:
        size: side of the square output (px).
        area_range: smallest and largest share of the frame that the crop covers.
        aspect_range: smallest and largest width / height of the crop.
        flip_prob: probability of mirroring the clip.
        rand_augment: applied to the full frames before all else; None to leave it out.
        erase_prob: probability of random erasing.
        erase_count: number of erased boxes.
        resize: whether to resize here; otherwise crops are returned in the size they have.
    """

    def __init__(
        self,
        size: int,
        area_range: tuple[float, float] = (0.08, 1.0),
        aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.0,
        rand_augment: RandAugment | None = None,
        erase_prob: float = 0.0,
        erase_count: int = 1,
        resize: bool = True,
    ) -> None:
        self.size = size
        self.area_range = area_range
        self.aspect_range = aspect_range
        self.flip_prob = flip_prob
        self.rand_augment = rand_augment
        self.erase_prob = erase_prob
        self.erase_count = erase_count
        self.resize = resize

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, Remainder]:
        """Augment one clip.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3); not changed.
            rng: source of every random number.

        Returns:
            uint8 of shape (3, T, S, S), or without resizing (3, T, h, w) of the crop, and what is left to do.
        """
        _check_frames(frames)
        height, width = frames.shape[1:3]
        drawn = [] if self.rand_augment is None else self.rand_augment.draw(rng, height, width)
        box = Box(*draw_crop_box(rng, height, width, self.area_range, self.aspect_range))
        flip = bool(rng.random() < self.flip_prob)
        erasing = draw_erasing(rng, self.size, self.size, self.erase_prob, self.erase_count)
        crop = augment_region(self.rand_augment, frames, drawn, box) if drawn else split_planes(frames, box)
        if self.resize:
            crop = resize_bilinear(crop, self.size, self.size)
        return torch.from_numpy(np.ascontiguousarray(crop)), Remainder(flip, erasing)


class TestTransform:
    """Scale the short side, then take square crops along the longer side, centred along the other.

    The scaled frames are rounded to whole grey levels: bilinear ones by half a level at most, and not at all where
    nothing is scaled; the bicubic ones of ImageNet's protocol are whole by definition.

    Args:
        size: side of the square crops (px).
        num_crops: 3 (start, centre and end of the longer side) or 1 (centre).
        short_side: length to which the short side is scaled (px), at least ``size``; None for ``size``.
        interpolation: a name in ``TEST_RESIZES``.

    Raises:
        ValueError: another number of crops.
    """

    __test__ = False  # not a test case, in spite of its name

    def __init__(
        self, size: int, num_crops: int, short_side: int | None = None, interpolation: str = "bilinear"
    ) -> None:
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops (TEST.NUM_SPATIAL_CROPS) is {num_crops}; allowed: 1 (centre) | 3")
        self.size = size
        self.num_crops = num_crops
        self.short_side = size if short_side is None else short_side
        self.interpolation = interpolation
        assert self.short_side >= size and interpolation in TEST_RESIZES

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
        planes = split_planes(frames, Box(0, 0, height, width))
        clip = torch.from_numpy(TEST_RESIZES[self.interpolation](planes, *scaled))
        long_axis, short_axis = (2, 3) if height > width else (3, 2)
        clip = clip.narrow(short_axis, self._centre(clip.shape[short_axis] - self.size), self.size)
        slack = clip.shape[long_axis] - self.size
        centre = self._centre(slack)
        offsets = (centre,) if self.num_crops == 1 else (0, centre, slack)
        return torch.stack([clip.narrow(long_axis, offset, self.size) for offset in offsets])

    def _centre(self, slack: int) -> int:
        # The protocols of video (SlowFast) and of ImageNet do not agree on the middle of an odd number of pixels.
        return math.ceil(slack / 2) if self.interpolation == "bilinear" else round(slack / 2)


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


def resize_bilinear(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly, without antialiasing, and round to whole grey levels.

    Args:
        planes: uint8 of shape (3, T, H, W), with any strides.
        height: wanted (px).
        width: wanted (px).

    Returns:
        uint8 of shape (3, T, height, width).
    """
    resized = np.empty((*planes.shape[:2], height, width), np.uint8)
    for index in np.ndindex(planes.shape[:2]):
        # In floats: what OpenCV makes of bytes is off by up to a whole level, for its weights are rounded too.
        plane = cv2.resize(planes[index].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.convertScaleAbs(plane, resized[index])
    return resized


def resize_antialiased(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bicubically with antialiasing, to whole grey levels: what Pillow does, by Pillow.

    Arguments and result are those of ``resize_bilinear``.
    """
    resized = np.empty((*planes.shape[:2], height, width), np.uint8)
    for index in np.ndindex(planes.shape[:2]):
        resized[index] = Image.fromarray(planes[index]).resize((width, height), Image.Resampling.BICUBIC)
    return resized


# What DATA.TEST_INTERPOLATION may name.
TEST_RESIZES = {"bilinear": resize_bilinear, "bicubic": resize_antialiased}


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """Build the training transform from DATA and AUG.

    Raises:
        ValueError: a value out of its range; the message names the key.
    """
    data, aug = cfg.DATA, cfg.AUG
    _check_normalisation(cfg)
    _check("DATA.TRAIN_CROP_SIZE", data.TRAIN_CROP_SIZE, data.TRAIN_CROP_SIZE >= 1, "a positive number of px")
    area, aspect = data.TRAIN_JITTER_SCALES_RELATIVE, data.TRAIN_JITTER_ASPECT_RELATIVE
    is_area = len(area) == 2 and 0 < area[0] <= area[1] <= 1
    _check("DATA.TRAIN_JITTER_SCALES_RELATIVE", area, is_area, "[low, high] with 0 < low <= high <= 1")
    is_aspect = len(aspect) == 2 and 0 < aspect[0] <= aspect[1]
    _check("DATA.TRAIN_JITTER_ASPECT_RELATIVE", aspect, is_aspect, "[low, high] with 0 < low <= high")
    _check("AUG.INTERPOLATION", aug.INTERPOLATION, aug.INTERPOLATION in RESAMPLING, " | ".join(RESAMPLING))
    _check("AUG.RE_PROB", aug.RE_PROB, 0 <= aug.RE_PROB <= 1, "0 to 1")
    _check("AUG.RE_COUNT", aug.RE_COUNT, aug.RE_COUNT >= 1, "1 or more (AUG.RE_PROB 0 switches erasing off)")
    _check("AUG.RE_MODE", aug.RE_MODE, aug.RE_MODE in MODES, " | ".join(MODES))
    is_device = data.AUGMENT_DEVICE in AUGMENT_DEVICES
    _check("DATA.AUGMENT_DEVICE", data.AUGMENT_DEVICE, is_device, " | ".join(AUGMENT_DEVICES))
    return TrainTransform(
        size=data.TRAIN_CROP_SIZE,
        area_range=tuple(area),
        aspect_range=tuple(aspect),
        flip_prob=0.5 if data.RANDOM_FLIP else 0.0,
        rand_augment=RandAugment.from_string(aug.AA_TYPE, aug.INTERPOLATION) if aug.AA_TYPE else None,
        erase_prob=aug.RE_PROB,
        erase_count=aug.RE_COUNT,
        resize=data.AUGMENT_DEVICE == "cpu",
    )


def build_test_transform(cfg: CfgNode, num_crops: int) -> TestTransform:
    """Build the transform of validation (``num_crops`` 1) and test (TEST.NUM_SPATIAL_CROPS) from DATA.

    Raises:
        ValueError: a value out of its range; the message names the key.
    """
    data, size = cfg.DATA, cfg.DATA.TEST_CROP_SIZE
    _check_normalisation(cfg)
    _check("DATA.TEST_CROP_SIZE", size, size >= 1, "a positive number of px")
    is_long_enough = data.TEST_SHORT_SIDE == 0 or size <= data.TEST_SHORT_SIDE
    _check("DATA.TEST_SHORT_SIDE", data.TEST_SHORT_SIDE, is_long_enough, f"0 | DATA.TEST_CROP_SIZE ({size}) or more px")
    is_known = data.TEST_INTERPOLATION in TEST_RESIZES
    _check("DATA.TEST_INTERPOLATION", data.TEST_INTERPOLATION, is_known, " | ".join(TEST_RESIZES))
    return TestTransform(
        size=size, num_crops=num_crops, short_side=data.TEST_SHORT_SIDE or size, interpolation=data.TEST_INTERPOLATION
    )


def _check_normalisation(cfg: CfgNode) -> None:
    _check("DATA.MEAN", cfg.DATA.MEAN, len(cfg.DATA.MEAN) == 3, "three values, for R, G and B")
    is_std = len(cfg.DATA.STD) == 3 and min(cfg.DATA.STD) > 0
    _check("DATA.STD", cfg.DATA.STD, is_std, "three positive values, for R, G and B")


def _check(key: str, value: object, is_valid: bool, allowed: str) -> None:
    if not is_valid:
        raise ValueError(f"{key} is {value!r}; allowed: {allowed}")


def _check_frames(frames: np.ndarray) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}; allowed: uint8 of (T, H, W, 3)")
