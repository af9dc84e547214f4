"""What a training computes, guards and records."""

import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_engine import Killed, assert_same_end, die, results, state
from PIL import Image

import slowfast
from slowfast.engine import build, train
from slowfast.engine.checkpoint import starting_weights
from slowfast.engine.record import EVENTS, Recorder
from slowfast.models.losses import binary_cross_entropy
from slowfast.utils import distributed
from slowfast.utils.errors import UserError
from slowfast.utils.logging import read_events
from slowfast.utils.pictures import describe_target, draw_batch, write_png

ONE_EPOCH = ("SOLVER.MAX_EPOCH", 1)


@pytest.fixture
def poison(monkeypatch):
    """Give the clips of some steps, counted from 0, no finite value."""
    accumulate = train.accumulate_gradients

    def poison(is_poisoned):
        calls = []

        def poisoned(state, clips, *arguments):
            calls.append(1)
            return accumulate(state, clips * (float("nan") if is_poisoned(len(calls) - 1) else 1.0), *arguments)

        monkeypatch.setattr(train, "accumulate_gradients", poisoned)

    return poison


def test_averaged_weights_are_the_average_and_are_evaluated_and_tested(run, tmp_path):
    settings = (*ONE_EPOCH, "SOLVER.EMA_DECAY", 0.5, "TRAIN.CHECKPOINT_STEPS", 1, "TRAIN.KEEP_CHECKPOINTS", 9)
    assert run(*settings, tasks=("train", "test")).status == 0
    names = [f"epoch_00000_step_{step:06d}.pyth" for step in (1, 2)] + ["epoch_00001.pyth"]
    checkpoints = [state(tmp_path / "run", name) for name in names]
    weights = [checkpoint["model_state"]["head.weight"] for checkpoint in checkpoints]
    average = weights[0]
    for weight in weights[1:]:
        average = 0.5 * average + 0.5 * weight
    torch.testing.assert_close(checkpoints[-1]["ema_state"]["head.weight"], average)
    # Statistics of batch norms are those of the model.
    name = "norm.running_var"
    assert torch.equal(checkpoints[-1]["ema_state"][name], checkpoints[-1]["model_state"][name])
    assert [len(read_events(str(tmp_path / "run"), event)) for event in ("val", "val_ema")] == [1, 1]
    assert results(tmp_path / "run")["weights"] == "model"
    assert run(*settings, "TEST.WEIGHTS", "ema", tasks=("test",)).status == 0
    assert results(tmp_path / "run")["weights"] == "ema"
    loaded = slowfast.load_model(tmp_path / "run").model.state_dict()  # as it was tested last
    torch.testing.assert_close(loaded, checkpoints[-1]["ema_state"])
    assert run(*ONE_EPOCH, "OUTPUT_DIR", tmp_path / "raw").status == 0
    raw = run(*ONE_EPOCH, "OUTPUT_DIR", tmp_path / "raw", "TEST.WEIGHTS", "ema", tasks=("test",))
    assert raw.status == 2 and "has no averaged weights" in raw.err


def test_sgd_with_layer_decay(run, tmp_path):
    assert run("SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.LAYER_DECAY", 0.5, *ONE_EPOCH).status == 0
    groups = state(tmp_path / "run", "epoch_00001.pyth")["optimizer_state"]["param_groups"]
    assert all("momentum" in group for group in groups)
    rates = {group["lr_scale"]: group["lr"] for group in groups}
    assert max(rates) == 1 and all(rate == pytest.approx(scale * rates[1]) for scale, rate in rates.items())


