"""Videos on disk: what is missing or damaged is reported, and extraction goes on where it stopped."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import invented_releases
import numpy as np
import pytest
from numbered_video import read_number, write_video

from slowfast.prepare.diving48 import prepare_diving48
from slowfast.prepare.extract import Extraction, extract_video, extract_videos
from slowfast.prepare.ssv2 import prepare_ssv2
from slowfast.prepare.video_files import locate_videos

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return invented_releases.make("ssv2", tmp_path_factory.mktemp("ssv2"))


@pytest.fixture
def release(intact, tmp_path):
    """A copy to spoil."""
    shutil.copytree(intact.annotations, tmp_path / "official")
    shutil.copytree(intact.media, tmp_path / "set/media")
    folders = tmp_path / "official", tmp_path / "set/media", tmp_path / "set"
    return invented_releases.Release("ssv2", *folders, intact.paths, intact.clips)


def prepare(release, extraction=None):
    return prepare_ssv2(release.annotations, release.media, release.out, 2, extraction)


def report(release):
    return list(csv.reader((release.out / "prepare_report.csv").open()))[1:]


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


DAMAGE = {
    "missing": (lambda path: path.unlink(), ["there is no video 910001", ".webm"]),
    "empty": (lambda path: truncate(path, 0), ["910001.webm", "empty (0 bytes)"]),
    "truncated": (lambda path: truncate(path, 0.6), ["910001.webm", "truncated"]),
    "only a header": (lambda path: truncate(path, 0.05), ["910001.webm"]),
    "text": (lambda path: path.write_text("<html>404</html>"), ["910001.webm", "not a video file"]),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), ["there is no video 910001"]),
    "twice": (lambda path: shutil.copy(path, path.with_suffix(".mp4")), ["2 videos", "910001.mp4", "910001.webm"]),
    "dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), ["910001.webm", "No such file"]),
}


@pytest.mark.parametrize("extraction", [None, Extraction()], ids=["videos", "frames"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_video_is_left_out_and_reported(release, kind, extraction):
    damage, words = DAMAGE[kind]
    damage(release.path("910001"))
    prepared = prepare(release, extraction)
    assert [(split.num_written, split.num_left_out) for split in prepared.splits] == [(3, 1), (2, 0)]
    [[split, clip_id, reason]] = report(release)
    assert (split, clip_id) == ("train", "910001") and reason.startswith("left out: ")
    assert [word for word in words if word not in reason] == []
    name = "train.csv" if extraction is None else "train.txt"
    listed = [line.replace(",", " ").split()[0] for line in (release.out / name).read_text().splitlines()]
    assert [Path(path).stem for path in listed] == ["910002", "910003", "910004"]
    if extraction:
        assert set(os.listdir(release.out / "frames")) == release.paths.keys() - {"910001"} | {"extraction.json"}


def test_an_unusually_short_video_is_kept_and_reported(release):
    write_video(release.path("910003"), 3, "libvpx-vp9", rate=12)
    prepared = prepare(release)
    assert [split.num_unusual for split in prepared.splits] == [1, 0]
    assert report(release) == [["train", "910003", "kept: 3 frames, the clips of the release have 4 to 141"]]


def test_dives_that_end_early_or_start_late_are_kept_and_reported(tmp_path):
    release = invented_releases.make("diving48", tmp_path)
    path = release.annotations / "Diving48_V2_train.json"
    entries = json.loads(path.read_text())
    entries[0]["end_frame"], entries[1]["start_frame"] = 300, 2
    invented_releases.write_json(path, entries)
    prepared = prepare_diving48(release.annotations, release.media, release.out, 1)
    assert [split.num_left_out for split in prepared.splits] == [0, 0]
    assert [(clip_id, reason) for _, clip_id, reason in report(release)] == [
        ("exampleAAA_00001", "kept: 12 frames, the annotation ends at frame 300"),
        ("-exampleB_00020", "kept: the dive starts at frame 2 of the annotation, the whole video is used"),
    ]


def test_paths_with_commas_make_tab_separated_lists(release):
    folder = release.media / "part 1, webm"
    folder.mkdir()
    release.path("910002").rename(folder / "910002.webm")
    prepare(release)
    assert (release.out / "train.csv").read_text().splitlines()[:2] == [
        "media/910001.webm\t112",
        "media/part 1, webm/910002.webm\t45",
    ]


def test_videos_are_found_behind_links_that_lead_in_a_circle(tmp_path):
    (tmp_path / "disk/class a").mkdir(parents=True)
    (tmp_path / "disk/class a/x.MP4").touch()
    (tmp_path / "disk/class a/x.txt").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "videos")
    states, paths = locate_videos(tmp_path / "videos", ["x"])
    assert (states, paths) == ({}, {"x": str(tmp_path / "videos/linked/class a/x.MP4")})


def test_nothing_found_is_an_error_that_says_where_to_look(release):
    shutil.rmtree(release.media)
    release.media.mkdir()
    with pytest.raises(ValueError, match="none of the 4 train clips .*910001.*--videos.*<id>.webm"):
        prepare(release)
    assert not (release.out / "train.csv").exists()


def test_extracted_frames_are_those_of_the_video_in_the_size_asked_for(tmp_path):
    video = write_video(tmp_path / "a.webm", 40, "libvpx-vp9")  # 128x96
    for short_side, shape in ((0, (96, 128)), (48, (48, 64)), (144, (144, 192))):
        folder = tmp_path / f"frames{short_side}"
        state = extract_video(video, folder, Extraction(short_side))
        assert (state.path, state.num_frames, state.problem) == (str(folder), 40, "")
        assert sorted(os.listdir(folder)) == [f"{number:05d}.jpg" for number in range(1, 41)]
        images = [cv2.imread(str(folder / name))[..., ::-1] for name in sorted(os.listdir(folder))]
        assert [read_number(image) for image in images] == list(range(40))
        assert all(image.shape[:2] == shape for image in images)


def test_quality_is_that_of_the_files(tmp_path):
    video = write_video(tmp_path / "a.mp4", 2)
    sizes = []
    for quality in (30, 95):
        extract_video(video, tmp_path / str(quality), Extraction(quality=quality))
        sizes.append((tmp_path / str(quality) / "00002.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_killed_extraction_goes_on_where_it_stopped(tmp_path):
    """The command is killed while it extracts; what it finished is not touched again, and nothing is half done."""
    (tmp_path / "videos").mkdir()
    video = write_video(tmp_path / "videos/0.mp4", 250)
    clips = [str(number) for number in range(12)]
    for clip_id in clips[1:]:
        shutil.copy(video, tmp_path / f"videos/{clip_id}.mp4")
    invented_releases.write_json(tmp_path / "labels.json", {"Moving something": "0"})
    for name, ids in (("train", clips[1:]), ("validation", clips[:1])):
        entries = [{"id": clip_id, "template": "Moving [something]"} for clip_id in ids]
        invented_releases.write_json(tmp_path / f"{name}.json", entries)
    command = [sys.executable, str(TOOL), "ssv2", "--annotations", ".", "--videos", "videos", "--out", "set"]
    command += ["--extract-frames", "--workers", "1"]
    frames = tmp_path / "set/frames"

    def finished():
        folders = [path for path in frames.iterdir() if path.name.isdecimal()] if frames.exists() else []
        return {path.name: (path / "00001.jpg").stat().st_mtime_ns for path in folders}

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(finished()) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = finished()
    assert 3 <= len(before) < 12
    assert all(len(os.listdir(frames / name)) == 250 for name in before)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    after = finished()
    assert len(after) == 12 and before == {name: after[name] for name in before}
    assert sorted(os.listdir(frames)) == sorted([*clips, "extraction.json"])
    assert (tmp_path / "set/train.txt").read_text().splitlines() == [f"frames/{clip_id} 250 0" for clip_id in clips[1:]]


def test_an_interrupted_extraction_goes_on_where_it_stopped(release):
    prepare(release, Extraction())
    frames = release.out / "frames"
    lists = (release.out / "train.txt").read_text()
    finished = {name: (frames / name / "00001.jpg").stat().st_mtime_ns for name in ("910002", "910004", "910011")}
    # As if stopped in the middle of one video and before two others.
    (frames / "910001").rename(frames / ".910001.tmp")
    (frames / ".910001.tmp" / "00012.jpg").unlink()
    shutil.rmtree(frames / "910003")
    shutil.rmtree(frames / "910012")
    (release.out / "train.txt").unlink()
    prepare(release, Extraction())
    assert (release.out / "train.txt").read_text() == lists
    assert {name: (frames / name / "00001.jpg").stat().st_mtime_ns for name in finished} == finished
    assert sorted(os.listdir(frames)) == [*sorted(release.paths), "extraction.json"]


def test_a_folder_that_was_damaged_is_extracted_again(tmp_path):
    video = write_video(tmp_path / "a.mp4", 6)
    folder = tmp_path / "frames"
    extract_video(video, folder, Extraction())
    (folder / "00003.jpg").unlink()
    assert extract_video(video, folder, Extraction()).num_frames == 6
    truncate(folder / "00006.jpg", 0.5)
    assert extract_video(video, folder, Extraction()).num_frames == 6
    assert cv2.imread(str(folder / "00006.jpg")) is not None and (folder / "00003.jpg").exists()


def test_other_settings_do_not_mix_with_frames_that_are_there(release):
    prepare(release, Extraction(short_side=32))
    with pytest.raises(ValueError, match="'short_side': 32.*not with.*'short_side': 64"):
        prepare(release, Extraction(short_side=64))
    (release.out / "frames/extraction.json").unlink()
    with pytest.raises(ValueError, match="not from this command"):
        prepare(release, Extraction(short_side=32))


def test_a_video_damaged_in_the_middle_leaves_nothing(tmp_path):
    video = Path(write_video(tmp_path / "a.mp4", 60))
    content = bytearray(video.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(len(content) // 4, len(content) * 3 // 4, 200):
        content[position] ^= 0xFF
    video.write_bytes(content)
    states = extract_videos({"a": str(video)}, tmp_path / "frames", Extraction(), 1)
    assert states["a"].problem and str(video) in states["a"].problem
    assert os.listdir(tmp_path / "frames") == ["extraction.json"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"short_side": 8}, "--short-side.* is 8"), ({"quality": 0}, "--quality.* is 0; allowed: 1 to 100")],
)
def test_wrong_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        Extraction(**settings)
