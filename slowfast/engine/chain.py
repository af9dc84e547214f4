"""Chains of experiments: the weights that an earlier one has left for the next."""

from __future__ import annotations

import logging
import os

import yaml

from slowfast.config.experiment import CONFIG_FILE, load_cfg, training_command
from slowfast.engine.checkpoint import BEST, FOLDER, changed_settings, read_newest
from slowfast.models.pretrained import read_checkpoint

logger = logging.getLogger(__name__)

# What decides what weights mean: names and shapes may agree although these differ.
_MEANING = ("DATA.MEAN", "DATA.STD", "UNIFORMER.", "EMIM.")
_TRAINING_ONLY = ("UNIFORMER.DROP_DEPTH_RATE", "UNIFORMER.INIT_STD", "EMIM.ZERO_INIT_MOTION", "EMIM.BACKEND")


def starting_weights(start: str, config: str) -> str:
    """Return the weight file that MODEL.PRETRAINED means.

    Args:
        start: a weight file; or an earlier experiment, by its folder (``exp/NAME``), its YAML file or the output folder
            of its run, whose best checkpoint is taken.
        config: the dumped settings of the run that is to start. Where the earlier model computes something else, though
            its weights fit, the log warns.

    Raises:
        FileNotFoundError: there is no such file or experiment, or the experiment has no checkpoint yet.
        ValueError: the experiment is not finished.
    """
    if os.path.isfile(start) and not start.endswith((".yaml", ".yml")):
        return start
    output_dir, command = _find_run(start)
    newest = _newest(output_dir)
    if newest is None:
        raise FileNotFoundError(
            f"{start} has no checkpoint in {os.path.join(output_dir, FOLDER)}. Train it first{command}, or set "
            'MODEL.PRETRAINED to a weight file of the same model; MODEL.PRETRAINED "" trains from scratch'
        )
    path, state = newest
    best = os.path.join(output_dir, FOLDER, BEST)
    done, wanted = state["epoch"], yaml.safe_load(state["cfg"])["SOLVER"]["MAX_EPOCH"]
    if done < wanted or not state["is_validated"] or not os.path.isfile(best):
        raise ValueError(
            f"{start} is not finished: {path} has {done} of {wanted} epochs. Continue it{command}, or name the "
            f"checkpoint to start from all the same: MODEL.PRETRAINED {best if os.path.isfile(best) else path}"
        )
    logger.info(
        "starting from %s: its best checkpoint of %d epochs, %.2f %% top-1 in validation",
        start, wanted, state["best_top1"],
    )  # fmt: skip
    for line in changed_settings(state["cfg"], config):
        if line.startswith(_MEANING) and not line.startswith(_TRAINING_ONLY):
            logger.warning("%s was trained with other settings of the model: %s", start, line)
    return best


def _find_run(start: str) -> tuple[str, str]:
    """Return the output folder of an experiment, and how to train it as part of a sentence."""
    if os.path.isdir(os.path.join(start, FOLDER)):
        return start, ""
    path = os.path.join(start, CONFIG_FILE) if os.path.isdir(start) else start
    if not os.path.isfile(path) or not path.endswith((".yaml", ".yml")):
        problem = f"has no {CONFIG_FILE}" if os.path.isdir(start) else "does not exist"
        raise FileNotFoundError(f"weight file or experiment {start} {problem} (looked in {os.getcwd()})")
    return load_cfg(path).OUTPUT_DIR, f" ({training_command(path)})"


def _newest(output_dir: str) -> tuple[str, dict] | None:
    """Return path and content of the checkpoint with the most epochs; of the best one where no other is kept."""
    newest, best = read_newest(output_dir), os.path.join(output_dir, FOLDER, BEST)
    if newest is None and os.path.isfile(best):
        return best, read_checkpoint(best)
    return newest
