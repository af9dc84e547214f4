"""Whole runs log documented events only."""

import json
from pathlib import Path

import pytest

from slowfast.engine.events import EVENTS


@pytest.fixture(autouse=True)
def events_are_documented(tmp_path):
    """Check that every event that a test's runs have logged has exactly the documented fields."""
    yield
    for log in filter(Path.is_file, tmp_path.glob("**/log.jsonl")):
        for line in log.read_text().splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # of a run that was killed
                continue
            name = event["event"]
            assert name in EVENTS, f"slowfast/engine/events.py lacks the event {name}"
            assert set(event) == {"event", "time", *EVENTS[name].fields}, f"slowfast/engine/events.py: fields of {name}"
            assert isinstance(event["time"], float)
