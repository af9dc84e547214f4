"""Runs of other backbones, behind motion prompts: training, resuming, the test with several views, a dry run."""

import pytest

from slowfast.models import MODEL_REGISTRY

PROMPTS = ("VMP.ENABLE", True, "VMP.PENALTY", 0.5, "AUG.RE_PROB", 0.0)


@pytest.mark.parametrize("name", ["SlowFast", "X3D", "Transformers"])
def test_a_run_of_another_backbone_with_prompts(run, name):
    tiny = {"MODEL.MODEL_NAME": name, **MODEL_REGISTRY.get(name).TINY}
    if name == "Transformers":
        pytest.importorskip("transformers")
        tiny |= {"DATA.TRAIN_CROP_SIZE": 32, "DATA.TEST_CROP_SIZE": 32}
    settings = [word for pair in tiny.items() for word in pair]
    assert run(*settings, *PROMPTS, "SOLVER.MAX_EPOCH", 1).status == 0
    done = run(*settings, *PROMPTS, tasks=("train", "test"))
    assert done.status == 0 and "resumed from" in done.out and "test: top-1" in done.out


def test_a_dry_run_tells_of_other_data_and_of_wrong_names(run):
    dry = run("MODEL.MODEL_NAME", "torchvision/r3d_18", "--dry-run")
    assert dry.status == 0 and "torchvision/r3d_18: DATA.MEAN is [0.45, 0.45, 0.45], it was published with" in dry.out
    assert "DATA.NUM_FRAMES is 4, it was published with 16; DATA.TRAIN_CROP_SIZE is 32" in dry.out
    refused = run("MODEL.MODEL_NAME", "SlowFast", "MODEL.ARGS.alpha", 3, "--dry-run")
    assert refused.status == 2 and "DATA.NUM_FRAMES must be a multiple of alpha 3 (MODEL.ARGS)" in refused.err
