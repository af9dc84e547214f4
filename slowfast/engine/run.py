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

from slowfast.config import load_cfg, training_command
from slowfast.utils.errors import UserError, is_environment, print_error

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "torchvision", "timm", "fvcore", "decord", "av", "numpy", "opencv-python-headless", "natten")

_EPILOG = """KEY VALUE pairs override the file; docs/configuration.md explains every key.
With several processes start it through exp/launch.sh or torchrun.

exit status: 0 done; 2 a mistake or a run that does not learn, explained in one line; 130 or 143 stopped by Ctrl-C or
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
    parser.add_argument("--dry-run", action="store_true", help="build everything, read a few videos, and stop")
    args = parser.parse_args(argv)
    is_dry = args.dry_run or "--dry-run" in args.opts  # also after the settings
    try:
        cfg = load_cfg(args.cfg, [word for word in args.opts if word != "--dry-run"])
        return _start(cfg, _enabled(cfg, tasks), training_command(args.cfg) if is_dry else None)
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
    return chosen


def _start(cfg, tasks: tuple[str, ...], dry_run_command: str | None) -> int:
    """Join the other processes and run, or dry run, the tasks; imports what is heavy, after the settings are read."""
    from slowfast.datasets.loader import explained
    from slowfast.utils.distributed import barrier, process_group
    from slowfast.utils.signals import Terminated

    with process_group(cfg.DEVICE, cfg.DIST.BACKEND, cfg.DIST.TIMEOUT_MIN) as process:
        try:
            if dry_run_command is None:
                _run(cfg, process, tasks)
            else:
                _dry_run(cfg, process, tasks, dry_run_command)
        except Terminated as stop:
            barrier()  # the main process may still be writing, and launchers end all when the first has ended
            sys.stderr.write(f"{stop}; the same command continues from there\n")
            return stop.status
        except RuntimeError as error:
            if (mended := explained(error)) is not error:
                raise mended from error
            raise
    return 0


def _run(cfg, process, tasks: tuple[str, ...]) -> None:
    from slowfast.datasets.build import build_dataset, with_num_classes
    from slowfast.engine.record import build_recorder
    from slowfast.engine.results import plot_run
    from slowfast.engine.test import is_tested, test
    from slowfast.engine.train import train
    from slowfast.utils.distributed import barrier
    from slowfast.utils.logging import setup_logging

    with _output_dir(cfg.OUTPUT_DIR, process.is_main):
        setup_logging(cfg.OUTPUT_DIR, process.is_main)
        cfg = with_num_classes(cfg)
        with build_recorder(cfg, process.is_main) as recorder:
            if process.is_main:
                _write_environment(cfg, process, recorder)
            if tasks == ("train", "test"):
                build_dataset(cfg, "test")  # what is missing is said before the training
            if "train" in tasks:
                train(cfg, process, recorder)
                if process.is_main:
                    plot_run(cfg.OUTPUT_DIR)
            if "test" in tasks and not ("train" in tasks and is_tested(cfg, process)):
                test(cfg, process, recorder)
        barrier()
        logger.info("results, logs and checkpoints are in %s", cfg.OUTPUT_DIR)


def _dry_run(cfg, process, tasks: tuple[str, ...], command: str) -> None:
    """Build what ``tasks`` work with, read the first items and stop; name all that is missing at once."""
    from slowfast.datasets.build import build_dataset, with_num_classes
    from slowfast.engine.build import Training
    from slowfast.engine.checkpoint import checkpoint_to_test, list_checkpoints, starting_weights
    from slowfast.engine.record import Recorder
    from slowfast.engine.test import Evaluation, describe_views, load_tested
    from slowfast.utils.logging import setup_logging

    setup_logging(None, process.is_main)
    problems: list[str] = []

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            problems.append(str(error))
            return None

    cfg = attempt(with_num_classes, cfg) or cfg
    if "train" in tasks:
        newest = list_checkpoints(cfg.OUTPUT_DIR)
        run = attempt(Training.from_config, cfg, process, Recorder(cfg.OUTPUT_DIR, enabled=False, tensorboard=False))
        if run is not None:
            _read_some(run.loader, run.evaluation.normalize, process, "training")
            logger.info("training would %s", f"go on from {newest[0]}" if newest else "start anew")
        else:  # the first problem has hidden the others
            for split in ("train", "val"):
                attempt(build_dataset, cfg, split)
            if cfg.MODEL.PRETRAINED and not newest:
                attempt(starting_weights, cfg.MODEL.PRETRAINED, cfg.dump())
    if "test" in tasks:
        logger.info("test: %s, %s", describe_views(cfg), cfg.DATA.ENSEMBLE_METHOD)
        evaluation, names = attempt(Evaluation.from_config, cfg, process, "test"), None
        if evaluation is not None:
            dataset = evaluation.loader.dataset
            names = dataset.class_names
            logger.info("test: %d videos x %d views", dataset.num_videos, dataset.num_views)
            _read_some(evaluation.loader, evaluation.normalize, process, "test")
        if "train" not in tasks:
            path = attempt(checkpoint_to_test, cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH, cfg.TEST.CHECKPOINT)
            if path is None:
                problems[-1] += f" ({command} trains)"
            elif attempt(load_tested, cfg, path, names) is not None:
                logger.info("test: the model has the weights of %s", path)
    if problems:
        lines = "".join(f"\n- {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"dry run: what is here was checked, but something is missing or wrong:{lines}")


def _read_some(loader, normalize, process, kind: str) -> None:
    """Read the first two items of a loader in this process, whatever the size of a batch."""
    keys = [key for key, _ in zip(loader.sampler, range(2))]
    batch = loader.collate_fn([loader.dataset[key] for key in keys])
    for bad in batch.bad:
        logger.warning("not decodable: %s: %s", bad.path, bad.reason)
    if not len(batch.clips):
        raise UserError(f"none of the first {len(keys)} {kind} items can be decoded, see above")
    clips = normalize(batch.clips.to(process.device))
    labels = (batch.labels if batch.labels.dim() == 1 else batch.labels.nonzero()[:, 1]).unique().tolist()
    message = "first %d %s items: clips %s, mean %.2f, standard deviation %.2f, labels %s"
    logger.info(message, len(keys), kind, tuple(clips.shape), clips.mean(), clips.std(), labels)


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


def _write_environment(cfg, process, recorder) -> None:
    """Keep beside the results, and log, what is needed to repeat them."""
    import torch

    from slowfast.engine.results import write_json

    detail = torch.cuda.get_device_name() if process.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    environment = {
        "command": sys.argv,
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "versions": {package: _version(package) for package in _PACKAGES},
        "device": f"{process.device.type} ({detail})",
        "world_size": process.world_size,
    }
    with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), "w", encoding="utf-8") as file:
        file.write(cfg.dump())
    write_json(os.path.join(cfg.OUTPUT_DIR, "environment.json"), environment)
    recorder.event("start", **environment)
    recorder.text("config", cfg.dump())
    master = f" (master {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']})" if process.world_size > 1 else ""
    size, version = process.world_size, torch.__version__
    logger.info("device: %s, rank 0 of world size %d%s; torch %s", environment["device"], size, master, version)
    for rank, host in enumerate(process.hosts):
        logger.info("  rank %d: %s", rank, host)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = os.path.dirname(os.path.abspath(__file__))
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
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
