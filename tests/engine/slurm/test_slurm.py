"""Runs under a real SLURM, of two nodes on this machine; skipped where it is not installed or does not start."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time

import pytest
from helpers_engine import ROOT
from slurm_cluster import Unavailable, slurm_cluster

from slowfast.utils.logging import read_events

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.fixture(scope="module")
def cluster():
    """Environment in which srun and sbatch work, and launch.sh takes this Python."""
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        try:
            with slurm_cluster(folder) as environment:
                # Variables of a SLURM job or torchrun that these tests themselves run in are not those of the cluster.
                clean = {k: v for k, v in environment.items() if k == "SLURM_CONF" or not k.startswith("SLURM_")}
                yield {**clean, "PY": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        except Unavailable as error:
            pytest.skip(str(error))


def srun(cluster, config, *options, **environment):
    tool = ["bash", "exp/launch.sh", "tools/run_net.py", "--cfg", str(config), "SOLVER.MAX_EPOCH", "1"]
    finished = subprocess.run(
        ["srun", "--kill-on-bad-exit=1", *options, *tool],
        cwd=ROOT, env={**cluster, **environment}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def results(config):
    found = json.loads((config.parent / "run" / "test_results.json").read_text())
    return found["num_videos"], found["num_views"]


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_every_task_is_a_process(cluster, config, nodes):
    printed = srun(cluster, config, f"--nodes={nodes}", "--ntasks=2")
    assert re.search(r"rank 0 of world size 2 \(master 127\.0\.0\.1:\d+\)", printed), printed
    assert len(re.findall(r"^  rank [01]: .*pid", printed, re.MULTILINE)) == 2
    assert results(config) == (17, 102)


def test_one_task_per_node_starts_its_processes(cluster, config):
    printed = srun(cluster, config, "--nodes=2", "--ntasks-per-node=1", NPROC_PER_NODE="2")
    assert "rank 0 of world size 4 (master 127.0.0.1:" in printed
    assert results(config) == (17, 102)


def test_batch_script_of_the_manual_is_put_back_into_the_queue_and_goes_on(cluster, config, tmp_path):
    script = tmp_path / "job.sh"
    (text,) = re.findall(r"```bash\n(#!.*?)```", (ROOT / "exp" / "README.md").read_text(), re.DOTALL)
    # This cluster has two nodes of four CPUs, and no GPUs. What the command line says counts more than the script.
    text = re.sub(r"#SBATCH --(gpus|cpus|ntasks|nodes).*\n", "", text)
    script.write_text(text.replace("exp/quickstart/config.yaml", str(config)))
    log, out = tmp_path / "job.log", tmp_path / "run"
    settings = ("SOLVER.MAX_EPOCH", "20", "TRAIN.BATCH_SIZE", "2", "TRAIN.EVAL_PERIOD", "20", "LOG_PERIOD", "1")
    command = ["sbatch", "--parsable", "--nodes=1", "--ntasks=2", f"--output={log}", str(script), *settings]
    submitted = subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True, check=False)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()

    # At the beginning of an epoch of twelve steps: its last step and what follows have no next step to save before.
    wait_for(lambda: len(read_events(str(out), "train_step")) % 12 in (2, 3, 4), log)
    subprocess.run(["scancel", "--signal=TERM", job], env=cluster, check=True)
    wait_for(lambda: (out / "test_results.json").exists(), log)
    wait_for(lambda: "JobState=COMPLETED" in show(cluster, job), log)
    printed = log.read_text()
    assert "Restarts=1" in show(cluster, job), printed
    assert "stopped by a signal after step" in printed and "resumed from" in printed
    steps = [event["step"] for event in read_events(str(out), "train_step")]
    assert steps == list(range(1, 241))  # none lost, none twice


def show(cluster, job):
    return subprocess.run(["scontrol", "show", "job", job], env=cluster, capture_output=True, text=True).stdout


def wait_for(is_true, log, timeout_sec=200):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        assert time.monotonic() < deadline, log.read_text() if os.path.exists(log) else "the job has not begun"
        time.sleep(0.05)
