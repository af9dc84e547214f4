"""Structure of UniFormer: patterns, recomputation, initialisation, settings that cannot be built."""

import pytest
import torch
from helpers_models import awake, make_cfg, tiny_model

from slowfast.models import build_model
from slowfast.models.attention import EmimAttention, JointAttention
from slowfast.models.layers import DropPath, Mlp
from slowfast.utils.errors import UserError

COST_VOLUME = {"UNIFORMER__STAGE3_ATTENTION": ["joint_cost_volume"]}


def kinds(blocks):
    names = {EmimAttention: "E", JointAttention: "O"}
    return "".join(names[type(block.attn)] for block in blocks)


def test_pattern_is_counted_from_the_first_block_of_each_stage():
    with torch.device("meta"):
        small = build_model(make_cfg())
        odd = build_model(make_cfg(UNIFORMER__STAGE3_ATTENTION=["joint", "emim"]))
        base = build_model(make_cfg(UNIFORMER__DEPTH=[5, 8, 20, 7]))
    found = [(kinds(model.blocks3), kinds(model.blocks4)) for model in (small, odd, base)]
    assert found == [("EOEOEOEO", "EOE"), ("OEOEOEOE", "EOE"), ("EO" * 10, "EOEOEOE")]


def test_start_of_linear_layers_and_of_the_motion_branch_which_then_matters():
    torch.manual_seed(0)
    model, without = tiny_model().eval(), tiny_model(EMIM__MOTION=False).eval()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert not module.bias.any() and ("motion_conv" in name or 0.01 < module.weight.std() < 0.03), name
    without.load_state_dict(model.state_dict(), strict=False)
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), without(clip))
        assert not torch.allclose(awake(model)(clip), without(clip), atol=1e-4)


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    model = tiny_model(UNIFORMER__DROP_DEPTH_RATE=0.3)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.3 * block / 6 for block in range(7)])
    layer, x = DropPath(0.3), torch.ones(10_000, 2, 3)
    found = layer(x)
    assert (found == found[:, :1, :1]).all() and found.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert found.mean() == pytest.approx(1, abs=0.03)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(("name", "frames", "num"), [("Uniformer", 4, [1, 1, 2, 0]), ("Uniformer2d", 1, [1, 1, 3, 2])])
def test_recomputing_activations_changes_memory_only(name, frames, num):
    def run(checkpoint_num, change=lambda model: model):
        torch.manual_seed(0)
        model = change(tiny_model(name, MODEL__CHECKPOINT_NUM=checkpoint_num, UNIFORMER__DROP_DEPTH_RATE=0.4))
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(torch.randn(2, 3, frames, 64, 64)).square().sum()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        return loss.detach(), gradients, list(model.buffers()), saved

    plain, recomputed = run([0, 0, 0, 0]), run(num)
    torch.testing.assert_close(recomputed[:2], plain[:2])
    # Batch norms have counted the batch once, not once more while recomputing.
    torch.testing.assert_close(recomputed[2], plain[2])
    assert recomputed[3] < 0.9 * plain[3]
    torch.testing.assert_close(run(num, torch.nn.SyncBatchNorm.convert_sync_batchnorm)[:3], plain[:3])


def test_recomputation_and_compilation_go_together():
    compiled, plain = (tiny_model("Uniformer", MODEL__CHECKPOINT_NUM=[1, 0, 1, 0]) for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compiled.compile(backend="eager")
    clips = torch.randn(2, 3, 2, 32, 32)
    for model in (compiled, plain):
        model(clips).square().sum().backward()
    torch.testing.assert_close([p.grad for p in compiled.parameters()], [p.grad for p in plain.parameters()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"EMIM__WINDOW": [7, 6]}, "EMIM.WINDOW for stage 4.*odd.*found 6"),
        ({"UNIFORMER__STAGE3_ATTENTION": ["emin"]}, "UNIFORMER.STAGE3_ATTENTION.*joint.*emim.*found.*emin"),
        ({"UNIFORMER__STAGE4_ATTENTION": []}, "UNIFORMER.STAGE4_ATTENTION"),
        ({"UNIFORMER__MLP_RATIO": 0.01}, "UNIFORMER.MLP_RATIO 0.01 leaves MLPs of 64 channels without width"),
        ({"UNIFORMER__HEAD_DIM": 48}, "320 is not a multiple of UNIFORMER.HEAD_DIM 48"),
        ({**COST_VOLUME, "EMIM__MOTION": False}, "EMIM.MOTION True for .*STAGE3_ATTENTION, found sliding and False"),
        ({**COST_VOLUME, "EMIM__SAMPLING": "tiled"}, "EMIM.SAMPLING must be sliding.*found tiled"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message), torch.device("meta"):
        build_model(make_cfg(**settings))


def test_wrong_clip_is_named():
    with pytest.raises(UserError, match="at least 32 px.*DATA.TRAIN_CROP_SIZE.*found 64 x 31"):
        tiny_model()(torch.zeros(2, 3, 4, 64, 31))


@pytest.mark.parametrize("mlp", [Mlp(4, 8), Mlp(4, 8, axes=3), Mlp(4, 8, axes=2)], ids=["linear", "3d", "2d"])
def test_mlps_without_gradients_compute_the_same_and_leave_their_input_alone(mlp):
    """There the activation takes the memory of its input."""
    x = torch.randn(2, 4, 5, 4) if isinstance(mlp.fc1, torch.nn.Conv2d) else torch.randn(2, 4, 3, 5, 4)
    before, expected = x.clone(), mlp(x)
    with torch.no_grad():
        found = mlp(x)
    torch.testing.assert_close(found, expected.detach())
    assert torch.equal(x, before)
