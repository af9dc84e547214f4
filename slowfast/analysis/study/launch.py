"""Running what a study lacks: each run in a process of its own, resumable, several at a time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import slowfast
from slowfast.analysis.study.folders import check_folders, epochs_done, is_finished
from slowfast.analysis.study.plan import Run, Study
from slowfast.analysis.study.resources import Resources
from slowfast.engine.results import read_results
from slowfast.utils.files import locked, replacing
from slowfast.utils.logging import format_duration, read_events

logger = logging.getLogger(__name__)

CONSOLE = "console.log"
SETTINGS = "settings.yaml"

_ROOT = Path(slowfast.__file__).resolve().parents[1]
_POLL_SEC = 0.2
_STATUS_SEC = 60
# A step, a checkpoint; the end of everything if a second signal comes.
_GRACE_SEC = 120
_NUM_LAST_LINES = 15


class Interrupted(Exception):
    """The study was asked to end by a signal; its runs have ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class _Interruption:
    """A context in which the signals that ask a program to end are only counted."""

    def __enter__(self) -> _Interruption:
        self.signals: list[int] = []
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.signals.append(number)


@dataclass
class _Job:
    run: Run
    slot: int
    process: subprocess.Popen
    console: IO[bytes]
    started: float
    epochs_before: int


def run_missing(study: Study, resources: Resources) -> list[Run]:
    """Run what is not finished; return the runs that failed.

    Raises:
        ValueError: a folder holds a run with other settings.
        Interrupted: a signal came; the runs were asked to end and have saved where they were.
    """
    os.makedirs(study.out, exist_ok=True)
    with locked(study.out) as lock:
        runs = study.runs()
        check_folders(runs)
        missing = [run for run in runs if not is_finished(run)]
        logger.info("%d runs, %d of them finished already", len(runs), len(runs) - len(missing))
        if not missing:
            return []
        resources.warn_if_short(max(run.variant.cfg.DATA_LOADER.NUM_WORKERS for run in missing))
        return _Queue(missing, resources, lock).work()


class _Queue:
    """Runs to be run, and those that are running.

    Args:
        runs: in order.
        resources: what they may use.
        lock: file descriptor that they inherit, so that the folder stays locked while one of them is alive.
    """

    def __init__(self, runs: Sequence[Run], resources: Resources, lock: int) -> None:
        self._waiting = deque(runs)
        self._num_runs = len(runs)
        self._numbers = {id(run): number for number, run in enumerate(runs, start=1)}
        self._resources = resources
        self._lock = lock
        self._jobs: list[_Job] = []
        self._failed: list[Run] = []
        self._started = time.monotonic()
        self._epochs_to_do = sum(_num_epochs(run) - epochs_done(run) for run in runs)
        self._epochs_done = 0  # of runs that have ended

    def work(self) -> list[Run]:
        shown = time.monotonic()
        with _Interruption() as interruption:
            try:
                while self._waiting or self._jobs:
                    if interruption.signals:
                        self._stop(interruption)
                        raise Interrupted(interruption.signals[0])
                    while self._waiting and len(self._jobs) < self._resources.jobs:
                        self._start(self._waiting.popleft())
                    time.sleep(_POLL_SEC)
                    for job in [job for job in self._jobs if job.process.poll() is not None]:
                        self._finish(job)
                        shown = time.monotonic()
                    if time.monotonic() - shown >= _STATUS_SEC:
                        self._show_status()
                        shown = time.monotonic()
            finally:
                for job in self._jobs:  # after an error of this program
                    _kill(job.process)
        return self._failed

    def _start(self, run: Run) -> None:
        slot = min(set(range(self._resources.jobs)) - {job.slot for job in self._jobs})
        os.makedirs(run.folder, exist_ok=True)
        # The settings as they were when the study began: a file that is edited in the meantime changes nothing.
        settings = os.path.join(run.variant.folder, SETTINGS)
        with replacing(settings) as file:
            file.write(run.variant.cfg.dump())
        command = ["bash", str(_ROOT / "exp" / "launch.sh"), str(_ROOT / "tools" / "run_net.py"), "--cfg", settings]
        command += ["RNG_SEED", str(run.seed), "OUTPUT_DIR", run.folder]
        console = open(os.path.join(run.folder, CONSOLE), "ab")  # noqa: SIM115, closed with the job
        console.write(f"$ {' '.join(command)}\n".encode())
        console.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=self._resources.environment(slot),
            pass_fds=(self._lock,),
            start_new_session=True,  # Ctrl-C reaches this process only, which lets the runs save first
        )
        self._jobs.append(_Job(run, slot, process, console, time.monotonic(), epochs_done(run)))
        logger.info("%s: started, output in %s", self._label(run), os.path.join(run.folder, CONSOLE))

    def _finish(self, job: _Job) -> None:
        job.console.close()
        self._jobs.remove(job)
        run, status = job.run, job.process.returncode
        took = format_duration(time.monotonic() - job.started)
        if status == 0 and is_finished(run):
            self._epochs_done += _num_epochs(run) - job.epochs_before
            top1 = read_results(run.folder)["top1"]
            logger.info("%s: top-1 %.2f %% in %s%s", self._label(run), top1, took, self._left())
            return
        self._failed.append(run)
        self._epochs_to_do -= _num_epochs(run) - job.epochs_before
        path = os.path.join(run.folder, CONSOLE)
        logger.error("%s: FAILED with status %d after %s, the end of %s:", self._label(run), status, took, path)
        for line in _last_lines(path):
            logger.error("    %s", line)

    def _stop(self, interruption: _Interruption) -> None:
        if not self._jobs:
            return
        logger.warning(
            "%s: asking %d runs to save and end; once more, and they are killed",
            signal.Signals(interruption.signals[0]).name, len(self._jobs),
        )  # fmt: skip
        for job in self._jobs:
            job.process.terminate()
        deadline = time.monotonic() + _GRACE_SEC
        while any(job.process.poll() is None for job in self._jobs):
            if len(interruption.signals) > 1 or time.monotonic() > deadline:
                break
            time.sleep(_POLL_SEC)
        for job in self._jobs:
            _kill(job.process)
            job.console.close()
        self._jobs = []

    def _label(self, run: Run) -> str:
        return f"[{self._numbers[id(run)]}/{self._num_runs}] {run}"

    def _left(self) -> str:
        """Return how long the rest takes at the pace of the epochs since the start, as the end of a line."""
        running = sum(epochs_done(job.run) - job.epochs_before for job in self._jobs)
        done = self._epochs_done + running
        if not done or not (self._waiting or self._jobs):
            return ""
        seconds = (time.monotonic() - self._started) / done * (self._epochs_to_do - done)
        return f", about {format_duration(max(0.0, seconds))} left"

    def _show_status(self) -> None:
        for job in self._jobs:
            last = read_events(job.run.folder, "val")[-1:]
            accuracy = f", validation top-1 {last[0]['top1']:.2f} %" if last else ""
            logger.info(
                "%s: %d of %d epochs%s%s",
                self._label(job.run), epochs_done(job.run), _num_epochs(job.run), accuracy, self._left(),
            )  # fmt: skip


def _num_epochs(run: Run) -> int:
    return run.settings["SOLVER.MAX_EPOCH"] if run.settings["TRAIN.ENABLE"] else 1


def _kill(process: subprocess.Popen) -> None:
    """End a process that may have ended, and all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=_NUM_LAST_LINES)]
