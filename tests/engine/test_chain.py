"""Chains: a run that starts from what an earlier experiment has left; and dry runs, which say what is missing."""

import shutil

import pytest
import torch
import yaml
from helpers_engine import ROOT, state

from slowfast.engine import dry_run
from slowfast.engine.run import main

EPOCHS = ("SOLVER.MAX_EPOCH", 1)


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


def test_a_chain_of_two(run, config, second, tmp_path, capsys):
    def run_second(*settings):
        status = main(("train",), "", ["--cfg", str(second), *map(str, settings)])
        return status, capsys.readouterr()

    checkpoints = tmp_path / "run" / "checkpoints"
    command = f"bash exp/launch.sh tools/run_net.py --cfg {config}"
    # Nothing is trained yet.
    status, said = run_second()
    assert status == 2 and f"MODEL.PRETRAINED: {config} has no checkpoint in {checkpoints}" in said.err
    assert command in said.err and "MODEL.PRETRAINED to a weight file" in said.err

    # Not to its end: one epoch of two. Nor does a dry run pass over it.
    assert run(*EPOCHS).status == 0
    content = state(tmp_path / "run", "epoch_00001.pyth")
    unfinished = {**content, "cfg": content["cfg"].replace("MAX_EPOCH: 1", "MAX_EPOCH: 2")}
    torch.save(unfinished, checkpoints / "epoch_00001.pyth")
    for dry in ((), ("--dry-run",)):
        status, said = run_second(*dry)
        assert status == 2 and "is not finished" in said.err and "has 1 of 2 epochs" in said.err
    assert command in said.err and f"MODEL.PRETRAINED {checkpoints}/best.pyth" in said.err

    # The best checkpoint, not the last: the weights of every layer but the classifier are its own.
    torch.save(content, checkpoints / "epoch_00001.pyth")
    best = state(tmp_path / "run", "best.pyth")
    best["model_state"] = {name: tensor + 1 for name, tensor in best["model_state"].items()}
    torch.save(best, checkpoints / "best.pyth")
    frozen = (*EPOCHS, "SOLVER.BASE_LR", 1e-6, "SOLVER.WARMUP_START_LR", 1e-6, "SOLVER.COSINE_END_LR", 1e-6)
    status, said = run_second(*frozen, "SOLVER.WARMUP_EPOCHS", 0.0, "EMIM.LAST_FRAME", "self")
    assert status == 0
    top1 = f"{best['best_top1']:.2f} % top-1"
    assert f"starting from {config}: its best checkpoint of 1 epochs, {top1} in validation" in said.out
    assert "head.weight" in said.out and "another number of classes" in said.out
    # Names and shapes of the tensors do not tell this.
    assert f"{config} was trained with other settings of the model: EMIM.LAST_FRAME: repeat -> self" in said.out
    assert said.out.count("other settings of the model") == 1
    started = state(second.parent / "output", "best.pyth")["model_state"]
    for name, tensor in started.items():
        if name.endswith(("weight", "bias", "rpb")):
            assert name.startswith("head.") or torch.allclose(tensor, best["model_state"][name], atol=1e-5), name

    # Output folders and weight files are starts too.
    status, said = run_second("--dry-run", "MODEL.PRETRAINED", tmp_path / "run", "OUTPUT_DIR", tmp_path / "none")
    assert status == 0 and f"starting from {tmp_path / 'run'}" in said.out
    file = checkpoints / "epoch_00001.pyth"
    status, said = run_second("--dry-run", "MODEL.PRETRAINED", file, "OUTPUT_DIR", tmp_path / "none")
    assert status == 0 and "starting from" not in said.out
    # A run that goes on needs what it started from no more.
    shutil.rmtree(tmp_path / "run")
    status, _ = run_second(*frozen, "SOLVER.MAX_EPOCH", 2, "EMIM.LAST_FRAME", "self", "SOLVER.WARMUP_EPOCHS", 0.0)
    assert status == 0


@pytest.mark.parametrize(("start", "message"), [("exp/none", "does not exist"), ("exp", "exp has no config.yaml")])
def test_what_is_no_experiment(run, monkeypatch, start, message):
    monkeypatch.chdir(ROOT)
    refused = run("--dry-run", "MODEL.PRETRAINED", start)
    assert refused.status == 2 and message in refused.err


def test_dry_run_reads_a_batch_and_trains_nothing(run, config, tmp_path, capsys, monkeypatch):
    dry = run("--dry-run", tasks=("train", "test"))
    assert dry.status == 0
    for words in ("parameters", "GFLOPs", "3 steps per epoch", "learning rate 0.001", "training would start anew"):
        assert words in dry.out
    assert "first 2 training items: clips (4, 3, 4, 32, 32)" in dry.out
    assert "first 2 test items: clips (6, 3, 4, 32, 32)" in dry.out and "17 videos x 6 views" in dry.out
    for words in ("24 files are listed", "passes of 16 clips (measured)", "cores for 0 workers", "training about 0:0"):
        assert words in dry.out
    assert not (tmp_path / "run").exists()
    assert main(("train",), "", ["--dry-run", "--cfg", str(config), "DATA.NUM_FRAMES", "2"]) == 0
    assert "clips (4, 3, 2, 32, 32)" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert "OUTPUT_DIR cannot be made" in run("--dry-run", "OUTPUT_DIR", tmp_path / "file" / "run").err
    # A pass that would take long is not tried on a CPU; more workers than cores are warned of.
    monkeypatch.setattr(dry_run, "_LONG_STEP_SEC", 0)
    dry = run("--dry-run", "DATA_LOADER.NUM_WORKERS", 999)
    assert "passes of 16 clips (from 4 clips)" in dry.out and "cores for 999 workers" in dry.out


def test_dry_run_names_all_that_is_missing(run, config, tmp_path):
    dry = run("--dry-run", tasks=("test",))
    assert dry.status == 2
    assert "test: 4 frames x 2 clips x 3 crops, 32x32 px, sparse sampling, sum_logits" in dry.out
    assert "no checkpoint in" in dry.err and f"tools/run_net.py --cfg {config} trains" in dry.err
    nowhere = ("DATA.PATH_TO_DATA_DIR", tmp_path / "none", "MODEL.PRETRAINED", config, "OUTPUT_DIR", tmp_path / "new")
    dry = run("--dry-run", *nowhere, tasks=("train", "test"))
    assert dry.status == 2 and not (tmp_path / "new").exists()
    for words in ("train.txt does not exist", "val.txt does not exist", f"{config} has no checkpoint in {tmp_path}"):
        assert dry.err.count(words) == 1, dry.err
    assert "docs/data.md" in dry.err and "tools/prepare_data.py" in dry.err

    assert run(*EPOCHS).status == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    dry = run("--dry-run", tasks=("test",))
    assert dry.status == 0 and f"weights of {tmp_path / 'run'}/checkpoints/best.pyth" in dry.out
    assert "go on after 1 epochs" in run("--dry-run").out
    other = run("--dry-run", "SOLVER.BASE_LR", 1e-2)
    assert other.status == 2 and "run with other settings: SOLVER.BASE_LR: 0.001 -> 0.01" in other.err
    dry = run("--dry-run", "TEST.CHECKPOINT_FILE_PATH", "none.pth", tasks=("test",))
    assert dry.status == 2 and "none.pth does not exist" in dry.err
    assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
