"""Stimuli: what no frame may tell, and what the exact motion says."""

from dataclasses import replace

import numpy as np
import pytest

from slowfast.synthetic.stimuli import NUM_INSTANCES, STIMULI, Stimulus, StimulusSpec
from slowfast.utils.errors import UserError

SPEC = StimulusSpec(displacement=(0.5, 1.5), pan=(0.1, 0.5))


def clip(seed=1, label=2, num_frames=5, **settings):
    return Stimulus(seed, label, replace(SPEC, **settings), num_frames, 64)


@pytest.mark.parametrize("stimulus", STIMULI)
def test_the_middle_frame_and_the_set_of_frames_do_not_tell_the_direction(stimulus):
    frames = [clip(label=label, stimulus=stimulus).frames() for label in range(8)]
    for label in range(8):
        np.testing.assert_array_equal(frames[label][2], frames[0][2])
        np.testing.assert_array_equal(frames[label], frames[(label + 4) % 8][::-1])
    assert len({each.tobytes() for each in frames}) == 8


@pytest.mark.parametrize("stimulus", STIMULI)
def test_pixels_move_as_the_flow_says(stimulus):
    """Each frame, taken back along the flow, is the one before wherever the same thing is seen in both."""
    one = clip(stimulus=stimulus, label=0, displacement=(1, 1), pan=(0, 0))
    one.object_velocity, one.background_velocity = np.round(one.object_velocity), np.round(one.background_velocity)
    frames, (motion, _), distance = one.frames().astype(int)[..., 0], one.flow(), np.abs(one.masks())
    y, x = np.mgrid[:64, :64]
    for t in range(len(frames) - 1):
        u, v = motion[t].astype(int)[..., 0], motion[t].astype(int)[..., 1]
        there = (y + v) % 64, (x + u) % 64
        is_same = (distance[t] > 4) & (distance[t + 1][there] > 4) & (motion[t + 1][there] == motion[t]).all(-1)
        assert is_same.mean() > 0.5
        assert np.abs(frames[t + 1][there] - frames[t])[is_same].max() <= 1


def test_the_direction_is_that_of_the_label_relative_to_the_background():
    for label in range(8):
        for stimulus in STIMULI:
            one = clip(seed=label, label=label, stimulus=stimulus)
            x, y = one.object_velocity - (one.background_velocity if stimulus != "noise" else 0)
            assert round(np.degrees(np.arctan2(y, x)) / 45) % 8 == label
            assert 4 - 1e-9 <= np.hypot(x, y) <= 12 + 1e-9  # px: 0.5 to 1.5 tokens


@pytest.mark.parametrize("texture", ["grain", "stripes"])
def test_camouflage_has_the_same_brightness_and_contrast_inside_outside_and_between(texture):
    values = {"inside": [], "outside": [], "between": []}
    for seed in range(60):
        one = clip(seed=seed, num_frames=2, texture=texture)
        frames, distance = one.frames()[..., 0], one.masks()
        for name, where in {"inside": distance > 4, "outside": distance < -4, "between": np.abs(distance) < 1}.items():
            values[name].append(frames[where].astype(float))
    mean, spread = ({name: how(np.concatenate(v)) for name, v in values.items()} for how in (np.mean, np.std))
    assert max(mean.values()) - min(mean.values()) < 6
    assert max(spread.values()) / min(spread.values()) < 1.1


def test_an_instance_looks_the_same_wherever_it_is():
    settings = {"stimulus": "textured", "question": "instance", "num_frames": 1}
    pictures = []
    for seed in range(2):
        one = clip(seed=seed, label=77, **settings)
        shift = (32 - one.place).astype(int)
        moved = np.roll(one.frames()[0], shift[::-1], axis=(0, 1))
        pictures.append(moved[24:40, 24:40])
    np.testing.assert_array_equal(*pictures)
    assert len(replace(SPEC, question="instance").class_names) == NUM_INSTANCES


def test_the_displacement_grows_to_what_it_is():
    spec = replace(SPEC, grow=0.5)
    ends = [spec.at_epoch(epoch, 10).displacement[1] for epoch in range(10)]
    assert ends[0] == pytest.approx(0.25) and ends[:6] == sorted(ends[:6]) and set(ends[5:]) == {1.5}
    assert replace(SPEC, grow=0.0).at_epoch(0, 10).displacement == SPEC.displacement


def test_what_grows_of_noise_is_the_speed_of_its_surround():
    spec = replace(SPEC, stimulus="noise", pan=(0, 0), grow=0.5)
    speeds = []
    for grown in (spec.at_epoch(epoch, 10) for epoch in range(6)):
        one = grown.draw(1, 2, 5, 64)
        np.testing.assert_allclose(one.object_velocity, spec.draw(1, 2, 5, 64).object_velocity, atol=1e-9)
        speeds.append(np.hypot(*one.background_velocity) / np.hypot(*one.object_velocity))
    np.testing.assert_allclose(speeds, np.arange(1, 7) / 6)
    assert not replace(spec, surround=0.0).draw(1, 2, 5, 64).background_velocity.any()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"speed": 1}, "no argument 'speed'; allowed: stimulus, question"),
        ({"stimulus": "c"}, "stimulus is 'c'; allowed: 'textured' | 'camouflage' | 'noise'"),
        ({"displacement": [2, 1]}, r"displacement is \[2, 1\]; allowed: two numbers"),
        ({"displacement": ["1", 2]}, r"displacement is \['1', 2\]; allowed: two numbers"),
        ({"displacement": [1, float("inf")]}, r"displacement is \[1, inf\]; allowed: two numbers"),
        ({"grow": 1.5}, "grow is 1.5; allowed: a number from 0 to 1"),
        ({"num_val": 0}, "num_val is 0; allowed: a whole number from 1"),
    ],
)
def test_wrong_arguments_are_named(args, message):
    with pytest.raises(UserError, match=message):
        StimulusSpec.from_args(args)
