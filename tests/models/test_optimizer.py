"""Parameters with and without weight decay, and learning rates by layer."""

import pytest
import torch
from helpers_models import make_cfg, tiny_model
from torch import nn

from slowfast.models.build import freeze
from slowfast.models.optimizer import build_optimizer
from slowfast.utils.errors import UserError


def names_by_decay(model, **settings):
    """Return the names of the parameters with and without decay, having checked that each is in one group."""
    decayed, exempt = build_optimizer(model, make_cfg(**settings)).param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    listed = [[names[p] for p in group["params"]] for group in (decayed, exempt)]
    assert sorted([*listed[0], *listed[1]]) == sorted(names.values())
    # In the order of the model: checkpoints know a parameter by its place.
    assert all(group == [name for name in names.values() if name in group] for group in listed)
    return {names[p] for p in decayed["params"]}, {names[p] for p in exempt["params"]}


def test_biases_norms_and_relative_bias_are_not_decayed():
    model = tiny_model()
    decayed, exempt = names_by_decay(model)
    assert {"blocks1.0.pos_embed.weight", "blocks3.0.attn.motion_conv.0.weight", "head.weight"} <= decayed
    assert {"blocks3.0.attn.rpb", "blocks1.0.norm1.weight", "norm.bias", "patch_embed1.norm.weight"} <= exempt
    assert not any(name.endswith(("bias", "rpb")) for name in decayed)
    # Published runs decayed the relative bias.
    published, spared = names_by_decay(model, SOLVER__DECAY_RELATIVE_BIAS=True)
    relative_bias = {name for name in exempt if name.endswith(".rpb")}
    assert relative_bias and published == decayed | relative_bias and spared == exempt - relative_bias


class Odd(nn.Module):
    """Parameters that the rules must tell apart by their place, not by the number of axes or part of a name."""

    def __init__(self) -> None:
        super().__init__()
        self.rpb = nn.Parameter(torch.zeros(2, 169))  # of windows that tile the map
        self.rpb_proj = nn.Linear(3, 3)
        self.norm = nn.LayerNorm((4, 5))
        self.scale = nn.Parameter(torch.ones(()))
        self.tied = self.rpb_proj


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential], ids=["bare", "wrapped"])
def test_rules_go_by_module_and_last_name(wrap):
    decayed, exempt = names_by_decay(wrap(Odd()))
    assert {name.removeprefix("0.") for name in decayed} == {"rpb_proj.weight"}
    assert {name.removeprefix("0.") for name in exempt} == {"rpb", "rpb_proj.bias", "norm.weight", "norm.bias", "scale"}


def test_stages_without_blocks_have_learning_rates():
    model = tiny_model(UNIFORMER__DEPTH=[0, 1, 0, 1])
    assert sum(map(len, model.layer_groups())) == len(list(model.parameters())) and all(model.layer_groups())


def test_learning_rates_fall_from_the_head_to_the_stem_block_by_block():
    model = tiny_model()  # stem, blocks 1 + 1 + 3 + 2, norm and head: nine layers
    optimizer = build_optimizer(model, make_cfg(SOLVER__LAYER_DECAY=0.5))
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales = {names[p]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert scales.keys() == set(names.values())
    for name, above in {
        "patch_embed1.proj.weight": 8,
        "blocks1.0.norm1.bias": 7,
        "patch_embed2.norm.weight": 6,
        "blocks2.0.conv1.weight": 6,
        "patch_embed3.proj.weight": 5,
        "blocks3.0.attn.rpb": 5,
        "blocks3.2.mlp.fc1.weight": 3,
        "blocks4.1.attn.qkv.bias": 1,
        "norm.weight": 0,
        "head.bias": 0,
    }.items():
        assert scales[name] == 0.5**above, name
    decays = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, decay in decays.items() if decay} == names_by_decay(model)[0]
    found = [group["lr_scale"] for group in optimizer.param_groups]
    assert found == sorted(found)  # from the stem up


def test_frozen_parameters_are_not_optimised_and_their_norms_keep_their_statistics(caplog):
    model = tiny_model()
    with caplog.at_level("INFO"):
        freeze(model, ["patch_embed[12].*", "blocks1.*", "norm.weight"])
    beginnings = ("patch_embed1.", "patch_embed2.", "blocks1.", "norm.weight")
    frozen = {name for name, p in model.named_parameters() if name.startswith(beginnings)}
    assert frozen == {name for name, p in model.named_parameters() if not p.requires_grad}
    assert f"frozen: {len(frozen)} of {len(list(model.parameters()))} parameters" in caplog.text
    for settings in ({}, {"SOLVER__LAYER_DECAY": 0.5}):
        groups = build_optimizer(model, make_cfg(**settings)).param_groups
        listed = {parameter for group in groups for parameter in group["params"]}
        assert listed == {p for name, p in model.named_parameters() if name not in frozen}
    for mode in (True, False):
        model.train(mode)
        norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm3d)}
        assert norms["blocks1.0.norm1"] is False and norms["blocks2.0.norm1"] is norms["norm"] is mode


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["head.*", "patch_embed.proj.weight"],
            "no parameter of Uniformer fits 'patch_embed.proj.weight'; near it: patch",
        ),
        (["*"], r"MODEL.FREEZE is \['\*'\]: nothing is left to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(patterns, message):
    with pytest.raises(UserError, match=message):
        freeze(tiny_model(), patterns)
