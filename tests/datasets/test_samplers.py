"""The order of training items and the shares of evaluation, whatever the number of processes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from slowfast.datasets.loader import TrainSampler, eval_share
from slowfast.utils.errors import UserError

WORLD_SIZES = [1, 2, 3, 4]


def test_evaluation_shares_hold_every_item_once():
    for world_size, num_items in itertools.product((1, 2, 3, 7), (0, 1, 2, 3, 11, 12)):
        shares = [eval_share(num_items, rank, world_size) for rank in range(world_size)]
        assert list(itertools.chain(*shares)) == list(range(num_items))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def keys_of(num_videos, global_batch, rank, world_size, epoch, seed=5, first_step=0, **settings):
    sampler = TrainSampler(num_videos, global_batch, rank, world_size, seed, **settings)
    sampler.set_epoch(epoch, first_step)
    keys = list(sampler)
    assert first_step or len(keys) == len(sampler)
    return keys


def steps_of(num_videos, global_batch, world_size, epoch, **settings):
    """The sorted keys of every step over all processes."""
    local, shares = global_batch // world_size, range(world_size)
    keys = [keys_of(num_videos, global_batch, rank, world_size, epoch, **settings) for rank in shares]
    per_process = [[share[i : i + local] for i in range(0, len(share), local)] for share in keys]
    return [sorted(itertools.chain(*step)) for step in zip(*per_process, strict=True)]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("num_videos", [12, 50])
@pytest.mark.parametrize("repeats", [1, 3])
def test_the_items_of_a_step_do_not_depend_on_the_number_of_processes(num_videos, world_size, repeats):
    steps = steps_of(num_videos, 12, world_size, epoch=3, repeats=repeats)
    assert steps == steps_of(num_videos, 12, 1, epoch=3, repeats=repeats)
    assert len(steps) == num_videos // 12
    keys = list(itertools.chain(*steps))
    assert len(set(keys)) == len(keys) == num_videos // 12 * 12
    assert {epoch for epoch, _, _ in keys} == {3}
    assert all(0 <= video_index < num_videos for _, video_index, _ in keys)


def test_repeated_videos_share_a_step_on_different_processes():
    steps = steps_of(100, 12, 3, epoch=0, repeats=3)
    for step in steps:
        copies = Counter(video_index for _, video_index, _ in step)
        assert set(copies.values()) == {3}
    assert len({video_index for step in steps for _, video_index, _ in step}) == 100 // 12 * 12 // 3
    for rank in range(3):  # of DeiT's sampler: every process takes each third of the repeated order
        keys = keys_of(100, 12, rank, 3, epoch=0, repeats=3)
        assert {copy for _, _, copy in keys} == {rank}
    once = [video_index for _, video_index, _ in keys_of(100, 12, 0, 1, epoch=0)]
    thrice = [video_index for _, video_index, _ in keys_of(100, 12, 0, 1, epoch=0, repeats=3)]
    assert thrice == np.repeat(once, 3)[: len(thrice)].tolist()  # cut to the length of an epoch


def test_epochs_and_seeds_shuffle_differently_and_repeat_exactly():
    def order(epoch, seed=5):
        return [video_index for _, video_index, _ in keys_of(100, 4, 0, 1, epoch, seed)]

    orders = [order(0), order(1), order(0, seed=6), list(range(100))]
    for first, second in itertools.combinations(orders, 2):
        assert np.mean(np.array(first) == np.array(second)) < 0.2
    assert order(1) == order(1)
    # The stream of the order is not that of the draws: default_rng([seed, epoch]) is that of video 0.
    assert order(0) != np.random.default_rng([5, 0, 0]).permutation(100).tolist()


@pytest.mark.parametrize(("world_size", "repeats"), [(1, 1), (3, 1), (3, 2)])
def test_balanced_classes_come_equally_often_on_any_number_of_processes(world_size, repeats):
    labels = np.repeat([0, 1, 3], [40, 7, 3])
    settings = {"repeats": repeats, "labels": labels}
    steps = steps_of(50, 12, world_size, epoch=3, **settings)
    assert steps == steps_of(50, 12, 1, epoch=3, **settings) != steps_of(50, 12, 1, epoch=4, **settings)
    keys = list(itertools.chain(*steps))
    assert len(set(keys)) == len(keys) == 48  # no video is augmented twice in the same way
    times = np.bincount([video for _, video, _ in keys], minlength=50)
    assert np.bincount(labels, weights=times).tolist() == [16, 16, 0, 16]
    assert all(np.ptp(times[labels == label]) <= repeats for label in (0, 1, 3))  # the videos of a class, too


def test_impossible_batches_are_refused():
    for num_videos, world_size in ((100, 3), (31, 1)):
        with pytest.raises(
            UserError, match=rf"TRAIN\.BATCH_SIZE is 32 .* {world_size} .the processes. up to {num_videos} "
        ):
            TrainSampler(num_videos, 32, 0, world_size, 0)
