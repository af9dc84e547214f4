"""Every configuration against the tables of the papers and of the released runs, and the page that lists them."""

import os
import re
from pathlib import Path

import pytest
import yaml

from slowfast.analysis import tables as experiments
from slowfast.config import load_cfg
from slowfast.engine.run import main

ROOT = Path(__file__).parents[2]
ALIAS = "uniformer_s16_sthv1_pre1k_uniformer_extra_attn64_ATTN_ATTN_7_7_LG"

DEPTH = {"S": [3, 4, 8, 3], "B": [5, 8, 20, 7]}
IN1K = {"S": "pretrained/uniformer_small_in1k.pth", "B": "pretrained/uniformer_base_in1k.pth"}
NONE, STAGE3, STAGES123 = [0, 0, 0, 0], [0, 0, 20, 0], [5, 8, 20, 0]

# The nine runs that EMIM's authors released, as their command lines had them: size, frames, start, videos of a step on
# all nodes, learning rate, epochs, warm-up, stochastic depth, gradient clipping, seed, clips, crops, checkpointing.
RELEASED = {
    "emim_s16_ssv1_in1k": ("S", 16, "IN", 32, 2e-4, 60, 5, 0.20, 20, 0, 1, 3, NONE),
    "emim_s16_ssv1_k400": ("S", 16, "exp/emim_s16_k400_in1k", 32, 2e-4, 60, 5, 0.25, 20, 0, 1, 3, NONE),
    "emim_s16_ssv2_k400": ("S", 16, "exp/emim_s16_k400_in1k", 32, 2e-4, 50, 5, 0.30, 20, 0, 1, 3, NONE),
    "emim_b16_ssv2_k400": ("B", 16, "exp/emim_b16_k400_in1k", 40, 2.5e-4, 50, 5, 0.40, 20, 6666, 1, 3, NONE),
    "emim_b32_ssv1_k400": ("B", 32, "exp/emim_b32_k400_in1k", 64, 4e-4, 60, 5, 0.55, 20, 6666, 1, 3, STAGE3),
    "emim_b32_ssv2_k400": ("B", 32, "exp/emim_b32_k400_in1k", 128, 8e-4, 50, 5, 0.45, 20, 6666, 2, 3, STAGE3),
    "emim_s16_k400_in1k": ("S", 16, "IN", 64, 2e-4, 110, 10, 0.0875, 20, 6666, 4, 3, NONE),
    "emim_b16_k400_in1k": ("B", 16, "IN", 160, 5e-4, 110, 10, 0.30, 5, 666, 4, 3, STAGE3),
    "emim_b32_k400_in1k": ("B", 32, "IN", 256, 8e-4, 110, 10, 0.40, 20, 6666, 4, 3, STAGES123),
}
# What else they are made of, not released: EMIM-B/16 on V1 and Diving48, the baselines, UniFormer as published.
OTHERS = {
    "emim_b16_ssv1_k400": ("B", 16, "exp/emim_b16_k400_in1k", 40, 2.5e-4, 60, 5, 0.40, 20, 6666, 1, 3, NONE),
    "emim_s16_diving48_in1k": ("S", 16, "IN", 32, 2e-4, 60, 5, 0.30, 20, 0, 1, 3, NONE),
    "emim_s16_diving48_k400": ("S", 16, "exp/emim_s16_k400_in1k", 32, 2e-4, 60, 5, 0.30, 20, 0, 1, 3, NONE),
    "joint_s16_ssv1_in1k": RELEASED["emim_s16_ssv1_in1k"],
    "joint_s16_ssv1_k400": ("S", 16, "exp/joint_s16_k400_in1k", *RELEASED["emim_s16_ssv1_k400"][3:]),
    "joint_s16_k400_in1k": RELEASED["emim_s16_k400_in1k"],
    "uniformer_s16_ssv1_k400": ("S", 16, "exp/uniformer_s16_k400_in1k", 32, 2e-4, 60, 5, 0.2, 20, 0, 1, 3, NONE),
    "uniformer_b32_ssv1_k400": ("B", 32, "exp/uniformer_b32_k400_in1k", 32, 2e-4, 60, 5, 0.6, 20, 6666, 1, 3, NONE),
    "uniformer_s16_ssv2_k400": ("S", 16, "exp/uniformer_s16_k400_in1k", 32, 2e-4, 50, 5, 0.3, 20, 0, 1, 3, NONE),
    "uniformer_b32_ssv2_k400": ("B", 32, "exp/uniformer_b32_k400_in1k", 32, 2e-4, 50, 5, 0.5, 20, 6666, 1, 3, NONE),
    "uniformer_s16_k400_in1k": ("S", 16, "IN", 32, 1e-4, 110, 10, 0.1, 20, 6666, 4, 1, NONE),
    "uniformer_b32_k400_in1k": ("B", 32, "IN", 32, 1e-4, 110, 10, 0.3, 20, 6666, 4, 1, NONE),
}
DATA = {  # classes, flips, sampling, videos
    "ssv1": (174, False, "sparse", [86017, 11522]),
    "ssv2": (174, False, "sparse", [168913, 24777]),
    "k400": (400, True, "dense", [240436, 19796]),
    "diving48": (48, True, "sparse", [15027, 1970]),
}
ATTENTION = {"emim": ["emim", "joint"], "joint": ["joint"], "uniformer": ["joint"]}
# In all nine runs.
COMMON = {
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.WEIGHT_DECAY": 0.05,
    "SOLVER.BETAS": [0.9, 0.999],
    "SOLVER.WARMUP_START_LR": 1e-6,
    "SOLVER.COSINE_END_LR": 1e-6,
    "SOLVER.LAYER_DECAY": 1.0,
    "SOLVER.EMA_DECAY": 0.0,
    "MIXUP.ENABLE": True,
    "MIXUP.LABEL_SMOOTH_VALUE": 0.1,
    "MIXUP.ALPHA": 0.8,
    "MIXUP.CUTMIX_ALPHA": 1.0,
    "MIXUP.PROB": 1.0,
    "MIXUP.SWITCH_PROB": 0.5,
    "AUG.AA_TYPE": "rand-m7-n4-mstd0.5-inc1",
    "AUG.INTERPOLATION": "bicubic",
    "AUG.RE_PROB": 0.25,
    "AUG.RE_MODE": "pixel",
    "AUG.RE_COUNT": 1,
    "AUG.NUM_SAMPLE": 2,
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.08, 1.0],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": [0.75, 1.3333],
    "DATA.TRAIN_CROP_SIZE": 224,
    "DATA.TEST_CROP_SIZE": 224,
    "DATA.TEST_SHORT_SIDE": 0,
    "DATA.ENSEMBLE_METHOD": "sum_logits",
    "DATA.MEAN": [0.45] * 3,
    "DATA.STD": [0.225] * 3,
    "TRAIN.EVAL_PERIOD": 5,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "UNIFORMER.EMBED_DIM": [64, 128, 320, 512],
    "UNIFORMER.HEAD_DIM": 64,
    "EMIM.WINDOW": [7, 7],
    "EMIM.MOTION": True,
    "EMIM.TEMPORAL_INTERVAL": 1,
    "EMIM.LAST_FRAME": "repeat",
    "EMIM.PADDING": "constant",
    "EMIM.SAMPLING": "sliding",
}
# Billions of multiply-accumulates of a view: from the definitions, and as the papers print them.
GFLOPS = {
    "emim_s16": (85.15, 85),
    "emim_b16": (197.97, 198),
    "emim_b32": (525.60, 526),
    "joint_s16": (109.45, 110),
    "uniformer_s16": (41.66, 41.8),
    "uniformer_b32": (258.25, 259),
    "ablation/table4_baseline": (109.45, 110),
    "ablation/table4_emim": (85.15, 85),
    "ablation/table5_window_03": (84.51, 84.7),
    "ablation/table5_window_05": (85.03, 85.2),
    "ablation/table5_window_07": (86.05, 86.2),
    "ablation/table5_window_09": (87.87, 88.0),
    "ablation/table5_window_11": (90.86, 91.0),
    "ablation/table8_ee": (61.31, 62),
    "ablation/table8_oo": (109.45, 110),
    "ablation/table8_oe": (85.60, 86),
    "ablation/table8_eo": (85.15, 85),
}


