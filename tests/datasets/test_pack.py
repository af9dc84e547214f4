"""A pack gives the frames of the files it was made from, whatever happened on the way, and never those of others."""

import importlib.util
import os
import pickle
import shlex
import shutil
import zipfile
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from helpers_engine import load_tool
from numbered_video import read_numbers, write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.decoder import DecodeError
from slowfast.prepare import zip as packing
from slowfast.prepare.zip import pack_data
from slowfast.utils.errors import UserError

NUM_ITEMS = 6
SPLITS = ("train", "val")


def make_cfg(folder, source="frames", **data):
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 3
    if source == "image":
        cfg.DATA.NUM_FRAMES, cfg.TEST.NUM_ENSEMBLE_VIEWS = 1, 1
    data = {"PATH_TO_DATA_DIR": str(folder), "SOURCE": source} | data
    return with_settings(cfg, {f"DATA.{key}": value for key, value in data.items()})


def with_settings(cfg, settings):
    cfg = cfg.clone()
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    return cfg


def make_media(folder, source):
    """Write items of 5 to 10 frames and their lists; the last item is damaged."""
    lines = []
    for index in range(NUM_ITEMS):
        path = folder / f"item {index}"
        if source == "frames":
            write_folder(path, 5 + index)
        elif source == "video":
            path = path.with_suffix(".webm" if index % 2 else ".mp4")
            write_video(path, 5 + index, codec="libvpx-vp9" if index % 2 else "libx264")
        else:
            path = path.with_suffix(".png")
            cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, (40, 60, 3)))
        count = f"{5 + index}," if source == "frames" else ""
        lines.append(f"{path.name},{count}{index % 3}\n")
    damaged = path / "00003.jpg" if source == "frames" else path
    damaged.write_bytes(damaged.read_bytes()[:400])
    for split in SPLITS:
        (folder / f"{split}.csv").write_text("".join(lines[split == "val" :]))


def read_all(cfg, split):
    """Return the frames and label of every item, None for one that cannot be read."""
    dataset = pickle.loads(pickle.dumps(build_dataset(cfg, split)))  # as a worker that is not forked has it
    items = []
    for record in dataset.records:
        try:
            with dataset.open(record) as reader:
                items.append((reader.read(range(reader.num_frames)), record.label))
        except DecodeError as error:
            assert error.path == record.path
            items.append(None)
    return items


@pytest.mark.parametrize("source", ["frames", "video", "image"])
def test_items_and_bytes_are_those_of_the_files(tmp_path, source, monkeypatch):
    (tmp_path / "media").mkdir()
    make_media(tmp_path / "media", source)
    cfg, pack = make_cfg(tmp_path / "media", source), tmp_path / "pack"
    counts, settings = pack_data(cfg, pack, SPLITS, items_per_zip=2, workers=2)
    assert counts == {"train": (NUM_ITEMS, 0), "val": (NUM_ITEMS - 1, 0)}
    for path in pack.iterdir():
        with fsspec.open(f"memory://{path}", "wb") as file:
            file.write(path.read_bytes())
    requests = []
    memory = type(fsspec.filesystem("memory"))
    real = memory.cat_file
    monkeypatch.setattr(memory, "cat_file", lambda *args: requests.append(args[1:]) or real(*args))
    for protocol in ("", "file://", "memory://"):
        packed = with_settings(cfg, settings | {"DATA.PACKED": f"{protocol}{pack}"})
        for split in SPLITS:
            files, items = read_all(cfg, split), read_all(packed, split)
            assert len(files) == len(items) and files[-1] is None and items[-1] is None
            for (frames, label), (packed_frames, packed_label) in zip(files[:-1], items[:-1], strict=True):
                assert np.array_equal(frames, packed_frames) and label == packed_label
    assert len(requests) == 2 * NUM_ITEMS - 1  # one for an item
    assert max(end - start for _, start, end in requests) < max(path.stat().st_size for path in pack.glob("*.zip"))

    for shard in pack.glob("*.zip"):  # anybody can open them
        shutil.unpack_archive(shard, tmp_path / "again")
    for clip in (tmp_path / "again").glob("*.zip"):
        shutil.unpack_archive(clip, clip.with_suffix(""))
        clip.unlink()
    for path in (path for path in (tmp_path / "media").rglob("*") if path.is_file() and path.suffix != ".csv"):
        assert (tmp_path / "again" / path.relative_to(tmp_path / "media")).read_bytes() == path.read_bytes()


@pytest.fixture
def clips(tmp_path):
    """Return a configuration of six clips of three frames."""
    for index in range(NUM_ITEMS):
        write_folder(tmp_path / "media" / "deep" / str(index), 3)
    for split in SPLITS:
        lines = [f"deep/{index},3,{index % 3}\n" for index in range(NUM_ITEMS)]
        (tmp_path / "media" / f"{split}.csv").write_text("".join(lines))
    (tmp_path / "media" / "classes.txt").write_text("a\nb\nc\n")
    return make_cfg(tmp_path / "media")


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_pack_is_completed_without_repeating_files(clips, tmp_path, monkeypatch, error):
    pack_data(clips, tmp_path / "whole", SPLITS, items_per_zip=1, workers=4)
    out, read = tmp_path / "out", []
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
    num_before = len(read)
    pack_data(clips, out, SPLITS, items_per_zip=1, workers=1)
    assert not {"0", "1"} & set(read[num_before:]) and "2" in read[num_before:]
    assert content_of(out) == content_of(tmp_path / "whole")  # whatever the workers and interruptions
    num_before = len(read)
    pack_data(clips, out, SPLITS, items_per_zip=1)
    assert len(read) == num_before


