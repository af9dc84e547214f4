"""The scenes of the motion benchmark: no frame tells the motion, the kind is independent of it, lists are balanced."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.manifest import read_class_names
from slowfast.synthetic import scenes as synthetic_scenes
from slowfast.synthetic.scenes import DIRECTION_NAMES, KIND_NAMES, SceneSpec, render_scene
from slowfast.synthetic.specs import reversed_label
from slowfast.synthetic.writer import write_dataset

CONFIGS = Path(__file__).parents[2] / "configs" / "motion_benchmark"
NUM_KINDS = len(KIND_NAMES)
SMALL = SceneSpec(size=40, num_frames=5, noise_std=8.0, camera_jitter=0.02)
PLAIN = SceneSpec(
    size=64,
    speed=(0.05, 0.05),
    diameter=(0.15, 0.2),  # small: the background is most of a frame
    texture_contrast=0.0,
    grey_spread=128.0,
    noise_std=0.0,
    num_distractors=0,
    camera_pan=(0.03, 0.03),
)


@pytest.mark.parametrize("label", range(len(DIRECTION_NAMES)))
def test_a_scene_played_backwards_is_the_paired_motion_of_the_same_kind(label):
    clip = render_scene(7, label, label, SMALL)
    np.testing.assert_array_equal(render_scene(7, reversed_label(label), label, SMALL), clip[::-1])
    assert (clip[0] != clip[-1]).any()


def test_all_motions_of_a_seed_begin_with_the_same_frame():
    """So the frame that a draw of everything else leads to has no part in the motion."""
    first = render_scene(3, 0, 4, SMALL)[0]
    for label in range(0, len(DIRECTION_NAMES), 2):
        np.testing.assert_array_equal(render_scene(3, label, 4, SMALL)[0], first)
        np.testing.assert_array_equal(render_scene(3, label + 1, 4, SMALL)[-1], first)


@pytest.fixture(scope="module")
def states():
    """What is filmed, for (motions, seeds): target states (L, 4), states of the first distractor, camera (L, 2)."""
    filmed = []

    def watch(rng, ground, texture, contrast, sprites, camera, size, noise_std):
        filmed.append((sprites[-1][1], sprites[0][1], camera))
        return np.zeros((len(camera), 1, 1, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_scenes, "film", watch)
        spec = SceneSpec(size=32, num_distractors=1)
        for label, seed in itertools.product(range(0, len(DIRECTION_NAMES), 2), range(200)):
            render_scene(np.random.SeedSequence(5, spawn_key=(label, seed)), label, 0, spec)
    split = (np.array(x).reshape(-1, 200, *x[0].shape) for x in zip(*filmed, strict=True))
    return spec, *split


def _distance_to_uniform(values):
    """Kolmogorov and Smirnov's statistic times the root of the sample size; above 1.95 with probability 1e-3."""
    values = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    return max((steps[1:] - values).max(), (values - steps[:-1]).max()) * np.sqrt(len(values))


@pytest.mark.parametrize("t", [0, 3, 7])
def test_a_frame_shows_a_uniform_state_whatever_the_motion(states, t):
    spec, target, distractor, camera = states
    x, y, diameter, angle = np.moveaxis(target[:, :, t], -1, 0)  # (motions, seeds) each
    seen = [
        (x + camera[:, :, t, 0]) % 1,
        (y + camera[:, :, t, 1]) % 1,
        np.log(diameter / spec.diameter[0]) / spec.size_period,
        angle / (2 * np.pi),
        (distractor[:, :, t, 0] - x) % 1,  # the place of things relative to each other
        (distractor[:, :, t, 1] - y) % 1,
    ]
    for motion in range(len(x)):
        for values in seen:
            assert _distance_to_uniform(values[motion]) < 1.95


def test_the_camera_and_the_distractors_do_not_know_the_motion(states):
    _, target, distractor, camera = states
    moves = [(path[:, :, -1] - path[:, :, 0])[..., :2] for path in (distractor, camera)]
    own = (target[:, :, 1] - target[:, :, 0] + 0.5) % 1 - 0.5
    for move in moves:
        assert np.abs(move.mean(1)).max() < 4 * move.std() / np.sqrt(move.shape[1])
    assert np.abs(own[0, :, 0].mean()) > 0.025  # whereas the target's own motion does: it moves right


