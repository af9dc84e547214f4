"""A study in miniature, as a user runs it: interrupted, continued, with a configuration that fails."""

import json
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from helpers_engine import ROOT, run_tool

from slowfast.analysis.report import write_report
from slowfast.analysis.study import build_study, check_folders, run_missing
from slowfast.utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory, settings, data_dir):
    """Folder of a study that was interrupted and continued with a further configuration, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    settings = {**settings, "DEVICE": "cpu"}
    settings["DATA"]["PATH_TO_DATA_DIR"] = str(data_dir)
    settings["SOLVER"] |= {"MAX_EPOCH": 20}  # long enough to be interrupted
    settings["TEST"] |= {"NUM_ENSEMBLE_VIEWS": 1, "NUM_SPATIAL_CROPS": 1}
    (folder / "off.yaml").write_text(yaml.safe_dump(settings | {"EMIM": {"WINDOW": [3, 3], "MOTION": False}}))
    (folder / "broken.yaml").write_text("_BASE_: off.yaml\nMODEL: {PRETRAINED: none.pth}\n")
    arguments = ["--seeds", 0, "--out", folder / "out", "TENSORBOARD.IMAGES_PERIOD", 0]
    command = [sys.executable, ROOT / "tools" / "ablate.py", "--cfgs", folder / "off.yaml", *arguments]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 300
        while not list(folder.glob("out/*/seed0/checkpoints/epoch_*.pyth")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()  # not SIGINT, which is ignored where the tests run in the background
        interrupted = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    again = run_tool("ablate.py", "--cfgs", folder / "broken.yaml", folder / "off.yaml", *arguments)
    return {"folder": folder, "interrupted": (process.returncode, interrupted), "again": again}


def study_of(ran, *overrides, cfg="off.yaml", seeds=(0,), out=None):
    table = {"table": {"cfgs": [str(ran["folder"] / cfg)], "baseline": cfg.partition(".")[0]}}
    out = str(out or ran["folder"] / "out")
    return build_study(table, seeds, out, ["TENSORBOARD.IMAGES_PERIOD", "0", *overrides])


def test_interrupted_study_resumes(ran):
    status, printed = ran["interrupted"]
    assert status == 143 and "Traceback" not in printed
    assert "resumed from" in (ran["folder"] / "out" / "off" / "seed0" / "console.log").read_text()


def test_failed_run_is_shown_and_stops_no_other(ran):
    again = ran["again"]
    assert again.returncode == 1, again.stderr
    assert again.stdout.strip().endswith("1 of 2 runs failed: broken seed 0")
    assert "FAILED with status 2" in again.stdout and "none.pth" in again.stdout
    assert "off seed 0: top-1" in again.stdout
    assert "not part of the means: broken seed 0" in (ran["folder"] / "out" / "table.md").read_text()


def test_finished_runs_are_not_repeated(ran, caplog):
    # What a run computes does not depend on its log or its checkpoints.
    study = study_of(ran, "LOG_PERIOD", "7", "TRAIN.KEEP_CHECKPOINTS", "3")
    with caplog.at_level("INFO", logger="slowfast"):
        assert run_missing(study, jobs=2) == []
    assert "1 runs, all finished already" in caplog.text
    with pytest.raises(UserError, match="--jobs is 0; allowed: at least 1"):
        run_missing(study, jobs=0)


def test_other_settings_are_an_error_that_names_them(ran):
    with pytest.raises(UserError, match=r"SOLVER.MAX_EPOCH is 20 there and 3 here.*another --out"):
        check_folders(study_of(ran, "SOLVER.MAX_EPOCH", "3").runs)
    check_folders(study_of(ran, "SOLVER.MAX_EPOCH", "3", cfg="broken.yaml").runs)  # it has nothing to lose


def test_report_of_finished_runs(ran, tmp_path):
    for seed, top1 in ((0, 40.0), (1, 50.0)):
        folder = shutil.copytree(ran["folder"] / "out" / "off" / "seed0", tmp_path / "off" / f"seed{seed}")
        results = json.loads((folder / "test_results.json").read_text())
        (folder / "test_results.json").write_text(json.dumps({**results, "top1": top1}))
    write_report(study_of(ran, seeds=(0, 1, 2), out=tmp_path), ["tools/ablate.py", "--out", "a b"])
    frame = pd.read_csv(tmp_path / "runs.csv")
    assert frame["top1"].tolist() == [40, 50] and set(frame["num_videos"]) == {17} and (frame["parameters"] > 0).all()
    assert pd.read_csv(tmp_path / "table.csv")["top1"].tolist() == [45]
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts["command"] == "tools/ablate.py --out 'a b'" and facts["seed"] == [0, 1]
    assert "torch 2" in facts["versions"][0] and facts["device"][0].startswith("cpu") and len(facts["git_commit"]) == 1
    assert "off seed 2" in (tmp_path / "table.md").read_text()
    for name in ("table.png", "table_curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="none of the 1 runs in .* is finished"):
        write_report(study_of(ran, cfg="broken.yaml"), [])


@pytest.mark.parametrize("tool", ["ablate.py", "benchmark.py", "list_experiments.py"])
def test_help_imports_nothing_heavy(tool):
    command = [sys.executable, "-X", "importtime", ROOT / "tools" / tool, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and "usage" in shown.stdout
    assert not [line for line in shown.stderr.splitlines() if "torch" in line or "numpy" in line]
