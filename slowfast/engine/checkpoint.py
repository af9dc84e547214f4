"""Checkpoints: written whole or not at all, found again, and refused by a run that does not continue theirs."""

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import yaml
from torch import nn

from slowfast.config import CONFIG_FILE, load_cfg, training_command
from slowfast.config.parser import KEYS, flat_settings
from slowfast.engine.record import Recorder
from slowfast.models.pretrained import read_checkpoint
from slowfast.models.zoo import fetch, is_remote
from slowfast.utils.distributed import broadcast_from_main, gather_to_all
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path, replacing
from slowfast.utils.results import RESULTS, read_results

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = "best.pyth"
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?\.pyth$")

# Keys that may differ when a run is continued: they change neither the model, nor the data, nor the recipe, or are
# meant to be changed on the way. What the lists hold is compared by itself.
_MAY_DIFFER = (
    "OUTPUT_DIR", "DEVICE", "LOG_PERIOD", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX", "DATA.LABEL_PATH_TEMPLATE",
    "DATA.CLASS_NAMES_FILE", "DATA.EXCLUDE_FILE", "DATA.EXPECTED_NUM_VIDEOS", "DATA.PACKED", "DATA.DECODING_BACKEND",
    "DATA.MAX_BAD_SHARE", "DATA.ENSEMBLE_METHOD", "DATA.TEST_", "DATA_LOADER.", "MODEL.PRETRAINED", "MODEL.COMPILE",
    "MODEL.CHECKPOINT_NUM", "EMIM.BACKEND", "SOLVER.MAX_EPOCH", "TEST.", "TENSORBOARD.", "WANDB.", "DIST.BACKEND",
    "DIST.TIMEOUT_MIN", "TRAIN.ENABLE", "TRAIN.MICRO_BATCH_SIZE", "TRAIN.PRECISION", "TRAIN.EVAL_PERIOD",
    "TRAIN.CHECKPOINT_", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.ON_NONFINITE", "TRAIN.RESUME_CHANGED",
    "SOLVER.STOP_AFTER", "USER_MODULES",
)  # fmt: skip


