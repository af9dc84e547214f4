"""Which parameters are decayed."""

from helpers_models import make_cfg, tiny_model

from slowfast.models.optimizer import build_optimizer


def test_biases_norms_and_relative_bias_are_not_decayed():
    model = tiny_model()
    optimizer = build_optimizer(model, make_cfg())
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, exempt = ({names[p] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert decayed | exempt == set(names.values()) and not decayed & exempt
    assert {"blocks1.0.pos_embed.weight", "blocks3.0.attn.motion_conv.0.weight", "head.weight"} <= decayed
    assert {"blocks3.0.attn.rpb", "blocks1.0.norm1.weight", "norm.bias", "patch_embed1.norm.weight"} <= exempt
    assert not any(name.endswith("bias") for name in decayed)