@pytest.fixture(scope="module", autouse=True)
def in_the_repository():
    before = os.getcwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def cfgs():
    return {name: load_cfg(path) for name, path in experiments.list_experiments().items()}


@pytest.fixture(scope="module")
def counted():
    """Costs by model; each model is built once for all tests."""
    return {}


def get(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize("name", [*RELEASED, *OTHERS])
def test_recipe_is_that_of_the_run(cfgs, name):
    cfg = cfgs[name]
    size, frames, start, *expected = (RELEASED | OTHERS)[name]
    found = [
        *(cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.WARMUP_EPOCHS),
        *(cfg.UNIFORMER.DROP_DEPTH_RATE, cfg.SOLVER.CLIP_GRADIENT, cfg.RNG_SEED),
        *(cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS, cfg.MODEL.CHECKPOINT_NUM),
    ]
    assert found == expected
    assert (DEPTH[size], frames) == (cfg.UNIFORMER.DEPTH, cfg.DATA.NUM_FRAMES)
    assert (IN1K[size] if start == "IN" else start) == cfg.MODEL.PRETRAINED
    assert {key: get(cfg, key) for key in COMMON} == COMMON
    kind, _, data, _ = name.split("_")
    classes, flip, sampling, videos = DATA[data]
    assert (classes, flip, sampling) == (cfg.MODEL.NUM_CLASSES, cfg.DATA.RANDOM_FLIP, cfg.DATA.FRAME_SAMPLING)
    assert videos == cfg.DATA.EXPECTED_NUM_VIDEOS and cfg.DATA.SAMPLING_RATE == 4
    assert cfg.UNIFORMER.STAGE3_ATTENTION == cfg.UNIFORMER.STAGE4_ATTENTION == ATTENTION[kind]
    assert (kind == "uniformer") == cfg.UNIFORMER.TEMPORAL_DOWNSAMPLE
    assert f"prepare_data.py {'kinetics400' if data == 'k400' else data} " in cfg.DATA.MISSING_HINT


def test_rate_follows_the_batch():
    for name, (_, _, _, batch, rate, *_) in RELEASED.items():
        assert rate == pytest.approx((1e-4 if "_k400_in1k" in name else 2e-4) * batch / 32), name


def test_page_is_current(counted):
    page = experiments.PAGE.read_text(encoding="utf-8")
    assert experiments.make_page(page, counted) == page, "run python tools/list_experiments.py --write"


def test_costs_are_those_of_the_definitions(cfgs, counted):
    known, tested = {*RELEASED, *OTHERS, *(name for name in cfgs if name.startswith("ablation/"))}, set()
    for prefix, (exact, printed) in GFLOPS.items():
        names = [name for name in known if re.match(rf"{prefix}(_|$)", name)]
        tested.update(names)
        for name in names:
            found = experiments.view_gflops(cfgs[name], counted)
            assert found == pytest.approx(exact, abs=0.03), name
            assert found == pytest.approx(printed, rel=1.2e-2), name
    assert len(tested) == len(RELEASED) + len(OTHERS) + 13


def test_two_configurations_never_share_an_output_folder(cfgs):
    folders = {cfg.OUTPUT_DIR: name for name, cfg in cfgs.items() if name != ALIAS}
    assert len(folders) == len(cfgs) - 1
    assert cfgs["emim_b32_ssv1_k400"].OUTPUT_DIR == "exp/emim_b32_ssv1_k400/output"
    assert cfgs["ablation/table8_ee"].OUTPUT_DIR == "output/ablation/table8_ee"
    # The path of the paper's instructions is another name of the same run.
    assert cfgs[ALIAS] == cfgs["emim_s16_ssv1_in1k"]


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("configs/mine.yaml", "output/mine"),
        ("mine.yaml", "output/mine"),
        ("studies/a/mine.yaml", "output/studies/a/mine"),
        ("exp/mine/config.yaml", "exp/mine/output"),
        (f"{ROOT}/exp/mine/config.yaml", "exp/mine/output"),
        ("/elsewhere/mine/config.yaml", "/elsewhere/mine/output"),
        ("/elsewhere/mine.yaml", "output/elsewhere/mine"),
    ],
)
def test_default_output_folder(path, folder):
    from slowfast.config import default_output_dir

    assert default_output_dir(path) == folder


