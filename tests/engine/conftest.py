"""Runs in the test's own process, and what happens after a step of theirs."""

import os
import signal
from types import SimpleNamespace

import pytest
from helpers_engine import Killed

from slowfast.engine.report import Report
from slowfast.engine.run import main


@pytest.fixture
def run(config, capsys):
    """Run tasks on the miniature configuration; give status, standard output and standard error."""

    def run(*settings, tasks=("train",)):
        capsys.readouterr()
        status = main(tasks, "test run", ["--cfg", str(config), *map(str, settings)])
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def steps(monkeypatch):
    """Note epoch, step and videos of every step in ``taken``; ``at[n] = action`` acts after step n (counted over all).

    Actions: "kill", "term" and "int" (signals to the process itself).
    """
    noted = SimpleNamespace(taken=[], at={})
    add = Report.add

    def noting(report, batch, *arguments):
        add(report, batch, *arguments)
        noted.taken.append((report.epoch, report._step - 1, sorted(set(batch.video_index.tolist()))))
        action = noted.at.pop(len(noted.taken), None)
        if action == "kill":
            raise Killed
        if action:
            os.kill(os.getpid(), {"term": signal.SIGTERM, "int": signal.SIGINT}[action])

    monkeypatch.setattr(Report, "add", noting)
    return noted
