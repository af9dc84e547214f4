"""The motion exam: a network trained on a fixed budget of rendered clips, and what it then knows of motion.

Each seed trains on camouflage, and from there on noise (``exp/motion_exam/*.yaml``); the tests show the same clips to
every network. Dimension letters: ``R`` seeds, ``M`` clips.
"""

import glob
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from slowfast.analysis.study import WITHOUT_EFFECT, Run, Study, relevant_settings, run_missing
from slowfast.config import configuration_name, load_cfg
from slowfast.config.defaults import get_cfg
from slowfast.config.parser import CfgNode, flat_settings
from slowfast.datasets.build import build_source
from slowfast.engine.checkpoint import checkpoint_to_test, starting_weights
from slowfast.engine.test import Evaluation, load_tested, score_views
from slowfast.inference.evaluate import Tokens, covered_tokens, displacement_errors
from slowfast.inference.explain import Affinities, displacements, read_affinities
from slowfast.inference.model import architecture_cfg
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs, count_parameters, training_clip_shape
from slowfast.models.pretrained import load_pretrained
from slowfast.synthetic.stimuli import DIRECTIONS, Stimulus, StimulusSpec
from slowfast.utils.distributed import Process, choose_device
from slowfast.utils.errors import UserError
from slowfast.utils.files import ROOT
from slowfast.utils.results import read_epochs, write_json

logger = logging.getLogger(__name__)

FOLDER = ROOT / "exp" / "motion_exam"
PARTS = ("camouflage", "noise")  # the second one starts from the first
SEEDS = (1, 2)
CHANCE = 100 / len(DIRECTIONS)  # percent
# Of noise: the background never moves as the object does, so that its motion alone rules one direction out.
BLIND = 100 / (len(DIRECTIONS) - 1)
SPEEDS = (0.25, 0.5, 1.0, 2.0, 3.0)  # tokens a frame
# What a network's configuration says in these sections is replaced by the exam's, but for a few keys.
KEPT = ("DATA.MEAN", "DATA.STD")
REPLACED = ("DATA", "AUG", "MIXUP", "DATA_LOADER", "LOSS", "SOLVER", "TRAIN", "TEST", "TENSORBOARD", "WANDB", "DIST")
REPLACED += ("RNG_SEED", "OUTPUT_DIR", "LOG_PERIOD")


class Trial(NamedTuple):
    """A test: of the network after which part, on which stimuli, with the frames in which order."""

    part: str
    args: Mapping[str, Any]  # DATA.ARGS over those of the part
    perturb: str = ""


ONE_TOKEN = {"displacement": [1.0, 1.0]}
TRIALS = {f"displacement {speed:g}": Trial("camouflage", {"displacement": [speed, speed]}) for speed in SPEEDS}
TRIALS |= {f"texture {name}": Trial("camouflage", {**ONE_TOKEN, "test_texture": name}) for name in
           ("stripes", "cells", "dots")}  # fmt: skip
TRIALS |= {name: Trial("camouflage", ONE_TOKEN, name) for name in ("reverse", "shuffle", "single_frame")}
TRIALS["noise"] = Trial("noise", {})


def read_network(cfg: str, model: str, opts: Sequence[str]) -> tuple[str, dict[str, CfgNode]]:
    """Return the name of a network and its settings in every part of the exam.

    Args:
        cfg: a configuration file, or "".
        model: else an architecture's name.
        opts: ``KEY VALUE`` pairs over the network's settings and over the exam's.
    """
    for key in ("RNG_SEED", "OUTPUT_DIR"):
        if key in opts[0::2]:
            raise UserError(f"{key} cannot be set for an exam, which has a seed and a folder (--out) for every run")
    asked = load_cfg(cfg, opts) if cfg else architecture_cfg(model, len(DIRECTIONS)).with_settings(*opts)
    parts = {}
    for part in PARTS:
        own = get_cfg()
        own.merge_from_file(str(FOLDER / f"{part}.yaml"))
        own.merge_from_list(list(opts))
        for section in asked.keys() - REPLACED:
            own[section] = asked[section].clone() if isinstance(asked[section], CfgNode) else asked[section]
        own.defrost()  # which the sections of another tree are not
        own.MODEL.NUM_CLASSES = len(DIRECTIONS)
        own.DATA.MEAN, own.DATA.STD = asked.DATA.MEAN, asked.DATA.STD
        own.freeze()
        parts[part] = own
    return configuration_name(cfg) if cfg else model.replace("/", "_"), parts


