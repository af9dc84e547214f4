"""Attention modules: the paper's variants, precision, compilation and export."""

import pytest
import torch
from helpers_models import awake, tiny_model

from slowfast.models.attention import ATTENTIONS, JointAttention, JointCostVolumeAttention
from slowfast.models.layers import AttentionBlock
from slowfast.ops.emim import EmimRules
from slowfast.utils.errors import UserError

COST_VOLUME = {f"UNIFORMER__STAGE{stage}_ATTENTION": ["joint_cost_volume", "joint"] for stage in (3, 4)}
TILED = {"EMIM__SAMPLING": "tiled"}
SHALLOW = {"UNIFORMER__DEPTH": [1, 1, 2, 1]}
VARIANTS = {
    "E-O": {},
    "tiled": TILED,
    "mask": {"EMIM__PADDING": "mask"},
    "interval 2, self": {"EMIM__TEMPORAL_INTERVAL": 2, "EMIM__LAST_FRAME": "self"},
    "no bias, no motion": {"EMIM__RELATIVE_BIAS": False, "EMIM__MOTION": False},
    "cost volume": COST_VOLUME,
}


def test_no_frame_is_left_to_look_at_itself_alone():
    with pytest.raises(UserError, match="EMIM.TEMPORAL_INTERVAL is 4; allowed: less than the 4 frames"):
        tiny_model(DATA__NUM_FRAMES=4, EMIM__TEMPORAL_INTERVAL=4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_trains(variant):
    torch.manual_seed(0)
    model = awake(tiny_model(**VARIANTS[variant]))
    model(torch.randn(2, 3, 3, 48, 80)).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


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


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_half_precision_autocast(name):
    """Gradients stay finite where affinities leave the range of float16; there both branches are in float32."""
    torch.manual_seed(0)
    block = awake(AttentionBlock(32, ATTENTIONS[name](32, 2), mlp_ratio=2.0, drop_path_rate=0.0))
    x = torch.randn(2, 32, 3, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.float16):
        position = x + block.pos_embed(x)
        found = block(x)
    assert found.dtype == torch.float32
    with torch.no_grad():
        block.attn.qkv.weight[:64].mul_(300)
    for dtype in (torch.bfloat16, torch.float16):
        block.zero_grad()
        with torch.autocast("cpu", dtype):
            out = block(x)
        out.float().square().mean().log().backward()  # independent of the scale of the output
        assert out.isfinite().all() and all(p.grad.isfinite().all() for p in block.parameters())
    with torch.no_grad():
        block.attn.qkv.weight[:64].div_(300)
    block.pos_embed = torch.nn.Identity()
    torch.testing.assert_close(found, block(position.float() / 2))  # the block adds its input to the identity of it


@pytest.mark.parametrize("variant", ["E-O", "cost volume"])
def test_compiled_training_step_is_one_graph_with_the_same_gradients(variant):
    torch.manual_seed(0)
    model = awake(tiny_model(**SHALLOW, MODEL__CHECKPOINT_NUM=[0, 0, 1, 0], **VARIANTS[variant]))
    clips = torch.randn(2, 3, 3, 32, 32)
    torch._dynamo.reset()
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):  # a graph break is an error
        model.zero_grad()
        run(clips).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_exported_program_agrees(tmp_path):
    torch.manual_seed(0)
    model = awake(tiny_model(**SHALLOW)).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    torch.export.save(torch.export.export(model, (clips,)), tmp_path / "model.pt2")
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(tmp_path / "model.pt2").module()(clips), model(clips))
