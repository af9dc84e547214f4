"""Something-Something V1: the lists say what is on disk, and everything that is amiss is reported."""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from slowfast.prepare.frame_folder import inspect_folder
from slowfast.prepare.ssv1 import prepare_ssv1

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"

# The raw order differs from the ASCII order: a space precedes a comma, capitals precede small letters.
RAW_TEMPLATES = [
    "putting something down",
    "Lifting something up completely, then letting it drop down",
    'Showing "something", upright; or not',
    "Lifting something up completely without letting it drop down",
    "Zooming in on something that isn't moving",
]
SORTED_TEMPLATES = [
    "Lifting something up completely without letting it drop down",
    "Lifting something up completely, then letting it drop down",
    'Showing "something", upright; or not',
    "Zooming in on something that isn't moving",
    "putting something down",
]
TRAIN = {"30": (0, 17), "4": (1, 15), "100": (2, 16), "5": (3, 15)}  # id: (index in RAW_TEMPLATES, frames)
VAL = {"7": (4, 15), "6": (0, 18)}
TRAIN_LIST = "{0}30 17 4\n{0}4 15 1\n{0}100 16 2\n{0}5 15 0\n"
VAL_LIST = "{0}7 15 3\n{0}6 18 4\n"


class Release:
    """A small release: folder `annotations` with the text files, folder `set/frames` with the clips."""

    def __init__(self, root):
        self.root, self.out = root, root / "set"
        self.annotations, self.frames = root / "annotations", root / "set/frames"
        self.annotations.mkdir()
        self.write_text("labels", "\n".join(RAW_TEMPLATES) + "\n")
        rng = np.random.default_rng(0)
        for name, clips in (("train", TRAIN), ("validation", VAL)):
            self.write_text(name, "".join(f"{id_};{RAW_TEMPLATES[label]}\n" for id_, (label, _) in clips.items()))
            for id_, (_, num_frames) in clips.items():
                (self.frames / id_).mkdir(parents=True)
                for number in range(1, num_frames + 1):
                    image = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
                    assert cv2.imwrite(str(self.image(id_, number)), image)

    def text_file(self, name):
        return self.annotations / f"something-something-v1-{name}.csv"

    def write_text(self, name, text):
        self.text_file(name).write_bytes(text.encode())

    def append(self, name, text):
        self.text_file(name).write_text(self.text_file(name).read_text() + text)

    def image(self, id_, number):
        return self.frames / id_ / f"{number:05d}.jpg"

    def prepare(self, out=None, workers=3):
        return prepare_ssv1(self.annotations, self.frames, out or self.out, workers)

    def read(self, name):
        return (self.out / name).read_bytes().decode()

    def report(self):
        return list(csv.reader((self.out / "prepare_report.csv").open()))[1:]


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path)


def test_an_intact_release_is_listed_byte_for_byte(release):
    prepared = release.prepare()
    assert release.read("train.txt") == TRAIN_LIST.format("frames/")
    assert release.read("val.txt") == VAL_LIST.format("frames/")
    assert release.read("classes.txt") == "".join(f"{template}\n" for template in SORTED_TEMPLATES)
    assert release.read("prepare_report.csv") == "split,id,reason\n"
    assert sorted(os.listdir(release.out)) == ["classes.txt", "frames", "prepare_report.csv", "train.txt", "val.txt"]
    assert [(split.name, split.num_written, split.num_left_out) for split in prepared.splits] == [
        ("train", 4, 0),
        ("val", 2, 0),
    ]


