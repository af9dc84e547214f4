"""Several processes compute what one computes: losses, evaluation, results."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_engine import ROOT, free_port
from torch.utils.data import DataLoader

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.on_device import build_normalize
from slowfast.datasets.loader import construct_loader
from slowfast.engine.test import Evaluation, score_views
from slowfast.models import build_model
from slowfast.utils.distributed import Process
from slowfast.utils.logging import read_events

pytestmark = pytest.mark.dist

# Runs tools in groups of processes: a JSON list of [processes, tool, arguments]. They are forked, because torch takes
# longer to import than they run. Batch norms use their running statistics, since those of a batch depend on the share
# of each process.
RUNS = """
import json, multiprocessing, os, runpy, sys
import matplotlib.pyplot, scipy.stats, timm.layers, torch, torch._dynamo  # here once, not in every process
import slowfast.engine.run

norm = torch.nn.modules.batchnorm._BatchNorm
norm.train = lambda self, mode=True: torch.nn.Module.train(self, False)

def run(rank, processes, port, tool, arguments):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = [tool, *arguments]
    runpy.run_path(tool, run_name="__main__")

fork, port = multiprocessing.get_context("fork"), int(sys.argv[1])
for number, (processes, tool, arguments) in enumerate(json.loads(sys.argv[2])):
    arguments = (processes, port + number, tool, arguments)
    group = [fork.Process(target=run, args=(rank, *arguments)) for rank in range(processes)]
    for process in group:
        process.start()
    for process in group:
        process.join()
    if any(process.exitcode for process in group):
        sys.exit(f"{tool} with {processes} processes failed")
"""


def run_groups(tmp_path, runs):
    """Run (processes, tool, settings) one after the other."""
    (tmp_path / "runs.py").write_text(RUNS)
    runs = [(processes, str(ROOT / "tools" / tool), list(map(str, settings))) for processes, tool, settings in runs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "runs.py"), str(min(free_port(), 60000)), json.dumps(runs)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_any_number_of_processes_computes_what_one_computes(config, tmp_path):
    # Mixing pairs the clips of one process, and draws of erasing are its own: they would differ too.
    train = ["--cfg", config, "TRAIN.BATCH_SIZE", 12, "MIXUP.ENABLE", False, "UNIFORMER.DROP_DEPTH_RATE", 0.0]
    train += ["AUG.RE_PROB", 0.0, "MODEL.FREEZE", "[patch_embed1.*]"]
    train += ["DATA.TRAIN_SAMPLING", "balanced", "LOSS.CLASS_WEIGHTS", [1, 2] * 6]
    train += ["SOLVER.MAX_EPOCH", 2, "TRAIN.EVAL_PERIOD", 2]
    trained = {f"train{processes}": (processes, []) for processes in (1, 2, 3, 4)}
    trained["micro"] = (2, ["TRAIN.MICRO_BATCH_SIZE", 4])  # of 6: passes of 4 and 2
    best = tmp_path / "train1" / "checkpoints" / "best.pyth"
    test = ["--cfg", config, "TEST.CHECKPOINT_FILE_PATH", best]
    test += ["TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 3]
    tested = {f"test{processes}_1": (processes, 1) for processes in (1, 2, 3, 4)}
    tested |= {"test1_4": (1, 4), "test3_4": (3, 4)}
    runs = [(n, "train_net.py", [*train, "OUTPUT_DIR", tmp_path / name, *more]) for name, (n, more) in trained.items()]
    runs += [
        (n, "test_net.py", [*test, "TEST.BATCH_SIZE", size, "OUTPUT_DIR", tmp_path / name])
        for name, (n, size) in tested.items()
    ]
    run_groups(tmp_path, runs)

    losses = {name: [event["loss"] for event in read_events(tmp_path / name, "train_epoch")] for name in trained}
    assert len(losses["train1"]) == 2 and losses["train1"][0] != losses["train1"][1]
    for name, found in losses.items():
        assert found == pytest.approx(losses["train1"], rel=1e-5), name

    for name, (_, size) in tested.items():
        results = json.loads((tmp_path / name / "test_results.json").read_text())
        with np.load(tmp_path / name / "test_scores.npz") as file:
            logits = file["logits"]
        if name.startswith("test1_"):
            # 17 videos x 3 views do not divide by 2, 3 or 4 processes: nothing is padded or counted twice.
            assert (results["num_videos"], results["num_views"], logits.shape) == (17, 51, (17, 3, 12))
            assert np.isfinite(logits).all()
        first = tmp_path / f"test1_{size}"
        expected = json.loads((first / "test_results.json").read_text())
        results["config"] = results["config"].replace(name, first.name)
        assert results == expected  # accuracies, intervals and all else, to the last digit
        with np.load(first / "test_scores.npz") as file:
            # Passes of one view have the same size in every process, which makes them equal to the last bit.
            np.testing.assert_allclose(logits, file["logits"], rtol=0 if size == 1 else 1e-5, atol=1e-6 * (size > 1))


def test_a_view_that_is_scored_twice_or_never_is_an_error(config):
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    loader, model, alone = construct_loader(cfg, "val"), build_model(cfg), Process(0, 1, 0, torch.device("cpu"))

    def score(items):
        batches = DataLoader(loader.dataset, batch_size=4, sampler=items, collate_fn=loader.collate_fn)
        return score_views(model, Evaluation(batches, build_normalize(cfg), "fp32", alone, "error", "max"), "test")

    assert np.isfinite(score(range(17)).logits).all()
    with pytest.raises(RuntimeError, match="view 0 of video 5 was scored 2 times, not once"):
        score([*range(17), 5])
    with pytest.raises(RuntimeError, match="view 0 of video 16 was scored 0 times, not once"):
        score(range(16))
