"""Work in processes that may die: every item gets its own answer, whatever happens to the others."""

import faulthandler
import os
import signal
import time

import pytest

from slowfast.prepare.processes import Lost, map_isolated
from slowfast.utils.errors import UserError


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
    items = [1, "crash", 2, "exit", "hang", *range(3, 40)]
    answers = list(map_isolated(work, items, 2, lambda item: 1 if item == "hang" else None))
    assert sorted(index for index, _ in answers) == list(range(len(items)))
    assert all(answer == 2 * items[index] for index, answer in answers if type(items[index]) is int)
    lost = {items[index]: answer for index, answer in answers if isinstance(answer, Lost)}
    assert lost == {
        "crash": "the process that read it was killed by signal 11 (SIGSEGV)",
        "exit": "the process that read it ended with status 3",
        "hang": "no result after 1 s",
    }


def test_an_exception_is_raised_here_and_no_process_is_waited_for():
    started = time.monotonic()
    with pytest.raises(KeyError, match="a bug"):
        list(map_isolated(work, ["hang", "raise", 1], 2))
    assert time.monotonic() - started < 30


def test_no_items_and_no_workers():
    assert list(map_isolated(work, [], 2)) == []
    with pytest.raises(UserError, match="--workers is 0; allowed: 1 to"):
        list(map_isolated(work, [1], 0))
