"""Tests of the motion study's finished runs: python exp/motion_study/mechanism.py FOLDER ...

Tests E-O and O-O on textures that they were not trained on (prediction 2), E-O with the channels of its affinities
permuted, and measures for every clip how far the displacement read out of the affinities is from the truth (prediction
4). Adds lines to results/tests.csv, one per run and test; what is there already is not repeated. Example:
  python exp/motion_study/mechanism.py exp/motion_study/output/stills
"""

import argparse
import csv
import logging
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from report import KEYS, TEXTURES, read_run

from slowfast.config import CONFIG_FILE, load_cfg
from slowfast.engine.test import Evaluation, load_tested, score_views
from slowfast.inference.exam import read_tokens
from slowfast.models.attention import MotionMlp
from slowfast.utils.distributed import Process
from slowfast.utils.errors import run_tool
from slowfast.utils.files import replacing
from slowfast.utils.logging import setup_logging
from slowfast.utils.metrics import topk_correct
from slowfast.utils.results import SCORES, read_results

logger = logging.getLogger("motion_study")

RUN = [*KEYS, "clips"]
COLUMNS = [*RUN, "test", "right", "block", "end_point_errors"]


@torch.no_grad()
def permute_channels(network: torch.nn.Module) -> None:
    """Let the motion MLP of every block see the places of its window in another order, the same for all tokens."""
    for module in network.modules():
        if isinstance(module, MotionMlp):
            order = torch.randperm(module[0].in_features, generator=torch.Generator().manual_seed(0))
            module[0].weight.copy_(module[0].weight[:, order])


def test_run(folder: Path, arm: str) -> list[dict]:
    """Return the lines of a run: which videos are right in each test, as ``right`` of runs.csv."""
    cfg, results = load_cfg(str(folder / CONFIG_FILE)), read_results(str(folder))
    process = Process(0, 1, 0, torch.device("cpu"))
    model = load_tested(cfg, results["checkpoint"], None)[0].eval()
    lines = []
    for test in (*TEXTURES, *(["displacements", "permuted"] if arm == "emim" else [])):
        changed = cfg
        if test in TEXTURES:
            changed = cfg.with_settings("DATA.ARGS", {**cfg.DATA.ARGS, "test_texture": test})
        if test == "permuted":
            permute_channels(model)  # last
        evaluation = Evaluation.from_config(changed, process, "test")
        if test == "displacements":
            lines.append({"test": test} | measure_displacements(model, cfg, evaluation))
            continue
        views = score_views(model, evaluation, "")
        right = topk_correct(views.logits[:, 0], views.labels, 1)
        lines.append({"test": test, "right": np.packbits(right).tobytes().hex()})
    return lines


def measure_displacements(model: torch.nn.Module, cfg, evaluation: Evaluation) -> dict:
    """Return the block that errs least, and its end-point error in every clip, tokens of stage 3."""
    errors = {
        block: [
            side / 8 * np.linalg.norm(found.found.mean(1) - found.truth, axis=1).mean() if len(found.truth) else np.nan
            for found, side in clips
        ]
        for block, clips in read_tokens(model, cfg, evaluation).items()
    }
    best = min(errors, key=lambda block: np.nanmean(errors[block]))
    return {"block": best, "end_point_errors": " ".join(f"{error:.3f}" for error in errors[best])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs to test, or folders above them")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of tests.csv")
    args = parser.parse_args()
    setup_logging(None, True)
    path = args.results / "tests.csv"
    lines = list(csv.DictReader(path.open())) if path.exists() else []
    there = {tuple(line[key] for key in RUN) for line in lines}
    for folder in (file.parent for root in args.folders for file in sorted(root.glob(f"**/seed*/{SCORES}"))):
        run = {key: str(value) for key, value in (read_run(folder) or {}).items() if key in RUN}
        if run.get("arm") in ("emim", "joint") and run["question"] == "motion" and tuple(run.values()) not in there:
            logger.info("%s", " ".join(run.values()))
            lines = [line for line in lines if any(line[key] != run[key] for key in KEYS)]  # of another training
            lines += [run | line for line in test_run(folder, run["arm"])]
            with replacing(path) as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
    return 0


if __name__ == "__main__":
    run_tool(main)