@pytest.mark.parametrize("label", range(len(DIRECTION_NAMES)))
def test_the_label_is_the_motion_relative_to_the_background(label):
    """Measured in the pictures: the sprite's way where all else is plain, minus that of the same background."""
    angle = np.radians(float(DIRECTION_NAMES[label].split()[2]))
    wanted = 0.05 * 64 * np.array([np.cos(angle), np.sin(angle)])
    seeds = [seed for seed in range(12) if np.ptp(render_scene(seed, label, 0, PLAIN)[0]) > 60]
    assert len(seeds) >= 3  # in the others, sprite and background happen to be of almost one grey
    for seed in seeds[:3]:
        plain = render_scene(seed, label, 0, PLAIN).astype(np.float32)
        in_image = np.median([_sprite_shift(a, b) for a, b in itertools.pairwise(plain)], 0)
        textured = render_scene(seed, label, 0, dataclasses.replace(PLAIN, texture_contrast=1.0)).mean(-1)
        background = _background_shift(textured[0], textured[-1]) / (len(textured) - 1)
        assert np.linalg.norm(background) == pytest.approx(0.03 * 64, abs=0.3)
        assert np.linalg.norm(in_image - background - wanted) < 0.6  # px
        assert np.linalg.norm(in_image - wanted) > 1


def _sprite_shift(a, b):
    """Shift (x, y) in px of the only thing in plain frames (64, 64, 3) whose opposite borders are joined."""
    ground = np.median(a.reshape(-1, 3), 0)
    waves = np.exp(2j * np.pi * np.arange(64) / 64)
    centres = []
    for mask in ((np.abs(frame - ground).max(-1) > 30).astype(np.float32) for frame in (a, b)):
        centres.append(np.array([np.angle(mask.sum(axis) @ waves) for axis in (0, 1)]) * 64 / (2 * np.pi))
    return (centres[1] - centres[0] + 32) % 64 - 32


def _background_shift(a, b):
    """Shift (x, y) in px at which two textured frames (64, 64) correlate best."""
    a, b = (np.fft.fft2(frame - frame.mean()) for frame in (a, b))
    correlation = np.fft.ifft2(a.conj() * b).real
    y, x = np.unravel_index(correlation.argmax(), correlation.shape)
    return (np.array([x, y]) + 32) % 64 - 32


def test_the_kind_changes_the_target_alone():
    """Motion, camera, distractors and noise are the same for all kinds, and every kind looks different."""
    clips = [render_scene(2, 4, kind, SMALL).astype(int) for kind in range(NUM_KINDS)]
    differs = np.zeros(clips[0].shape[:3], bool)
    for a, b in itertools.combinations(clips, 2):
        difference = np.abs(a - b).max(-1) > 0
        assert difference.any((1, 2)).all()
        differs |= difference
    assert differs.mean() < (np.pi / 4) * (SMALL.diameter[1] + 3 / SMALL.size) ** 2


def test_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="label is 12; allowed: 0 to 11"):
        render_scene(0, 12, 0, SMALL)
    with pytest.raises(ValueError, match="kind is -1; allowed: 0 to 11"):
        render_scene(0, 0, -1, SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    spec = SceneSpec(size=32, num_frames=2, num_distractors=0)
    assert write_dataset(out, spec, 144, 31, "frames", seed=3)
    return out


def test_both_lists_name_the_same_videos_and_labels_are_independent(folder):
    for split, count in (("train", 144), ("val", 31)):
        motion, appearance = (
            [line.split(" ")[::2] for line in (folder / f"{split}{question}.txt").read_text().splitlines()]
            for question in ("", "_appearance")
        )
        assert [path for path, _ in motion] == [path for path, _ in appearance]
        pairs = np.zeros((12, NUM_KINDS), int)
        for (_, label), (_, kind) in zip(motion, appearance, strict=True):
            pairs[int(label), int(kind)] += 1
        assert pairs.sum() == count
        assert pairs.max() - pairs.min() <= 1  # with 144 clips every pair occurs once
        assert np.ptp(pairs.sum(0)) <= 1 and np.ptp(pairs.sum(1)) <= 1
    assert read_class_names(str(folder / "classes.txt"), 12) == list(DIRECTION_NAMES)
    assert read_class_names(str(folder / "classes_appearance.txt"), 12) == list(KIND_NAMES)


def test_the_configurations_choose_the_question(folder):
    """The benchmark's own files, over a small set: the same videos under two labels."""
    questions = []
    for name in ("table4_motion_joint", "table4_appearance_joint"):
        cfg = get_cfg()
        cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
        cfg.DATA.PATH_TO_DATA_DIR = str(folder)
        if cfg.DATA.CLASS_NAMES_FILE:
            cfg.DATA.CLASS_NAMES_FILE = str(folder / Path(cfg.DATA.CLASS_NAMES_FILE).name)
        questions.append(build_dataset(cfg, "val"))
    motion, appearance = questions
    assert [record.path for record in motion.records] == [record.path for record in appearance.records]
    assert (motion.labels != appearance.labels).any()
    assert motion.class_names == list(DIRECTION_NAMES) and appearance.class_names == list(KIND_NAMES)
