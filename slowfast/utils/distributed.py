"""The process group: one code path for a single process, torchrun on one or several nodes, and SLURM tasks."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from slowfast.utils.attendance import Attendance
from slowfast.utils.slurm import task_environment


@dataclass(frozen=True)
class Process:
    """This process among all: ``rank`` of ``world_size``, and the device it computes on.

    ``master`` is the address at which the processes met, and ``hosts`` where each of them runs, in order of rank.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    master: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def is_main(self) -> bool:
        return self.rank == 0


_attendance: Attendance | None = None


@contextmanager
def process_group(
    device: str = "auto", backend: str = "auto", timeout_min: float = 30.0, rendezvous_timeout_min: float = 5.0
) -> Iterator[Process]:
    """Join the process group that the environment describes and leave it at the end.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; for a task of a SLURM job step they are
    made of SLURM's variables. Without either the process is alone and no group is made.

    Args:
        device: auto | cpu | cuda.
        backend: auto | nccl | gloo.
        timeout_min: minutes a collective may take.
        rendezvous_timeout_min: minutes within which all processes have to come.

    Yields:
        This :class:`Process`.

    Raises:
        ValueError: CUDA asked for where there is none, fewer GPUs than processes, unknown names, an environment that
            says half of what is needed.
        ConnectionError: the other processes did not come, or went missing in a collective; says which.
    """
    global _attendance
    os.environ.update(task_environment(os.environ))
    rank, world_size, local_rank = _place()
    if world_size == 1:
        yield Process(rank, world_size, local_rank, choose_device(device, local_rank))
        return
    computes_on = choose_device(device, local_rank)
    backend = _backend(backend, computes_on)
    master = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    store, hosts = _meet(rank, world_size, computes_on, rendezvous_timeout_min)
    names = [f"process {other} ({host})" for other, host in enumerate(hosts)]
    try:
        attendance = Attendance(dist.PrefixStore("attendance", store), rank, names)
        group_store = dist.PrefixStore("group", store)
        timeout = timedelta(minutes=timeout_min)
        dist.init_process_group(backend, store=group_store, rank=rank, world_size=world_size, timeout=timeout)
        dist.barrier()
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"process {rank} of {world_size} met the others at {master}, but no {backend} connection to all of them "
            f"came about; check that the nodes reach each other on all ports (GLOO_SOCKET_IFNAME and "
            f"NCCL_SOCKET_IFNAME choose the network interface): {error}"
        ) from error
    _attendance = attendance
    attendance.start()
    try:
        yield Process(rank, world_size, local_rank, computes_on, master, tuple(hosts))
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        explanation = attendance.explain_failure()
        raise ConnectionError(
            f"the processes lost each other ({backend}, time-out DIST.TIMEOUT_MIN {timeout_min:g}): {explanation}. "
            f"The same command continues from the last checkpoint. {backend} says: {error}"
        ) from error
    finally:
        _attendance = None
        attendance.stop()
    # Not after an error: the other processes may wait in a collective, and leaving would wait for them.
    dist.destroy_process_group()


def _place() -> tuple[int, int, int]:
    """Return rank, world size and local rank of this process.

    Raises:
        ValueError: a variable is missing, or a number that cannot be.
    """
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return 0, 1, 0
    values = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise ValueError(
                f"the environment describes one of several processes, but {name} is {text or 'not set'}; torchrun and "
                "srun set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without RANK and WORLD_SIZE the "
                "process is alone"
            )
        values.append(int(text))
    rank, world_size, local_rank = values
    if rank >= world_size:
        raise ValueError(f"RANK is {rank}, WORLD_SIZE {world_size}; allowed: RANK from 0 to WORLD_SIZE - 1")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if world_size > 1 and not os.environ.get(name)]
    if missing:
        raise ValueError(f"{' and '.join(missing)} not set: address and port of process 0, where {world_size} meet")
    return rank, world_size, local_rank


