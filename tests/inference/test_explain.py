"""Explanations: maps by their formulas, displacements of shifted tokens, figures that beat their controls, files."""

import io
import json
import re

import av
import numpy as np
import pytest
import torch
from helpers_models import awake, tiny_cfg, tiny_model
from PIL import Image
from torch import nn

from slowfast import load_model, sample_video
from slowfast.inference import draw, evaluate
from slowfast.inference.draw import visualize, write_explanation
from slowfast.inference.explain import class_maps, enlarge, motion_fields, read_affinities
from slowfast.inference.inputs import Inputs
from slowfast.inference.model import VideoModel, architecture_cfg, create_model
from slowfast.models import Model, build_model
from slowfast.models.attention import EmimAttention
from slowfast.ops.emim import EmimRules
from slowfast.utils.errors import UserError


@pytest.fixture(scope="module")
def model():
    return load_model("emim_tiny_motion", "cpu")


@pytest.mark.parametrize(("name", "num_frames"), [("emim_s", 2), ("uniformer_s_image", 1)])
def test_maps_are_those_of_their_formulas(name, num_frames):
    tiny = {"UNIFORMER__EMBED_DIM": [8, 8, 16, 16], "UNIFORMER__DEPTH": [1, 1, 1, 1], "UNIFORMER__HEAD_DIM": 8}
    torch.manual_seed(0)
    network = create_model(name, 5, num_frames, **tiny).eval()
    nn.init.uniform_(network.norm.running_var, 0.5, 2)
    clips, labels = torch.randn(2, 3, num_frames, 64, 96), torch.tensor([3, 0])
    with torch.no_grad():
        x = network.forward_stages(clips)[-1].reshape(2, 16, num_frames, 2, 3)
        weights = network.head.weight[labels]
        cam = torch.einsum("bc,bcthw->bthw", weights, x)
        scale = network.norm.weight / torch.sqrt(network.norm.running_var + network.norm.eps)
        gradient = weights * scale / x[0, 0].numel()
        gradcam = torch.einsum("bc,bcthw->bthw", gradient, x).relu()
    assert (cam < 0).any()  # and they are kept
    torch.testing.assert_close(class_maps(network, clips, labels, "cam"), cam)
    torch.testing.assert_close(class_maps(network, clips, labels, "gradcam"), gradcam)
    assert enlarge(cam[0].numpy(), (num_frames, 64, 96)).shape == (num_frames, 64, 96)
    assert "forward_stages" not in vars(network)


@pytest.mark.parametrize("name", ["SlowFast", "X3D", "Torchvision", "Timm"])
def test_maps_of_other_networks(name):
    torch.manual_seed(0)
    network, clips, labels = awake(tiny_model(name)).eval(), torch.randn(2, 3, 4, 96, 96), torch.tensor([3, 0])
    maps = class_maps(network, clips, labels, "gradcam")
    assert maps.dim() == 4 and maps.isfinite().all() and (maps > 0).any()
    with torch.no_grad():
        assert maps.shape[1:] == network.forward_features(clips).shape[2:]
    if name == "X3D":  # there is more than a mean between map and classifier
        with pytest.raises(UserError, match="cam needs a linear classifier .* use gradcam"):
            class_maps(network, clips, labels, "cam")
    else:
        cam = class_maps(network, clips, labels, "cam")
        torch.testing.assert_close(maps, cam.relu() / cam[0].numel(), rtol=1e-4, atol=1e-7)
    assert not {"forward", "forward_features", "forward_stages"} & {key for x in network.modules() for key in vars(x)}


class Shifted(nn.Module):
    """One EMIM block without projections; a pixel is a token."""

    def __init__(self, window=5, **options):
        super().__init__()
        self.attn = EmimAttention(16, 1, window, motion=False, relative_bias=False, **options)
        nn.init.zeros_(self.attn.qkv.bias)
        self.attn.qkv.weight.data = torch.cat([10 * torch.eye(16)] * 3)

    def forward(self, clips):
        return self.attn(clips.permute(0, 2, 3, 4, 1))


def test_displacements_are_the_shift_of_the_tokens():
    tokens = nn.functional.normalize(torch.randn(1, 16, 1, 9, 11, generator=torch.manual_seed(0)), dim=1)
    dx, dy = 2, -1
    clip = torch.cat([tokens, tokens.roll((dy, dx), (3, 4)), tokens.roll((2 * dy, 2 * dx), (3, 4))], dim=2)
    (field,) = motion_fields(Shifted(), clip)
    assert field.displacement.shape == (2, 9, 11, 2, 2) and field.confidence.shape == field.cycle_error.shape
    inside = (slice(None), slice(3, -3), slice(3, -3))
    assert np.abs(field.displacement[inside] - [dx, dy]).max() < 0.05
    assert field.confidence[inside].min() > 0.95 and field.cycle_error[inside].max() < 0.05
    # A still clip of equal tokens says nothing.
    (field,) = motion_fields(Shifted(), torch.ones(1, 16, 3, 9, 11))
    assert np.abs(field.displacement[inside]).max() < 1e-5 and field.confidence[inside].max() < 1e-5