@dataclass
class Checkpoints:
    """The checkpoints of a training run, whose state is a ``train.TrainState``.

    ``identity`` has cfg, class_names, lists (hash of the training list) and val_videos (names), which must stay as they
    are, world_size and num_steps (of an epoch), which may change.
    """

    output_dir: str
    identity: dict
    recorder: Recorder
    is_main: bool  # the process that writes
    num_kept: int  # of the newest
    period: int  # epochs between two
    steps: int  # between two within an epoch; 0 for none
    may_change: bool  # whether a run with another identity is continued
    chosen: str | int  # TEST.CHECKPOINT: that of so many epochs is made and kept

    def resume(self, state) -> None:
        """Restore the newest checkpoint, refusing that of another run; a new run stays as it is."""
        newest = read_newest(self.output_dir)
        if newest is None:
            for path in (os.path.join(self.output_dir, FOLDER, BEST), os.path.join(self.output_dir, RESULTS)):
                if os.path.exists(path):
                    raise UserError(f"{path} is of another run or of other weights: move it away, or change OUTPUT_DIR")
            self.recorder.begin_anew()
        else:
            path, saved = newest
            if missing := self.identity.keys() - saved.keys():
                found = f"{path} is no checkpoint of a run, it has no {min(missing)}"
                raise UserError(f"{found}: move it away, change OUTPUT_DIR, or start from it with MODEL.PRETRAINED")
            self._refuse_other_run(path, saved)
            state.load_state_dict(saved, path)
            if state.step and saved["num_steps"] != self.identity["num_steps"]:
                logger.warning("epoch %d begins anew, since its steps are others than before", state.epoch + 1)
                state.begin_epoch(state.epoch)
            steps = f" and {state.step} steps" if state.step else ""
            logger.info("resumed from %s: %d epochs%s done", path, state.epoch, steps)
            self.recorder.resumed_at = state.epoch * self.identity["num_steps"] + state.step
        starts = gather_to_all((state.epoch, state.step))
        if len(set(starts)) > 1:
            raise UserError(
                f"the processes found different checkpoints (epochs and steps done: {starts}): OUTPUT_DIR "
                f"{self.output_dir} must be on storage that all nodes share"
            )

    def _refuse_other_run(self, path: str, saved: dict) -> None:
        mine = self.identity
        changes = changed_settings(saved["cfg"], mine["cfg"])
        for line in changes:
            logger.info("changed since the checkpoint: %s", line)
        for line in [line for line in changes if line.startswith("MODEL.FREEZE")]:
            other = "set it as before, or start anew from these weights with MODEL.PRETRAINED"
            raise UserError(f"{path} has the moments of other parameters, {line}: {other}")
        refused = [line for line in changes if not line.startswith(_MAY_DIFFER)]
        refused += [] if saved["class_names"] == mine["class_names"] else ["class names or their order"]
        refused += [] if saved["lists"] == mine["lists"] else ["videos or labels of the training list"]
        refused += [] if saved["val_videos"] == mine["val_videos"] else ["videos of the validation list"]
        if refused and not self.may_change:
            raise UserError(
                f"{path} belongs to a run with other settings: {'; '.join(refused)}. Choose another OUTPUT_DIR, or "
                "continue all the same with TRAIN.RESUME_CHANGED True"
            )
        if saved["world_size"] != mine["world_size"]:
            logger.warning(
                "%d processes go on with what %d began: random draws of mixing and dropping paths, and the batches "
                "that batch norms see, differ from those of an uninterrupted run",
                mine["world_size"], saved["world_size"],
            )  # fmt: skip

    def is_due(self, state) -> bool:
        """Return whether a checkpoint follows what was done last: a step, or an epoch when ``state.step`` is 0."""
        if state.step:
            return self.steps > 0 and state.step % self.steps == 0
        return not state.is_validated or state.epoch % self.period == 0 or state.epoch == self.chosen

    def save(self, state, name: str = "") -> None:
        """Write a checkpoint; all processes call it, the main one writes."""
        if not self.is_main:
            return
        name = name or f"epoch_{state.epoch:05d}" + (f"_step_{state.step:06d}" if state.step else "") + ".pyth"
        content = {**state.state_dict(), **self.identity, "is_best": name == BEST}
        path = write_checkpoint(self.output_dir, name, content)
        if name != BEST:
            paths = list_checkpoints(self.output_dir)
            place = paths.index(path)
            # Those that look newer are of an epoch that began anew, or could not be read.
            for old in paths[:place] + paths[place + self.num_kept :]:
                if os.path.basename(old) != f"epoch_{self.chosen:0>5}.pyth":
                    os.remove(old)
        self.recorder.event("checkpoint", epoch=state.epoch, steps=state.step, path=path, best=name == BEST)

    def save_validated(self, state, top1: float | None) -> None:
        """Write the state after a validation, also as the best one if it is; ``top1`` is known to the main process."""
        top1 = broadcast_from_main(top1)
        is_best, state.is_validated = top1 >= state.best_top1, True
        state.num_stale = 0 if top1 > state.best_top1 else state.num_stale + 1
        state.best_top1 = max(top1, state.best_top1)
        if is_best:
            self.save(state, BEST)
        self.save(state)


def write_checkpoint(output_dir: str, name: str, content: dict) -> str:
    """Write ``content`` (plain data and tensors) completely or not at all, and return its path."""
    path = os.path.join(output_dir, FOLDER, name)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its zip writer
        if "DataLoader" in str(error):  # a worker that died is told by a signal, whatever is under way
            raise
        raise UserError(f"checkpoint {path} could not be written: {error}") from error
    return path


def list_checkpoints(output_dir: str) -> list[str]:
    """Return the checkpoints of a run, newest first, without the best one."""

    def position(path: str) -> tuple[int, int]:  # epochs done, and steps of the next one
        match = _NAME.search(path)
        return int(match[1]), int(match[2] or 0)

    paths = glob.glob(os.path.join(glob.escape(os.path.join(output_dir, FOLDER)), "epoch_*.pyth"))
    return sorted((path for path in paths if _NAME.search(path)), key=position, reverse=True)


