"""The check before training: it finds every bad item of any data set, survives every one, and warns of odd lists."""

import csv
import logging
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from numbered_video import write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import DATASET_REGISTRY, build_dataset
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.manifest import Record
from slowfast.prepare.check import check_data, describe_class_order, find_problem, limit_sec
from slowfast.prepare.kinetics400 import class_names
from slowfast.utils.errors import UserError


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    write_folder(folder / "frames", 20)
    write_video(folder / "video.mp4", 24)
    return folder


@pytest.fixture
def data(tmp_path, originals):
    """Videos 0.mp4 to 5.mp4, of which the last two are val."""
    for number in range(6):
        shutil.copy(originals / "video.mp4", tmp_path / f"{number}.mp4")
    write_lists(tmp_path, train=[f"{n}.mp4,{n % 2}" for n in range(4)], val=["4.mp4,0", "5.mp4,1"])
    return tmp_path


def write_lists(folder, ending="csv", **lines):
    for split, split_lines in lines.items():
        (folder / f"{split}.{ending}").write_text("".join(f"{line}\n" for line in split_lines))


def config(folder, *settings):
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(folder), "MODEL.NUM_CLASSES", "2", "DATA.NUM_FRAMES", "4"])
    cfg.merge_from_list(["DATA.DECODING_BACKEND", "pyav", *map(str, settings)])
    cfg.freeze()
    return cfg


def bad_items(folder):
    header, *rows = csv.reader((folder / "bad_items.csv").open())
    assert header == ["path", "split", "reason"]
    return [(Path(path).name, split, reason) for path, split, reason in rows]


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


class Treacherous:
    """Registered data set of another kind: numbers that are no files, and readers that crash, hang, raise or work."""

    num_videos, class_names, labels = 5, ["a", "b"], np.array([0, 1, 0, 1, 0])

    def __init__(self, split):
        self.records = [Record(str(number), 0, None, "") for number in (range(5) if split == "train" else [4])]

    @classmethod
    def from_config(cls, cfg, split):
        return cls(split)

    def open(self, record):
        return TreacherousReader(record.path)


class TreacherousReader(FrameReader):
    num_frames = 3

    def __init__(self, path):
        self.path = path
        self.num_reads = 0

    def _decode(self, needed):
        match self.path[-1]:
            case "0":
                os.kill(os.getpid(), signal.SIGKILL)
            case "1":
                time.sleep(60)
            case "2":
                raise MemoryError("too large")
            case "3" if 2 in needed:
                raise DecodeError(self.path, "the last frame is damaged")
        return {index: np.zeros((2, 2, 3), np.uint8) for index in needed}


DATASET_REGISTRY.register(Treacherous)


def test_any_data_set_is_read_and_a_decoder_that_crashes_hangs_or_raises_ends_nothing(tmp_path):
    cfg = config(tmp_path, "DATA.DATASET", "Treacherous")
    assert check_data(cfg, workers=2, timeout_sec=2) == 4
    assert bad_items(tmp_path) == [
        ("0", "train", "the process that read it was killed by signal 9 (SIGKILL)"),
        ("1", "train", "no result after 2 s"),
        ("2", "train", "MemoryError: too large"),
        ("3", "train", "the last frame is damaged"),
    ]


def test_what_the_check_found_can_be_left_out(data, caplog):
    (data / "1.mp4").unlink()
    truncate(data / "3.mp4", 0.5)
    (data / "5.mp4").write_text("not a video")
    with caplog.at_level(logging.INFO):
        assert check_data(config(data), workers=2) == 3
    assert caplog.messages[-1] == f"{data}/bad_items.csv: train 2 good, 2 bad; val 1 good, 1 bad"
    rows = bad_items(data)
    assert [row[:2] for row in rows] == [("1.mp4", "train"), ("3.mp4", "train"), ("5.mp4", "val")]
    assert "No such file" in rows[0][2] and "truncated" in rows[1][2] and "not a video file" in rows[2][2]
    cfg = config(data, "DATA.EXCLUDE_FILE", data / "bad_items.csv")
    assert [Path(record.path).name for record in build_dataset(cfg, "train").records] == ["0.mp4", "2.mp4"]
    # They are read again, so that the list stays complete.
    (data / "2.mp4").write_text("")
    assert check_data(cfg) == 1
    assert [name for name, _, _ in bad_items(data)] == ["1.mp4", "2.mp4", "3.mp4", "5.mp4"]


def test_all_frames_are_read_not_those_of_one_clip(tmp_path, originals):
    for name, damaged in (("a", 1), ("b", 13), ("c", 20)):
        shutil.copytree(originals / "frames", tmp_path / name)
        truncate(tmp_path / name / f"{damaged:05d}.jpg", 0.5)
    shutil.copytree(originals / "frames", tmp_path / "d")
    write_lists(tmp_path, "txt", train=["a 20 0", "b 20 1", "c 20 0", "d 20 1"], val=["d 20 0", "a 21 1", "d 19 1"])
    cfg = config(tmp_path, "DATA.SOURCE", "frames", "DATA.LABEL_PATH_TEMPLATE", "{}.txt")
    assert check_data(cfg) == 5
    rows = bad_items(tmp_path)
    assert [row[2] for row in rows[1:3]] == ["00013.jpg is truncated", "00020.jpg is truncated"]
    assert rows[4] == ("d", "val", "the list says 19 frames, yet there is 00020.jpg")


