"""Loading starting weights: wrappers, inflation, the report, and files that do not fit."""

import copy

import pytest
import torch
from helpers_models import tiny_model
from safetensors.torch import save_file

from slowfast.models.pretrained import load_pretrained


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


def test_safetensors(tmp_path):
    source, target = tiny_model(), tiny_model()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_pretrained(target, str(tmp_path / "w.safetensors"))
    torch.testing.assert_close(target.head.weight, source.head.weight)


def test_image_weights_are_inflated_by_averaging(tmp_path):
    model = tiny_model()
    state = image_state(model)
    torch.save({"model": state}, tmp_path / "image.pth")
    before = copy.deepcopy(model.state_dict())
    report = load_pretrained(model, str(tmp_path / "image.pth"))
    assert set(report.missing) == {name for name in before if "rpb" in name or "motion_conv" in name}
    for name in report.inflated:
        kernel = model.state_dict()[name]
        # A still clip sees the sum over time, which must be the image kernel; every slice has the same share.
        torch.testing.assert_close(kernel.sum(dim=2), state[name])
        torch.testing.assert_close(kernel, kernel[:, :, :1].expand_as(kernel))
    assert "blocks1.0.attn.weight" in report.inflated and model.blocks1[0].attn.weight.shape[2] == 5
    for name in report.missing:
        torch.testing.assert_close(model.state_dict()[name], before[name])


def test_classifier_of_other_classes_is_kept_and_reported(tmp_path, caplog):
    source, target = tiny_model(MODEL__NUM_CLASSES=7), tiny_model()
    before = target.head.weight.clone()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        report = load_pretrained(target, str(tmp_path / "w.pth"))
    assert set(report.skipped) == {"head.weight", "head.bias"}
    assert torch.equal(target.head.weight, before)
    assert "skipped head.weight: shape (7, 32) in the file, (5, 32) in the model" in caplog.text


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
    with pytest.raises(ValueError, match="module.pth cannot be read"):
        load_pretrained(tiny_model(), str(tmp_path / "module.pth"))
