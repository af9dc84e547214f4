"""exp/launch.sh and the process group: nodes, restarts, signals, and what is said when processes do not come."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from helpers_engine import ROOT, run_tool

from slowfast.utils.logging import read_events

pytestmark = pytest.mark.dist

# A run that goes on until it is ended; of long epochs, because SIGTERM between two of them finds nothing to save.
ENDLESS = (
    "SOLVER.MAX_EPOCH", 10000, "TRAIN.EVAL_PERIOD", 10000, "TRAIN.BATCH_SIZE", 2, "LOG_PERIOD", 1,
    "TRAIN.CHECKPOINT_STEPS", 2,
)  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def without_processes(environment):
    """Leave out what describes a process of torchrun or SLURM in which the tests themselves may run."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {k: v for k, v in environment.items() if k not in names and not k.startswith(("SLURM_", "TORCHELASTIC_"))}


@contextmanager
def launched(tool, config, *settings, **variables):
    """Start a tool through launch.sh; yield the running process, and leave none behind."""
    environment = {
        **without_processes(os.environ), "PY": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        **{name: str(value) for name, value in variables.items()},
    }  # fmt: skip
    command = ["bash", str(ROOT / "exp" / "launch.sh"), str(ROOT / "tools" / tool), "--cfg", str(config)]
    process = subprocess.Popen(
        [*command, *map(str, settings)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(is_true, process, timeout_sec=90):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"status {process.poll()}: {process.communicate()}")
        time.sleep(0.1)


def steps(out):
    return [event["step"] for event in read_events(str(out), "train_step")]


def process_numbers(out):
    """Return the number of each rank's process, as the newest start in run.log names them."""
    log = (out / "run.log").read_text() if (out / "run.log").exists() else ""
    return [int(number) for number in re.findall(r"rank \d+: .*pid (\d+)", log.rpartition("world size")[2])]


@pytest.mark.slow
def test_two_nodes_train_and_test(config, tmp_path):
    variables = {"NNODES": 2, "NPROC_PER_NODE": 1, "MASTER_PORT": free_port()}
    with (
        launched("run_net.py", config, NODE_RANK=0, **variables) as main,
        launched("run_net.py", config, NODE_RANK=1, **variables) as other,
    ):
        printed, error = main.communicate(timeout=200)
        assert (main.returncode, other.wait(60)) == (0, 0), error
    assert f"rank 0 of world size 2 (master 127.0.0.1:{variables['MASTER_PORT']})" in printed
    found = json.loads((tmp_path / "run" / "test_results.json").read_text())
    assert (found["num_videos"], found["num_views"]) == (17, 102)
    # One process alone reads the same from the checkpoint, to the last digit.
    assert run_tool("test_net.py", "--cfg", config).returncode == 0
    assert json.loads((tmp_path / "run" / "test_results.json").read_text()) == found


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_killed_process_is_started_again_and_goes_on(config, tmp_path, nodes):
    out = tmp_path / "run"
    settings = ("SOLVER.MAX_EPOCH", 15, "TRAIN.EVAL_PERIOD", 15, "LOG_PERIOD", 1, "TRAIN.CHECKPOINT_STEPS", 2)
    variables = {"NNODES": nodes, "NPROC_PER_NODE": 2 // nodes, "MAX_RESTARTS": 1, "MASTER_PORT": free_port()}
    with ExitStack() as stack:
        runs = [
            stack.enter_context(launched("train_net.py", config, *settings, NODE_RANK=node, **variables))
            for node in range(nodes)
        ]
        wait_for(lambda: len(steps(out)) > 4, runs[0])
        os.kill(process_numbers(out)[1], signal.SIGKILL)
        printed, error = runs[0].communicate(timeout=200)
        assert [run.wait(60) for run in runs] == [0] * nodes, error
    assert "resumed from" in printed
    taken = steps(out)
    assert set(taken) == set(range(1, 46))  # all of them
    assert len(taken) < 45 + 10  # and few of them twice


def test_end_of_a_process_ends_the_run_with_its_status(config, tmp_path):
    with launched("train_net.py", config, "TRAIN.BATCH_SIZE", 7, NPROC_PER_NODE=2) as run:
        _, error = run.communicate(timeout=120)
    assert run.returncode == 2 and "Traceback" not in error
    assert "TRAIN.BATCH_SIZE is 7" in error and re.search("process [01] ended with status 2", error)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_reaches_the_tool(config, tmp_path, processes):
    out = tmp_path / "run"
    with launched("train_net.py", config, *ENDLESS, NPROC_PER_NODE=processes) as run:
        wait_for(lambda: len(steps(out)) % 12 in (4, 5, 6), run)
        run.send_signal(signal.SIGTERM)
        _, error = run.communicate(timeout=60)
    assert run.returncode == 143 and "Traceback" not in error, error
    done = max(steps(out))
    newest = read_events(str(out), "checkpoint")[-1]
    assert newest["epoch"] * 12 + newest["steps"] == done  # of twelve steps per epoch


@pytest.mark.slow
def test_stopped_process_is_named(config, tmp_path):
    out = tmp_path / "run"
    settings = (*ENDLESS, "TRAIN.BATCH_SIZE", 3, "DIST.TIMEOUT_MIN", 0.1)
    with launched("train_net.py", config, *settings, NPROC_PER_NODE=3) as run:
        wait_for(lambda: len(steps(out)) > 4, run)
        victim = process_numbers(out)[2]
        os.kill(victim, signal.SIGSTOP)
        time.sleep(20)  # longer than the time-out and the look at the others
        os.kill(victim, signal.SIGCONT)
        _, error = run.communicate(timeout=90)
    assert run.returncode in (2, 143)
    assert re.search(rf"no sign of life from process 2 \(.*, pid {victim}, cpu\)", error), error
    assert not re.search("no sign of life from process [01]", error)


def alone(config, **variables):
    """Run a process of several, of which no other exists."""
    environment = {**without_processes(os.environ), **{name: str(value) for name, value in variables.items()}}
    settings = ("DIST.RENDEZVOUS_TIMEOUT_MIN", 0.02)
    started = time.monotonic()
    finished = run_tool("train_net.py", "--cfg", config, *settings, env=environment)
    assert finished.returncode == 2 and "Traceback" not in finished.stderr
    assert time.monotonic() - started < 60
    return finished.stderr


def test_rendezvous_gives_up_with_a_hint(config):
    port = free_port()
    place = {"WORLD_SIZE": 3, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    error = alone(config, RANK=1, **place)
    assert f"process 1 of 3 did not meet the others at 127.0.0.1:{port} within" in error and "nobody answers" in error
    error = alone(config, RANK=0, **place)
    assert "processes 1, 2 did not come" in error
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        error = alone(config, RANK=0, **place)
    assert "choose another MASTER_PORT" in error


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": 2}, "RANK is not set"),
        ({"RANK": "one", "WORLD_SIZE": 2}, "RANK is one"),
        ({"RANK": 2, "WORLD_SIZE": 2, "LOCAL_RANK": 0}, "RANK is 2, WORLD_SIZE 2"),
        ({"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_PORT": 1}, "MASTER_ADDR not set"),
    ],
)
def test_half_a_description_is_refused(config, monkeypatch, capsys, variables, message):
    from slowfast.engine.run import main

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert main(("train",), "", ["--cfg", str(config)]) == 2
    assert message in capsys.readouterr().err
