"""Loss and accuracy against stated values."""

import math

import numpy as np
import pytest
import torch
from helpers_models import make_cfg

from slowfast.models.losses import LOSSES, binary_cross_entropy, build_loss, count_correct, soft_target_cross_entropy
from slowfast.utils.errors import UserError


def test_cross_entropy_of_two_classes_is_the_sum_of_both_in_float32():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.bfloat16)
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    loss = soft_target_cross_entropy(logits, targets)
    expected = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4) - math.log(1 / 2)
    assert loss.dtype == torch.float32 and loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=3e-3)  # log(3) in bfloat16


def test_binary_cross_entropy_is_the_mean_over_classes_summed_over_clips():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    targets = torch.tensor([[1.0, 1.0], [0.5, 0.0]])
    terms = [[math.log(2), math.log(4 / 3)], [math.log(2), math.log(4)]]
    assert binary_cross_entropy(logits, targets).item() == pytest.approx(np.mean(terms, axis=1).sum())
    weighted = binary_cross_entropy(logits, targets, torch.tensor([1.0, 3.0])).item()
    assert weighted == pytest.approx(np.mean(terms * np.array([1, 3]), axis=1).sum())


def test_weights_of_classes_multiply_their_terms():
    labels, cpu = np.array([0, 0, 0, 1, 3, 3]), torch.device("cpu")
    logits, targets = torch.randn(6, 4), torch.eye(4)[labels]

    def loss(weights, **settings):
        cfg = make_cfg(MODEL__NUM_CLASSES=4, LOSS__CLASS_WEIGHTS=weights, **settings)
        return build_loss(cfg, labels, cpu)(logits, targets).item()

    terms = -logits.log_softmax(1)[range(6), labels]
    assert loss([]) == pytest.approx(terms.sum().item())
    assert loss([1, 2, 0.5, 0]) == pytest.approx((terms[:3].sum() + 2 * terms[3]).item())
    shares = np.array([6 / 9, 6 / 9, 6 / 9, 2, 1, 1])  # every class has a third of all weight, the mean is 1
    assert shares.mean() == 1 and loss("balanced") == pytest.approx((terms.double() @ torch.tensor(shares)).item())
    # Where a video has several classes, their occurrences count: 3, 1 and 2 of 6 of three classes.
    several = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 0]])
    balanced = make_cfg(MODEL__NUM_CLASSES=4, LOSS__CLASS_WEIGHTS="balanced", LOSS__NAME="binary_cross_entropy")
    assert build_loss(balanced, several, cpu).keywords["weights"].tolist() == pytest.approx([2 / 3, 2, 1, 1])
    for settings, message in (
        ({"LOSS__CLASS_WEIGHTS": [1, 2]}, "LOSS.CLASS_WEIGHTS has 2 numbers; allowed: one per class, 4"),
        ({"LOSS__NAME": "focal"}, "LOSS.NAME is 'focal'; allowed: soft_target_cross_entropy | binary_cross_entropy"),
        ({"LOSS__CLASS_WEIGHTS": "balanced", "DATA__TRAIN_SAMPLING": "balanced"}, "are balanced, each for all"),
        ({"LOSS__CLASS_WEIGHTS": "balanced", "LOSS__NAME": "own"}, "the loss own has no argument 'weights'"),
    ):
        with pytest.raises(UserError) as error, pytest.MonkeyPatch.context() as patch:
            patch.setitem(LOSSES, "own", lambda logits, targets: 0)
            build_loss(make_cfg(MODEL__NUM_CLASSES=4, **settings), labels, cpu)
        assert message in str(error.value)
    with pytest.raises(UserError, match="allowed: balanced or values, each at least 0"):
        make_cfg(LOSS__CLASS_WEIGHTS=["a"])


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
        ([0.95, 0.05, 0.95, 0.95], 1),  # of several labels any
        ([0.05, 0.95, 0.95, 0.95], 0),
        ([0.95, 0.95, 0.95, 0.95], 1),
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