def test_listed_folders_are_found_from_the_folder_of_the_lists(release, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "linked"
    link.mkdir()
    (link / "frames").symlink_to(release.frames)
    for frames, out, prefix in (
        ("set/frames", "elsewhere/lists", f"{release.frames}/"),
        ("set/frames", "set/frames", ""),
        ("set/frames", ".", "set/frames/"),
        ("set/frames", "set/fra", f"{release.frames}/"),  # a common beginning is not a common folder
        ("linked/frames", "linked", "frames/"),  # the frames may be on another disk
    ):
        prepared = prepare_ssv1("annotations", frames, out, workers=1)
        lines = Path(out, "train.txt").read_text()
        assert lines == TRAIN_LIST.format(prefix)
        assert prepared.has_relative_paths == (not prefix.startswith("/"))
        for line in lines.splitlines():
            folder, num_frames, _ = line.split(" ")
            assert len(os.listdir(os.path.join(out, folder))) == int(num_frames)


def test_windows_line_ends_byte_order_mark_and_blank_lines_change_nothing(release):
    for name in ("labels", "train", "validation"):
        text = release.text_file(name).read_text()
        release.write_text(name, "\ufeff" + text.replace("\n", " \r\n") + "\r\n")
    release.prepare()
    assert release.read("train.txt") == TRAIN_LIST.format("frames/")
    assert release.read("classes.txt").splitlines() == SORTED_TEMPLATES


def _truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _rename_all(release, name_of):
    for number in range(1, 16):
        release.image("4", number).rename(release.frames / "4" / name_of(number))


def _make_a_file(release):
    shutil.rmtree(release.frames / "4")
    (release.frames / "4").write_text("")


DAMAGE = {
    "missing folder": (lambda r: shutil.rmtree(r.frames / "4"), ["frames/4", "No such file or directory"]),
    "a file": (_make_a_file, ["frames/4", "Not a directory"]),
    "empty folder": (lambda r: [path.unlink() for path in (r.frames / "4").iterdir()], ["folder is empty"]),
    "gap": (lambda r: r.image("4", 9).unlink(), ["00009.jpg is missing", "there is 00015.jpg"]),
    "no first frame": (lambda r: r.image("4", 1).unlink(), ["00001.jpg is missing", "00015.jpg"]),
    "from zero": (lambda r: _rename_all(r, lambda n: f"{n - 1:05d}.jpg"), ["there is 00000.jpg", "from 00001.jpg"]),
    "other names": (lambda r: _rename_all(r, lambda n: f"img_{n:05d}.jpg"), ["no 00001.jpg", "'img_00001.jpg'"]),
    "0 bytes": (lambda r: _truncate(r.image("4", 15), 0), ["00015.jpg", "0 bytes"]),
    "truncated": (lambda r: _truncate(r.image("4", 15), 200), ["00015.jpg is truncated"]),
    "not a picture": (lambda r: r.image("4", 15).write_text("<html>"), ["00015.jpg is not a JPEG file"]),
    "dangling link": (
        lambda r: (r.image("4", 15).unlink(), r.image("4", 15).symlink_to("nowhere")),
        ["00015.jpg", "No such file or directory"],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_clip_is_left_out_and_reported(release, kind):
    damage, words = DAMAGE[kind]
    damage(release)
    prepared = release.prepare()
    assert release.read("train.txt") == TRAIN_LIST.format("frames/").replace("frames/4 15 1\n", "")
    assert release.read("val.txt") == VAL_LIST.format("frames/")
    [[split, clip_id, reason]] = release.report()
    assert (split, clip_id) == ("train", "4")
    assert reason.startswith("left out: ")
    assert [word for word in words if word not in reason] == []
    assert [split.num_left_out for split in prepared.splits] == [1, 0]


def test_an_unusual_clip_is_kept_and_reported(release):
    release.image("6", 18).with_name("Thumbs.db").touch()
    release.image("5", 15).unlink()
    prepared = release.prepare()
    assert release.read("train.txt") == TRAIN_LIST.format("frames/").replace("5 15 0", "5 14 0")
    assert release.read("val.txt") == VAL_LIST.format("frames/")
    assert release.report() == [
        ["train", "5", "kept: 14 frames, the clips of the release have 15 to 120"],
        ["val", "6", "kept: entries that are no frames: 1, such as 'Thumbs.db'"],
    ]
    assert [(split.num_left_out, split.num_unusual) for split in prepared.splits] == [(0, 1), (0, 1)]


def test_bytes_after_the_end_of_a_picture_are_no_damage(release):
    image = release.image("4", 15)
    image.write_bytes(image.read_bytes() + b"\0" * 5000)
    state = inspect_folder(str(release.frames / "4"))
    assert (state.num_frames, state.problem, state.remark) == (15, "", "")


def test_a_second_run_replaces_the_files_of_the_first(release):
    release.image("4", 9).rename(release.root / "spare.jpg")
    release.prepare(workers=1)
    assert len(release.report()) == 1
    (release.root / "spare.jpg").rename(release.image("4", 9))
    release.prepare(workers=8)
    assert release.read("train.txt") == TRAIN_LIST.format("frames/")
    assert release.report() == []


WRONG_INPUT = {
    "unknown template": (
        lambda r: r.append("train", "9;Zooming in on something that is not moving\n"),
        [
            "v1-train.csv:5",
            "'Zooming in on something that is not moving'",
            "labels.csv",
            "Zooming in on something that",
        ],
    ),
    "no template": (lambda r: r.append("validation", "9\n"), ["v1-validation.csv:3", "'9'", "'id;template'"]),
    "header": (lambda r: r.write_text("train", "id;template\n"), ["v1-train.csv:1", "'id;template'", "number as id"]),
    "path as id": (lambda r: r.append("train", f"../7;{RAW_TEMPLATES[0]}\n"), ["v1-train.csv:5", "../7"]),
    "repeated id": (lambda r: r.append("train", f"4;{RAW_TEMPLATES[0]}\n"), ["v1-train.csv:5", "id 4", "line 2"]),
    "id in both": (lambda r: r.append("validation", f"4;{RAW_TEMPLATES[1]}\n"), ["1 ids", "both", "such as 4"]),
    "repeated template": (
        lambda r: r.append("labels", RAW_TEMPLATES[0]),
        ["v1-labels.csv:6", RAW_TEMPLATES[0], "line 1"],
    ),
    "no clips": (lambda r: r.write_text("validation", "\n"), ["v1-validation.csv", "no lines"]),
    "no labels file": (lambda r: r.text_file("labels").unlink(), ["v1-labels.csv does not exist", "--annotations"]),
    "latin-1": (lambda r: r.text_file("labels").write_bytes(b"caf\xe9\n"), ["v1-labels.csv", "not UTF-8"]),
    "frames one level up": (
        lambda r: (r.frames.rename(r.root / "x"), r.frames.mkdir(), (r.root / "x").rename(r.frames / "x")),
        ["none of the 4 train clips", "frames/30", "--frames"],
    ),
    "no frames": (lambda r: shutil.rmtree(r.frames), ["--frames", "set/frames", "not an existing folder"]),
}


@pytest.fixture(scope="module")
def tool():
    module_spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def _flags(release, **changed):
    flags = {"annotations": release.annotations, "frames": release.frames, "out": release.out, **changed}
    return ["ssv1", *(str(part) for name, value in flags.items() for part in (f"--{name}", value))]


def _check_error(tool, capsys, flags, words):
    with pytest.raises(SystemExit) as exit_info:
        tool.main(flags)
    message = capsys.readouterr().err.splitlines()[-1]  # after the progress bar, if it came to that
    assert exit_info.value.code == 2
    assert message.startswith("prepare_data.py ssv1: error: ")
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("kind", WRONG_INPUT)
def test_wrong_input_is_one_clear_line_and_old_lists_stay(release, tool, capsys, kind):
    release.prepare()
    spoil, words = WRONG_INPUT[kind]
    spoil(release)
    _check_error(tool, capsys, _flags(release), words)
    assert release.read("train.txt") == TRAIN_LIST.format("frames/")


def test_wrong_flags_are_one_clear_line(release, tool, capsys):
    (release.root / "file").touch()
    _check_error(tool, capsys, _flags(release, out=release.root / "file"), ["--out", "file", "a folder"])
    _check_error(tool, capsys, _flags(release, workers=0), ["--workers", "0", "1 to"])
    tabbed = release.root / "a\tb"
    tabbed.symlink_to(release.frames)
    _check_error(tool, capsys, _flags(release, frames=tabbed), ["--frames", "a\\tb", "tabs"])
    assert not (release.out / "train.txt").exists()


def test_the_command_counts_and_its_exit_status_tells_whether_all_clips_were_found(release):
    command = [sys.executable, str(TOOL), "ssv1", "--annotations", "../annotations", "--frames", "frames"]
    command += ["--out", "."]
    intact = subprocess.run(command, cwd=release.out, capture_output=True, text=True)
    assert intact.returncode == 0, intact.stderr
    assert intact.stdout.splitlines() == [
        "the lists hold paths relative to .",
        "note: 4 train clips in the annotation, 86017 in the published set",
        "note: 2 val clips in the annotation, 11522 in the published set",
        "note: 5 classes, 174 in the published set: set MODEL.NUM_CLASSES to 5",
        ".: train 4 written, 0 left out; val 2 written, 0 left out",
    ]
    assert intact.stderr == "", "no half-drawn bar where there is no terminal"

    shutil.rmtree(release.frames / "7")
    release.image("6", 18).with_name("Thumbs.db").touch()
    damaged = subprocess.run(command, cwd=release.out, capture_output=True, text=True)
    assert damaged.returncode == 1, damaged.stderr
    assert damaged.stdout.splitlines()[-3:] == [
        "note: 1 clips were written although they look unusual",
        "the reasons are in prepare_report.csv",
        ".: train 4 written, 0 left out; val 1 written, 1 left out",
    ]
    assert release.read("val.txt") == "frames/6 18 4\n"
