"""What a study consists of, and how it is written down; nothing is trained here."""

import csv

import pytest
import yaml

from slowfast.analysis.study.outcome import wall_sec
from slowfast.analysis.study.page import Figures, Section, page
from slowfast.analysis.study.plan import TableSpec, build_study, configuration_name, read_study, relevant_settings
from slowfast.analysis.study.tables import Column, columns, markdown, write_table_csv


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


def line(config, settings, number=1, **values):
    names = ("top1", "top5", "mean_class")
    accuracies = {key: None for name in names for key in (name, f"{name}_plus_minus")}
    others = {"gflops": 0.07, "parameters": 1000, "clips_per_sec": 10.0, "train_loss": 1.5}
    fixed = {"number": number, "config": config, "same_runs_as": "", "settings": settings, "seeds": [0]}
    return {**fixed, **accuracies, **others, **values}


def test_runs_are_every_configuration_with_every_seed(write):
    write(a={"EMIM": {"WINDOW": [3, 3]}}, b={"EMIM": {"WINDOW": [5, 5]}, "LOG_PERIOD": 3})
    study = build_study([TableSpec("table", ["*.yaml"], "b")], [3, 1], "out", ["SOLVER.MAX_EPOCH", "2"])
    # All configurations of the first seed come first.
    assert [run.folder for run in study.runs()] == ["out/a/seed3", "out/b/seed3", "out/a/seed1", "out/b/seed1"]
    assert {run.settings["RNG_SEED"] for run in study.runs()} == {1, 3}
    assert study.variants()[0].cfg.SOLVER.MAX_EPOCH == 2
    # How often something is logged is no difference.
    assert study.tables[0].varied_keys() == ["EMIM.WINDOW"]


def test_equal_settings_share_their_runs(write, tmp_path):
    write(emim={"EMIM": {"MOTION": True}}, on={"OUTPUT_DIR": "elsewhere"}, off={"EMIM": {"MOTION": False}})
    specs = [TableSpec("table4", ["emim.yaml", "off.yaml"]), TableSpec("table7", ["on.yaml", "off.yaml"])]
    study = build_study(specs, [0], "out", [])
    assert [run.folder for run in study.runs()] == ["out/emim/seed0", "out/off/seed0"]
    assert [row.variant.name for row in study.tables[1].rows] == ["emim", "off"]
    assert [row.name for row in study.tables[1].rows] == ["on", "off"]
    # Whichever of them has runs already keeps them.
    (tmp_path / "out" / "on").mkdir(parents=True)
    assert [run.folder for run in build_study(specs, [0], "out", []).runs()] == ["out/on/seed0", "out/off/seed0"]


def test_configuration_is_named_after_its_file_or_experiment():
    assert configuration_name("configs/ablation/table8_eo.yaml") == "table8_eo"
    assert configuration_name("exp/quickstart/config.yaml") == "quickstart"


def test_settings_of_before_a_key_existed_have_its_default():
    now = relevant_settings("RNG_SEED: 1\n")
    assert now["RNG_SEED"] == 1 and now["EMIM.MOTION"] is True
    assert relevant_settings("RNG_SEED: 1\nLOG_PERIOD: 99\nTENSORBOARD: {ENABLE: false}\n") == now
    assert relevant_settings("RNG_SEED: 1\nSOLVER: {MAX_EPOCH: 3}\n") != now


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0, 0]}, r"different numbers from 0 on, .* found \[0, 0\]"),
        ({"seeds": []}, "at least one, found"),
        ({"overrides": ["RNG_SEED", "3"]}, "RNG_SEED cannot be set for a whole study: --seeds"),
        ({"overrides": ["TEST.ENABLE", "False"]}, "a.yaml: TEST.ENABLE is False"),
        ({"overrides": ["TEST.CHECKPOINT_FILE_PATH", "x.pyth"]}, "every seed would be tested with that file"),
        ({"specs": [TableSpec("table", ["a.yaml"], "c")]}, "baseline 'c' of table table is none of its rows: a"),
        ({"specs": [TableSpec("a/b", ["a.yaml"])]}, "'a/b' cannot be the name of a table"),
        ({"specs": [TableSpec("runs", ["a.yaml"])]}, "'runs' cannot be"),
        ({"specs": [TableSpec("table", ["a.yaml", "a.yaml"])]}, "two configurations called a: a.yaml, a.yaml"),
        ({"specs": [TableSpec("x", ["a.yaml"]), TableSpec("y", ["sub/a.yaml"])]}, "two files give runs called a"),
    ],
)
def test_mistakes_are_named(write, tmp_path, change, message):
    write(a={"EMIM": {"WINDOW": [3, 3]}})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("EMIM: {WINDOW: [5, 5]}\n")
    right = {"specs": [TableSpec("table", ["a.yaml"])], "seeds": [0], "out": "out", "overrides": []}
    with pytest.raises(ValueError, match=message):
        build_study(**{**right, **change})


