"""Clips on disk: the lists say what is there, what is missing or damaged is reported, extraction can be interrupted."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import invented_releases
import numpy as np
import pytest
from numbered_video import read_numbers, write_video

from slowfast.datasets.decoder import FrameFolder
from slowfast.prepare import diving48, lists, ssv1, ssv2
from slowfast.prepare.extract import extract_all, extract_video, find_videos, inspect_folder
from slowfast.utils.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"
MODULES = {"ssv1": ssv1, "ssv2": ssv2, "diving48": diving48}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return {name: invented_releases.make(name, tmp_path_factory.mktemp(name)) for name in ("ssv1", "ssv2")}


@pytest.fixture
def copy(originals, tmp_path):
    """Copies of the releases to spoil."""

    def copy(name):
        release = originals[name]
        shutil.copytree(release.annotations, tmp_path / "official", dirs_exist_ok=True)
        shutil.copytree(release.media, tmp_path / "set/media")
        folders = tmp_path / "official", tmp_path / "set/media", tmp_path / "set"
        return invented_releases.Release(name, *folders, release.paths, release.clips)

    return copy


def prepare(release, extraction=None, workers=2):
    """Number of clips left out."""
    annotation = MODULES[release.command].read_annotation(release.annotations)
    return lists.prepare(annotation, str(release.media), str(release.out), workers, extraction)


def report(release):
    return list(csv.reader((release.out / "prepare_report.csv").open()))[1:]


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def test_listed_folders_are_found_from_the_folder_of_the_lists(copy, tmp_path, monkeypatch):
    release = copy("ssv1")
    monkeypatch.chdir(tmp_path)
    Path("linked").mkdir()
    Path("linked/frames").symlink_to(release.media)
    for frames, out, prefix in (
        ("set/media", "elsewhere/lists", f"{release.media}/"),
        ("set/media", "set/media", ""),
        ("set/media", "set/me", f"{release.media}/"),  # a common beginning is not a common folder
        ("linked/frames", "linked", "frames/"),  # the frames may be on another disk
    ):
        lists.prepare(ssv1.read_annotation(Path("official")), frames, out)
        lines = [line.removeprefix("media/") for line in release.lines("train")]
        assert Path(out, "train.txt").read_text().splitlines() == [prefix + line for line in lines]


FOLDER_DAMAGE = {
    "empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), ["00001.jpg is missing", "no image"]),
    "gap": (lambda path: (path / "00009.jpg").unlink(), ["00009.jpg is missing", "14 images, the last one 00015.jpg"]),
    "from zero": (lambda path: shutil.copy(path / "00001.jpg", path / "00000.jpg"), ["00016.jpg is missing", "16 "]),
    "truncated": (lambda path: truncate(path / "00015.jpg", 0.5), ["00015.jpg is truncated"]),
}


@pytest.mark.parametrize("kind", FOLDER_DAMAGE)
def test_a_damaged_folder_has_a_problem(copy, kind):
    damage, words = FOLDER_DAMAGE[kind]
    folder = copy("ssv1").path("4")
    damage(folder)
    problem = inspect_folder(str(folder))
    assert [word for word in [str(folder), *words] if word not in problem] == []


def test_damaged_clips_are_left_out_and_unusual_ones_kept_and_reported(copy, caplog):
    release = copy("ssv1")
    (release.path("4") / "00009.jpg").unlink()
    (release.path("5") / "00015.jpg").unlink()
    (release.path("6") / "Thumbs.db").touch()  # does not matter
    with (release.path("7") / "00015.jpg").open("ab") as image:
        image.write(b"\0" * 5000)  # no damage: phones and archives append bytes
    with caplog.at_level("INFO"):
        assert prepare(release) == 1
    assert (release.out / "train.txt").read_text().splitlines() == ["media/30 17 2", "media/100 16 1", "media/5 14 0"]
    assert (release.out / "val.txt").read_text().splitlines() == release.lines("val")
    missing, *kept = report(release)
    assert missing[:2] == ["train", "4"] and re.match("left out: .*00009.jpg is missing", missing[2])
    assert kept == [["train", "5", "kept: 14 frames, expected 15 to 120"]]
    names = sorted(invented_releases.BARE_SSV_TEMPLATES)
    assert (release.out / "classes.txt").read_text() == "".join(f"{name}\n" for name in names)
    assert f"{release.out}/prepare_report.csv names 2 clips that are left out or look unusual" in caplog.messages
    assert caplog.messages[-1] == f"{release.out}: train 3 written, 1 left out; val 2 written, 0 left out, 3 classes"


VIDEO_DAMAGE = {
    "missing": (lambda path: path.unlink(), ["0 videos", ".webm", "/media"]),
    "empty": (lambda path: truncate(path, 0), ["910001.webm"]),
    "truncated": (lambda path: truncate(path, 0.6), ["910001.webm", "truncated"]),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), ["0 videos"]),
    "twice": (lambda path: shutil.copy(path, path.with_suffix(".mp4")), ["2 videos", "910001.mp4", "910001.webm"]),
    "dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), ["910001.webm", "No such file"]),
}


@pytest.mark.parametrize(
    ("kind", "extraction"), [*((k, None) for k in VIDEO_DAMAGE), ("truncated", {"short_side": 32, "quality": 90})]
)
def test_a_damaged_video_is_left_out_and_reported(copy, kind, extraction):
    release = copy("ssv2")
    damage, words = VIDEO_DAMAGE[kind]
    damage(release.path("910001"))
    assert prepare(release, extraction) == 1
    [[split, clip_id, reason]] = report(release)
    assert (split, clip_id) == ("train", "910001") and reason.startswith("left out: ")
    assert [word for word in words if word not in reason] == []
    listed = (release.out / ("train.txt" if extraction else "train.csv")).read_text().replace(",", " ").splitlines()
    assert [Path(line.split()[0]).stem for line in listed] == ["910002", "910003", "910004"]
    if extraction:
        assert set(os.listdir(release.out / "frames")) == release.paths.keys() - {"910001"} | {"extraction.json"}


def test_dives_that_end_early_are_kept_and_reported(tmp_path):
    release = invented_releases.make("diving48", tmp_path)
    path = release.annotations / "Diving48_V2_train.json"
    entries = json.loads(path.read_text())
    entries[0]["end_frame"] = 300
    path.write_text(json.dumps(entries))
    assert prepare(release) == 0
    assert report(release) == [["train", "exampleAAA_00001", "kept: 12 frames, expected 300 to inf"]]


def test_paths_with_commas_make_tab_separated_lists(copy):
    release = copy("ssv2")
    release.media.rename(release.media.with_name("part 1, webm"))
    release.media = release.media.with_name("part 1, webm")
    prepare(release)
    assert (release.out / "train.csv").read_text().startswith("part 1, webm/910001.webm\t112\npart 1, webm/910002")


def test_videos_are_found_behind_links_that_lead_in_a_circle(tmp_path):
    (tmp_path / "disk/class a").mkdir(parents=True)
    (tmp_path / "disk/class a/x.MP4").touch()
    (tmp_path / "disk/class a/x.txt").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "videos")
    assert find_videos(tmp_path / "videos", ["x"]) == {"x": [str(tmp_path / "videos/linked/class a/x.MP4")]}


def test_mistakes_are_told_and_old_lists_stay(copy):
    release = copy("ssv2")
    prepare(release)
    before = {path: path.read_bytes() for path in release.out.glob("*.*")}
    tabbed = release.media.with_name("a\tb")
    tabbed.symlink_to(release.media)  # list lines are split at tabs
    (release.out.parent / "empty").mkdir()
    file = release.annotations / "labels.txt"
    file.touch()
    paths = {"media": release.media, "out": release.out}
    annotation = ssv2.read_annotation(release.annotations)
    for change, words in (
        ({"media": release.out.parent / "empty"}, "none of the 4 train clips .*910001: left out: 0 videos .*empty"),
        ({"media": release.out / "nowhere"}, "nowhere .--frames, --videos. is not an existing folder"),
        ({"media": tabbed}, r"lists cannot hold .*a.+tb/910001.webm.*tabs"),
        ({"out": file}, "labels.txt cannot be made a folder.*--out"),
    ):
        with pytest.raises(UserError, match=words):
            lists.prepare(annotation, **paths | change)
    assert {path: path.read_bytes() for path in release.out.glob("*.*")} == before


def test_extracted_frames_are_those_of_the_video_in_the_size_and_quality_asked_for(tmp_path):
    video, sizes = write_video(tmp_path / "a.webm", 20, "libvpx-vp9"), []  # 128x96
    for short_side, quality, shape in (
        (0, 95, (96, 128)),
        (48, 95, (48, 64)),
        (144, 95, (144, 192)),
        (0, 30, (96, 128)),
    ):
        folder = tmp_path / f"{short_side} {quality}"
        assert extract_video((video, [(folder, 0, math.inf)]), short_side, quality) == [(str(folder), 20)]
        assert sorted(os.listdir(folder)) == [f"{number:05d}.jpg" for number in range(1, 21)]
        images = FrameFolder(str(folder), "{:05d}.jpg", 1, 20).read(range(20))
        assert read_numbers(images) == list(range(20)) and images.shape[1:3] == shape
        sizes.append((folder / "00002.jpg").stat().st_size)
    assert sizes[3] < sizes[0]


def test_a_killed_extraction_goes_on_where_it_stopped(tmp_path):
    """The command is killed while it extracts; what it finished is not touched again, and nothing is half done."""
    (tmp_path / "videos").mkdir()
    video = write_video(tmp_path / "videos/0.mp4", 120)
    clips = [str(number) for number in range(12)]
    for clip_id in clips[1:]:
        shutil.copy(video, tmp_path / f"videos/{clip_id}.mp4")
    (tmp_path / "labels.json").write_text(json.dumps({"Moving something": "0"}))
    for name, ids in (("train", clips[1:]), ("validation", clips[:1])):
        entries = [{"id": clip_id, "template": "Moving [something]"} for clip_id in ids]
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    command = [sys.executable, str(TOOL), "ssv2", "--annotations", ".", "--videos", "videos", "--out", "set"]
    command += ["--extract-frames", "--workers", "1"]
    frames = tmp_path / "set/frames"

    def finished():
        folders = [path for path in frames.iterdir() if path.name.isdecimal()] if frames.exists() else []
        return {path.name: (path / "00001.jpg").stat().st_mtime_ns for path in folders}

    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(finished()) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = finished()
    assert 3 <= len(before) < 12 and all(len(os.listdir(frames / name)) == 120 for name in before)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    after = finished()
    assert len(after) == 12 and before == {name: after[name] for name in before}
    assert sorted(os.listdir(frames)) == sorted([*clips, "extraction.json"])
    assert (tmp_path / "set/train.txt").read_text().splitlines() == [f"frames/{clip_id} 120 0" for clip_id in clips[1:]]


def test_damaged_folders_are_extracted_again_and_leftovers_removed(tmp_path):
    video = write_video(tmp_path / "a.mp4", 6)
    paths, folder = {"a": video}, tmp_path / "frames/a"
    extract_all(paths, tmp_path, 1)
    (folder / "00003.jpg").unlink()
    (tmp_path / "frames/.b.123.tmp").mkdir()
    assert extract_all(paths, tmp_path, 1)["a"] == (str(folder), 6)
    assert sorted(os.listdir(tmp_path / "frames")) == ["a", "extraction.json"] and (folder / "00003.jpg").exists()
    truncate(folder / "00006.jpg", 0.5)
    extract_video((video, [(folder, 0, math.inf)]))
    assert cv2.imread(str(folder / "00006.jpg")) is not None


def test_a_video_that_was_replaced_is_extracted_again(tmp_path):
    paths = {"a": write_video(tmp_path / "a.mp4", 6)}
    extract_all(paths, tmp_path, 1)
    write_video(tmp_path / "a.mp4", 9)
    assert extract_all(paths, tmp_path, 1)["a"] == (str(tmp_path / "frames/a"), 9)
    os.remove(paths["a"])
    assert extract_all(paths, tmp_path, 1)["a"] == (str(tmp_path / "frames/a"), 9)


def test_frames_of_other_settings_or_origin_do_not_mix(tmp_path):
    extract_all({}, tmp_path, 1, short_side=32)
    with pytest.raises(UserError, match="short_side is 32 there and 64 here"):
        extract_all({}, tmp_path, 1, short_side=64)
    (tmp_path / "frames/extraction.json").unlink()
    (tmp_path / "frames/a").mkdir()
    with pytest.raises(UserError, match="not empty and has no extraction.json"):
        extract_all({}, tmp_path, 1, short_side=32)


def test_a_video_damaged_in_the_middle_leaves_nothing(tmp_path):
    video = Path(write_video(tmp_path / "a.mp4", 60))
    content = bytearray(video.read_bytes())
    for position in np.random.default_rng(0).integers(len(content) // 4, len(content) * 3 // 4, 200):
        content[position] ^= 0xFF
    video.write_bytes(content)
    assert re.match(f"{video}: .+", *extract_video((str(video), [(tmp_path / "frames", 0, math.inf)])))
    assert os.listdir(tmp_path) == ["a.mp4"]
