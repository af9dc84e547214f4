"""Loss and accuracy of training, whose targets are smoothed and may mix two classes: ``B`` clips, ``K`` classes."""

import torch
import torch.nn.functional as F


def soft_target_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of logits (B, K) against distributions (B, K), summed over the clips, in float32."""
    return F.cross_entropy(logits.float(), targets.float(), reduction="sum")


def count_correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Count the clips whose highest logit is a class of their target, without waiting for the device.

    Logits and targets are (B, K), K >= 2. A mixed clip has two classes and is right with either, so that chance is
    2 / K. Classes at the smallest value of a target row are those that label smoothing alone put there.
    """
    values, classes = targets.topk(2, dim=1)  # (B, 2)
    is_class = values > targets.amin(dim=1, keepdim=True)
    is_class[:, 0] = True  # two halves of two classes are each the smallest value
    is_hit = logits.detach().argmax(dim=1, keepdim=True) == classes
    return (is_hit & is_class).any(dim=1).sum()
