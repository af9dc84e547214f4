"""Loss and accuracy against stated values."""

import math

import pytest
import torch

from slowfast.models.losses import count_correct, soft_target_cross_entropy


def test_cross_entropy_of_two_classes_is_the_sum_of_both_in_float32():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.bfloat16)
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    loss = soft_target_cross_entropy(logits, targets)
    expected = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4) - math.log(1 / 2)
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=3e-3)  # log(3) in bfloat16


@pytest.mark.parametrize(
    ("targets", "correct"),
    [
        ([1.0, 0.0, 0.0, 0.0], 1),
        ([0.0, 1.0, 0.0, 0.0], 0),
        ([0.4, 0.6, 0.0, 0.0], 1),  # right with the smaller share
        ([0.0, 0.6, 0.4, 0.0], 0),
        ([0.025, 0.925, 0.025, 0.025], 0),  # smoothing makes no classes
        ([0.325, 0.625, 0.025, 0.025], 1),
        ([0.5, 0.5, 0.0, 0.0], 1),
        ([0.5, 0.5], 1),  # two classes in all
        ([0.9, 0.1], 1),
        ([0.1, 0.9], 0),
    ],
)
def test_a_clip_is_right_with_either_class_of_its_target(targets, correct):
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])[:, : len(targets)]
    found = count_correct(logits, torch.tensor([targets]))
    assert isinstance(found, torch.Tensor) and found.item() == correct


@pytest.mark.parametrize(("num_classes", "std"), [(12, 0.01), (174, 1.0)])
def test_logits_that_know_nothing_are_right_by_chance(num_classes, std):
    """Two different classes are mixed in (K - 1) / K of the clips, and argmax hits one of two: about 2 / K."""
    generator = torch.Generator().manual_seed(0)
    clips = 20_000
    logits = std * torch.randn(clips, num_classes, generator=generator)
    labels = torch.randint(num_classes, (2, clips), generator=generator)
    share = torch.rand(clips, 1, generator=generator)
    smooth = (0.9 * torch.nn.functional.one_hot(each, num_classes) + 0.1 / num_classes for each in labels)
    targets = next(smooth) * share + next(smooth) * (1 - share)
    chance = (2 - 1 / num_classes) / num_classes
    found = count_correct(logits, targets).item() / clips
    assert found == pytest.approx(chance, abs=4 * math.sqrt(chance / clips))
