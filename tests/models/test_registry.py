"""The contract of models: whatever is registered is tested here, and knows everything that others ask of it."""

import pytest
import torch
from helpers_models import awake, make_cfg, tiny_cfg, tiny_model
from torch import nn

from slowfast.models import MODEL_REGISTRY, Model, build_model
from slowfast.models.complexity import count_macs, view_gflops
from slowfast.models.optimizer import build_optimizer
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.errors import UserError


class Toy(Model):
    """The least that a model of one's own has to be."""

    SECTIONS = ("UNIFORMER",)
    TINY = {"UNIFORMER.EMBED_DIM": [8, 8, 8, 8]}  # noqa: RUF012

    def __init__(self, dim, num_classes):
        super().__init__()
        self.stem = nn.Conv3d(3, dim, 4, stride=4, padding=2)
        self.head = nn.Linear(dim, num_classes)

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.UNIFORMER.EMBED_DIM[0], cfg.MODEL.NUM_CLASSES)

    def forward(self, clips):
        return self.head(self.stem(clips).relu().mean((2, 3, 4)))


@pytest.fixture(autouse=True)
def with_toy(monkeypatch):
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, "Toy", Toy)


# Settings of a larger network than the tiny one.
WIDER = {
    "SlowFast": ("MODEL.ARGS.width", 32), "X3D": ("MODEL.ARGS.width", 32), "Torchvision": ("MODEL.ARGS.embed_dim", 24),
    "Transformers": ("MODEL.ARGS.intermediate_size", 99), "Timm": ("MODEL.ARGS.layers", [2, 2, 2, 2]),
}  # fmt: skip
every_model = pytest.mark.parametrize("name", [*sorted(name for name, _ in MODEL_REGISTRY), "Toy"])


def draw_clips(name, *size, clips=2):
    tiny, sides = MODEL_REGISTRY.get(name).TINY, size[1:]
    frames = tiny.get("DATA.NUM_FRAMES", size[0])
    sides = [tiny["DATA.TRAIN_CROP_SIZE"]] * 2 if "DATA.TRAIN_CROP_SIZE" in tiny else sides
    return torch.randn(clips, 3, frames, *sides, generator=torch.Generator().manual_seed(0))


@every_model
@pytest.mark.parametrize("size", [(4, 64, 64), (1, 40, 70)], ids=str)
def test_trains_every_parameter_on_any_clip(name, size):
    torch.manual_seed(0)
    model = awake(tiny_model(name))
    logits = model(draw_clips(name, *size))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@every_model
def test_evaluation_gives_logits_of_each_clip_alone(name):
    model, clips = tiny_model(name).eval(), draw_clips(name, 4, 64, 64, clips=3)
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together.sum(dim=1) - 1).abs().max() > 1e-3  # no probabilities


@every_model
def test_layer_groups_are_all_parameters_once_or_none(name):
    model = tiny_model(name)
    groups = model.layer_groups()
    if groups:
        listed = [parameter for group in groups for parameter in group]
        assert set(listed) == set(model.parameters()) and len(listed) == len(set(listed))
        assert model.head.weight in set(groups[-1]) and all(groups)
    else:
        with pytest.raises(UserError, match=f"SOLVER.LAYER_DECAY is 0.5, but {name} does not say"):
            build_optimizer(model, make_cfg(SOLVER__LAYER_DECAY=0.5))


@every_model
def test_every_count_has_a_stage_and_a_kind(name):
    counts = count_macs(tiny_model(name), tuple(draw_clips(name, 4, 64, 64).shape[1:]))
    assert counts.macs == sum(counts.by_kind.values()) > 0
    assert "other" not in {*counts.by_stage, *counts.by_kind} and {"head"} <= {*counts.by_stage} & {*counts.by_kind}


@every_model
def test_sections_say_what_distinguishes_counts(name):
    kind, cfg = MODEL_REGISTRY.get(name), tiny_cfg(name)
    assert set(kind.SECTIONS) <= {*cfg, "MODEL.ARGS"} and all(
        key.partition(".")[0] in kind.SECTIONS for key in kind.TRAINING_ONLY
    )
    assert all(key.partition(".")[2] in cfg[key.partition(".")[0]] for key in kind.TRAINING_ONLY)
    counted = {}
    wide = tiny_cfg(name).with_settings(*WIDER.get(name, ("UNIFORMER.EMBED_DIM", [32, 32, 32, 32])))
    first, second = view_gflops(cfg, counted), view_gflops(wide, counted)
    assert 0 < first < second and view_gflops(cfg, counted) == first and len(counted) == 2


@every_model
def test_weights_come_back_from_a_file(name, tmp_path):
    source, target = tiny_model(name), tiny_model(name)
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    report = load_pretrained(target, str(tmp_path / "w.pth"))
    assert not report.missing and not report.unexpected and not report.skipped
    assert all(torch.equal(x, y) for x, y in zip(source.parameters(), target.parameters()))


def test_names_that_are_not_registered_are_told():
    with pytest.raises(UserError, match="MODEL.MODEL_NAME 'Unformer'.*known: .*Uniformer, Uniformer2d"):
        build_model(make_cfg(MODEL__MODEL_NAME="Unformer"))
