"""Several processes: the same gradients, the same evaluation, and clear errors."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_engine import ROOT, run_tool
from torch.utils.data import DataLoader

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.finish import build_finish
from slowfast.datasets.loader import construct_loader
from slowfast.engine.evaluate import score_views
from slowfast.models import build_model
from slowfast.utils.distributed import Process
from slowfast.utils.logging import read_events

pytestmark = pytest.mark.dist

# One training step on eight clips shared by all processes; batch norms use their running statistics, because those of
# a batch would depend on the share of each process. Saves the gradients of the
# main process.
STEP = """
import sys
import numpy as np, torch
from slowfast.config.defaults import get_cfg
from slowfast.datasets.loader import Batch
from slowfast.datasets.augment.mixup import Mixup
from slowfast.engine.step import Training, parallel_model, train_step
from slowfast.models import build_model
from slowfast.utils.distributed import process_group

cfg = get_cfg()
cfg.merge_from_list(["UNIFORMER.EMBED_DIM", [8, 8, 16, 16], "UNIFORMER.DEPTH", [1, 1, 2, 1], "UNIFORMER.HEAD_DIM", 8,
                     "UNIFORMER.DROP_DEPTH_RATE", 0.0, "MODEL.NUM_CLASSES", 5, "EMIM.WINDOW", [3, 3]])
with process_group("cpu", timeout_min=1.0) as process:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    clips, labels = torch.randn(8, 3, 4, 32, 32), torch.arange(8) % 5
    share = slice(process.rank, None, process.world_size)
    batch = Batch(clips[share], labels[share], labels[share], labels[share])
    training = Training(
        model=parallel_model(model, process), optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        scaler=torch.amp.GradScaler("cpu", enabled=False), schedule=None,
        finish=lambda clips, remainders: clips, mixup=Mixup(0, 0, 0.0, 0.5, 0.1, 5),
        process=process, recorder=None, precision="fp32", clip_gradient=0.0,
        clips_per_step=8 // process.world_size, micro_batch_size=int(sys.argv[2]), log_period=1, seed=0,
    )
    train_step(training, batch, np.random.default_rng(0))
    if process.is_main:
        torch.save({name: parameter.grad for name, parameter in model.named_parameters()}, sys.argv[1])
"""

# Tests the best checkpoint in groups of 1 to 4 processes with several batch sizes, each into a folder of its own. The
# processes are forked, because torch takes longer to import than the test to run.
EVALUATE = """
import multiprocessing, os, sys
from slowfast.config.defaults import get_cfg
from slowfast.engine.record import Recorder
from slowfast.engine.test import test
from slowfast.utils.distributed import process_group

def evaluate(rank, world_size, config, port, batch_sizes):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with process_group("cpu", timeout_min=1.0) as process:
        for batch_size in batch_sizes:
            cfg = get_cfg()
            cfg.merge_from_file(config)
            folder = os.path.join(cfg.OUTPUT_DIR, f"{world_size}_{batch_size}")
            os.makedirs(folder, exist_ok=True)
            cfg.merge_from_list([
                "TEST.CHECKPOINT_FILE_PATH", os.path.join(cfg.OUTPUT_DIR, "checkpoints", "best.pyth"),
                "TEST.BATCH_SIZE", batch_size, "TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 3,
                "OUTPUT_DIR", folder,
            ])
            test(cfg, process, Recorder(folder, process.is_main, tensorboard=False))

