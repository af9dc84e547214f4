"""One run from the command line: configuration, process group, logs, training, test."""

import argparse
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from slowfast.config import load_cfg, training_command
from slowfast.utils.errors import UserError, is_environment, print_error
from slowfast.utils.files import full_path

logger = logging.getLogger(__name__)

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "fvcore",
    "decord",
    "av",
    "numpy",
    "opencv-python-headless",
    "natten",
)

_EPILOG = """KEY VALUE pairs override the file; docs/configuration.md explains every key.
With several processes start it through exp/launch.sh or torchrun.

exit status: 0 done; 2 a mistake or a run that does not learn, explained in one line; 130 or 143 stopped by Ctrl-C or
SIGTERM after saving a checkpoint, the same command continues; anything else is a bug of this program"""


def main(tasks: tuple[str, ...], description: str, argv: list[str] | None = None, perturb: str = "") -> int:
    """Run ``tasks`` (of "train" and "test") as the command line says; return the exit status.

    ``perturb`` is the order of the frames of a test, see :func:`slowfast.engine.test.test`.

    A mistake of the user ends with one line that names it (the traceback goes to ``run.log``) and status 2.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file over the defaults")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings over those of the file")
    parser.add_argument("--dry-run", action="store_true", help="look for all that is needed, take a step, stop")
    args = parser.parse_args(argv)
    is_dry = args.dry_run or "--dry-run" in args.opts  # also after the settings
    try:
        cfg = load_cfg(args.cfg, [word for word in args.opts if word != "--dry-run"])
        return _start(cfg, _enabled(cfg, tasks), training_command(args.cfg) if is_dry else None, perturb)
    except (UserError, FloatingPointError) as error:
        return _report(error)
    except OSError as error:
        if not is_environment(error):
            raise
        return _report(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues from the last checkpoint\n")
        return 130


def _enabled(cfg, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of several tasks that the configuration asks for; one alone is not asked."""
    enabled = {"train": cfg.TRAIN.ENABLE, "test": cfg.TEST.ENABLE}
    chosen = tuple(task for task in tasks if enabled[task] or len(tasks) == 1)
    if not chosen:
        raise UserError("TRAIN.ENABLE and TEST.ENABLE are both False: there is nothing to do")
    if len(chosen) == 2:  # the test would refuse it, after days
        path, folder = cfg.TEST.CHECKPOINT_FILE_PATH, os.path.join(cfg.OUTPUT_DIR, "")
        if path and not full_path(path).startswith(folder):
            raise UserError(f"TEST.CHECKPOINT_FILE_PATH is {full_path(path)}, but what is trained goes to {folder}")
        if cfg.TEST.WEIGHTS == "ema" and not cfg.SOLVER.EMA_DECAY and not path:
            raise UserError("TEST.WEIGHTS is ema, but SOLVER.EMA_DECAY is 0: no averaged weights are made")
    return chosen


def _start(cfg, tasks: tuple[str, ...], dry_run_command: str | None, perturb: str) -> int:
    """Join the other processes and run, or dry run, the tasks; imports what is heavy, after the settings are read."""
    from slowfast.engine.dry_run import dry_run
    from slowfast.utils.distributed import barrier, process_group
    from slowfast.utils.signals import Terminated

    with process_group(cfg.DEVICE, cfg.DIST.BACKEND, cfg.DIST.TIMEOUT_MIN) as process:
        try:
            if dry_run_command is None:
                _run(cfg, process, tasks, perturb)
            else:
                dry_run(cfg, process, tasks, dry_run_command)
        except Terminated as stop:
            barrier()  # the main process may still be writing, and launchers end all when the first has ended
            sys.stderr.write(f"{stop}; the same command continues from there\n")
            return stop.status
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            if (mended := explained(error)) is not error:
                raise mended from error
            raise
    return 0


