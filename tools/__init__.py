"""Command-line tools. Installed, they are the package ``slowfast_tools``: its attribute ``predict`` runs predict.py."""

import importlib.util
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def run(name: str) -> None:
    """Run a tool as if its file were started, unless ``import slowfast`` finds another package of that name."""
    origin = getattr(importlib.util.find_spec("slowfast"), "origin", None)
    if origin is None or Path(origin).resolve().parent != FOLDER.parent / "slowfast":
        problem = f"`import slowfast` finds {origin}, another package of that name (PySlowFast?), instead of this one"
        sys.stderr.write(f"error: {problem}: take it from PYTHONPATH, or use an environment without it\n")
        sys.exit(2)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def __getattr__(name: str) -> Callable[[], None]:
    if not (FOLDER / f"{name}.py").is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(run, name)
