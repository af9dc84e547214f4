"""Experiments against the tables of the papers and of the released runs, and the page that lists them."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slowfast.analysis import tables
from slowfast.config import default_output_dir, load_cfg
from slowfast.config.parser import flat_settings
from slowfast.models.complexity import view_gflops
from slowfast.synthetic.scenes import SceneSpec
from slowfast.synthetic.writer import write_dataset
from slowfast.utils.errors import UserError

ROOT = Path(__file__).parents[2]
ALIAS = "uniformer_s16_sthv1_pre1k_uniformer_extra_attn64_ATTN_ATTN_7_7_LG"

DEPTH = {"S": [3, 4, 8, 3], "B": [5, 8, 20, 7]}

# The nine runs that EMIM's authors released, as their command lines had them (videos of a step on all nodes), then what
# they have not: EMIM-B/16 on V1 and Diving48, the baselines; UniFormer as published.
with open(Path(__file__).with_name("recipes.csv"), encoding="utf-8") as file:
    RECIPES = {recipe["name"]: recipe for recipe in csv.DictReader(file)}
DATA = {  # classes, flips, sampling, videos
    "ssv1": (174, False, "sparse", [86017, 11522]),
    "ssv2": (174, False, "sparse", [168913, 24777]),
    "k400": (400, True, "dense", [240436, 19796]),
    "diving48": (48, True, "sparse", [15027, 1970]),
}
ATTENTION = {"emim": ["emim", "joint"], "joint": ["joint"], "uniformer": ["joint"]}
COMMON = flat_settings(yaml.safe_load(Path(__file__).with_name("common.yaml").read_text()))
# Billions of multiply-accumulates of a view: from the definitions, and as the papers print them.
GFLOPS = {
    "emim_s16": (85.15, 85),
    "emim_b16": (197.97, 198),
    "emim_b32": (525.60, 526),
    "joint_s16": (109.45, 110),
    "uniformer_s16": (41.66, 41.8),
    "uniformer_b16": (96.55, 97),
    "uniformer_b32": (258.25, 259),
    "ablation/table5_window_03": (84.51, 84.7),
    "ablation/table5_window_05": (85.03, 85.2),
    "ablation/table5_window_07": (86.05, 86.2),
    "ablation/table5_window_09": (87.87, 88.0),
    "ablation/table5_window_11": (90.86, 91.0),
    "ablation/table8_ee": (61.31, 62),
    "ablation/table8_oe": (85.60, 86),
}


# Runs of other networks that their authors released: model, classes, frames, step, sides, videos of a step, rate, where
# it starts and ends, epochs and those of the warm-up, weight decay, views.
OTHERS = {
    "slowfast_r50_4x16_k400": ("SlowFast", 400, 32, 2, 224, 256, 64, 0.1, 0.01, 0.0, 196, 34, 1e-4, 10, 3),
    "slowfast_r50_8x8_k400": ("SlowFast", 400, 32, 2, 224, 256, 64, 0.1, 0.01, 0.0, 196, 34, 1e-4, 10, 3),
    "x3d_s_k400": ("X3D", 400, 13, 6, 160, 182, 128, 0.1, 0.01, 0.0, 300, 35, 5e-5, 10, 3),
    "x3d_m_k400": ("X3D", 400, 16, 5, 224, 256, 128, 0.1, 0.01, 0.0, 300, 35, 5e-5, 10, 3),
    **dict.fromkeys(
        ("timesformer_mpii_k600", "vmp_timesformer_mpii_k600"),
        ("transformers/timesformer", 67, 8, 32, 224, 224, 64, 0.005, 1e-6, 5e-5, 25, 0, 1e-4, 1, 3),
    ),
    # Theirs are not known, or the data set was not one of theirs.
    **dict.fromkeys(("vmp_timesformer_gym99_k600", "vmp_timesformer_hmdb51_k600")),
    **dict.fromkeys(f"{name}_ssv1_in1k" for name in ("tsn_r50", "tsm_r50", "vmp_emim_s16")),
    **dict.fromkeys(f"{name}_ssv1_k400" for name in ("swin3d_t", "mvit_v2_s", "slowfast_r50_8x8")),
}


@pytest.fixture(scope="module", autouse=True)
def in_the_repository():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def cfgs(in_the_repository):
    paths = {path.parent.name: path for path in Path("exp").glob("*/config.yaml")}
    paths |= {f"ablation/{path.stem}": path for path in Path("configs/ablation").glob("*.yaml")}
    return {name: load_cfg(str(path)) for name, path in paths.items()}


@pytest.mark.parametrize("name", ["weizmann", "egogestar", "synthetic_to_filmed"])
def test_filmed_actions_say_where_their_clips_are_to_be_had(name, tmp_path):
    env = os.environ | {"FILMED_DIR": str(tmp_path), "ARMS": "emim"}
    command = ["bash", str(ROOT / "exp/filmed/run.sh"), name, "--shots", "1"]
    found = subprocess.run(command, capture_output=True, text=True, env=env)
    assert found.returncode == 2 and re.search(r"has no folder \w+; get its clips from github.com/", found.stderr)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_that_of_the_run(cfgs, name):
    cfg, recipe = cfgs[name], RECIPES[name]
    found = {
        **{"batch_size": cfg.TRAIN.BATCH_SIZE, "base_lr": cfg.SOLVER.BASE_LR, "epochs": cfg.SOLVER.MAX_EPOCH},
        **{"warmup_epochs": cfg.SOLVER.WARMUP_EPOCHS, "drop_path": cfg.UNIFORMER.DROP_DEPTH_RATE, "seed": cfg.RNG_SEED},
        **{"clip_gradient": cfg.SOLVER.CLIP_GRADIENT, "frames": cfg.DATA.NUM_FRAMES},
        **{"clips": cfg.TEST.NUM_ENSEMBLE_VIEWS, "crops": cfg.TEST.NUM_SPATIAL_CROPS},
    }
    assert found == {key: float(recipe[key]) for key in found}
    assert " ".join(map(str, cfg.MODEL.CHECKPOINT_NUM)) == recipe["checkpointed_blocks"]
    if recipe["released"] == "1":  # the rate follows the batch
        assert pytest.approx((1e-4 if "k400_in1k" in name else 2e-4) * cfg.TRAIN.BATCH_SIZE / 32) == cfg.SOLVER.BASE_LR
    assert (DEPTH[recipe["size"]], recipe["start"]) == (cfg.UNIFORMER.DEPTH, cfg.MODEL.PRETRAINED)
    settings = flat_settings(cfg)
    assert len(COMMON) == 41 and {key: settings[key] for key in COMMON} == COMMON
    kind, _, data, _ = name.split("_")
    classes, flip, sampling, videos = DATA[data]
    assert (classes, flip, sampling) == (cfg.MODEL.NUM_CLASSES, cfg.DATA.RANDOM_FLIP, cfg.DATA.FRAME_SAMPLING)
    assert videos == cfg.DATA.EXPECTED_NUM_VIDEOS
    assert cfg.UNIFORMER.STAGE3_ATTENTION == cfg.UNIFORMER.STAGE4_ATTENTION == ATTENTION[kind]
    assert (kind == "uniformer") == cfg.UNIFORMER.TEMPORAL_DOWNSAMPLE


@pytest.mark.parametrize("name", [name for name, facts in OTHERS.items() if facts])
def test_recipes_of_other_networks_are_those_of_the_runs(cfgs, name):
    cfg = cfgs[name]
    data, solver, test = cfg.DATA, cfg.SOLVER, cfg.TEST
    assert OTHERS[name] == (
        *(cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES, data.NUM_FRAMES, data.SAMPLING_RATE),
        *(data.TRAIN_CROP_SIZE, data.TEST_CROP_SIZE, cfg.TRAIN.BATCH_SIZE, solver.BASE_LR, solver.WARMUP_START_LR),
        *(solver.COSINE_END_LR, solver.MAX_EPOCH, solver.WARMUP_EPOCHS, solver.WEIGHT_DECAY),
        *(test.NUM_ENSEMBLE_VIEWS, test.NUM_SPATIAL_CROPS),
    )
    assert (solver.OPTIMIZING_METHOD, solver.MOMENTUM, solver.CLIP_GRADIENT) == ("sgd", 0.9, 0)
    assert (cfg.AUG.AA_TYPE, cfg.AUG.NUM_SAMPLE, cfg.AUG.RE_PROB, cfg.MIXUP.ENABLE) == ("", 1, 0, False)
    assert (cfg.MIXUP.LABEL_SMOOTH_VALUE, data.FRAME_SAMPLING, data.RANDOM_FLIP, cfg.RNG_SEED) == (0, "dense", True, 0)
    assert name.startswith("vmp") == cfg.VMP.ENABLE and cfg.VMP.PENALTY == 0 and cfg.VMP.INIT == []


def test_networks_on_something_something_have_the_recipe_of_emim(cfgs):
    expected = flat_settings(cfgs["emim_s16_ssv1_in1k"])
    own = ("MODEL.", "DATA.MEAN", "DATA.STD", "DATA.NUM_FRAMES", "OUTPUT_DIR", "VMP.ENABLE", "UNIFORMER.")
    for name in [name for name in OTHERS if "_ssv1_" in name]:
        found = flat_settings(cfgs[name])
        changed = {key for key in found if found[key] != expected.get(key) and not key.startswith(own)}
        assert changed == ({"AUG.RE_MODE"} if name.startswith("vmp") else set()), name


def test_still_images_are_trained_in_the_way_of_deit(cfgs):
    for name in ("emim_s_in1k_image", "uniformer_s_in1k_image"):
        cfg = cfgs[name]
        assert (cfg.AUG.SAMPLER_REPEATS, cfg.AUG.NUM_SAMPLE, cfg.AUG.AA_TYPE) == (3, 1, "rand-m9-mstd0.5-inc1")
        assert pytest.approx(5e-4 * cfg.TRAIN.BATCH_SIZE / 512) == cfg.SOLVER.BASE_LR == 1e-3
        assert (cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.WARMUP_EPOCHS, cfg.SOLVER.COSINE_END_LR) == (300, 5, 1e-5)
        assert (cfg.UNIFORMER.DROP_DEPTH_RATE, cfg.SOLVER.CLIP_GRADIENT, cfg.EMIM.MOTION) == (0.1, 0, False)


def test_every_experiment_is_in_a_table_and_starts_from_a_model_that_means_the_same(cfgs):
    experiments = {name for name in cfgs if not name.startswith("ablation/")}
    assert experiments - {*RECIPES, *OTHERS} == {"quickstart", ALIAS, "emim_s_in1k_image", "uniformer_s_in1k_image"}
    links = [name for name, cfg in cfgs.items() if cfg.MODEL.PRETRAINED.startswith("exp/")]
    assert len(links) == 15
    for name in links:
        cfg, earlier = cfgs[name], cfgs[cfgs[name].MODEL.PRETRAINED.removeprefix("exp/")]
        assert earlier.EMIM == cfg.EMIM and earlier.MODEL.NUM_CLASSES == 400, name
        assert {**earlier.UNIFORMER, "DROP_DEPTH_RATE": 0} == {**cfg.UNIFORMER, "DROP_DEPTH_RATE": 0}, name


def test_costs_are_those_of_definitions_papers_and_page(cfgs, monkeypatch):
    counted, tested = {}, set()
    for prefix, (exact, printed) in GFLOPS.items():
        for name in [name for name in cfgs if re.match(rf"{prefix}_(?!1k)|{prefix}$", name) and name != ALIAS]:
            found = view_gflops(cfgs[name], counted)
            assert found == pytest.approx(exact, abs=0.03), name
            assert found == pytest.approx(printed, rel=1.2e-2), name
            tested.add(name)
    assert len(tested) == len(RECIPES) + 7
    joint = [word for stage in (3, 4) for word in (f"UNIFORMER.STAGE{stage}_ATTENTION", "[joint]")]
    for name, frames, settings, exact in (
        ("emim_s16_ssv1_in1k", 32, [], 221.92),
        ("emim_b16_ssv1_k400", 16, joint, 258.25),
        ("emim_b16_ssv1_k400", 32, joint, 777.08),
    ):
        cfg = load_cfg(f"exp/{name}/config.yaml", [*settings, "DATA.NUM_FRAMES", str(frames)])
        assert view_gflops(cfg, counted) == pytest.approx(exact, abs=0.03)
    pytest.importorskip("transformers")
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.make_page(page, counted) == page, "run python tools/list_experiments.py --write"
    monkeypatch.setattr(tables, "read_accuracies", lambda: {"gone": {}})
    with pytest.raises(UserError, match="exp/results.csv: there is no configuration for gone"):
        tables.make_page(page, counted)


def test_two_configurations_never_share_an_output_folder(cfgs):
    folders = {cfg.OUTPUT_DIR: name for name, cfg in cfgs.items() if name != ALIAS}
    assert len(folders) == len(cfgs) - 1
    # The path of the paper's instructions is another name of the same run.
    assert cfgs[ALIAS] == cfgs["emim_s16_ssv1_in1k"]
    for path, folder in (
        ("configs/mine.yaml", "output/mine"),
        ("configs/ablation/table8_ee.yaml", "output/ablation/table8_ee"),
        ("mine.yaml", "output/mine"),
        ("studies/a/mine.yaml", "output/studies/a/mine"),
        ("exp/mine/config.yaml", "exp/mine/output"),
        (f"{ROOT}/exp/mine/config.yaml", "exp/mine/output"),
        ("/elsewhere/mine/config.yaml", "/elsewhere/mine/output"),
        ("/elsewhere/mine.yaml", "output/elsewhere/mine"),
    ):
        assert default_output_dir(path) == folder


def test_numbers_in_comments_are_those_of_the_table(cfgs):
    rows = tables.read_accuracies()
    assert {*rows} == {*cfgs} - {ALIAS}
    for name in [name for name in rows if name.startswith("ablation/")]:
        comment = Path(f"configs/{name}.yaml").read_text()
        found = re.search(r"Paper: .*top-1 (\d+\.\d)(?:, top-5 (\d+\.\d))?\.", comment).groups("")
        assert found == (rows[name]["paper_top1"], rows[name]["paper_top5"])


def test_mistakes_in_the_results(tmp_path):
    path = tmp_path / "results.csv"
    for line, message in (
        ("a,58.8,85.7,there,,,", "results.csv:3: expected a name of its own and 6 fields"),
        ("quickstart,,,,,", "results.csv:3: expected a name of its own"),
        ("a,588,,,,", "results.csv:3: paper_top1 is '588', not a percentage"),
    ):
        path.write_text(f"{','.join(tables.COLUMNS)}\nquickstart,,,,96.4,100.0\n{line}\n")
        with pytest.raises(UserError, match=message):
            tables.read_accuracies(path)


def test_scripts_hold_no_settings(cfgs):
    """The scripts of all experiments are the same, but the quickstart's, which makes its data."""
    for script in ("run.sh", "test.sh"):
        found = {path.parent.name: path.read_text() for path in Path("exp").glob(f"*/{script}")}
        assert {name for name in cfgs if not name.startswith("ablation/")} <= {*found}
        (text,) = {text for name, text in found.items() if name != "quickstart" and '/../start.sh"' in text}
        assert len(text.splitlines()) <= 4


