"""Gestures: the fingertip follows the path, and nothing but the path tells the class."""

from dataclasses import replace

import numpy as np
import pytest

from slowfast.synthetic.gestures import PATHS, REVERSALS, GestureSpec
from slowfast.utils.errors import UserError

NAMES = list(PATHS)
SPEC = GestureSpec()
# A still camera and light, and corners where they belong.
PLAIN = replace(SPEC, scatter=0.0, camera=(0, 0), brightness=(1, 1), distractors=(0, 0), noise=(0, 0), rest=(0.1, 0.2))


def clip(name, seed=3, spec=SPEC, num_frames=5):
    return spec.draw(seed, NAMES.index(name), num_frames, 64)


@pytest.mark.parametrize(("name", "other"), REVERSALS.items())
def test_no_set_of_frames_tells_a_path_from_its_reversal(name, other):
    frames = [clip(each).frames() for each in (name, other)]
    np.testing.assert_array_equal(frames[0], frames[1][::-1])
    np.testing.assert_array_equal(frames[0][2], frames[1][2])
    assert not np.array_equal(*frames)


@pytest.mark.parametrize(("name", "other", "axis"), [("left", "right", 0), ("up", "down", 1)])
def test_a_mirrored_path_is_its_reversal(name, other, axis):
    mirrored = np.array(PATHS[name], float)
    mirrored[:, axis] = 1 - mirrored[:, axis]
    np.testing.assert_array_equal(mirrored, PATHS[other])
    np.testing.assert_array_equal(PATHS[name][::-1], PATHS[other])


@pytest.mark.parametrize("name", NAMES)
def test_the_fingertip_draws_the_whole_path_in_its_order_and_rests_at_both_ends(name):
    one = clip(name, spec=replace(PLAIN, extent=(0.5, 0.5)), num_frames=60)
    tips = one.path() / one.scale / (0.5 * 4 / 3, 0.5)  # in sides of the path's box
    corners = np.array(PATHS[name], float)
    if name == "circlecc":
        x, y = (tips - (tips.min(0) + tips.max(0)) / 2).T
        np.testing.assert_allclose(np.hypot(x, y), 0.5, atol=0.01)
        turn = np.diff(np.unwrap(np.arctan2(-y, x)))
        assert turn.min() > -0.01 and turn.sum() == pytest.approx(2 * np.pi)  # counter-clockwise, once around
    else:
        tips = tips - tips[0] + corners[0]
        ways = np.diff(corners, axis=0)
        share = np.einsum("tmc,mc->tm", tips[:, None] - corners[:-1], ways) / (ways**2).sum(-1)
        nearest = corners[:-1] + np.clip(share, 0, 1)[..., None] * ways
        away = np.linalg.norm(tips[:, None] - nearest, axis=-1)  # of every frame from every stroke
        np.testing.assert_allclose(away.min(1), 0, atol=1e-9)
        strokes = away.argmin(1)[np.abs(tips - tips[-1]).max(1) > 1e-9]
        assert set(strokes) == set(range(len(ways))) and (np.diff(strokes) >= 0).all()
        np.testing.assert_allclose(tips[-1], corners[-1], atol=1e-9)
    for still in (tips[:6], tips[-6:]):
        np.testing.assert_allclose(still, still[:1].repeat(6, 0))


@pytest.mark.parametrize("name", NAMES)
def test_the_hand_is_where_the_path_is_and_nothing_else_moves(name):
    one = clip(name, spec=PLAIN, num_frames=9)
    frames, distance, tips = one.frames().astype(int), one.masks(), one.path()
    changes = []
    for t in range(9):
        rows, columns = np.nonzero(distance[t] > 0)
        is_seen = (tips[t] > 2).all() and (tips[t] < 61).all()
        if is_seen:  # it points up
            assert abs(rows.min() - tips[t][1]) < 1.5 and abs(columns[rows == rows.min()].mean() - tips[t][0]) < 2
        changes.append((frames[t] - frames[0])[(distance[t] > 1) & (distance[0] < -1)])
        is_ground = (distance[t] < -1) & (distance[0] < -1)
        np.testing.assert_array_equal(frames[t][is_ground], frames[0][is_ground])
    assert np.abs(np.concatenate(changes)).mean() > 5


def test_all_but_the_path_is_the_same_in_every_class():
    seen = [vars(clip(name)) for name in NAMES]
    for what in ("times", "scale", "origin", "shoulder", "camera", "gains", "_looks"):
        assert all(np.array_equal(each[what], seen[0][what]) for each in seen), what
    assert len({each["tips"].tobytes() for each in seen}) == len(NAMES) - len(REVERSALS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rest": [0, 0.5]}, r"rest is \[0, 0.5\]; allowed: less than 0.5"),
        ({"extent": [0, 0.5]}, r"extent is \[0, 0.5\]; allowed: more than 0"),
        ({"displacement": [1, 2]}, "no argument 'displacement'; allowed: question, extent"),
    ],
)
def test_wrong_arguments_are_named(args, message):
    with pytest.raises(UserError, match=message):
        GestureSpec.from_args(args)