def measure_cost(cfg: CfgNode, name: str) -> dict[str, float]:
    """Return parameters and GFLOPs of a network that is built and shown a clip, before hours depend on it."""
    shape, num_classes = training_clip_shape(cfg), len(DIRECTIONS)
    exam = f"the exam's clips of {shape[1]} frames of {shape[2]} x {shape[3]} px"
    try:
        model = build_model(cfg)
        with torch.no_grad():
            found = tuple(model.eval()(torch.zeros(2, *shape)).shape)
    except UserError as error:
        raise UserError(f"{name} cannot take the exam: {error}") from error
    except Exception as error:  # of a network of the user's, anywhere inside
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{name}: {cfg.MODEL.MODEL_NAME} cannot take {exam} ({reason})") from error
    if found != (2, num_classes):
        raise UserError(
            f"{name}: {cfg.MODEL.MODEL_NAME} returns {found} for 2 of {exam}, not logits (2, {num_classes})"
        )
    return {"parameters": count_parameters(model), "gflops": count_gmacs(model, shape)}


def own_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return what the exam sets and is no default, by full key: certificates with other settings are not compared."""
    defaults, ignored = flat_settings(get_cfg()), (*WITHOUT_EFFECT, *KEPT)
    found = {key: value for key, value in flat_settings(cfg).items() if key.split(".")[0] in REPLACED}
    return {key: value for key, value in found.items() if value != defaults.get(key) and not key.startswith(ignored)}


def plan(parts: Mapping[str, CfgNode], out: str) -> dict[str, list[Run]]:
    """Return the trainings of every part, one per seed, in ``OUT/seedN/PART/run``."""
    runs: dict[str, list[Run]] = {}
    for part, shared in parts.items():
        for index, seed in enumerate(SEEDS):
            cfg = shared
            if part != PARTS[0]:
                cfg = cfg.with_settings("MODEL.PRETRAINED", runs[PARTS[0]][index].folder)
            folder = os.path.abspath(os.path.join(out, f"seed{seed}", part, "run"))
            runs.setdefault(part, []).append(Run(part, seed, cfg, relevant_settings(cfg.dump()), folder))
    return runs


def take(cfg: str, model: str, opts: Sequence[str], out: str, jobs: int) -> int:
    """Train and test what is missing, and write the certificate to ``out``; return the exit status."""
    from slowfast.inference.certificate import write_certificate

    name, parts = read_network(cfg, model, opts)
    cost = measure_cost(parts[PARTS[0]], cfg or model)
    out = out or str(ROOT / "output" / "motion_exam" / name)
    counts = {part: own.SOLVER.MAX_EPOCH * own.DATA.ARGS.get("num_train", 400) for part, own in parts.items()}
    logger.info(
        "%s: %s parameters, %.2f GFLOPs; %d seeds of %s clips; 0.25 GFLOPs take about 20 minutes on two cores",
        name, f"{cost['parameters']:,}", cost["gflops"], len(SEEDS), " + ".join(map(str, counts.values())),
    )  # fmt: skip
    runs = plan(parts, out)
    for part in PARTS:
        if failed := run_missing(Study(out, {}, runs[part]), jobs):
            logger.error("no certificate: %s failed; the same command continues", ", ".join(map(str, failed)))
            return 1
    answers = [answer([runs[part][index] for part in PARTS], out) for index in range(len(SEEDS))]
    pairs = zip(opts[0::2], opts[1::2])
    settings = {key: value for key, value in pairs if not key.startswith((*WITHOUT_EFFECT, "DEVICE"))}
    changed = {key for key in settings if key.split(".")[0] in REPLACED and key not in KEPT}
    facts = {
        "name": name,
        "model": parts[PARTS[0]].MODEL.MODEL_NAME,
        "settings": {key: value for key, value in settings.items() if key not in changed},
        "starts_from": parts[PARTS[0]].MODEL.PRETRAINED,
        "exam": {"training_clips": counts, "seeds": [*SEEDS], "test_clips": len(answers[0]["labels"]),
                 "changed": {key: value for key, value in settings.items() if key in changed},
                 "settings": {part: own_settings(own) for part, own in parts.items()}},
        "cost": cost | measure_speed([*runs[PARTS[0]], *runs[PARTS[1]]]),
    }  # fmt: skip
    write_certificate(out, facts | grade(answers), read_references())
    return 0


def answer(runs: Sequence[Run], out: str) -> dict:
    """Return labels, answers and errors of displacements of one seed in all tests, made or as they were made before."""
    paths = {run.name: checkpoint_to_test(run.folder, "", run.cfg.TEST.CHECKPOINT) for run in runs}
    tested = {"checkpoints": {part: os.path.getmtime(path) for part, path in paths.items()}, "trials": [*TRIALS]}
    file = os.path.join(out, f"seed{runs[0].seed}", "answers.json")
    if os.path.isfile(file):
        with open(file, encoding="utf-8") as content:
            found = json.load(content)
        if found["tested"] == tested:
            return found
    process = Process(0, 1, 0, choose_device(runs[0].cfg.DEVICE, 0))
    found: dict[str, Any] = {"tested": tested, "answers": {}}
    tokens: dict[str, dict] = {"epe": {}, "untrained": {}}
    for run in runs:
        model = load_tested(run.cfg, paths[run.name], list(DIRECTIONS))[0].to(process.device).eval()
        networks = {"epe": model, "untrained": build_untrained(run).to(process.device).eval()}
        for name, trial in TRIALS.items():
            if trial.part == run.name:
                logger.info("seed %d: %s", run.seed, name)
                cfg = run.cfg.with_settings("DATA.ARGS", {**run.cfg.DATA.ARGS, **trial.args})
                evaluation = Evaluation.from_config(cfg, process, "test")
                evaluation.loader.dataset.perturb = trial.perturb
                views = score_views(model, evaluation, "")
                found["labels"] = views.labels.tolist()
                found["answers"][name] = views.logits[:, 0].argmax(axis=1).tolist()
                if name.startswith("displacement") and "no_affinities" not in found:
                    try:
                        for key, network in networks.items():
                            tokens[key][name] = read_tokens(network, cfg, evaluation)
                    except UserError as error:
                        found["no_affinities"] = str(error)
    errors = {key: end_point_errors(of_network) for key, of_network in tokens.items() if "no_affinities" not in found}
    found["end_point_error"] = errors.get("epe", {})
    for block, rows in found["end_point_error"].items():
        for row, untrained in zip(rows, errors["untrained"][block]):
            row["epe_readout_untrained"] = untrained["epe_readout"]
    write_json(file, found)
    return found


def build_untrained(run: Run) -> torch.nn.Module:
    """Return the network of a run as its training began."""
    torch.manual_seed(run.seed)
    model = build_model(run.cfg)
    if start := run.cfg.MODEL.PRETRAINED:
        load_pretrained(model, starting_weights(start, run.cfg.dump()), run.cfg.MODEL.INFLATION)
    return model


@torch.no_grad()
def read_tokens(model: torch.nn.Module, cfg: CfgNode, evaluation: Evaluation) -> dict[str, list]:
    """Return of every EMIM block what its affinities say and what is true of the object's tokens: clip by clip.

    Per clip a :class:`Tokens` and the side of a token (px).
    """
    if cfg.VMP.ENABLE:
        raise UserError("what motion prompts (VMP.ENABLE) leave of a clip is not compared with its true motion")
    source, found = build_source(cfg, "test"), {}
    for batch in evaluation.loader:
        clips = evaluation.normalize(batch.clips.to(evaluation.process.device))
        for block, affinities in read_affinities(model, clips).items():
            way = affinities.forward.softmax(-1) @ displacements(affinities.window).to(affinities.forward)
            way = way / affinities.interval  # a frame
            for index, forward, seen in zip(batch.video_index.tolist(), affinities.forward, way):
                truth, is_covered = true_tokens(source.stimulus(source.records[index]), affinities)
                arrays = (x.cpu()[is_covered].float().numpy() for x in (forward, seen))
                side = source.size / forward.shape[2]
                found.setdefault(block, []).append((Tokens(*arrays, truth.float().numpy()), side))
    return found


def true_tokens(stimulus: Stimulus, found: Affinities) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the motion (m, 2) of the object's tokens, in tokens a frame, and which they are, bool (F, h, w).

    An object that leaves the frame comes back on the other side, where no window reaches: that part is left out.
    """
    motion, is_object = (x[: -found.interval] for x in stimulus.flow())
    places = np.stack(np.meshgrid(*2 * [np.arange(stimulus.size)], indexing="xy"), axis=-1) + found.interval * motion
    is_seen = is_object & ((places >= 0) & (places <= stimulus.size - 1)).all(-1)
    return covered_tokens(motion, is_seen, found)


