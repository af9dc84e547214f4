"""Runs in the test's own process, and what happens after a step of theirs."""

from types import SimpleNamespace

import pytest

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
    """Note epoch, step and videos of every step in ``taken``; ``at[n]()`` is called after step n, counted over all."""
    noted = SimpleNamespace(taken=[], at={})
    add = Report.add

    def noting(report, batch, *arguments):
        add(report, batch, *arguments)
        noted.taken.append((report.epoch, report._step - 1, sorted(set(batch.video_index.tolist()))))
        noted.at.pop(len(noted.taken), lambda: None)()

    monkeypatch.setattr(Report, "add", noting)
    return noted
