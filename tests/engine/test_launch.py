"""exp/launch.sh: nodes, restarts, signals, and what is said when a start cannot succeed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from helpers_engine import ROOT, free_port

from slowfast.utils.logging import read_events

pytestmark = pytest.mark.dist


@contextmanager
def launched(tool, config, *settings, **variables):
    """Start a tool through launch.sh; yield the running process, and leave none behind."""
    # Without what describes a process of torchrun or SLURM in which the tests themselves may run.
    own = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "SLURM_", "TORCHELASTIC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"PY": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {name: str(value) for name, value in variables.items()}
    command = ["bash", str(ROOT / "exp" / "launch.sh"), str(ROOT / "tools" / tool), "--cfg", str(config)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *map(str, settings)], env=environment, start_new_session=True, **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun ends its processes, which are groups of their own
            process.communicate(timeout=60)


def wait_for(is_true, process, timeout_sec=90):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"status {process.poll()}: {process.communicate()}")
        time.sleep(0.1)


def steps(out):
    return [event["step"] for event in read_events(out, "train_step")]


@pytest.mark.slow
def test_killed_process_of_two_nodes_is_started_again_and_goes_on(config, tmp_path):
    out = tmp_path / "run"
    settings = ("SOLVER.MAX_EPOCH", 8, "TRAIN.EVAL_PERIOD", 8, "LOG_PERIOD", 1, "TRAIN.CHECKPOINT_STEPS", 2)
    variables = {"NNODES": 2, "NPROC_PER_NODE": 1, "MAX_RESTARTS": 1, "MASTER_PORT": free_port()}
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(launched("train_net.py", config, *settings, NODE_RANK=node, **variables))
            for node in range(2)
        ]
        wait_for(lambda: len(steps(out)) > 4, nodes[0])
        assert "rank 0 of world size 2" in (out / "run.log").read_text()
        worker = subprocess.run(["ps", "-o", "pid=", "--ppid", str(nodes[1].pid)], capture_output=True, check=True)
        os.kill(int(worker.stdout.split()[0]), signal.SIGKILL)
        printed, error = nodes[0].communicate(timeout=200)
        assert [node.wait(60) for node in nodes] == [0, 0], error
    assert "resumed from" in printed
    assert set(steps(out)) == set(range(1, 25))  # all of them
    assert len(steps(out)) < 24 + 10  # and few of them twice


def test_one_process_takes_the_place_of_the_shell(tmp_path):
    """Signals of a scheduler then reach it, and its status is that of the script."""
    (tmp_path / "tool.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(143)")
    with launched(tmp_path / "tool.py", "a b.yaml", "KEY", "[1, 2]", NPROC_PER_NODE=1) as run:
        printed, _ = run.communicate(timeout=30)
    assert (printed, run.returncode) == (f"{run.pid} ['--cfg', 'a b.yaml', 'KEY', '[1, 2]']\n", 143)


@pytest.mark.slow
def test_sigterm_reaches_all_processes(config, tmp_path):
    out = tmp_path / "run"
    # Of long epochs, because SIGTERM between two of them finds nothing to save.
    settings = ("SOLVER.MAX_EPOCH", 10000, "TRAIN.EVAL_PERIOD", 10000, "TRAIN.BATCH_SIZE", 2, "LOG_PERIOD", 1)
    with launched("train_net.py", config, *settings, NPROC_PER_NODE=2) as run:
        wait_for(lambda: len(steps(out)) % 12 in (4, 5, 6), run)
        run.send_signal(signal.SIGTERM)
        _, error = run.communicate(timeout=60)
    assert "the same command continues" in error, error
    newest = read_events(out, "checkpoint")[-1]
    assert newest["epoch"] * 12 + newest["steps"] == max(steps(out))  # of twelve steps per epoch


def test_busy_port_is_said_at_once(config):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with launched("train_net.py", config, NNODES=2, NODE_RANK=0, NPROC_PER_NODE=1, MASTER_PORT=port) as run:
            _, error = run.communicate(timeout=30)
    assert (run.returncode, error) == (
        2, f"error: port {port} is in use on this node; choose another MASTER_PORT on every node\n",
    )  # fmt: skip


REPORT = """
import os
from slowfast.utils.distributed import gather_to_all, process_group
with process_group("cpu", timeout_min=1.0) as process:
    os.write(1, f"{gather_to_all((process.rank, process.local_rank))}\\n".encode())  # print may write the end apart
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_nodes", [1, 2])
def test_slurm_starts_a_process_per_task_or_torchrun_per_node(tmp_path, num_nodes):
    """Two tasks of one node, and one task on each of two nodes, which then starts its processes itself."""
    (tmp_path / "tool.py").write_text(REPORT)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho 127.0.0.1\nsleep 1\necho elsewhere\n")
    (tmp_path / "scontrol").chmod(0o755)
    variables = {"SLURM_JOB_ID": 7, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": num_nodes}
    variables |= {"SLURM_STEP_NODELIST": "127.0.0.1", "MASTER_PORT": free_port(), "NPROC_PER_NODE": num_nodes}
    variables |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with ExitStack() as stack:
        tasks = []
        for task in range(2):
            place = {"SLURM_PROCID": task, "SLURM_LOCALID": task, "SLURM_NODEID": task}
            tasks.append(stack.enter_context(launched(tmp_path / "tool.py", "x", **variables, **place)))
        printed = [task.communicate(timeout=120)[0] for task in tasks]
    ranks = [(0, 0), (1, 1)] if num_nodes == 1 else [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert printed == [f"{ranks}\n" * num_nodes] * 2
