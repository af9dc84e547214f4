"""The process group: one code path for a single process, torchrun on one node and torchrun on several."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Process:
    """This process among all: ``rank`` of ``world_size``, and the device it computes on."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", backend: str = "auto", timeout_min: float = 30.0):
    """Join the process group that the environment describes (torchrun sets it) and leave it at the end.

    Without such an environment the process is alone and no group is made.

    Args:
        device: auto | cpu | cuda.
        backend: auto | nccl | gloo.
        timeout_min: minutes a rendezvous or a collective may take.

    Yields:
        This :class:`Process`.

    Raises:
        ValueError: CUDA asked for where there is none, fewer GPUs than processes, or unknown names.
        ConnectionError: the other processes cannot be reached.
    """
    rank, world_size, local_rank = (int(os.environ.get(k, d)) for k, d in _ENVIRONMENT)
    process = Process(rank, world_size, local_rank, _device(device, local_rank))
    if world_size == 1:
        yield process
        return
    backend = _backend(backend, process.device)
    try:
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timedelta(minutes=timeout_min))
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ConnectionError(
            f"process {rank} of {world_size} could not reach the others at {address} within {timeout_min:g} min; "
            f"check that every node was started with the same address and port: {error}"
        ) from error
    yield process
    # Not after an error: the other processes may wait in a collective, and leaving would wait for them.
    dist.destroy_process_group()


_ENVIRONMENT = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _device(name: str, local_rank: int) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"DEVICE must be auto, cpu or cuda, found {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("DEVICE is cuda, but no CUDA device is visible; use DEVICE cpu or auto")
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
    """Return the picklable ``value`` of the main process on every process."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