@pytest.mark.parametrize(("name", "options"), [("a.avi", {"codec": "mpeg4"}), ("a.mp4", {"key_every": 250})])
def test_each_frame_is_decoded_once(tmp_path, monkeypatch, name, options):
    """Whatever the key frames, and where frames have to be counted first, twice."""
    path = write_video(tmp_path / name, 60, **options)
    write_lists(tmp_path, train=[f"{name},0"])
    dataset, readers = build_dataset(config(tmp_path), "train"), []

    def keep(record, open_record=dataset.open):
        readers.append(open_record(record))
        return readers[-1]

    monkeypatch.setattr(dataset, "open", keep)
    assert find_problem(dataset.records[0], dataset, "", 1) == "" and readers[0].path == path
    assert readers[0].num_decoded <= 60 * (2 if name == "a.avi" else 1) + 2


def test_the_time_limit_grows_with_the_file(tmp_path):
    (tmp_path / "film.mp4").touch()
    os.truncate(tmp_path / "film.mp4", 100 * 2**20)
    small, film, folder = (
        Record(str(tmp_path / name), 0, num, "") for name, num in (("no", None), ("film.mp4", None), ("no", 3000))
    )
    assert [limit_sec(record, 60) for record in (small, film, folder)] == [60, 660, 660]
    assert limit_sec(film, math.inf) == math.inf


def test_still_images_are_checked_and_left_out(tmp_path, originals):
    images = sorted((originals / "frames").iterdir())[:4]
    for split in ("train", "val"):
        for name, image in zip("abab", images):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / split / name)
    truncate(tmp_path / "train/b" / images[1].name, 0.5)
    settings = ["DATA.DATASET", "ImageFolder", "DATA.NUM_FRAMES", "1"]
    assert check_data(config(tmp_path, *settings)) == 1
    assert bad_items(tmp_path)[0][:2] == (images[1].name, "train")


@pytest.mark.parametrize(
    ("lists", "settings", "message"),
    [
        ({"train": ["0.mp4,1", "1.mp4,1"]}, [], "train: 1 of 2 classes have no video, such as 0$"),
        ({}, ["MODEL.NUM_CLASSES", "5"], "val: 3 of 5 classes have no video, such as 2"),
        ({"val": ["1.mp4,0", "4.mp4,1"]}, [], "1 videos are both in train and in val, such as .*1.mp4"),
        ({"test": ["1.mp4,1", "4.mp4,0"]}, [], "1 videos are both in train and in test, such as .*1.mp4"),
        ({"test": ["4.mp4,1", "3.mp4,0"]}, [], "videos stand there with different labels, such as .*[34].mp4"),
        (
            {"val": ["4.mp4,0", "5.mp4,1", "4.mp4,1"]},
            [],
            "videos stand there with different labels, such as .*[34].mp4",
        ),
        ({}, ["DATA.EXPECTED_NUM_VIDEOS", "[4, 30]"], "val: 2 videos, the complete data set has 30"),
        ({}, ["DATA.EXPECTED_NUM_VIDEOS", "[4, 2]"], None),
    ],
)
def test_suspicious_lists_are_warned_of(data, caplog, monkeypatch, lists, settings, message):
    monkeypatch.setattr("slowfast.prepare.check.map_isolated", lambda find, records, *_: [""] * len(records))
    write_lists(data, **lists)
    check_data(config(data, *settings))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(re.search(message, warning) for warning in warnings) if message else not warnings


def test_a_file_that_cannot_be_written_is_told_at_once(data):
    with pytest.raises(UserError, match="nowhere/bad.csv cannot be written.*--out"):
        check_data(config(data), str(data / "nowhere/bad.csv"))


def test_orders_of_class_names():
    for order in ("alphabetical", "uniformer"):
        sentence, is_known = describe_class_order(class_names(order))
        assert is_known and sentence.endswith(f"Kinetics-400, in {order} order")
    sentence, is_known = describe_class_order(class_names("uniformer")[::-1])
    assert not is_known and "in an unknown order" in sentence
    templates = ["Closing something", "Moving something up", "Putting something onto something", "Zooming"]
    assert describe_class_order(templates)[1]
    sentence, is_known = describe_class_order(templates[::-1])
    assert not is_known and "yet not ASCII-sorted" in sentence
    sentence, is_known = describe_class_order([name.replace("something", "[something]") for name in templates])
    assert not is_known and "brackets" in sentence
    assert describe_class_order(["walking", "running", "doing something"]) == ("", True)
