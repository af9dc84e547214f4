"""Folders of videos to folds: who is validated where, for names as users have them."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from slowfast.prepare import extract
from slowfast.prepare.folder import assign_folds, draw_shots
from slowfast.utils.errors import UserError
from tools.prepare_data import main

ACTIONS, PEOPLE = ("bend", "jump", "walk"), ("ann", "ben", "cem", "dee")


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Make files of these names and call the command on them; a name with ``bad`` in it cannot be decoded."""

    def inspect_all(inspect, items, workers):
        return {clip_id: "it is damaged" if "bad" in path else (path, 7) for clip_id, path in items.items()}

    monkeypatch.setattr(extract, "inspect_all", inspect_all)

    def call(names, *options):
        for name in names:
            (tmp_path / "media" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "media" / name).touch()
        return main(["folder", "--videos", f"{tmp_path}/media", "--out", f"{tmp_path}/set", *options])

    return call


def read(folder, name):
    """Return the names of the files of a list, with their labels."""
    lines = (folder / "set" / name).read_text().splitlines()
    return {line.split("media/")[1].split(",")[0]: int(line.split(",")[1]) for line in lines}


def test_one_person_is_left_out_of_every_fold(prepare, tmp_path):
    names = [f"{action}/{person}_{action}.avi" for action in ACTIONS for person in PEOPLE]
    assert prepare(names, "--pattern", "{class}/{person}_*", "--folds", "person") == 0
    assert (tmp_path / "set/classes.txt").read_text().split() == [*ACTIONS]
    for fold, person in enumerate(PEOPLE, 1):
        train, val = (read(tmp_path, f"fold{fold}/{split}.csv") for split in ("train", "val"))
        assert val == {f"{action}/{person}_{action}.avi": label for label, action in enumerate(ACTIONS)}
        assert {**train, **val} == {name: ACTIONS.index(name.partition("/")[0]) for name in names}


def test_flat_names_become_stratified_folds_and_shots(prepare, tmp_path, caplog):
    caplog.set_level("INFO")
    names = [f"clip_{name}_{i}.mp4" for name, num in (("up", 21), ("down", 22), ("junk", 3)) for i in range(num)]
    options = ["--pattern", "clip_{class}_*", "--without", "junk", "--folds", "stratified", "5", "--shots", "2", "4"]
    assert prepare([*names, "clip_up_bad.mp4", "other.mp4", "notes.txt"], *options) == 1
    report = (tmp_path / "set/prepare_report.csv").read_text()
    assert "it is damaged" in report and "other.mp4" in report and "notes" not in report
    folds = [read(tmp_path, f"fold{fold}/val.csv") for fold in range(1, 6)]
    assert Counter(itertools.chain(*folds)) == Counter(name for name in names if "junk" not in name)
    counts = np.array([[list(fold.values()).count(label) for label in (0, 1)] for fold in folds])
    assert np.ptp(counts, axis=0).max() <= 1 and np.ptp(counts.sum(1)) <= 1
    few, more, all_of = (read(tmp_path, f"{name}fold3/train.csv") for name in ("shots2_", "shots4_", ""))
    assert few.items() <= more.items() <= all_of.items()
    assert Counter(more.values()) == {0: 4, 1: 4} and Counter(few.values()) == {0: 2, 1: 2}
    assert read(tmp_path, "shots2_fold3/val.csv") == folds[2]


@pytest.mark.parametrize("seed", range(5))
def test_persons_are_never_divided_and_classes_stay_alike(seed):
    rng = np.random.default_rng(seed)
    persons = rng.integers(0, 12, 90).astype(str).tolist()
    labels = rng.integers(0, 3, 90)
    fold_of = assign_folds(labels, persons, ["a", "b", "c"], "stratified", 4, seed)
    assert all(len({*fold_of[np.array(persons) == person]}) == 1 for person in persons)
    counts = np.array([np.bincount(labels[fold_of == fold], minlength=3) for fold in range(4)])
    assert counts.min() > 0 and counts.sum(1).max() <= 2 * counts.sum(1).min()


def test_a_split_without_folds(prepare, tmp_path):
    assert prepare([f"{name}/{i}.mov" for name in "ab" for i in range(10)]) == 0
    assert Counter(read(tmp_path, "val.csv").values()) == {0: 2, 1: 2}
    assert Counter(read(tmp_path, "train.csv").values()) == {0: 8, 1: 8}


