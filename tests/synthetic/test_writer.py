"""Synthetic sets on disk: complete, repeatable, and what is decoded is what was rendered."""

import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decoder import FrameFolder, open_video
from slowfast.synthetic import writer
from slowfast.synthetic.scenes import CLASS_NAMES, SceneSpec, render
from slowfast.synthetic.writer import write_dataset
from slowfast.utils.errors import UserError

FORMATS = ("frames", "mp4")
SMALL = SceneSpec(size=32, num_frames=8)


def read_clip(path):
    reader = FrameFolder(str(path), "{:05d}.jpg", 1, len(os.listdir(path))) if path.is_dir() else open_video(str(path))
    with reader:
        return reader.read(range(reader.num_frames))


def read_list(root, name):
    """Rows (path, label), and in lists of folders their frame counts checked."""
    if (root / f"{name}.txt").exists():
        rows = [line.split(" ") for line in (root / f"{name}.txt").read_text().splitlines()]
        assert all(int(num_frames) == len(os.listdir(root / path)) for path, num_frames, _ in rows)
    else:
        rows = [line.split(",") for line in (root / f"{name}.csv").read_text().splitlines()]
    return [(row[0], int(row[-1])) for row in rows]


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("media_format", FORMATS)
def test_layout_labels_and_pictures(tmp_path, media_format):
    assert write_dataset(tmp_path, SMALL, 26, 13, media_format, seed=5)
    train, val = (read_list(tmp_path, split) for split in ("train", "val"))
    paths = [path for path, _ in train + val]
    media = (tmp_path / paths[0]).parent
    assert len(paths) == 39 and set(paths) == {str(path.relative_to(tmp_path)) for path in media.iterdir()}
    for rows, count in ((train, 26), (val, 13)):
        histogram = np.bincount([label for _, label in rows], minlength=12)
        assert histogram.sum() == count and np.ptp(histogram) <= 1
        assert [label for _, label in rows] != [i % 12 for i in range(count)]  # shuffled
    assert (tmp_path / "classes.txt").read_text().splitlines() == list(CLASS_NAMES)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert (description["num_train"], description["seed"], description["speed"]) == (26, 5, [0.04, 0.08])
    clips = []
    for split, rows in enumerate((train, val)):
        for index, (path, label) in enumerate(rows):
            clip = read_clip(tmp_path / path)
            expected = render(np.random.SeedSequence(5, spawn_key=(split, index)), label, SMALL)
            error = np.mean(((clip.astype(float) - expected) @ [0.299, 0.587, 0.114]) ** 2)
            assert 10 * np.log10(255**2 / error) > 32  # dB, luma: the colour is stored at half the resolution
            clips.append(clip)
    for a, b in itertools.combinations(clips, 2):  # train and val share no clip, forwards or backwards
        assert (a != b).any() and (a != b[::-1]).any()


def test_videos_keep_no_trace_of_the_order_of_time(tmp_path, monkeypatch):
    """A clip encoded backwards decodes to the very frames of the clip encoded forwards."""
    write_dataset(tmp_path / "forward", SMALL, 4, 1, "mp4")
    monkeypatch.setattr(writer, "render", lambda *args: render(*args)[::-1].copy())
    write_dataset(tmp_path / "backward", SMALL, 4, 1, "mp4")
    for path, _ in read_list(tmp_path / "forward", "train"):
        forward, backward = (read_clip(tmp_path / way / path) for way in ("forward", "backward"))
        np.testing.assert_array_equal(forward, backward[::-1])


def test_a_seed_gives_the_labels_that_it_always_gave(tmp_path):
    write_dataset(tmp_path, dataclasses.replace(SMALL, num_frames=2), 14, 3, "frames")
    assert [label for _, label in read_list(tmp_path, "train")] == [11, 0, 1, 10, 4, 7, 5, 9, 3, 8, 1, 2, 0, 6]
    assert [label for _, label in read_list(tmp_path, "val")] == [0, 2, 1]


def test_workers_do_not_change_the_files(tmp_path):
    for name, seed, workers in (("one", 2, 1), ("two", 2, 2), ("other", 3, 1)):
        write_dataset(tmp_path / name, SMALL, 9, 3, "frames", seed, workers)
    one, two, other = (tree(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


@pytest.mark.parametrize("media_format", FORMATS)
def test_an_interrupted_run_is_completed_and_a_complete_one_left_alone(tmp_path, monkeypatch, media_format):
    """Interrupted with the fourth clip unfinished, then run again."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_dataset(whole, SMALL, 6, 2, media_format)
    replace = os.replace

    def fail_at_the_fourth(source, target):
        if Path(target).stem == "000004":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(broken, SMALL, 6, 2, media_format)
    monkeypatch.undo()
    (unfinished,) = broken.glob("*/.000004*.tmp")
    if unfinished.is_dir():
        (unfinished / "00099.jpg").write_bytes(b"left over")
    else:
        unfinished.write_bytes(unfinished.read_bytes()[:50])
    assert not (broken / "classes.txt").exists()
    for changed, word in (
        ((SMALL, 6, 2, media_format, 1), "seed is 0 there and 1 here"),
        ((SMALL, 6, 4, media_format), "num_val is 2 there and 4 here"),
        ((dataclasses.replace(SMALL, noise_std=5.0), 6, 2, media_format), "noise_std is 4.0 there and 5.0 here"),
    ):
        with pytest.raises(UserError, match=word):
            write_dataset(broken, *changed)
    assert write_dataset(broken, SMALL, 6, 2, media_format)
    assert tree(broken) == tree(whole)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert not write_dataset(whole, SMALL, 6, 2, media_format, workers=4)
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_wrong_arguments_are_refused_and_change_nothing(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty and has no dataset.json"):
        write_dataset(tmp_path, SMALL, 3, 2, "frames")
    for out, changes, words in (
        ("thesis.txt", {}, "thesis.txt cannot be made a folder.*--out"),
        ("new", {"spec": dataclasses.replace(SMALL, size=33)}, "--size is 33; allowed: even"),
    ):
        arguments = {"spec": SMALL, "num_train": 3, "num_val": 2, "media": "mp4"} | changes
        with pytest.raises(UserError, match=words):
            write_dataset(tmp_path / out, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
