"""The committed results of the comparison follow from its runs, and its page states them as they are."""

import re
import statistics
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "exp" / "comparators"
TABLES = ("motion", "appearance")
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


def test_the_page_states_them():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    tables = {name: pd.read_csv(FOLDER / f"results/{name}/{name}.csv").set_index("config") for name in TABLES}
    rows = re.findall(r"^\| `(\w+)` \|.*?\| (\S+ ± \S+) \| (\S+ ± \S+) \| (\S+) \| (\S+) \|", page, flags=re.M)
    assert len(rows) == len(tables["motion"])
    for config, *figures in rows:
        of = [tables[name].loc[config] for name in TABLES]
        accuracies = [f"{row.top1:.1f} ± {row.top1_plus_minus:.1f}" for row in of]
        assert figures == [*accuracies, f"{of[0].parameters / 1e6:.2f}", f"{of[0].gflops:.2f}"], config
    in_words = re.findall(r"-?\d+\.\d ± \d+\.\d", page)
    assert len(in_words) > 2 * len(rows)
    stated = [f"{row[key]:.1f} ± {row[f'{key}_plus_minus']:.1f}" for table in tables.values()
              for _, row in table.iterrows() for key in ("top1", "top1_difference")]  # fmt: skip
    assert not [figure for figure in in_words if figure not in stated]
