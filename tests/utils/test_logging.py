"""Progress on terminals and without one, as other programs see it; events that survive a crash."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from slowfast.engine.record import Recorder
from slowfast.utils.logging import read_events

ROOT = Path(__file__).parents[2]

# Arguments: output folder, whether this is the main process, seconds per item.
SCRIPT = """
import logging, os, sys, time
from slowfast.utils import logging as ours
folder, is_main, pause = sys.argv[1], sys.argv[2] == "main", float(sys.argv[3])
ours.setup_logging(folder, is_main)
logger = logging.getLogger("slowfast.somewhere")
ours._PLAIN_PERIOD_SEC = 0.1
for item in ours.progress_bar(range(10), 10, "test", is_main):
    time.sleep(pause)
    if item == 4:
        logger.warning("half of it")
        if is_main and not os.fork():
            logger.warning("said by a worker")
            os._exit(0)
        if is_main:
            os.wait()
"""


def start(tmp_path, *arguments, **streams):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, timeout=60, **streams)


def output_on_terminal(tmp_path, columns, *arguments):
    """Return what the script writes to a terminal of so many columns."""
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    start(tmp_path, *arguments, stdout=terminal, stderr=terminal)
    os.close(terminal)
    pieces = []
    try:
        while piece := os.read(main_end, 65536):
            pieces.append(piece)
    except OSError:  # Linux's way to say that nobody is at the other end any more
        pass
    os.close(main_end)
    return b"".join(pieces).decode()


def test_terminal_shows_a_bar_with_the_time_left(tmp_path):
    output = output_on_terminal(tmp_path, 100, "main", "0.15")
    assert re.search(r"test:  \d0%\|.*\| \d/10 \[00:\d\d<00:\d\d, ", output)
    assert " left" not in output
    # Messages, also of a worker, begin on a cleared line; after them the bar comes again, once.
    said = r"\r\033\[KWARNING: half of it\r\n\r\033\[KWARNING: said by a worker\r\n"
    assert re.search(r"test:  40%[^\r]*" + said + r"\rtest:  50%", output)


@pytest.mark.parametrize("columns", [0, None])
def test_without_columns_or_terminal_plain_lines_say_the_time_left(tmp_path, columns):
    if columns is None:
        output = start(tmp_path, "main", "0.15", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    else:
        output = output_on_terminal(tmp_path, columns, "main", "0.15").replace("\r\n", "\n")
    assert "\r" not in output and "\033" not in output
    lines = output.splitlines()
    progress = [line for line in lines if line.startswith("test: ")]
    assert [int(line.split()[1].partition("/")[0]) for line in progress] == list(range(1, 10))
    assert all(re.fullmatch(r"test: \d/10, 0:00:0\d left", line) for line in progress)
    assert sorted(set(lines) - set(progress)) == ["WARNING: half of it", "WARNING: said by a worker"]


def test_other_processes_draw_no_bar_and_clear_the_line_of_the_main_one(tmp_path):
    assert output_on_terminal(tmp_path, 100, "other", "0") == "\r\033[KWARNING: half of it\r\n"
    assert not (tmp_path / "run.log").exists()


def test_events_after_a_crash_are_read(tmp_path):
    def write(path, is_main=True):
        Recorder(tmp_path, is_main, tensorboard=False).event("bad_video", epoch=float("nan"), path=path, reason="")

    write("start")
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"event": "half')
    write("end")
    write("unwanted", is_main=False)
    assert [(event["path"], event["epoch"]) for event in read_events(tmp_path)] == [("start", None), ("end", None)]
    assert len(read_events(tmp_path, "bad_video")) == 2 and read_events(tmp_path, "val") == []
