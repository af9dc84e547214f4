"""Reading configurations: inheritance, overrides, and mistakes that must not pass silently."""

import os

import pytest

from slowfast.config import load_cfg
from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.utils.files import ROOT


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{list(files)[-1]}.yaml")


def test_later_files_win(tmp_path):
    path = write(
        tmp_path,
        one="SOLVER: {MAX_EPOCH: 1, BASE_LR: 1e-3}\nOUTPUT_DIR: one\n",
        two="SOLVER: {MAX_EPOCH: 2}\n",
        recipe="_BASE_: [one.yaml, two.yaml]\nEMIM: {WINDOW: [5, 7]}\n",
        experiment="_BASE_: recipe.yaml\nOUTPUT_DIR: experiment\n",
    )
    cfg = get_cfg()
    cfg.merge_from_file(path)
    cfg.merge_from_list(["EMIM.MOTION", "False", "SOLVER.WARMUP_EPOCHS", "3", "UNIFORMER.STAGE3_ATTENTION", "[joint]"])
    assert (cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.BASE_LR, cfg.OUTPUT_DIR) == (2, 1e-3, "experiment")
    assert (cfg.EMIM.WINDOW, cfg.EMIM.MOTION, cfg.UNIFORMER.STAGE3_ATTENTION) == ([5, 7], False, ["joint"])
    assert cfg.SOLVER.WARMUP_EPOCHS == 3.0 and isinstance(cfg.SOLVER.WARMUP_EPOCHS, float)
    assert get_cfg().OUTPUT_DIR == ""


def test_a_base_of_two_bases_does_not_undo_the_first(tmp_path):
    path = write(
        tmp_path,
        base="SOLVER: {BASE_LR: 0.1}\n",
        first="_BASE_: base.yaml\nSOLVER: {BASE_LR: 0.5}\n",
        second="_BASE_: base.yaml\nLOG_PERIOD: 7\n",
        mine="_BASE_: [first.yaml, second.yaml]\n",
    )
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.SOLVER.BASE_LR, cfg.LOG_PERIOD) == (0.5, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER: {BASELR: 0.1}", "cfg.yaml: unknown key SOLVER.BASELR; did you mean SOLVER.BASE_LR"),
        ("NUM_GPUS: 8", "unknown key NUM_GPUS; allowed here: .*TRAIN"),
        ("SOLVER: {MAX_EPOCH: 1.5}", "SOLVER.MAX_EPOCH takes a whole number such as 60, found 1.5"),
        ("EMIM: {WINDOW: 7}", "EMIM.WINDOW takes a list"),
        ("EMIM: {WINDOW: [7, seven]}", r"EMIM.WINDOW\[1\] takes a whole number such as 7, found 'seven'"),
        ("TRAIN: {ENABLE: 1}", "TRAIN.ENABLE takes True or False such as True, found 1"),
        ("TRAIN: 3", "TRAIN is a section"),
        ("OUTPUT_DIR: {A: 1}", "OUTPUT_DIR takes text, found a section"),
        ("SOLVER: {MAX_EPOCH: 1}\nSOLVER: {BASE_LR: 0.1}", "line 2: key 'SOLVER' is given twice"),
        ("- a list", "mapping of sections"),
        ("a: [", r"cfg.yaml, line 1, column \d: this is not valid YAML: \w[^\n]*$"),
        ("SOLVER:\n\tMAX_EPOCH: 3\n", "line 2, column 1: this is not valid YAML: found character '.t'[^\n]*$"),
        ("\0", "this is not valid YAML: unacceptable character[^\n]*$"),
        ("[1, 2]: 3", r"line 1: a key must be a word, found \[1, 2\]"),
        ("_BASE_: missing.yaml", "missing.yaml does not exist"),
        ("_BASE_: cfg.yaml", "runs in a circle"),
        ("_BASE_: 5", "_BASE_ must be a path"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        get_cfg().merge_from_file(write(tmp_path, cfg=text))


def test_relative_paths_start_at_the_repository_wherever_one_is(tmp_path, monkeypatch):
    path = write(tmp_path, mine="DATA: {PATH_TO_DATA_DIR: data/none}\nMODEL: {PRETRAINED: exp/none}\n")
    monkeypatch.chdir(tmp_path)
    cfg = load_cfg("mine.yaml")
    assert str(ROOT / "output" / path.lstrip("/").removesuffix(".yaml")) == cfg.OUTPUT_DIR
    with pytest.raises(ValueError, match=f"{ROOT}/data/none/train.csv does not exist"):
        build_dataset(cfg, "train")
    assert str(ROOT / "out") == load_cfg("mine.yaml", ["OUTPUT_DIR", "out"]).OUTPUT_DIR
    assert os.path.expanduser("~/out") == load_cfg("mine.yaml", ["OUTPUT_DIR", "~/out"]).OUTPUT_DIR
    assert str(ROOT / "exp/quickstart/output") == load_cfg(str(ROOT / "exp/quickstart/config.yaml")).OUTPUT_DIR
    with pytest.raises(ValueError, match='DATA.PATH_TO_DATA_DIR is ""'):
        build_dataset(load_cfg("mine.yaml", ["DATA.PATH_TO_DATA_DIR", ""]), "train")


def test_dump_is_a_configuration(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "1e-7", "AUG.AA_TYPE", "", "EMIM.WINDOW", "[3, 5]"])
    again = get_cfg()
    again.merge_from_file(write(tmp_path, dumped=cfg.dump()))
    assert again == cfg


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("SOLVER.BASE_LR", -1.0, "above 0"),
        ("SOLVER.BASE_LR", "nan", "above 0"),
        ("SOLVER.BETAS", [0.9, 1.0], "2 values, each at least 0 and below 1"),
        ("DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.5, 0.1], "2 values, each above 0 and at most 1, rising"),
        ("TEST.CHECKPOINT", 0, "best or last or at least 1"),
        ("TEST.CHECKPOINT", "lst", "best or last or at least 1"),
        ("TRAIN.MICRO_BATCH_SIZE", -1, "auto or at least 0"),
        ("EMIM.BACKEND", "cudnn", "auto | reference | dense | natten | triton"),
    ],
)
def test_ranges_are_checked_where_a_value_comes_from(key, value, allowed):
    with pytest.raises(ValueError, match="command line: ") as error:
        get_cfg().merge_from_list([key, value])
    assert f"{key} is " in str(error.value) and str(error.value).endswith(f"allowed: {allowed}")


def test_arguments_of_the_model_are_a_mapping_that_files_add_to(tmp_path):
    base = "MODEL: {ARGS: {alpha: 8, depth: [1, 2]}}\n"
    path = write(tmp_path, base=base, mine="_BASE_: base.yaml\nMODEL: {ARGS: {alpha: null, name: a}}\n")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    cfg.merge_from_list(["MODEL.ARGS.rate", "1e-4", "MODEL.ARGS", "{flag: True}"])
    assert cfg.MODEL.ARGS == {"depth": [1, 2], "name": "a", "rate": 1e-4, "flag": True}
    again = get_cfg()
    again.merge_from_text(cfg.dump(), "")
    assert again == cfg and get_cfg().MODEL.ARGS == {}
    for value, message in (
        ("x", "takes a mapping of names to values, found 'x'"),
        ("{a: {b: 1}}", "ARGS.a takes a plain"),
    ):
        with pytest.raises(ValueError, match=message):
            get_cfg().merge_from_list(["MODEL.ARGS", value])