def explained(error: Exception) -> Exception:
    """Return an error that says what to do about memory, a pass or a lost worker; any other ``error`` as it is."""
    from slowfast.datasets.loader import explained as explained_loss

    first = (str(error).splitlines() or [""])[0]
    if "out of memory" in first or "can't allocate memory" in first:
        hint = "train in passes of fewer clips (TRAIN.MICRO_BATCH_SIZE, auto on a GPU), test with a smaller"
        return UserError(f"the memory is too small: {first}; {hint} TEST.BATCH_SIZE, recompute (MODEL.CHECKPOINT_NUM)")
    if "more than 1 value per channel" in first:
        hint = "TRAIN.MICRO_BATCH_SIZE, TRAIN.BATCH_SIZE x AUG.NUM_SAMPLE or DATA.TRAIN_CROP_SIZE must be larger"
        return UserError(f"a pass of one clip leaves a batch norm a single value: {hint} ({first})")
    return explained_loss(error)


def _run(cfg, process, tasks: tuple[str, ...], perturb: str) -> None:
    from slowfast.datasets.build import check_files, with_num_classes
    from slowfast.engine.record import build_recorder
    from slowfast.engine.test import is_tested, test
    from slowfast.engine.train import train
    from slowfast.utils.distributed import barrier
    from slowfast.utils.logging import setup_logging
    from slowfast.utils.results import plot_run

    with _output_dir(cfg.OUTPUT_DIR, process.is_main):
        setup_logging(cfg.OUTPUT_DIR, process.is_main)
        cfg = with_num_classes(cfg)
        with build_recorder(cfg, process.is_main) as recorder:
            recorder.environment = _environment(process) if process.is_main else {}
            if tasks == ("train", "test"):  # the loaders of the training look for its own files
                check_files(cfg, "test", process.rank, process.world_size)
            if "train" in tasks:
                train(cfg, process, recorder)
                if process.is_main:
                    plot_run(cfg.OUTPUT_DIR)
            if "test" in tasks and not ("train" in tasks and is_tested(cfg, process)):
                test(cfg, process, recorder, perturb)
        barrier()
        logger.info("results, logs and checkpoints are in %s", cfg.OUTPUT_DIR)


@contextmanager
def _output_dir(path: str, is_main: bool) -> Iterator[None]:
    """Make OUTPUT_DIR and keep other runs out of it; the lock ends with the process, however that ends."""
    try:
        os.makedirs(path, exist_ok=True)
        file = open(os.path.join(path, ".lock"), "a+")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {path} cannot be made or written: {error.strerror}") from error
    with file:
        if is_main:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: workers may outlive it
            except OSError:
                file.seek(0)
                holder = file.read().strip()
                raise UserError(f"OUTPUT_DIR {path} is in use by another run ({holder}): wait, or change it") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
        yield


def _environment(process) -> dict:
    """Return, and log, what is needed to repeat a run beside its settings."""
    import torch

    detail = torch.cuda.get_device_name() if process.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    environment = {
        "command": sys.argv,
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "versions": {package: _version(package) for package in _PACKAGES},
        "device": f"{process.device.type} ({detail})",
        "world_size": process.world_size,
    }
    master = f" (master {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']})" if process.world_size > 1 else ""
    size, version = process.world_size, torch.__version__
    logger.info("device: %s, rank 0 of world size %d%s; torch %s", environment["device"], size, master, version)
    for rank, host in enumerate(process.hosts):
        logger.info("  rank %d: %s", rank, host)
    return environment


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # a package that is installed in a project of the user's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _report(error: BaseException) -> int:
    """Write one line to the terminal and the traceback to ``run.log``; return the exit status."""
    print_error(error)
    for handler in logging.getLogger("slowfast").handlers:
        if isinstance(handler, logging.FileHandler):
            logging.raiseExceptions = False  # the disk may be what is full
            record = (logger.name, logging.ERROR, __file__, 0, "stopped by an error", (), sys.exc_info())
            handler.handle(logger.makeRecord(*record))
            sys.stderr.write(f"(traceback in {handler.baseFilename})\n")
    return 2
