"""Loading starting weights: wrappers, prefixes, inflation, the report, and files that do not fit."""

import argparse
import contextlib
import copy
import pathlib
import random
import sys

import numpy as np
import pytest
import torch
from helpers_models import tiny_model
from safetensors.torch import save_file

from slowfast.models.pretrained import load_pretrained, read_checkpoint
from slowfast.utils.errors import UserError

EMIM_PARTS = ("rpb", *(f"motion_conv.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")))


def image_state(model):
    """Return a 2-D state dict under the public names: the file of an image model of the same sizes."""
    state = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith(EMIM_PARTS):
            shape = tensor.shape[:2] + tensor.shape[3:] if tensor.dim() == 5 else tensor.shape
            state[name] = torch.rand(shape) + 0.5 if tensor.is_floating_point() else tensor.clone()
    return state


def load(content, tmp_path, **kwargs):
    """Save a file and load it into a fresh tiny model; return that and the report."""
    torch.save(content, tmp_path / "w.pth")
    model = tiny_model()
    return model, load_pretrained(model, str(tmp_path / "w.pth"), **kwargs)


@pytest.mark.parametrize("wrapper", [None, "model", "model_state", "state_dict", "model_state_dict", "net"])
def test_wrappers_and_prefixes_are_stripped_and_told(tmp_path, wrapper):
    source = tiny_model()
    for prefix in ("", "module.", "_orig_mod.module.", "module._orig_mod.", "model.", "backbone.", "model.backbone."):
        state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
        target, report = load({wrapper: state, "model_ema": {}, "epoch": 3} if wrapper else state, tmp_path)
        assert len(report.loaded) == len(state) and not report.missing and not report.unexpected
        assert all(torch.equal(x, target.state_dict()[name]) for name, x in source.state_dict().items())
        entry = f"entry '{wrapper}'; " if wrapper else ""
        assert report.source == entry + (f"prefix {prefix} stripped; " if prefix else "")
        assert str(report).startswith(f"{report.source}{len(state)} tensors loaded")


def test_weights_of_two_models_in_one_file_are_not_mixed(tmp_path):
    state = tiny_model().state_dict()
    both = {
        f"{prefix}.{name}": x * scale for prefix, scale in (("module", 1), ("backbone", 0)) for name, x in state.items()
    }
    with pytest.raises(UserError, match="has several tensors for .*: module.* and backbone"):
        load(both, tmp_path)


def test_prefixes_of_the_model_s_own_names_stay(tmp_path):
    source, target = (torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2)}) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "own.pth")
    assert len(load_pretrained(target, str(tmp_path / "own.pth")).loaded) == 2
    assert torch.equal(source["backbone"].weight, target["backbone"].weight)


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1e-3, betas=(0.9, 0.999)),
        {"best": np.float64(0.5), "epoch": np.int64(3), "bool": np.bool_(True), "half": np.float16(1)},
        {"history": np.arange(6.0).reshape(2, 3), "dtype": np.dtype("int32")},
        {"out": pathlib.Path("/x/y"), "windows": pathlib.PureWindowsPath("z")},
    ],
    ids=["namespace", "numpy numbers", "numpy arrays", "paths"],
)
def test_plain_data_beside_the_weights_are_read(tmp_path, beside):
    _, report = load({"model": tiny_model().state_dict(), "beside": beside}, tmp_path)
    assert report.source == "entry 'model'; " and not report.missing


