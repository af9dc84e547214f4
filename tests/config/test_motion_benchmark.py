"""The motion benchmark's configurations: short, buildable, and alike in all that a row of a table is not about."""

from pathlib import Path

import pytest
import torch
import yaml

from slowfast.analysis.study import build_study, read_study
from slowfast.config.defaults import get_cfg
from slowfast.models import build_model

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "motion_benchmark").glob("*.yaml"))

# What a row may change: which attention, and which question about which videos.
MAY_DIFFER = {
    "UNIFORMER": {"STAGE3_ATTENTION", "STAGE4_ATTENTION"},
    "EMIM": {"WINDOW", "MOTION", "SAMPLING", "TEMPORAL_INTERVAL", "LAST_FRAME", "ZERO_INIT_MOTION"},
    "DATA": {"PATH_TO_DATA_DIR", "LABEL_PATH_TEMPLATE", "CLASS_NAMES_FILE"},
}


def load(path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def settings(cfg):
    tree = yaml.safe_load(cfg.dump())
    return {
        section: {key: value for key, value in content.items() if key not in MAY_DIFFER.get(section, ())}
        if isinstance(content, dict)
        else content
        for section, content in tree.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_row_is_short_builds_and_has_the_common_budget(path):
    content = yaml.safe_load(path.read_text())
    content.pop("_BASE_")
    assert 1 <= sum(len(section) for section in content.values()) <= 3
    cfg = load(path)
    with torch.device("meta"):
        build_model(cfg)
    assert settings(cfg) == settings(load(ROOT / "configs" / "_base_" / "motion_benchmark.yaml"))


def test_networks_have_two_blocks_to_alternate_and_a_window_has_displacements_to_see():
    cfg = load(FILES[0])
    assert min(cfg.UNIFORMER.DEPTH[2:]) >= 2
    assert cfg.DATA.TRAIN_CROP_SIZE // 16 >= 4  # tokens of stage 3 along a side


def test_rows_that_several_tables_share_are_the_same_run():
    def row(name):
        return load(ROOT / "configs" / "motion_benchmark" / f"{name}.yaml").dump()

    assert row("table4_motion_emim") == row("table8_eo") == row("table7_motion_on")
    assert row("table4_motion_joint") == row("table8_oo")
    rows = [path.read_text() for path in FILES]
    assert len(set(rows)) == len(rows)


def test_studies_name_existing_rows():
    for path in (ROOT / "exp" / "motion_benchmark").glob("study*.yaml"):
        for table in yaml.safe_load(path.read_text())["tables"].values():
            names = [file.stem for pattern in table["cfgs"] for file in ROOT.glob(pattern)]
            assert len(names) >= 2 and table["baseline"] in names


@pytest.mark.parametrize("name, num_variants", [("study", 10), ("study_windows", 13)])
def test_studies_resolve_and_share_runs(monkeypatch, name, num_variants):
    monkeypatch.chdir(ROOT)
    study = build_study(**read_study(f"exp/motion_benchmark/{name}.yaml"))
    assert len({run.seed for run in study.runs}) >= 3 and len({run.name for run in study.runs}) == num_variants
    assert all(table.baseline for table in study.tables.values())