def test_frozen_parameters_and_their_statistics_stay(run, steps, tmp_path):
    settings = ("MODEL.FREEZE", "[patch_embed*, 'blocks[12].*', norm.bias]", "SOLVER.LAYER_DECAY", 0.5)
    settings += ("SOLVER.EMA_DECAY", 0.9, "TRAIN.CHECKPOINT_STEPS", 1, "TRAIN.KEEP_CHECKPOINTS", 9, "LOG_PERIOD", 1)
    straight = tmp_path / "straight"
    assert run(*settings, "OUTPUT_DIR", straight).status == 0
    first, last = (state(straight, name) for name in ("epoch_00000_step_000001.pyth", "epoch_00002.pyth"))
    for name, tensor in last["model_state"].items():
        is_frozen = name.startswith(("patch_embed", "blocks1", "blocks2")) or name == "norm.bias"
        assert torch.equal(tensor, first["model_state"][name]) == is_frozen, name
        assert not is_frozen or torch.equal(tensor, last["ema_state"][name])
    steps.taken.clear()
    steps.at[5] = die
    with pytest.raises(Killed):
        run(*settings)
    assert run(*settings).status == 0
    assert_same_end(tmp_path / "run", straight, "epoch_00002.pyth")


def test_training_ends_when_it_gets_no_better(run, monkeypatch, tmp_path):
    accuracies = iter([50.0, 60.0, 60.0, 55.0, 10.0])
    monkeypatch.setattr(build, "validate", lambda *_: next(accuracies))
    settings = ("SOLVER.MAX_EPOCH", 9, "TRAIN.BATCH_SIZE", 24, "TENSORBOARD.IMAGES_PERIOD", 0)
    assert run(*settings, "SOLVER.STOP_AFTER", 1).status == 0
    assert [event["epoch"] for event in read_events(str(tmp_path / "run"), "train_epoch")] == [1, 2, 3]
    ended = run(*settings, "SOLVER.STOP_AFTER", 2)  # of which the checkpoint has counted one
    assert ended.status == 0 and "training ends after epoch 4: the last 2 validations were no better" in ended.out
    assert "training is already finished: 4 epochs" in run(*settings, "SOLVER.STOP_AFTER", 2).out
    refused = run(*settings, "SOLVER.STOP_AFTER", 2, "TEST.CHECKPOINT", 4)
    assert (
        refused.status == 2 and "TEST.CHECKPOINT is 4, an epoch that SOLVER.STOP_AFTER 2 may leave out" in refused.err
    )
    best = starting_weights(str(tmp_path / "run"), "{}")
    assert torch.load(best)["best_top1"] == 60 and torch.load(best)["epoch"] == 3  # of equal ones the later


def test_passes_of_few_clips_give_the_gradients_of_one(run, tmp_path):
    # Batch norms apart, whose statistics are those of a pass: their share is small with eight of sixteen clips.
    settings = (*ONE_EPOCH, "MIXUP.ENABLE", False, "SOLVER.CLIP_GRADIENT", 0.0)
    norms = []
    for size in (0, 16, 8):
        out = tmp_path / str(size)
        assert run(*settings, "TRAIN.MICRO_BATCH_SIZE", size, "LOG_PERIOD", 1, "OUTPUT_DIR", out).status == 0
        norms.append(read_events(str(out), "train_step")[0]["grad_norm"])
    assert norms[0] == norms[1] and norms[2] == pytest.approx(norms[0], rel=0.3)


def test_a_process_without_clips_adds_nothing_whatever_the_loss():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    model.penalty = 0.0  # as models of the registry have it
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    taken = train.TrainState(model, torch.optim.SGD(model.parameters(), lr=1.0, fused=True), scaler)
    plan = SimpleNamespace(is_alone=False, micro_batch=0, clips_per_step=4, clip_gradient=0.0)
    plan.autocast, plan.loss = nullcontext, binary_cross_entropy
    assert train.take_step(taken, torch.empty(0, 3, 1, 2, 2), torch.empty(0, 5), plan).tolist() == [0, 0, 0]
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_micro_batch_is_the_largest_half_that_fits(monkeypatch):
    monkeypatch.setattr(build, "_fits", lambda model, shape, precision, size, device: size <= 5)
    cuda = torch.device("cuda")
    assert build.choose_micro_batch(None, (3, 4, 32, 32), "fp32", 16, cuda) == 4  # 16, 8 and 4 are tried, and 4 fit


def test_compilation_is_asked_for_and_leaves_names_alone(run, tmp_path, monkeypatch):
    # What compilation gives is tested with the models; here it would take minutes.
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    assert run(*ONE_EPOCH, "MODEL.COMPILE", True).status == 0
    assert compiled == ["Uniformer"]
    assert "head.weight" in state(tmp_path / "run", "epoch_00001.pyth")["model_state"]


