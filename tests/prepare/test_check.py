"""The check before training: it finds every bad item, survives every one, and warns of suspicious labels."""

import csv
import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from numbered_video import write_folder, write_video

from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.prepare import check
from slowfast.prepare.check import CheckedSplit, check_data, describe_class_order
from slowfast.prepare.kinetics400 import class_names


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


def used(cfg, split):
    return [Path(record.path).name for record in build_dataset(cfg, split).records]


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def test_every_bad_video_is_listed_with_its_reason(data):
    (data / "1.mp4").unlink()
    truncate(data / "3.mp4", 0.5)
    (data / "5.mp4").write_text("not a video")
    assert check_data(config(data), workers=2) == [CheckedSplit("train", 4, 2, 0), CheckedSplit("val", 2, 1, 0)]
    rows = bad_items(data)
    assert [row[:2] for row in rows] == [("1.mp4", "train"), ("3.mp4", "train"), ("5.mp4", "val")]
    assert "No such file" in rows[0][2] and "truncated" in rows[1][2] and "not a video file" in rows[2][2]


def test_all_frames_are_read_not_those_of_one_clip(tmp_path, originals):
    for name, damaged in (("a", 1), ("b", 13), ("c", 20)):
        shutil.copytree(originals / "frames", tmp_path / name)
        truncate(tmp_path / name / f"{damaged:05d}.jpg", 0.5)
    shutil.copytree(originals / "frames", tmp_path / "d")
    write_lists(tmp_path, "txt", train=["a 20 0", "b 20 1", "c 20 0", "d 20 1"], val=["d 20 0", "a 21 1", "d 19 1"])
    cfg = config(tmp_path, "DATA.SOURCE", "frames", "DATA.LABEL_PATH_TEMPLATE", "{}.txt")
    assert check_data(cfg) == [CheckedSplit("train", 4, 3, 0), CheckedSplit("val", 3, 2, 0)]
    assert [(name, reason) for name, _, reason in bad_items(tmp_path)][1:3] == [
        ("b", "00013.jpg is truncated"),
        ("c", "00020.jpg is truncated"),
    ]
    assert bad_items(tmp_path)[4] == ("d", "val", "the list says 19 frames, yet there is 00020.jpg")


def test_a_decoder_that_crashes_hangs_or_raises_ends_nothing(data, monkeypatch):
    whole = check.iterate_chunks

    def treacherous(reader):
        match Path(reader.path).name:
            case "0.mp4":
                os.kill(os.getpid(), signal.SIGKILL)
            case "2.mp4":
                time.sleep(60)
            case "4.mp4":
                raise MemoryError("too large")
        return whole(reader)

    monkeypatch.setattr(check, "iterate_chunks", treacherous)
    checked = check_data(config(data), workers=2, timeout_sec=2)
    assert [split.num_bad for split in checked] == [2, 1]
    assert bad_items(data) == [
        ("0.mp4", "train", "the process that read it was killed by signal 9 (SIGKILL)"),
        ("2.mp4", "train", "no result after 2 s"),
        ("4.mp4", "val", "MemoryError: too large"),
    ]


def test_what_the_check_found_can_be_left_out(data, caplog):
    (data / "1.mp4").unlink()
    (data / "5.mp4").write_text("")
    check_data(config(data))
    cfg = config(data, "DATA.EXCLUDE_FILE", data / "bad_items.csv")
    with caplog.at_level(logging.INFO):
        assert used(cfg, "train") == ["0.mp4", "2.mp4", "3.mp4"]
        assert used(cfg, "val") == used(cfg, "test") == ["4.mp4"]
    assert "leaves out 1 of 4 train videos" in caplog.text and "leaves out 1 of 2 val videos" in caplog.text
    assert "match no video" not in caplog.text
    # Read again, so that the list stays complete.
    (data / "3.mp4").write_text("")
    assert check_data(cfg) == [CheckedSplit("train", 4, 2, 1), CheckedSplit("val", 2, 1, 1)]
    assert [name for name, _, _ in bad_items(data)] == ["1.mp4", "3.mp4", "5.mp4"]


