"""From list files on disk to batches, through the configuration."""

from __future__ import annotations

import os
import pickle
import signal

import numpy as np
import pytest
import torch
from numbered_video import write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.finish import Finish, PackedClips
from slowfast.datasets.build import build_dataset
from slowfast.datasets.loader import Batch, collate, construct_loader
from slowfast.datasets.video_dataset import BadVideo, Sample

NUM_VIDEOS = 7
BAD = 4  # this video is damaged
SIDE = 32
FINISH = Finish(SIDE, (0.45,) * 3, (0.225,) * 3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for index in range(NUM_VIDEOS):
        write_video(folder / f"{index}.mp4", 20 + index)
        lines.append(f"{index}.mp4,{index % 3}\n")
    (folder / f"{BAD}.mp4").write_bytes(b"damaged")
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("".join(lines))
    write_folder(folder / "frames" / "a", 9)
    write_folder(folder / "frames" / "b", 12)
    (folder / "frames" / "val.txt").write_text("a 9 0\nb 12 2\n")
    return folder


@pytest.fixture
def cfg(data_dir):
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR = str(data_dir)
    cfg.DATA.NUM_FRAMES = 4
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = SIDE
    cfg.MODEL.NUM_CLASSES = 3
    cfg.TRAIN.BATCH_SIZE = NUM_VIDEOS
    cfg.TEST.BATCH_SIZE = 4
    cfg.DATA_LOADER.NUM_WORKERS = 0
    return cfg


def batches_of(cfg, split, epoch=0, **kwargs):
    loader = construct_loader(cfg, split, **kwargs)
    if split == "train":
        loader.sampler.set_epoch(epoch)
    return list(loader)


def finished(batch):
    return FINISH(batch.clips, batch.remainders)


def assert_equal(first: list[Batch], second: list[Batch]):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in ("labels", "video_index", "view"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(finished(a), finished(b))
        assert a.bad == b.bad


def test_training_batch(cfg):
    (batch,) = batches_of(cfg, "train")
    assert batch.clips.shape == (2 * (NUM_VIDEOS - 1), 3, 4, SIDE, SIDE)
    assert batch.clips.dtype == torch.uint8 and len(batch.remainders) == len(batch.clips)
    videos = batch.video_index[::2]
    assert sorted(videos.tolist()) == [index for index in range(NUM_VIDEOS) if index != BAD]
    assert torch.equal(batch.video_index, videos.repeat_interleave(2))  # v0a, v0b, v1a, v1b, ...
    assert torch.equal(batch.labels, batch.video_index % 3)
    assert batch.view.tolist() == [0, 1] * (NUM_VIDEOS - 1)
    for copies in batch.clips.unflatten(0, (-1, 2)):
        assert not torch.equal(copies[0], copies[1])


def test_a_bad_video_is_reported_and_replaced_by_nothing(cfg):
    for split in ("train", "val"):
        bad = [video for batch in batches_of(cfg, split) for video in batch.bad]
        assert [video.video_index for video in bad] == [BAD]
        assert bad[0].path.endswith(f"{BAD}.mp4")
        assert f"{split}.csv:{BAD + 1}" in bad[0].reason


def test_a_batch_of_bad_videos_is_empty(cfg):
    cfg.TEST.BATCH_SIZE = 1
    batch = batches_of(cfg, "val")[BAD].to("cpu")
    assert batch.clips.shape == (0, 3, 4, SIDE, SIDE) and batch.clips.dtype == torch.uint8
    assert finished(batch).shape == batch.clips.shape
    assert batch.labels.shape == batch.video_index.shape == batch.view.shape == (0,)
    assert batch.labels.dtype == batch.video_index.dtype == torch.int64
    assert len(batch.bad) == 1


@pytest.mark.parametrize(("split", "device"), [("train", "cpu"), ("train", "device"), ("test", "cpu")])
def test_batches_do_not_depend_on_the_workers(cfg, split, device):
    cfg.DATA.AUGMENT_DEVICE = device
    in_process = batches_of(cfg, split, epoch=2)
    cfg.DATA_LOADER.NUM_WORKERS = 2
    assert_equal(in_process, batches_of(cfg, split, epoch=2))


def test_crops_for_the_device_are_packed_in_their_own_sizes(cfg):
    (here,) = batches_of(cfg, "train")
    cfg.DATA.AUGMENT_DEVICE = "device"
    (there,) = batches_of(cfg, "train")
    assert isinstance(there.clips, PackedClips) and there.clips.data.dtype == torch.uint8
    assert len({shape[2:] for shape in there.clips.shapes}) > 1
    assert len(there.clips) == len(there.labels) == len(there.to("cpu").clips)
    clips = [finished(batch) for batch in (here, there)]
    torch.testing.assert_close(*clips, rtol=0, atol=0.5 / (255 * 0.225) + 2e-5)  # the rounding to bytes


def test_training_samples_do_not_depend_on_the_processes(cfg):
    cfg.TRAIN.BATCH_SIZE, cfg.AUG.RE_PROB = 6, 1.0
    (whole,) = batches_of(cfg, "train", epoch=1)
    halves = [batches_of(cfg, "train", epoch=1, rank=rank, world_size=2)[0] for rank in range(2)]
    clip_of = {(v, w): clip for v, w, clip in zip(whole.video_index.tolist(), whole.view.tolist(), finished(whole))}
    assert sum(len(half.clips) for half in halves) == len(clip_of)
    for half in halves:
        for v, w, clip in zip(half.video_index.tolist(), half.view.tolist(), finished(half)):
            assert torch.equal(clip, clip_of[v, w])


def test_epochs_draw_anew_and_seeds_differ(cfg):
    dataset = build_dataset(cfg, "train")
    cfg.RNG_SEED = 1
    other_seed = build_dataset(cfg, "train")
    clips = dataset[0, 3].clips
    assert torch.equal(clips, dataset[0, 3].clips)
    assert not torch.equal(clips, dataset[1, 3].clips)
    assert not torch.equal(clips, other_seed[0, 3].clips)


def test_loading_leaves_the_generators_of_the_process_alone(cfg):
    torch.manual_seed(0)
    np.random.seed(0)
    batches_of(cfg, "train")
    after = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    assert after == (torch.rand(1), np.random.rand())


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_view_is_tested_exactly_once(cfg, world_size):
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 2, 3
    dataset = build_dataset(cfg, "test")
    assert (dataset.num_videos, dataset.num_views, len(dataset)) == (NUM_VIDEOS, 6, 2 * NUM_VIDEOS)
    seen, bad = [], []
    for rank in range(world_size):
        for batch in batches_of(cfg, "test", rank=rank, world_size=world_size):
            assert len(batch.labels) + 3 * len(batch.bad) <= 3 * -(-cfg.TEST.BATCH_SIZE // world_size)
            seen += zip(batch.video_index.tolist(), batch.view.tolist(), strict=True)
            bad += [video.video_index for video in batch.bad]
    good = [index for index in range(NUM_VIDEOS) if index != BAD]
    assert sorted(seen) == [(index, view) for index in good for view in range(6)]
    assert bad == [BAD, BAD]  # once per temporal clip


def test_views_are_numbered_clip_by_clip(cfg):
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 2, 3
    dataset = build_dataset(cfg, "test")
    assert [dataset[i].views for i in (6, 7)] == [(0, 1, 2), (3, 4, 5)]
    assert [dataset[i].video_index for i in (6, 7)] == [3, 3]
    assert not torch.equal(dataset[6].clips, dataset[7].clips)


def test_validation_is_the_central_crop_of_the_central_clip(cfg):
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 1, 3
    val, test = build_dataset(cfg, "val"), build_dataset(cfg, "test")
    assert (val.num_views, len(val)) == (1, NUM_VIDEOS)
    assert torch.equal(val[2].clips[0], test[2].clips[1])


def test_the_backend_does_not_matter(cfg):
    cfg.DATA.DECODING_BACKEND = "pyav"
    by_pyav = batches_of(cfg, "test")
    cfg.DATA.DECODING_BACKEND = "auto"
    for first, second in zip(by_pyav, batches_of(cfg, "test"), strict=True):
        # In units of the normalised input, 1 grey level is 0.0174.
        torch.testing.assert_close(finished(first), finished(second), rtol=0, atol=0.04)
        assert torch.equal(first.video_index, second.video_index)


def test_datasets_travel_to_workers_that_are_not_forked(cfg):
    dataset = build_dataset(cfg, "train")
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0, 1].clips, dataset[0, 1].clips)


def test_folders_of_images(cfg):
    cfg.DATA.SOURCE = "frames"
    cfg.DATA.PATH_TO_DATA_DIR += "/frames"
    cfg.DATA.LABEL_PATH_TEMPLATE = "{}.txt"
    (batch,) = batches_of(cfg, "val")
    assert batch.labels.tolist() == [0, 2]
    assert batch.clips.shape == (2, 3, 4, SIDE, SIDE)
    assert not batch.bad


def test_what_a_dataset_offers(cfg, data_dir):
    (data_dir / "names.txt").write_text("a\nb\nc\n")
    assert build_dataset(cfg, "val").class_names is None
    cfg.DATA.CLASS_NAMES_FILE = str(data_dir / "names.txt")
    dataset = build_dataset(cfg, "train")
    assert dataset.class_names == ["a", "b", "c"]
    assert dataset.labels.tolist() == [index % 3 for index in range(NUM_VIDEOS)]
    assert len(dataset.records) == dataset.num_videos == NUM_VIDEOS
    assert dataset.num_views == 1


def test_class_names_beside_the_lists_and_a_list_for_test(cfg, tmp_path, data_dir):
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(tmp_path), str(data_dir)
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    (tmp_path / "val.csv").write_text("0.mp4,0\n1.mp4,1\n")
    assert build_dataset(cfg, "test").num_videos == 2
    (tmp_path / "test.csv").write_text("0.mp4,0\n1.mp4,1\n2.mp4,1\n")
    dataset = build_dataset(cfg, "test")
    assert dataset.num_videos == 3
    assert dataset.class_names == ["x", "y", "z"]
    assert dataset[1].label == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("DATA.PATH_TO_DATA_DIR", "", ["folder"]),
        ("DATA.DATASET", "Kinetics", ["'Kinetics'", "VideoList"]),
        ("DATA.SOURCE", "images", ["'images'", "video", "frames"]),
        ("DATA.PATH_LABEL_SEPARATOR", ";", ["';'", "auto"]),
        ("DATA.DECODING_BACKEND", "opencv", ["'opencv'", "pyav", "decord"]),
        ("DATA.FRAME_SAMPLING", "random", ["'random'", "sparse", "dense"]),
        ("DATA.LABEL_PATH_TEMPLATE", "list.csv", ["list.csv", "{}"]),
        ("DATA.NUM_FRAMES", 0, ["0", "at least 1"]),
        ("AUG.NUM_SAMPLE", 0, ["0", "at least 1"]),
        ("TRAIN.BATCH_SIZE", 8, ["8", "7"]),
        ("DATA_LOADER.NUM_WORKERS", -1, ["-1", "at least 0"]),
        ("TEST.BATCH_SIZE", 0, ["0", "at least 1"]),
    ],
)
def test_wrong_values_name_the_key(cfg, key, value, words):
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError) as error:
        construct_loader(cfg, "train")
    for word in [key, *words]:
        assert word in str(error.value)