def _meet(rank: int, world_size: int, device: torch.device, timeout_min: float) -> tuple[dist.Store, list[str]]:
    """Return the store in which all processes have met, and where each of them runs."""
    deadline = time.monotonic() + 60 * timeout_min
    timeout = timedelta(minutes=timeout_min)
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    came = [False] * world_size
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            store, _, _ = next(dist.rendezvous("env://", timeout=timeout))  # kept by the agent, over its restarts
        else:
            if rank > 0:
                _await_listener(address, int(port), deadline)
            store = dist.TCPStore(
                address, int(port), world_size, is_master=rank == 0, timeout=timeout, wait_for_workers=False
            )
        # After a restart the store still holds what the processes before it wrote. So process 0 opens a new part of it,
        # and who reads of an older one finds itself missing on its list of members and looks again.
        if rank == 0:
            store.set("generation", uuid.uuid4().hex)
        me = f"{uuid.uuid4().hex} {socket.gethostname()}, pid {os.getpid()}, {device}"
        keys = [f"member/{other}" for other in range(world_size)]
        while True:
            group = dist.PrefixStore(store.get("generation").decode(), store)
            group.set(keys[rank], me)
            if rank == 0 and group.check(keys):
                group.set("members", json.dumps([group.get(key).decode() for key in keys]))
            if group.check(["members"]):
                members = json.loads(group.get("members"))
                if members[rank] == me:
                    return group, [member.partition(" ")[2] for member in members]
            if time.monotonic() > deadline:
                came = [group.check([key]) for key in keys]
                raise TimeoutError("they did not all come")
            time.sleep(0.1)
    except (RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(
            f"process {rank} of {world_size} did not meet the others at {address}:{port} within "
            f"DIST.RENDEZVOUS_TIMEOUT_MIN {timeout_min:g}: {_rendezvous_hint(rank, came)}: {error}"
        ) from error


def _await_listener(address: str, port: int, deadline: float) -> None:
    """Return when something listens there; the store's own attempts print C++ stacks and stretch the time-out.

    Raises:
        OSError: nothing does in time.
    """
    while True:
        try:
            socket.create_connection((address, port), timeout=max(0.1, deadline - time.monotonic())).close()
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def _rendezvous_hint(rank: int, came: list[bool]) -> str:
    if any(came):
        absent = [str(other) for other, has_come in enumerate(came) if not has_come]
        return (
            f"process{'es' if len(absent) > 1 else ''} {', '.join(absent)} did not come; look at what they printed, "
            "and check that every node was started with the same MASTER_ADDR, MASTER_PORT and number of processes"
        )
    if rank == 0:
        return "it could not listen there; if the port is in use, choose another MASTER_PORT on every node"
    return (
        "nobody answers there; check that process 0 was started, that MASTER_ADDR is its node and can be reached from "
        "here, and that no firewall closes MASTER_PORT"
    )


def _is_lost_connection(error: RuntimeError) -> bool:
    """Return whether a collective failed because of another process; gloo raises a plain RuntimeError."""
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _GLOO_ERRORS)


_GLOO_ERRORS = (
    "Timed out waiting",
    "Connection closed by peer",
    "Connection reset by peer",
    "pair closure",
    "gloo/transport",
)


def choose_device(name: str, local_rank: int) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"DEVICE must be auto, cpu or cuda, found {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("DEVICE is cuda, but no CUDA device is visible; use DEVICE cpu or auto")
    if torch.cuda.device_count() == 1 and "SLURM_STEP_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        local_rank = 0  # srun --gpus-per-task=1 shows every task its own GPU only
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this node has no GPU of its own: {torch.cuda.device_count()} visible; "
            "start at most that many processes per node"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _backend(name: str, device: torch.device) -> str:
    if name not in ("auto", "nccl", "gloo"):
        raise ValueError(f"DIST.BACKEND must be auto, nccl or gloo, found {name!r}")
    return ("nccl" if device.type == "cuda" else "gloo") if name == "auto" else name


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``values`` over all processes."""
    if dist.is_initialized():
        values = values.clone()
        _enter("all_reduce")
        dist.all_reduce(values)
    return values


def gather_to_main(value: Any) -> list[Any] | None:
    """Return the picklable ``value`` of every process, in order of rank, on the main process; None on the others."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    _enter("gather")
    dist.gather_object(value, gathered)
    return gathered


def gather_to_all(value: Any) -> list[Any]:
    """Return the picklable ``value`` of every process, in order of rank, on every process."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    _enter("all_gather")
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_from_main(value: Any) -> Any:
    """Return the picklable ``value`` of the main process on every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    _enter("broadcast")
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        _enter("barrier")
        dist.barrier()


def _enter(collective: str) -> None:
    if _attendance is not None:
        _attendance.enter(collective)
