"""Packed data gives the samples of the files it was made from, and a wrong pack never gives others."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import tarfile

import cv2
import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from numbered_video import read_numbers, write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets import storage
from slowfast.datasets.build import build_dataset
from slowfast.datasets.decoder import DecodeError, FrameFolder
from slowfast.datasets.loader import construct_loader
from slowfast.datasets.pack_index import INDEX_FILE, PackIndex
from slowfast.datasets.packed import PackedOpener
from slowfast.prepare.pack import construct_pack

NUM_CLIPS = 6
SIDE = 32


def make_media(folder, source):
    """Write clips and their lists; the last one is damaged."""
    lines = []
    for index in range(NUM_CLIPS):
        path, label = folder / f"clip {index}", index % 3
        if source == "frames":
            write_folder(path, 5 + index)
            lines.append(f"clip {index},{5 + index},{label}\n")
            continue
        path = path.with_suffix({"video": ".webm" if index % 2 else ".mp4", "image": ".png"}[source])
        if source == "video":
            write_video(path, 10 + index, codec="libvpx-vp9" if index % 2 else "libx264")
        else:
            cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, (40, 60, 3)))
        lines.append(f"{path.name},{label}\n")
    damaged = path / "00003.jpg" if source == "frames" else path
    damaged.write_bytes(damaged.read_bytes()[:400])
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("".join(lines))


@pytest.fixture(scope="module", params=["frames", "video", "image"])
def folders(request, tmp_path_factory):
    """Return (source, folder of the files, folder of the pack)."""
    folder = tmp_path_factory.mktemp(request.param)
    make_media(folder, request.param)
    pack = tmp_path_factory.mktemp("pack") / "out"
    settings = construct_pack(make_cfg(request.param, folder), pack, workers=2)[1]
    assert settings == {"DATA.PACKED": str(pack), "DATA.PATH_TO_DATA_DIR": str(pack)}
    return request.param, folder, pack


def make_cfg(source, folder, packed=""):
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PACKED, cfg.DATA.SOURCE = str(folder), str(packed), source
    cfg.DATA.NUM_FRAMES = 1 if source == "image" else 4
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = SIDE
    cfg.MODEL.NUM_CLASSES = 3
    cfg.TRAIN.BATCH_SIZE = cfg.TEST.BATCH_SIZE = NUM_CLIPS // 2
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS = 1 if source == "image" else 2, 3
    cfg.DATA_LOADER.NUM_WORKERS = 0
    return cfg


def assert_same_batches(first_cfg, second_cfg, split):
    loaders = [construct_loader(cfg, split) for cfg in (first_cfg, second_cfg)]
    num_clips, bad = 0, []
    for epoch in range(2 if split == "train" else 1):
        if split == "train":
            for loader in loaders:
                loader.sampler.set_epoch(epoch)
        for first, second in zip(*loaders, strict=True):
            for name in ("clips", "labels", "video_index", "view"):
                assert torch.equal(getattr(first, name), getattr(second, name))
            assert [item.video_index for item in first.bad] == [item.video_index for item in second.bad]
            num_clips += len(second.clips)
            bad += second.bad
    assert num_clips
    assert {item.video_index for item in bad} == {NUM_CLIPS - 1}
    return bad


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_those_of_the_files(folders, split, num_workers):
    source, folder, pack = folders
    packed_cfg = make_cfg(source, pack, pack)
    packed_cfg.DATA_LOADER.NUM_WORKERS = num_workers
    bad = assert_same_batches(make_cfg(source, folder), packed_cfg, split)
    member = {"frames": ".00003.jpg", "video": ".webm", "image": ".png"}[source]
    assert f"member clip 5{member} of train-000000.tar" in bad[0].reason
    assert bad[0].path == str(pack / "clip 5")
    assert f"{split if split == 'train' else 'val'}.csv:6" in bad[0].reason


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_samples_through_urls(folders, split, protocol):
    source, folder, pack = folders
    url = f"file://{pack}"
    if protocol == "memory":
        url = f"memory://packs/{source}"
        for path in pack.iterdir():
            with fsspec.open(f"{url}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
    packed_cfg = make_cfg(source, pack, url)
    packed_cfg.DATA_LOADER.NUM_WORKERS = 1 if split == "test" else 0
    assert_same_batches(make_cfg(source, folder), packed_cfg, split)


def test_a_pack_is_a_tar_of_the_files_that_webdataset_tools_group_by_clip(folders):
    source, folder, pack = folders
    samples = {}
    with tarfile.open(pack / "train-000000.tar") as shard:
        for member in shard:
            key, _, field = member.name.partition(".")
            assert key not in list(samples)[:-1]  # the files of a sample lie next to each other
            samples.setdefault(key, {})[field] = shard.extractfile(member).read()
    assert list(samples) == [f"clip {index}" for index in range(NUM_CLIPS)]
    assert [int(sample.pop("cls")) for sample in samples.values()] == [index % 3 for index in range(NUM_CLIPS)]
    if source == "frames":
        expected = {clip: {p.name: p.read_bytes() for p in sorted((folder / clip).iterdir())} for clip in samples}
    else:
        expected = {p.stem: {p.suffix[1:]: p.read_bytes()} for p in sorted(folder.iterdir()) if p.suffix != ".csv"}
    assert samples == expected


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Return (folder of frames, its pack, its record) of a clip of 100 frames."""
    folder, pack = tmp_path_factory.mktemp("long"), tmp_path_factory.mktemp("long_pack")
    write_folder(folder / "a", 100)
    write_folder(folder / "b", 3)
    (folder / "train.csv").write_text("a,100,0\nb,3,1\n")
    construct_pack(make_cfg("frames", folder), pack)
    return folder / "a", pack, build_dataset(make_cfg("frames", pack, pack), "train").records[0]


