"""The last part of a transform: from the bytes that workers send to normalised clips, on the training device.

Workers send bytes, a quarter of the size of floats, and with each clip of training what is left to do to it. Here come
the conversion to float, the flip, the normalisation and the erasing; and with ``DATA.AUGMENT_DEVICE device`` the resize
of the crops, which then have different sizes.

Dimension letters: `B` clips of a batch, `T` frames, `h w` height and width of a crop (px), `S` side of the output (px).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.erasing import Erasing, erase_

AUGMENT_DEVICES = ("cpu", "device")


@dataclass(frozen=True)
class Remainder:
    """What is left to do to one clip of training, drawn where all else was drawn.

    Attributes:
        flip: mirror it.
        erasing: what to erase after normalisation.
    """

    flip: bool
    erasing: Erasing


@dataclass(frozen=True)
class PackedClips:
    """Clips of different sizes in one tensor: one transfer to the device, one block of shared memory between processes.

    Attributes:
        data: uint8 of one dimension, all values of the first clip, then all of the second, ...
        shapes: (3, T, h, w) of each clip.
    """

    data: torch.Tensor
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def pack(cls, clips: Sequence[torch.Tensor]) -> PackedClips:
        """Return the clips, uint8 (3, T, h, w) each, as one."""
        return cls(torch.cat([clip.flatten() for clip in clips]), tuple(tuple(clip.shape) for clip in clips))

    def unpack(self) -> list[torch.Tensor]:
        """Return the clips, as views of the data."""
        parts = self.data.split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> PackedClips:
        """Return the same clips in ``function(data)``, such as a copy on another device."""
        return PackedClips(function(self.data), self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Finish:
    """Bytes to the float clips that models take.

    Args:
        size: side of the square output (px).
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].
        erase_mode: ``pixel`` (noise) or ``const`` (zero).
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], erase_mode: str = "pixel") -> None:
        self.size = size
        self.mean = mean
        self.std = std
        self.erase_mode = erase_mode

    def __call__(self, clips: torch.Tensor | PackedClips, remainders: Sequence[Remainder] = ()) -> torch.Tensor:
        """Finish the clips of a batch, on the device where they are.

        Args:
            clips: uint8 of shape (B, 3, T, S, S), or crops of any sizes.
            remainders: one for each clip; none in evaluation.

        Returns:
            float32 of shape (B, 3, T, S, S), normalised.
        """
        if isinstance(clips, PackedClips):
            shape = (len(clips), *clips.shapes[0][:2], self.size, self.size)
            finished = _empty(shape, clips.data.device)
            for clip, crop in zip(finished, clips.unpack(), strict=True):
                clip.copy_(resize(crop, self.size, self.size))
        else:
            finished = _empty(clips.shape, clips.device).copy_(clips)
        normalize_(finished, self.mean, self.std)
        for clip, remainder in zip(finished, remainders, strict=bool(remainders)):
            if remainder.flip:
                clip.copy_(clip.flip(-1))
            erase_(clip, remainder.erasing, self.erase_mode)
        return finished


def _empty(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return float32 memory. On the CPU it is NumPy's, which asks the system for large pages where torch does not: the
    first touch of a batch in small pages takes longer than all that is computed here."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), np.float32))
    return torch.empty(tuple(shape), device=device)


def resize(clip: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize a clip bilinearly, without antialiasing: (3, T, h, w) -> float32 (3, T, height, width)."""
    return F.interpolate(clip.float(), size=(height, width), mode="bilinear", align_corners=False)


def normalize_(clips: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalise clips in place: (clips / 255 - mean) / std.

    Args:
        clips: float32 of shape (B, 3, T, H, W), values 0 to 255.
        mean: per channel, of RGB in [0, 1].
        std: per channel, of RGB in [0, 1].
    """
    offset, scale = (255 * torch.tensor(values, device=clips.device).view(-1, 1, 1, 1) for values in (mean, std))
    return clips.sub_(offset).div_(scale)


def build_finish(cfg: CfgNode, split: str) -> Finish:
    """Build what turns the batches of a split into clips.

    Args:
        cfg: the configuration.
        split: ``train``, ``val`` or ``test``.
    """
    size = cfg.DATA.TRAIN_CROP_SIZE if split == "train" else cfg.DATA.TEST_CROP_SIZE
    return Finish(size, cfg.DATA.MEAN, cfg.DATA.STD, cfg.AUG.RE_MODE)
