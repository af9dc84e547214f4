"""Exported files compute what the model does: in batches of any size, without torch, and after a way over the Hub."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from helpers_engine import load_tool
from helpers_models import awake, tiny_cfg

import slowfast
from slowfast.engine.checkpoint import load_model_state
from slowfast.engine.run import main
from slowfast.inference import export as exporting
from slowfast.inference.model import VideoModel, architecture_cfg
from slowfast.models import build_model
from slowfast.utils.errors import UserError

# Every kind of block, attention and rule that has code of its own in an export.
SMALL = {
    "UNIFORMER__EMBED_DIM": [8, 8, 16, 16], "UNIFORMER__DEPTH": [1, 1, 2, 1], "UNIFORMER__HEAD_DIM": 8,
    "UNIFORMER__STAGE3_ATTENTION": ["emim", "joint_cost_volume"], "UNIFORMER__STAGE4_ATTENTION": ["joint"],
    "EMIM__PADDING": "mask", "EMIM__ZERO_INIT_MOTION": False, "DATA__TEST_CROP_SIZE": 64,
    "DATA__FRAME_SAMPLING": "dense", "DATA__SAMPLING_RATE": 2, "DATA__TEST_SHORT_SIDE": 72,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Path of a file with a model of random weights."""
    torch.manual_seed(0)
    cfg = architecture_cfg("emim_s", 7, 4, **SMALL)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    exporting.write_safetensors(VideoModel(build_model(cfg), cfg, [f"class {i}" for i in range(7)], "cpu"), path)
    return path


def export(source, format, out, *options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["export.py", "--model", str(source), "--format", format, "--out", str(out), *options]
        )
        assert load_tool("export").main() == 0


def test_folder_for_the_hub_comes_back_to_the_last_bit(source, tmp_path, capsys):
    model = slowfast.load_model(source)
    export(source, "hf-folder", tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = slowfast.load_model(tmp_path / "b")
    assert again.cfg == model.cfg and again.class_names == model.class_names
    torch.testing.assert_close(again.model.state_dict(), model.model.state_dict(), rtol=0, atol=0)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "7 classes" in card and "\nlicense: " not in card and "Not stated." in card
    (tmp_path / "b" / "README.md").write_text("mine")
    export(source, "hf-folder", tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "mine" and "README.md stays" in capsys.readouterr().out
    (tmp_path / "b" / "config.json").unlink()  # the file of weights knows as much
    assert slowfast.load_model(tmp_path / "b").class_names == model.class_names
    export(source, "hf-folder", tmp_path / "c", "--half")
    sizes = [(tmp_path / folder / "model.safetensors").stat().st_size for folder in "bc"]
    assert sizes[1] < 0.7 * sizes[0] and "changes logits by" in capsys.readouterr().out


def test_a_model_behind_motion_prompts_is_described_explained_and_exported_with_one_more_frame(tmp_path):
    torch.manual_seed(0)
    cfg = architecture_cfg("emim_s", 7, 4, **SMALL, VMP__ENABLE=True, AUG__RE_PROB=0.0)
    model = VideoModel(build_model(cfg), cfg, None, "cpu")
    assert exporting.preprocessing(model)["num_frames"] == exporting.random_clips(model, 2).shape[2] == 5
    explained = model.explain(slowfast.sample_video(), ("cam", "gradcam", "motion"))
    assert explained.frames.shape == (4, 64, 64, 3) and explained.maps["cam"].shape == (4, 64, 64)
    exporting.write_safetensors(model, tmp_path / "m.safetensors")
    again, clips = slowfast.load_model(tmp_path / "m.safetensors", "cpu"), exporting.random_clips(model, 2)
    with torch.no_grad():
        assert torch.equal(again.model(clips), model.model(clips))
        program = torch.export.export(model.model, (clips,)).module()
        torch.testing.assert_close(program(clips), model.model(clips))


def test_card_has_the_results_of_the_run(config, tmp_path):
    assert main(("train", "test"), "", ["--cfg", str(config), "SOLVER.MAX_EPOCH", "1"]) == 0
    results = json.loads((tmp_path / "run" / "test_results.json").read_text())
    for source in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "best.pyth"):
        export(source, "hf-folder", tmp_path / "cards" / source.name)
        assert f"top-1 {results['top1']:.2f} %" in (tmp_path / "cards" / source.name / "README.md").read_text()
    shutil.copy(tmp_path / "run" / "checkpoints" / "best.pyth", tmp_path / "run" / "checkpoints" / "other.pyth")
    assert exporting.results_of(str(tmp_path / "run" / "checkpoints" / "other.pyth")) is None


@pytest.mark.slow
def test_program_runs_without_the_package(source, tmp_path):
    export(source, "pt2", tmp_path)
    code = (
        "import sys, torch; program = torch.export.load(sys.argv[1]).module(); "
        "print(program(torch.zeros(3, 3, 4, 64, 64))[2].tolist()); assert 'slowfast' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.pt2")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    with torch.no_grad():
        expected = slowfast.load_model(source).model(torch.zeros(1, 3, 4, 64, 64))[0]
    torch.testing.assert_close(torch.tensor(json.loads(printed)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_onnx_classifies_a_video_in_a_process_without_torch(source, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    export(source, "onnx", tmp_path)
    code = (
        "import sys, runpy; sys.modules.update(torch=None, slowfast=None); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run_onnx.py"), slowfast.sample_video()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    wanted = slowfast.load_model(source).predict(slowfast.sample_video(), views=1)
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in printed] == [one["class"] for one in wanted.top]
    shares = [float(line.split()[-2]) for line in printed]
    assert shares == pytest.approx([100 * one["probability"] for one in wanted.top], abs=0.11)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format"), [("X3D", "onnx"), ("Timm", "pt2")])
def test_other_backbones_behind_motion_prompts_are_exported(name, format, tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    cfg = tiny_cfg(name, VMP__ENABLE=True, AUG__RE_PROB=0.0, DATA__TRAIN_CROP_SIZE=64, DATA__TEST_CROP_SIZE=64)
    exporting.write_safetensors(VideoModel(awake(build_model(cfg)), cfg, None, "cpu"), tmp_path / "m.safetensors")
    export(tmp_path / "m.safetensors", format, tmp_path / "out")  # compares logits in batches of 1, 2 and 5 clips
    assert (tmp_path / "out" / f"model.{format}").is_file()


def test_nothing_is_left_where_logits_differ(source, tmp_path, monkeypatch):
    other = architecture_cfg("emim_s", 7, 4, **SMALL)

    def load(path, device):
        model = slowfast.load_model(path, device)
        if "export-" in str(path):
            load_model_state(model.model, build_model(other).state_dict(), "")
        return model

    monkeypatch.setattr(exporting, "load_model", load)
    with pytest.raises(UserError, match="logits differ by"):
        exporting.export(str(source), "safetensors", str(tmp_path / "out"), False)
    assert list((tmp_path / "out").iterdir()) == []


def test_mistakes_are_named(source, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *args, **others: [][0])
    with pytest.raises(UserError, match=r"pt2: Uniformer cannot be exported \(IndexError: .*; nothing is in"):
        exporting.export(str(source), "pt2", str(tmp_path), False)
    with pytest.raises(UserError, match="--half rounds the weights of safetensors and hf-folder"):
        exporting.export(str(source), "onnx", str(tmp_path), True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'pip install "slowfast-emim\[export\]"'):
        exporting.export(str(source), "onnx", str(tmp_path), False)
    assert list(tmp_path.iterdir()) == []
