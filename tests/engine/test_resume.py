"""Runs that are killed or asked to stop, and go on as if nothing had happened; runs that must not go on."""

import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from helpers_engine import ROOT, Killed, assert_same_end, die, state

from slowfast.config import get_cfg, load_cfg
from slowfast.datasets.loader import construct_loader, shut_down
from slowfast.engine import build
from slowfast.engine.checkpoint import changed_settings, list_checkpoints, read_newest, write_checkpoint
from slowfast.utils.errors import UserError
from slowfast.utils.logging import read_events

# Six steps in each of two epochs, a checkpoint after every second one, all kinds of random draws.
SETTINGS = (
    "TRAIN.BATCH_SIZE", 4, "LOG_PERIOD", 1, "TRAIN.EVAL_PERIOD", 2, "UNIFORMER.DROP_DEPTH_RATE", 0.3,
    "SOLVER.EMA_DECAY", 0.9, "TRAIN.CHECKPOINT_STEPS", 2,
)  # fmt: skip
LAST = "epoch_00002.pyth"
terminate = functools.partial(signal.raise_signal, signal.SIGTERM)


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory):
    """Folder in which the first test of the module leaves an uninterrupted run."""
    return tmp_path_factory.mktemp("straight") / "run"


def make_straight(run, folder):
    if not folder.exists():
        assert run(*SETTINGS, "OUTPUT_DIR", folder).status == 0
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_the_middle_of_an_epoch(run, steps, straight_run, tmp_path, workers):
    expected = make_straight(run, straight_run)
    steps.taken.clear()
    steps.at[9] = die  # the third step of the second epoch; the last checkpoint is that of step 8
    with pytest.raises(Killed):
        run(*SETTINGS, "DATA_LOADER.NUM_WORKERS", workers)
    resumed = run(*SETTINGS, "DATA_LOADER.NUM_WORKERS", workers)
    assert resumed.status == 0 and "1 epochs and 2 steps done" in resumed.out
    # What remained of the epoch is visited once, and nothing else is.
    assert [taken[:2] for taken in steps.taken[9:]] == [(1, step) for step in range(2, 6)]
    second_epoch = [video for _, _, videos in steps.taken[6:8] + steps.taken[9:] for video in videos]
    assert sorted(second_epoch) == list(range(24))
    assert_same_end(tmp_path / "run", expected, LAST)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_says_so(run, steps, straight_run, tmp_path, number, status):
    expected = make_straight(run, straight_run)
    steps.taken.clear()
    steps.at[5] = functools.partial(signal.raise_signal, number)
    stopped = run(*SETTINGS, "TRAIN.CHECKPOINT_STEPS", 0, "LOG_PERIOD", 100)
    assert stopped.status == status
    assert "after step 5 of 6 in epoch 1; the same command continues" in stopped.err
    assert state(tmp_path / "run", "epoch_00000_step_000005.pyth")["step"] == 5
    assert run(*SETTINGS).status == 0
    assert len(steps.taken) == 12
    assert torch.equal(*(state(out, LAST)["model_state"]["head.weight"] for out in (tmp_path / "run", expected)))


def test_asked_to_stop_in_the_last_step_of_an_epoch(run, steps, tmp_path):
    steps.at[6] = terminate
    stopped = run(*SETTINGS, "TRAIN.CHECKPOINT_STEPS", 0, "TRAIN.CHECKPOINT_PERIOD", 5)
    assert stopped.status == 143 and "stopped by a signal after epoch 1" in stopped.err
    assert state(tmp_path / "run", "epoch_00001.pyth")["epoch"] == 1


