"""A pack gives the frames of the files it was made from, whatever happened on the way, and never those of others."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from numbered_video import read_numbers, write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.decoder.zip import PackedOpener
from slowfast.prepare import zip as packing
from slowfast.prepare.zip import pack_data
from slowfast.utils.errors import UserError

NUM_ITEMS = 6
SPLITS = ("train", "val")


def make_cfg(folder, source="frames", **data):
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 3
    data = {"PATH_TO_DATA_DIR": str(folder), "SOURCE": source} | data
    if source == "image":
        cfg.DATA.NUM_FRAMES, cfg.TEST.NUM_ENSEMBLE_VIEWS = 1, 1
    for key, value in data.items():
        cfg.DATA[key] = value
    return cfg


def with_settings(cfg, settings):
    cfg = cfg.clone()
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    return cfg


def make_media(folder, source):
    """Write items and their lists; the last item is damaged."""
    lines = []
    for index in range(NUM_ITEMS):
        path = folder / f"item {index}"
        num_frames = ""
        if source == "frames":
            write_folder(path, 5 + index)
            num_frames = f"{5 + index},"
        elif source == "video":
            path = path.with_suffix(".webm" if index % 2 else ".mp4")
            write_video(path, 10 + index, codec="libvpx-vp9" if index % 2 else "libx264")
        else:
            path = path.with_suffix(".png")
            cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, (40, 60, 3)))
        lines.append(f"{path.name},{num_frames}{index % 3}\n")
    damaged = path / "00003.jpg" if source == "frames" else path
    damaged.write_bytes(damaged.read_bytes()[:400])
    for split in SPLITS:
        (folder / f"{split}.csv").write_text("".join(lines[split == "val" :]))


@pytest.fixture(scope="module", params=["frames", "video", "image"])
def packed(request, tmp_path_factory):
    """Return (source, folder of the files, folder of the pack, settings that read it)."""
    folder, pack = tmp_path_factory.mktemp(request.param), tmp_path_factory.mktemp("pack") / "out"
    make_media(folder, request.param)
    counts, settings = pack_data(make_cfg(folder, request.param), pack, SPLITS, items_per_zip=2, workers=2)
    assert counts == {"train": (NUM_ITEMS, 0), "val": (NUM_ITEMS - 1, 0)}
    return request.param, folder, pack, settings


def read_all(cfg, split):
    """Return the frames and label of every item, or the error."""
    dataset = build_dataset(cfg, split)
    dataset = pickle.loads(pickle.dumps(dataset))  # as a worker that is not forked has it
    items = []
    for record in dataset.records:
        try:
            with dataset.open(record) as reader:
                items.append((reader.read(range(reader.num_frames)), record.label))
        except DecodeError as error:
            assert error.path == record.path
            items.append(None)
    return items


@pytest.mark.parametrize("protocol", ["", "file://", "memory://"])
def test_items_are_those_of_the_files(packed, protocol):
    source, folder, pack, settings = packed
    cfg = with_settings(make_cfg(folder, source), settings)
    cfg.DATA.PACKED = f"{protocol}{pack}"
    if protocol == "memory://":
        for path in pack.iterdir():
            with fsspec.open(f"{cfg.DATA.PACKED}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
    for split in SPLITS:
        files, items = read_all(make_cfg(folder, source), split), read_all(cfg, split)
        assert len(files) == len(items) and files[-1] is None and items[-1] is None
        for (frames, label), (packed_frames, packed_label) in zip(files[:-1], items[:-1], strict=True):
            assert np.array_equal(frames, packed_frames) and label == packed_label


def test_a_pack_holds_the_bytes_of_the_files_in_zip_files_for_anybody(packed, tmp_path):
    _, folder, pack, _ = packed
    shards = sorted(pack.glob("*.zip"))
    assert len(shards) == 3
    for shard in shards:
        shutil.unpack_archive(shard, tmp_path)
    for clip in tmp_path.glob("*.zip"):
        shutil.unpack_archive(clip, clip.with_suffix(""))
        clip.unlink()
    contents = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    media = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv")
    assert contents == {path.relative_to(folder): path.read_bytes() for path in media}


def test_an_item_takes_one_request(packed, monkeypatch):
    source, folder, pack, settings = packed
    opener = PackedOpener(f"memory://{pack}", source)
    records = build_dataset(
        with_settings(make_cfg(folder, source), settings | {"DATA.PACKED": opener.root}), "train"
    ).records
    requests = []
    fs = fsspec.filesystem("memory")
    real = type(fs).cat_file
    monkeypatch.setattr(type(fs), "cat_file", lambda *args: requests.append(args[1:]) or real(*args))
    opener(records[1]).read([0])
    (((path, start, end)),) = requests
    assert end - start < fs.size(path)


@pytest.fixture
def clips(tmp_path):
    for index in range(NUM_ITEMS):
        write_folder(tmp_path / "media" / "deep" / str(index), 3)
    lines = [f"deep/{index},3,{index % 3}\n" for index in range(NUM_ITEMS)]
    for split in SPLITS:
        (tmp_path / "media" / f"{split}.csv").write_text("".join(lines))
    (tmp_path / "media" / "classes.txt").write_text("a\nb\nc\n")
    return make_cfg(tmp_path / "media")


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("error", [Interrupt, RuntimeError])
def test_an_interrupted_pack_is_completed_without_repeating_files(clips, tmp_path, monkeypatch, error):
    pack_data(clips, tmp_path / "whole", SPLITS, items_per_zip=1, workers=4)
    out = tmp_path / "out"
    read = []
    real = packing._read_item

    def read_item(record, dataset):
        read.append(record.path[-1])
        if len(read) == 3:
            raise error("no space left")
        return real(record, dataset)

    monkeypatch.setattr(packing, "_read_item", read_item)
    with pytest.raises(error):
        pack_data(clips, out, SPLITS, items_per_zip=1, workers=1)
    names = {path.name for path in out.iterdir()}
    assert {"00000.zip", "00001.zip"} <= names and not {"00002.zip", "train.txt"} & names
    before = list(read)
    pack_data(clips, out, SPLITS, items_per_zip=1, workers=1)
    assert not {"0", "1"} & set(read[len(before) :]) and "2" in read[len(before) :]
    assert content_of(out) == content_of(tmp_path / "whole")  # whatever the workers and interruptions
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.zip")}
    pack_data(clips, out, SPLITS, items_per_zip=1)
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.zip")}


def test_nothing_else_is_overwritten(clips, tmp_path):
    out = tmp_path / "out"
    pack_data(clips, out, SPLITS)
    before = content_of(out)
    for cfg, options in ((clips, {"items_per_zip": 2}), (with_settings(clips, {"DATA.EXCLUDE_FILE": ""}), {})):
        if not options:
            (tmp_path / "media" / "train.csv").write_text("deep/0,3,1\n")
            (tmp_path / "media" / "val.csv").write_text("deep/0,3,1\n")
        with pytest.raises(UserError, match="or a pack of other items"):
            pack_data(cfg, out, SPLITS, **options)
    assert content_of(out) == before
    with pytest.raises(UserError, match="holds something else"):
        pack_data(clips, tmp_path / "media", SPLITS)  # where the lists of the files are
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        pack_data(clips, tmp_path / "file", SPLITS)
    with pytest.raises(UserError, match="DATA.PACKED is .*leave it empty"):
        pack_data(with_settings(clips, {"DATA.PACKED": "x"}), tmp_path / "other", SPLITS)


def test_two_processes_write_one_pack(clips, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(pack_data, clips, tmp_path / "out", SPLITS, 1) for _ in range(2)]
        assert both[0].result() == both[1].result()


def test_items_with_missing_files_are_left_out_and_said(clips, tmp_path, caplog):
    os.remove(tmp_path / "media" / "deep" / "1" / "00002.jpg")
    shutil.rmtree(tmp_path / "media" / "deep" / "4")
    for _ in range(2):
        counts, settings = pack_data(clips, tmp_path / "out", SPLITS)
        assert counts == dict.fromkeys(SPLITS, (NUM_ITEMS - 2, 2))
    assert "deep/1/00002.jpg" in caplog.text and "deep/4" in caplog.text
    dataset = build_dataset(with_settings(clips, settings), "train")
    assert [Path(record.path).name for record in dataset.records] == ["0", "2", "3", "5"]
    assert dataset.class_names == ["a", "b", "c"]


def test_image_folders_are_packed_by_the_contract_of_data_sets(tmp_path):
    for split, name, index in [(split, name, index) for split in SPLITS for name in "abc" for index in range(2)]:
        (tmp_path / "images" / split / name).mkdir(parents=True, exist_ok=True)
        image = np.full((8, 8, 3), 50 * index + "abc".index(name), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / split / name / f"{index}.png"), image)
    cfg = make_cfg(tmp_path / "images", "image", DATASET="ImageFolder")
    cfg.DATA.SOURCE = "video"  # which ImageFolder does not read
    _, settings = pack_data(cfg, tmp_path / "packed folder", SPLITS)
    for split in SPLITS:
        items = read_all(with_settings(cfg, settings), split)
        assert [(int(frames[0, 0, 0, 0]), label) for frames, label in items] == [
            (50 * index + label, label) for label in range(3) for index in range(2)
        ]


def test_damage_in_a_pack_is_found(clips, tmp_path):
    _, settings = pack_data(clips, tmp_path / "out", SPLITS)
    dataset = build_dataset(with_settings(clips, settings), "train")
    shard = tmp_path / "out" / "00000.zip"
    content = bytearray(shard.read_bytes())
    with zipfile.ZipFile(shard) as file:
        at = file.infolist()[1].header_offset + 700  # in the first frame of the second clip
    content[at] ^= 1
    shard.write_bytes(content)
    assert read_numbers(dataset.open(dataset.records[0]).read(range(3))) == [0, 1, 2]
    assert read_numbers(dataset.open(dataset.records[1]).read([1, 2])) == [1, 2]
    with pytest.raises(DecodeError, match=r"00001\.jpg is Bad CRC-32"):
        dataset.open(dataset.records[1]).read([0])
    os.truncate(shard, at)
    with pytest.raises(DecodeError, match="truncated or damaged in .*00000.zip"):
        dataset.open(dataset.records[1])
    with pytest.raises(UserError, match="DATA.PACKED is .* cannot be read: BadZipFile: .*00000.zip is truncated"):
        build_dataset(with_settings(clips, settings), "train")


def test_wrong_packs_and_lists_are_errors(clips, tmp_path):
    _, settings = pack_data(clips, tmp_path / "out", SPLITS)
    cfg = with_settings(clips, settings)
    cases = {"nothing://folder": "nothing", "memory://no/pack": "no/pack", str(tmp_path): "has no ZIP files"}
    if not importlib.util.find_spec("s3fs"):
        cases["s3://bucket/folder"] = "s3fs"
    for root, words in cases.items():
        with pytest.raises(UserError, match=f"DATA.PACKED is .*{words}"):
            build_dataset(with_settings(cfg, {"DATA.PACKED": root}), "train")
    (tmp_path / "out" / "train.txt").write_text("0\t3\t0\nelsewhere\t3\t1\n")
    with pytest.raises(UserError, match=r"train\.txt:2: 'elsewhere.zip' is not in .*1 of 2 items"):
        build_dataset(cfg, "train")
