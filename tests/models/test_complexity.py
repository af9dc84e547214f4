"""Parameters and multiply-accumulates: published numbers, and closed formulas worked out apart from the model."""

from collections import Counter

import pytest
import torch
from helpers_models import make_cfg, tiny_model

from slowfast.models import build_model
from slowfast.models.complexity import count_macs, count_parameters

S, B = [3, 4, 8, 3], [5, 8, 20, 7]
BASE = {"UNIFORMER__DEPTH": B}


def pattern(stage3, stage4=None):
    """Return the settings of patterns like "EO" (E: EMIM, O: joint attention), the same in both stages by default."""
    letters, names = {3: stage3, 4: stage4 or stage3}, {"E": "emim", "O": "joint"}
    return {f"UNIFORMER__STAGE{stage}_ATTENTION": [names[one] for one in letters[stage]] for stage in (3, 4)}


def meta_model(settings):
    with torch.device("meta"):
        return build_model(make_cfg(**settings))


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({**pattern("O")}, 21_400_400),
        ({**pattern("EO")}, 21_536_612),
        ({**BASE, **pattern("O")}, 49_813_200),
        ({**BASE, **pattern("EO")}, 50_130_930),
    ],
)
def test_number_of_parameters(settings, parameters):
    for classes in (400, 174, 48):  # the classifier alone depends on them
        expected = parameters - (400 - classes) * (512 + 1)
        assert count_parameters(meta_model({**settings, "MODEL__NUM_CLASSES": classes})) == expected


def closed_formulas(depth, blocks, frames, size=224, classes=174, window=7, dim=(64, 128, 320, 512)):
    """Return the counts per stage and per kind of operator; ``blocks`` are the letters of stages 3 and 4."""
    stages, kinds = Counter(), Counter()

    def add(stage, kind, macs):
        stages[stage] += macs
        kinds[kind] += macs

    inputs = (3, *dim)
    for stage in range(4):
        side = size // 4 // 2**stage
        tokens, channels = frames * side * side, dim[stage]
        patch = 3 * 4 * 4 if stage == 0 else 2 * 2
        where = "stem" if stage == 0 else "patch embeddings"
        add(where, "patch-embedding convolutions", tokens * inputs[stage] * patch * channels)
        name = f"stage {stage + 1}"
        for block in range(depth[stage]):
            add(name, "depthwise convolutions", tokens * channels * 3**3)
            add(name, "MLPs", tokens * 8 * channels**2)
            if stage < 2:
                add(name, "projections", tokens * 2 * channels**2)
                add(name, "depthwise convolutions", tokens * channels * 5**3)
                continue
            add(name, "projections", tokens * 4 * channels**2)
            letters = blocks[stage - 2]
            if letters[block % len(letters)] == "O":
                add(name, "joint attention products", 2 * tokens**2 * channels)
            else:
                heads, places = channels // 64, window**2
                add(name, "EMIM window products", 2 * tokens * places * channels)
                add(name, "motion MLPs", tokens * heads * (places * 4 * places + 4 * places * 64))
    add("head", "head", dim[3] * classes)
    return dict(stages), dict(kinds)


@pytest.mark.parametrize(("depth", "blocks"), [(S, ("EO", "EO")), (S, ("E", "E")), (S, ("OE", "O")), (B, ("O", "O"))])
def test_stages_and_kinds_are_the_closed_formulas(depth, blocks):
    counts = count_macs(meta_model({"UNIFORMER__DEPTH": depth, **pattern(*blocks)}), (3, 16, 224, 224))
    stages, kinds = closed_formulas(depth, blocks, frames=16)
    assert (counts.by_stage, counts.by_kind) == (stages, kinds)
    assert counts.macs == sum(stages.values()) == sum(kinds.values())
    assert list(counts.by_stage) == ["stem", "patch embeddings", *(f"stage {n}" for n in range(1, 5)), "head"]
    assert list(counts.by_kind.values()) == sorted(counts.by_kind.values(), reverse=True)


def test_counts_are_of_the_definition_and_leave_the_model_alone():
    model = tiny_model(EMIM__BACKEND="dense").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = count_macs(model, (3, 4, 64, 64))
    # Stage 3 has two EMIM blocks and stage 4 one, of windows of 3 x 3: 2 * 9 products per token and channel.
    assert counts.by_kind["EMIM window products"] == 2 * 9 * 4 * (2 * 32 * 4 * 4 + 32 * 2 * 2)
    assert model.training and model.blocks3[0].attn.backend == "dense"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
