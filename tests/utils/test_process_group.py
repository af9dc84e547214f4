"""Process groups: what the environment says, what is refused, and which process is missing."""

import multiprocessing
import os
import socket
import time

import pytest
import torch
from helpers_engine import free_port

from slowfast.utils import distributed
from slowfast.utils.distributed import choose_device, gather_to_all, process_group, slurm_environment
from slowfast.utils.errors import UserError

STEP = {
    "SLURM_JOB_ID": "70123", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "9", "SLURM_LOCALID": "1",
}  # fmt: skip
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS")
PLACE = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture
def environment(monkeypatch):
    """Function that sets the variables of a process, in an environment without any."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return lambda variables: [monkeypatch.setenv(name, str(value)) for name, value in variables.items()]


def test_tasks_of_a_slurm_step():
    found = slurm_environment(STEP)
    port = int(found.pop("MASTER_PORT"))
    assert found == {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    # The same for all tasks, others for other jobs and for other steps, never one that the system hands out.
    changes = [{"SLURM_PROCID": "3"}, {"SLURM_JOB_ID": "70124"}, {"SLURM_STEP_ID": "1"}]
    same, *others = [int(slurm_environment({**STEP, **change})["MASTER_PORT"]) for change in changes]
    assert same == port and len({port, *others}) == 3 and all(1024 < found < 32768 for found in (port, *others))
    firsts = {"b,a": "b", "gpu[03-05,9],login": "gpu03", "r[2,4]-n[001-004].org,x[1-2]": "r2-n001.org"}
    for nodes, first in firsts.items():
        assert slurm_environment({**STEP, "SLURM_STEP_NODELIST": nodes})["MASTER_ADDR"] == first


def test_what_is_set_counts_more_than_slurm():
    chosen = slurm_environment({**STEP, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4242"})
    assert (chosen["MASTER_ADDR"], chosen["MASTER_PORT"]) == ("10.0.0.7", "4242")
    assert slurm_environment({**STEP, "RANK": "0", "WORLD_SIZE": "2"}) == {}  # torchrun inside a task
    assert slurm_environment({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    # A batch script: SLURM says which tasks a step of it would have, but it is none.
    assert slurm_environment({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == {}


def test_alone_there_is_no_group(environment):
    with process_group("cpu") as process:
        assert (process.rank, process.world_size, process.is_main, process.device.type) == (0, 1, True, "cpu")
        assert gather_to_all("x") == ["x"] and not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": 2}, "'RANK': '', 'WORLD_SIZE': '2'"),
        ({"RANK": "one", "WORLD_SIZE": 2}, "'RANK': 'one'"),
        ({**PLACE, "RANK": 2, "MASTER_PORT": 1}, "RANK must be below WORLD_SIZE"),
        ({**PLACE, "MASTER_ADDR": "", "MASTER_PORT": 1}, "MASTER_ADDR ''"),
        ({**PLACE, "MASTER_PORT": "ssh"}, "'MASTER_PORT': 'ssh'"),
    ],
)
def test_half_a_description_is_refused(environment, variables, message):
    environment(variables)
    with pytest.raises(UserError, match=message), process_group("cpu"):
        pass


def test_busy_port_and_absent_processes_are_said(environment):
    port = free_port()
    environment({**PLACE, "MASTER_PORT": port})
    message = f"process 0 of 2 did not meet the others at MASTER_ADDR:MASTER_PORT 127.0.0.1:{port}"
    with pytest.raises(UserError, match=rf"{message}.*1/2 clients joined"), process_group("cpu", timeout_min=0.01):
        pass
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        with pytest.raises(UserError, match=rf"{message}.*EADDRINUSE"), process_group("cpu", timeout_min=0.01):
            pass


def test_a_process_without_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    with pytest.raises(UserError, match="process 1 of this node finds 1 GPUs"):
        choose_device("auto", 1)
    assert choose_device("cuda", 0) == torch.device("cuda", 0)
    monkeypatch.setenv("SLURM_STEP_ID", "0")  # each task sees its own GPU only
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert choose_device("auto", 1) == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto", 1).type == "cpu"
    with pytest.raises(UserError, match="DEVICE is cuda"):
        choose_device("cuda", 0)


def _collect(rank, port, log):
    """Join three processes, of which the last comes to no second collective."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    with process_group("cpu", timeout_min=0.03) as process:
        assert gather_to_all(rank) == [0, 1, 2] and f"pid {os.getpid()}, cpu" in process.hosts[rank]
        if rank == 2:
            time.sleep(60)
        gather_to_all(rank)


@pytest.mark.dist
def test_silent_process_is_named(tmp_path, monkeypatch):
    port = free_port()
    monkeypatch.setattr(distributed, "_ANSWER_SEC", 3)
    processes = [
        multiprocessing.get_context("fork").Process(target=_collect, args=(rank, port, tmp_path / "log"))
        for rank in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes[:2]:
        process.join(60)
        assert process.exitcode == 1
    processes[2].kill()
    error = (tmp_path / "log").read_text()
    assert "Ranks 2 failed to pass monitoredBarrier" in error
