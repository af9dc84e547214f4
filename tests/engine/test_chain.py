"""Chains: a run that starts from what an earlier experiment has left, and what it says where that is not there yet."""

import os
import shutil

import pytest
import torch
import yaml

from slowfast.engine.run import main

EPOCHS = ("SOLVER.MAX_EPOCH", 1)


def run(config, *settings, tasks=("train",)):
    return main(tasks, "test run", ["--cfg", str(config), *map(str, settings)])


@pytest.fixture
def second(config, tmp_path):
    """An experiment of 20 classes that starts from that of ``config``, which has 12."""
    tree = yaml.safe_load(config.read_text())
    tree["MODEL"] = {"NUM_CLASSES": 20, "PRETRAINED": str(config)}
    tree["DATA"]["CLASS_NAMES_FILE"] = str(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("".join(f"class {number}\n" for number in range(20)))
    del tree["OUTPUT_DIR"]
    (tmp_path / "next").mkdir()
    path = tmp_path / "next" / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_chain_of_two(config, second, tmp_path, capsys):
    checkpoints = tmp_path / "run" / "checkpoints"
    command = f"bash exp/launch.sh tools/run_net.py --cfg {config}"
    # Nothing is trained yet.
    assert run(second) == 2
    error = capsys.readouterr().err
    assert f"MODEL.PRETRAINED: {config} has no checkpoint in {checkpoints}" in error
    assert command in error and "MODEL.PRETRAINED to a weight file" in error

    # Not to its end: one epoch of two.
    assert run(config, *EPOCHS) == 0
    state = torch.load(checkpoints / "epoch_00001.pyth", weights_only=True)
    unfinished = {**state, "cfg": state["cfg"].replace("MAX_EPOCH: 1", "MAX_EPOCH: 2")}
    torch.save(unfinished, checkpoints / "epoch_00001.pyth")
    assert run(second) == 2
    error = capsys.readouterr().err
    assert "is not finished" in error and "has 1 of 2 epochs" in error
    assert command in error and f"MODEL.PRETRAINED {checkpoints}/best.pyth" in error
    # Nor does a dry run pass over it.
    assert run(second, "--dry-run") == 2
    assert "has 1 of 2 epochs" in capsys.readouterr().err

    # The best checkpoint, not the last: the weights of every layer but the classifier are its own.
    torch.save(state, checkpoints / "epoch_00001.pyth")
    best = torch.load(checkpoints / "best.pyth", weights_only=True)
    best["model_state"] = {name: tensor + 1 for name, tensor in best["model_state"].items()}
    torch.save(best, checkpoints / "best.pyth")
    capsys.readouterr()
    frozen = (*EPOCHS, "SOLVER.BASE_LR", 1e-30, "SOLVER.WARMUP_START_LR", 1e-30, "SOLVER.COSINE_END_LR", 1e-30)
    assert run(second, *frozen, "SOLVER.WARMUP_EPOCHS", 0.0, "EMIM.LAST_FRAME", "self") == 0
    printed = capsys.readouterr().out
    top1 = f"{best['best_top1']:.2f} % top-1"
    assert f"starting from {config}: its best checkpoint of 1 epochs, {top1} in validation" in printed
    assert "skipped: head.weight" in printed and "another number of classes" in printed
    assert "2 skipped, 0 missing" in printed
    # Names and shapes of the tensors do not tell this.
    assert f"{config} was trained with other settings of the model: EMIM.LAST_FRAME: repeat -> self" in printed
    assert printed.count("other settings of the model") == 1
    started = torch.load(second.parent / "output" / "checkpoints" / "best.pyth", weights_only=True)["model_state"]
    for name, tensor in started.items():
        if name.endswith(("weight", "bias", "rpb")):
            assert name.startswith("head.") or torch.allclose(tensor, best["model_state"][name], atol=1e-5), name

    # A run that goes on needs what it started from no more.
    shutil.rmtree(tmp_path / "run")
    assert run(second, *frozen, "SOLVER.MAX_EPOCH", 2) == 0


def test_output_folders_and_files_are_starts_too(config, second, tmp_path, capsys):
    assert run(config, *EPOCHS) == 0
    capsys.readouterr()
    assert run(second, "--dry-run", "MODEL.PRETRAINED", tmp_path / "run") == 0
    assert f"starting from {tmp_path / 'run'}" in capsys.readouterr().out
    file = tmp_path / "run" / "checkpoints" / "epoch_00001.pyth"
    assert run(second, "--dry-run", "MODEL.PRETRAINED", file) == 0
    assert "starting from" not in capsys.readouterr().out
    # Where only the best checkpoint was kept, and it is that of the last epoch.
    file.unlink()
    assert run(second, "--dry-run", "MODEL.PRETRAINED", tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("start", "message"), [("exp/none", "exp/none does not exist"), ("exp", "experiment exp has no config.yaml")]
)
def test_what_is_no_experiment(config, capsys, monkeypatch, start, message):
    monkeypatch.chdir(os.path.join(os.path.dirname(__file__), "../.."))
    assert run(config, "--dry-run", "MODEL.PRETRAINED", start) == 2
    assert message in capsys.readouterr().err


def test_dry_run_of_a_test(config, tmp_path, capsys):
    assert run(config, "--dry-run", tasks=("test",)) == 2
    captured = capsys.readouterr()
    assert "test: 4 frames x 2 clips x 3 crops, 32x32 px, sparse sampling, sum_logits" in captured.out
    assert "no checkpoint in" in captured.err and f"tools/run_net.py --cfg {config} trains" in captured.err
    # All that is missing at once.
    nowhere = ("DATA.PATH_TO_DATA_DIR", tmp_path / "none", "MODEL.PRETRAINED", "none.pth")
    assert run(config, "--dry-run", *nowhere, tasks=("train", "test")) == 2
    captured = capsys.readouterr()
    assert captured.err.count("none/train.txt does not exist") == captured.err.count("none/val.txt does not exist") == 1
    assert "none.pth does not exist" in captured.err
    assert "memory: about" in captured.out and "batch: 8 videos x 2 clips per step" in captured.out

    assert run(config, *EPOCHS) == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    assert run(config, "--dry-run", tasks=("test",)) == 0
    printed = capsys.readouterr().out
    assert "test: 17 videos x 6 views" in printed and f"weights of {tmp_path / 'run'}/checkpoints/best.pyth" in printed
    assert "first 2 test items: clips (6, 3, 4, 32, 32)" in printed
    assert run(config, "--dry-run", "TEST.CHECKPOINT_FILE_PATH", "none.pth", tasks=("test",)) == 2
    assert "none.pth does not exist" in capsys.readouterr().err
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
