"""The released architectures to the last digit: their logits for deterministic weights, through our weight loader."""

import sys
from pathlib import Path

import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.models import build_model
from slowfast.models.pretrained import load_pretrained

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from fill import golden_clip, golden_state, load_cases

CASES = load_cases()
SETTINGS = {
    "uniformer_s_official_16x112": {
        "UNIFORMER.STAGE3_ATTENTION": ["joint"],
        "UNIFORMER.STAGE4_ATTENTION": ["joint"],
        "UNIFORMER.TEMPORAL_DOWNSAMPLE": True,
    },
    "emim_s_16x128": {},
}


@pytest.mark.parametrize("backend", ["reference", "dense"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_logits_of_the_released_architecture(name, backend, tmp_path):
    case = CASES[name]
    path = tmp_path / "public_names.pth"
    torch.save(golden_state(case["keys"]), path)
    cfg = get_cfg()
    for key, value in {**SETTINGS[name], "EMIM.BACKEND": backend}.items():
        cfg.merge_from_list([key, value])
    model = build_model(cfg).double().eval()
    report = load_pretrained(model, str(path))
    assert len(report.loaded) == len(case["keys"])
    assert not (report.skipped or report.missing or report.unexpected)
    with torch.no_grad():
        logits = model(golden_clip(case["frames"], case["size"]))[0]
    torch.testing.assert_close(logits, torch.tensor(case["logits"], dtype=torch.float64), rtol=0, atol=1e-8)
