"""The timing commands run what they say, and write what they print."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OP = ["op", "--frames", "2", "--size", "3", "--heads", "1", "--channels", "32", "--window", "3", "--repeats", "1"]
DEPTHWISE = ["depthwise", "--frames", "2", "--size", "3", "--channels", "4", "--kernel", "3", "--repeats", "1"]


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Runs ``tools/benchmark.py`` in this process and returns its exit status and what it wrote."""
    spec = importlib.util.spec_from_file_location("benchmark_tool", ROOT / "tools" / "benchmark.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        path = tmp_path / "times.json"
        monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments, "--json", str(path)])
        return tool.main(), json.loads(path.read_text()) if path.exists() else None

    return run


def test_times_of_every_backend_that_can_run(benchmark, capsys):
    status, found = benchmark(*OP)
    assert status == 0
    assert set(found["times"]) >= {"reference", "dense"} and "triton" not in found["times"]
    for times in (found["times"]["reference"], found["times"]["dense"]):
        assert 0 < times["forward_ms"] < times["step_ms"]
    printed = capsys.readouterr().out
    assert "1 x 2 x 3 x 3 tokens, 1 heads of 32, window 3, fp32" in printed and "reference:" in printed


def test_times_of_the_depthwise_convolution_in_both_layouts(benchmark):
    status, found = benchmark(*DEPTHWISE)
    assert status == 0 and set(found["times"]) == {"torch", "torch, contiguous", "ours"}


def test_a_gpu_that_is_not_there_is_named(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _ = benchmark(*OP, "--device", "cuda")
    assert status == 2 and "--device is cuda" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_times_on_a_gpu(benchmark, precision):
    _, found = benchmark(*OP, "--device", "cuda", "--precision", precision)
    assert {"reference", "dense", "triton"} <= set(found["times"])
    _, found = benchmark(*DEPTHWISE, "--device", "cuda", "--precision", precision)
    assert set(found["times"]) == {"torch", "torch, contiguous"}


def test_models_are_compared_with_the_plain_formulation(benchmark, capsys):
    size = ["DATA.TRAIN_CROP_SIZE", "32", "DATA.NUM_FRAMES", "2"]
    tiny = str(ROOT / "configs" / "_base_" / "uniformer_tiny.yaml")
    formulations = ["--formulations", "plain", "fast", "folded", "--precision", "fp32", "bf16", "--rounds", "1"]
    status, found = benchmark("model", "--cfg", tiny, *formulations, *size)
    assert status == 0
    names = [f"uniformer_tiny {name}" for name in ("plain", "fast", "folded")]
    models = found["models"]
    assert [(one["name"], one["precision"]) for one in models] == [(n, p) for p in ("fp32", "bf16") for n in names]
    assert all(one["forward_ms"] > 0 for one in models)
    assert [one["step_ms"] is None for one in models] == [False, False, True] * 2  # folded models do not train
    assert "uniformer_tiny folded  fp32" in capsys.readouterr().out


def test_models_of_different_clips_are_not_compared(benchmark, capsys):
    against = str(ROOT / "configs" / "emim_s_in1k_image.yaml")
    status, _ = benchmark("model", "--cfg", str(ROOT / "configs" / "emim_s16_ssv1_in1k.yaml"), "--against", against)
    assert status == 2 and "must be of one size" in capsys.readouterr().err


def test_growth_with_the_clip_and_the_window(benchmark, capsys, tmp_path):
    tiny, plot = str(ROOT / "configs" / "_base_" / "uniformer_tiny.yaml"), tmp_path / "scaling.png"
    status, found = benchmark(
        "scaling", "--cfg", tiny, "--frames", "2", "4", "--window", "3", "--rounds", "1", "--plot", str(plot),
        "DATA.TRAIN_CROP_SIZE", "32", "DATA.NUM_FRAMES", "2",
    )  # fmt: skip
    assert status == 0
    assert [(row["axis"], row["value"]) for row in found["rows"]] == [("frames", 2), ("frames", 4), ("window", 3)]
    assert plot.stat().st_size > 1000
    assert found["machine"]["device"] == "CPU" and found["command"].startswith("python tools/benchmark.py scaling")


def test_growth_of_nothing_is_refused(benchmark, capsys):
    status, _ = benchmark("scaling", "--cfg", str(ROOT / "configs" / "_base_" / "uniformer_tiny.yaml"))
    assert status == 2 and "--frames N N ..." in capsys.readouterr().err
