from __future__ import annotations

import os
from collections import Counter

import pytest
from damaged_files import NUM_ASKED, NUM_FRAMES, Damaged, Outcome, read_damaged, write_damaged
from video_backends import BACKENDS

from slowfast.datasets.decoder import DecodeError, open_video


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_damaged(tmp_path_factory.mktemp("damaged") / "files")


def complaint(item: Damaged, outcome: Outcome) -> str:
    """Return what is wrong with how an item was read, or nothing."""
    if outcome.status == "error":
        if outcome.path != item.path or not outcome.reason:
            return f"an error that does not name it: {outcome}"
        if item.intact and item.can_be_opened and "decord cannot read it exactly" not in outcome.reason:
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
    else:
        assert len(items) >= 500
        assert min(Counter(item.kind for item in items).values()) >= 50
    report = read_damaged(items, backend)
    assert list(report) == [item.path for item in items]
    complaints = {item.path: complaint(item, report[item.path]) for item in items}
    assert not {path: words for path, words in complaints.items() if words}
    # Most of the damage is found; what a bit flip does to VP9 and HEVC leaves no trace.
    assert sum(outcome.status == "error" for outcome in report.values()) > len(items) / 2


def test_a_crash_and_a_hang_are_seen(items, monkeypatch):
    intact = next(item for item in items if item.intact and item.can_be_opened)
    crash = Damaged("crash", "crash", "")
    hang = Damaged("hang", "hang", "")
    report = read_damaged([intact, crash, hang, intact], "pyav", limit_sec=3)
    assert [report[item.path].status for item in (intact, crash, hang)] == ["frames", "crash", "hang"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_an_unreadable_file(items):
    for item in items:
        if item.damage == "unreadable":
            with pytest.raises(DecodeError, match="[Pp]ermission"):
                open_video(item.path, "auto")
