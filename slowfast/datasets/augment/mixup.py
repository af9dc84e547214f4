"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch of clips and labels, label smoothing.

Dimension letters: ``B`` clips, ``T`` frames, ``H W`` height and width (px), ``K`` classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.parser import CfgNode
from slowfast.utils.errors import UserError


@dataclass
class Mixup:
    """Mix every clip of a batch, and its target, with a partner: clip i with clip B-1-i, one share for all.

    In a batch that holds two copies of each video side by side, partners are different videos, but for the
    middle one of an odd number of videos.
    """

    alpha: float  # of the Beta(alpha, alpha) distribution of mixup's share; 0 switches mixup off
    cutmix_alpha: float  # the same for CutMix
    prob: float  # of mixing a batch
    switch_prob: float  # of CutMix, where both are on
    label_smoothing: float  # weight of the uniform distribution in the targets, also where nothing is mixed
    num_classes: int  # K

    def __call__(
        self, clips: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix float clips (B, 3, T, H, W), which stay as they are, and labels of the same device.

        Labels are integers (B,), or 0 and 1 (B, K) where videos have several.

        Returns:
            The mixed clips (``clips`` itself if nothing was mixed) and float32 targets of shape (B, K), rows
            summing to one for one label per clip.
        """
        targets = smooth_labels(labels, self.num_classes, self.label_smoothing)
        if rng.random() >= self.prob:
            return clips, targets
        use_cutmix = self.cutmix_alpha > 0 and (self.alpha == 0 or rng.random() < self.switch_prob)
        alpha = self.cutmix_alpha if use_cutmix else self.alpha
        share = float(rng.beta(alpha, alpha))
        if use_cutmix:
            top, bottom, left, right = draw_cutmix_box(rng, share, *clips.shape[-2:])
            mixed = clips.clone()
            mixed[..., top:bottom, left:right] = clips[..., top:bottom, left:right].flip(0)
            share = 1 - (bottom - top) * (right - left) / math.prod(clips.shape[-2:])
        else:
            mixed = clips.flip(0).lerp_(clips, share)  # the flipped copy is the only one made
        return mixed, targets.flip(0).lerp_(targets, share)


def draw_cutmix_box(rng: np.random.Generator, share: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Draw the box that CutMix pastes: sides sqrt(1 - share) of the frame's, uniform centre, clipped.

    Returns:
        (top, bottom, left, right) in px, bottom and right exclusive; the box can be empty.
    """
    ratio = math.sqrt(1 - share)
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    centre_y, centre_x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(centre_y - half_height, 0), min(centre_y + half_height, height)
    left, right = max(centre_x - half_width, 0), min(centre_x + half_width, width)
    return top, bottom, left, right


def smooth_labels(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """Label smoothing (arXiv 1512.00567) s of labels (B,): float32 (B, K), 1 - s + s/K for the label, s/K elsewhere.

    Several labels, 0 and 1 (B, K), are K questions of two answers each: 1 - s/2 for those of a clip, s/2 elsewhere.
    """
    if labels.dim() == 2:
        return labels.float() * (1 - smoothing) + smoothing / 2
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, dtype=torch.float32, device=labels.device)
    return targets.scatter_(1, labels.long().unsqueeze(1), 1 - smoothing + off)


def build_mixup(cfg: CfgNode) -> Mixup:
    """Build the mixing of training batches from MIXUP; with MIXUP.ENABLE off it only smooths the labels."""
    mixup = cfg.MIXUP
    if mixup.ENABLE and mixup.ALPHA == 0 and mixup.CUTMIX_ALPHA == 0:
        raise UserError(
            "MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are both 0, so nothing can be mixed; "
            "allowed: one of them positive, or MIXUP.ENABLE False"
        )
    prob = mixup.PROB if mixup.ENABLE else 0.0
    smoothing = mixup.LABEL_SMOOTH_VALUE
    return Mixup(mixup.ALPHA, mixup.CUTMIX_ALPHA, prob, mixup.SWITCH_PROB, smoothing, cfg.MODEL.NUM_CLASSES)