def test_missing_file_is_named(write):
    write(a={})
    with pytest.raises(FileNotFoundError, match=r"fits configs/none_\*.yaml"):
        build_study([TableSpec("table", ["configs/none_*.yaml"])], [0], "out", [])


def test_study_file(write):
    tables = {"table8": {"cfgs": ["a.yaml"], "baseline": "a", "title": "Which blocks"}}
    content = {"out": "o", "seeds": [0, 2], "settings": {"SOLVER": {"MAX_EPOCH": 3}}, "tables": tables}
    found = read_study(write(study=content))
    assert found["tables"] == [TableSpec("table8", ["a.yaml"], "a", "Which blocks")]
    assert (found["out"], found["seeds"], found["overrides"]) == ("o", [0, 2], ["SOLVER.MAX_EPOCH", 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tables": {"t": {"cfgs": ["a"]}}, "seed": [0]}, "study.yaml: unknown key 'seed'; allowed: out, seeds"),
        ({"seeds": [0]}, "study.yaml: tables is missing"),
        ({"tables": {"t": ["a.yaml"]}}, r"tables.t must be a section with cfgs"),
        ({"tables": {"t": {"cfgs": "a.yaml"}}}, r"tables.t: cfgs takes a list, found 'a.yaml'"),
        ({"tables": {"t": {"cfgs": ["a"]}}, "seeds": ["x"]}, r"seeds must be whole numbers, found \['x'\]"),
        ("tables: {t: {cfgs: [a]}, t: {cfgs: [b]}}", "'t' is given twice"),
    ],
)
def test_mistakes_in_a_study_file_are_named(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_study(write(study=content))


def test_time_of_a_run_leaves_out_the_pauses():
    events = [("start", 10), ("train_step", 12), ("val", 15), ("start", 100), ("test", 107), ("start", 200)]
    assert wall_sec([{"event": event, "time": time} for event, time in events]) == 5 + 7
    assert wall_sec([]) == 0


def test_table_shows_the_keys_that_differ(write, tmp_path):
    write(a={"EMIM": {"MOTION": False}}, b={})
    (table,) = build_study([TableSpec("table", ["a.yaml", "b.yaml"], "a")], [0], "out", []).tables
    difference = {"top1_difference": None, "top1_difference_plus_minus": None, "top1_difference_seeds": []}
    lines = [
        line("a", {"EMIM.MOTION": False}, 1, top1=50.0, top1_plus_minus=2.5, **difference),
        line("b", {"EMIM.MOTION": True}, 2, top1=60.0, **{**difference, "top1_difference": 10.0}),
    ]
    shown = {column.heading: column.cells for column in columns(table, lines)}
    assert shown["MOTION"] == ["false", "true"]
    assert shown["top-1 (%)"] == ["50.00 ± 2.50", "60.00"]  # one seed alone has no interval
    assert shown["top-1 minus baseline"] == ["baseline", "+10.00"] and shown["top-5 (%)"] == ["–", "–"]
    write_table_csv(str(tmp_path / "table.csv"), table, lines)
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["EMIM.MOTION"] for row in rows] == ["false", "true"] and rows[1]["top1_plus_minus"] == ""


def test_many_keys_become_one_column(write):
    values = {"BASE_LR": 0.5, "MAX_EPOCH": 3, "EPS": 0.5, "MOMENTUM": 0.5, "WEIGHT_DECAY": 0.5}
    write(a={}, b={"SOLVER": values})
    (table,) = build_study([TableSpec("table", ["*.yaml"])], [0], "out", []).tables
    lines = [line(row.name, {key: row.variant.settings[key] for key in table.varied_keys()}) for row in table.rows]
    shown = {column.heading: column.cells for column in columns(table, lines)}
    assert shown["settings"] == ["–", "BASE_LR 0.5, EPS 0.5, MAX_EPOCH 3, MOMENTUM 0.5, WEIGHT_DECAY 0.5"]


def test_markdown_and_page_escape_what_they_are_given(tmp_path):
    shown = [Column("#", ["1"]), Column("a|b", ["<i>"], is_text=True)]
    assert markdown(shown) == "| # | a\\|b |\n| ---: | --- |\n| 1 | <i> |\n"
    (tmp_path / "p.png").write_bytes(b"\x89PNG")
    figures = [Figures("<h>", "", [('"x"', tmp_path / "p.png")])]
    sections = [Section(f"<{name}>", shown, 0, ["<note>"], figures) for name in "ab"]
    text = page("<t>", ["<how>"], sections, [("<k>", "<v>")])
    assert not [words for words in ("a", "b", "i", "note", "t", "how", "k", "v", "h") if f"<{words}>" in text]
    assert '"x"' not in text and "&quot;x&quot;" in text
    assert text.count('src="data:image/png;base64,iVBORw==') == 2 and 'href="#part1"' in text
