"""Networks of other libraries: their own results, their position tables in other sizes, and refusals."""

import pytest
import timm
import torch
import torchvision
from helpers_models import make_cfg, tiny_cfg

from slowfast.inference.model import architecture_cfg
from slowfast.models import MODEL_REGISTRY, build_model
from slowfast.models.attention import EmimAttention
from slowfast.models.complexity import count_gmacs, count_macs, count_parameters
from slowfast.models.framewise import ChannelShift
from slowfast.models.optimizer import weight_decay_groups
from slowfast.models.pretrained import load_pretrained, resize_positions
from slowfast.models.wrapped import TORCHVISION
from slowfast.utils.errors import UserError

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
HIDDEN = {"intermediate_size": 64}
TRANSFORMERS = {"timesformer": HIDDEN, "videomae": HIDDEN, "vivit": HIDDEN, "vjepa2": {"num_pooler_layers": 1}}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(name, frames=4, side=64, **settings):
    sizes = {"DATA__NUM_FRAMES": frames, "DATA__TRAIN_CROP_SIZE": side, "DATA__TEST_CROP_SIZE": side}
    return build_model(make_cfg(MODEL__MODEL_NAME=name, **{"MODEL__NUM_CLASSES": 5, **sizes, **settings}))


def transformer(name, frames=4, side=64, **settings):
    pytest.importorskip("transformers")
    return build(f"transformers/{name}", frames, side, MODEL__ARGS=SMALL | TRANSFORMERS[name], **settings)


def is_trained_whole(model, clips):
    model(clips).square().sum().backward()
    return not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", TORCHVISION)
