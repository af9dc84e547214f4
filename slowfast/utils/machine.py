"""What a figure was measured on: nothing that is measured means anything without it."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Return what is there.

    Returns:
        ``date`` (UTC, year-month-day), ``device`` ("CPU" or the GPU's name), ``cpu``, ``cores`` (that this process may
        use), ``threads`` (PyTorch's), ``torch`` and, on a GPU, ``cuda`` (versions).
    """
    machine = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return machine | ({"cuda": torch.version.cuda} if device.type == "cuda" else {})


def machine_line(machine: dict[str, str | int]) -> str:
    """Return what :func:`describe_machine` found as one line."""
    cpu = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    where = cpu if machine["device"] == "CPU" else f"{machine['device']} ({cpu})"
    cuda = f", CUDA {machine['cuda']}" if "cuda" in machine else ""
    return f"{where}, torch {machine['torch']}{cuda}, {machine['date']}"


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_name() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
