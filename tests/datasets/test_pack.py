"""Writing packs: the same shards whatever the workers and interruptions, and nothing lost or overwritten."""

from __future__ import annotations

import csv
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.datasets.manifest import Record
from slowfast.datasets.pack_index import INDEX_FILE
from slowfast.prepare import pack as pack_module
from slowfast.prepare.pack import SourceFiles, construct_pack, pack_records

FRAMES = SourceFiles("frames", "{:05d}.jpg", 1)
NUM_CLIPS, NUM_FRAMES = 6, 3


@pytest.fixture
def clips(tmp_path):
    """Return records of clips of 0.6 MiB each: one fits into a shard of 1 MiB, two do not."""
    records = []
    for index in range(NUM_CLIPS):
        folder = tmp_path / "media" / str(index)
        folder.mkdir(parents=True)
        for number in range(NUM_FRAMES):
            content = np.random.default_rng([index, number]).bytes(200_000 + 321 * index)
            (folder / f"{number + 1:05d}.jpg").write_bytes(content)
        records.append(Record(str(folder), index % 2, NUM_FRAMES, f"list:{index + 1}"))
    return records


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_pack_does_not_depend_on_the_workers(clips, tmp_path):
    splits = {"train": clips[:4], "val": clips[3:]}  # one clip in both
    for workers in (1, 4):
        summary = pack_records(splits, FRAMES, tmp_path / str(workers), shard_mib=1, workers=workers)
    assert content_of(tmp_path / "1") == content_of(tmp_path / "4")
    shards = [*(f"train-{number:06d}.tar" for number in range(4)), "val-000000.tar", "val-000001.tar"]
    lists = ["train.txt", "val.txt", INDEX_FILE, "pack_report.csv"]
    assert sorted(content_of(tmp_path / "1")) == sorted([*shards, *lists])
    assert (summary.num_shards, summary.num_members) == (6, NUM_CLIPS * NUM_FRAMES)
    assert (tmp_path / "1" / "val.txt").read_text() == "3\t3\t1\n4\t3\t0\n5\t3\t1\n"


def test_large_shards_hold_several_clips(clips, tmp_path):
    pack_records({"train": clips}, FRAMES, tmp_path / "out", shard_mib=2)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2
    for shard in (tmp_path / "out").glob("*.tar"):
        assert shard.stat().st_size <= 2 << 20


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("error", [Interrupt, OSError])
def test_an_interrupted_run_is_completed_without_repeating_shards(clips, tmp_path, monkeypatch, error):
    pack_records({"train": clips}, FRAMES, tmp_path / "whole", shard_mib=1)
    out = tmp_path / "out"
    written = []
    real = pack_module._add_member

    def add_member(file, name, *args):
        written.append(name)
        if len(written) == 11:  # in the third clip: a label and three frames each
            raise error("no space left")
        return real(file, name, *args)

    monkeypatch.setattr(pack_module, "_add_member", add_member)
    with pytest.raises(error):
        pack_records({"train": clips}, FRAMES, out, shard_mib=1, workers=1)
    # The worker may have begun another shard before it was told to stop.
    names = {path.name for path in out.iterdir()}
    assert {".parts", "train-000000.tar", "train-000001.tar"} <= names
    assert "train-000002.tar" not in names
    written[:] = [""] * 11
    (out / "train-000001.tar").unlink()  # as after an interrupt between the two files of a shard
    summary = pack_records({"train": clips}, FRAMES, out, shard_mib=1, workers=1)
    again = {name.split(".")[0] for name in written[11:]}
    assert {"1", "2"} <= again and "0" not in again
    assert not summary.was_complete
    assert content_of(out) == content_of(tmp_path / "whole")


def test_a_complete_pack_is_left_alone(clips, tmp_path):
    out = tmp_path / "out"
    assert not pack_records({"train": clips}, FRAMES, out).was_complete
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert pack_records({"train": clips}, FRAMES, out).was_complete
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "train-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"the finished pack is damaged; delete .*train-000000\.tar"):
        pack_records({"train": clips}, FRAMES, out)


def test_another_pack_or_foreign_shard_is_never_overwritten(clips, tmp_path):
    out = tmp_path / "out"
    pack_records({"train": clips}, FRAMES, out)
    before = content_of(out)
    for splits, options in (({"train": clips[:5]}, {}), ({"train": clips}, {"shard_mib": 1})):
        with pytest.raises(ValueError, match=f"{INDEX_FILE} belongs to a pack of other items"):
            pack_records(splits, FRAMES, out, **options)
    assert content_of(out) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"train-000000\.tar exists and was not made by this command"):
        pack_records({"train": clips}, FRAMES, foreign)
    assert (foreign / "train-000000.tar").read_bytes() == b"mine"
    (tmp_path / "media" / "train.txt").write_text("mine")  # packing into the folder of the original lists
    with pytest.raises(ValueError, match=r"media/train\.txt exists and was not made by this command"):
        pack_records({"train": clips}, FRAMES, tmp_path / "media")
    assert (tmp_path / "media" / "train.txt").read_text() == "mine"


def test_two_processes_do_not_write_one_pack(clips, tmp_path):
    """The second one waits, and then finds the pack complete."""
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(pack_records, {"train": clips}, FRAMES, tmp_path / "out") for _ in range(2)]
        assert sorted(summary.result().was_complete for summary in both) == [False, True]


