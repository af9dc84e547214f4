from __future__ import annotations

import itertools

import numpy as np
import pytest

from slowfast.datasets.samplers import EvalSampler, TrainSampler

WORLD_SIZES = [1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [*WORLD_SIZES, 7])
@pytest.mark.parametrize("num_items", [0, 1, 2, 3, 10, 11, 12, 101])
def test_evaluation_shares_hold_every_item_once(num_items, world_size):
    samplers = [EvalSampler(num_items, rank, world_size) for rank in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    assert list(itertools.chain(*shares)) == list(range(num_items))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def steps_of(num_videos, global_batch, world_size, epoch, seed=5):
    """Return the sorted keys of every step over all processes, and the steps as each process sees them."""
    per_process = []
    for rank in range(world_size):
        sampler = TrainSampler(num_videos, global_batch, rank, world_size, seed)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(sampler)
        local = global_batch // world_size
        per_process.append([keys[i : i + local] for i in range(0, len(keys), local)])
    return [sorted(itertools.chain(*step)) for step in zip(*per_process, strict=True)]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("num_videos", [12, 50, 100])
def test_the_videos_of_a_step_do_not_depend_on_the_number_of_processes(num_videos, world_size):
    steps = steps_of(num_videos, 12, world_size, epoch=3)
    assert steps == steps_of(num_videos, 12, 1, epoch=3)
    assert len(steps) == num_videos // 12
    keys = list(itertools.chain(*steps))
    assert len(set(keys)) == len(keys) == num_videos // 12 * 12
    assert {epoch for epoch, _ in keys} == {3}
    assert all(0 <= video_index < num_videos for _, video_index in keys)


def test_epochs_and_seeds_shuffle_differently_and_repeat_exactly():
    def order(epoch, seed=5):
        sampler = TrainSampler(100, 4, 0, 1, seed)
        sampler.set_epoch(epoch)
        return [video_index for _, video_index in sampler]

    orders = [order(0), order(1), order(0, seed=6), list(range(100))]
    for first, second in itertools.combinations(orders, 2):
        assert np.mean(np.array(first) == np.array(second)) < 0.2
    assert order(1) == order(1)


def test_the_order_and_the_sample_draws_are_different_streams():
    # default_rng([seed, epoch]) equals default_rng([seed, epoch, 0]), the stream of video 0.
    sampler = TrainSampler(100, 100, 0, 1, seed=5)
    order = [video_index for _, video_index in sampler]
    assert order != np.random.default_rng([5, 0, 0]).permutation(100).tolist()


def test_impossible_batches_are_refused():
    with pytest.raises(ValueError, match=r"TRAIN\.BATCH_SIZE is 32 .* 3"):
        TrainSampler(100, 32, 0, 3, 0)
    with pytest.raises(ValueError, match=r"31 training videos .*TRAIN\.BATCH_SIZE 32"):
        TrainSampler(31, 32, 0, 1, 0)
