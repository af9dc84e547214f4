"""Loading starting weights: wrappers, inflation, the report, and files that do not fit."""

import copy
import random
import sys

import pytest
import torch
from helpers_models import tiny_model
from safetensors.torch import save_file

from slowfast.models.pretrained import load_pretrained, read_checkpoint


def image_state(model):
    """Return a 2-D state dict under the public names: what an image model of the same sizes would save."""
    state = {}
    for name, tensor in model.state_dict().items():
        if "rpb" in name or "motion_conv" in name:
            continue
        is_kernel = tensor.dim() == 5
        shape = tensor.shape[:2] + tensor.shape[3:] if is_kernel else tensor.shape
        is_counter = not tensor.is_floating_point()
        state[name] = tensor.clone() if is_counter else torch.rand(shape) + 0.5
    return state


@pytest.mark.parametrize("wrapper", [None, "model", "model_state", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes(tmp_path, wrapper, prefix):
    source, target = tiny_model(), tiny_model()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    report = load_pretrained(target, str(tmp_path / "w.pth"))
    assert len(report.loaded) == len(state) and not report.missing
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], tensor)


@pytest.mark.parametrize("entries", [{"epoch": 3}, {"model_ema": {}}, {"model": {"name": "uniformer"}}], ids=str)
def test_wrapper_is_the_entry_that_has_tensors(tmp_path, entries):
    torch.save({**entries, "state_dict": tiny_model().state_dict()}, tmp_path / "w.pth")
    assert load_pretrained(tiny_model(), str(tmp_path / "w.pth")).wrapper == "state_dict"


def test_raw_weights_are_preferred_to_their_averages_and_the_log_says_so(tmp_path, caplog):
    raw, average, target = tiny_model(), tiny_model(), tiny_model()
    path = str(tmp_path / "both.pth")
    torch.save({"model_ema": average.state_dict(), "model": raw.state_dict()}, path)
    with caplog.at_level("INFO"):
        report = load_pretrained(target, path)
    assert torch.equal(target.blocks3[0].attn.qkv.weight, raw.blocks3[0].attn.qkv.weight)
    assert report.wrapper == "model" and "reading 'model', not 'model_ema'" in caplog.text

    torch.save({"model_ema": average.state_dict(), "epoch": 3}, path)
    with caplog.at_level("INFO"):
        report = load_pretrained(target, path)
    assert torch.equal(target.blocks3[0].attn.qkv.weight, average.blocks3[0].attn.qkv.weight)
    assert report.wrapper == "model_ema" and "reading 'model_ema', moving averages" in caplog.text


def test_safetensors(tmp_path):
    source, target = tiny_model(), tiny_model()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_pretrained(target, str(tmp_path / "w.safetensors"))
    torch.testing.assert_close(target.head.weight, source.head.weight)


@pytest.mark.parametrize("name", ["image.pth", "image.safetensors"])
def test_image_weights_are_inflated_by_averaging(tmp_path, name):
    model = tiny_model()
    state = image_state(model)
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"model": state}, path)
    before = copy.deepcopy(model.state_dict())
    report = load_pretrained(model, str(path))
    assert set(report.missing) == {name for name in before if "rpb" in name or "motion_conv" in name}
    for name in report.inflated:
        kernel = model.state_dict()[name]
        # A still clip sees the sum over time, which must be the image kernel; every slice has the same share.
        torch.testing.assert_close(kernel.sum(dim=2), state[name])
        torch.testing.assert_close(kernel, kernel[:, :, :1].expand_as(kernel))
    assert "blocks1.0.attn.weight" in report.inflated and model.blocks1[0].attn.weight.shape[2] == 5
    for name in report.missing:
        torch.testing.assert_close(model.state_dict()[name], before[name])


def test_half_precision_files_are_inflated_in_the_precision_of_the_model(tmp_path):
    model = tiny_model()
    state = {name: x.half() if x.is_floating_point() else x for name, x in image_state(model).items()}
    torch.save(state, tmp_path / "half.pth")
    report = load_pretrained(model, str(tmp_path / "half.pth"))
    assert all(x.dtype == torch.float32 for x in model.parameters())
    # Divided in float16, the slices would not add up to the file's values within the precision of float32.
    for name in report.inflated:
        torch.testing.assert_close(model.state_dict()[name].sum(dim=2), state[name].float(), rtol=1e-6, atol=0)


def test_tensors_of_another_window_are_skipped_by_name_and_motion_mlps_as_a_whole(tmp_path, caplog):
    source, target = tiny_model(EMIM__WINDOW=[5, 3]), tiny_model()
    before = copy.deepcopy(target.state_dict())
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        report = load_pretrained(target, str(tmp_path / "w.pth"))
    # Blocks 0 and 2 of stage 3 are EMIM; the last bias would fit, but belongs to a layer that does not.
    parts = ("rpb", *(f"motion_conv.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")))
    assert set(report.skipped) == {f"blocks3.{block}.attn.{part}" for block in (0, 2) for part in parts}
    assert all(torch.equal(target.state_dict()[name], before[name]) for name in report.skipped)
    assert "blocks4.0.attn.motion_conv.2.bias" in report.loaded
    expected = "skipped blocks3.0.attn.rpb: shape (2, 5, 5) in the file, (2, 3, 3) in the model: another EMIM.WINDOW"
    assert expected in caplog.text and "and 2 more skipped" in caplog.text