def test_fields_are_of_the_frames_of_the_clip():
    tiny = {"UNIFORMER__EMBED_DIM": [8, 8, 16, 16], "UNIFORMER__DEPTH": [1, 1, 1, 1], "UNIFORMER__HEAD_DIM": 8}
    network = create_model("emim_s", 5, 8, **tiny, UNIFORMER__TEMPORAL_DOWNSAMPLE=True).eval()
    for field in motion_fields(network, torch.randn(1, 3, 8, 64, 64)):
        assert (len(field.displacement), field.interval) == (6, 2)
        assert (field.displacement[::2] == field.displacement[1::2]).all()


def test_affinities_are_those_of_the_forward_pass(model):
    """Attended values made of them are what the block hands to its projection."""
    clip = model.normalize(evaluate.synthetic_clip(evaluate.scene_spec(model), 0, 0)[2])
    (found,) = read_affinities(model.model, clip).values()
    seen = []
    hook = model.model.blocks3[0].attn.register_forward_hook(lambda block, inputs, _: seen.append((block, inputs[0])))
    model.model(clip)
    hook.remove()
    (block, x), middle = seen[0], found.window**2 // 2
    query, key, _ = block.project(x)
    products = (query[:, :-1] * key[:, 1:]).sum(-1) / query.shape[-1] ** 0.5 + block.rpb[:, 1, 1]
    torch.testing.assert_close(found.forward[..., middle], products)
    torch.testing.assert_close(
        found.backward[..., middle], (query[:, 1:] * key[:, :-1]).sum(-1) / query.shape[-1] ** 0.5 + block.rpb[:, 1, 1]
    )


def test_affinities_know_the_motion_and_controls_do_not(model):
    """Of new clips. They are no matches, though: the softmax looks along the axis of motion, but the other way."""
    rows = evaluate.measure_motion(model, 96, seed=1)
    best = {row["network"]: row for row in sorted(rows, key=lambda row: -row["epe_readout"])}
    error = best["trained"]["epe_readout"]  # measured: 0.17 tokens, the others 0.32 to 0.34
    assert all(error < 0.7 * best[name]["epe_readout"] for name in ("random weights", "raw patches", "no motion"))
    heads = {name: [abs(row["correlation"]) for row in rows if row["network"] == name] for name in best}
    assert max(heads["trained"]) > 0.3 > 0.25 > max(heads["random weights"])
    assert best["raw patches"]["epe"] < 0.7 * best["no motion"]["epe"]  # the truth is right: pixels do match


def test_maps_show_what_the_prediction_hangs_on(model):
    spec = evaluate.scene_spec(model)
    clips = (model.normalize(evaluate.synthetic_clip(spec, 1, index)[2]) for index in range(24))
    found = evaluate.measure_maps(model, clips, 24)
    for name in ("cam", "gradcam"):
        assert found[name]["insertion_gain"] > 0.02 and found[name]["deletion_gain"] < -0.03
        assert found[name]["insertion"] > found["noise"]["insertion"] + 0.05


def test_files_of_an_explanation(tmp_path, model):
    arguments = ("emim_tiny_motion", [sample_video()], ["cam", "gradcam", "motion"], "moving up", "cividis")
    assert visualize(*arguments, str(tmp_path / "seen"), None, "cpu") == 0
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["sample.html", "sample.mp4", "sample.png"]
    with av.open(str(tmp_path / "seen/sample.mp4")) as video:
        (stream,) = video.streams
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width % 2, codec.height % 2) == ("h264", "yuv420p", 0, 0)
        assert len([*video.decode(stream)]) == 6
    content = (tmp_path / "seen/sample.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it arrives
    page = (tmp_path / "seen/sample.html").read_text()
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)', page))
    assert not re.search(r"https?:|url\(|@import|<link|<script", re.sub(r"base64,[^\"]*", "", page))
    assert page.count("<figure>") == 1 + 2 + 4 * 3 and "maps of" not in page and "moving up" in page
    assert Image.open(io.BytesIO((tmp_path / "seen/sample.png").read_bytes())).width > 6 * 128