def test_rows_of_the_baselines_are_the_experiments(cfgs):
    for row, experiment in (
        ("table4_baseline_in1k", "joint_s16_ssv1_in1k"),
        ("table4_baseline_k400", "joint_s16_ssv1_k400"),
        ("table4_emim_k400", "emim_s16_ssv1_k400"),
        ("table8_eo", "emim_s16_ssv1_in1k"),
        ("table9_uniformer_s", "uniformer_s_in1k_image"),
    ):
        row, experiment = cfgs[f"ablation/{row}"].clone(), cfgs[experiment].clone()
        for cfg in (row, experiment):
            cfg.defrost()
            cfg.OUTPUT_DIR = ""
        assert row == experiment


def test_chains_hold_models_that_mean_the_same(cfgs):
    num_links = 0
    for name, cfg in cfgs.items():
        if cfg.MODEL.PRETRAINED.startswith("exp/"):
            earlier = cfgs[cfg.MODEL.PRETRAINED.removeprefix("exp/")]
            assert earlier.EMIM == cfg.EMIM, name
            assert {**earlier.UNIFORMER, "DROP_DEPTH_RATE": 0} == {**cfg.UNIFORMER, "DROP_DEPTH_RATE": 0}, name
            assert earlier.DATA.NUM_FRAMES == cfg.DATA.NUM_FRAMES and earlier.MODEL.NUM_CLASSES == 400
            num_links += 1
    assert num_links == 14