def test_wrong_image_template(cfg):
    cfg.DATA.SOURCE = "frames"
    cfg.DATA.LABEL_PATH_TEMPLATE = "frames/{}.txt"
    for template in ("frame.jpg", "{:05d}_{:02d}.jpg", "{name}.jpg"):
        cfg.DATA.IMAGE_TEMPLATE = template
        with pytest.raises(ValueError, match=r"DATA\.IMAGE_TEMPLATE"):
            build_dataset(cfg, "val")


def test_collate_keeps_the_order_of_items():
    def sample(index, count):
        return Sample(torch.full((count, 3, 1, 2, 2), index, dtype=torch.uint8), index % 3, index, tuple(range(count)))

    batch = collate([sample(5, 2), BadVideo(6, "a", "b"), sample(3, 1), sample(8, 3)], (3, 1, 2, 2))
    assert batch.video_index.tolist() == [5, 5, 3, 8, 8, 8]
    assert batch.clips[:, 0, 0, 0, 0].tolist() == [5, 5, 3, 8, 8, 8]
    assert batch.labels.tolist() == [2, 2, 0, 2, 2, 2]
    assert batch.view.tolist() == [0, 1, 0, 0, 1, 2]
    assert batch.bad == [BadVideo(6, "a", "b")]


class KilledReader:
    def __call__(self, record):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_error(cfg):
    cfg.DATA_LOADER.NUM_WORKERS = 1
    loader = construct_loader(cfg, "val")
    loader.dataset.open_reader = KilledReader()
    with pytest.raises(RuntimeError, match="worker"):
        next(iter(loader))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_pinned_and_move_to_the_device(cfg):
    cfg.DATA_LOADER.NUM_WORKERS = 2
    batch = batches_of(cfg, "val")[0]
    assert batch.clips.is_pinned()
    moved = batch.to("cuda", non_blocking=True)
    assert moved.clips.is_cuda
    assert torch.equal(moved.clips.cpu(), batch.clips)
