"""Every YAML file of configs/ and exp/ is valid and has no line that changes nothing; variations are short."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from slowfast.config import get_cfg, load_cfg
from slowfast.config.parser import flat_settings, read_bases, read_yaml
from slowfast.models import build_model

ROOT = Path(__file__).parents[2]
HAS_ZOO = find_spec("transformers") is not None
EXPERIMENTS = sorted(ROOT.glob("exp/*/config.yaml"))
FILES = sorted(ROOT.glob("configs/*/*.yaml")) + EXPERIMENTS
ABLATIONS = sorted(ROOT.glob("configs/ablation/*.yaml"))
STUDY = sorted(ROOT.glob("configs/motion_study/*.yaml"))

METHOD, BASELINE = "exp/emim_s16_ssv1_in1k/config.yaml", "exp/joint_s16_ssv1_in1k/config.yaml"
# The rows of arXiv 2510.18705 by table: ablations, and experiments where a row is one.
ROWS = {
    4: [METHOD, BASELINE, "exp/emim_s16_ssv1_k400/config.yaml", "exp/joint_s16_ssv1_k400/config.yaml"],
    5: [f"configs/ablation/table5_window_{side}.yaml" for side in ("03", "05", "07", "09", "11")],
    6: [METHOD, "configs/ablation/table6_non_sliding.yaml"],
    7: [METHOD, "configs/ablation/table7_motion_off.yaml"],
    8: [METHOD, BASELINE, "configs/ablation/table8_ee.yaml", "configs/ablation/table8_oe.yaml"],
    9: ["exp/emim_s_in1k_image/config.yaml", "exp/uniformer_s_in1k_image/config.yaml"],
    10: [METHOD, "configs/ablation/table10_traditional.yaml"],
    11: [METHOD, "configs/ablation/table11_interval_2.yaml", "configs/ablation/table11_interval_3.yaml"],
}


def own_settings(path):
    return flat_settings({key: value for key, value in read_yaml(str(path)).items() if key != "_BASE_"})


def settings(*paths):
    cfg = get_cfg()
    for path in paths:
        cfg.merge_from_file(str(path))
    return flat_settings(yaml.safe_load(cfg.dump()))


@pytest.mark.parametrize(
    "folder", ["configs/_base_", "configs/ablation", "configs/filmed", "configs/motion_study", "exp"]
)
def test_every_file_is_valid_and_builds_its_model(folder):
    built = set()
    for path in [path for path in FILES if folder in str(path)]:
        cfg = load_cfg(str(path), ["MODEL.NUM_CLASSES", 5])
        model = f"{cfg.MODEL} {cfg.UNIFORMER} {cfg.EMIM} {cfg.VMP} {cfg.DATA.NUM_FRAMES} {cfg.DATA.TRAIN_CROP_SIZE}"
        model = model.replace(cfg.MODEL.PRETRAINED or " ", "")
        if model not in built and (HAS_ZOO or not cfg.MODEL.MODEL_NAME.startswith("transformers/")):
            with torch.device("meta"):
                build_model(cfg)
            built.add(model)


def test_no_file_repeats_what_it_inherits_or_a_default():
    for path in FILES:
        inherited, resolved = settings(*read_bases(str(path))), settings(path)
        own = own_settings(path)
        assert own, f"{path} sets nothing"
        repeated = [key for key in own if resolved[key] == inherited.get(key)]
        assert not repeated, f"{path} repeats {repeated}"


def test_ablations_are_one_to_three_keys_over_one_experiment_and_rows_of_their_own():
    assert len(ABLATIONS) == len({row for rows in ROWS.values() for row in rows if "ablation" in row})
    for path in ABLATIONS:
        assert len(read_bases(str(path))) == 1 and 1 <= len(own_settings(path)) <= 3, path
    for table, rows in ROWS.items():
        assert len({str(settings(ROOT / path)) for path in rows}) == len(rows), table


def test_arms_of_the_motion_study_differ_in_attention_alone():
    recipe = settings(ROOT / "configs/motion_study/joint.yaml")
    assert min(recipe["UNIFORMER.DEPTH"][2:]) >= 2  # blocks to alternate
    arms = {path.stem: settings(path) for path in STUDY if path.stem != "stills"}
    for arm in arms.values():
        assert all(key.startswith(("UNIFORMER.STAGE", "EMIM.")) for key in arm if arm[key] != recipe[key])
    assert len({str(arm) for arm in arms.values()}) == len(arms)


@pytest.mark.parametrize("path", sorted(ROOT.glob("exp/*/study*.yaml")), ids=lambda path: "-".join(path.parts[-2:]))
def test_studies_compare_rows_with_one_of_them(path):
    study = yaml.safe_load(path.read_text())
    for table in study["tables"].values():
        rows = [file.stem for pattern in table["cfgs"] for file in ROOT.glob(pattern)]
        assert len(rows) >= 2 and table["baseline"] in rows
    assert len(study["seeds"]) >= 3