_, config, port, *batch_sizes = sys.argv
fork = multiprocessing.get_context("fork")
for world_size in (1, 2, 3, 4):
    arguments = world_size, config, str(int(port) + world_size), list(map(int, batch_sizes))
    processes = [fork.Process(target=evaluate, args=(rank, *arguments)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher(processes):
    return ("-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={free_port()}")


def test_gradients_are_those_of_one_process(tmp_path):
    (tmp_path / "step.py").write_text(STEP)
    gradients = []
    # At once, in two processes, and in two processes that accumulate passes of three clips.
    for processes, micro_batch_size in ((1, 0), (2, 0), (2, 3)):
        path = tmp_path / f"{processes}_{micro_batch_size}.pt"
        command = [sys.executable, *launcher(processes), str(tmp_path / "step.py"), str(path), str(micro_batch_size)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert finished.returncode == 0, finished.stderr
        gradients.append(torch.load(path, weights_only=True))
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values())
    for found in gradients[1:]:
        for name, expected in gradients[0].items():
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-7, msg=name)


def test_evaluation_does_not_depend_on_the_number_of_processes(config, tmp_path):
    assert run_tool("train_net.py", "--cfg", config, launcher=launcher(2)).returncode == 0
    (val, _) = read_events(str(tmp_path / "run"), "val")
    assert val["num_videos"] == 17
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    batch_sizes, found = (4, 1), {}
    command = [sys.executable, str(tmp_path / "evaluate.py"), str(config), str(free_port()), *map(str, batch_sizes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    for processes in (1, 2, 3, 4):
        for size in batch_sizes:
            folder = tmp_path / "run" / f"{processes}_{size}"
            results = json.loads((folder / "test_results.json").read_text())
            results["config"] = results["config"].replace(str(folder), "")
            with np.load(folder / "test_scores.npz") as file:
                logits = file["logits"]
            found[processes, size] = results, (folder / "per_class_accuracy.csv").read_text(), logits
    for size in batch_sizes:
        results, per_class, logits = found[1, size]
        # 17 videos x 3 views in batches of 4 do not divide by 2, 3 or 4 processes: nothing is padded or counted twice.
        assert (results["num_videos"], results["num_views"], logits.shape) == (17, 51, (17, 3, 12))
        assert np.isfinite(logits).all()
        for processes in (2, 3, 4):
            other_results, other_per_class, other_logits = found[processes, size]
            # Accuracies, intervals and all else, to the last digit.
            assert (other_results, other_per_class) == (results, per_class)
            np.testing.assert_allclose(other_logits, logits, rtol=1e-5, atol=1e-6)
            if size == 1:  # every pass of the network then has the same size
                np.testing.assert_array_equal(other_logits, logits)


def test_a_view_that_is_scored_twice_or_never_is_an_error(config):
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    loader, model, alone = construct_loader(cfg, "val"), build_model(cfg), Process(0, 1, 0, torch.device("cpu"))

    def score(items):
        batches = DataLoader(loader.dataset, batch_size=4, sampler=items, collate_fn=loader.collate_fn)
        return score_views(model, batches, build_finish(cfg, "val"), alone, "fp32", "error", "test")

    assert np.isfinite(score(range(17)).logits).all()
    with pytest.raises(RuntimeError, match=r"1 views were not scored exactly once, .* view 0 of video 5 \(2 times\)"):
        score([*range(17), 5])
    with pytest.raises(RuntimeError, match=r"1 views were not scored exactly once, .* view 0 of video 16 \(0 times\)"):
        score(range(16))


def test_batch_that_does_not_divide(config):
    failed = run_tool("train_net.py", "--cfg", config, "TRAIN.BATCH_SIZE", 7, launcher=launcher(2))
    assert failed.returncode != 0
    assert "TRAIN.BATCH_SIZE is 7" in failed.stderr and "multiple of the number of processes, 2" in failed.stderr


# A training run whose batch norms use their running statistics, since those of a batch depend on each process's share.
FROZEN_NORMS = """
import sys
import torch
from slowfast.engine.run import main

norm = torch.nn.modules.batchnorm._BatchNorm
norm.train = lambda self, mode=True: torch.nn.Module.train(self, False)
sys.exit(main(("train",), "test", sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("static_graph", [False, True])
def test_losses_do_not_depend_on_the_number_of_processes(config, tmp_path, static_graph):
    script = tmp_path / "frozen.py"
    script.write_text(FROZEN_NORMS)
    # Mixing pairs the clips of one process, and would differ too.
    settings = ["TRAIN.BATCH_SIZE", "12", "MIXUP.ENABLE", "False", "UNIFORMER.DROP_DEPTH_RATE", "0.0"]
    settings += ["DIST.STATIC_GRAPH", str(static_graph), "SOLVER.MAX_EPOCH", "3", "TRAIN.EVAL_PERIOD", "3"]
    losses = []
    for processes in (1, 2, 3, 4) if not static_graph else (1, 2):
        out = tmp_path / f"run{processes}"
        command = [sys.executable, *launcher(processes), str(script), "--cfg", str(config), "OUTPUT_DIR", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        finished = subprocess.run([*command, *settings], capture_output=True, text=True, timeout=300, env=environment)
        assert finished.returncode == 0, finished.stderr
        losses.append([event["loss"] for event in read_events(str(out), "train_epoch")])
    assert len(losses[0]) == 3 and losses[0][0] != losses[0][2]
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-5)
