import numpy as np
import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.mixup import Mixup, build_mixup, draw_cutmix_box, smooth_labels
from slowfast.utils.errors import UserError

K = 7
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


def make_batch(size=6, device="cpu"):
    """Clips whose value is their index + 1 everywhere, and one label each."""
    clips = torch.arange(1.0, size + 1).view(-1, 1, 1, 1, 1).repeat(1, 3, 4, 20, 28)
    return clips.to(device), (torch.arange(size) % K).to(device)


def make_mixup(alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, label_smoothing=0.1):
    return Mixup(alpha, cutmix_alpha, prob, switch_prob, label_smoothing, num_classes=K)


@pytest.mark.parametrize("device", DEVICES)
def test_mixup_blends_clips_and_targets_by_one_share(device):
    mixup = make_mixup(cutmix_alpha=0.0)
    clips, labels = make_batch(device=device)
    one_hot = smooth_labels(labels, K, 0.1)
    shares = []
    for seed in range(20):
        mixed, targets = mixup(clips, labels, np.random.default_rng(seed))
        share = ((mixed[0] - clips[-1]) / (clips[0] - clips[-1])).mean()
        torch.testing.assert_close(mixed, share * clips + (1 - share) * clips.flip(0))
        torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0))
        assert targets.dtype == torch.float32 and targets.device == clips.device
        shares.append(share.item())
    assert len(set(shares)) == 20


@pytest.mark.parametrize("device", DEVICES)
def test_cutmix_pastes_one_box_and_weighs_targets_by_its_area(device):
    mixup = make_mixup(alpha=0.0)
    clips, labels = make_batch(device=device)
    one_hot = smooth_labels(labels, K, 0.1)
    num_pasted = 0
    for seed in range(20):
        mixed, targets = mixup(clips, labels, np.random.default_rng(seed))
        pasted = mixed == clips.flip(0)
        assert (pasted | (mixed == clips)).all()
        assert (pasted == pasted[:1, :1, :1]).all(), "the box must be the same everywhere"
        mask = pasted[0, 0, 0]
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns, "the pasted region must be a rectangle"
        share = 1 - mask.float().mean()
        torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0))
        num_pasted += bool(mask.any())
    assert num_pasted > 10


def test_cutmix_box_has_the_asked_area_where_it_is_not_clipped():
    rng = np.random.default_rng(0)
    boxes = np.array([draw_cutmix_box(rng, 0.75, 200, 100) for _ in range(4000)])
    top, bottom, left, right = boxes.T
    assert top.min() == 0 and left.min() == 0 and bottom.max() == 200 and right.max() == 100
    inside = (top > 0) & (bottom < 200) & (left > 0) & (right < 100)
    assert ((bottom - top)[inside] == 100).all() and ((right - left)[inside] == 50).all()
    assert ((bottom - top) >= 50).all(), "a centre inside the frame leaves at least half of the box"
    assert abs(np.mean((top + bottom)[inside] / 2) - 100) < 3


def test_switch_prob_and_prob():
    clips, labels = make_batch(2)

    def kind(mixup, rng):
        values = mixup(clips, labels, rng)[0][0].unique()
        return "none" if values.tolist() == [1.0] else "mixup" if len(values) == 1 else "cutmix"

    rng = np.random.default_rng(1)
    mixup = make_mixup(alpha=50.0, cutmix_alpha=50.0, prob=0.5, switch_prob=0.2)  # shares near one half
    kinds = [kind(mixup, rng) for _ in range(1500)]
    for name, expected in (("none", 0.5), ("mixup", 0.4), ("cutmix", 0.1)):
        assert abs(kinds.count(name) / 1500 - expected) < 0.05


@pytest.mark.parametrize("alphas", [{"alpha": 1e-6, "cutmix_alpha": 0.0}, {"alpha": 0.0, "cutmix_alpha": 1e-6}])
def test_share_of_exactly_one_mixes_nothing_but_smooths(alphas):
    clips, labels = make_batch()
    unmixed = 0
    for seed in range(20):  # so small an alpha draws shares of exactly 0 or 1
        mixed, targets = make_mixup(**alphas)(clips, labels, np.random.default_rng(seed))
        is_unmixed = torch.equal(targets, smooth_labels(labels, K, 0.1))
        assert is_unmixed == torch.equal(mixed, clips)
        unmixed += is_unmixed
    assert 4 <= unmixed <= 16


@pytest.mark.parametrize("size", [0, 1, 3])
def test_small_batches(size):
    clips, labels = make_batch(size)
    for seed in range(6):
        mixed, targets = make_mixup()(clips, labels, np.random.default_rng(seed))
        assert mixed.shape == clips.shape and targets.shape == (size, K)
        torch.testing.assert_close(targets.sum(1), torch.ones(size))
        if size:
            middle = size // 2  # its own partner
            torch.testing.assert_close(mixed[middle], clips[middle])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_input_stays_and_the_dtype_is_kept(dtype):
    clips, labels = make_batch()
    clips = clips.to(dtype)
    before = clips.clone()
    for seed in range(8):
        mixed, _ = make_mixup()(clips, labels, np.random.default_rng(seed))
        assert mixed.dtype == dtype
    assert torch.equal(clips, before)


def test_smoothed_targets():
    on, off = 0.925, 0.025
    expected = torch.tensor([[off, off, on, off], [on, off, off, off]])
    torch.testing.assert_close(smooth_labels(torch.tensor([2, 0]), 4, 0.1), expected)
    several = smooth_labels(torch.tensor([[0, 1, 1, 0]]), 4, 0.1)
    torch.testing.assert_close(several, torch.tensor([[0.05, 0.95, 0.95, 0.05]]))


def test_several_labels_are_mixed_as_one_is():
    clips, labels = make_batch()
    several = torch.nn.functional.one_hot(labels, K) | torch.nn.functional.one_hot((labels + 2) % K, K)
    mixed, targets = make_mixup(cutmix_alpha=0.0, label_smoothing=0.0)(clips, several, np.random.default_rng(0))
    share = ((mixed[0] - clips[-1]) / (clips[0] - clips[-1])).mean()
    torch.testing.assert_close(targets, share * several + (1 - share) * several.flip(0))


@pytest.mark.parametrize("keys", [["MIXUP.ENABLE", False], ["MIXUP.PROB", 0.0]])
def test_mixing_off_still_gives_smoothed_targets(keys):
    cfg = get_cfg()
    cfg.merge_from_list([*keys, "MODEL.NUM_CLASSES", K])
    clips, labels = make_batch()
    mixed, targets = build_mixup(cfg)(clips, labels, np.random.default_rng(0))
    assert torch.equal(mixed, clips) and torch.equal(targets, smooth_labels(labels, K, 0.1))


def test_both_alphas_zero_is_an_error_only_where_mixing_is_on():
    cfg = get_cfg()
    cfg.merge_from_list(["MIXUP.ALPHA", 0.0, "MIXUP.CUTMIX_ALPHA", 0.0])
    with pytest.raises(UserError, match=r"MIXUP\.ALPHA and MIXUP\.CUTMIX_ALPHA.*MIXUP\.ENABLE"):
        build_mixup(cfg)
    cfg.MIXUP.ENABLE = False
    build_mixup(cfg)
