"""Decoded frames to model input: random augmentation for training, fixed crops for testing.

Every random number comes from the generator that the caller passes, so a clip is reproducible from a seed.

Dimension letters: `T` frames, `H W` height and width of the decoded frames (px), `S` side of the crop (px).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from slowfast.config.parser import CfgNode
from slowfast.datasets.erasing import MODES, random_erasing
from slowfast.datasets.rand_augment import RESAMPLING, RandAugment

CROP_TRIES = 10


class TrainTransform:
    """RandAugment, random resized crop, horizontal flip and random erasing, the same for all frames.

    By definition the whole augmented frames are normalised before they are cropped. Cropping the bytes and
    normalising the small result comes to the same, since bilinear weights sum to one, and is cheaper.

    Args:
        size: side of the square output (px).
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].
        area_range: smallest and largest share of the frame that the crop covers.
        aspect_range: smallest and largest width / height of the crop.
        flip_prob: probability of mirroring the clip.
        rand_augment: applied to the full frames before all else; None to leave it out.
        erase_prob: probability of random erasing.
        erase_count: number of erased boxes.
        erase_mode: ``pixel`` (noise) or ``const`` (zero).
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        area_range: tuple[float, float] = (0.08, 1.0),
        aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.0,
        rand_augment: RandAugment | None = None,
        erase_prob: float = 0.0,
        erase_count: int = 1,
        erase_mode: str = "pixel",
    ) -> None:
        self.size = size
        self.mean = mean
        self.std = std
        self.area_range = area_range
        self.aspect_range = aspect_range
        self.flip_prob = flip_prob
        self.rand_augment = rand_augment
        self.erase_prob = erase_prob
        self.erase_count = erase_count
        self.erase_mode = erase_mode

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Augment one clip.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3); not changed.
            rng: source of every random number.

        Returns:
            float32 of shape (3, T, S, S), normalised.
        """
        _check_frames(frames)
        if self.rand_augment is not None:
            frames = self.rand_augment(frames, rng)
        top, left, height, width = draw_crop_box(rng, *frames.shape[1:3], self.area_range, self.aspect_range)
        clip = resize(frames[:, top : top + height, left : left + width], self.size, self.size)
        clip = normalize_(clip, self.mean, self.std)
        if rng.random() < self.flip_prob:
            clip = clip.flip(-1)
        return random_erasing(clip, rng, self.erase_prob, self.erase_count, self.erase_mode)


class TestTransform:
    """Scale the short side to the crop's side, then take square crops along the longer side.

    Args:
        size: side of the square crops (px).
        num_crops: 3 (start, centre and end of the longer side) or 1 (centre).
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].

    Raises:
        ValueError: another number of crops.
    """

    __test__ = False  # not a test case, in spite of its name

    def __init__(self, size: int, num_crops: int, mean: Sequence[float], std: Sequence[float]) -> None:
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops (TEST.NUM_SPATIAL_CROPS) is {num_crops}; allowed: 1 (centre) | 3")
        self.size = size
        self.num_crops = num_crops
        self.mean = mean
        self.std = std

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """Cut the crops of one clip.

        Args:
            frames: uint8 RGB of shape (T, H, W, 3).

        Returns:
            float32 of shape (num_crops, 3, T, S, S), normalised; crops from left to right, or from top to
            bottom of frames taller than wide.
        """
        _check_frames(frames)
        height, width = frames.shape[1:3]
        short = min(height, width)
        # Integer division: the floor of a quotient of floats can come out one too small.
        clip = resize(frames, height * self.size // short, width * self.size // short)
        clip = normalize_(clip, self.mean, self.std)
        axis = 2 if height > width else 3
        slack = clip.shape[axis] - self.size
        centre = math.ceil(slack / 2)
        offsets = (centre,) if self.num_crops == 1 else (0, centre, slack)
        return torch.stack([clip.narrow(axis, offset, self.size) for offset in offsets])


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


def resize(frames: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Resize frames bilinearly, without antialiasing.

    Args:
        frames: uint8 of shape (T, H, W, 3), with any strides.
        height: wanted (px).
        width: wanted (px).

    Returns:
        float32 of shape (3, T, height, width), values still 0 to 255.
    """
    clip = torch.empty(3, len(frames), height, width)
    for t, frame in enumerate(frames):  # one at a time, so that only one frame is held as floats at full size
        # Rearranged as bytes: a quarter of the traffic of rearranging floats.
        planes = torch.from_numpy(np.array(frame.transpose(2, 0, 1), order="C")).float()
        resized = F.interpolate(planes[:, None], size=(height, width), mode="bilinear", align_corners=False)
        clip[:, t] = resized[:, 0]
    return clip


def normalize_(clip: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise a clip in place: (clip / 255 - mean) / std.

    Args:
        clip: float32 of shape (3, T, H, W), values 0 to 255.
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].
    """
    offset, scale = (255 * torch.tensor(values).view(-1, 1, 1, 1) for values in (mean, std))
    return clip.sub_(offset).div_(scale)


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
    return TrainTransform(
        size=data.TRAIN_CROP_SIZE,
        mean=data.MEAN,
        std=data.STD,
        area_range=tuple(area),
        aspect_range=tuple(aspect),
        flip_prob=0.5 if data.RANDOM_FLIP else 0.0,
        rand_augment=RandAugment.from_string(aug.AA_TYPE, aug.INTERPOLATION) if aug.AA_TYPE else None,
        erase_prob=aug.RE_PROB,
        erase_count=aug.RE_COUNT,
        erase_mode=aug.RE_MODE,
    )


def build_test_transform(cfg: CfgNode, num_crops: int) -> TestTransform:
    """Build the transform of validation (``num_crops`` 1) and test (TEST.NUM_SPATIAL_CROPS) from DATA.

    Raises:
        ValueError: a value out of its range; the message names the key.
    """
    size = cfg.DATA.TEST_CROP_SIZE
    _check_normalisation(cfg)
    _check("DATA.TEST_CROP_SIZE", size, size >= 1, "a positive number of px")
    return TestTransform(size=size, num_crops=num_crops, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)


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