NEEDED = [*range(3, 99, 6), 3]


def count_reads(monkeypatch, read):
    """Return (files opened, bytes read) by os and NumPy calls during ``read``."""
    opened, num_bytes = [], []
    real_open, real_pread, real_fromfile = os.open, os.pread, np.fromfile

    def fromfile(path, *args):
        data = real_fromfile(path, *args)
        opened.append(path)
        num_bytes.append(data.nbytes)
        return data

    def pread(*args):
        data = real_pread(*args)
        num_bytes.append(len(data))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(np, "fromfile", fromfile)
        patch.setattr(os, "pread", pread)
        patch.setattr(os, "open", lambda path, *args: opened.append(path) or real_open(path, *args))
        read()
    return len(opened), sum(num_bytes)


def test_only_the_needed_frames_are_read_and_no_file_is_opened_for_them(long_clip, monkeypatch):
    folder, pack, record = long_clip
    open_reader = PackedOpener(str(pack), "frames", "auto")
    assert read_numbers(open_reader(record).read(NEEDED)) == NEEDED
    needed_bytes = sum((folder / f"{index + 1:05d}.jpg").stat().st_size for index in set(NEEDED))
    by_folder = count_reads(monkeypatch, lambda: FrameFolder(str(folder), "{:05d}.jpg", 1, 100).read(NEEDED))
    by_pack = count_reads(monkeypatch, lambda: open_reader(record).read(NEEDED))
    assert by_folder == (16, needed_bytes)
    assert by_pack == (0, needed_bytes)


def test_urls_are_asked_for_a_few_ranges_instead_of_whole_shards(long_clip, monkeypatch):
    _, pack, _ = long_clip
    dataset = build_dataset(make_cfg("frames", pack, f"file://{pack}"), "train")
    requests = []
    real = LocalFileSystem.cat_file

    def cat_file(self, path, start=None, end=None, **kwargs):
        requests.append((start, end))
        return real(self, path, start, end, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)
    assert read_numbers(dataset.open_reader(dataset.records[0]).read(NEEDED)) == NEEDED
    index = dataset.open_reader.index
    # Frames of a few kB: one request costs less than sixteen.
    assert requests == [(index.offsets[3], index.offsets[93] + index.sizes[93])]


def test_far_ranges_are_requests_of_their_own(tmp_path):
    content = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "file").write_bytes(content)
    ranges = [(900_000, 50), (0, 10), (5, 20), (1 << 17, 1000), (131_500, 100), (1_048_570, 100)]
    assert list(storage._merge(ranges)) == [(0, 25), (131_072, 132_072), (900_000, 900_050), (1_048_570, 1_048_670)]
    assert storage.UrlFolder(f"file://{tmp_path}").read("file", ranges) == [content[a : a + size] for a, size in ranges]