def test_results_are_those_of_torchvision(name):
    frames, side = {"s3d": (14, 224), "mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224)}.get(name, (4, 64))
    ours, theirs = build(f"torchvision/{name}", frames, side), torchvision.models.get_model(name, num_classes=5)
    ours.model.load_state_dict(theirs.state_dict())  # every name and shape
    clips = torch.randn(1, 3, frames, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(clips), theirs.eval()(clips))
    assert ours.head.weight.shape[0] == 5


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_a_narrow_resnet_has_its_width_everywhere(name):
    model = build(f"torchvision/{name}", side=32, MODEL__ARGS={"width": 8, "layers": [1, 1, 1, 1]})
    stages = [model.model.get_submodule(f"layer{i}.0") for i in (1, 2, 3, 4)]
    assert [stage.conv2[1].num_features for stage in stages] == [8, 16, 32, 64]
    assert model.head.in_features == 64 and model.model.layer1[0].downsample is None
    assert is_trained_whole(model, torch.randn(2, 3, 4, 32, 32))


@pytest.mark.parametrize("name", ["r3d_18", "mvit_v2_s", "swin3d_t"])
def test_sizes_are_those_that_torchvision_states(name):
    facts = torchvision.models.get_model_weights(name).DEFAULT.meta
    cfg = architecture_cfg(name, 400)
    with torch.device("meta"):
        model = build_model(cfg)
    assert count_parameters(model) == facts["num_params"]
    assert count_gmacs(model, (3, 16, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)) == pytest.approx(
        facts["_ops"], abs=0.001
    )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_results_are_those_of_transformers(name):
    ours, clips = transformer(name), torch.randn(2, 3, 4, 64, 64)
    theirs = type(ours.model)(ours.model.config)
    report = theirs.load_state_dict(ours.model.state_dict(), strict=False)
    assert not report.unexpected_keys and all(".predictor." in key for key in report.missing_keys)
    with torch.no_grad():
        expected = theirs.eval()(clips.transpose(1, 2)).logits
        assert torch.equal(ours.eval()(clips), expected)
    assert is_trained_whole(ours.train(), clips) and len(ours.layer_groups()) >= 4
    again = transformer(name, MODEL__CHECKPOINT_NUM=[1, 1, 1, 1])
    again.load_state_dict(ours.state_dict())
    assert is_trained_whole(again, clips)
    torch.testing.assert_close([p.grad for p in again.parameters()], [p.grad for p in ours.parameters()])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_frames_are_averaged(name):
    args = {"zero_init_last": False} if name == "test_resnet" else {}  # residual branches that do something
    sizes = {"img_size": 64} if name == "test_vit" else {}
    model, clips = build(f"timm/{name}", MODEL__ARGS=args).eval(), torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad():
        expected = torch.stack([model.model(clips[:, :, frame]) for frame in range(4)]).mean(0)
        torch.testing.assert_close(model(clips), expected)
        theirs = timm.create_model(name.removeprefix("timm/"), num_classes=5, **args, **sizes)
        theirs.load_state_dict(model.model.state_dict())
        frames = theirs.eval()(clips.transpose(1, 2).flatten(0, 1)).view(2, 4, 5)
        assert torch.equal(model(clips), frames.mean(1))
        shifted = build(f"timm/{name}", MODEL__ARGS={"shift": 8, **args}).eval()
        shifted.load_state_dict(model.state_dict())
        assert not torch.allclose(shifted(clips), model(clips))
        assert not torch.allclose(shifted(clips), shifted(clips.flip(2)))
        torch.testing.assert_close(model(clips), model(clips.flip(2)))
    with pytest.raises(UserError, match="clips have 3 frames; allowed: with shift or emim those of DATA.NUM_FRAMES, 4"):
        shifted(clips[:, :, :3])
    assert is_trained_whole(shifted.train(), clips) and len(shifted.layer_groups()) > 3
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        with pytest.raises(UserError, match="cannot recompute activations"):
            build(f"timm/{name}", MODEL__ARGS={"shift": 8, **args}, MODEL__CHECKPOINT_NUM=[1, 1, 1, 1])
        return
    again = build(f"timm/{name}", MODEL__ARGS={"shift": 8, **args}, MODEL__CHECKPOINT_NUM=[1, 1, 1, 1])
    again.load_state_dict(model.state_dict())
    assert is_trained_whole(again, clips)
    torch.testing.assert_close([p.grad for p in again.parameters()], [p.grad for p in shifted.parameters()])


@pytest.mark.parametrize("axis", [2, -1])
def test_an_eighth_of_the_channels_comes_from_either_side(axis):
    frames, channels = 3, 16
    x = torch.arange(1.0, 2 * frames * channels + 1).view(2 * frames, channels, 1)  # (B T, C, H)
    (out,) = ChannelShift(frames, 8, axis)(None, (x if axis == 2 else x.mT,))
    out, x = ((one if axis == 2 else one.mT).view(2, frames, channels) for one in (out, x if axis == 2 else x.mT))
    expected = x.clone()
    expected[:, :-1, :2], expected[:, -1, :2] = x[:, 1:, :2], 0
    expected[:, 1:, 2:4], expected[:, 0, 2:4] = x[:, :-1, 2:4], 0
    assert torch.equal(out, expected)


def test_channels_are_shifted_wherever_a_network_has_them():
    norm = build("timm/poolformerv2_s12", MODEL__ARGS={"shift": 8}).model.stages[0].blocks[0].norm1
    x = torch.stack([torch.zeros(64, 8, 8), torch.ones(64, 8, 8)] * 2)  # frames 0 and 1, twice, of one clip
    ((shifted, *_),) = [hook(norm, (x,)) for hook in norm._forward_pre_hooks.values()]
    assert torch.equal(shifted[0], shifted[0, :, :1, :1].expand_as(shifted[0]))  # alike in all places
    assert shifted[0, :, 0, 0].tolist() == [1] * 8 + [0] * 56


def test_groups_of_layers_are_blocks_and_what_follows_them():
    convnext = build("timm/convnext_atto", MODEL__ARGS={"depths": [1, 2, 1, 1], "dims": [8, 8, 8, 8]})
    names = {parameter: name for name, parameter in convnext.model.named_parameters()}
    groups = [[names[parameter] for parameter in group] for group in convnext.layer_groups()]
    assert len(groups) == 7 and all(name.startswith("head.") for name in groups[-1])
    assert "stages.1.downsample.0.weight" in groups[1] and all(
        name.startswith("stages.1.blocks.0") for name in groups[2]
    )


def test_features_where_the_classifier_sees_their_mean():
    clips = torch.randn(2, 3, 4, 64, 64)
    for model in (build("torchvision/r3d_18"), build("torchvision/swin3d_t"), build("timm/test_resnet")):
        features = model.eval().forward_features(clips)
        torch.testing.assert_close(model.head(features.mean((2, 3, 4))), model(clips), rtol=1e-4, atol=1e-5)
    model = transformer("videomae").eval()
    pooled = model.model.fc_norm(model.forward_features(clips).mean((2, 3, 4)))
    torch.testing.assert_close(model.head(pooled), model(clips))
    for model in (transformer("timesformer"), build("timm/test_vit")):
        with pytest.raises(UserError, match="has no features to give"):
            model.forward_features(clips)


def test_position_tables_in_other_sizes():
    time = torch.arange(4.0).view(1, 1, 4).expand(3, 1, 4)  # (C, class token and frames)
    table = torch.cat([torch.full((3, 1, 1), 9.0), time], dim=2).transpose(0, 1).mT  # (1, 1 + T, C)
    wide, grid = resize_positions(table, torch.zeros(1, 9, 3), (8,))
    assert resize_positions(torch.zeros(1, 1, 3), torch.zeros(1, 11, 3), (3, 3)) == (
        None,
        (),
    )  # less than its class tokens
    assert grid == (4,) and wide[0, :, 1].tolist() == [9, 0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    for grid, found, count in (((4, 2, 2), (8, 2, 2), 32), ((4, 3, 3), (4, 5, 5), 100), ((7, 7), (14, 14), 196)):
        out, guessed = resize_positions(torch.full((count, 5), 2.0), torch.zeros(torch.Size(grid).numel(), 5), grid)
        assert guessed == found and out.unique().tolist() == [2]
    assert resize_positions(torch.zeros(3136, 5), torch.zeros(784, 5), (4, 14, 14)) == (None, ())  # time or space?
    assert resize_positions(torch.zeros(3136, 5), torch.zeros(784, 5), (4, 14, 14), (16, 14, 14))[1] == (16, 14, 14)
    assert resize_positions(torch.zeros(17, 5), torch.zeros(9, 5), (3, 3)) == (None, ())
    assert resize_positions(torch.zeros(16, 4), torch.zeros(9, 5), (3, 3)) == (None, ())


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("torchvision/mvit_v1_b", {"spatial_pos": "16 x 16 to 8 x 8", "temporal_pos": "2 to 4"}),
        ("transformers/timesformer", {"position_embeddings": "4 x 4 to 2 x 2", "time_embeddings": "4 to 8"}),
        ("transformers/vivit", {"position_embeddings": "2 x 4 x 4 to 4 x 4 x 4"}),
        ("timm/test_vit", {"pos_embed": "4 x 4 to 2 x 2"}),
    ],
)
def test_files_of_other_sizes_fill_a_model(name, tables, tmp_path):
    library, _, inner = name.partition("/")
    if library == "transformers":
        pytest.importorskip("transformers")
    args = {"MODEL__ARGS": SMALL | HIDDEN} if library == "transformers" else {}
    args = {"MODEL__ARGS": {"width": 8, "depth": [1, 1, 1, 1]}} if library == "torchvision" else args
    side = 64 if inner == "vivit" else 32
    torch.save(build(name, 4, 64, **args).model.state_dict(), tmp_path / "w.pth")
    for settings in ({}, {"VMP__ENABLE": True, "AUG__RE_PROB": 0.0}):
        report = load_pretrained(build(name, 8, side, **args, **settings), str(tmp_path / "w.pth"))
        assert {key.rpartition(".")[2]: text for key, text in report.resized.items()} == tables
        assert not report.skipped and not report.unexpected and "position tables resized" in str(report)
        assert set(report.missing) <= {"vmps.m", "vmps.n"}


