import math
from fractions import Fraction

import numpy as np
import pytest

from slowfast.datasets.sampling import DenseSampler, SparseSampler


@pytest.mark.parametrize(
    ("num_frames", "view", "num_views", "images"),
    [
        (10, 0, 1, [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 7, 8, 8, 9, 9]),
        (46, 0, 1, [2, 5, 8, 10, 13, 16, 19, 22, 24, 27, 30, 33, 36, 39, 41, 44]),
        (46, 0, 2, [1, 4, 7, 9, 12, 15, 18, 21, 23, 26, 29, 32, 35, 38, 40, 43]),
        (46, 1, 2, [2, 5, 8, 10, 13, 16, 19, 22, 24, 27, 30, 33, 36, 39, 41, 44]),
    ],
)
def test_sparse_views_are_the_published_ones(num_frames, view, num_views, images):
    # Image files are numbered from 1, frames from 0.
    assert (SparseSampler(16).test(num_frames, view, num_views) + 1).tolist() == images


@pytest.mark.parametrize("clip_frames", [8, 16, 32])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 15, 16, 17, 31, 33, 44, 49, 57, 100, 141, 300])
def test_sparse_views_follow_their_definition(num_frames, clip_frames):
    segment = Fraction(num_frames - 1, clip_frames)
    for num_views in (1, 2, 3):
        for view in range(num_views):
            offset = math.floor(segment * (view + 1) / (num_views + 1))
            frames = [round(segment * i) + offset for i in range(clip_frames)]  # round: half to even
            assert SparseSampler(clip_frames).test(num_frames, view, num_views).tolist() == frames


@pytest.mark.parametrize("num_frames", [1, 9, 40, 63, 64, 65, 127, 128, 129, 250, 300])
@pytest.mark.parametrize(("clip_frames", "rate"), [(16, 4), (32, 4), (8, 8), (16, 1)])
def test_dense_clips_follow_their_definition(num_frames, clip_frames, rate):
    span = clip_frames * rate
    slack = max(num_frames - span, 0)
    for num_clips in (1, 3, 4, 10):
        for clip in range(num_clips):
            start = slack // 2 if num_clips == 1 else clip * (slack // (num_clips - 1))
            real = [start + i * Fraction(span - 1, clip_frames - 1) for i in range(clip_frames)]
            frames = [math.floor(min(frame, num_frames - 1)) for frame in real]
            assert DenseSampler(clip_frames, rate).test(num_frames, clip, num_clips).tolist() == frames


@pytest.mark.parametrize(
    ("num_frames", "clip", "frames"),
    [
        (300, 0, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]),
        (300, 1, [78, 82, 86, 90, 94, 99, 103, 107, 111, 115, 120, 124, 128, 132, 136, 141]),
        (300, 3, [234, 238, 242, 246, 250, 255, 259, 263, 267, 271, 276, 280, 284, 288, 292, 297]),
        (40, 0, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 39, 39, 39, 39, 39, 39]),
        (40, 3, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 39, 39, 39, 39, 39, 39]),
    ],
)
def test_dense_clips_are_the_published_ones(num_frames, clip, frames):
    assert DenseSampler(16, 4).test(num_frames, clip, 4).tolist() == frames


def test_sparse_training_draws_cover_the_segments_ends_included():
    rng = np.random.default_rng(0)
    draws = np.stack([SparseSampler(16).train(46, rng) for _ in range(500)])
    assert draws.dtype == np.int64
    bounds = np.rint(45 / 16 * np.arange(17)).astype(int)
    for i in range(16):
        assert set(draws[:, i]) == set(range(bounds[i], bounds[i + 1] + 1))
    assert (np.diff(draws) >= 0).all()


def test_dense_training_starts_are_uniform_over_the_video():
    rng = np.random.default_rng(0)
    starts = np.array([DenseSampler(16, 4).train(300, rng)[0] for _ in range(2000)])
    assert starts.min() < 5
    assert 230 < starts.max() <= 236
    assert abs(starts.mean() - 118) < 6


@pytest.mark.parametrize("sampler", [SparseSampler(16), SparseSampler(1), DenseSampler(16, 4), DenseSampler(1, 1)])
@pytest.mark.parametrize("num_frames", [1, 2, 15, 16, 17, 63, 64, 65, 1000])
def test_every_frame_exists_whatever_the_length(sampler, num_frames):
    rng = np.random.default_rng(num_frames)
    clips = [sampler.test(num_frames, clip, count) for count in (1, 2, 4) for clip in range(count)]
    for frames in [*clips, *(sampler.train(num_frames, rng) for _ in range(20))]:
        assert frames.shape == (sampler.clip_frames,)
        assert frames.dtype == np.int64
        assert frames.min() >= 0
        assert frames.max() < num_frames
        assert (np.diff(frames) >= 0).all()
