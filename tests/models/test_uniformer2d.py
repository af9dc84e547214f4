"""The image model: its parameters, attention inside one image, and agreement with the video model on still clips."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers_models import make_cfg, tiny_model
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.models import build_model
from slowfast.models.attention import EmimAttention
from slowfast.models.complexity import count_gmacs
from slowfast.models.pretrained import load_pretrained

ROOT = Path(__file__).parents[2]
IMAGE = {"MODEL__MODEL_NAME": "Uniformer2d", "EMIM__MOTION": False}
JOINT = {"UNIFORMER__STAGE3_ATTENTION": ["joint"], "UNIFORMER__STAGE4_ATTENTION": ["joint"]}
EMIM = {"UNIFORMER__STAGE3_ATTENTION": ["emim"], "UNIFORMER__STAGE4_ATTENTION": ["emim"]}


def published_shapes(dims=(64, 128, 320, 512), depths=(3, 4, 8, 3), num_classes=1000, emim_blocks=()):
    """Names and shapes of UniFormer-S for images (arXiv 2201.09450), ``emim_blocks`` having a bias of 7 x 7."""
    norm_values = ("weight", "bias", "running_mean", "running_var")
    shapes = {}

    def layer(name, *weight):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def batch_norm(name, dim):
        shapes.update({f"{name}.{value}": (dim,) for value in norm_values})
        shapes[f"{name}.num_batches_tracked"] = ()

    for stage, (dim_in, dim) in enumerate(pairwise((3, *dims)), 1):
        side = 4 if stage == 1 else 2
        layer(f"patch_embed{stage}.proj", dim, dim_in, side, side)
        layer(f"patch_embed{stage}.norm", dim)
        for index in range(depths[stage - 1]):
            block = f"blocks{stage}.{index}"
            layer(f"{block}.pos_embed", dim, 1, 3, 3)
            if stage <= 2:
                for norm in ("norm1", "norm2"):
                    batch_norm(f"{block}.{norm}", dim)
                for conv in ("conv1", "conv2"):
                    layer(f"{block}.{conv}", dim, dim, 1, 1)
                layer(f"{block}.attn", dim, 1, 5, 5)
            else:
                for norm in ("norm1", "norm2"):
                    layer(f"{block}.{norm}", dim)
                layer(f"{block}.attn.qkv", 3 * dim, dim)
                layer(f"{block}.attn.proj", dim, dim)
                if (stage, index) in emim_blocks:
                    shapes[f"{block}.attn.rpb"] = (dim // 64, 7, 7)
            kernel = (1, 1) if stage <= 2 else ()
            layer(f"{block}.mlp.fc1", 4 * dim, dim, *kernel)
            layer(f"{block}.mlp.fc2", dim, 4 * dim, *kernel)
    batch_norm("norm", dims[-1])
    layer("head", num_classes, dims[-1])
    return shapes


@pytest.mark.parametrize(
    ("config", "emim_blocks", "gmacs"),
    [
        # 3.6 GFLOPs by the UniFormer paper.
        ("uniformer_s_in1k_image", (), 3.6),
        ("emim_s_in1k_image", [(3, 0), (3, 2), (3, 4), (3, 6), (4, 0), (4, 2)], 3.6),
    ],
)
def test_names_and_shapes_are_the_published_ones(config, emim_blocks, gmacs):
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/{config}.yaml"))
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published_shapes(emim_blocks=emim_blocks)
    assert count_gmacs(model, (3, 1, 224, 224)) == pytest.approx(gmacs, abs=0.05)


@pytest.mark.parametrize("attention", [{}, JOINT])
def test_every_parameter_gets_a_gradient(attention):
    torch.manual_seed(0)
    model = tiny_model(**IMAGE, **attention)
    loss = F.cross_entropy(model(torch.randn(3, 3, 1, 96, 64)), torch.tensor([0, 1, 2]))
    loss.backward()
    without = [name for name, x in model.named_parameters() if x.grad is None or not x.grad.abs().sum() > 0]
    assert not without


def test_recomputing_activations_changes_no_statistics():
    runs = []
    for checkpoint_num in ([0, 0, 0, 0], [1, 1, 3, 2]):
        torch.manual_seed(0)
        model = tiny_model(**IMAGE, MODEL__CHECKPOINT_NUM=checkpoint_num)
        model(torch.randn(2, 3, 1, 64, 64)).square().sum().backward()
        runs.append((list(model.buffers()), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(runs[1], runs[0])


def test_emim_in_an_image_is_attention_to_the_window_around_each_token():
    torch.manual_seed(0)
    heads, channels, window, height, width = 2, 4, 3, 3, 4
    attention = EmimAttention(heads * channels, heads, window=window, motion=False).double()
    nn.init.normal_(attention.rpb)
    x = torch.randn(1, 1, height, width, heads * channels, dtype=torch.float64)
    query, key, value = attention.qkv(x)[0, 0].view(height, width, 3, heads, channels).unbind(2)
    expected = torch.empty(height, width, heads, channels, dtype=torch.float64)
    outside = torch.full((channels,), 1e-6, dtype=torch.float64)
    places = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    for row in range(height):
        for column in range(width):
            for head in range(heads):
                logits, values = [], []
                for dy, dx in places:
                    is_inside = 0 <= row + dy < height and 0 <= column + dx < width
                    k = key[row + dy, column + dx, head] if is_inside else outside
                    values.append(value[row + dy, column + dx, head] if is_inside else outside)
                    logits.append(query[row, column, head] @ k / channels**0.5 + attention.rpb[head, dy + 1, dx + 1])
                expected[row, column, head] = torch.stack(logits).softmax(0) @ torch.stack(values)
    torch.testing.assert_close(attention(x)[0, 0], attention.proj(expected.flatten(2)), rtol=0, atol=1e-12)


def random_image_model(**settings):
    """An image model in float64 whose every parameter and statistic is random, large enough to matter."""
    torch.manual_seed(0)
    model = tiny_model(**{**settings, **IMAGE}).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.normal_(std=max(0.2, tensor[0].numel() ** -0.5))
    return model


def inflated(image_model, folder, **settings):
    """The video model that starts from the image model's file."""
    torch.save({"model": image_model.state_dict()}, folder / "image.pth")
    model = tiny_model(**settings).double().eval()
    report = load_pretrained(model, str(folder / "image.pth"))
    assert not report.skipped and not report.unexpected
    assert all("motion_conv" in name for name in report.missing)
    return model