def test_raw_weights_are_preferred_to_their_averages_and_the_report_says_so(tmp_path):
    raw, average = tiny_model(), tiny_model()
    model, report = load({"model_ema": average.state_dict(), "model": raw.state_dict()}, tmp_path)
    assert torch.equal(model.head.weight, raw.head.weight)
    assert report.source == "entry 'model', not 'model_ema'; "
    model, report = load({"model_ema": average.state_dict(), "model": {"name": "uniformer"}}, tmp_path)
    assert torch.equal(model.head.weight, average.head.weight) and report.source == "entry 'model_ema'; "


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_image_weights_are_inflated_in_the_precision_of_the_model(tmp_path, dtype):
    model = tiny_model()
    state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in image_state(model).items()}
    save_file(state, tmp_path / "image.safetensors")
    before = copy.deepcopy(model.state_dict())
    report = load_pretrained(model, str(tmp_path / "image.safetensors"))
    after = model.state_dict()
    assert set(report.missing) == {name for name in before if name.endswith(EMIM_PARTS)}
    assert all(torch.equal(after[name], before[name]) for name in report.missing)
    assert "blocks1.0.attn.weight" in report.inflated and after["blocks1.0.attn.weight"].shape[2] == 5
    for name in report.inflated:
        # A still clip sees the sum over time, which must be the image kernel; every slice has the same share.
        torch.testing.assert_close(after[name].sum(dim=2), state[name].float(), rtol=1e-6, atol=0)
        assert torch.equal(after[name], after[name][:, :, :1].expand_as(after[name]))
    load_pretrained(model, str(tmp_path / "image.safetensors"), "center")
    for name in report.inflated:
        inflated = model.state_dict()[name]
        assert torch.equal(inflated.sum(dim=2), state[name].float())
        assert torch.equal(inflated[:, :, inflated.shape[2] // 2], state[name].float())
    with pytest.raises(UserError, match="inflation is 'centre'; allowed: average, center"):
        load_pretrained(model, str(tmp_path / "image.safetensors"), "centre")


def test_modules_of_another_window_or_number_of_classes_are_skipped_whole(tmp_path, caplog):
    with caplog.at_level("INFO"):
        _, report = load(tiny_model(EMIM__WINDOW=[5, 3], MODEL__NUM_CLASSES=7).state_dict(), tmp_path)
    # Blocks 0 and 2 of stage 3 are EMIM; the last bias would fit, but belongs to a layer that does not.
    of_window = {f"blocks3.{block}.attn.{part}" for block in (0, 2) for part in EMIM_PARTS}
    assert report.skipped.keys() == of_window | {"head.weight", "head.bias"}
    assert "blocks4.0.attn.motion_conv.2.bias" in report.loaded
    for line in (
        "12 skipped\n  skipped: 2 x blocks*.*.attn.rpb, 4 x blocks*.*.attn.motion_conv.*.weight, 2 x blocks",
        "bias (shape (2, 5, 5) in the file, (2, 3, 3) in the model: another EMIM.WINDOW or kind of window)\n",
        "\n  skipped: head.weight, head.bias (shape (7, 32) in the file",
    ):
        assert line in caplog.text
    reason = "shape (7, 32) in the file, (5, 32) in the model: another number of classes"
    assert report.skipped["head.weight"] == reason
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_a_fitting_file_would_not_leave_over_is_a_warning(tmp_path, caplog):
    def warnings_of(state):
        caplog.clear()
        load(state, tmp_path)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    # Missing EMIM tensors and a missing classifier are what fine-tuning a UniFormer is about.
    state = {name: x for name, x in image_state(tiny_model()).items() if not name.startswith("head.")}
    assert warnings_of(state) == []
    (message,) = warnings_of({**state, "aux_head.weight": torch.ones(7, 32)})
    assert "no place for: aux_head.weight; it is a token-labelling variant" in message
    del state["blocks1.0.conv1.weight"]
    for some in (state, {**state, "blocks1.0.conv1.weight": torch.ones(16, 16, 3, 1, 1)}):
        (message,) = warnings_of(some)
        assert "lacks tensors of the backbone or has them in other shapes" in message
        assert message.endswith("start afresh: blocks1.0.conv1.weight")


def test_files_of_another_architecture_are_refused_and_change_nothing(tmp_path):
    with pytest.raises(UserError, match="only 0 of the model's .* tensors match.*The file has conv.weight"):
        load({"conv.weight": torch.zeros(3, 3)}, tmp_path)
    state = tiny_model().state_dict()
    some = dict(list(state.items())[: len(state) // 3])
    with pytest.raises(UserError, match="only .* tensors match by name and shape"):
        load(some, tmp_path)
    with pytest.raises(UserError, match="w.pth is a layer-scale variant.*gamma_1.*without layer scale"):
        load({**state, "blocks3.0.gamma_1": torch.ones(32)}, tmp_path)
    with pytest.raises(UserError, match=r"holds no tensors .*model_state, .*it has \['weights', 'epoch'\]"):
        load({"weights": state, "epoch": 3}, tmp_path)


class Trap:
    """Pickles to a call that leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_not_run(tmp_path):
    with pytest.raises(UserError, match=r"w.pth cannot be read.*holds Python objects \(.*open\).*state dict"):
        load({"model": tiny_model().state_dict(), "args": Trap(tmp_path / "sprung")}, tmp_path)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UserError, match="w.pth cannot be read.*holds Python objects .*Uniformer"):
        load(tiny_model(), tmp_path)


def test_missing_damaged_and_partial_files(tmp_path, monkeypatch):
    for name, problem in (("nowhere.pth", "does not exist"), ("", "is a folder; name the file in it")):
        with pytest.raises(UserError, match=problem):
            read_checkpoint(str(tmp_path / name))
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=f"{name} is one part of a model"):
            read_checkpoint(str(tmp_path / name))
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_checkpoint(str(tmp_path / name))
    # None in sys.modules makes Python refuse the import, as if the package were not installed.
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match="the package safetensors is needed.*requirements.txt"):
        read_checkpoint(str(tmp_path / "text.safetensors"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_is_one_kind_of_error(tmp_path):
    """Resuming goes on to an older checkpoint on UserError; the reader alone raises half a dozen kinds."""
    path, place = tmp_path / "w.pth", random.Random(0)
    torch.save({"a": torch.zeros(50), "b": {"c": 1}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[place.randrange(len(whole))] = place.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            read_checkpoint(str(path))
