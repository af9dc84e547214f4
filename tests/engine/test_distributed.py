"""Several processes: the same gradients, the same evaluation, and clear errors."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from helpers_engine import ROOT, run_tool

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
from slowfast.datasets.mixup import Mixup
from slowfast.engine.train import Training, parallel_model, train_step
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
        scaler=torch.amp.GradScaler("cpu", enabled=False), schedule=None, mixup=Mixup(0, 0, 0.0, 0.5, 0.1, 5),
        process=process, recorder=None, precision="fp32", clip_gradient=0.0,
        clips_per_step=8 // process.world_size, micro_batch_size=int(sys.argv[2]), log_period=1,
    )
    train_step(training, batch, np.random.default_rng(0))
    if process.is_main:
        torch.save({name: parameter.grad for name, parameter in model.named_parameters()}, sys.argv[1])
"""


def launcher(processes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ("-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}")


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
    found = []
    for processes in (1, 3):
        tested = run_tool("test_net.py", "--cfg", config, launcher=launcher(processes))
        assert tested.returncode == 0, tested.stderr
        found.append(json.loads((tmp_path / "run" / "test_results.json").read_text()))
    # 17 videos x 2 clips x 3 crops do not divide by 3 processes: nothing is padded, nothing counted twice.
    assert (found[0]["num_videos"], found[0]["num_views"]) == (17, 102)
    assert found[0] == found[1]


def test_batch_that_does_not_divide(config):
    failed = run_tool("train_net.py", "--cfg", config, "TRAIN.BATCH_SIZE", 7, launcher=launcher(2))
    assert failed.returncode != 0
    assert "TRAIN.BATCH_SIZE is 7" in failed.stderr and "multiple of the number of processes, 2" in failed.stderr
