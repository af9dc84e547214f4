"""Studies: tables of configurations times seeds, each trained and tested once, in a process of its own, resumable."""

import contextlib
import glob
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from slowfast.config import CONFIG_FILE, configuration_name, load_cfg
from slowfast.config.defaults import get_cfg
from slowfast.config.parser import CfgNode, flat_settings, read_yaml
from slowfast.utils.errors import UserError
from slowfast.utils.files import locked, read_text, replacing
from slowfast.utils.logging import format_duration
from slowfast.utils.results import read_epochs, read_results

logger = logging.getLogger(__name__)

# Keys and sections that do not change the result of a run; its seed is in the name of its folder.
WITHOUT_EFFECT = ("RNG_SEED", "OUTPUT_DIR", "LOG_PERIOD", "DATA_LOADER.", "TRAIN.CHECKPOINT_", "TRAIN.KEEP_CHECKPOINTS")
WITHOUT_EFFECT += ("TRAIN.RESUME_CHANGED", "TENSORBOARD.", "WANDB.", "DIST.")
CONSOLE = "console.log"
_TOOL = Path(__file__).parents[2] / "tools" / "run_net.py"
_GRACE_SEC = 120  # for a step and a checkpoint
# A study reads hundreds of dumped configurations; the same rules in C take a tenth of the time.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run(NamedTuple):
    """Configuration with a seed; ``settings`` are those that decide on its result, by full key."""

    name: str
    seed: int
    cfg: CfgNode
    settings: dict[str, Any]
    folder: str

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"


class Table(NamedTuple):
    """Configurations to compare; ``rows`` has for each the name of its runs, which equal settings share."""

    title: str
    baseline: str
    rows: dict[str, str]


class Study(NamedTuple):
    """Tables by name, and the runs that they need; ``out`` is the folder of everything."""

    out: str
    tables: dict[str, Table]
    runs: list[Run]


def read_study(path: str) -> dict:
    """Read a study file, ``out``, ``seeds``, ``settings`` and ``tables``; return the arguments of ``build_study``."""
    tree = read_yaml(path)
    _check_keys(tree, {"out": str, "seeds": list, "settings": dict, "tables": dict}, path)
    for name, content in tree.get("tables", {}).items():
        if not isinstance(content, dict) or not content.get("cfgs"):
            raise UserError(f"{path}: tables.{name} must be a section with cfgs, a list of files, found {content!r}")
        _check_keys(content, {"cfgs": list, "baseline": str, "title": str}, f"{path}: tables.{name}")
    overrides = [word for pair in flat_settings(tree.pop("settings", {})).items() for word in pair]
    return {"out": "", "seeds": [], "tables": {}, **tree, "overrides": overrides}


def _check_keys(tree: dict, allowed: dict[str, type], where: str) -> None:
    for key, value in tree.items():
        if not isinstance(value, allowed.get(key, ())):
            known = ", ".join(f"{name} (a {kind.__name__})" for name, kind in allowed.items())
            raise UserError(f"{where}: found {key}: {value!r}; allowed: {known}")


