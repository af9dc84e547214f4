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


@pytest.mark.parametrize(
    ("options", "processes"),
    # Tasks on one node and on two, and a task per node that starts its processes.
    [(["--nodes=1", "--ntasks=2"], 2), (["--nodes=2", "--ntasks=2"], 2), (["--nodes=2", "--ntasks-per-node=1"], 4)],
)
def test_tasks_of_a_step_are_one_run(cluster, config, options, processes):
    tool = ["bash", "exp/launch.sh", "tools/run_net.py", "--cfg", str(config), "SOLVER.MAX_EPOCH", "1"]
    environment = {**cluster, "NPROC_PER_NODE": str(processes // 2)}
    command = ["srun", "--kill-on-bad-exit=1", *options, *tool]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"rank 0 of world size {processes} (master 127.0.0.1:" in finished.stdout
    assert len(re.findall(r"^  rank \d: .*pid", finished.stdout, re.MULTILINE)) == processes
    found = json.loads((config.parent / "run" / "test_results.json").read_text())
    assert (found["num_videos"], found["num_views"]) == (17, 102)


def test_batch_script_of_the_manual_is_put_back_into_the_queue_and_goes_on(cluster, config, tmp_path):
    script = tmp_path / "job.sh"
    (text,) = re.findall(r"```bash\n(#!.*?)```", (ROOT / "exp" / "README.md").read_text(), re.DOTALL)
    # This cluster has two nodes of four CPUs, and no GPUs. What the command line says counts more than the script.
    text = re.sub(r"#SBATCH --(gpus|cpus|ntasks|nodes).*\n", "", text)
    script.write_text(text.replace("exp/quickstart/config.yaml", str(config)))
    log, out = tmp_path / "job.log", tmp_path / "run"
    settings = ("SOLVER.MAX_EPOCH", "20", "TRAIN.BATCH_SIZE", "2", "TRAIN.EVAL_PERIOD", "20", "LOG_PERIOD", "1")
    command = ["sbatch", "--parsable", "--nodes=1", "--ntasks=2", f"--output={log}", str(script), *settings]
    job = subprocess.run(command, cwd=ROOT, env=cluster, capture_output=True, text=True, check=True).stdout.strip()

    # At the beginning of an epoch of twelve steps: its last step and what follows have no next step to save before.
    wait_for(lambda: len(read_events(out, "train_step")) % 12 in (2, 3, 4), log)
    subprocess.run(["scancel", "--signal=TERM", job], env=cluster, check=True)
    wait_for(lambda: (out / "test_results.json").exists(), log)
    wait_for(lambda: "JobState=COMPLETED" in show(cluster, job), log)
    assert "Restarts=1" in show(cluster, job), log.read_text()
    assert "stopped by a signal after step" in log.read_text() and "resumed from" in log.read_text()
    assert [event["step"] for event in read_events(out, "train_step")] == list(range(1, 241))  # none lost, none twice


def show(cluster, job):
    return subprocess.run(["scontrol", "show", "job", job], env=cluster, capture_output=True, text=True).stdout


def wait_for(is_true, log, timeout_sec=200):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        assert time.monotonic() < deadline, log.read_text() if os.path.exists(log) else "the job has not begun"
        time.sleep(0.05)
