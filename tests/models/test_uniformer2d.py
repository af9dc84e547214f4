"""The image model: its parameters, attention inside an image, and agreement with the video model on still clips."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers_models import tiny_model
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.errors import UserError

ROOT = Path(__file__).parents[2]

JOINT = {"UNIFORMER__STAGE3_ATTENTION": ["joint"], "UNIFORMER__STAGE4_ATTENTION": ["joint"]}


def published_shapes(emim_blocks):
    """Names and shapes of UniFormer-S for images: those of the video model without the axis of time."""
    cases = json.loads((ROOT / "tests/golden/cases.json").read_text())
    shapes = {}
    for name, shape in cases["uniformer_s_official_16x112"]["keys"]:
        shapes[name] = (*shape[:2], *shape[3:]) if len(shape) == 5 else tuple(shape)
    biases = {f"blocks{stage}.{index}.attn.rpb": ({3: 5, 4: 8}[stage], 7, 7) for stage, index in emim_blocks}
    return {**shapes, "head.weight": (1000, 512), "head.bias": (1000,), **biases}


EMIM_BLOCKS = [(3, 0), (3, 2), (3, 4), (3, 6), (4, 0), (4, 2)]


@pytest.mark.parametrize(("config", "emim"), [("uniformer_s_in1k_image", ()), ("emim_s_in1k_image", EMIM_BLOCKS)])
def test_names_and_shapes_are_the_published_ones(config, emim):
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"exp/{config}/config.yaml"))
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published_shapes(emim)
    assert count_gmacs(model, (3, 1, 224, 224)) == pytest.approx(3.6, abs=0.05)  # by the UniFormer paper


def random_image_model(**settings):
    """Return an image model in float64 whose every parameter and statistic is random, large enough to matter."""
    torch.manual_seed(0)
    model = tiny_model("Uniformer2d", **{**settings, "EMIM__MOTION": False}).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.normal_(std=max(0.2, tensor[0].numel() ** -0.5))
    return model


def inflated(image_model, folder, **settings):
    """Return the video model that starts from the image model's file."""
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
@pytest.mark.parametrize("attention", [JOINT, {"EMIM__MOTION": False}, {"EMIM__MOTION": True}], ids=str)
def test_inflated_model_sees_in_a_still_clip_what_the_image_model_sees(attention, tmp_path):
    """Without ends of the clip, equality is exact, joint attention included.

    A convolution over T equal frames adds up its temporal slices, which are the image's kernel divided by their number;
    joint attention finds every token T times, EMIM the frame itself in the next one. Only the zero padding in time
    treats frames differently, and is replaced.
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


@pytest.mark.parametrize("key", ["EMIM__MOTION", "UNIFORMER__TEMPORAL_DOWNSAMPLE"])
def test_settings_without_effect_are_refused(key):
    with pytest.raises(UserError, match=f"{key.replace('__', '.')} is True.*still images.*set it to False"):
        tiny_model("Uniformer2d", **{key: True})


@pytest.mark.parametrize("shape", [(2, 3, 2, 64, 64), (2, 3, 64, 64)])
def test_other_inputs_are_named(shape):
    with pytest.raises(UserError, match=r"DATA.NUM_FRAMES 1.* must be \(B, 3, 1, H, W\), found \(2, "):
        tiny_model("Uniformer2d")(torch.zeros(shape))
