"""SlowFast and X3D: published sizes, the public implementation's results on the same weights, settings and refusals."""

import pytest
import torch
from helpers_models import awake, make_cfg, tiny_cfg, tiny_model

from slowfast.inference.model import architecture_cfg
from slowfast.models import build_model
from slowfast.models.build import different_data
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.models.pretrained import load_pretrained
from slowfast.models.slowfast import Fusion, SlowFast
from slowfast.models.x3d import X3D
from slowfast.utils.errors import UserError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "millions", "clip", "gflops"),
    [
        ("slowfast_r50_8x8", 34.57, (32, 256), 65.7),  # arXiv 1812.03982, Table 2
        ("slowfast_r50_4x16", 34.48, (32, 256), 36.1),
        ("x3d_s", 3.79, (13, 160), 1.96),  # arXiv 2004.04730, Tables 2 and 4
        ("x3d_s", 3.79, (13, 182), 2.7),
        ("x3d_m", 3.79, (16, 224), 4.73),
        ("x3d_m", 3.79, (16, 256), 6.2),
    ],
)
def test_sizes_are_those_published(name, millions, clip, gflops):
    cfg = architecture_cfg(name, 400)
    with torch.device("meta"):
        model = build_model(cfg)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.006)
    frames, side = clip
    assert count_gmacs(model, (3, frames, side, side)) == pytest.approx(gflops, rel=0.01)
    assert frames == cfg.DATA.NUM_FRAMES and side in (cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)
    assert not different_data(model, cfg)


@pytest.mark.parametrize("name", ["slowfast_r50_8x8", "slowfast_r50_4x16", "x3d_s"])
def test_results_are_those_of_pytorchvideo(name):
    if name.startswith("slowfast"):
        builders = pytest.importorskip("pytorchvideo.models.slowfast")
        kernel, alpha = (5, 8) if name == "slowfast_r50_4x16" else (7, 4)
        fusion = {"slowfast_fusion_conv_kernel_size": (kernel, 1, 1), "slowfast_fusion_conv_stride": (alpha, 1, 1)}
        theirs = builders.create_slowfast(head_pool=torch.nn.AdaptiveAvgPool3d, **fusion)
        ours, clips = SlowFast(400, alpha, kernel), torch.randn(1, 3, 32, 64, 64)
        paths = [clips[:, :, ours.slow_frames(32)], clips]
    else:
        builders = pytest.importorskip("pytorchvideo.models.x3d")
        theirs = builders.create_x3d(input_clip_length=13, input_crop_size=96, head_activation=None)
        ours, clips = X3D(400), torch.randn(1, 3, 13, 96, 96)
        paths = clips
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            for x in (module.weight.data, module.running_var):
                x.uniform_(0.5, 1.5)
            for x in (module.bias.data, module.running_mean):
                x.normal_(std=0.1)
    ours.load_state_dict(theirs.state_dict())  # every name and shape
    with torch.no_grad():
        expected, found = theirs.eval()(paths), ours.eval()(clips)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_a_lateral_connection_longer_than_the_clip_has_its_gradient():
    """Of torch's own convolution it is garbage on a CPU, 1e38 here."""
    fusion = Fusion(16, kernel=7, alpha=2)
    slow, fast = torch.zeros(2, 1, 3, 8, 8), torch.randn(2, 16, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for dtype in (torch.float64, torch.float32):
        fusion.to(dtype).zero_grad()
        out = fusion(slow.to(dtype), fast.to(dtype))
        out.square().sum().backward()
        found.append((out.double(), fusion.conv_fast_to_slow.weight.grad.clone().double()))
    for wanted, got in zip(*found):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_slow_pathway_sees_frames_from_the_first_to_the_last():
    with torch.device("meta"):
        model = SlowFast(4)
    assert model.slow_frames(32) == [0, 4, 8, 13, 17, 22, 26, 31] and model.slow_frames(4) == [0]
    with pytest.raises(UserError, match=r"DATA.NUM_FRAMES must be a multiple of alpha 4 \(MODEL.ARGS\) .* found 30"):
        model.slow_frames(30)
    with pytest.raises(UserError, match="found 9"):
        build_model(tiny_cfg("SlowFast", DATA__NUM_FRAMES=9))


@pytest.mark.parametrize("name", ["SlowFast", "X3D"])
def test_recomputed_activations_change_nothing(name):
    clips, results = torch.randn(2, 3, 4, 48, 48), []
    for checkpoint_num in ([0, 0, 0, 0], [1, 1, 1, 1]):
        torch.manual_seed(0)
        model = awake(tiny_model(name, MODEL__CHECKPOINT_NUM=checkpoint_num))
        logits = model(clips)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["SlowFast", "X3D"])
def test_features_pool_to_what_the_classifier_sees(name):
    model, clips = awake(tiny_model(name)).eval(), torch.randn(2, 3, 4, 64, 64)
    features = model.forward_features(clips)
    assert features.shape[2:] == (2 if name == "SlowFast" else 4, 2, 2)
    pooled = features.mean((2, 3, 4), keepdim=True)
    if name == "X3D":
        pooled = model.blocks[-1].pool.post_conv(pooled).relu()
    torch.testing.assert_close(model.head(pooled.flatten(1)), model(clips))


def test_another_number_of_classes_keeps_the_classifier_whole(tmp_path):
    torch.save({"model_state": tiny_model("X3D").state_dict()}, tmp_path / "w.pth")
    model = tiny_model("X3D", MODEL__NUM_CLASSES=7)
    report = load_pretrained(model, str(tmp_path / "w.pth"))
    assert set(report.skipped) == {"blocks.5.proj.weight", "blocks.5.proj.bias"} and not report.has_head
    assert "another number of classes" in report.skipped["blocks.5.proj.weight"] and not report.missing
    assert load_pretrained(tiny_model("X3D"), str(tmp_path / "w.pth")).has_head


def test_arguments_are_checked():
    for settings, message in (
        ({"MODEL_NAME": "SlowFast", "ARGS": {"alfa": 8}}, "SlowFast takes no argument 'alfa'; did you mean 'alpha'"),
        ({"MODEL_NAME": "X3D", "ARGS": {"zzz": 8}}, "X3D takes no argument 'zzz'; allowed: depth, dropout, width$"),
        ({"MODEL_NAME": "X3D", "ARGS": {"num_classes": 8}}, "'num_classes' of X3D is taken from other settings"),
        ({"MODEL_NAME": "X3D", "ARGS": {"width": "wide"}}, "X3D cannot be built with them"),
        ({"MODEL_NAME": "Uniformer", "ARGS": {"width": 8}}, "Uniformer takes no argument 'width'; allowed: stem"),
    ):
        with pytest.raises(UserError, match=message):
            build_model(make_cfg(**{f"MODEL__{key}": value for key, value in settings.items()}))


def test_data_unlike_the_published_one_is_told():
    cfg = tiny_cfg("SlowFast", DATA__MEAN=[0.5, 0.5, 0.5], DATA__NUM_FRAMES=32)
    difference = different_data(build_model(cfg), cfg)
    assert difference == "DATA.MEAN is [0.5, 0.5, 0.5], it was published with [0.45, 0.45, 0.45]"
