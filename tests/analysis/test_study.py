"""Studies without training: their runs, their files, and what a report makes of known numbers."""

import pandas as pd
import pytest
import yaml

from slowfast.analysis.plots import plot_accuracies, plot_curves
from slowfast.analysis.report import markdown, summarize
from slowfast.analysis.study import Table, build_study, read_study, relevant_settings
from slowfast.utils.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write YAML files into the working directory; return the path of the last one."""
    monkeypatch.chdir(tmp_path)

    def write(**contents):
        for name, content in contents.items():
            path = tmp_path / f"{name}.yaml"
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


def tables_of(*cfgs, **content):
    return {"table": {"cfgs": list(cfgs), **content}}


def test_runs_are_every_configuration_with_every_seed(write):
    write(a={"EMIM": {"WINDOW": [3, 3]}}, b={"EMIM": {"WINDOW": [5, 5]}, "LOG_PERIOD": 3})
    study = build_study(tables_of("*.yaml", baseline="b"), [3, 1], "out", ["SOLVER.MAX_EPOCH", "2"])
    # All configurations of the first seed come first.
    assert [run.folder for run in study.runs] == ["out/a/seed3", "out/b/seed3", "out/a/seed1", "out/b/seed1"]
    assert [run.seed for run in study.runs] == [3, 3, 1, 1] and study.runs[0].cfg.SOLVER.MAX_EPOCH == 2
    assert study.tables["table"] == Table("table", "b", {"a": "a", "b": "b"})


def test_equal_settings_share_their_runs(write, tmp_path):
    write(emim={"EMIM": {"MOTION": True}}, on={"OUTPUT_DIR": "elsewhere"}, off={"EMIM": {"MOTION": False}})
    tables = {"table4": {"cfgs": ["emim.yaml", "off.yaml"]}, "table7": {"cfgs": ["on.yaml", "off.yaml"]}}
    study = build_study(tables, [0], "out", [])
    assert [run.folder for run in study.runs] == ["out/emim/seed0", "out/off/seed0"]
    assert study.tables["table7"].rows == {"on": "emim", "off": "off"}
    # Whichever of them has runs already keeps them.
    (tmp_path / "out" / "on").mkdir(parents=True)
    assert [run.folder for run in build_study(tables, [0], "out", []).runs] == ["out/on/seed0", "out/off/seed0"]


def test_settings_are_those_with_an_effect_and_defaults_of_keys_that_came_later():
    now = relevant_settings("RNG_SEED: 1\n")
    assert now["EMIM.MOTION"] is True and "RNG_SEED" not in now
    assert relevant_settings("RNG_SEED: 2\nLOG_PERIOD: 99\nTENSORBOARD: {ENABLE: false}\n") == now
    assert relevant_settings("SOLVER: {MAX_EPOCH: 3}\n") != now


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0, 0]}, r"different whole numbers from 0 on, .* found \[0, 0\]"),
        ({"seeds": ["x"]}, r"found \['x'\]"),
        ({"out": ""}, "a folder"),
        ({"overrides": ["RNG_SEED", "3"]}, "RNG_SEED cannot be set for a whole study: --seeds"),
        ({"overrides": ["TEST.ENABLE", "False"]}, "a.yaml: .* TEST.ENABLE False"),
        ({"overrides": ["TEST.CHECKPOINT_FILE_PATH", "x.pyth"]}, "TEST.CHECKPOINT_FILE_PATH 'x.pyth'; allowed: True"),
        ({"tables": tables_of("a.yaml", baseline="c")}, "baseline 'c' of table table is not in a"),
        ({"tables": {"a/b": {"cfgs": ["a.yaml"]}}}, "'a/b' cannot be the name of a table"),
        ({"tables": tables_of("a.yaml", "sub/a.yaml")}, "two files give runs called a"),
        ({"tables": tables_of("none_*.yaml")}, r"fits none_\*.yaml"),
    ],
)
def test_mistakes_are_named(write, tmp_path, change, message):
    write(a={"EMIM": {"WINDOW": [3, 3]}})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("EMIM: {WINDOW: [5, 5]}\n")
    right = {"tables": tables_of("a.yaml"), "seeds": [0], "out": "out", "overrides": []}
    with pytest.raises(UserError, match=message):
        build_study(**{**right, **change})


def test_study_file(write):
    tables = {"table8": {"cfgs": ["a.yaml"], "baseline": "a", "title": "Which blocks"}}
    content = {"out": "o", "seeds": [0, 2], "settings": {"SOLVER": {"MAX_EPOCH": 3}}, "tables": tables}
    found = read_study(write(a={}, study=content))
    assert found == {"tables": tables, "seeds": [0, 2], "out": "o", "overrides": ["SOLVER.MAX_EPOCH", 3]}
    assert build_study(**found).tables["table8"].title == "Which blocks"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"tables": {"t": {"cfgs": ["a"]}}, "seed": [0]},
            r"study.yaml: found seed: \[0\]; allowed: out \(a str\), seeds",
        ),
        ({"tables": {"t": ["a.yaml"]}}, r"tables.t must be a section with cfgs"),
        ({"tables": {"t": {"cfgs": "a.yaml"}}}, r"tables.t: found cfgs: 'a.yaml'; allowed: cfgs \(a list\)"),
    ],
)
def test_mistakes_in_a_study_file_are_named(write, content, message):
    with pytest.raises(UserError, match=message):
        read_study(write(study=content))


@pytest.fixture
def runs():
    """Two seeds of two configurations, and one seed of a third, as a report reads them."""
    found = [("off", 0, 40.0), ("off", 1, 50.0), ("on", 0, 60.0), ("on", 1, 72.0), ("far", 0, 90.0)]
    figures = {
        "train_loss": 1.5,
        "top5": 100.0,
        "mean_class": 50.0,
        "gflops": 0.5,
        "parameters": 1000,
        "clips_per_sec": 10.0,
    }
    return pd.DataFrame(
        [
            {"config": name, "seed": seed, "top1": top1, "selected_on_test": seed == 1, **figures}
            for name, seed, top1 in found
        ]
    )


def test_table_of_known_numbers(runs):
    settings = {name: {"EMIM.MOTION": name == "on", "RATE": 0.1} for name in ("off", "on", "far", "none")}
    table = Table("title", "off", {"off": "off", "also_on": "on", "far": "far", "none": "none"})
    lines = summarize(table, settings, runs).set_index("config")
    assert lines["EMIM.MOTION"].tolist() == ["false", "true", "false", "false"] and "RATE" not in lines
    on = lines.loc["also_on"]
    assert (on["same_runs_as"], on["seeds"]) == ("on", "0 1")
    # t of one degree of freedom is 12.7062, and of two values sqrt(2) times the standard error is their distance / 2.
    assert [on["top1"], on["top1_plus_minus"]] == pytest.approx([66, 12.7062 * 6], rel=1e-4)
    # Paired: the seeds 20 and 22 apart.
    assert [on["top1_difference"], on["top1_difference_plus_minus"]] == pytest.approx([21, 12.7062], rel=1e-4)
    assert lines["selected_on_test"].tolist() == ["yes", "yes", "no", "no"]
    assert lines.loc["far", "top1_difference"] == 50 and pd.isna(lines.loc["far", "top1_plus_minus"])
    assert pd.isna(lines.loc["off", "top1_difference"]) and pd.isna(lines.loc["none", "top1"])
    text = markdown(summarize(table, settings, runs))
    assert "66.00 ± 76.24" in text and "21.00 ± 12.71" in text and "nan" not in text
    assert "| 90.00 " in text and "1000" in text


def test_networks_with_arguments_of_their_own_share_a_table(runs):
    many = {f"UNIFORMER.KEY_{number}": number for number in range(9)}
    settings = {"off": {"MODEL.ARGS.stem_stride": 2}, "on": {"MODEL.ARGS.width": 40} | many}
    lines = summarize(Table("title", "off", {"off": "off", "on": "on"}), settings, runs)
    assert lines[["MODEL.ARGS.stem_stride", "MODEL.ARGS.width"]].to_numpy().tolist() == [["2", ""], ["", "40"]]
    # Eleven columns of settings have no room on a page.
    assert "MODEL.ARGS" not in markdown(lines) and "66.00 ± 76.24" in markdown(lines)


def test_pictures_have_names_and_intervals_within_what_an_accuracy_can_be(tmp_path):
    names = [f"row_{number}$" for number in range(20)]
    lines = pd.DataFrame({"config": names, "gflops": 85.2, "top1": 50.0, "top1_plus_minus": [80.0] * 19 + [None]})
    (axis,) = plot_accuracies(lines, {name: [49.0, 51.0] for name in names}, str(tmp_path / "top1")).axes
    # Epochs that not all seeds have are left out; a configuration may have nothing.
    curves = {"a": [[{1: 10.0, 2: 20.0, 3: 90.0}, {2: 40.0, 1: 30.0}], [{1: 2.0}, {1: 1.0}]], "b": [[{}], [{}]]}
    figure = plot_curves(curves, str(tmp_path / "curves"))
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"{name}\n85.2 GFLOPs" for name in names]
    assert axis.get_xlim()[0] >= -2 and axis.get_xlim()[1] <= 102
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 20], [2, 30]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.pdf", "curves.png", "top1.pdf", "top1.png"]
