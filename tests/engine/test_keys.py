"""Keys of training: averaged weights, optimizers, layer decay, micro-batches, compilation, retention, dry run."""

import json
import os
import subprocess

import pytest
import torch
from helpers_engine import run_tool

from slowfast.config.defaults import get_cfg
from slowfast.engine import memory
from slowfast.engine.run import main
from slowfast.models import build_model
from slowfast.models.optimizer import build_optimizer
from slowfast.utils.logging import read_events


def run(config, *settings, tasks=("train",)):
    return main(tasks, "test run", ["--cfg", str(config), *map(str, settings)])


def state(folder, name="epoch_00001.pyth"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def tiny_cfg(*settings):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["UNIFORMER.EMBED_DIM", [8, 8, 16, 16], "UNIFORMER.DEPTH", [1, 2, 2, 1], "UNIFORMER.HEAD_DIM", 8, *settings]
    )
    return cfg


def test_averaged_weights_are_the_average_and_are_evaluated_and_tested(config, tmp_path):
    out = tmp_path / "run"
    settings = ("SOLVER.EMA_DECAY", 0.5, "SOLVER.MAX_EPOCH", 1, "TRAIN.CHECKPOINT_STEPS", 1)
    settings += ("TRAIN.KEEP_CHECKPOINTS", 9)
    assert run(config, *settings, tasks=("train", "test")) == 0
    checkpoints = [state(out, f"epoch_00000_step_{step:06d}.pyth") for step in (1, 2)] + [state(out)]
    weights = [checkpoint["model_state"]["head.weight"] for checkpoint in checkpoints]
    average = weights[0]
    for weight in weights[1:]:
        average = 0.5 * average + 0.5 * weight
    torch.testing.assert_close(checkpoints[-1]["ema_state"]["head.weight"], average)
    # Statistics of batch norms are those of the model.
    name = "norm.running_var"
    assert torch.equal(checkpoints[-1]["ema_state"][name], checkpoints[-1]["model_state"][name])
    assert [len(read_events(str(out), event)) for event in ("val", "val_ema")] == [1, 1]
    raw = json.loads((out / "test_results.json").read_text())
    assert run(config, *settings, "TEST.WEIGHTS", "ema", tasks=("test",)) == 0
    averaged = json.loads((out / "test_results.json").read_text())
    assert averaged["weights"] == "ema" and raw["weights"] == "model"
    assert run(config, *settings, "TEST.WEIGHTS", "mean", tasks=("test",)) == 2


def test_tests_of_averaged_weights_that_are_not_there(config, capsys):
    assert run(config, "SOLVER.MAX_EPOCH", 1) == 0
    assert run(config, "SOLVER.MAX_EPOCH", 1, "TEST.WEIGHTS", "ema", tasks=("test",)) == 2
    assert "has no averaged weights" in capsys.readouterr().err


def test_sgd_and_layer_decay(config, tmp_path, capsys):
    assert run(config, "SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.LAYER_DECAY", 0.5, "SOLVER.MAX_EPOCH", 1) == 0
    groups = state(tmp_path / "run")["optimizer_state"]["param_groups"]
    assert all("momentum" in group for group in groups)
    rates = {group["lr_scale"]: group["lr"] for group in groups}
    assert max(rates) == 1 and all(rate == pytest.approx(scale * rates[1]) for scale, rate in rates.items())
    assert run(config, "SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.LAYER_DECAY", 0.5, "SOLVER.MAX_EPOCH", 2) == 2
    assert "another SOLVER.OPTIMIZING_METHOD" in capsys.readouterr().err
    assert run(config, "SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.MAX_EPOCH", 2) == 2
    assert "other groups of parameters" in capsys.readouterr().err


