"""The study of the README in miniature, as a user runs it: interrupted, continued, with a configuration that fails."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slowfast.analysis.study.folders import check_folders
from slowfast.analysis.study.launch import run_missing
from slowfast.analysis.study.plan import TableSpec, build_study
from slowfast.analysis.study.report import write_report
from slowfast.analysis.study.resources import Resources
from slowfast.analysis.study.tables import setting_text
from slowfast.config.defaults import get_cfg
from slowfast.config.parser import flat_settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = re.search(r"^python (tools/ablate\.py .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)[1]
OF_THE_TABLE = ("RNG_SEED", "OUTPUT_DIR", "UNIFORMER.STAGE", "EMIM.MOTION", "EMIM.BACKEND")


def miniature(settings, data_dir):
    """Return the overrides that turn a recipe of the paper into a run of seconds."""
    recipe = get_cfg()
    recipe.merge_from_file(str(ROOT / "configs" / "emim_s16_ssv1_in1k.yaml"))
    target = get_cfg()
    target.merge_from_list([word for pair in flat_settings(settings).items() for word in pair])
    target.DATA.PATH_TO_DATA_DIR = str(data_dir)
    target.TEST.NUM_ENSEMBLE_VIEWS = target.TEST.NUM_SPATIAL_CROPS = 1
    target.TENSORBOARD.IMAGES_PERIOD = 0
    values, wanted = flat_settings(recipe), flat_settings(target)
    changed = [key for key in wanted if wanted[key] != values[key] and not key.startswith(OF_THE_TABLE)]
    text = {key: wanted[key] if isinstance(wanted[key], str) else setting_text(wanted[key]) for key in changed}
    return [word for pair in text.items() for word in pair]


def wait_for(pattern, folder, process):
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, settings, data_dir):
    """Folder, configuration files and overrides of a study that was interrupted and continued, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "broken.yaml").write_text(f"_BASE_: {ROOT}/configs/emim_s16_ssv1_in1k.yaml\nEMIM: {{BACKEND: none}}\n")
    words = shlex.split(COMMAND)
    words[words.index("--out") + 1] = str(folder / "out")
    first_seed = words.index("--seeds") + 1
    words[first_seed : first_seed + 3] = ["0"]
    overrides = miniature(settings, data_dir)
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, *words, *overrides], **options)
    try:
        wait_for("out/*/seed0/checkpoints/epoch_*.pyth", folder, process)
        process.send_signal(signal.SIGINT)
        interrupted = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    files = words.index("--cfgs") + 1
    words[files:files] = [str(folder / "broken.yaml")]
    again = subprocess.run([sys.executable, *words, *overrides], timeout=300, check=False, **options)
    cfgs = [str(path) for path in sorted((ROOT / "configs" / "ablation").glob("table7_*.yaml"))]
    return {
        "out": folder / "out",
        "cfgs": cfgs,
        "overrides": overrides,
        "interrupted": (process.returncode, interrupted),
        "again": (again.returncode, again.stdout),
    }


def study_of(ran, *overrides, cfgs=None):
    specs = [TableSpec("table", cfgs or ran["cfgs"], "table7_motion_off")]
    return build_study(specs, [0], str(ran["out"]), [*ran["overrides"], *overrides])


def test_interrupted_study_continues(ran):
    status, printed = ran["interrupted"]
    assert status == 130
    assert "SIGINT: asking 1 runs to save and end" in printed and "the same command continues" in printed
    consoles = [path.read_text() for path in ran["out"].glob("table7_*/seed0/console.log")]
    continued = [console for console in consoles if console.count("$ bash") == 2]
    # None only where the first run had ended when the signal came.
    assert len(consoles) == 2 and len(continued) <= 1
    assert all("resumed from" in console for console in continued)


def test_failed_run_is_shown_and_stops_no_other(ran):
    status, printed = ran["again"]
    assert status == 1
    last = printed.strip().splitlines()[-1]
    assert last.startswith("1 of 3 runs failed: broken seed 0")
    assert "error: EMIM.BACKEND" in printed and "FAILED with status 2" in printed
    for name in ("table7_motion_off", "table7_motion_on"):
        assert (ran["out"] / name / "seed0" / "test_results.json").is_file()
    assert "table7_motion_on seed 0: top-1" in printed
    assert "Not finished, and not part of the means: broken seed 0." in (ran["out"] / "table.md").read_text()


def test_finished_runs_are_not_repeated(ran, caplog):
    results = sorted(ran["out"].glob("*/seed0/test_results.json"))
    before = [path.stat().st_mtime_ns for path in results]
    # What a run computes does not depend on its log or its checkpoints.
    study = study_of(ran, "LOG_PERIOD", "7", "TRAIN.KEEP_CHECKPOINTS", "3")
    with caplog.at_level("INFO", logger="slowfast"):
        assert run_missing(study, Resources(jobs=1, processes_per_run=1, gpus=(), num_cores=1)) == []
    assert "2 runs, 2 of them finished already" in caplog.text
    assert len(before) == 2 and [path.stat().st_mtime_ns for path in results] == before