def test_processes_and_device_are_read_once_per_log_period(run, monkeypatch):
    reads = []
    real = distributed.all_reduce_sum
    monkeypatch.setattr("slowfast.engine.report.all_reduce_sum", lambda values: reads.append(1) or real(values))
    assert run("TRAIN.BATCH_SIZE", 2, "LOG_PERIOD", 5, *ONE_EPOCH).status == 0
    assert len(reads) == 3  # of 12 steps: after 5, 10 and the last


def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path):
    stopped = run("SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_EPOCHS", 0.0)
    assert stopped.status == 2 and "the loss is nan" in stopped.err and "frames/" in stopped.err
    (event,) = read_events(str(tmp_path / "run"), "nonfinite")
    assert event["epoch"] == 1 and event["losses"] == ["nan"] and len(event["videos"]) == 8
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("precision", "method"), [("fp32", "sgd"), ("fp16", "adamw")])
def test_steps_that_are_not_finite_can_be_skipped(run, poison, tmp_path, precision, method):
    poison(lambda step: step in (0, 5))
    settings = ("TRAIN.ON_NONFINITE", "skip", "TRAIN.PRECISION", precision, "SOLVER.OPTIMIZING_METHOD", method)
    settings += ("SOLVER.EMA_DECAY", 0.5)
    skipped = run(*ONE_EPOCH, *settings, "TRAIN.BATCH_SIZE", 4)
    assert skipped.status == 0 and skipped.out.count("step skipped") == 2
    saved = state(tmp_path / "run", "epoch_00001.pyth")
    for weights in (saved["model_state"], saved["ema_state"]):
        assert all(tensor.isfinite().all() for tensor in weights.values())
        assert weights["blocks1.0.norm1.num_batches_tracked"] == 4  # the other steps have left their trace
    assert [event["step"] for event in read_events(str(tmp_path / "run"), "nonfinite")] == [0, 5]
    (epoch,) = read_events(str(tmp_path / "run"), "train_epoch")
    assert 2 < epoch["loss"] < 3


def test_a_skipped_step_leaves_weights_and_moments_alone():
    weight = torch.nn.Parameter(torch.ones(3))
    for optimizer in (torch.optim.AdamW([weight], fused=True), torch.optim.SGD([weight], lr=1.0, fused=True)):
        weight.grad = torch.full((3,), float("nan"))
        optimizer.found_inf = torch.tensor(1.0)
        optimizer.step()
        assert torch.equal(weight.detach(), torch.ones(3))


def test_skipping_ends_when_nothing_else_happens(run, poison):
    poison(lambda step: True)
    stopped = run("TRAIN.ON_NONFINITE", "skip", "SOLVER.MAX_EPOCH", 9)
    assert stopped.status == 2 and "after 10 skipped steps in a row" in stopped.err


def test_weights_that_do_not_move_end_the_run(run, tmp_path):
    rates = [word for key in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR") for word in (f"SOLVER.{key}", 1e-30)]
    stopped = run(*rates)
    assert stopped.status == 2 and "epoch 1 has not changed any weight" in stopped.err
    # A rate of 0 in the only step of the first epoch is a warm-up.
    slow = ("SOLVER.WARMUP_START_LR", 0, "SOLVER.WARMUP_EPOCHS", 1, "TRAIN.BATCH_SIZE", 24)
    assert run(*slow, "OUTPUT_DIR", tmp_path / "slow").status == 0
    stopped = run("SOLVER.WARMUP_START_LR", 1)
    assert stopped.status == 2 and "SOLVER.WARMUP_START_LR 1 is above BASE_LR 0.001" in stopped.err


def test_a_loss_scale_that_falls_without_end_stops_the_run(run, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_: clip(*_) * float("inf"))
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda self: 2.0**-20)
    stopped = run("TRAIN.PRECISION", "fp16")
    assert stopped.status == 2 and "the loss scale has fallen to" in stopped.err