def build_study(tables: Mapping[str, dict], seeds: Sequence[int], out: str, overrides: Sequence[Any]) -> Study:
    """Resolve the configurations of a study, with the same KEY VALUE ``overrides`` over every file.

    Tables have ``cfgs``, files or patterns of them, and perhaps ``title`` and ``baseline``, the name of a row.
    """
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"--seeds must be different whole numbers from 0 on, at least one, found {list(seeds)}")
    if not tables or not out:
        raise UserError("a study needs tables of configurations (--cfgs) and a folder (--out)")
    for key, option in (("RNG_SEED", "--seeds"), ("OUTPUT_DIR", "--out")):
        if key in overrides[0::2]:
            raise UserError(f"{key} cannot be set for a whole study: {option} chooses it for every run")
    files: dict[str, str] = {}
    rows: dict[str, list[str]] = {}
    for table, content in tables.items():
        if not re.fullmatch(r"[\w.+-]+", table) or table in ("runs", "study"):
            raise UserError(f"{table!r} cannot be the name of a table: letters, digits and _ . + -, not runs or study")
        paths = _files(content["cfgs"])
        rows[table] = list(map(configuration_name, paths))
        for name, path in zip(rows[table], paths):
            if os.path.realpath(files.setdefault(name, path)) != os.path.realpath(path):
                raise UserError(f"two files give runs called {name}, {files[name]} and {path}: rename one of them")
        if content.get("baseline") and content["baseline"] not in rows[table]:
            raise UserError(f"the baseline {content['baseline']!r} of table {table} is not in {', '.join(rows[table])}")
    cfgs = {name: _resolve(path, overrides) for name, path in files.items()}
    settings = {name: relevant_settings(cfg.dump()) for name, cfg in cfgs.items()}
    shared: dict[str, str] = {}
    # Of equal settings one that was run already comes first: a study may get another first table.
    for name in sorted(files, key=lambda name: not os.path.isdir(os.path.join(out, name))):
        shared[name] = next((other for other in shared if settings[other] == settings[name]), name)
    runs = [
        Run(name, seed, cfgs[name], settings[name], os.path.join(out, name, f"seed{seed}"))
        for seed in seeds  # outside: half a study can be compared already
        for name in dict.fromkeys(shared[name] for name in files)
    ]
    built = {
        table: Table(content.get("title") or table, content.get("baseline") or "", {row: shared[row] for row in own})
        for (table, content), own in zip(tables.items(), rows.values())
    }
    return Study(out, built, runs)


def _files(patterns: Iterable[str]) -> list[str]:
    found = {one: [one] if os.path.isfile(one) else sorted(glob.glob(one)) for one in patterns}
    for pattern in (pattern for pattern, files in found.items() if not files):
        raise UserError(f"no configuration file fits {pattern} (looked in {os.getcwd()})")
    return list(dict.fromkeys(file for files in found.values() for file in files))


def _resolve(file: str, overrides: Sequence[Any]) -> CfgNode:
    cfg = load_cfg(file, overrides)
    if not cfg.TEST.ENABLE or (cfg.TRAIN.ENABLE and cfg.TEST.CHECKPOINT_FILE_PATH):
        found = f"TEST.ENABLE {cfg.TEST.ENABLE}, TEST.CHECKPOINT_FILE_PATH {cfg.TEST.CHECKPOINT_FILE_PATH!r}"
        raise UserError(f"{file}: a study compares tests of what runs have trained, found {found}; allowed: True, ''")
    if cfg.DATA.MULTI_LABEL:
        raise UserError(f"{file}: DATA.MULTI_LABEL is True, but a study compares accuracies of one label per video")
    return cfg


def relevant_settings(dumped: str) -> dict[str, Any]:
    """Return the settings of a dumped configuration that decide on the result of a run, by full key."""
    # A key that did not exist when it was written has its default: the same was computed then.
    found = flat_settings(get_cfg()) | flat_settings(yaml.load(dumped, _FastLoader))
    return {key: value for key, value in found.items() if not key.startswith(WITHOUT_EFFECT)}


def _differing(run: Run, there: dict[str, Any]) -> list[str]:
    """Return the keys in which the settings of a run differ from what is ``there``, which may have counted classes."""
    here = run.settings
    found = ["MODEL.NUM_CLASSES"] if here["MODEL.NUM_CLASSES"] == 0 else []
    return [key for key in sorted(there | here) if there.get(key) != here.get(key) and key not in found]


def check_folders(runs: Iterable[Run]) -> None:
    """Refuse folders that hold a run with other settings, naming them."""
    from slowfast.engine.checkpoint import list_checkpoints  # torch takes seconds, for which a wrong key need not wait

    for run in runs:
        results, there = read_results(run.folder), run.settings
        if results:
            there = relevant_settings(results["config"])
        elif list_checkpoints(run.folder):  # a run that failed before its first one has nothing to lose
            there = relevant_settings(read_text(os.path.join(run.folder, CONFIG_FILE)))
        keys = _differing(run, there)
        differing = [f"{key} is {there.get(key)!r} there and {run.settings.get(key)!r} here" for key in keys[:5]]
        if keys:
            raise UserError(
                f"{run.folder} holds a run with other settings ({len(keys)} keys): {'; '.join(differing)}. Choose "
                "another --out, give the settings as they were, or remove that folder to run it again"
            )