def read_newest(output_dir: str) -> tuple[str, dict] | None:
    """Return path and content of the newest checkpoint of a run that can be read; None if there is none at all."""
    paths = list_checkpoints(output_dir)
    for path in paths:
        try:
            return path, read_checkpoint(path)
        except UserError as error:
            logger.warning("%s; trying the checkpoint before it", error)
    if paths:
        raise UserError(f"none of the checkpoints in {output_dir} can be read; remove them or change OUTPUT_DIR")
    return None


def checkpoint_to_test(output_dir: str, configured: str, chosen: str | int) -> str:
    """Return the file ``configured`` if given, else the checkpoint ``chosen``: "best", "last", or epochs done."""
    if configured:
        return fetch(configured) if is_remote(configured) else full_path(configured)
    folder = os.path.join(output_dir, FOLDER)
    paths = [*list_checkpoints(output_dir), os.path.join(folder, BEST)]
    names = [os.path.basename(path) for path in paths if os.path.isfile(path)]
    if not names:
        raise UserError(f"no checkpoint in {folder}: train first, or set TEST.CHECKPOINT_FILE_PATH")
    name = {"best": BEST, "last": names[0]}.get(chosen) or f"epoch_{chosen:05d}.pyth"
    if name not in names:
        raise UserError(f"TEST.CHECKPOINT is {chosen}, but {folder} has no {name}, only {', '.join(names)}")
    return os.path.join(folder, name)


def count_chosen_on(saved: dict, names: Iterable[str]) -> int:
    """Return how many of the videos called ``names`` a checkpoint was chosen on: as the best, or by an early end."""
    is_chosen = "val_videos" in saved and (saved["is_best"] or has_ended_early(saved))
    return len({*saved["val_videos"]}.intersection(names)) if is_chosen else 0


def has_ended_early(saved: dict) -> bool:
    """Return whether SOLVER.STOP_AFTER has ended the run of a checkpoint with it."""
    return 0 < yaml.safe_load(saved["cfg"])["SOLVER"].get("STOP_AFTER", 0) <= saved.get("num_stale", 0)


def refuse_foreign_weights(output_dir: str, path: str) -> None:
    """Refuse to test the weights ``path`` in a folder with a run, or with results of weights, that they are not of."""
    results, folder = read_results(output_dir), os.path.join(output_dir, FOLDER)
    is_own = os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)
    if not is_own and (os.path.isdir(folder) or (results and results["checkpoint"] != path)):
        raise UserError(f"OUTPUT_DIR {output_dir} has results of another model than {path}: choose another folder")


def class_difference(trained: list[str] | None, names: list[str] | None) -> str:
    """Return the first class whose name differs, "" where names are alike or unknown."""
    pairs = enumerate(itertools.zip_longest(trained, names)) if trained and names else ()
    return next((f"class {i} is {a!r} there and {b!r} here" for i, (a, b) in pairs if a != b), "")


