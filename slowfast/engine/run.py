"""One run from the command line: configuration, process group, logs, training, test."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from importlib import metadata

import simplejson
import torch

from slowfast.config.experiment import load_cfg, training_command
from slowfast.engine.checkpoint import checkpoint_to_test
from slowfast.engine.dry_run import dry_run
from slowfast.engine.epoch import Terminated
from slowfast.engine.record import Recorder, build_recorder
from slowfast.engine.results import plot_run, read_results, summary_line
from slowfast.engine.test import check_test_settings, test
from slowfast.engine.train import train
from slowfast.utils.distributed import Process, barrier, broadcast_from_main, process_group
from slowfast.utils.logging import setup_logging

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "torchvision", "timm", "fvcore", "decord", "av", "numpy", "opencv-python-headless", "natten")


_EPILOG = """KEY VALUE pairs override the file; every key is explained in slowfast/config/defaults.py.
With several processes start it through exp/launch.sh or torchrun.

exit status: 0 done; 2 a mistake or a loss that is not finite, explained in one line; 130 interrupted; 143 ended by
SIGTERM after saving a checkpoint, the same command continues; anything else is a bug of this program"""


def main(tasks: tuple[str, ...], description: str, argv: list[str] | None = None) -> int:
    """Run ``tasks`` (of "train" and "test") as the command line says; return the exit status.

    A mistake of the user ends with one line that names it (the traceback goes to ``run.log``) and status 2.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file over the defaults")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings over those of the file")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, read a few videos, say what it is and what is missing, and stop; nothing is written",
    )
    args = parser.parse_args(argv)
    if "--dry-run" in args.opts:  # also after the settings
        args.opts.remove("--dry-run")
        args.dry_run = True
    try:
        cfg = load_cfg(args.cfg, args.opts)
        with process_group(cfg.DEVICE, cfg.DIST.BACKEND, cfg.DIST.TIMEOUT_MIN) as process:
            try:
                if args.dry_run:
                    _dry_run(cfg, process, tasks, training_command(args.cfg))
                else:
                    _run(cfg, process, tasks)
            except Terminated:
                barrier()  # the main process may still be writing, and launchers end all when the first has ended
                raise
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if not is_expected(error):
            raise
        _report(error)
        return 2
    except Terminated as stop:
        sys.stderr.write(f"{stop}; the same command continues from there\n")
        return 143
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues from the last checkpoint\n")
        return 130
    return 0


def is_expected(error: BaseException) -> bool:
    """Return whether the error is one that this package raises itself to explain what is wrong.

    Errors from inside a library keep their traceback: they may be bugs.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("slowfast.")


def _run(cfg, process: Process, tasks: tuple[str, ...]) -> None:
    _make_output_dir(cfg.OUTPUT_DIR)
    setup_logging(cfg.OUTPUT_DIR, process.is_main)
    tasks = _enabled(cfg, tasks)
    with build_recorder(cfg, process.is_main) as recorder:
        if process.is_main:
            _write_environment(cfg, process, recorder)
            _log_devices(process)
        if "test" in tasks:
            check_test_settings(cfg)  # before the training that may come first
        if "train" in tasks:
            train(cfg, process, recorder)
            if process.is_main:
                plot_run(cfg.OUTPUT_DIR)
        if "test" in tasks and not ("train" in tasks and _is_tested(cfg, process)):
            test(cfg, process, recorder)
    barrier()
    logger.info("results, logs and checkpoints are in %s", cfg.OUTPUT_DIR)


def _dry_run(cfg, process: Process, tasks: tuple[str, ...], command: str) -> None:
    setup_logging(None, process.is_main)
    if process.is_main:
        _log_devices(process)
    dry_run(cfg, process, _enabled(cfg, tasks), command)


def _enabled(cfg, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of several tasks that the configuration asks for; one alone is not asked."""
    if len(tasks) == 1:
        return tasks
    enabled = {"train": cfg.TRAIN.ENABLE, "test": cfg.TEST.ENABLE}
    tasks = tuple(task for task in tasks if enabled[task])
    if not tasks:
        raise ValueError("TRAIN.ENABLE and TEST.ENABLE are both False: there is nothing to do")
    return tasks


def _is_tested(cfg, process: Process) -> bool:
    """Return whether the results of this very configuration and checkpoint are there already, and show them."""
    results = read_results(cfg.OUTPUT_DIR) if process.is_main else None
    path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH)
    is_tested = broadcast_from_main(
        results is not None
        and (results["checkpoint"], results["config"]) == (path, cfg.dump())
        and results["checkpoint_time"] == os.path.getmtime(path)
    )
    if is_tested and process.is_main:
        logger.info("already tested: %s", summary_line(results))
    return is_tested


def _make_output_dir(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OSError(f"OUTPUT_DIR {path} cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise OSError(f"OUTPUT_DIR {path} cannot be written")


def _write_environment(cfg, process: Process, recorder: Recorder) -> None:
    """Keep beside the results what is needed to repeat them."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    environment = {
        "command": sys.argv,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "versions": versions,
        "device": _describe_device(process),
        "world_size": process.world_size,
    }
    with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), "w", encoding="utf-8") as file:
        file.write(cfg.dump())
    with open(os.path.join(cfg.OUTPUT_DIR, "environment.json"), "w", encoding="utf-8") as file:
        simplejson.dump(environment, file, indent=2)
    recorder.event("start", **{key: value for key, value in environment.items() if key != "time"})
    recorder.text("config", cfg.dump())


def _describe_device(process: Process) -> str:
    kind = process.device.type
    return f"{kind} ({torch.cuda.get_device_name() if kind == 'cuda' else f'{torch.get_num_threads()} threads'})"


def _log_devices(process: Process) -> None:
    master = f" (master {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']})" if process.world_size > 1 else ""
    logger.info(
        "device: %s, rank %d of world size %d%s; torch %s, python %s",
        _describe_device(process), process.rank, process.world_size, master, torch.__version__, sys.version.split()[0],
    )  # fmt: skip
    for rank, host in enumerate(process.hosts):
        logger.info("  rank %d: %s", rank, host)


def _git_commit() -> str | None:
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        describe = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _report(error: BaseException) -> None:
    rank = os.environ.get("RANK")
    where = f"[process {rank}] " if rank not in (None, "0") else ""
    sys.stderr.write(f"{where}error: {error}\n")
    for handler in logging.getLogger("slowfast").handlers:
        if isinstance(handler, logging.FileHandler):
            traceback = (type(error), error, error.__traceback__)
            record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "stopped by an error", (), traceback)
            handler.handle(record)
            sys.stderr.write(f"(traceback in {handler.baseFilename})\n")
