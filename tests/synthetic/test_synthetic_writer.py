"""The synthetic motion set on disk: complete, repeatable, and what is decoded is what was rendered."""

import dataclasses
import itertools
import json
import os
from pathlib import Path

import av
import cv2
import decord
import numpy as np
import pytest

from slowfast.synthetic import writer as synthetic_writer
from slowfast.synthetic.specs import CLASS_NAMES, MotionSpec, render_clip
from slowfast.synthetic.writer import MEDIA_FORMATS, write_dataset

SMALL = MotionSpec(size=32, num_frames=8)


def _decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _read_jpegs(folder):
    return np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(folder.glob("*.jpg"))])


def _read_lists(root, media_format):
    """Both lists as [(path, label)], checking their own frame counts."""
    lists = []
    for split in ("train", "val"):
        if media_format == "frames":
            rows = [line.split(" ") for line in (root / f"{split}.txt").read_text().splitlines()]
            assert all(int(n) == len(list((root / path).iterdir())) for path, n, _ in rows)
            lists.append([(path, int(label)) for path, _, label in rows])
        else:
            rows = [line.split(",") for line in (root / f"{split}.csv").read_text().splitlines()]
            lists.append([(path, int(label)) for path, label in rows])
    return lists


def _tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("media_format", MEDIA_FORMATS)
def test_layout_labels_and_pictures(tmp_path, media_format):
    assert write_dataset(tmp_path, SMALL, 26, 13, media_format, seed=5)
    train, val = _read_lists(tmp_path, media_format)
    assert (len(train), len(val)) == (26, 13)
    paths = [path for path, _ in train + val]
    media = {str(path.relative_to(tmp_path)) for path in (tmp_path / paths[0]).parent.iterdir()}
    assert len(set(paths)) == 39
    assert set(paths) == media
    for rows, count in ((train, 26), (val, 13)):
        histogram = np.bincount([label for _, label in rows], minlength=12)
        assert histogram.sum() == count
        assert histogram.max() - histogram.min() <= 1
        assert [label for _, label in rows] != [i % 12 for i in range(count)]  # shuffled
    assert (tmp_path / "classes.txt").read_text().splitlines() == list(CLASS_NAMES)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["num_train"] == 26
    assert description["seed"] == 5
    assert description["speed"] == [0.04, 0.08]

    clips = []
    for split, rows in enumerate((train, val)):
        for index, (path, label) in enumerate(rows):
            clip = _read_jpegs(tmp_path / path) if media_format == "frames" else _decode(tmp_path / path)
            expected = render_clip(np.random.SeedSequence(5, spawn_key=(split, index)), label, SMALL)
            assert clip.shape == expected.shape
            error = np.mean(((clip.astype(float) - expected) @ [0.299, 0.587, 0.114]) ** 2)
            assert 10 * np.log10(255**2 / error) > 32  # dB, luma: the colour is stored at half the resolution
            clips.append(clip)
    if media_format == "frames":
        assert sorted(p.name for p in (tmp_path / paths[0]).iterdir()) == [f"{i:05d}.jpg" for i in range(1, 9)]
    for a, b in itertools.combinations(clips, 2):  # train and val share no clip, forwards or backwards
        assert (a != b).any()
        assert (a != b[::-1]).any()


@pytest.mark.parametrize("media_format", ["mp4", "webm"])
def test_videos_keep_no_trace_of_the_order_of_time(tmp_path, media_format, monkeypatch):
    """A clip encoded backwards decodes to the very frames of the clip encoded forwards."""
    forward, backward = tmp_path / "forward", tmp_path / "backward"
    write_dataset(forward, SMALL, 6, 1, media_format)
    generator = synthetic_writer._GENERATORS[MotionSpec]
    reverse = dataclasses.replace(generator, render=lambda *args: render_clip(*args)[::-1].copy())
    monkeypatch.setitem(synthetic_writer._GENERATORS, MotionSpec, reverse)
    write_dataset(backward, SMALL, 6, 1, media_format)
    for path, _ in _read_lists(forward, media_format)[0]:
        np.testing.assert_array_equal(_decode(forward / path), _decode(backward / path)[::-1])


@pytest.mark.parametrize(("media_format", "fps"), [("mp4", 30), ("webm", 12)])
def test_decord_reads_every_frame(tmp_path, media_format, fps):
    write_dataset(tmp_path, dataclasses.replace(SMALL, num_frames=17), 2, 1, media_format)
    for rows in _read_lists(tmp_path, media_format):
        for path, _ in rows:
            reader = decord.VideoReader(str(tmp_path / path))
            assert len(reader) == 17
            assert reader.get_avg_fps() == pytest.approx(fps)
            order = [16, 0, 9, 3]
            np.testing.assert_array_equal(reader.get_batch(order).asnumpy(), _decode(tmp_path / path)[order])


def test_a_seed_gives_the_labels_that_it_always_gave(tmp_path):
    write_dataset(tmp_path, dataclasses.replace(SMALL, num_frames=2), 14, 3, "frames")
    train, val = _read_lists(tmp_path, "frames")
    assert [label for _, label in train] == [11, 0, 1, 10, 4, 7, 5, 9, 3, 8, 1, 2, 0, 6]
    assert [label for _, label in val] == [0, 2, 1]
    assert not list(tmp_path.glob("*appearance*"))


def test_workers_do_not_change_the_files(tmp_path):
    write_dataset(tmp_path / "one", SMALL, 13, 3, "frames", seed=2, workers=1)
    write_dataset(tmp_path / "two", SMALL, 13, 3, "frames", seed=2, workers=2)
    write_dataset(tmp_path / "other", SMALL, 13, 3, "frames", seed=3)
    one = _tree(tmp_path / "one")
    assert one == _tree(tmp_path / "two")
    other = _tree(tmp_path / "other")
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


def test_a_complete_set_is_left_alone_and_another_is_refused(tmp_path):
    write_dataset(tmp_path, SMALL, 3, 2, "mp4")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not write_dataset(tmp_path, SMALL, 3, 2, "mp4", workers=4)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for changed, word in (
        ((dataclasses.replace(SMALL, noise_std=5.0), 3, 2, "mp4"), "noise_std is 4.0 there and 5.0 here"),
        ((SMALL, 3, 4, "mp4"), "num_val is 2 there and 4 here"),
        ((SMALL, 3, 2, "webm"), "media_format is mp4 there and webm here"),
    ):
        with pytest.raises(ValueError, match=word):
            write_dataset(tmp_path, *changed)


@pytest.mark.parametrize("media_format", MEDIA_FORMATS)
def test_an_interrupted_run_is_completed(tmp_path, monkeypatch, media_format):
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
    assert not (broken / "dataset.json").exists()
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        write_dataset(broken, SMALL, 6, 2, media_format, seed=1)
    assert write_dataset(broken, SMALL, 6, 2, media_format)
    assert _tree(broken) == _tree(whole)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty; allowed: an empty or new folder"):
        write_dataset(tmp_path, SMALL, 3, 2, "frames")
    with pytest.raises(ValueError, match="this is a file"):
        write_dataset(tmp_path / "thesis.txt", SMALL, 3, 2, "frames")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
