"""From list files on disk to batches, through the configuration."""

import itertools
import os
import pickle
import signal
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from numbered_video import write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import DATASET_REGISTRY, build_dataset
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.loader import Batch, construct_loader, explained
from slowfast.datasets.manifest import Record
from slowfast.utils.errors import UserError

NUM_VIDEOS = 7
BAD = 4  # this video is damaged
SIDE = 32


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


def assert_equal(first: list[Batch], second: list[Batch]):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in ("labels", "video_index", "view"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(a.clips, b.clips)
        assert a.bad == b.bad


def test_training_batch(cfg):
    (batch,) = batches_of(cfg, "train")
    assert batch.clips.shape == (2 * (NUM_VIDEOS - 1), 3, 4, SIDE, SIDE)
    assert batch.clips.dtype == torch.uint8 and batch.clips.stride(1) == 1  # channels last
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
    assert batch.labels.shape == batch.video_index.shape == batch.view.shape == (0,)
    assert batch.labels.dtype == batch.video_index.dtype == torch.int64
    assert len(batch.bad) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_do_not_depend_on_the_workers(cfg, split):
    in_process = batches_of(cfg, split, epoch=2)
    cfg.DATA_LOADER.NUM_WORKERS = 2
    by_workers = batches_of(cfg, split, epoch=2)
    assert_equal(in_process, by_workers)
    assert by_workers[0].clips.stride() == in_process[0].clips.stride()


def test_training_samples_do_not_depend_on_the_processes(cfg):
    cfg.TRAIN.BATCH_SIZE = 6
    (whole,) = batches_of(cfg, "train", epoch=1)
    halves = [batches_of(cfg, "train", epoch=1, rank=rank, world_size=2)[0] for rank in range(2)]
    clip_of = {(v, w): clip for v, w, clip in zip(whole.video_index.tolist(), whole.view.tolist(), whole.clips)}
    assert sum(len(half.clips) for half in halves) == len(clip_of)
    for half in halves:
        for v, w, clip in zip(half.video_index.tolist(), half.view.tolist(), half.clips):
            assert torch.equal(clip, clip_of[v, w])


def test_epochs_draw_anew_and_seeds_differ(cfg):
    dataset = build_dataset(cfg, "train")
    cfg.RNG_SEED = 1
    other_seed = build_dataset(cfg, "train")
    clips = dataset[0, 3].clips
    assert torch.equal(clips, dataset[0, 3].clips)
    assert torch.equal(clips, dataset[0, 3, 0].clips) and dataset[0, 3, 1].views == (2, 3)
    assert not torch.equal(clips, dataset[0, 3, 1].clips)  # the second time in a row (AUG.SAMPLER_REPEATS)
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


@pytest.mark.parametrize("world_size", [1, 3])
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
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 1  # validation is the central crop of the central clip
    assert torch.equal(build_dataset(cfg, "val")[2].clips[0], build_dataset(cfg, "test")[2].clips[1])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("DATA.PATH_TO_DATA_DIR", "", ['is ""', "folder"]),
        ("DATA.DATASET", "Kinetics", ["'Kinetics'", "VideoList"]),
        ("DATA.LABEL_PATH_TEMPLATE", "list.csv", ["list.csv", "{}"]),
        ("TRAIN.BATCH_SIZE", 8, ["8", "7"]),
        ("DATA.EXCLUDE_FILE", "none.csv", ["none.csv"]),
    ],
)
def test_wrong_values_name_the_key(cfg, key, value, words):
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError) as error:
        construct_loader(cfg, "train")
    for word in [key, *words]:
        assert word in str(error.value)


def test_excluded_videos_are_left_out_and_counted(cfg, data_dir, tmp_path, caplog):
    cfg.DATA.EXCLUDE_FILE = str(tmp_path / "bad.txt")
    (tmp_path / "bad.txt").write_text(f"{BAD}.mp4\nnowhere.mp4\n")
    with caplog.at_level("INFO"):
        dataset = build_dataset(cfg, "train")
    assert dataset.num_videos == len(dataset.labels) == NUM_VIDEOS - 1
    assert f"leaves out 1 of {NUM_VIDEOS} train videos" in caplog.text
    assert "1 of its 2 paths name none of these" in caplog.text
    (tmp_path / "bad.txt").write_text("".join(f"{index}.mp4\n" for index in range(NUM_VIDEOS)))
    with pytest.raises(UserError, match=r"names all videos of train"):
        build_dataset(cfg, "train")


def test_class_names_beside_the_lists_and_a_list_for_test(cfg, tmp_path, data_dir):
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(tmp_path), str(data_dir)
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    for split, lines in (("val", "0.mp4,0\n1.mp4,1\n"), ("test", "0.mp4,0\n1.mp4,1\n2.mp4,1\n")):
        (tmp_path / f"{split}.csv").write_text(lines)
        dataset = build_dataset(cfg, "test")
        assert dataset.num_videos == lines.count("\n") and dataset.class_names == ["x", "y", "z"]