@pytest.mark.slow
def test_the_path_of_the_papers_instructions_trains_and_tests(tmp_path):
    def run(script):
        settings = (
            *("OUTPUT_DIR", tmp_path / "run", "DATA.PATH_TO_DATA_DIR", tmp_path / "set", "MODEL.PRETRAINED", ""),
            *("MODEL.NUM_CLASSES", 12, "SOLVER.MAX_EPOCH", 1, "TRAIN.BATCH_SIZE", 4, "DATA_LOADER.NUM_WORKERS", 0),
            *("DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32, "UNIFORMER.DEPTH", "[1, 1, 2, 1]"),
        )
        environment = {**os.environ, "PYTHON": sys.executable, "NPROC_PER_NODE": "1"}
        command = ["bash", f"exp/{ALIAS}/{script}", *map(str, settings)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)

    write_dataset(tmp_path / "set", SceneSpec(size=32, num_frames=16), 12, 3, "frames")
    finished = run("run.sh")
    assert finished.returncode == 0, finished.stderr
    results = (tmp_path / "run" / "test_results.json").read_text()
    assert [json.loads(results)[key] for key in ("num_videos", "num_views")] == [3, 9]
    assert run("test.sh").returncode == 0
    assert (tmp_path / "run" / "test_results.json").read_text() == results