def test_no_class_is_lost_or_found_where_there_is_none(prepare, tmp_path, caplog):
    """Folders on other disks are classes; hidden ones, other files and frames that were extracted here are not."""
    caplog.set_level("INFO")
    for name in ("disk/1.mp4", "disk/2.mp4", "media/frames/extraction.json", "media/frames/run_1.mp4/00001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "media/jump").symlink_to(tmp_path / "disk")
    names = ["run/Recording 3.04\u202fPM.wmv", "run/1, 2.mpg", ".Trash-1000/x.mp4", "run/._1.mp4", "run/notes.doc"]
    assert prepare(names, "--folds", "none", "2") == 0
    lines = (tmp_path / "set/train.csv").read_text().splitlines() + (tmp_path / "set/val.csv").read_text().splitlines()
    clips = {tuple(re.split("[,\t](?=[01]$)", line.split("media/")[1])) for line in lines}
    assert clips == {(f"jump/{i}.mp4", "0") for i in (1, 2)} | {(name, "1") for name in names[:2]}
    assert (tmp_path / "set/classes.txt").read_text().split() == ["jump", "run"]
    assert any(re.match("1 files are no videos .*, such as .*notes.doc", message) for message in caplog.messages)


def test_classes_that_are_not_validated_are_named(prepare, caplog):
    prepare([f"{name}/{i}.mp4" for name in ("a", "b", "c") for i in range(3)])
    assert any("val has no video of" in message and "--folds none 2" in message for message in caplog.messages)


def test_lists_of_an_earlier_call_do_not_get_other_class_names(prepare, tmp_path):
    names = [f"{name}/{i}.avi" for name in ("b", "c") for i in range(4)]
    assert prepare(names, "--folds", "stratified", "2", "--shots", "1") == 0
    assert prepare([], "--folds", "stratified", "2") == 0  # of the same classes
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.*")}
    with pytest.raises(UserError, match="shots1_fold1/train.csv has the labels of other classes"):
        prepare(["a/0.avi", "a/1.avi"], "--folds", "stratified", "2")
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.*")} == before
    assert prepare([], "--folds", "stratified", "2", "--shots", "1") == 0
    assert (tmp_path / "set/classes.txt").read_text().split() == ["a", "b", "c"]


CLIPS = [f"{name}/{person}_{i}.avi" for name in "ab" for person in PEOPLE[:2] for i in range(2)]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["notes.txt"], [], r"has no videos that fit --pattern '{class}/\*' \(.mp4 .webm"),
        (["x.avi"], [], r"no videos that fit.*1 have other names, such as x.avi"),
        (CLIPS[:4], [], "usable videos of one class only, a"),
        (CLIPS, ["--pattern", "{clas}/*"], "--pattern is '{clas}/.*allowed: one {class}"),
        (CLIPS, ["--without", "c"], "--without c: no such class, found a, b"),
        (CLIPS, ["--folds", "random"], r"--folds is random; allowed: person \| stratified \| none"),
        (CLIPS, ["--folds", "stratified", "1"], "--folds is stratified 1; allowed"),
        (CLIPS, ["--folds", "person"], "needs to know the person"),
        (CLIPS, ["--folds", "person", "3", "--pattern", "{class}/{person}_*"], "there are 2 persons only"),
        (CLIPS, ["--folds", "stratified", "5"], "class 'a' has 4 clips: --folds stratified 5 needs at least 5"),
        ([*CLIPS, "c/ann_0.avi"], ["--folds", "person", "--pattern", "{class}/{person}_*"], "class 'c' has 1 persons"),
        (CLIPS, ["--folds", "stratified", "2", "--shots", "3"], "--shots 3: class 'a' has 2 training clips only"),
        (
            [*CLIPS, "a_b/0.avi", "a/b_0.avi"],
            ["--extract-frames"],
            "a/b_0.avi and .*a_b/0.avi would have the same folder",
        ),
        ([*CLIPS, "a/b\tc.avi"], [], r"lists cannot hold .*b\\tc.avi'"),
        (["a/bad.avi", "b/bad.avi"], [], "no usable videos"),
    ],
)
def test_mistakes_are_named_and_leave_no_list(prepare, tmp_path, names, options, message):
    with pytest.raises(UserError, match=message):
        prepare(names, *options)
    assert not [*(tmp_path / "set").rglob("*.csv")]


def test_fewer_shots_are_a_part_of_more():
    labels = np.arange(60) % 3
    draws = [set(draw_shots(labels, np.arange(10, 60), ["a", "b", "c"], count, [7, 1])) for count in (1, 2, 5, 10)]
    assert all(few < more for few, more in itertools.pairwise(draws))
    assert [len(draw) for draw in draws] == [3, 6, 15, 30] and min(draws[-1]) >= 10