def repeat_frames_at_the_ends(model):
    """Make the convolutions see a clip whose first and last frames go on for ever, instead of zeros."""

    def pad(module, inputs):
        reach = module.kernel_size[0] // 2
        return F.pad(inputs[0], (0, 0, 0, 0, reach, reach), mode="replicate")

    for module in model.modules():
        if isinstance(module, nn.Conv3d) and module.padding[0]:
            module.padding = (0, *module.padding[1:])
            module.register_forward_pre_hook(pad)


# The zero start of the motion MLP must leave the appearance alone, so MOTION on and off are equal here.
@pytest.mark.parametrize(
    "attention",
    [JOINT, {"EMIM__MOTION": False}, {"EMIM__MOTION": True}],
    ids=["joint", "emim-joint", "emim-joint-zero-motion"],
)
def test_inflated_model_sees_in_a_still_clip_what_the_image_model_sees(attention, tmp_path):
    """Without ends of the clip, equality is exact, joint attention included.

    All frames of a still clip stay alike through a network that treats them alike. A convolution over T equal frames
    adds up its temporal slices, which are the image's kernel divided by their number. Joint attention finds every token
    T times, with equal weights that add up to what one has in the image; EMIM finds the frame itself in the next one.
    The only thing that treats frames differently is the zero padding in time, which the test therefore replaces.
    """
    image_model = random_image_model(**attention)
    video_model = inflated(image_model, tmp_path, **attention)
    repeat_frames_at_the_ends(video_model)
    image = torch.randn(2, 3, 1, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        still = video_model.forward_stages(image.expand(-1, -1, 5, -1, -1))
        expected = image_model.forward_stages(image)
        logits = video_model(image.expand(-1, -1, 5, -1, -1)), image_model(image)
    for clip_map, image_map in zip(still, expected, strict=True):
        assert image_map.std() > 0.1
        expected_map = image_map[:, :, None].expand_as(clip_map)
        torch.testing.assert_close(clip_map, expected_map, rtol=0, atol=1e-10 * image_map.abs().max().item())
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)


def test_frames_that_the_ends_cannot_reach_agree_without_any_change(tmp_path):
    """With the zero padding as it is, frames far enough from both ends are exact in a model of EMIM blocks alone.

    A kernel of 2 r + 1 frames carries what happens at an end by r frames, in both directions; an EMIM block looks one
    frame ahead, so it carries the far end one frame back. The frame next to the exact ones differs: the count is tight.
    """
    settings = {**EMIM, "EMIM__MOTION": False, "UNIFORMER__DEPTH": [1, 1, 1, 1]}
    image_model = random_image_model(**settings)
    video_model = inflated(image_model, tmp_path, **settings)
    kernels = [module.kernel_size[0] for module in video_model.modules() if isinstance(module, nn.Conv3d)]
    from_start = sum(kernel // 2 for kernel in kernels)
    from_end = from_start + sum(isinstance(module, EmimAttention) for module in video_model.modules())
    exact = slice(from_start, from_start + 2)
    num_frames = from_start + 2 + from_end
    image = torch.randn(1, 3, 1, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        still = video_model.forward_stages(image.expand(-1, -1, num_frames, -1, -1))[-1]
        expected = image_model.forward_stages(image)[-1][:, :, None]
    errors = ((still - expected).abs() / expected.abs().max()).amax(dim=(0, 1, 3, 4))  # (T,)
    assert errors[exact].max() < 1e-10
    assert errors[exact.start - 1] > 1e-9 and errors[exact.stop] > 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"EMIM__MOTION": True}, "EMIM.MOTION is True.*set EMIM.MOTION to False"),
        ({"EMIM__MOTION": False, "UNIFORMER__TEMPORAL_DOWNSAMPLE": True}, "UNIFORMER.TEMPORAL_DOWNSAMPLE is True"),
    ],
)
def test_settings_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build_model(make_cfg(MODEL__MODEL_NAME="Uniformer2d", **settings))


@pytest.mark.parametrize("shape", [(2, 3, 2, 64, 64), (2, 3, 64, 64), (2, 1, 1, 64, 64)])
def test_other_inputs_are_named(shape):
    with pytest.raises(ValueError, match=r"\(B, 3, 1, H, W\).*DATA.NUM_FRAMES 1.*found \(2, "):
        tiny_model(**IMAGE)(torch.zeros(shape))