def test_killed_while_it_validates_it_validates_first(run, steps, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(build, "validate", die)
        run(*SETTINGS, "TRAIN.EVAL_PERIOD", 1)
    assert not read_events(str(tmp_path / "run"), "val")
    assert run(*SETTINGS, "TRAIN.EVAL_PERIOD", 1).status == 0
    assert [event["epoch"] for event in read_events(str(tmp_path / "run"), "val")] == [1, 2]
    assert len(steps.taken) == 12  # nothing was trained again
    assert (tmp_path / "run" / "checkpoints" / "best.pyth").exists()


def test_stop_during_a_validation_acts_at_once(run, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "validate", lambda *_: terminate())
    stopped = run(*SETTINGS, "TRAIN.EVAL_PERIOD", 1)
    assert stopped.status == 143 and "while it validated after epoch 1" in stopped.err
    assert not state(tmp_path / "run", "epoch_00001.pyth")["is_validated"]


@pytest.mark.slow
def test_a_signal_to_the_whole_group_leaves_a_checkpoint(config, tmp_path):
    # As schedulers and Ctrl-C do: the workers of the loader get it too.
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--cfg", config, *map(str, SETTINGS)]
    command += ["SOLVER.MAX_EPOCH", "4000", "DATA_LOADER.NUM_WORKERS", "2", "TRAIN.CHECKPOINT_STEPS", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    for line in process.stdout:
        if line.startswith("epoch 3"):
            os.killpg(process.pid, signal.SIGTERM)
            break
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command continues" in error, error
    assert read_newest(str(tmp_path / "run"))[1]["epoch"] >= 2


@pytest.mark.slow
def test_random_kills(tmp_path):
    # The short version; `python tests/engine/random_kills.py --kills 50` is the long one.
    script = ROOT / "tests" / "engine" / "random_kills.py"
    command = [sys.executable, str(script), "--kills", "2", "--epochs", "3", "--folder", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "2 kills: no tensors or losses differ" in finished.stdout


def test_a_lost_worker_is_an_error_and_not_a_hang(run, steps):
    def kill_workers():
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)

    steps.at[1] = kill_workers
    failed = run(*SETTINGS, "DATA_LOADER.NUM_WORKERS", 2, "SOLVER.MAX_EPOCH", 50)
    assert failed.status == 2
    assert "the data loader failed: DataLoader worker" in failed.err and "DATA_LOADER.NUM_WORKERS" in failed.err


def test_workers_end_with_their_loader_even_if_they_hear_no_signal(config):
    loader = construct_loader(load_cfg(str(config), ["DATA_LOADER.NUM_WORKERS", "1"]), "train")
    next(iter(loader))
    (worker,) = loader._iterator._workers
    os.kill(worker.pid, signal.SIGSTOP)  # as if it hung in native code
    loader._iterator._workers[0].join = lambda timeout=None: None
    shut_down(loader)
    assert os.waitpid(worker.pid, 0)[1] == signal.SIGKILL


def test_damaged_newest_gives_way_to_the_one_before(run, straight_run, tmp_path):
    expected = make_straight(run, straight_run)
    shutil.copytree(expected, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / LAST
    newest.write_bytes(newest.read_bytes()[:10_000])
    resumed = run(*SETTINGS)
    assert resumed.status == 0 and "trying the checkpoint before it" in resumed.out
    found, wanted = (state(out, LAST)["model_state"] for out in (tmp_path / "run", expected))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    for path in list_checkpoints(str(tmp_path / "run")):
        open(path, "wb").close()
    assert "none of the checkpoints" in run(*SETTINGS).err
    torch.save({"model": {}}, newest)
    assert "is no checkpoint of a run, it has no cfg: move it away" in run(*SETTINGS).err


def test_checkpoints_are_written_whole_and_the_newest_are_kept(run, tmp_path, monkeypatch):
    assert run(*SETTINGS, "SOLVER.MAX_EPOCH", 1).status == 0
    names = sorted(os.listdir(tmp_path / "run" / "checkpoints"))
    assert names == ["best.pyth", "epoch_00000_step_000004.pyth", "epoch_00001.pyth"]

    def fail(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"epoch_00002.pyth could not be written.*No space left"):
        write_checkpoint(str(tmp_path / "run"), "epoch_00002.pyth", {})
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == names
    # Best weights without their run are not overwritten.
    for path in list_checkpoints(str(tmp_path / "run")):
        os.remove(path)
    refused = run("SOLVER.MAX_EPOCH", 1)
    assert refused.status == 2 and "best.pyth is of another run" in refused.err


def test_nothing_of_another_model_is_overwritten(run, steps, tmp_path):
    out, foreign = tmp_path / "run", tmp_path / "other" / "checkpoints" / "best.pyth"
    steps.at[2] = die  # before the first checkpoint
    with pytest.raises(Killed):
        run(*SETTINGS)
    assert run(*SETTINGS, "SOLVER.BASE_LR", 2e-3, "SOLVER.MAX_EPOCH", 1, tasks=("train", "test")).status == 0
    assert [event["step"] for event in read_events(str(out), "train_step")] == [1, 2, 3, 4, 5, 6]
    assert (out / "log.old.jsonl").read_text().count("train_step") == 1
    assert run("OUTPUT_DIR", tmp_path / "other", "SOLVER.MAX_EPOCH", 1).status == 0
    before = (out / "test_results.json").read_bytes()
    refused = run("TEST.CHECKPOINT_FILE_PATH", foreign, tasks=("test",))
    assert refused.status == 2 and "has results of another model" in refused.err
    shutil.rmtree(out / "checkpoints")
    refused = run("SOLVER.MAX_EPOCH", 1)
    assert refused.status == 2 and "test_results.json is of another run or of other weights" in refused.err
    assert (out / "test_results.json").read_bytes() == before


def test_other_settings_or_data_are_no_continuation(run, tmp_path, data_dir):
    first = (*SETTINGS, "SOLVER.MAX_EPOCH", 1)
    assert run(*first).status == 0
    best = (tmp_path / "run" / "checkpoints" / "best.pyth").stat().st_mtime_ns
    for settings, words in (
        (("SOLVER.BASE_LR", 5e-4), "SOLVER.BASE_LR: 0.001 -> 0.0005"),
        (("AUG.RE_PROB", 0.0, "EMIM.LAST_FRAME", "self"), "EMIM.LAST_FRAME: repeat -> self"),
    ):
        kept = (tmp_path / "run" / "config.yaml").read_text()
        refused = run(*first, *settings)
        assert refused.status == 2 and words in refused.err
        assert (tmp_path / "run" / "config.yaml").read_text() == kept
        assert "another OUTPUT_DIR" in refused.err and "TRAIN.RESUME_CHANGED True" in refused.err
    other = tmp_path / "other"
    shutil.copytree(data_dir, other)
    lines = (other / "train.txt").read_text().splitlines()
    (other / "train.txt").write_text("\n".join([*lines[1:], lines[0]]))
    assert "videos or labels of the training list" in run(*first, "DATA.PATH_TO_DATA_DIR", other).err
    (other / "train.txt").write_text("\n".join(lines))
    assert run(*first, "DATA.PATH_TO_DATA_DIR", other).status == 0  # the same lists in another place
    videos = (other / "val.txt").read_text().splitlines()
    (other / "val.txt").write_text("\n".join(videos[1:]))
    assert "videos of the validation list" in run(*first, "DATA.PATH_TO_DATA_DIR", other).err
    (other / "val.txt").write_text("\n".join(videos))
    names = (other / "classes.txt").read_text().splitlines()
    (other / "classes.txt").write_text("\n".join(reversed(names)))
    assert "class names or their order" in run(*first, "DATA.PATH_TO_DATA_DIR", other).err
    assert (tmp_path / "run" / "checkpoints" / "best.pyth").stat().st_mtime_ns == best
    # More epochs are meant to be possible, and what is asked for explicitly.
    changed = run(*SETTINGS, "SOLVER.BASE_LR", 5e-4, "SOLVER.WEIGHT_DECAY", 0.5, "TRAIN.RESUME_CHANGED", True)
    assert changed.status == 0 and "changed since the checkpoint: SOLVER.MAX_EPOCH: 1 -> 2" in changed.out
    groups = state(tmp_path / "run", LAST)["optimizer_state"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


def test_keys_that_came_later_had_their_defaults():
    assert changed_settings("SOLVER: {MAX_EPOCH: 3}\nGONE: 1\n", get_cfg().dump()) == [
        "GONE: 1 -> not set",
        "SOLVER.MAX_EPOCH: 3 -> 60",
    ]


def test_an_epoch_whose_steps_have_changed_begins_anew(run, steps, tmp_path):
    steps.at[3] = terminate
    assert run(*SETTINGS, "SOLVER.MAX_EPOCH", 1, "TRAIN.BATCH_SIZE", 4).status == 143
    settings = (*SETTINGS, "SOLVER.MAX_EPOCH", 1, "TRAIN.BATCH_SIZE", 6, "TRAIN.RESUME_CHANGED", True)
    steps.at[4] = terminate
    changed = run(*settings)
    assert changed.status == 143 and "epoch 1 begins anew" in changed.out
    # The steps of before look newer than the one after which this run was stopped.
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["epoch_00000_step_000001.pyth"]
    again = run(*settings)
    assert again.status == 0 and "begins anew" not in again.out
    assert sorted(video for _, _, videos in steps.taken[3:] for video in videos) == list(range(24))


def test_other_optimizers_and_architectures_are_refused(run):
    assert run("SOLVER.MAX_EPOCH", 1).status == 0
    changed = ("TRAIN.RESUME_CHANGED", True, "SOLVER.MAX_EPOCH", 2)
    assert "another optimizer" in run(*changed, "SOLVER.OPTIMIZING_METHOD", "sgd").err
    assert "another optimizer" in run(*changed, "SOLVER.LAYER_DECAY", 0.5).err
    # By their numbers and sizes these moments would fit.
    assert "moments of other parameters, MODEL.FREEZE: [] -> " in run(*changed, "MODEL.FREEZE", "[head.bias]").err
    for tasks in (("train",), ("test",)):
        wider = run(*changed, "UNIFORMER.EMBED_DIM", "[8, 8, 16, 32]", tasks=tasks)
        assert wider.status == 2 and "checkpoint of another architecture" in wider.err


def test_mixed_precision_trains_on_cpu_and_may_change(run, tmp_path):
    assert run("SOLVER.MAX_EPOCH", 1, "TRAIN.PRECISION", "bf16").status == 0
    resumed = run("TRAIN.PRECISION", "fp16")
    assert resumed.status == 0 and "was not trained in fp16: the loss scale starts at 65536" in resumed.out
    for event in read_events(str(tmp_path / "run"), "train_epoch"):
        assert 2 < event["loss"] < 3 and 50 < event["peak_memory_mib"] < 10_000


def test_one_run_per_folder(run, tmp_path):
    hold = (
        "import sys; from slowfast.engine.run import _output_dir\nwith _output_dir(sys.argv[1], True): print(); input()"
    )
    command, pipes = (
        [sys.executable, "-c", hold, tmp_path / "run"],
        {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
    )
    with subprocess.Popen(command, cwd=ROOT, **pipes) as holder:
        holder.stdout.read(1)
        refused = run()
        holder.kill()
    assert refused.status == 2 and f"is in use by another run (process {holder.pid} on" in refused.err
    assert run("SOLVER.MAX_EPOCH", 1).status == 0  # the lock ends with its process


def test_tensorboard_shows_each_step_once_after_a_kill(run, steps, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = (*SETTINGS, "TENSORBOARD.ENABLE", True, "TRAIN.CHECKPOINT_STEPS", 4)
    steps.at[6] = die  # five steps are drawn, the checkpoint is that of the fourth
    with pytest.raises(Killed):
        run(*settings)
    assert run(*settings, tasks=("train", "test")).status == 0
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train_step/loss")] == list(range(1, 13))
    assert [event["step"] for event in read_events(str(tmp_path / "run"), "val")] == [12]
