"""Work in processes that may die: every item gets its own answer, whatever happens to the others."""

import faulthandler
import os
import signal
import time

import pytest

from slowfast.prepare.isolation import Lost, map_isolated


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


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_is_answered_once(workers):
    answers = list(map_isolated(work, list(range(50)), workers))
    assert sorted(index for index, _ in answers) == list(range(50))
    assert all(answer == 2 * index for index, answer in answers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_loses_one_item(workers):
    items = [1, "crash", 2, "exit", "crash", 3]
    answers = dict(map_isolated(work, items, workers))
    assert [answers[index] for index in (0, 2, 5)] == [2, 4, 6]
    assert answers[1] == answers[4] == Lost("the process that read it was killed by signal 11 (SIGSEGV)")
    assert answers[3] == Lost("the process that read it ended with status 3")


def test_a_hang_loses_one_item():
    started = time.monotonic()
    answers = dict(map_isolated(work, [1, "hang", 2], 2, timeout_sec=0.5))
    assert answers == {0: 2, 1: Lost("no result after 0.5 s"), 2: 4}
    assert time.monotonic() - started < 30


def test_an_exception_is_raised_here_and_no_process_is_left():
    with pytest.raises(KeyError, match="a bug") as error:
        list(map_isolated(work, ["hang", "raise", 1], 2))
    assert "in work" in str(error.value.__cause__)


def test_no_items_and_wrong_numbers():
    assert list(map_isolated(work, [], 2)) == []
    with pytest.raises(ValueError, match="--workers.* is 0; allowed: 1 to"):
        map_isolated(work, [1], 0)
    for timeout in (0, -5, float("nan")):  # would make every item look like one that hangs
        with pytest.raises(ValueError, match=f"--timeout.* is {timeout}; allowed: above 0"):
            map_isolated(work, [1], 1, timeout)
