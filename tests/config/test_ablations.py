"""The paper's ablation tables as configurations: short and complete. Their costs: tests/exp/test_experiments.py."""

from pathlib import Path

import pytest
import torch
import yaml

from slowfast.config.defaults import get_cfg
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs

FOLDER = Path(__file__).parents[2] / "configs" / "ablation"
FILES = sorted(FOLDER.glob("*.yaml"))

# Rows per table of arXiv 2510.18705.
ROWS = {4: 4, 5: 5, 6: 2, 7: 2, 8: 4, 9: 2, 10: 2, 11: 3}


def keys_of(tree):
    return sum(keys_of(value) if isinstance(value, dict) else 1 for value in tree.values())


def test_every_row_has_a_file():
    found = {table: len(list(FOLDER.glob(f"table{table}_*.yaml"))) for table in ROWS}
    assert found == ROWS and len(FILES) == sum(ROWS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_row_is_short(path):
    content = yaml.safe_load(path.read_text())
    assert isinstance(content.pop("_BASE_"), str)
    assert 1 <= keys_of(content) <= 3


def test_rows_of_a_table_differ():
    for table in ROWS:
        cfgs = []
        for path in FOLDER.glob(f"table{table}_*.yaml"):
            cfg = get_cfg()
            cfg.merge_from_file(str(path))
            cfgs.append(cfg.dump())
        assert len(set(cfgs)) == len(cfgs), table


# Rows of the papers' cost columns that are no experiment: fragments, frames, and the exact count.
COSTS = [
    (("uniformer_s", "emim"), 32, 221.92),
    (("uniformer_b", "joint"), 16, 258.25),
    (("uniformer_b", "joint"), 32, 777.08),
]


@pytest.mark.parametrize(("fragments", "frames", "gmacs"), COSTS)
def test_costs_of_the_fragments(tmp_path, fragments, frames, gmacs):
    base = ", ".join(str(FOLDER.parent / "_base_" / f"{name}.yaml") for name in fragments)
    (tmp_path / "child.yaml").write_text(f"_BASE_: [{base}]\nDATA: {{NUM_FRAMES: {frames}}}\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "child.yaml"))
    with torch.device("meta"):
        model = build_model(cfg)
    assert count_gmacs(model, (3, frames, 224, 224)) == pytest.approx(gmacs, rel=5e-3)