def test_every_event_has_exactly_its_fields(run, poison, tmp_path, data_dir):
    poison(lambda step: step == 0)
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    (broken / (broken / "train.txt").read_text().split()[0] / "00002.jpg").unlink()
    settings = ("DATA.PATH_TO_DATA_DIR", broken, "DATA.NUM_FRAMES", 6, *ONE_EPOCH)
    settings += ("TRAIN.ON_NONFINITE", "skip", "SOLVER.EMA_DECAY", 0.9)
    assert run(*settings, tasks=("train", "test")).status == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {line["event"]: set(line) - {"event", "time"} for line in lines} == {
        name: set(fields) for name, fields in EVENTS.items()
    }
    recorder = Recorder(str(tmp_path), enabled=True, tensorboard=False)
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written: Is a directory"):
        recorder.event("bad_video", epoch=1, path="", reason="")


def test_looking_at_a_run_does_not_change_it(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watched, unwatched = tmp_path / "watched", tmp_path / "unwatched"
    periods = ("TENSORBOARD.IMAGES_PERIOD", 1, "TENSORBOARD.HISTOGRAM_PERIOD", 2)
    assert run("OUTPUT_DIR", watched, "TENSORBOARD.ENABLE", True, *periods).status == 0
    assert run("OUTPUT_DIR", unwatched, "TENSORBOARD.IMAGES_PERIOD", 0).status == 0
    found, expected = (state(folder, "epoch_00002.pyth")["model_state"] for folder in (watched, unwatched))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (unwatched / "train_batch.png").exists() and not (unwatched / "tensorboard").exists()
    board = EventAccumulator(str(watched / "tensorboard"))
    board.Reload()
    assert [image.step for image in board.Images("train_batch")] == [0, 3]
    assert "MAX_EPOCH: 2" in board.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    names = {name for name in expected if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert set(board.Tags()["histograms"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    for name in names:
        (weights,) = board.Histograms(f"weights/{name}")
        assert weights.step == 6
        assert weights.histogram_value.sum == pytest.approx(expected[name].double().sum().item(), abs=1e-4)


def test_the_first_error_is_seen_when_the_disk_is_full(tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    recorder = Recorder(str(tmp_path), True, True)
    with pytest.raises(ValueError, match="the reason"), recorder:
        recorder.image("train_batch", np.zeros((2, 2, 3), np.uint8), 0)
        monkeypatch.setattr(SummaryWriter, "close", full)
        raise ValueError("the reason")


def test_the_picture_shows_what_the_model_gets(tmp_path):
    mean, std = [0.45, 0.4, 0.35], [0.225, 0.2, 0.3]
    grey_levels = torch.randint(256, (2, 3, 3, 160, 160), dtype=torch.uint8)
    offset, scale = (torch.tensor(values).view(3, 1, 1, 1) for values in (mean, std))
    clips = (grey_levels / 255 - offset) / scale
    targets = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]) * 0.9 + 0.1 / 3
    page = draw_batch(clips, targets, mean, std, 0.1, ["a", "b", "c"], "title")
    # Frames of this size are shown as they are, below a title and a caption per row.
    for row in range(2):
        top = 30 + row * (30 + 160 + 4) + 30
        for frame in range(3):
            shown = page[top : top + 160, frame * 164 : frame * 164 + 160]
            assert np.array_equal(shown, grey_levels[row, :, frame].permute(1, 2, 0).numpy())
    assert describe_target(targets[0].numpy(), 0.1, ["a", "b", "c"]) == "90 % a + 10 % b"
    assert describe_target(targets[1].numpy(), 0.1, None) == "100 % class 2"
    several = np.array([0.95, 0.05, 0.05, 0.95, 0.95])
    assert describe_target(several, 0.1, None) == "100 % class 0 + 100 % class 3 + 100 % class 4"
    small = draw_batch(torch.full((9, 3, 20, 32, 64), 1e9), torch.eye(9), mean, std, 0.0, None, "title" * 99)
    assert small.shape == (30 + 8 * (30 + 64 + 4), max(6 * (128 + 4), 640), 3) and small[65, 5].tolist() == [255] * 3
    write_png(page, str(tmp_path / "page.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "page.png")), page)
