"""Pictures of studies: what they show and leave out."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from slowfast.analysis.plots import Curves, Point, band, plot_accuracy_and_cost, plot_curves


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were drawn, still there to be looked at."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def test_band_of_seeds():
    epochs, mean, low, high = band([{1: 10.0, 2: 20.0, 3: 90.0}, {2: 40.0, 1: 30.0}])
    assert (epochs.tolist(), mean.tolist(), low.tolist(), high.tolist()) == ([1, 2], [20, 30], [10, 20], [30, 40])
    assert all(len(part) == 0 for part in band([])) and all(len(part) == 0 for part in band([{1: 1.0}, {2: 1.0}]))


def test_twenty_configurations_stay_apart(tmp_path, drawn):
    costs = [62.0] * 5 + [85.0] * 10 + [85.2] * 5
    points = [(i + 1, Point(f"row_{i}", cost, 50.0, 80.0, [49.0, 51.0], i == 3)) for i, cost in enumerate(costs)]
    plot_accuracy_and_cost(points, tmp_path / "cost.png")
    axis, listed = drawn[0].axes
    places = sorted(line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o")
    width = np.diff(axis.get_xlim())[0]
    assert len(places) == 20 and np.diff(places).min() > 0.01 * width
    low, high = axis.get_ylim()
    assert low > -10 and high < 110  # an interval of 50 ± 80 says nothing outside 0 to 100
    assert {text.get_text() for text in axis.texts} == {str(number) for number in range(1, 21)}
    assert "4  row_3 (baseline)" in [text.get_text() for text in listed.texts]


def test_curves_have_the_same_axes(tmp_path, drawn):
    curves = [
        Curves([{1: 10.0, 2: 20.0}, {1: 0.0, 2: 30.0}], [{1: 2.0, 2: 1.0}] * 2),
        Curves([{1: 50.0, 2: 80.0}], [{1: 0.5, 2: 0.1}], is_baseline=True),
        Curves([{}], [{}]),  # nothing validated or logged
    ]
    for own in range(3):
        plot_curves(own, curves, tmp_path / "curves.png")
    limits = [[axis.get_ylim() for axis in figure.axes] for figure in drawn]
    assert limits[0] == limits[1] == limits[2]
    assert limits[0][0][0] <= 0 and limits[0][0][1] >= 80