def test_wrong_image_template(cfg):
    cfg.DATA.SOURCE = "frames"
    cfg.DATA.LABEL_PATH_TEMPLATE = "frames/{}.txt"
    for template in ("frame.jpg", "{:05d}_{:02d}.jpg", "{name}.jpg"):
        cfg.DATA.IMAGE_TEMPLATE = template
        with pytest.raises(UserError, match=r"DATA\.IMAGE_TEMPLATE"):
            build_dataset(cfg, "val")


class Counting:
    """A data set of one's own: three videos of four frames, one of which is damaged."""

    class Frames(FrameReader):
        path, num_frames = "counting", 4

        def _decode(self, needed):
            return {index: np.full((40, 50, 3), index, np.uint8) for index in needed}

    def __init__(self):
        self.records = [Record(f"{index}", index % 2, None, f"counting:{index}") for index in range(3)]
        self.class_names = ["even", "odd"]

    @classmethod
    def from_config(cls, cfg, split):
        return cls()

    def open(self, record):
        if record.path == "1":
            raise DecodeError(record.path, "damaged")
        return self.Frames()


@pytest.fixture
def images(tmp_path):
    for split, name in itertools.product(("train", "val"), "abc"):
        write_folder(tmp_path / split / name, 2)
    return str(tmp_path)


@pytest.mark.parametrize("name", [name for name, _ in DATASET_REGISTRY] + ["Counting"])
def test_every_data_set_keeps_the_contract(cfg, name, images, monkeypatch):
    cfg.DATA.DATASET, cfg.TRAIN.BATCH_SIZE, cfg.TEST.NUM_SPATIAL_CROPS = name, 3, 3
    if name == "ImageFolder":
        cfg.DATA.NUM_FRAMES, cfg.DATA.PATH_TO_DATA_DIR = 1, images
    if name == "Rendered":
        settings = ("MODEL.NUM_CLASSES", 8, "DATA.FRAME_SAMPLING", "dense", "DATA.SAMPLING_RATE", 1)
        cfg.merge_from_list([*settings, "TEST.NUM_SPATIAL_CROPS", 1, "DATA.ARGS.num_train", 8, "DATA.ARGS.num_val", 8])
    if name == "Counting":
        monkeypatch.setitem(DATASET_REGISTRY._obj_map, name, Counting)
    for split in ("train", "val", "test"):
        dataset = pickle.loads(pickle.dumps(build_dataset(cfg, split)))  # as for workers that are not forked
        assert len(dataset.records) == dataset.num_videos == len(dataset.labels)
        assert dataset.labels.tolist() == [record.label for record in dataset.records]
        with dataset.open(dataset.records[0]) as reader:
            assert reader.read([reader.num_frames - 1]).shape[3] == 3
        num_bad = {"VideoList": 1, "Counting": 1}.get(name, 0)
        views = [0] * dataset.num_videos
        for batch in batches_of(cfg, split):
            assert batch.clips.shape[1:] == (3, cfg.DATA.NUM_FRAMES, SIDE, SIDE)
            assert batch.labels.tolist() == dataset.labels[batch.video_index].tolist()
            for video in batch.video_index.tolist():
                views[video] += 1
        if split != "train":
            assert sorted(views) == [0] * num_bad + [dataset.num_views] * (dataset.num_videos - num_bad)


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(cfg, monkeypatch):
    cfg.DATA_LOADER.NUM_WORKERS = 1
    loader = construct_loader(cfg, "val")
    monkeypatch.setattr(loader.dataset, "open", lambda record: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match="worker") as error:
        next(iter(loader))
    assert "use fewer DATA_LOADER.NUM_WORKERS" in str(explained(error.value))
    for other in (RuntimeError("size mismatch"), EOFError(), FileNotFoundError("a file of the user's")):
        assert explained(other) is other


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError, FileNotFoundError])
def test_a_worker_that_dies_while_it_hands_over_a_batch_is_the_same_error(cfg, monkeypatch, error):
    cfg.DATA_LOADER.NUM_WORKERS = 1
    loader = construct_loader(cfg, "val")

    def lost(identity):
        raise error

    monkeypatch.setattr(resource_sharer._resource_sharer, "get_connection", lost)
    with pytest.raises(error) as found:
        next(iter(loader))
    assert f"lost with a batch ({error.__name__}). A killed worker" in str(explained(found.value))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_pinned_and_move_to_the_device(cfg):
    cfg.DATA_LOADER.NUM_WORKERS = 2
    batch = batches_of(cfg, "val")[0]
    assert batch.clips.is_pinned()
    moved = batch.to("cuda", non_blocking=True)
    assert moved.clips.is_cuda
    assert torch.equal(moved.clips.cpu(), batch.clips)