def is_finished(run: Run) -> bool:
    """Return whether the run is trained to its end and tested."""
    results = read_results(run.folder)
    if results is None or _differing(run, relevant_settings(results["config"])):
        return False
    # The last epoch is always validated.
    validated = [(event["epoch"], event["top1"]) for event in read_epochs(run.folder, "val")] or [(0, 0)]
    epochs, accuracies = zip(*validated)
    num_stale = len(accuracies) - 1 - accuracies.index(max(accuracies))
    is_stale = 0 < run.settings["SOLVER.STOP_AFTER"] <= num_stale
    if run.settings["TRAIN.ENABLE"] and epochs[-1] < run.settings["SOLVER.MAX_EPOCH"] and not is_stale:
        return False
    # A test in the middle of the training was of another checkpoint. Results without checkpoints are believed.
    path = results["checkpoint"]
    return not os.path.isfile(path) or os.path.getmtime(path) == results["checkpoint_time"]


def run_missing(study: Study, jobs: int = 1) -> list[Run]:
    """Run every run that is not finished, ``jobs`` at a time, which share cores and GPUs; return those that failed.

    An exception, such as that of a signal, asks the runs to save and end first; the same call resumes them.
    """
    import torch

    if jobs < 1:
        raise UserError(f"--jobs is {jobs}; allowed: at least 1")
    os.makedirs(study.out, exist_ok=True)
    with locked(study.out) as lock:
        check_folders(study.runs)
        missing = [run for run in study.runs if not is_finished(run)]
        logger.info("%d runs, %s", len(study.runs), f"{len(missing)} to do" if missing else "all finished already")
        count = torch.cuda.device_count() if any(run.cfg.DEVICE != "cpu" for run in missing) else 0
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")[:count]
        running: dict[int, tuple[Run, subprocess.Popen, float]] = {}
        failed = []
        try:
            while missing or running:
                for slot in sorted(set(range(jobs)) - set(running))[: len(missing)]:
                    run = missing.pop(0)
                    own = gpus[slot::jobs] or gpus[slot % max(1, count) :][:1]
                    running[slot] = (run, _start(run, own, jobs, lock), time.monotonic())
                time.sleep(0.2)
                for slot, (run, process, started) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        failed += [] if _report(run, process.returncode, time.monotonic() - started) else [run]
        finally:
            _stop([process for _, process, _ in running.values()])
    return failed


def _start(run: Run, gpus: Sequence[str], jobs: int, lock: int) -> subprocess.Popen:
    """Start the processes of a run, which keep the study's folder locked as long as they live."""
    import torch

    os.makedirs(run.folder, exist_ok=True)
    # The settings as they were when the study began: a file that is edited in the meantime changes nothing.
    settings = os.path.join(os.path.dirname(run.folder), "settings.yaml")
    with replacing(settings) as file:
        file.write(run.cfg.dump())
    num = max(1, len(gpus))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num}"] if num > 1 else []
    command = [sys.executable, *launcher, str(_TOOL), "--cfg", settings]
    command += ["RNG_SEED", str(run.seed), "OUTPUT_DIR", os.path.abspath(run.folder)]
    environment = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // (jobs * num))), **os.environ}
    environment |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    logger.info("%s: started, output in %s/%s", run, run.folder, CONSOLE)
    with open(os.path.join(run.folder, CONSOLE), "ab") as console:
        # A session of its own: Ctrl-C reaches this process only, which lets the runs save first.
        streams = {"stdin": subprocess.DEVNULL, "stdout": console, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, pass_fds=(lock,), start_new_session=True, **streams)


def _report(run: Run, status: int, seconds: float) -> bool:
    """Log the end of a run; return whether it is finished."""
    took = format_duration(seconds)
    if status == 0 and is_finished(run):
        logger.info("%s: top-1 %.2f %% in %s", run, read_results(run.folder)["top1"], took)
        return True
    path = Path(run.folder, CONSOLE)
    last = "\n    ".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    logger.error("%s: FAILED with status %d after %s, the end of %s:\n    %s", run, status, took, path, last)
    return False


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Let runs save and end; a second signal, or two minutes, and they are killed."""
    for process in processes:
        process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in processes:
                process.wait(_GRACE_SEC)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
