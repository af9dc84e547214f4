"""Process group of a run: one process, torchrun on one or several nodes, or the tasks of a SLURM job step."""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from slowfast.utils.errors import UserError

_ANSWER_SEC = 10  # within which processes that are alive answer after an error


@dataclass(frozen=True)
class Process:
    """This process among all; ``hosts`` tells where each of them runs, in order of rank."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    hosts: tuple[str, ...] = ()

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", backend: str = "auto", timeout_min: float = 30.0) -> Iterator[Process]:
    """Join the process group that torchrun's or SLURM's variables describe, and leave it at the end.

    ``backend`` auto is nccl on CUDA, else gloo; the start and each collective may take ``timeout_min`` minutes.
    """
    os.environ.update(slurm_environment(os.environ))
    rank, world_size, local_rank = _place(os.environ)
    computes_on = choose_device(device, local_rank)
    if world_size == 1:
        yield Process(rank, world_size, local_rank, computes_on)
        return
    if backend == "auto":
        backend = "nccl" if computes_on.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_min)
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        # torchrun's store outlives a restart, with the addresses of processes that are gone.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        # Connections of its own: those of the group are of no use after a collective that has failed.
        roll_call = dist.new_group(backend="gloo", timeout=timeout)
        hosts = gather_to_all(f"{socket.gethostname()}, pid {os.getpid()}, {computes_on}")
    except RuntimeError as error:
        raise UserError(
            f"process {rank} of {world_size} did not meet the others at MASTER_ADDR:MASTER_PORT "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}, which must be free and reachable on the node of "
            f"process 0 and the same for all, within DIST.TIMEOUT_MIN {timeout_min:g}: {str(error).splitlines()[0]}"
        ) from error
    try:
        yield Process(rank, world_size, local_rank, computes_on, tuple(hosts))
    except RuntimeError:
        # Perhaps another process is silent: gloo's errors do not name it, but this barrier's message on process 0 does.
        with suppress(RuntimeError):
            dist.monitored_barrier(roll_call, timeout=timedelta(seconds=_ANSWER_SEC), wait_all_ranks=True)
        raise
    # Not after an error: the others may wait in a collective, and leaving would wait for them.
    dist.destroy_process_group()


def slurm_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return torchrun's variables for a task of a SLURM job step; none for a batch script or where RANK is set."""
    if "RANK" in environ or "WORLD_SIZE" in environ or int(environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    # Of gpu[03-05,9],login the first is gpu03. Ports differ between jobs, below those that systems hand out themselves.
    first_host = re.sub(r"\[(\d+)[^\]]*\]", r"\1", environ["SLURM_STEP_NODELIST"]).split(",")[0]
    port = 10000 + (int(environ["SLURM_JOB_ID"]) + 997 * int(environ["SLURM_STEP_ID"])) % 20000
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "MASTER_ADDR": environ.get("MASTER_ADDR", first_host),
        "MASTER_PORT": environ.get("MASTER_PORT", str(port)),
    }


def _place(environ: Mapping[str, str]) -> tuple[int, int, int]:
    """Return rank, world size and local rank; half a description of them is refused."""
    if "RANK" not in environ and "WORLD_SIZE" not in environ:
        return 0, 1, 0
    found = {name: environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    is_number = all(value.isdecimal() for value in found.values())
    if not (is_number and environ.get("MASTER_ADDR") and int(found["RANK"]) < int(found["WORLD_SIZE"])):
        raise UserError(
            f"the environment describes one of several processes, but not wholly: {found} and MASTER_ADDR "
            f"{environ.get('MASTER_ADDR', '')!r}; RANK must be below WORLD_SIZE. Start them with exp/launch.sh, "
            "torchrun or srun, or unset RANK and WORLD_SIZE for a process alone"
        )
    return int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"])


def choose_device(name: str, local_rank: int) -> torch.device:
    """Return the device of a process of this node by DEVICE: auto | cpu | cuda."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if num_gpus == 1 and "SLURM_STEP_ID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        local_rank = 0  # srun --gpus-per-task=1 shows every task its own GPU only
    if local_rank >= num_gpus:
        raise UserError(
            f"DEVICE is {name}, but process {local_rank} of this node finds {num_gpus} GPUs; start at most one process "
            "per GPU, or choose DEVICE cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``values`` over all processes."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather_to_main(value: Any) -> list[Any] | None:
    """Return the picklable ``value`` of every process, in order of rank, on the main process; None on the others."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, gathered)
    return gathered


def gather_to_all(value: Any) -> list[Any]:
    """Return the picklable ``value`` of every process, in order of rank, on every process."""
    if not dist.is_initialized():
        return [value]
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_from_main(value: Any) -> Any:
    """Return the small picklable ``value`` of the main process on every process."""
    return gather_to_all(value)[0]


def barrier() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
