"""The tasks of a SLURM job step, in the words of torchrun's environment variables.

Imports no torch, so that ``exp/launch.sh`` may ask it before anything heavy starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Below the ports that systems hand out themselves (from 32768 on Linux).
_FIRST_PORT, _NUM_PORTS = 10000, 20000
# Steps of one job that run at once get ports apart; no other job is that near unless thousands start together.
_PORTS_BETWEEN_STEPS = 997


def task_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT of this task of a job step.

    Empty outside a step of several tasks, and where torchrun or the user has set RANK or WORLD_SIZE. A batch script is
    no step: what it starts without ``srun`` is alone. MASTER_ADDR and MASTER_PORT that are set already are kept.

    Args:
        environ: the variables of the process, as ``os.environ``.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ or int(environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    address, port = master(environ)
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }


def master(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return address and port at which the tasks of this step meet: its first node, a port made of job and step."""
    job, step = int(environ["SLURM_JOB_ID"]), int(environ["SLURM_STEP_ID"])
    port = _FIRST_PORT + (job + _PORTS_BETWEEN_STEPS * step) % _NUM_PORTS
    address = environ.get("MASTER_ADDR") or first_host(environ["SLURM_STEP_NODELIST"])
    return address, environ.get("MASTER_PORT") or str(port)


def first_host(node_list: str) -> str:
    """Return the first host of SLURM's short form: ``gpu[03-05,9],login`` begins with ``gpu03``.

    Raises:
        ValueError: the list is empty.
    """
    # The first number of every bracket, whose own commas and dashes go with it; then the first of what is left.
    host = re.sub(r"\[(\d+)[^\]]*\]", r"\1", node_list).split(",")[0].strip()
    if not host:
        raise ValueError(f"SLURM_STEP_NODELIST names no host: {node_list!r}")
    return host
