"""The timing commands time what they say, and write what they print."""

import json

import pytest
import torch
from helpers_engine import ROOT, load_tool

from slowfast.benchmark.model import peak_bytes
from slowfast.utils.errors import UserError

OP = ["op", "--frames", "2", "--size", "3", "--heads", "1", "--channels", "32", "--window", "3", "--rounds", "1"]
TINY = [str(ROOT / "configs" / "_base_" / "uniformer_tiny.yaml"), "DATA.TRAIN_CROP_SIZE", "32", "DATA.NUM_FRAMES", "2"]


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Run ``tools/benchmark.py`` in this process; return the content of its JSON file."""

    def run(*arguments):
        path = tmp_path / "figures.json"
        monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments, "--json", str(path)])
        load_tool("benchmark").main()
        return json.loads(path.read_text())

    return run


def test_every_backend_that_can_run_is_timed(benchmark, capsys):
    found = benchmark(*OP, "--device", "cpu")
    assert set(found["times"]) >= {"reference", "dense"} and "triton" not in found["times"]
    for times in (found["times"]["reference"], found["times"]["dense"]):
        assert times["forward_ms"] > 0 < times["step_ms"]
    assert "1 x 2 x 3 x 3 tokens, 1 heads of 32, window 3, fp32" in found["title"]
    assert "reference: forward" in capsys.readouterr().out
    assert found["command"].startswith("python tools/benchmark.py op") and "torch 2" in found["machine"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_backends_on_a_gpu(benchmark, precision):
    found = benchmark(*OP, "--device", "cuda", "--precision", precision)
    assert {"reference", "dense", "triton"} <= set(found["times"])


def test_models_are_compared_in_every_precision(benchmark, capsys, tmp_path):
    base, *size = TINY
    other = tmp_path / "joint.yaml"
    other.write_text(f"_BASE_: {base}\nUNIFORMER: {{STAGE3_ATTENTION: [joint], STAGE4_ATTENTION: [joint]}}\n")
    arguments = ["--against", str(other), "--precision", "fp32", "bf16", "--rounds", "1", "--device", "cpu", *size]
    found = benchmark("model", "--cfg", base, *arguments)
    names = [(one["name"], one["precision"]) for one in found["models"]]
    assert names == [(name, precision) for precision in ("fp32", "bf16") for name in ("uniformer_tiny", "joint")]
    for one in found["models"]:
        assert one["forward_ms"] > 0 < one["step_ms"] and 0 < one["forward_bytes"] < one["step_bytes"]
    assert "( 1.00x)" in capsys.readouterr().out and found["clip"] == "1 x 2x32x32"


def test_peak_memory_is_that_of_the_tensors():
    weight = torch.zeros(256, 256)  # 256 KiB, there before

    def run():
        first = weight + 1
        second = first * 2
        del first
        return second + 1  # two of them at a time, the third when the first is gone

    assert peak_bytes(run, torch.device("cpu")) == pytest.approx(2 * 256 * 1024, rel=1e-3)


def test_models_of_different_clips_are_not_compared(benchmark, tmp_path):
    (tmp_path / "longer.yaml").write_text(f"_BASE_: {TINY[0]}\nDATA: {{NUM_FRAMES: 7}}\n")
    with pytest.raises(UserError, match="must be of one size"):
        benchmark("model", "--cfg", TINY[0], "--against", str(tmp_path / "longer.yaml"))
