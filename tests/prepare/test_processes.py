"""Work in processes that may die: every item gets its own answer, whatever happens to the others."""

import faulthandler
import math
import os
import signal
import time

import pytest

from slowfast.prepare.processes import map_isolated


def work(item):
    match item:
        case "crash":
            faulthandler.disable()  # pytest's, which would print the stack
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "raise":
            raise KeyError("a bug")
    return item * 2


def test_every_item_is_answered_once_and_one_that_is_lost_says_why():
    items = [1, "crash", 2, "exit", "hang", *range(3, 200)]
    answers = list(map_isolated(work, items, 2, lambda item: 1 if item == "hang" else math.inf))
    lost = {
        "crash": "the process that read it was killed by signal 11 (SIGSEGV)",
        "exit": "the process that read it ended with status 3",
        "hang": "no result after 1 s",
    }
    assert answers == [lost.get(item, 2 * item) for item in items]
    assert list(map_isolated(work, [], 2)) == []


def test_an_exception_is_raised_here_and_no_process_is_waited_for():
    started = time.monotonic()
    with pytest.raises(KeyError, match="a bug"):
        list(map_isolated(work, ["raise", "hang", 1], 2))
    assert time.monotonic() - started < 30
