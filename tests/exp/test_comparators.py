"""The committed results of the comparison follow from its runs."""

import statistics
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "exp" / "comparators"
TABLES = ("motion",)
# The 97.5 % quantile of Student's t with two degrees of freedom, over the square root of three seeds.
HALF_WIDTH = 4.302653 / 3**0.5


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_means_and_intervals_of_three_runs(name):
    runs, table = pd.read_csv(FOLDER / f"results/{name}/runs.csv"), pd.read_csv(FOLDER / f"results/{name}/{name}.csv")
    assert sorted(table["config"]) == sorted(path.stem for path in FOLDER.parents[1].glob("configs/comparators/*.yaml"))
    for row in table.itertuples():
        found = runs[runs["config"] == row.config].sort_values("seed")
        assert found["seed"].tolist() == [0, 1, 2]
        assert row.top1 == pytest.approx(found["top1"].mean(), abs=1e-3)
        assert row.top1_plus_minus == pytest.approx(HALF_WIDTH * statistics.stdev(found["top1"]), abs=1e-3)
