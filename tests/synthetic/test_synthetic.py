"""The synthetic motion clips: they move as their class says, and only the order of the frames tells it."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from slowfast.synthetic.specs import CLASS_NAMES, MotionSpec, render_clip, reversed_label

SMALL = MotionSpec(size=32, num_frames=8)
HARD = MotionSpec(
    size=40, num_frames=7, noise_std=12.0, camera_jitter=0.02, num_distractors=3, texture_contrast=0.9, zoom=(0.1, 0.2)
)
PAIRS = range(0, len(CLASS_NAMES), 2)
CLIPS_PER_CLASS = 160


def test_pairs_are_opposites():
    opposite = {
        "moving right": "moving left",
        "moving down": "moving up",
        "moving down-right": "moving up-left",
        "moving up-right": "moving down-left",
        "approaching": "receding",
        "rotating clockwise": "rotating counter-clockwise",
    }
    assert len(set(CLASS_NAMES)) == 12
    assert {CLASS_NAMES[i]: CLASS_NAMES[reversed_label(i)] for i in PAIRS} == opposite
    assert [reversed_label(reversed_label(i)) for i in range(12)] == list(range(12))


@pytest.mark.parametrize("label", range(12))
def test_a_clip_played_backwards_is_the_paired_class(label):
    clip = render_clip(7, label, HARD)
    np.testing.assert_array_equal(render_clip(7, reversed_label(label), HARD), clip[::-1])
    assert (clip[0] != clip[-1]).any()


def _masks(seed, label, spec):
    """Sprite masks (L, S, S) of a clip without textures and noise: the ground is the most common colour."""
    clip = render_clip(seed, label, spec).astype(np.int64) @ [1, 256, 65536]
    colours, counts = np.unique(clip, return_counts=True)
    return clip != colours[counts.argmax()]


def _circular_centre(mask):
    """Centre (x, y) of a mask whose opposite borders are joined, in px."""
    waves = np.exp(2j * np.pi * np.arange(len(mask)) / len(mask))
    return np.array([np.angle(mask.sum(axis) @ waves) for axis in (0, 1)]) * len(mask) / (2 * np.pi)


@pytest.mark.parametrize("label", range(12))
def test_the_motion_is_what_the_name_says(label):
    """Measured on masks, with none of the renderer's geometry."""
    spec = MotionSpec(size=64, num_frames=8, texture_contrast=0.0, noise_std=0.0)
    words = CLASS_NAMES[label].replace("-", " ").split()
    direction = np.array([("right" in words) - ("left" in words), ("down" in words) - ("up" in words)], dtype=float)
    for seed in range(5):
        masks = _masks(seed, label, spec)
        assert masks.any((1, 2)).all()
        growth = np.diff(masks.sum((1, 2)))
        if words[0] == "moving":
            steps = [_circular_centre(b) - _circular_centre(a) for a, b in itertools.pairwise(masks)]
            steps = np.array([(step + 32) % 64 - 32 for step in steps])  # shortest way round
            unit = direction / np.linalg.norm(direction)
            low, high = np.array(spec.speed) * 64
            np.testing.assert_array_less(np.abs(steps - (steps @ unit)[:, None] * unit), 0.5)
            assert (steps @ unit > low - 0.5).all()
            assert (steps @ unit < high + 0.5).all()
        elif words[0] in ("approaching", "receding"):
            sign = 1 if words[0] == "approaching" else -1
            assert np.sum(sign * growth < 0) <= 1  # one start of a new cycle at most
            assert np.sum(sign * growth > 0) >= len(growth) - 1
        else:
            # Turn each mask by the mean spin, both ways, and see which way fits the next one better.
            overlaps = []
            for sign in (1, -1):
                turned_overlaps = []
                for a, b in itertools.pairwise(masks):
                    x, y = np.rint(32 - _circular_centre(a)).astype(int)
                    a, b = (np.roll(m, (y, x), (0, 1)).astype(np.float32) for m in (a, b))
                    # OpenCV's positive angles are counter-clockwise as seen.
                    turn = cv2.getRotationMatrix2D((32.0, 32.0), -sign * np.mean(spec.spin), 1)
                    turned = cv2.warpAffine(a, turn, (64, 64))
                    turned_overlaps.append(_overlap_after_shift(turned, b))
                overlaps.append(np.mean(turned_overlaps))
            clockwise = words[1] == "clockwise"
            assert (overlaps[0] > overlaps[1]) == clockwise