def test_other_settings_are_an_error_that_names_them(ran):
    study = study_of(ran, "SOLVER.MAX_EPOCH", "3")
    with pytest.raises(ValueError, match=r"SOLVER.MAX_EPOCH is 2 there and 3 here.*another --out"):
        check_folders(study.runs())
    broken = [str(ran["out"].parent / "broken.yaml")]
    never_trained = build_study([TableSpec("table", broken)], [0], str(ran["out"]), ["EMIM.BACKEND", "auto"])
    check_folders(never_trained.runs())  # it has nothing to lose


def test_report_of_known_numbers(ran, tmp_path):
    """Folders of two seeds whose top-1 is known: the table, its interval and differences, and the page."""
    top1 = {"table7_motion_off": (40.0, 50.0), "table7_motion_on": (60.0, 72.0)}
    out = tmp_path / "out"
    for name, values in top1.items():
        for seed, value in enumerate(values):
            folder = out / name / f"seed{seed}"
            shutil.copytree(ran["out"] / name / "seed0", folder)
            results = json.loads((folder / "test_results.json").read_text())
            results["config"] = results["config"].replace("RNG_SEED: 0", f"RNG_SEED: {seed}")
            (folder / "config.yaml").write_text(results["config"])
            (folder / "test_results.json").write_text(json.dumps({**results, "top1": value}))
    specs = [TableSpec("table", ran["cfgs"], "table7_motion_off", "On <b> and | off")]
    study = build_study(specs, [0, 1, 2], str(out), ran["overrides"])
    page = Path(write_report(study, ["tools/ablate.py", "<b>"])).read_text(encoding="utf-8")

    with open(out / "table.csv") as file:
        off, on = csv.DictReader(file)
    assert (off["EMIM.MOTION"], on["EMIM.MOTION"]) == ("false", "true") and on["seeds"] == "0 1"
    # t of one degree of freedom is 12.7062, and of two values sqrt(2) times the standard error is their distance / 2.
    assert [float(on[key]) for key in ("top1", "top1_plus_minus")] == pytest.approx([66, 12.7062 * 6], rel=1e-4)
    assert float(on["top1_difference"]) == pytest.approx(21) and on["top1_difference_seeds"] == "0 1"
    assert float(on["top1_difference_plus_minus"]) == pytest.approx(12.7062, rel=1e-4)
    assert off["top1_difference"] == "" and int(on["parameters"]) > int(off["parameters"])
    text = (out / "table.md").read_text()
    assert "| table7_motion_on | true | 66.00 ± 76.24 |" in text and "| +21.00 ± 12.71 | 2 |" in text
    assert "Not finished, and not part of the means: table7_motion_off seed 2, table7_motion_on seed 2." in text
    with open(out / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["config"], row["seed"], float(row["top1"])) for row in rows[:2]] == [
        ("table7_motion_off", "0", 40), ("table7_motion_on", "0", 60),
    ]  # fmt: skip
    assert len(rows) == 4 and all(int(row["num_videos"]) == 17 and float(row["wall_sec"]) > 0 for row in rows)
    facts = json.loads((out / "study.json").read_text())
    assert facts["command"] == ["tools/ablate.py", "<b>"] and facts["seeds"] == [0, 1, 2] and facts["num_runs"] == 6
    assert facts["versions"][0]["torch"] and facts["devices"][0].startswith("cpu") and len(facts["git_commits"]) == 1

    assert set(re.findall(r'src="(.{11})', page)) == {"data:image/"} and page.count("<figure") == 5
    assert not re.search(r"https?:|<script|<link|url\(|<b>", page)
    for words in ("table7_motion_on", "66.00 ± 76.24", "cpu (", "&lt;b&gt;", "torch 2", "Confusion", "Not finished"):
        assert words in page
    for name in ("table.png", "plots/table7_motion_on_confusion.png", "plots/table_table7_motion_on_curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_resources_are_divided(monkeypatch, caplog):
    for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    resources = Resources(jobs=3, processes_per_run=2, gpus=("4", "5", "6", "7"), num_cores=16)
    environments = [resources.environment(slot) for slot in range(3)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["4,5", "6,7", "4,5"]
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"2"}
    assert environments[0]["NPROC_PER_NODE"] == "2" and "MASTER_PORT" not in environments[0]
    resources.warn_if_short(num_workers=1)
    assert "6 processes at a time share 4 GPUs" in caplog.text and "cores" not in caplog.text
    Resources(jobs=3, processes_per_run=1, gpus=(), num_cores=2).warn_if_short(num_workers=1)
    assert "share 2 cores" in caplog.text
    assert "CUDA_VISIBLE_DEVICES" not in Resources(1, 1, (), 2).environment(0)
    assert "OMP_NUM_THREADS" not in Resources(1, 1, (), 2).environment(0)
    assert os.environ["MASTER_PORT"] == "1"