def test_layers_are_the_blocks_from_stem_to_head():
    cfg = tiny_cfg("SOLVER.LAYER_DECAY", 0.5)
    model = build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales = {
        names[parameter]: group["lr_scale"]
        for group in build_optimizer(model, cfg).param_groups
        for parameter in group["params"]
    }
    assert set(scales) == set(names.values())
    # Seven layers below the head: the stem and six blocks.
    order = ["patch_embed1.proj", "blocks1.0.norm1", "blocks2.0.norm1", "blocks2.1.norm1", "blocks3.0.attn.qkv"]
    order += ["blocks3.1.attn.qkv", "blocks4.0.mlp.fc1", "head"]
    assert [scales[f"{name}.weight"] for name in order] == [0.5 ** (7 - layer) for layer in range(8)]
    assert scales["patch_embed3.proj.weight"] == scales["blocks3.0.norm1.bias"]
    assert scales["norm.weight"] == 1


def test_micro_batch_by_word(config, tmp_path, monkeypatch, capsys):
    # As if there were memory for a few clips only.
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    estimate = memory.estimate_memory(build_model(cfg), (3, 4, 32, 32), "fp32", 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: estimate.of(5) / memory.CPU_SHARE)
    assert run(config, "TRAIN.MICRO_BATCH_SIZE", "auto", "SOLVER.MAX_EPOCH", 1) == 0
    printed = capsys.readouterr().out
    assert "passes of 4 of 16 clips" in printed  # 16, 8 and 4 are tried, and 4 fit
    assert run(config, "TRAIN.MICRO_BATCH_SIZE", "all") == 2
    assert "TRAIN.MICRO_BATCH_SIZE takes a int" in capsys.readouterr().err