def _overlap_after_shift(a, b):
    """Largest overlap of two masks over all shifts: the rotation's centre is not the mask's centre."""
    return np.fft.ifft2(np.fft.fft2(a).conj() * np.fft.fft2(b)).real.max() / a.sum()


def test_a_sprite_stays_in_view_however_long_the_clip():
    spec = MotionSpec(size=48, num_frames=100, texture_contrast=0.0, noise_std=0.0)
    for label in range(12):
        areas = _masks(3, label, spec).sum((1, 2))
        assert areas.min() > 20
        if CLASS_NAMES[label].startswith("moving"):
            assert areas.min() > 0.8 * areas.max()  # antialiasing alone changes it


@pytest.fixture(scope="module")
def clips():
    """Independent clips (classes, clips, L, 16, 16, 3) float32, halved in size for the classifiers."""
    seeds = iter(np.random.SeedSequence(11).spawn(12 * CLIPS_PER_CLASS))
    rendered = [[render_clip(next(seeds), label, SMALL) for _ in range(CLIPS_PER_CLASS)] for label in range(12)]
    halved = np.array(rendered, np.float32).reshape(12, CLIPS_PER_CLASS, 8, 16, 2, 16, 2, 3).mean((4, 6))
    return (halved - 128) / 64


def _cross_validated_accuracy(features, num_folds=8):
    """Accuracies on held-out clips of two linear classifiers, ridge regression and nearest centroid.

    Args:
        features: (classes, clips, D).
    """
    num_classes, num_clips, _ = features.shape
    fold = np.arange(num_clips) % num_folds
    correct = np.zeros(2)
    for k in range(num_folds):
        train, test = features[:, fold != k], features[:, fold == k]
        centroids = train.mean(1)
        flat = train.reshape(-1, train.shape[-1])
        mean, scale = flat.mean(0), flat.std(0) + 1e-6
        x = (flat - mean) / scale
        targets = np.repeat(np.eye(num_classes), train.shape[1], 0) - 1 / num_classes
        gram = x @ x.T
        weights = x.T @ np.linalg.solve(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)), targets)
        for label in range(num_classes):
            distances = ((test[label][:, None] - centroids) ** 2).sum(-1)
            correct[0] += (((test[label] - mean) / scale @ weights).argmax(1) == label).sum()
            correct[1] += (distances.argmin(1) == label).sum()
    return correct / (num_classes * num_clips)


def _chance_bound(num_classes, num_deviations=4.0):
    """Accuracy that guessing exceeds with probability 3e-5 (normal approximation of the binomial)."""
    chance = 1 / num_classes
    return chance + num_deviations * np.sqrt(chance * (1 - chance) / (num_classes * CLIPS_PER_CLASS))


def _with_squares(frames):
    flat = frames.reshape(*frames.shape[:2], -1)
    return np.concatenate([flat, flat**2], -1)  # so that a centroid is a map of means and variances


UNORDERED = {
    "first frame": lambda x: _with_squares(x[:, :, 0]),
    "middle frame": lambda x: _with_squares(x[:, :, 4]),
    "last frame": lambda x: _with_squares(x[:, :, -1]),
    "mean of the frames": lambda x: _with_squares(x.mean(2)),
    "variance over the frames": lambda x: _with_squares(x.var(2)),
    "every pixel's sorted values": lambda x: _with_squares(np.sort(x, 2)[:, :, ::2]),
    "frames sorted by brightness": lambda x: _with_squares(
        np.take_along_axis(x, x.mean((3, 4, 5)).argsort(2)[..., None, None, None], 2)[:, :, ::3]
    ),
}


