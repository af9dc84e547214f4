"""How the cores and GPUs of a machine are divided among runs at the same time."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What the runs may use.

    Args:
        jobs: runs at a time.
        processes_per_run: training processes of each (one per GPU).
        gpus: what CUDA_VISIBLE_DEVICES may name; none leaves the environment as it is.
        num_cores: CPU cores, which are divided among the runs unless OMP_NUM_THREADS is set.
    """

    jobs: int
    processes_per_run: int
    gpus: tuple[str, ...]
    num_cores: int

    def warn_if_short(self, num_workers: int) -> None:
        """Warn of more processes than GPUs or cores; ``num_workers`` are those of the loader of a process."""
        processes = self.jobs * self.processes_per_run
        if self.gpus and processes > len(self.gpus):
            logger.warning("%d processes at a time share %d GPUs: their times mean little", processes, len(self.gpus))
        if processes > self.num_cores:
            logger.warning(
                "%d processes at a time (with %d loader workers each) share %d cores: their times mean little",
                processes, num_workers, self.num_cores,
            )  # fmt: skip

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment of the run in a slot, from 0 to ``jobs - 1``."""
        # Of a launch around this process; every run starts its processes by itself.
        elsewhere = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "MAX_RESTARTS")
        environment = {key: value for key, value in os.environ.items() if key not in elsewhere}
        processes = self.jobs * self.processes_per_run
        if processes > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, self.num_cores // processes)))
        if self.gpus:
            first = slot * self.processes_per_run
            own = [self.gpus[(first + i) % len(self.gpus)] for i in range(self.processes_per_run)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
        return {**environment, "PY": sys.executable, "NPROC_PER_NODE": str(self.processes_per_run)}


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs of this process as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")[:count]) if named else tuple(str(number) for number in range(count))
