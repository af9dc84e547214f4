"""What a run records: documented events, TensorBoard, the picture of a batch, Weights & Biases."""

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_engine import run_tool
from PIL import Image
from torch import nn

from slowfast.datasets.augment.mixup import Mixup
from slowfast.datasets.loader import Batch
from slowfast.engine import step
from slowfast.engine.events import EVENTS
from slowfast.engine.observe import Observer
from slowfast.engine.record import Recorder
from slowfast.engine.run import main
from slowfast.engine.step import Training, train_step
from slowfast.utils.distributed import Process
from slowfast.utils.logging import EventLog, read_events

HAS_WANDB = importlib.util.find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not HAS_WANDB, reason="needs the package wandb")


def run(config, *settings, tasks=("train",)):
    return main(tasks, "test run", ["--cfg", str(config), *map(str, settings)])


def board(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def final_weights(folder):
    return torch.load(folder / "checkpoints" / "epoch_00002.pyth", weights_only=True)["model_state"]


def test_every_documented_event_is_written_with_exactly_its_fields(config, tmp_path, data_dir, monkeypatch):
    passes = []
    accumulate = step._accumulate

    def poisoned(training, clips, targets, weight):  # the first step has a loss that is not finite
        passes.append(clips)
        return accumulate(training, clips * float("nan") if len(passes) == 1 else clips, targets, weight)

    monkeypatch.setattr(step, "_accumulate", poisoned)
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    (broken / (broken / "train.txt").read_text().split()[0] / "00002.jpg").unlink()
    settings = ("DATA.PATH_TO_DATA_DIR", broken, "DATA.NUM_FRAMES", 6, "SOLVER.MAX_EPOCH", 1)
    settings += ("TRAIN.ON_NONFINITE", "skip", "SOLVER.EMA_DECAY", 0.9)
    assert run(config, *settings, tasks=("train", "test")) == 0
    written = {}
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        written[event["event"]] = set(event) - {"event", "time"}
    assert written == {name: set(event.fields) for name, event in EVENTS.items()}


def test_event_that_cannot_be_written_names_the_file(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    log = EventLog(str(tmp_path), enabled=False)
    log.write("start")
    log.enabled = True
    with pytest.raises(OSError, match=r"log\.jsonl cannot be written: Is a directory"):
        log.write("start")


def test_looking_at_a_run_does_not_change_it(config, tmp_path):
    watched, unwatched = tmp_path / "watched", tmp_path / "unwatched"
    periods = ("TENSORBOARD.IMAGES_PERIOD", 1, "TENSORBOARD.HISTOGRAM_PERIOD", 2)
    assert run(config, "OUTPUT_DIR", watched, "TENSORBOARD.ENABLE", True, *periods) == 0
    assert run(config, "OUTPUT_DIR", unwatched, "TENSORBOARD.IMAGES_PERIOD", 0) == 0
    expected, found = final_weights(unwatched), final_weights(watched)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (unwatched / "train_batch.png").exists() and not (unwatched / "tensorboard").exists()

    events = board(watched)
    assert [image.step for image in events.Images("train_batch")] == [0, 3]
    assert "MAX_EPOCH: 2" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    names = {name for name in expected if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert set(events.Tags()["histograms"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    for name in names:
        (weights,) = events.Histograms(f"weights/{name}")
        assert weights.step == 6
        assert weights.histogram_value.num == expected[name].numel()
        assert weights.histogram_value.sum == pytest.approx(expected[name].double().sum().item(), abs=1e-4)
    # The motion branch starts at zero, but for its last layer gradients are there from the first step.
    assert any(events.Histograms(f"gradients/{name}")[0].histogram_value.sum_squares > 0 for name in names)


def test_values_that_are_not_finite_are_left_out_and_reported(tmp_path, caplog):
    with Recorder(str(tmp_path), True, True) as recorder:
        values = torch.tensor([1.0, float("nan"), 3.0, float("inf")])
        recorder.histograms([("some", values), ("none", values[1::2])], 1)
    events = board(tmp_path)
    assert events.Tags()["histograms"] == ["some"] and events.Histograms("some")[0].histogram_value.num == 2
    assert [record.getMessage() for record in caplog.records] == [
        "some: 2 of 4 values are not finite",
        "none: 2 of 2 values are not finite",
    ]


class Input(nn.Module):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5))

    def forward(self, clips):
        self.clips = clips
        return self.weight.expand(len(clips), 5)


def test_the_picture_shows_what_the_model_gets(tmp_path):
    model, process = Input(), Process(0, 1, 0, torch.device("cpu"))
    with Recorder(str(tmp_path), True, False) as recorder:
        training = Training(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            scaler=torch.amp.GradScaler("cpu", enabled=False), schedule=None,
            transform=lambda clips, labels, rng: Mixup(0.8, 0, 1.0, 0.0, 0.1, 5)(clips.float() / 255, labels, rng),
            process=process, recorder=recorder, precision="fp32", clip_gradient=0.0,
            clips_per_step=2, micro_batch_size=0, log_period=1, seed=0,
            observer=Observer(str(tmp_path), recorder, 2, 0, [0.0] * 3, [1.0] * 3, 0.1, None),
        )  # fmt: skip
        picture = tmp_path / "train_batch.png"
        for epoch, is_due in ((0, True), (1, False), (2, True)):
            training.observer.start_epoch(epoch, epoch)
            for step in range(2):
                clips = torch.randint(256, (2, 3, 2, 150, 150), dtype=torch.uint8)
                labels = torch.tensor([1, 4])
                train_step(training, Batch(clips, labels, labels, labels), np.random.default_rng(epoch))
                assert picture.exists() == (is_due and step == 0)
                if picture.exists():
                    # Of this size frames are shown as they are; the last one is in the corner below the caption.
                    expected = model.clips[-1, :, -1].permute(1, 2, 0).mul(255).round().byte().numpy()
                    shown = np.asarray(Image.open(picture))
                    rows = shown[-16 - 150 : -16, 16 + 154 : 16 + 154 + 150]
                    assert np.array_equal(rows, expected)
                    picture.unlink()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["TENSORBOARD.IMAGES_PERIOD", -1], "TENSORBOARD.IMAGES_PERIOD is -1; allowed: 0 (off) or more"),
        (["TENSORBOARD.HISTOGRAM_PERIOD", 1], "but TENSORBOARD.ENABLE is False"),
        (["WANDB.ENABLE", True, "WANDB.MODE", "later"], "WANDB.MODE is 'later'; allowed: online, offline"),
        (["WANDB.ENABLE", True, "WANDB.PROJECT", ""], "WANDB.PROJECT is empty"),
    ],
)
def test_wrong_settings_stop_before_training(config, capsys, settings, message):
    assert run(config, *settings) == 2
    assert message in capsys.readouterr().err