@pytest.mark.parametrize("view", UNORDERED)
def test_frames_without_their_order_do_not_tell_a_pair_apart(clips, view):
    for label in PAIRS:
        accuracy = _cross_validated_accuracy(UNORDERED[view](clips[label : label + 2]))
        assert (accuracy < _chance_bound(2)).all(), (CLASS_NAMES[label], accuracy)


@pytest.mark.parametrize("index", [0, 4, 7])
def test_a_single_frame_tells_nothing_about_the_class(clips, index):
    assert (_cross_validated_accuracy(_with_squares(clips[:, :, index])) < _chance_bound(12)).all()


def test_the_classifiers_find_a_leak():
    """The same check fails where it should: on clips whose sprite starts in the middle of the frame."""
    spec = dataclasses.replace(SMALL, texture_contrast=0.0, noise_std=0.0)
    centred = np.empty((2, CLIPS_PER_CLASS, 8, 32, 32), np.float32)
    for label in (0, 1):
        for i in range(CLIPS_PER_CLASS):
            masks = _masks(np.random.SeedSequence(13, spawn_key=(label, i)), label, spec)
            x, y = np.rint(16 - _circular_centre(masks[0])).astype(int)
            centred[label, i] = np.roll(masks, (y, x), (1, 2))
    assert (_cross_validated_accuracy(_with_squares(centred[:, :, 0])) < _chance_bound(2)).all()
    assert (_cross_validated_accuracy(_with_squares(centred[:, :, 3])) > 0.9).all()


def test_the_order_of_the_frames_tells_every_pair_apart():
    """A few numbers that change sign under time reversal separate what nothing above could."""
    spec = MotionSpec(size=48, num_frames=8)
    seeds = iter(np.random.SeedSequence(12).spawn(12 * 80))
    features = np.array(
        [[_ordered_features(render_clip(next(seeds), label, spec)) for _ in range(80)] for label in range(12)]
    )
    for label in PAIRS:
        ridge, _ = _cross_validated_accuracy(features[label : label + 2])
        assert ridge > 0.85, (CLASS_NAMES[label], ridge)


def _ordered_features(clip):
    """Sprite shift along x and y, growth and turn between consecutive frames, as medians over the clip."""
    size = clip.shape[1]
    ground = np.median(clip.reshape(-1, 3), 0)
    masks = (np.abs(clip - ground).max(-1) > 50).astype(np.float32)
    steps = []
    for a, b in itertools.pairwise(masks):
        shift_x, shift_y = (_circular_centre(b) - _circular_centre(a) + size / 2) % size - size / 2
        growth = b.sum() - a.sum()
        rings = []
        for mask in (a, b):
            x, y = np.rint(size // 2 - _circular_centre(mask)).astype(int)
            centred = np.roll(mask, (y, x), (0, 1))
            rings.append(cv2.warpPolar(centred, (size // 2, 72), (size // 2, size // 2), size // 2, 0).sum(1))
        spectrum = np.fft.fft(rings[0]).conj() * np.fft.fft(rings[1])
        lags = np.fft.ifft(spectrum).real  # peak at the turn, in steps of 5 degrees
        steps.append((shift_x, shift_y, growth, lags[1:4].sum() - lags[-3:].sum()))
    return np.median(steps, 0)


@pytest.mark.parametrize(
    ("spec", "label", "first", "last", "spread"),
    [
        (MotionSpec(size=32, num_frames=3), 4, (105.35, 210.18, 67.51), (103.60, 211.39, 70.05), 80.915),
        (HARD, 9, (112.45, 204.91, 71.12), (104.54, 202.48, 76.51), 85.595),
    ],
)
def test_a_seed_gives_the_clip_that_it_always_gave(spec, label, first, last, spread):
    """A published accuracy belongs to pictures: no change may move a random draw. Means, since BLAS libraries round."""
    clip = render_clip(1, label, spec).astype(float)
    np.testing.assert_allclose(clip[[0, -1]].mean((1, 2)), [first, last], atol=0.02)
    assert clip.std() == pytest.approx(spread, abs=0.01)


def test_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="label is 12; allowed: 0 to 11"):
        render_clip(0, 12, SMALL)
