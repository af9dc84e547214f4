"""Hundreds of damaged files: each is named in a DecodeError or read right, and none ends or stops a process."""

from __future__ import annotations

import os

import pytest
from damaged_files import NUM_ASKED, NUM_FRAMES, Damaged, Outcome, read_damaged, write_damaged
from video_backends import BACKENDS


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_damaged(tmp_path_factory.mktemp("damaged") / "files")


def complaint(item: Damaged, outcome: Outcome) -> str:
    """Return what is wrong with how an item was read, or nothing."""
    if outcome.status == "error":
        if outcome.path != item.path or not outcome.reason:
            return f"an error that does not name it: {outcome}"
        is_refused = item.intact and os.access(item.path, os.R_OK)
        if is_refused and "decord cannot read it exactly" not in outcome.reason:
            return f"refused although nothing is wrong with it: {outcome.reason}"
        return ""
    if outcome.status != "frames":
        return f"{outcome.status} {outcome.reason}"
    if not item.may_be_read:
        return "frames came out of it"
    if len(outcome.shape) != 4 or outcome.shape[0] != NUM_ASKED or outcome.shape[3] != 3:
        return f"frames of shape {outcome.shape}"
    if max(outcome.asked) >= 2 * NUM_FRAMES:
        return f"has frame {max(outcome.asked)}"
    if item.numbers_survive and outcome.shown != outcome.asked:
        return f"asked for {outcome.asked}, got {outcome.shown}"
    return ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_damaged_file_is_named_or_read_right(items, backend):
    if backend != "pyav":  # folders and images do not depend on it
        items = [item for item in items if item.kind == "video" and not item.vanishes]
    outcomes = read_damaged(items, backend)
    complaints = {item.path: complaint(*pair) for item, *pair in zip(items, items, outcomes, strict=True)}
    assert not {path: words for path, words in complaints.items() if words}
    # Most of the damage is found; what a bit flip does to VP9 and HEVC leaves no trace.
    assert len(items) > 300 and sum(outcome.status == "error" for outcome in outcomes) > len(items) / 2


def test_a_crash_and_a_hang_are_seen(items):
    intact = next(item for item in items if item.intact)
    outcomes = read_damaged([intact, Damaged("a", "crash"), Damaged("b", "hang"), intact], "pyav", limit_sec=1)
    assert [outcome.status for outcome in outcomes] == ["frames", "crash", "hang", "frames"]