def test_numbers_in_comments_are_those_of_the_table():
    accuracies = experiments.read_accuracies()
    for name, path in experiments.list_experiments().items():
        if name.startswith("ablation/"):
            top1, top5 = re.search(r"Paper: .*top-1 ([\d.]+)(?:, top-5 ([\d.]+))?[ .]", Path(path).read_text()).groups()
            found = accuracies[name]
            assert (found["paper_top1"], found["paper_top5"]) == (top1.rstrip("."), (top5 or "").rstrip("."))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,58.8,85.7,there,,,", "results.csv:3: expected a name of its own and 6 fields"),
        ("quickstart,,,,,", "results.csv:3: expected a name of its own"),
        ("a,588,,,,", "results.csv:3: paper_top1 is '588', not a percentage"),
    ],
)
def test_mistakes_in_the_results(tmp_path, line, message):
    path = tmp_path / "results.csv"
    path.write_text(f"{','.join(experiments.COLUMNS)}\nquickstart,,,,96.4,100.0\n{line}\n")
    with pytest.raises(ValueError, match=message):
        experiments.read_accuracies(path)


def test_line_without_an_experiment_and_experiment_without_a_line(monkeypatch, counted):
    page = experiments.PAGE.read_text(encoding="utf-8")
    accuracies = experiments.read_accuracies()
    measured = accuracies.pop("quickstart")
    monkeypatch.setattr(experiments, "read_accuracies", lambda: accuracies)
    assert "| scratch | – | 0.07 x 3 x 1 |" in experiments.make_page(page, counted)
    accuracies["gone"] = measured
    with pytest.raises(ValueError, match="exp/results.csv: there is no configuration for gone"):
        experiments.make_page(page, counted)


def test_folders_are_short():
    """Settings are in YAML files alone; the scripts of all folders are the same, but where data are made."""
    for script in ("run.sh", "test.sh"):
        texts = {path.read_text() for path in Path("exp").glob(f"*/{script}") if path.parent.name in RELEASED | OTHERS}
        (text,) = texts
        assert len(text.splitlines()) <= 4
    for path in Path("exp").glob("*/config.yaml"):
        if path.parent.name in RELEASED | OTHERS:
            assert list(yaml.safe_load(path.read_text())) == ["_BASE_"]


def test_dry_run_names_all_that_is_missing(capsys, tmp_path):
    nowhere = ("DATA.PATH_TO_DATA_DIR", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "run"))
    start = ("MODEL.PRETRAINED", "configs/ablation/table8_ee.yaml")
    config = "exp/emim_s16_ssv1_k400/config.yaml"
    assert main(("train", "test"), "", ["--cfg", config, "--dry-run", *nowhere, *start]) == 2
    captured = capsys.readouterr()
    assert "85.15 GFLOPs" in captured.out and "16 frames x 1 clips x 3 crops, 224x224 px" in captured.out
    for words in ("train.txt does not exist", "val.txt does not exist", "table8_ee.yaml has no checkpoint in output/"):
        assert captured.err.count(words) == 1
    assert captured.err.count("Get Something-Something V1") == 1  # a hint for both lists
    assert "bash exp/launch.sh tools/run_net.py --cfg configs/ablation/table8_ee.yaml" in captured.err
    assert not (tmp_path / "run").exists()
