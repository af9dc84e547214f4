"""Command-line tools. Installed, they are the package ``slowfast_tools``: its attribute ``predict`` runs predict.py."""

import argparse
import importlib.util
import re
import runpy
import sys
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def run(name: str) -> None:
    """Run a tool under the name of its command, unless ``import slowfast`` finds another package of that name."""
    origin = getattr(importlib.util.find_spec("slowfast"), "origin", None)
    if origin is None or Path(origin).resolve().parent != FOLDER.parent / "slowfast":
        problem = f"`import slowfast` finds {origin}, another package of that name (PySlowFast?), instead of this one"
        sys.stderr.write(f"error: {problem}: take it from PYTHONPATH, or use an environment without it\n")
        sys.exit(2)
    argparse.HelpFormatter.format_help = partialmethod(_format_help, argparse.HelpFormatter.format_help)
    runpy.run_module(f"{__name__}.{name}", run_name="__main__")  # leaves sys.argv, from which usage has the name


def _format_help(formatter: argparse.HelpFormatter, in_repository: Callable[[argparse.HelpFormatter], str]) -> str:
    """Return a help text or a usage whose tools are commands: python tools/run_net.py is slowfast-run."""
    text = in_repository(formatter)
    return re.sub(
        r"(?:python )?tools/(\w+?)(?:_net)?\.py", lambda found: f"slowfast-{found[1].replace('_', '-')}", text
    )


def __getattr__(name: str) -> Callable[[], None]:
    if not (FOLDER / f"{name}.py").is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(run, name)