def test_a_plain_list_names_paths_as_lists_do_or_in_full(data, caplog, monkeypatch):
    monkeypatch.chdir(data)
    (data / "out.txt").write_text(f"0.mp4\n\n{data}/2.mp4\r\n./sub/../4.mp4\n")
    cfg = config(data, "DATA.EXCLUDE_FILE", "out.txt")
    assert used(cfg, "train") == ["1.mp4", "3.mp4"]
    assert not caplog.records
    (data / "out.txt").write_text("0.mp4\n7.mp4\n8.mp4\n4.mp4\n")
    build_dataset(cfg, "train")
    assert "out.txt: 2 of its 4 paths match no video of any list, such as '7.mp4'" in caplog.text


def test_a_wrong_exclusion_list_is_an_error(data):
    with pytest.raises(FileNotFoundError, match="none.csv .DATA.EXCLUDE_FILE"):
        build_dataset(config(data, "DATA.EXCLUDE_FILE", data / "none.csv"), "train")
    (data / "all.txt").write_text("4.mp4\n5.mp4\n")
    with pytest.raises(ValueError, match="names all 2 videos of val"):
        build_dataset(config(data, "DATA.EXCLUDE_FILE", data / "all.txt"), "val")


def test_still_images_are_checked_and_left_out(tmp_path, originals):
    images = sorted((originals / "frames").iterdir())[:4]
    for split in ("train", "val"):
        for name, image in zip("abab", images):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / split / name)
    truncate(tmp_path / "train/b" / images[1].name, 0.5)
    settings = ["DATA.DATASET", "ImageFolder", "DATA.NUM_FRAMES", "1"]
    assert check_data(config(tmp_path, *settings)) == [CheckedSplit("train", 4, 1, 0), CheckedSplit("val", 4, 0, 0)]
    cfg = config(tmp_path, *settings, "DATA.EXCLUDE_FILE", tmp_path / "bad_items.csv")
    assert [build_dataset(cfg, split).num_videos for split in ("train", "val")] == [3, 4]


@pytest.mark.parametrize(
    ("lists", "settings", "message"),
    [
        ({"train": ["0.mp4,1", "1.mp4,1"]}, [], "all 2 lines of .*train.csv have label 1"),
        ({"train": ["0.mp4,1", "1.mp4,1"]}, [], "train: 1 of 2 classes have no video, such as 0$"),
        ({}, ["MODEL.NUM_CLASSES", "5"], "val: 3 of 5 classes have no video, such as 2"),
        ({"val": ["1.mp4,0", "4.mp4,1"]}, [], "1 videos are both in train and in val, such as .*1.mp4"),
        ({}, ["DATA.EXPECTED_NUM_VIDEOS", "[4, 30]"], "val: 2 videos, the complete data set has 30"),
    ],
)
def test_suspicious_lists_are_warned_of(data, caplog, lists, settings, message):
    write_lists(data, **lists)
    check_data(config(data, *settings))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(re.search(message, warning) for warning in warnings), warnings


def test_an_inconspicuous_set_gives_no_warning(data, caplog):
    assert sum(split.num_bad for split in check_data(config(data, "DATA.EXPECTED_NUM_VIDEOS", "[4, 2]"))) == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_wrong_settings(data):
    with pytest.raises(ValueError, match="EXPECTED_NUM_VIDEOS is .4., allowed"):
        check_data(config(data, "DATA.EXPECTED_NUM_VIDEOS", "[4]"))
    with pytest.raises(ValueError, match="nowhere, for bad.csv, is not an existing folder.*--out"):
        check_data(config(data), str(data / "nowhere/bad.csv"))


def test_orders_of_class_names():
    for order in ("alphabetical", "uniformer"):
        sentence, is_known = describe_class_order(class_names(order))
        assert is_known and sentence.endswith(f"Kinetics-400 in {order} order")
    sentence, is_known = describe_class_order(class_names("uniformer")[::-1])
    assert not is_known and "neither alphabetical nor uniformer" in sentence
    templates = ["Closing something", "Moving something up", "Putting something onto something", "Zooming"]
    assert describe_class_order(templates)[1]
    sentence, is_known = describe_class_order(templates[::-1])
    assert not is_known and "not ASCII-sorted" in sentence
    sentence, is_known = describe_class_order([name.replace("something", "[something]") for name in templates])
    assert not is_known and "brackets" in sentence
    assert describe_class_order(["walking", "running", "doing something"]) == ("", True)