def test_motion_prompts_are_shown(tmp_path):
    tiny = {"UNIFORMER__EMBED_DIM": [8, 8, 16, 16], "UNIFORMER__DEPTH": [1, 1, 1, 1], "UNIFORMER__HEAD_DIM": 8}
    on = {"VMP__ENABLE": True, "AUG__RE_PROB": 0.0, "VMP__INIT": [0.3, -0.2], "DATA__TEST_CROP_SIZE": 64}
    cfg = architecture_cfg("emim_s", 5, 4, **tiny, **on)
    model = VideoModel(build_model(cfg), cfg, None, "cpu")
    explanation = model.explain(sample_video(), ["prompts"])
    shown, frames = explanation.prompts, explanation.frames.astype(np.float32)
    assert shown.frames.shape == (4, 64, 64, 3) and shown.difference.shape == shown.attention.shape == (4, 64, 64)
    # The difference is that of grey frames, the attention the curve at it, and prompts are grey where it is 0.
    grey = frames @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(shown.difference[1:], np.diff(grey, axis=0), atol=1e-5)
    np.testing.assert_allclose(shown.attention, np.interp(shown.difference, *shown.curve), atol=2e-3)
    prompts = 255 * 0.45 + shown.attention[..., None] * (frames - 255 * 0.45)
    assert np.abs(shown.frames - prompts).max() < 0.51
    assert (shown.slope, shown.shift) == pytest.approx((21.63652855, -0.11842519), rel=1e-5)
    write_explanation(explanation, tmp_path / "seen")
    page = (tmp_path / "seen.html").read_text()
    assert page.count("<figure>") == 1 + 4 and "slope 21.6, shift -0.118, A(0) 0.928" in page
    # Grey where nothing changes, yellow where it gets brighter, blue where it gets darker.
    darker, same, brighter = draw._colour(np.array([[[-0.2, 0, 0.2]]]), -0.2, 0.2, "cividis")[0, 0].astype(int)
    for name in {*draw.COLOURS} - {"jet"}:  # readable without colours: the higher, the brighter
        shades = draw._colour(np.arange(256)[None, None], 0, 255, name)[0, 0] @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(shades) > -1).all() and np.ptp(shades) > 150
    assert np.ptp(same) < 8 and darker.argmax() == 2 and brighter.argmin() == 2
    curve = draw.draw_curve(shown.curve, shown.difference[0], 160)
    assert curve.shape == (160, 160, 3) and (curve[10, 120:] == 255).all() and (curve[159, :20] != 255).any()


def test_report_of_an_evaluation(tmp_path):
    visualize("emim_tiny_motion", [sample_video()], ["cam"], None, "inferno", str(tmp_path), 48, "cpu")
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert {*report["maps"]} == {"cam", "gradcam", "shuffled", "noise"}
    assert {row["head"] for row in report["motion"] if row["network"] == "trained"} == {0, 1, 2, "all"}


def test_maps_are_measured_behind_prompts_and_where_displacements_are_not():
    on = {"VMP__ENABLE": True, "AUG__RE_PROB": 0.0, "DATA__NUM_FRAMES": 4}
    on |= {f"DATA__{key}_CROP_SIZE": 32 for key in ("TRAIN", "TEST")}
    cfg = tiny_cfg("Uniformer", **on)
    model = VideoModel(build_model(cfg), cfg, None, "cpu")
    report, lines = evaluate.evaluate(model, 2, Inputs([sample_video()], model.cfg))
    assert report["maps"]["cam"].keys() >= {"insertion"} and np.isnan(report["maps"]["cam"]["insertion_interval"])
    assert "VMP.ENABLE is True" in report["no_motion"] and "no errors of displacements" in lines[-1]


class Plain(Model):
    def forward(self, clips):
        return clips.mean((2, 3, 4))


class Tiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = EmimAttention(3, 1, rules=EmimRules("tiled"))

    def forward(self, clips):
        return self.attn(clips.permute(0, 2, 3, 4, 1)).mean((1, 2, 3))


@pytest.mark.parametrize(
    ("network", "video", "what", "label", "words"),
    [
        (None, None, ["cam"], "moving upp", "no class 'moving upp' among the 12 .*near it: moving up"),
        (None, None, ["cam"], 12, "no class 12"),
        (None, None, ["attention"], None, "no explanation 'attention'; allowed: cam, gradcam, motion, prompts"),
        (None, "text.mp4", ["cam"], None, "text.mp4: "),
        (Plain(), None, ["cam"], None, "Plain has no features to give and no map to explain"),
        (Plain(), None, ["motion"], None, "Plain has no EMIM block"),
        (Plain(), None, ["prompts"], None, "Plain has no motion prompts to show: it was built with VMP.ENABLE False"),
        (
            tiny_model("Timm", MODEL__MODEL_NAME="timm/test_vit", MODEL__ARGS={}, DATA__TRAIN_CROP_SIZE=64),
            None,
            ["cam"],
            0,
            "Timm has no features to give and no map to explain",
        ),
        (Tiled(), None, ["motion"], None, "sliding windows only .EMIM.SAMPLING is tiled"),
    ],
)
def test_mistakes_are_told(tmp_path, model, network, video, what, label, words):
    (tmp_path / "text.mp4").write_text("no video")
    used = model if network is None else VideoModel(network, model.cfg, model.class_names[:3], "cpu")
    with pytest.raises(UserError, match=words):
        used.explain(sample_video() if video is None else str(tmp_path / video), what, label)


def test_a_mistake_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="no class 'nothing'"):
        visualize(
            "emim_tiny_motion", [sample_video()], ["cam"], "nothing", "inferno", str(tmp_path / "out"), None, "cpu"
        )
    with pytest.raises(UserError, match="would both be"):
        twice = [sample_video()] * 2
        visualize("emim_tiny_motion", twice, ["cam"], None, "inferno", str(tmp_path / "out"), None, "cpu")
    assert not (tmp_path / "out").exists()