def test_estimate_counts_what_the_backward_pass_keeps():
    model = build_model(tiny_cfg())
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    clips = torch.randn(2, 3, 4, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(clips)
    own = {parameter.untyped_storage().data_ptr() for parameter in (*model.parameters(), *model.buffers())}
    expected = sum(size for address, size in kept.items() if address not in own) / 2
    estimate = memory.estimate_memory(model, (3, 4, 64, 64), "fp32", 2)
    assert estimate.per_clip == pytest.approx(expected, rel=0.05) and logits.shape == (2, 174)
    parameters = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert estimate.fixed == 4 * parameters
    # Recomputed blocks keep little, half precision about half.
    recomputed = build_model(tiny_cfg("MODEL.CHECKPOINT_NUM", [1, 2, 2, 1]))
    assert memory.estimate_memory(recomputed, (3, 4, 64, 64), "fp32", 2).per_clip < 0.3 * estimate.per_clip
    assert memory.estimate_memory(model, (3, 4, 64, 64), "bf16", 2).per_clip < 0.75 * estimate.per_clip


def test_compilation_is_asked_for_and_leaves_names_alone(config, tmp_path, monkeypatch):
    # What compilation gives is tested with the models; here it would take minutes.
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    assert run(config, "SOLVER.MAX_EPOCH", 1, "MODEL.COMPILE", True) == 0
    assert compiled == ["Uniformer"]
    assert "head.weight" in state(tmp_path / "run")["model_state"]


def test_checkpoints_that_are_kept(config, tmp_path):
    settings = ("SOLVER.MAX_EPOCH", 5, "TRAIN.KEEP_EVERY", 2, "TRAIN.KEEP_CHECKPOINTS", 2, "TRAIN.EVAL_PERIOD", 5)
    assert run(config, *settings, "TRAIN.CHECKPOINT_STEPS", 2) == 0
    names = sorted(os.listdir(tmp_path / "run" / "checkpoints"))
    epochs = ["epoch_00002.pyth", "epoch_00004.pyth", "epoch_00004_step_000002.pyth", "epoch_00005.pyth"]
    assert names == ["best.pyth", *epochs]
    assert run(config, *settings, "TRAIN.KEEP_CHECKPOINTS", 1) == 2


def test_dry_run_reads_a_batch_and_trains_nothing(config, tmp_path, capsys):
    assert run(config, "--dry-run", tasks=("train", "test")) == 0
    printed = capsys.readouterr().out
    for words in ("parameters", "GFLOPs", "3 steps per epoch", "memory: about", "learning rate 0.001"):
        assert words in printed
    assert "first 2 training items: clips (4, 3, 4, 32, 32), float32" in printed
    assert "training would start anew" in printed
    assert not (tmp_path / "run").exists()
    assert main(("train",), "", ["--dry-run", "--cfg", str(config), "DATA.NUM_FRAMES", "2"]) == 0
    assert "clips (4, 3, 2, 32, 32)" in capsys.readouterr().out


def test_peak_memory_is_logged(config, tmp_path):
    assert run(config, "SOLVER.MAX_EPOCH", 1) == 0
    (event,) = read_events(str(tmp_path / "run"), "train_epoch")
    assert 50 < event["peak_memory_mib"] < 10_000


def test_full_disk_and_read_only_folder(config, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        # Room for two checkpoints or three, but not for all that follow.
        full = run_tool("train_net.py", "--cfg", config, "OUTPUT_DIR", disk, "TRAIN.KEEP_CHECKPOINTS", 20,
                        "TRAIN.CHECKPOINT_STEPS", 1, "SOLVER.MAX_EPOCH", 9)  # fmt: skip
        assert full.returncode == 2 and "Traceback" not in full.stderr
        assert "could not be written" in full.stderr and "checkpoints/epoch_0" in full.stderr
        left = sorted((disk / "checkpoints").iterdir())
        assert left and not [path for path in left if path.suffix == ".writing"]
        for path in left:
            torch.load(path, weights_only=True)
        # With room again the run goes on from the newest of them.
        subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
        resumed = run_tool("train_net.py", "--cfg", config, "OUTPUT_DIR", disk, "SOLVER.MAX_EPOCH", 2)
        assert resumed.returncode == 0, resumed.stderr
        assert f"resumed from {left[-1]}" in resumed.stdout.replace(str(left[-1]), str(left[-1]))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused = run_tool("train_net.py", "--cfg", config, "OUTPUT_DIR", disk, "SOLVER.MAX_EPOCH", 3)
        assert refused.returncode == 2 and f"OUTPUT_DIR {disk} cannot be written" in refused.stderr
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_steps_that_are_not_finite_can_be_skipped(config, tmp_path, monkeypatch, capsys, precision):
    from slowfast.engine import step

    real = step._accumulate
    calls = []

    def poisoned(training, clips, targets, weight):
        calls.append(1)
        if len(calls) == 2:
            clips = clips * float("nan")
        return real(training, clips, targets, weight)

    monkeypatch.setattr(step, "_accumulate", poisoned)
    settings = ("SOLVER.MAX_EPOCH", 1, "TRAIN.ON_NONFINITE", "skip", "TRAIN.PRECISION", precision)
    assert run(config, *settings) == 0
    assert "step skipped" in capsys.readouterr().out
    weights = state(tmp_path / "run")["model_state"]
    assert all(tensor.isfinite().all() for tensor in weights.values())
    (event,) = read_events(str(tmp_path / "run"), "nonfinite")
    assert event["step"] == 1 and os.path.exists(event["path"])
    (epoch,) = read_events(str(tmp_path / "run"), "train_epoch")
    assert epoch["loss"] is not None and 2 < epoch["loss"] < 3


def test_skipping_ends_when_nothing_else_happens(config, monkeypatch, capsys):
    from slowfast.engine import step

    real = step._accumulate
    monkeypatch.setattr(step, "_accumulate", lambda t, clips, y, weight: real(t, clips * float("nan"), y, weight))
    assert run(config, "TRAIN.ON_NONFINITE", "skip", "SOLVER.MAX_EPOCH", 9) == 2
    assert "after 10 skipped steps in a row" in capsys.readouterr().err
