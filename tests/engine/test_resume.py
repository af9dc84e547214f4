"""Runs that are killed or asked to end in the middle of an epoch, and go on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers_engine import ROOT
from test_distributed import launcher

from slowfast.utils.logging import read_events

# A training run as tools/train_net.py starts it. After every step it notes epoch, step and videos in a file; where
# VICTIM says so, something happens after that step.
SCRIPT = """
import json, os, signal, sys, time
from slowfast.engine import epoch as engine, run

steps = int(os.environ["FIRST_STEP"])
action, at = os.environ["VICTIM"].split(":")
take_step = engine.train_step

def noted_step(training, batch, *arguments):
    global steps
    result = take_step(training, batch, *arguments)
    if training.process.is_main or os.environ["VICTIM"] != "none:0":
        with open(os.environ["NOTES"] + f".{training.process.rank}", "a") as file:
            print(json.dumps([steps, sorted(set(batch.video_index.tolist()))]), file=file)
    steps += 1
    if steps == int(at):
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        if action == "worker":
            import multiprocessing
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
    return result

engine.train_step = noted_step
if action == "validation":
    from slowfast.engine import train
    train.validate = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(run.main(("train",), "test", sys.argv[1:]))
"""


def train(config, tmp_path, out, victim="none:0", first_step=0, processes=1, settings=()):
    """Run the script; return exit status, standard error and the notes of its processes."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    notes = tmp_path / f"{out.name}.{victim}.{first_step}.notes"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "VICTIM": victim, "FIRST_STEP": str(first_step), "NOTES": str(notes),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    start = launcher(processes) if processes > 1 else ()
    command = [sys.executable, *start, str(script), "--cfg", str(config), "OUTPUT_DIR", str(out), *map(str, settings)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    lines = [path.read_text().splitlines() for path in sorted(tmp_path.glob(f"{notes.name}.*"))]
    return finished.returncode, finished.stderr, [[json.loads(line) for line in share] for share in lines]


SETTINGS = (
    "SOLVER.MAX_EPOCH", 2, "TRAIN.BATCH_SIZE", 4, "LOG_PERIOD", 1, "TRAIN.EVAL_PERIOD", 2,
    "UNIFORMER.DROP_DEPTH_RATE", 0.3, "TRAIN.CHECKPOINT_STEPS", 2,
)  # fmt: skip


def newest_weights(out):
    return torch.load(out / "checkpoints" / "epoch_00002.pyth", weights_only=True)


def losses(out):
    """Return the loss of every step; of those that were taken twice, the last."""
    return {event["step"]: event["loss"] for event in read_events(str(out), "train_step")}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_the_middle_of_an_epoch(config, tmp_path, workers):
    settings = (*SETTINGS, "DATA_LOADER.NUM_WORKERS", workers)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    status, error, (expected,) = train(config, tmp_path, straight, settings=settings)
    assert status == 0, error
    assert [step for step, _ in expected] == list(range(12))

    # Killed after step 9 of 12, the third of the second epoch; the last checkpoint is that of step 8.
    status, _, (before,) = train(config, tmp_path, killed, "kill:9", settings=settings)
    assert status == -signal.SIGKILL
    status, error, (after,) = train(config, tmp_path, killed, first_step=8, settings=settings)
    assert status == 0, error

    # What remained of the epoch is visited once, and nothing else is.
    assert before == expected[:9] and after == expected[8:]
    second_epoch = [video for _, videos in before[6:8] + after for video in videos]
    assert sorted(second_epoch) == list(range(24))
    # Bit for bit: losses, weights, moments, batch-norm statistics, and the averages of the epoch.
    assert losses(killed) == losses(straight)
    for part in ("model_state", "optimizer_state"):
        torch.testing.assert_close(newest_weights(killed)[part], newest_weights(straight)[part], rtol=0, atol=0)
    averages = [
        [(event["epoch"], event["loss"], event["top1"]) for event in read_events(str(out), "train_epoch")]
        for out in (killed, straight)
    ]
    assert averages[0] == averages[1]


@pytest.mark.slow
def test_asked_to_end_it_saves_and_says_so(config, tmp_path):
    out = tmp_path / "run"
    settings = (*SETTINGS, "TRAIN.CHECKPOINT_STEPS", 0, "DATA_LOADER.NUM_WORKERS", 1)
    status, error, (before,) = train(config, tmp_path, out, "term:5", settings=settings)
    assert status == 143, error
    assert "after step 5 of 6 in epoch 1" in error and "the same command continues" in error
    assert (out / "checkpoints" / "epoch_00000_step_000005.pyth").exists()
    status, error, (after,) = train(config, tmp_path, out, first_step=5, settings=settings)
    assert status == 0, error
    assert [step for step, _ in before + after] == list(range(12))


@pytest.mark.slow
def test_an_epoch_whose_order_has_changed_begins_anew(config, tmp_path):
    """Its first steps with the old batch size, say, and its last with the new one would miss videos."""
    out = tmp_path / "run"
    settings = (*SETTINGS, "SOLVER.MAX_EPOCH", 1, "TRAIN.EVAL_PERIOD", 1)
    status, error, _ = train(config, tmp_path, out, "term:3", settings=settings)
    assert status == 143, error
    status, error, (after,) = train(config, tmp_path, out, settings=(*settings, "TRAIN.BATCH_SIZE", 6))
    assert status == 0, error
    assert sorted(video for _, videos in after for video in videos) == list(range(24))
    assert "epoch 1 begins anew, since its videos are in another order" in (out / "run.log").read_text()


@pytest.mark.slow
def test_asked_to_end_in_the_last_step_of_an_epoch(config, tmp_path):
    out = tmp_path / "run"
    settings = (*SETTINGS, "TRAIN.CHECKPOINT_STEPS", 0, "TRAIN.CHECKPOINT_PERIOD", 5)
    status, error, _ = train(config, tmp_path, out, "term:6", settings=settings)
    assert status == 143 and "stopped by a signal after epoch 1" in error, error
    assert (out / "checkpoints" / "epoch_00001.pyth").exists()
    assert not read_events(str(out), "val")


@pytest.mark.slow
@pytest.mark.dist
def test_one_of_two_processes_is_asked_to_end(config, tmp_path):
    # Both stop at the same step, and neither is left waiting for the other.
    out = tmp_path / "run"
    status, error, shares = train(config, tmp_path, out, "term:3", processes=2, settings=SETTINGS)
    assert status != 0 and "after step 3 of 6 in epoch 1" in error
    assert [len(share) for share in shares] == [3, 3]
    state = torch.load(out / "checkpoints" / "epoch_00000_step_000003.pyth", weights_only=True)
    assert state["progress"]["steps"] == 3
    status, error, (rest,) = train(config, tmp_path, out, first_step=3, settings=SETTINGS)  # in one process
    assert status == 0, error
    said = (out / "run.log").read_text()
    assert "1 processes go on with what 2 began: a step still has 4 videos, 4 per process" in said
    first_epoch = [video for share in shares for _, videos in share for video in videos]
    assert sorted(first_epoch + [video for _, videos in rest[:3] for video in videos]) == list(range(24))


def test_worker_that_is_killed_is_an_error_and_not_a_hang(config, tmp_path):
    started = time.monotonic()
    settings = (*SETTINGS, "DATA_LOADER.NUM_WORKERS", 2, "SOLVER.MAX_EPOCH", 50)
    status, error, _ = train(config, tmp_path, tmp_path / "run", "worker:2", settings=settings)
    assert status == 2
    assert "the data loader failed: DataLoader worker" in error and "DATA_LOADER.NUM_WORKERS" in error
    assert time.monotonic() - started < 120


def test_too_many_bad_videos_stop_the_run_at_once_and_are_named(config, tmp_path, data_dir):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    folders = [line.split()[0] for line in (broken / "train.txt").read_text().splitlines()]
    for folder in folders[:20]:
        (broken / folder / "00001.jpg").write_bytes(b"")
    settings = (*SETTINGS, "DATA.PATH_TO_DATA_DIR", broken, "DATA.NUM_FRAMES", 6, "DATA.MAX_BAD_SHARE", 0.1)
    status, error, shares = train(config, tmp_path, tmp_path / "run", settings=settings)
    assert status == 2
    assert "of 24 training videos cannot be decoded, more than DATA.MAX_BAD_SHARE 0.1 allows" in error
    assert "00001.jpg" in error and "Traceback" not in error
    assert sum(len(share) for share in shares) < 6  # before the end of the epoch


@pytest.mark.slow
def test_random_kills(tmp_path):
    # The short version; `python tests/engine/random_kills.py --kills 50` is the long one.
    script = ROOT / "tests" / "engine" / "random_kills.py"
    command = [sys.executable, str(script), "--kills", "3", "--epochs", "6", "--folder", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "3 kills: no tensors or losses differ" in finished.stdout


@pytest.mark.slow
def test_killed_while_it_validates_it_validates_first(config, tmp_path):
    out = tmp_path / "run"
    settings = (*SETTINGS, "TRAIN.EVAL_PERIOD", 1, "TRAIN.CHECKPOINT_STEPS", 0)
    status, error, _ = train(config, tmp_path, out, "validation:0", settings=settings)
    assert status == -signal.SIGKILL, error
    assert not read_events(str(out), "val")
    status, error, (after,) = train(config, tmp_path, out, first_step=6, settings=settings)
    assert status == 0, error
    assert [event["epoch"] for event in read_events(str(out), "val")] == [1, 2]
    assert [step for step, _ in after] == list(range(6, 12))  # nothing was trained again
    assert (out / "checkpoints" / "best.pyth").exists()
