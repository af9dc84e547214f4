"""The committed results of the motion benchmark are consistent, and the documents state them as they are."""

import csv
import json
import re
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "exp" / "motion_benchmark" / "results"
STUDIES = sorted(path.parent for path in RESULTS.glob("*/study.json"))
# The 97.5 % quantile of Student's t with two degrees of freedom, over the square root of three seeds.
HALF_WIDTH = 4.302653 / 3**0.5


def _rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_studies_are_there():
    assert [path.name for path in STUDIES] == ["budget", "study"]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_tables_are_the_means_and_intervals_of_the_runs(folder):
    runs, facts = _rows(folder / "runs.csv"), json.loads((folder / "study.json").read_text())
    assert facts["num_runs"] == len(runs) == len(facts["runs"]) and facts["seeds"] == [0, 1, 2]
    assert facts["git_commits"] and all(versions["torch"] for versions in facts["versions"])
    for table in facts["tables"]:
        for row in _rows(folder / f"{table}.csv"):
            found = [float(run["top1"]) for run in runs if run["config"] == (row["same_runs_as"] or row["config"])]
            assert len(found) == 3
            assert float(row["top1"]) == pytest.approx(statistics.mean(found), abs=1e-3)
            half = HALF_WIDTH * statistics.stdev(found)
            assert float(row["top1_plus_minus"]) == pytest.approx(half, abs=1e-3)


@pytest.mark.parametrize("page", ["README.md", "exp/motion_benchmark/README.md"])
def test_stated_accuracies_are_those_of_the_tables(page):
    stated = re.findall(r"-?\d+\.\d+ ± \d+\.\d+", (ROOT / page).read_text(encoding="utf-8").replace("\n", " "))
    tables = "".join(path.read_text(encoding="utf-8") for path in RESULTS.glob("*/table*.md"))
    assert stated or page == "README.md"
    assert not [figure for figure in stated if f" {figure} " not in tables]


def test_nothing_names_the_machine_that_made_the_results():
    for path in [*RESULTS.glob("*/*.md"), *RESULTS.glob("*/*.csv"), *RESULTS.glob("*/*.json")]:
        # Folders and commands are relative to the repository.
        assert not re.search(r"[\s\",]/\w", path.read_text(encoding="utf-8")), path


def test_pictures_are_few():
    listed = subprocess.run(["git", "ls-files", "*.png"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert len(listed.stdout.splitlines()) <= 4