def test_layer_scale_files_are_refused(tmp_path):
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    state = {**image_state(model), "blocks3.0.gamma_1": torch.ones(32), "blocks3.0.gamma_2": torch.ones(32)}
    torch.save(state, tmp_path / "ls.pth")
    with pytest.raises(ValueError, match="ls.pth is a layer-scale variant.*gamma_1.*without layer scale"):
        load_pretrained(model, str(tmp_path / "ls.pth"))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_what_a_fitting_file_would_not_leave_over_is_a_warning(tmp_path, caplog):
    path = str(tmp_path / "w.pth")
    model = tiny_model()

    def warnings_of(state):
        torch.save(state, path)
        caplog.clear()
        load_pretrained(model, path)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    # Missing EMIM tensors and a missing classifier are what fine-tuning a UniFormer is about.
    state = {name: x for name, x in image_state(model).items() if not name.startswith("head.")}
    assert warnings_of(state) == []
    (message,) = warnings_of({**state, "aux_head.weight": torch.ones(7, 32)})
    assert "token-labelling variant" in message
    (message,) = warnings_of({**state, "blocks4.2.norm1.weight": torch.ones(32)})
    assert "no place for" in message and "blocks4.2.norm1.weight" in message
    del state["blocks1.0.conv1.weight"]
    (message,) = warnings_of(state)
    assert "lacks tensors of the backbone" in message and "blocks1.0.conv1.weight" in message
    (message,) = warnings_of({**state, "blocks1.0.conv1.weight": torch.ones(16, 16, 3, 1, 1)})
    assert "in other shapes" in message and "blocks1.0.conv1.weight" in message


def test_a_video_model_does_not_start_an_image_model_in_silence(tmp_path, caplog):
    # Norms and linear layers fit, enough of them for the smallest share; convolutions over time do not.
    torch.save(tiny_model(EMIM__MOTION=False).state_dict(), tmp_path / "video.pth")
    load_pretrained(tiny_model(MODEL__MODEL_NAME="Uniformer2d", EMIM__MOTION=False), str(tmp_path / "video.pth"))
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "in other shapes, which start afresh: patch_embed1.proj.weight" in message


def test_classifier_of_other_classes_is_kept_and_reported(tmp_path, caplog):
    source, target = tiny_model(MODEL__NUM_CLASSES=7), tiny_model()
    before = target.head.weight.clone()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        report = load_pretrained(target, str(tmp_path / "w.pth"))
    assert set(report.skipped) == {"head.weight", "head.bias"}
    assert torch.equal(target.head.weight, before)
    assert (
        "skipped head.weight: shape (7, 32) in the file, (5, 32) in the model: another number of classes; "
        "the classifier starts afresh"
    ) in caplog.text


def test_file_that_matches_nothing(tmp_path):
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="only 0 of the model's .* tensors match.*PRETRAINED_MIN_MATCH.*conv.weight"):
        load_pretrained(tiny_model(), str(tmp_path / "w.pth"))


def test_file_that_matches_too_little(tmp_path):
    state = tiny_model().state_dict()
    some = dict(list(state.items())[: len(state) // 3])
    torch.save(some, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="at least 50%"):
        load_pretrained(tiny_model(), str(tmp_path / "w.pth"))
    assert load_pretrained(tiny_model(), str(tmp_path / "w.pth"), min_match=0.2).missing


def test_damaged_missing_and_unsafe_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth does not exist"):
        load_pretrained(tiny_model(), str(tmp_path / "nowhere.pth"))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ValueError, match="text.pth cannot be read"):
        load_pretrained(tiny_model(), str(tmp_path / "text.pth"))
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ValueError, match="text.safetensors cannot be read"):
        load_pretrained(tiny_model(), str(tmp_path / "text.safetensors"))
    torch.save(tiny_model().state_dict(), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.pth cannot be read"):
        load_pretrained(tiny_model(), str(tmp_path / "cut.pth"))
    # A whole pickled module would run code of the file while loading.
    torch.save(tiny_model(), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="module.pth cannot be read.*holds Python objects .*Uniformer.*state dict"):
        load_pretrained(tiny_model(), str(tmp_path / "module.pth"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_is_one_kind_of_error(tmp_path):
    """Resuming goes on to an older checkpoint on ValueError; the reader alone raises half a dozen kinds."""
    path, place = tmp_path / "w.pth", random.Random(0)
    torch.save({"a": torch.zeros(50), "b": {"c": 1}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[place.randrange(len(whole))] = place.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(str(path))
        except ValueError:
            refused += 1
    assert refused > 100


class Trap:
    """Pickles to a call that leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model": tiny_model().state_dict(), "args": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match=r"trap.pth cannot be read.*holds Python objects \(.*open\)"):
        load_pretrained(tiny_model(), str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_folders_shards_and_other_dictionaries(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder; name the file in it"):
        load_pretrained(tiny_model(), str(tmp_path))
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f"{name} is one part of a model"):
            load_pretrained(tiny_model(), str(tmp_path / name))
    torch.save({"net": tiny_model().state_dict(), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds no tensors .*model_state, .*it has \['net', 'epoch'\]"):
        load_pretrained(tiny_model(), str(tmp_path / "w.pth"))


def test_missing_safetensors_package_is_named(tmp_path, monkeypatch):
    save_file(tiny_model().state_dict(), tmp_path / "w.safetensors")
    # None in sys.modules makes Python refuse the import, as if the package were not installed.
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match="the package safetensors is needed.*requirements.txt"):
        load_pretrained(tiny_model(), str(tmp_path / "w.safetensors"))
