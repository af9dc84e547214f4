"""The released architectures to the last digit: their logits for deterministic weights, through our weight loader."""

import sys
from pathlib import Path

import pytest
import torch
from helpers_models import make_cfg

from slowfast.models import build_model
from slowfast.models.pretrained import load_pretrained

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from fill import golden_clip, golden_state, load_cases

CASES = load_cases()
JOINT = {f"UNIFORMER__STAGE{stage}_ATTENTION": ["joint"] for stage in (3, 4)}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("uniformer_s_official_16x112", {**JOINT, "UNIFORMER__TEMPORAL_DOWNSAMPLE": True}),
        ("emim_s_16x128", {"EMIM__BACKEND": "reference"}),
        ("emim_s_16x128", {"EMIM__BACKEND": "dense"}),
    ],
)
def test_logits_of_the_released_architecture(name, settings, tmp_path):
    case = CASES[name]
    torch.save(golden_state(case["keys"]), tmp_path / "public_names.pth")
    model = build_model(make_cfg(**settings)).double().eval()
    report = load_pretrained(model, str(tmp_path / "public_names.pth"))
    assert len(report.loaded) == len(case["keys"])
    assert not (report.skipped or report.missing or report.unexpected)
    with torch.no_grad():
        logits = model(golden_clip(case["frames"], case["size"]))[0]
    torch.testing.assert_close(logits, torch.tensor(case["logits"], dtype=torch.float64), rtol=0, atol=1e-8)
