"""Bytes to the clips that models take, on the device where they compute: normalise, erase, mix.

Workers send bytes, a quarter of the size of floats. Every random number comes from the generator of the step, so that
a step can be repeated; nothing here makes the host wait for the device.

Dimension letters: ``B`` clips of a batch, ``T`` frames, ``H W`` height and width (px), ``K`` classes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.mixup import Mixup, build_mixup
from slowfast.datasets.augment.transform import draw_box

ERASE_AREA = (0.02, 1 / 3)  # share of the frame, over all boxes
ERASE_ASPECT = (0.3, 1 / 0.3)  # width / height


class Normalize:
    """Bytes to floats: (clips / 255 - mean) / std, both per channel, of RGB in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        # Kept on the last device seen: a copy for every batch would make the host wait.
        self._offset_and_scale = 255 * torch.tensor([mean, std], dtype=torch.float32)
        self._memory = np.empty(0, np.float32)

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 (B, 3, T, H, W) to float32, channels last in memory."""
        self._offset_and_scale = self._offset_and_scale.to(clips.device)
        num_clips, channels, num_frames, height, width = clips.shape
        shape = (num_clips, num_frames, height, width, channels)
        floats = self._empty(shape, clips.device)
        floats.copy_(clips.permute(0, 2, 3, 4, 1))
        # Whole rows of R, G, B, R, ...: an innermost axis of three would be slow.
        rows = floats.view(num_clips, num_frames, height, width * channels)
        offset, scale = self._offset_and_scale.repeat(1, width)
        rows.sub_(offset).div_(scale)
        return floats.permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)

    def _empty(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Return float32 memory, on the CPU that of the last batch if nothing refers to it any more."""
        if device.type != "cpu":
            return torch.empty(shape, device=device)
        # The first touch of fresh memory takes longer than all that is computed here; NumPy asks for large pages.
        if self._memory.shape != shape or sys.getrefcount(self._memory) > 2:
            self._memory = np.empty(shape, np.float32)
        return torch.from_numpy(self._memory)


@dataclass
class RandomErasing:
    """Random erasing (arXiv 1708.04896) of normalised clips: the same boxes for all frames of a clip."""

    prob: float  # of erasing anything from a clip
    count: int = 1  # boxes, which share the erased area
    mode: str = "pixel"  # unit normal noise drawn for each frame, pixel and channel; ``const``, zero

    def __call__(self, clips: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Erase from float32 clips (B, 3, T, H, W) in place, and return them."""
        generator = torch.Generator(clips.device).manual_seed(int(rng.integers(2**63)))
        area_range = tuple(share / self.count for share in ERASE_AREA)
        for clip in clips.permute(0, 2, 3, 4, 1):  # (T, H, W, 3)
            num_boxes = self.count if rng.random() < self.prob else 0
            for _ in range(num_boxes):
                if box := draw_box(rng, *clip.shape[1:3], area_range, ERASE_ASPECT):
                    top, left, height, width = box
                    region = clip[:, top : top + height, left : left + width]
                    if self.mode == "const":
                        region.zero_()
                    else:
                        region.copy_(torch.randn(region.shape, generator=generator, device=clips.device))
        return clips


@dataclass
class TrainBatchTransform:
    """Normalisation, random erasing, mixing and label smoothing of a training batch."""

    normalize: Normalize
    erasing: RandomErasing
    mixup: Mixup

    def __call__(
        self, clips: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn uint8 clips (B, 3, T, H, W), B may be 0, and labels (B,) into float32 clips and targets (B, K)."""
        return self.mixup(self.erasing(self.normalize(clips), rng), labels, rng)


def build_normalize(cfg: CfgNode) -> Normalize:
    """Build the transform of validation and test batches from DATA."""
    return Normalize(cfg.DATA.MEAN, cfg.DATA.STD)


def build_train_batch_transform(cfg: CfgNode) -> TrainBatchTransform:
    """Build the transform of training batches from DATA, AUG and MIXUP."""
    erasing = RandomErasing(cfg.AUG.RE_PROB, cfg.AUG.RE_COUNT, cfg.AUG.RE_MODE)
    return TrainBatchTransform(build_normalize(cfg), erasing, build_mixup(cfg))