def test_nothing_else_is_overwritten(clips, tmp_path):
    pack_data(clips, tmp_path / "out", SPLITS)
    before = content_of(tmp_path / "out")
    (tmp_path / "file").touch()
    for name, options, words in (
        ("out", {"items_per_zip": 2}, "items_per_zip is 2000 there and 2 here"),
        ("media", {}, "is not empty"),  # where the lists of the files are
        ("file", {}, "cannot be made a folder"),
    ):
        with pytest.raises(UserError, match=words):
            pack_data(clips, tmp_path / name, SPLITS, **options)
    for split in SPLITS:
        (tmp_path / "media" / f"{split}.csv").write_text("deep/0,3,1\n")
    with pytest.raises(UserError, match="items is"):
        pack_data(clips, tmp_path / "out", SPLITS)
    assert content_of(tmp_path / "out") == before
    with pytest.raises(UserError, match="DATA.PACKED is .*leave it empty"):
        pack_data(with_settings(clips, {"DATA.PACKED": "x"}), tmp_path / "other", SPLITS)
    with pytest.raises(UserError, match="DATA.DATASET is Rendered, which has no files"):
        pack_data(with_settings(clips, {"DATA.DATASET": "Rendered"}), tmp_path / "other", SPLITS)


def test_the_command_prints_the_keys_that_read_the_pack(clips, tmp_path, capsys):
    keys = ["DATA.PATH_TO_DATA_DIR", str(tmp_path / "media"), "DATA.SOURCE", "frames", "MODEL.NUM_CLASSES", "3"]
    os.remove(tmp_path / "media" / "deep" / "1" / "00002.jpg")
    shutil.rmtree(tmp_path / "media" / "deep" / "4")
    cfg = tmp_path / "pack.yaml"
    cfg.write_text("DATA: {NUM_FRAMES: 4}\n")
    out = ["--out", str(tmp_path / "out")]
    assert load_tool("prepare_data").main(["pack", "--cfg", str(cfg), "--splits", *SPLITS, *out, *keys]) == 1
    output = capsys.readouterr().out
    assert "train 4 packed, 2 left out; val 4 packed, 2 left out" in output
    settings = shlex.split(output.splitlines()[-1].removeprefix("read it with"))
    dataset = build_dataset(with_settings(clips, dict(zip(settings[::2], settings[1::2], strict=True))), "test")
    assert [Path(record.path).name for record in dataset.records] == ["0", "2", "3", "5"]
    assert dataset.class_names == ["a", "b", "c"]
    assert dataset.open(dataset.records[1]).read([2]).shape == (1, 96, 128, 3)
    shutil.copy(tmp_path / "media/deep/1/00001.jpg", tmp_path / "media/deep/1/00002.jpg")
    assert load_tool("prepare_data").main(["pack", "--cfg", str(cfg), "--splits", *SPLITS, *out, *keys]) == 1
    assert "train 5 packed, 1 left out; val 5 packed, 1 left out" in capsys.readouterr().out


def test_image_folders_are_packed_by_the_contract_of_data_sets(tmp_path):
    for split, label, index in [(split, label, index) for split in SPLITS for label in range(3) for index in range(2)]:
        path = tmp_path / "images" / split / "abc"[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 50 * index + label, np.uint8))
    cfg = make_cfg(tmp_path / "images", "image", DATASET="ImageFolder")
    _, settings = pack_data(with_settings(cfg, {"DATA.SOURCE": "video"}), tmp_path / "packed folder", SPLITS)
    for split in SPLITS:
        items = [(int(frames[0, 0, 0, 0]), label) for frames, label in read_all(with_settings(cfg, settings), split)]
        assert items == [(50 * index + label, label) for label in range(3) for index in range(2)]


def test_damage_in_a_pack_is_found(clips, tmp_path):
    _, settings = pack_data(clips, tmp_path / "out", SPLITS)
    cfg, shard = with_settings(clips, settings), tmp_path / "out" / "00000.zip"
    dataset = build_dataset(cfg, "train")
    first, second = dataset.records[:2]
    content = bytearray(shard.read_bytes())
    with zipfile.ZipFile(shard) as file:
        at = file.infolist()[1].header_offset + 700  # in the first frame of the second clip
    content[at] ^= 1
    shard.write_bytes(content)
    assert read_numbers(dataset.open(first).read(range(3))) == [0, 1, 2]
    assert read_numbers(dataset.open(second).read([1, 2])) == [1, 2]
    with pytest.raises(DecodeError, match=r"00001\.jpg is damaged: Bad CRC-32"):
        dataset.open(second).read([0])
    os.truncate(shard, at)
    with pytest.raises(DecodeError, match="truncated or damaged in .*00000.zip"):
        dataset.open(second)
    with pytest.raises(UserError, match="DATA.PACKED is .* cannot be read: BadZipFile: .*00000.zip is truncated"):
        build_dataset(cfg, "train")


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