def test_items_with_missing_files_are_left_out_and_reported(clips, tmp_path):
    os.remove(os.path.join(clips[1].path, "00002.jpg"))
    clips[2] = Record(str(tmp_path / "nowhere"), 0, 3, "list:3")
    summary = pack_records({"train": clips, "val": clips[1:4]}, FRAMES, tmp_path / "out")
    assert [(s.name, s.num_packed, s.num_left_out) for s in summary.splits] == [("train", 4, 2), ("val", 1, 2)]
    assert (tmp_path / "out" / "val.txt").read_text() == "3\t3\t1\n"
    with open(tmp_path / "out" / "pack_report.csv") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "path", "reason"]
    assert [row[:2] for row in rows] == [[split, clips[i].path] for split in ("train", "val") for i in (1, 2)]
    assert rows[0][2].startswith("left out: ") and "00002.jpg: No such file" in rows[0][2]


def test_wrong_input(clips, tmp_path):
    other = Record(clips[0].path, 1, NUM_FRAMES, "other:1")
    for splits, options, words in (
        ({"train": clips}, {"workers": 0}, ["--workers", "0", "1 to"]),
        ({"train": clips}, {"shard_mib": 5000}, ["--shard-mib", "5000", "1 to"]),
        ({"train": clips, "val": [other]}, {}, ["other:1", "label 1", "label 0", "list:1"]),
        ({"train": [Record("nowhere", 0, 1, "a:1")]}, {}, ["none of the 1 train items", "nowhere", "No such file"]),
    ):
        with pytest.raises(ValueError) as info:
            pack_records(splits, FRAMES, tmp_path / "out", **options)
        assert [word for word in words if word not in str(info.value)] == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="this is a file"):
        pack_records({"train": clips}, FRAMES, tmp_path / "file")


def test_a_file_that_changes_while_it_is_packed_is_an_error(clips, tmp_path, monkeypatch):
    real = pack_module._write_shards

    def write_shards(*args):
        with open(os.path.join(clips[4].path, "00003.jpg"), "ab") as file:
            file.write(b"more")
        return real(*args)

    monkeypatch.setattr(pack_module, "_write_shards", write_shards)
    with pytest.raises(ValueError, match=r"4/00003\.jpg had \d+ bytes and now has \d+"):
        pack_records({"train": clips}, FRAMES, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def make_cfg(folder, **data):
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES = str(folder), 2
    for key, value in data.items():
        cfg.DATA[key] = value
    return cfg


def read_all(cfg, split):
    """Return the content of every item of a split."""
    dataset = build_dataset(cfg, split)
    return [dataset.open_reader(record)._members.read([0])[0] for record in dataset.records]


def test_names_that_tar_lists_or_webdataset_could_confuse(tmp_path):
    folder = tmp_path / "media"
    names = ["a.b.jpg", "a_b.jpg", "a.png", "a.jpg", "no ending", "ü,1 2.jpg", "d.e/x.jpg", f"{'long' * 40}.jpg"]
    (folder / "d.e").mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    (folder / "train.csv").write_text("".join(f"{name}\t{index % 2}\n" for index, name in enumerate(names)))
    settings = {"SOURCE": "image", "NUM_FRAMES": 1, "PATH_LABEL_SEPARATOR": "\t"}
    construct_pack(make_cfg(folder, **settings), tmp_path / "out")
    cfg = make_cfg(tmp_path / "out", PACKED=str(tmp_path / "out"), **settings)
    assert read_all(cfg, "train") == [name.encode() for name in names]
    keys = [record.path.removeprefix(f"{tmp_path}/out/") for record in build_dataset(cfg, "train").records]
    assert keys[:7] == ["a_b", "a_b~2", "a", "a~2", "no ending", "ü,1 2", "d.e/x"]
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as shard:
        assert f"{'long' * 40}.jpg" in shard.getnames()


def test_lists_elsewhere_and_image_folders(tmp_path):
    for split, label, index in [(s, c, i) for s in ("train", "val") for c in "ab" for i in range(2)]:
        path = tmp_path / "images" / split / label / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{split} {label} {index}".encode())
    cfg = make_cfg(tmp_path / "images", DATASET="ImageFolder", SOURCE="video", NUM_FRAMES=1)
    _, settings = construct_pack(cfg, tmp_path / "packed folder")
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    for split in ("train", "val"):
        assert read_all(cfg, split) == [f"{split} {c} {i}".encode() for c in "ab" for i in range(2)]
        assert build_dataset(cfg, split).class_names == ["a", "b"]

    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val_list.txt").write_text("val/a/0.jpg 0\nval/b/1.jpg 1\n")
    options = {"SOURCE": "image", "NUM_FRAMES": 1, "LABEL_PATH_TEMPLATE": "{}_list.txt", "PATH_LABEL_SEPARATOR": " "}
    cfg = make_cfg(tmp_path / "lists", PATH_PREFIX=str(tmp_path / "images"), **options)
    summary, settings = construct_pack(cfg, tmp_path / "second")
    assert [(split.name, split.num_packed) for split in summary.splits] == [("val", 2)]  # no other list
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    assert read_all(cfg, "test") == [b"val a 0", b"val b 1"]

    (tmp_path / "out.txt").write_text("val/a/0.jpg\n")
    cfg = make_cfg(tmp_path / "lists", PATH_PREFIX=str(tmp_path / "images"), **options)
    cfg.DATA.EXCLUDE_FILE = str(tmp_path / "out.txt")
    _, settings = construct_pack(cfg, tmp_path / "less")
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    assert read_all(cfg, "test") == [b"val b 1"]
    assert cfg.DATA.EXCLUDE_FILE == ""  # what it names is not in the pack
    with pytest.raises(ValueError, match=r"DATA\.PACKED is .*leave it empty"):
        construct_pack(cfg, tmp_path / "third")
    with pytest.raises(ValueError, match=r"DATA\.PACKED is .*set DATA\.DATASET to VideoList"):
        build_dataset(make_cfg(tmp_path / "images", DATASET="ImageFolder", PACKED="shards"), "val")


def test_no_list_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.csv does not exist"):
        construct_pack(make_cfg(tmp_path), tmp_path / "out")
