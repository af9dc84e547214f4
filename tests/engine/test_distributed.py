"""Several processes: the same evaluation, the same training step, and clear errors."""

import json
import socket

import numpy as np
import pytest
from conftest import run_tool

from slowfast.utils.logging import read_events

pytestmark = pytest.mark.dist


def launcher(processes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ("-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}")


def test_evaluation_does_not_depend_on_the_number_of_processes(config, tmp_path):
    assert run_tool("train_net.py", "--cfg", config).returncode == 0
    found = []
    for processes in (1, 2, 3):
        tested = run_tool("test_net.py", "--cfg", config, launcher=launcher(processes))
        assert tested.returncode == 0, tested.stderr
        found.append(json.loads((tmp_path / "run" / "test_results.json").read_text()))
        # 17 videos x 2 clips x 3 crops do not divide by 2 or 3: nothing is padded or counted twice.
        assert (found[-1]["num_videos"], found[-1]["num_views"]) == (17, 102)
    assert found[0] == found[1] == found[2]


def test_two_processes_train_like_one(config, tmp_path):
    # Without batch norm's dependence on the share of a process (its statistics come from evaluation mode averages
    # only later), the first step of both runs sees the same videos and the same weights.
    losses = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        settings = ("OUTPUT_DIR", out, "SOLVER.MAX_EPOCH", 1, "LOG_PERIOD", 1, "MIXUP.ENABLE", False)
        trained = run_tool("train_net.py", "--cfg", config, *settings, launcher=launcher(processes))
        assert trained.returncode == 0, trained.stderr
        events = read_events(str(out), "train_epoch")
        losses.append([event["loss"] for event in events])
        (val,) = read_events(str(out), "val")
        assert val["num_videos"] == 17
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_batch_that_does_not_divide(config):
    failed = run_tool("train_net.py", "--cfg", config, "TRAIN.BATCH_SIZE", 7, launcher=launcher(2))
    assert failed.returncode != 0
    assert "TRAIN.BATCH_SIZE is 7" in failed.stderr and "multiple of the number of processes, 2" in failed.stderr