def end_point_errors(tokens: Mapping[str, Mapping[str, list]]) -> dict[str, list[dict[str, float]]]:
    """Return of every block a row per displacement: end-point errors on the second half of the clips, tokens of 8 px.

    ``epe`` is of the expectation under the softmax, the mean of the heads; ``epe_readout`` of the linear function of
    the affinities that fits best on the first half of the clips of all displacements; ``still`` of no motion at all.
    """
    rows: dict[str, list] = {}
    for block in next(iter(tokens.values())):
        clips = {name: of_blocks[block] for name, of_blocks in tokens.items()}
        fitted = _join([one for some in clips.values() for one, _ in some[: len(some) // 2]])
        for speed, some in zip(SPEEDS, clips.values()):
            measured, unit = _join([one for one, _ in some[len(some) // 2 :]]), some[0][1] / StimulusSpec.token
            errors = displacement_errors(fitted, measured) | {"still": np.linalg.norm(measured.truth, axis=1).mean()}
            shown = {key: float(unit * errors[key]) for key in ("epe", "epe_readout", "still")}
            rows.setdefault(block, []).append({"displacement": speed, **shown})
    return rows


def _join(clips: Sequence[Tokens]) -> Tokens:
    return Tokens(*map(np.concatenate, zip(*clips)))


def grade(answers: Sequence[dict]) -> dict:
    """Return what the certificate says of the answers of all seeds: shares of right answers, and the errors' means."""
    labels = np.array(answers[0]["labels"])
    given = {name: np.array([one["answers"][name] for one in answers]) for name in TRIALS}  # (R, M)
    tests = {name: share(of_seeds == labels) for name, of_seeds in given.items()}
    opposite = (labels + len(DIRECTIONS) // 2) % len(DIRECTIONS)
    tests["reverse, as the opposite"] = share(given["reverse"] == opposite)
    errors = {
        block: pd.DataFrame([row for one in answers for row in one["end_point_error"][block]])
        .groupby("displacement", as_index=False)
        .mean()
        .to_dict("records")
        for block in answers[0]["end_point_error"]
    }
    return {"tests": tests, "end_point_error": errors, "no_affinities": answers[0].get("no_affinities", "")}


def share(hits: np.ndarray) -> dict[str, Any]:
    """Return the share of hits, bool (R, M), in percent: their mean, its 95 % interval over the clips, the seeds.

    All seeds are tested on the same clips, so that the interval (E. B. Wilson, 1927) is that of so many clips.
    """
    num_clips = hits.shape[1]
    test = stats.binomtest(round(float(hits.mean() * num_clips)), num_clips)
    interval = [100 * float(end) for end in test.proportion_ci(0.95, method="wilson")]
    return {"percent": 100 * float(hits.mean()), "interval95": interval, "seeds": (100 * hits.mean(axis=1)).tolist()}


def measure_speed(runs: Sequence[Run]) -> dict[str, Any]:
    """Return clips a second of a training, the median over all epochs, the device, and what ran there."""
    epochs = [epoch["clips_per_sec"] for run in runs for epoch in read_epochs(run.folder, "train_epoch")]
    with open(os.path.join(runs[0].folder, "environment.json"), encoding="utf-8") as file:
        environment = json.load(file)
    told = {key: environment[key] for key in ("device", "git_commit")}
    return {"clips_per_sec": float(np.median(epochs)), **told, "torch": environment["versions"]["torch"]}


def read_references() -> list[dict]:
    """Return the certificates that the repository has of other networks."""
    found = []
    for path in sorted(glob.glob(str(FOLDER / "results" / "*.json"))):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    return found