def test_relative_tables_of_swin_are_resized_and_none_is_decayed(tmp_path):
    cfg = tiny_cfg("Torchvision")
    torch.save(build_model(cfg).state_dict(), tmp_path / "w.pth")
    model = build_model(cfg.with_settings("MODEL.ARGS.window_size", [4, 4, 4]))
    report = load_pretrained(model, str(tmp_path / "w.pth"))
    assert len(report.resized) == 4 and {*report.resized.values()} == {"3 x 7 x 7 to 7 x 7 x 7"}
    decayed = {id(p) for p in weight_decay_groups(model, 0.1)[0]["params"]}
    assert not [name for name, p in model.named_parameters() if name.endswith("bias_table") and id(p) in decayed]


@pytest.mark.parametrize("name", ["torchvision/swin3d_t", "timm/test_vit"])
def test_emim_beside_attention_starts_as_the_plain_network(name, tmp_path):
    args = dict(MODEL_REGISTRY.get("Torchvision").TINY["MODEL.ARGS"]) if "swin" in name else {}
    args |= {"stochastic_depth_prob": 0.0} if "swin" in name else {}
    plain, clips = build(name, MODEL__ARGS=args), torch.randn(2, 3, 4, 64, 64)
    settings = {"MODEL__ARGS": {**args, "emim": 1}, "EMIM__WINDOW": [3, 3]}
    model = build(name, **settings)
    torch.save(plain.model.state_dict(), tmp_path / "w.pth")
    report = load_pretrained(model, str(tmp_path / "w.pth"))
    assert report.missing and all(".emim." in key for key in report.missing) and not report.unexpected
    logits = model(clips)
    assert torch.equal(logits, plain(clips))
    for key, parameter in model.named_parameters():
        if key.endswith(("emim.proj.weight", "emim.motion_conv.2.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    model(clips).square().sum().backward()
    assert not [key for key, p in model.named_parameters() if ".emim." in key and not p.grad.any()]
    counts = count_macs(model, (3, 4, 64, 64))
    assert counts.macs == sum(counts.by_kind.values()) > count_macs(plain, (3, 4, 64, 64)).macs
    assert {"EMIM window products", "motion MLPs"} <= {*counts.by_kind}
    # Behind motion prompts, too; and order matters to a network that saw frames one by one.
    assert build(name, **settings, VMP__ENABLE=True, AUG__RE_PROB=0.0)(torch.randn(1, 3, 5, 64, 64)).shape == (1, 5)
    model.eval()
    assert not torch.allclose(model(clips), model(clips.flip(2)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["torchvision/swin3d_t", "timm/test_vit"])
def test_emim_in_place_of_attention_takes_its_projections(name, tmp_path):
    args = dict(MODEL_REGISTRY.get("Torchvision").TINY["MODEL.ARGS"]) if "swin" in name else {}
    args |= {"stochastic_depth_prob": 0.0} if "swin" in name else {"class_token": False, "global_pool": "avg"}
    plain, clips = build(name, MODEL__ARGS=args), torch.randn(2, 3, 4, 64, 64)
    settings = {"MODEL__ARGS": {**args, "emim": 1, "emim_in_place": True}, "EMIM__ZERO_INIT_MOTION": False}
    model = build(name, **settings, EMIM__WINDOW=[3, 3])
    torch.save(plain.model.state_dict(), tmp_path / "w.pth")
    report = load_pretrained(model, str(tmp_path / "w.pth"))
    assert all(key.rpartition("attn.")[2].startswith(("rpb", "motion_conv")) for key in report.missing)
    replaced = [module for module in model.modules() if isinstance(module, EmimAttention)]
    assert len(replaced) == (2 if "swin" in name else len(model.model.blocks))
    assert is_trained_whole(model, clips) and count_macs(model, (3, 4, 64, 64)).by_kind["EMIM window products"] > 0
    # What a frame's tokens become depends on the next frame, and in one block on no other.
    seen = []
    hook = replaced[0].register_forward_hook(lambda *args: seen.append(args[2]))
    replaced[0]._forward_hooks.move_to_end(hook.id, last=False)  # before its result is flattened
    model.eval()
    with torch.no_grad():
        for clip in (clips, torch.cat([clips[:, :, :2], torch.randn_like(clips[:, :, 2:])], dim=2)):
            model(clip)
    if "vit" in name:
        same = [torch.equal(first, second) for first, second in zip(*(x.unbind(1) for x in seen))]
        assert same == [True, False, False, False]


def test_mistakes_are_named():
    pytest.importorskip("transformers")
    for name, settings, message in (
        ("torchvision/r3d", {}, "'torchvision/r3d' is none of torchvision/r3d_18, "),
        (
            "timm/levit_128s",
            {"DATA__TRAIN_CROP_SIZE": 224},
            "has classifiers head.linear, head_dist.linear; allowed: one",
        ),
        ("timm/resnet51", {}, r"timm has no network 'resnet51' \(MODEL.MODEL_NAME\); near it: timm/resnet5"),
        ("keras/resnet", {}, "'keras/resnet' is not a registered model; known: SlowFast, Uniformer, .*, timm/NAME, "),
        ("torchvision/s3d", {}, r"s3d cannot take clips of DATA.NUM_FRAMES 4 frames and DATA.TRAIN_CROP_SIZE 64 px \("),
        ("torchvision/mvit_v2_s", {"DATA__TEST_CROP_SIZE": 96}, "cannot take clips of .* DATA.TEST_CROP_SIZE 96 px"),
        ("torchvision/r3d_18", {"MODEL__CHECKPOINT_NUM": [1, 0, 0, 0]}, "r3d_18 cannot recompute activations"),
        ("timm/dla46_c", {"MODEL__CHECKPOINT_NUM": [1, 0, 0, 0]}, "timm/dla46_c cannot recompute activations"),
        ("torchvision/r3d_18", {"MODEL__ARGS": {"layer": 1}}, "takes no argument 'layer'; did you mean 'layers'"),
        ("torchvision/r3d_18", {"MODEL__ARGS": {"num_classes": 1}}, "'num_classes' of .* is taken from other settings"),
        ("transformers/vivit", {"MODEL__ARGS": {"hidden_sise": 32}}, "did you mean 'hidden_size'"),
        ("transformers/vivit", {"MODEL__ARGS": {"hidden_size": "a"}}, "vivit cannot be built with them"),
        ("timm/test_resnet", {"MODEL__ARGS": {"shift": 8, "chanels": 1}}, "did you mean 'channels'"),
        ("torchvision/r3d_18", {"MODEL__ARGS": {"emim": 1}}, "takes no argument 'emim'; allowed: "),
        ("timm/test_resnet", {"MODEL__ARGS": {"emim": 1}}, "emim needs blocks with an attention attn .* has ResNet"),
        ("timm/test_vit", {"MODEL__ARGS": {"emim": 1, "emim_in_place": True}}, "needs a network without class token"),
        ("torchvision/swin3d_t", {"MODEL__ARGS": {"emim_in_place": True}}, "emim_in_place needs emim, .* found 0"),
        ("timm/test_mambaout", {"MODEL__ARGS": {"shift": 8}}, "shift needs residual blocks that begin with conv1 or"),
    ):
        with pytest.raises(UserError, match=message):
            build(name, **settings)
