"""Runs of the tools as a user starts them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_tool(name, *arguments, launcher=(), **options):
    """Run a tool of the repository as a user does; return the finished process with its text output."""
    command = [sys.executable, *launcher, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
