"""Which parameters are decayed."""

import pytest
import torch
from helpers_models import make_cfg, tiny_model
from torch import nn

from slowfast.models.optimizer import build_optimizer, weight_decay_groups


def names_by_decay(model, **settings):
    """Return the names of the parameters with and without decay, having checked that each is in one group."""
    decayed, exempt = build_optimizer(model, make_cfg(**settings)).param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    listed = [names[p] for p in decayed["params"] + exempt["params"]]
    assert sorted(listed) == sorted(names.values())
    return {names[p] for p in decayed["params"]}, {names[p] for p in exempt["params"]}


def test_biases_norms_and_relative_bias_are_not_decayed():
    decayed, exempt = names_by_decay(tiny_model())
    assert {"blocks1.0.pos_embed.weight", "blocks3.0.attn.motion_conv.0.weight", "head.weight"} <= decayed
    assert {"blocks3.0.attn.rpb", "blocks1.0.norm1.weight", "norm.bias", "patch_embed1.norm.weight"} <= exempt
    assert not any(name.endswith(("bias", "rpb")) for name in decayed)


def test_published_runs_decayed_the_relative_bias():
    model = tiny_model()
    decayed, exempt = names_by_decay(model)
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

    def forward(self, x):
        return x


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential], ids=["bare", "wrapped"])
def test_rules_go_by_module_and_last_name(wrap):
    decayed, exempt = names_by_decay(wrap(Odd()))
    assert {name.removeprefix("0.") for name in decayed} == {"rpb_proj.weight"}
    assert {name.removeprefix("0.") for name in exempt} == {"rpb", "rpb_proj.bias", "norm.weight", "norm.bias", "scale"}


def test_groups_keep_the_order_of_the_model():
    model = tiny_model()
    place = {parameter: index for index, parameter in enumerate(model.parameters())}
    for group in weight_decay_groups(model, 0.05):
        places = [place[parameter] for parameter in group["params"]]
        assert places == sorted(places)


@pytest.mark.parametrize("decay_relative_bias", [False, True])
def test_log_counts_every_value_under_its_reason(caplog, decay_relative_bias):
    model = Odd()
    with caplog.at_level("INFO"):
        weight_decay_groups(model, 0.05, decay_relative_bias)
    assert {record.getMessage() for record in caplog.records} == {
        f"weight decay {'0.05' if decay_relative_bias else '0'}: relative bias, 1 tensors, 338 values",
        "weight decay 0.05: weights, 1 tensors, 9 values",
        "weight decay 0: norms, 2 tensors, 40 values",
        "weight decay 0: one-dimensional, 2 tensors, 4 values",
    }


def test_only_decayed_parameters_shrink():
    model = tiny_model()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, make_cfg()).step()
    shrunk = {name for name, parameter in model.named_parameters() if (parameter < 1).all()}
    kept = {name for name, parameter in model.named_parameters() if (parameter == 1).all()}
    assert (shrunk, kept) == names_by_decay(model)
