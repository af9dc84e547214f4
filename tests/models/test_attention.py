"""Attention modules: the paper's variants, precision, compilation and export."""

import pytest
import torch
from helpers_models import tiny_model

from slowfast.models.attention import ATTENTIONS, EmimAttention, JointAttention, JointCostVolumeAttention
from slowfast.models.layers import AttentionBlock
from slowfast.ops.emim import EmimRules

COST_VOLUME = {
    "UNIFORMER__STAGE3_ATTENTION": ["joint_cost_volume", "joint"],
    "UNIFORMER__STAGE4_ATTENTION": ["joint_cost_volume", "joint"],
}
TILED = {"EMIM__SAMPLING": "tiled"}
VARIANTS = {
    "E-O": {},
    "tiled": TILED,
    "mask": {"EMIM__PADDING": "mask"},
    "interval 2, self": {"EMIM__TEMPORAL_INTERVAL": 2, "EMIM__LAST_FRAME": "self"},
    "no bias, no motion": {"EMIM__RELATIVE_BIAS": False, "EMIM__MOTION": False},
    "cost volume": COST_VOLUME,
}


def awake(model):
    """Give the motion MLPs weights that are not zero."""
    for module in model.modules():
        if hasattr(module, "motion_conv") and module.motion_conv is not None:
            torch.nn.init.normal_(module.motion_conv[2].weight, std=0.2)
    return model


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [(4, 64, 64), (1, 48, 80)])
def test_every_variant_trains_on_any_clip(variant, shape):
    torch.manual_seed(0)
    model = awake(tiny_model(**VARIANTS[variant]))
    logits = model(torch.randn(2, 3, *shape))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_variants_have_the_parameters_they_need():
    def names(**settings):
        return {name for name, _ in tiny_model(**settings).blocks3[0].attn.named_parameters()}

    motion = {f"motion_conv.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    joint = {f"{layer}.{kind}" for layer in ("qkv", "proj") for kind in ("weight", "bias")}
    assert names() == joint | motion | {"rpb"}
    assert names(EMIM__RELATIVE_BIAS=False) == joint | motion
    assert names(EMIM__MOTION=False) == joint | {"rpb"}
    assert names(**COST_VOLUME) == joint | motion
    assert tiny_model(**TILED).blocks3[0].attn.rpb.shape == (2, 5, 5)


def test_cost_volume_beside_joint_attention_starts_as_joint_attention():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 6, 32)
    joint, with_volume = JointAttention(32, 2), JointCostVolumeAttention(32, 2, window=3)
    with_volume.load_state_dict(joint.state_dict(), strict=False)
    torch.testing.assert_close(with_volume(x), joint(x))
    awake(torch.nn.ModuleList([with_volume]))
    assert not torch.allclose(with_volume(x), joint(x))


@pytest.mark.parametrize("backend", ["reference", "dense"])
def test_cost_volume_has_cosines_and_zeros_outside(backend):
    torch.manual_seed(0)
    module = JointCostVolumeAttention(16, 1, window=3, rules=EmimRules(last_frame="self"), backend=backend)
    seen = []
    module.motion_conv.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    # Query and key of a token alike: the cosine with itself is one.
    with torch.no_grad():
        module.qkv.weight[16:32] = module.qkv.weight[:16]
        module.qkv.bias[16:32] = module.qkv.bias[:16]
        module(torch.randn(1, 3, 4, 5, 16))
    volume = seen[0].unflatten(-1, (3, 3))  # (B, T, H, W, N, K, K)
    assert volume.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(volume[:, -1, ..., 1, 1], torch.ones(1, 4, 5, 1))  # the last frame meets itself
    assert not volume[:, :, 0, :, :, 0].any() and not volume[:, :, :, -1, :, :, 2].any()


def test_cost_volume_has_no_tiles():
    with pytest.raises(ValueError, match="EMIM.SAMPLING must be sliding for joint_cost_volume"):
        tiny_model(**COST_VOLUME, **TILED)


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_gradients_of_a_block_stay_finite_under_autocast(name, dtype, scale):
    # Queries and keys so large that affinities leave the range of float16 (65504).
    torch.manual_seed(0)
    block = awake(AttentionBlock(32, ATTENTIONS[name](32, 2), mlp_ratio=2.0, drop_path_rate=0.0))
    with torch.no_grad():
        block.attn.qkv.weight[:64].mul_(scale)
    x = torch.randn(2, 32, 3, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype):
        out = block(x)
    assert out.isfinite().all()
    out.float().square().mean().log().backward()  # independent of the scale of the output
    assert all(p.grad.isfinite().all() for p in block.parameters()) and x.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_float16_autocast_leaves_the_branches_in_float32(name):
    torch.manual_seed(0)
    block = awake(AttentionBlock(32, ATTENTIONS[name](32, 2), mlp_ratio=2.0, drop_path_rate=0.0))
    x = torch.randn(2, 32, 3, 5, 5)
    with torch.autocast("cpu", torch.float16):
        position = x + block.pos_embed(x)
        found = block(x)
    block.pos_embed = torch.nn.Identity()
    expected = block(position.float() / 2)  # the block adds its input to the identity of it
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["E-O", "tiled", "cost volume"])
def test_compiled_without_graph_breaks(variant):
    torch.manual_seed(0)
    model = awake(tiny_model(**VARIANTS[variant])).eval()
    clips = torch.randn(2, 3, 4, 64, 64)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)  # a graph break is an error
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips), model(clips), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_num", [[0, 0, 0, 0], [0, 0, 1, 1]], ids=str)
def test_compiled_training_step_has_the_same_gradients(checkpoint_num):
    torch.manual_seed(0)
    model = awake(tiny_model(UNIFORMER__DEPTH=[1, 1, 1, 1], MODEL__CHECKPOINT_NUM=checkpoint_num))
    clips = torch.randn(2, 3, 3, 32, 32)
    torch._dynamo.reset()
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        run(clips).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_exported_program_agrees(variant, tmp_path):
    torch.manual_seed(0)
    model = awake(tiny_model(**VARIANTS[variant])).eval()
    clips = torch.randn(2, 3, 4, 64, 64)
    program = torch.export.export(model, (clips,))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(loaded(clips), model(clips))


def test_wrong_window_is_named():
    with pytest.raises(ValueError, match="must be odd"):
        EmimAttention(32, 2, window=4)
    assert EmimAttention(32, 2, window=4, rules=EmimRules(sampling="tiled")).rpb.shape == (2, 7, 7)
