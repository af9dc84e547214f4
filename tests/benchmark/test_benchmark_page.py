"""The tables of the documents are what the committed measurements say."""

import json
from pathlib import Path

import pytest

from slowfast.benchmark.page import PAGES, RESULTS, make_page

ROOT = Path(__file__).parents[2]
CPU = {"date": "2026-01-02", "device": "CPU", "cpu": "Some CPU", "cores": 2, "threads": 2, "torch": "2.0"}
GPU = {**CPU, "device": "Some GPU", "cuda": "13.2"}
PLACE = "<!-- {0}: made by tools/benchmark.py page -->\n<!-- end of {0} -->"


def _model(name, precision, forward_ms, step_ms):
    step_bytes = 3 * 2**30 if step_ms else None
    return {
        "name": name, "precision": precision, "forward_ms": forward_ms, "forward_bytes": 2**30, "step_ms": step_ms,
        "step_bytes": step_bytes,
    }  # fmt: skip


def _write(folder, name, machine, **figures):
    common = {"command": "the command", "machine": machine, "clips": 2, "clip": "16x224x224", "rounds": 5}
    (folder / f"{name}.json").write_text(json.dumps({**common, **figures}))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_pages_are_current(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert make_page(text, ROOT / RESULTS) == text, "run python tools/benchmark.py page --write"


def test_every_result_has_a_place():
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    results = sorted((ROOT / RESULTS).glob("*.json"))
    assert results
    assert not [path.name for path in results if f"<!-- {path.stem}: made by tools/benchmark.py page -->" not in pages]


def test_models_are_relative_to_the_first_and_to_the_other_configuration(tmp_path):
    models = [_model("a plain", "fp32", 40, 80), _model("a fast", "fp32", 10, 20), _model("a fast", "bf16", 5, None)]
    models += [_model("b fast", "fp32", 20, 25), _model("b fast", "bf16", 4, None)]
    _write(tmp_path, "cpu", CPU, models=models)
    page = make_page(f"before\n{PLACE.format('cpu')}\nafter", tmp_path)
    assert "| a fast | fp32 | 4.00x | 4.00x | 3.0 GiB | 0.50, 0.80 |" in page
    assert "| a fast | bf16 | 8.00x |  |  | 1.25 |" in page
    assert "| b fast | fp32 | 2.00x | 3.20x | 3.0 GiB |  |" in page and "| a plain | fp32 | 1.00x |" in page
    assert "Some CPU, 2 threads" in page and "`the command`" in page and "clips/s" not in page
    assert page.startswith("before\n") and page.endswith("\nafter")
    assert make_page(page, tmp_path) == page, "made again, the page is the same"


def test_a_gpu_is_named_and_has_absolute_rates(tmp_path):
    _write(tmp_path, "gpu", GPU, models=[_model("a fast", "bf16", 10, 20)])
    page = make_page(PLACE.format("gpu"), tmp_path)
    assert "| a fast | bf16 | 200.0 clips/s, 1.00x | 100.0 clips/s, 1.00x | 3.0 GiB |" in page
    assert "Some GPU, CUDA 13.2" in page


def test_growth_is_relative_to_the_first_value(tmp_path):
    rows = [
        {"axis": axis, "value": value, **_model(name, "fp32", 1, step)}
        for axis, value, name, step in (
            ("frames", 8, "a", 10), ("frames", 8, "b", 15), ("frames", 16, "a", 20), ("frames", 16, "b", 60),
            ("window", 3, "a", 5), ("window", 3, "b", 10),
        )
    ]  # fmt: skip
    _write(tmp_path, "growth", CPU, rows=rows)
    page = make_page(PLACE.format("growth"), tmp_path)
    assert "| frames 16 | 1.00 | 2.00 | 3.00 GiB | 1.00 | 6.00 | 3.00 GiB |" in page
    assert "| window 3 | 1.00 | 1.00 | 3.00 GiB | 1.00 | 2.00 | 3.00 GiB |" in page


def test_a_place_without_an_end_is_named(tmp_path):
    _write(tmp_path, "cpu", CPU, models=[_model("a fast", "fp32", 1, 1)])
    with pytest.raises(ValueError, match="cpu: made by tools/benchmark.py page.*no line '<!-- end of cpu -->'"):
        make_page(PLACE.format("cpu").replace("end of", "no end of"), tmp_path)


def test_a_place_without_a_result_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cpu.json"):
        make_page(PLACE.format("cpu"), tmp_path)