def test_many_shards_are_read_with_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_MAX_OPEN_FILES", 3)
    for number in range(9):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10)
    folder = storage.LocalFolder(str(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for number in list(range(9)) * 2:
        assert folder.read(str(number), [(2, 3)]) == [bytes([number]) * 3]
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_a_pack_travels_to_workers_that_are_not_forked(long_clip):
    _, pack, _ = long_clip
    for root in (str(pack), f"file://{pack}"):
        dataset = build_dataset(make_cfg("frames", pack, root), "train")
        dataset[0, 0]
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[0, 0].clips, dataset[0, 0].clips)


@pytest.fixture
def small_pack(tmp_path):
    """Return (cfg that reads it, folder) of a pack of two clips."""
    for clip in "ab":
        write_folder(tmp_path / "media" / clip, 6)
    (tmp_path / "media" / "train.csv").write_text("a,6,0\nb,6,1\n")
    pack = tmp_path / "pack"
    construct_pack(make_cfg("frames", tmp_path / "media"), pack)
    return make_cfg("frames", pack, pack), pack


def change_byte(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_one_flipped_bit_in_a_frame_is_found(small_pack):
    cfg, pack = small_pack
    opener = PackedOpener(str(pack), "frames", "auto")
    records = build_dataset(cfg, "train").records
    change_byte(pack / "train-000000.tar", int(opener.index.offsets[8]) + 700)
    assert read_numbers(opener(records[0]).read(range(6))) == list(range(6))
    assert read_numbers(opener(records[1]).read([0, 1, 3])) == [0, 1, 3]
    with pytest.raises(DecodeError, match=r"member b\.00003\.jpg of train-000000\.tar is damaged: its checksum"):
        opener(records[1]).read([0, 2])


def test_a_shard_that_is_cut_or_removed_during_a_run_is_a_bad_video(small_pack):
    cfg, pack = small_pack
    dataset = build_dataset(cfg, "train")
    shard = pack / "train-000000.tar"
    os.truncate(shard, int(PackedOpener(str(pack), "frames", "auto").index.offsets[7]) + 5)
    reader = dataset.open_reader(dataset.records[1])
    with pytest.raises(DecodeError, match=r"b\.00002\.jpg of train-000000\.tar is truncated: 5 of \d+ bytes"):
        reader.read([0, 1])
    shard.unlink()
    with pytest.raises(DecodeError, match=r"a\.00001\.jpg of train-000000\.tar cannot be read"):
        pickle.loads(pickle.dumps(dataset.open_reader))(dataset.records[0]).read([0])


@pytest.mark.parametrize("url", ["", "file://"])
def test_a_stale_index_is_an_error(small_pack, url):
    cfg, pack = small_pack
    cfg.DATA.PACKED = url + cfg.DATA.PACKED
    shard = pack / "train-000000.tar"
    content = shard.read_bytes()

    def refuses(error, *words):
        with pytest.raises(error) as info:
            build_dataset(cfg, "train")
        assert [word for word in (str(pack), *words) if word not in str(info.value)] == []

    shard.write_bytes(content + bytes(512))
    refuses(ValueError, shard.name, f"{len(content) + 512} bytes", "stale")
    shard.write_bytes(content[:600] + b"x" + content[601:])
    refuses(ValueError, shard.name, "other content", "stale")
    shard.unlink()
    refuses(FileNotFoundError, shard.name, "missing")
    shard.write_bytes(content)
    os.utime(shard, (0, 0))  # a copy has another time
    build_dataset(cfg, "train")

    index = pack / INDEX_FILE
    good = index.read_bytes()
    for damaged in (b"", b"text", good[: len(good) // 2], good[:-200]):
        index.write_bytes(damaged)
        refuses(ValueError, INDEX_FILE, "not the index of a pack")
    buffer = io.BytesIO()
    np.savez(buffer, version=99)
    index.write_bytes(buffer.getvalue())
    refuses(ValueError, INDEX_FILE, "version 1")
    index.unlink()
    refuses(FileNotFoundError, INDEX_FILE, "prepare_data.py pack")


def test_indices_of_very_large_and_small_shards_join_exactly():
    def part(offset):
        one, name = np.array([1]), np.array([b"name"])
        return PackIndex("", "video", name.astype(str), one, one, name, name, one * 0, one, one * offset, one, one)

    offsets = [5, 2**53 + 1, 7]
    parts = [PackIndex.from_bytes(part(offset).to_bytes(), "part") for offset in offsets]
    assert parts[0].offsets.dtype == np.uint32
    index = PackIndex.from_bytes(PackIndex.concatenate(parts).to_bytes(), "index")
    assert index.offsets.tolist() == offsets
    assert index.item_shard.tolist() == [0, 1, 2]


def test_a_damaged_index_never_passes(small_pack):
    _, pack = small_pack
    content = (pack / INDEX_FILE).read_bytes()
    good = PackIndex.from_bytes(content, "index")
    for offset in range(7, len(content), 97):
        damaged = bytearray(content)
        damaged[offset] ^= 16
        try:
            index = PackIndex.from_bytes(bytes(damaged), "index")
        except ValueError:
            continue
        assert index.to_bytes() == good.to_bytes()  # in what zip files do not use


def test_lists_that_do_not_fit_the_pack_are_errors(small_pack, tmp_path):
    cfg, pack = small_pack
    lines = pack / "train.csv"
    for content, words in (
        ("a\t6\t0\nc\t6\t1\n", ["1 of 2", "train.csv:2", "'c'", "DATA.PACKED"]),
        ("a\t5\t0\nb\t6\t1\n", ["train.csv:1", "5", "6 frames"]),
        ("/elsewhere/a\t6\t0\n", ["1 of 1", "elsewhere/a"]),
    ):
        lines.write_text(content)
        with pytest.raises(ValueError) as info:
            build_dataset(cfg, "train")
        assert [word for word in words if word not in str(info.value)] == []


@pytest.mark.parametrize("url", ["", "file://"])
def test_items_are_left_out_by_the_names_in_the_lists(small_pack, tmp_path, url):
    """Also where the lists are not beside the shards."""
    cfg, pack = small_pack
    pack = pack.rename(tmp_path / "shards")
    (tmp_path / "lists").mkdir()
    (pack / "train.csv").rename(tmp_path / "lists" / "train.csv")
    (tmp_path / "out.txt").write_text("b\n")
    cfg.merge_from_list(["DATA.PACKED", f"{url}{pack}", "DATA.PATH_TO_DATA_DIR", str(tmp_path / "lists")])
    cfg.DATA.EXCLUDE_FILE = str(tmp_path / "out.txt")
    assert [record.path for record in build_dataset(cfg, "train").records] == [f"{url}{pack}/a"]


@pytest.mark.parametrize(
    ("opts", "error", "words"),
    [
        (["DATA.PACKED", "s3://bucket/folder"], ModuleNotFoundError, ["s3://bucket/folder", "s3fs"]),
        (["DATA.PACKED", "nothing://folder"], ValueError, ["nothing://folder", "fsspec"]),
        (["DATA.PACKED", "memory://no/pack"], FileNotFoundError, ["memory://no/pack", INDEX_FILE]),
        (["DATA.PATH_PREFIX", "/frames"], ValueError, ["DATA.PATH_PREFIX", "/frames", "DATA.PACKED"]),
        (["DATA.DECODING_BACKEND", "opencv"], ValueError, ["DATA.DECODING_BACKEND"]),
    ],
)
def test_wrong_settings(small_pack, opts, error, words):
    cfg, _ = small_pack
    if error is ModuleNotFoundError and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    cfg.merge_from_list(opts)
    with pytest.raises(error) as info:
        build_dataset(cfg, "train")
    assert [word for word in words if word not in str(info.value)] == []


def test_a_pack_of_another_source_is_an_error(small_pack):
    cfg, pack = small_pack
    cfg.DATA.SOURCE = "image"
    cfg.DATA.NUM_FRAMES = cfg.TEST.NUM_ENSEMBLE_VIEWS = 1
    (pack / "train.csv").write_text("a\t0\n")
    with pytest.raises(ValueError, match=r"holds 'frames', DATA\.SOURCE is 'image'"):
        build_dataset(cfg, "train")
