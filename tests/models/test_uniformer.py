"""Structure of the models: patterns, sizes, checkpointing, initialisation."""

import pytest
import torch
from helpers_models import make_cfg, tiny_model

from slowfast.models import MODEL_REGISTRY, build_model
from slowfast.models.attention import EmimAttention, JointAttention
from slowfast.models.layers import ConvMlp, Mlp

BASE = {"UNIFORMER__DEPTH": [5, 8, 20, 7]}
# Models of stills, and what they need beside their name.
STILL = {"Uniformer2d": {"EMIM__MOTION": False}}


def kinds(blocks):
    names = {EmimAttention: "E", JointAttention: "O"}
    return "".join(names[type(block.attn)] for block in blocks)


def test_pattern_is_counted_from_the_first_block_of_each_stage():
    with torch.device("meta"):
        small = build_model(make_cfg())
        odd = build_model(make_cfg(UNIFORMER__STAGE3_ATTENTION=["joint", "emim"]))
        base = build_model(make_cfg(**BASE))
    assert (kinds(small.blocks3), kinds(small.blocks4)) == ("EOEOEOEO", "EOE")
    assert (kinds(odd.blocks3), kinds(odd.blocks4)) == ("OEOEOEOE", "EOE")
    assert (kinds(base.blocks3), kinds(base.blocks4)) == ("EO" * 10, "EOEOEOE")


@pytest.mark.parametrize("name", sorted(name for name, _ in MODEL_REGISTRY))
@pytest.mark.parametrize("shape", [(4, 64, 64), (3, 64, 96), (1, 40, 70)])
def test_registered_models_train_on_any_clip(name, shape):
    torch.manual_seed(0)
    model = tiny_model(MODEL__MODEL_NAME=name, **STILL.get(name, {}))
    if name in STILL:
        shape = (1, *shape[1:])
    for module in model.modules():
        if isinstance(module, EmimAttention) and module.motion_conv is not None:
            # The zero start of the last motion layer would hide a missing gradient of the first.
            torch.nn.init.normal_(module.motion_conv[2].weight)
    logits = model(torch.randn(2, 3, *shape))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    if shape[0] > 2:
        key = "blocks3.0.attn.motion_conv.0.weight"
        assert dict(model.named_parameters())[key].grad.abs().sum() > 0


def test_temporal_downsampling_halves_the_frames():
    clip = torch.randn(1, 3, 8, 64, 64)
    assert tiny_model().forward_features(clip).shape == (1, 32, 8, 2, 2)
    assert tiny_model(UNIFORMER__TEMPORAL_DOWNSAMPLE=True).forward_features(clip).shape == (1, 32, 4, 2, 2)


def test_evaluation_returns_logits_of_each_clip_alone():
    model = tiny_model().eval()
    clips = torch.randn(3, 3, 4, 64, 64)
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together.sum(dim=1) - 1).abs().max() > 1e-3


def test_motion_starts_at_zero_and_then_matters():
    torch.manual_seed(0)
    model = tiny_model().eval()
    without = tiny_model(EMIM__MOTION=False).eval()
    missing, unexpected = without.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all("motion_conv" in key for key in unexpected)
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), without(clip))
        for module in model.modules():
            if isinstance(module, EmimAttention):
                module.motion_conv[2].bias.fill_(1.0)
        assert not torch.allclose(model(clip), without(clip), atol=1e-4)


def test_linear_layers_start_with_truncated_normal_weights():
    model = tiny_model()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert (module.bias == 0).all()
            if "motion_conv" not in name:
                assert 0.01 < module.weight.std() < 0.03, name


@pytest.mark.parametrize("num", [[1, 1, 3, 2], [0, 0, 2, 0]])
def test_checkpointing_changes_memory_only(num):
    def run(checkpoint_num):
        torch.manual_seed(0)
        model = tiny_model(MODEL__CHECKPOINT_NUM=checkpoint_num, UNIFORMER__DROP_DEPTH_RATE=0.4)
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(torch.randn(2, 3, 4, 64, 64)).square().sum()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        return loss.detach(), gradients, list(model.buffers()), saved

    plain, recomputed = run([0, 0, 0, 0]), run(num)
    torch.testing.assert_close(recomputed[:2], plain[:2])
    # Batch norms have counted the batch once, not once more while recomputing.
    torch.testing.assert_close(recomputed[2], plain[2])
    assert recomputed[3] < 0.9 * plain[3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"EMIM__WINDOW": [7, 6]}, "EMIM.WINDOW for stage 4.*odd.*found 6"),
        ({"EMIM__WINDOW": [7]}, "EMIM.WINDOW has one entry"),
        ({"EMIM__BACKEND": "cuda"}, "EMIM.BACKEND must be auto.*reference.*dense.*natten.*triton, found 'cuda'"),
        ({"UNIFORMER__STAGE3_ATTENTION": ["emin"]}, "UNIFORMER.STAGE3_ATTENTION.*joint.*emim.*found.*emin"),
        ({"UNIFORMER__STAGE4_ATTENTION": []}, "UNIFORMER.STAGE4_ATTENTION"),
        ({"UNIFORMER__DEPTH": [3, 4, 8]}, "UNIFORMER.DEPTH must have 4 entries"),
        ({"UNIFORMER__HEAD_DIM": 48}, "320 is not a multiple of UNIFORMER.HEAD_DIM 48"),
        ({"UNIFORMER__HEAD_DIM": 0}, "UNIFORMER.HEAD_DIM must be at least 1, found 0"),
        ({"MODEL__CHECKPOINT_NUM": [0, 0, -1, 0]}, "MODEL.CHECKPOINT_NUM must not be negative"),
        (
            {"UNIFORMER__STAGE3_ATTENTION": ["joint_cost_volume"], "EMIM__MOTION": False},
            "EMIM.MOTION is False.*UNIFORMER.STAGE3_ATTENTION",
        ),
        ({"MODEL__MODEL_NAME": "Unformer"}, "MODEL.MODEL_NAME 'Unformer'.*Uniformer"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build_model(make_cfg(**settings))


def test_wrong_clip_is_named():
    with pytest.raises(ValueError, match=r"\(B, 3, T, H, W\), found \(2, 4, 3, 64, 64\)"):
        tiny_model()(torch.zeros(2, 4, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 32 px.*DATA.TRAIN_CROP_SIZE.*found 64 x 31"):
        tiny_model()(torch.zeros(2, 3, 4, 64, 31))


def test_half_precision_gradients_of_very_short_clips_are_right():
    torch.manual_seed(0)
    model = tiny_model(UNIFORMER__DEPTH=[1, 1, 1, 1], EMIM__MOTION=False)
    clips = torch.randn(2, 3, 2, 32, 32)
    gradients = []
    for is_half in (False, True):
        model.zero_grad()
        junk = [torch.full((size,), 1e30) for size in (1_000, 10_000, 100_000)]  # what freed memory may hold
        del junk
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            logits = model(clips)
        logits.float().square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        if expected.norm() > 1e-3:
            assert (gradients[1][name] - expected).norm() < 0.15 * expected.norm(), name


@pytest.mark.parametrize("mlp", [Mlp(4, 8), ConvMlp(4, 8)], ids=["Mlp", "ConvMlp"])
def test_mlps_without_gradients_compute_the_same_and_leave_their_input_alone(mlp):
    """There the activation takes the memory of what it reads."""
    x = torch.randn(2, 4, 3, 5, 4)
    before, expected = x.clone(), mlp(x)
    with torch.no_grad():
        found = mlp(x)
    torch.testing.assert_close(found, expected.detach())
    assert torch.equal(x, before)