def test_missing_wandb_is_an_error_before_training(config, tmp_path, capsys, monkeypatch):
    if HAS_WANDB:
        monkeypatch.setitem(sys.modules, "wandb", None)  # what Python itself does for a module that is not to be found
    else:
        # The package calls the folder of its data like itself.
        (tmp_path / "wandb").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
    assert run(config, "WANDB.ENABLE", True) == 2
    assert "WANDB.ENABLE is True, but the package is not installed: pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@needs_wandb
def test_wandb_without_login_is_an_error_before_training(config, tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment["HOME"] = str(tmp_path)
    environment["NETRC"] = str(tmp_path / "none")
    ended = run_tool("train_net.py", "--cfg", config, "WANDB.ENABLE", True, env=environment, stdin=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert "Weights & Biases refuses the run" in ended.stderr and "WANDB.MODE offline" in ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@needs_wandb
def test_resumed_run_is_one_run_on_wandb(config, tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline"}
    for epochs in (1, 2):
        ended = run_tool(
            "train_net.py", "--cfg", config, "WANDB.ENABLE", True, "SOLVER.MAX_EPOCH", epochs, env=environment
        )
        assert ended.returncode == 0, ended.stderr
    run_id = (tmp_path / "run" / "wandb_run_id.txt").read_text().strip()
    parts = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2 and all(part.name.endswith(f"-{run_id}") for part in parts)
    scalars, configs = zip(*(wandb_content(part / f"run-{run_id}.wandb") for part in parts), strict=True)
    for event in read_events(str(tmp_path / "run"), "train_epoch"):
        found = scalars[event["epoch"] - 1][event["step"]]
        assert found["train_epoch/loss"] == event["loss"]
        assert "val/top1" in found and "train_step/lr" in found
    assert [json.loads(config["SOLVER"])["MAX_EPOCH"] for config in configs] == [1, 2]
    assert list((parts[0] / "files" / "media" / "images").glob("train_batch*.png"))


def wandb_content(path):
    """Return the scalars of every step and the configuration (values in JSON) in a file of an offline run."""
    from wandb.proto import wandb_internal_pb2

    scalars, config = {}, {}
    for data in leveldb_records(path.read_bytes(), start=7):  # after the package's own mark
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            config.update((update.key, update.value_json) for update in record.run.config.update)
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            fields = {key: json.loads(value) for key, value in items.items()}
            scalars.setdefault(fields["step"], {}).update(fields)
    return scalars, config


def leveldb_records(content, start):
    """Yield the records of a LevelDB log: blocks of 32 KiB with parts of (checksum, length, type) and data each."""
    position, record = start, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # no part begins so close to the end of a block
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