def load_model_state(model: nn.Module, state: dict[str, torch.Tensor], path: str) -> None:
    """Fill ``model`` with every tensor of a checkpoint, which must be of the same architecture."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        _, *problems = (line.strip() for line in str(error).splitlines())
        raise UserError(
            f"{path} is a checkpoint of another architecture than the configuration describes: "
            f"{' '.join(problems[:5])} To start from its weights instead, use MODEL.PRETRAINED"
        ) from error


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict, path: str) -> None:
    """Restore moments; of the settings, those of the configuration count."""
    configured = [{key: group[key] for key in group if key not in ("params", "lr")} for group in optimizer.param_groups]
    both = [optimizer.param_groups, state["param_groups"]]
    sizes = [[len(group["params"]) for group in groups] for groups in both]
    if sizes[0] != sizes[1] or len({"betas" in groups[0] for groups in both}) > 1:
        raise UserError(
            f"{path} was trained with another optimizer: SOLVER.OPTIMIZING_METHOD, SOLVER.DECAY_RELATIVE_BIAS or "
            "SOLVER.LAYER_DECAY differ; set them as before, or start anew from these weights with MODEL.PRETRAINED"
        )
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update(settings)


def changed_settings(old: str, new: str) -> list[str]:
    """Return "KEY: old -> new" for every setting in which two dumped configurations differ."""
    before, after = (flat_settings(yaml.safe_load(dumped)) for dumped in (old, new))
    # What had no key yet when a checkpoint was written was computed as the default of the key says.
    defaults = {key: declared.default for key, declared in KEYS.items()}
    before, after = (defaults | settings for settings in (before, after))
    pairs = {key: (before.get(key, "not set"), after.get(key, "not set")) for key in sorted(before | after)}
    return [f"{key}: {then} -> {now}" for key, (then, now) in pairs.items() if then != now]


def starting_weights(start: str, config: str, compared: tuple[str, ...] = (), ignored: tuple[str, ...] = ()) -> str:
    """Return the weight file that MODEL.PRETRAINED means.

    Args:
        start: a weight file, or its name in the zoo or on the Hub; or an earlier experiment, by its folder
            (``exp/NAME``), its YAML file or the output folder of its run, whose best checkpoint is taken.
        config: the dumped settings of the run that is to start.
        compared: beginnings of the keys that decide what weights mean; the log warns where they differ.
        ignored: keys among them that do not.
    """
    if is_remote(start):
        return fetch(start)
    start = full_path(start)
    if os.path.isfile(start) and not start.endswith((".yaml", ".yml")):
        return start
    output_dir, command = find_run(start)
    best = os.path.join(output_dir, FOLDER, BEST)
    newest = read_newest(output_dir) or ((best, read_checkpoint(best)) if os.path.isfile(best) else None)
    if newest is None:
        raise UserError(
            f"MODEL.PRETRAINED: {start} has no checkpoint in {os.path.join(output_dir, FOLDER)}. Train it "
            f'first{command}, or set MODEL.PRETRAINED to a weight file of the same model (see docs/weights.md) or ""'
        )
    path, saved = newest
    trained = yaml.safe_load(saved["cfg"])
    wanted, metric = trained["SOLVER"]["MAX_EPOCH"], "mAP" if trained["DATA"].get("MULTI_LABEL") else "top-1"
    if (
        (saved["epoch"] < wanted and not has_ended_early(saved))
        or not saved["is_validated"]
        or not os.path.isfile(best)
    ):
        raise UserError(
            f"MODEL.PRETRAINED: {start} is not finished: {path} has {saved['epoch']} of {wanted} epochs. Continue "
            f"it{command}, or name a checkpoint: MODEL.PRETRAINED {best if os.path.isfile(best) else path}"
        )
    facts = (start, saved["epoch"], saved["best_top1"], metric)
    logger.info("starting from %s: its best checkpoint of %d epochs, %.2f %% %s in validation", *facts)
    for line in changed_settings(saved["cfg"], config):
        if line.startswith(compared) and line.partition(":")[0] not in ignored:
            logger.warning("%s was trained with other settings of the model: %s", start, line)
    return best


def find_run(start: str, wanted: str = "MODEL.PRETRAINED: weight file") -> tuple[str, str]:
    """Return the output folder of an experiment, and how to train it as part of a sentence."""
    if os.path.isdir(os.path.join(start, FOLDER)):
        return start, ""
    path = os.path.join(start, CONFIG_FILE) if os.path.isdir(start) else start
    if not os.path.isfile(path) or not path.endswith((".yaml", ".yml")):
        problem = f"has no {CONFIG_FILE}" if os.path.isdir(start) else "does not exist"
        raise UserError(f"{wanted} or experiment {start} {problem}; see docs/weights.md")
    return load_cfg(path).OUTPUT_DIR, f" ({training_command(path)})"
