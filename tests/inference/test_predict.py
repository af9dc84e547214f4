"""Predictions are those of the test, whatever the model is loaded from and however videos come."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_engine import load_tool, run_tool
from numbered_video import read_numbers, write_folder, write_video

import slowfast
from slowfast.config import load_cfg
from slowfast.config.parser import flat_settings
from slowfast.datasets.decoder import open_video
from slowfast.engine.run import main
from slowfast.inference.export import export, write_safetensors
from slowfast.inference.inputs import Inputs, open_folder
from slowfast.inference.model import VideoModel, architecture_cfg
from slowfast.inference.predict import make_timeline
from slowfast.models.zoo import ARCHITECTURES, ZOO
from slowfast.synthetic.scenes import SceneSpec, render
from slowfast.utils.errors import UserError

# The motions of exp/quickstart/run.sh.
MOTIONS = SceneSpec(
    speed=(0.07, 0.14), zoom=(0.08, 0.12), spin=(20, 40), diameter=(0.38, 0.8), texture_contrast=0.25, num_frames=8
)


@pytest.fixture(scope="module")
def tested(tmp_path_factory, settings, data_dir):
    """Folder of a run that was tested, and the scores of its test."""
    folder = tmp_path_factory.mktemp("tested")
    settings["DATA"]["PATH_TO_DATA_DIR"], settings["OUTPUT_DIR"] = str(data_dir), str(folder / "run")
    (folder / "config.yaml").write_text(json.dumps(settings))
    assert main(("train",), "", ["--cfg", str(folder / "config.yaml"), "SOLVER.MAX_EPOCH", "1"]) == 0
    assert main(("test",), "", ["--cfg", str(folder / "config.yaml"), "SOLVER.MAX_EPOCH", "1"]) == 0
    with np.load(folder / "run" / "test_scores.npz") as file:
        return folder / "run", dict(file)


@pytest.mark.parametrize("source", ["run", "checkpoint", "safetensors", "hf-folder"])
def test_predictions_are_those_of_the_test(tested, data_dir, tmp_path, source):
    folder, scores = tested
    path = folder
    if source == "checkpoint":
        path = shutil.copy(folder / "checkpoints" / "best.pyth", tmp_path / "moved.pyth")
    if source == "safetensors":
        path = tmp_path / "model.safetensors"
        write_safetensors(slowfast.load_model(folder), path)
        assert str(folder).encode() not in path.read_bytes()
    if source == "hf-folder":
        path = tmp_path / "hub"
        assert export(str(folder), source, str(path), half=False) == 0
    model = slowfast.load_model(path, device="cpu")
    found = model.predict([data_dir / name for name in scores["videos"]], top=3)
    np.testing.assert_allclose(np.stack([one.logits for one in found]), scores["logits"], rtol=0, atol=1e-6)
    assert [one.label for one in found] == scores["logits"].sum(1).argmax(1).tolist()
    assert [one.probability for one in found] == pytest.approx(
        [row[one.label] for row, one in zip(scores["scores"], found)]
    )
    assert found[0].class_name == scores["class_names"][found[0].label] and len(found[0].top) == 3
    assert not model.model.training


def test_the_tool_reads_lists_folders_and_files_and_says_what_it_cannot_read(tested, data_dir, tmp_path, capsys):
    folder, scores = tested
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", 9)
    (tmp_path / "videos" / "b.mp4").write_text("no video")
    inputs = [data_dir / "val.txt", tmp_path / "videos", data_dir / scores["videos"][3]]
    tool = load_tool("predict")
    command = ["--model", folder, *inputs, "--out", tmp_path / "out", "--features", tmp_path / "f.npz"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["predict.py", *map(str, command)])
        assert tool.main() == 1
    printed = capsys.readouterr().out
    assert "1 of 20 videos have no prediction" in printed and "b.mp4: not a video file" in printed
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines[:17]] == scores["videos"].tolist() and len(lines) == 20
    assert [line["label"] for line in lines[:17]] == scores["logits"].sum(1).argmax(1).tolist()
    assert lines[19]["top"] == lines[3]["top"] and len(lines[0]["top"]) == 5
    assert lines[18]["label"] is None and "not a video file" in lines[18]["error"]
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert rows[0] == "path,label,class,probability,error" and len(rows) == 21
    with np.load(tmp_path / "f.npz") as saved:
        assert saved["features"].shape == (20, 16) and np.isnan(saved["features"]).all(1).tolist() == [
            *[False] * 18,
            True,
            False,
        ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere", "a.mp4"], "there is no model 'nowhere'"),
        (["--model", "emim_tiny_motion", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["--model", "emim_tiny_motion", __file__, "--top", "0"], "--top is 0"),
        (["--model", "emim_tiny_motion", __file__, "--out", __file__], "cannot be made a folder"),
        (["--model", __file__, __file__], "cannot be read as a weight file"),
        (["--model", "emim_tiny_motion", __file__, "--stride-sec", "1"], "--stride-sec needs --window-sec"),
        (
            ["--model", "emim_tiny_motion", __file__, "--window-sec", "1", "--stride-sec", "0"],
            "--stride-sec is 0; allowed",
        ),
        (["--model", "emim_tiny_motion", __file__, "--window-sec", "inf"], "--window-sec is inf; allowed: above 0"),
        (["--model", "emim_tiny_motion", __file__, "--window-sec", "1", "--features", "f"], "without --window-sec"),
        (["--model", "emim_tiny_motion", __file__, "--features", "/tmp"], "--features is '/tmp'; allowed: a file"),
        (
            ["--model", "emim_tiny_motion", "a/x.mp4", "b/x.mp4", "--window-sec", "1"],
            "a/x.mp4 and b/x.mp4 would both be",
        ),
        (["--model", "emim_tiny_motion", __file__], "the video cannot be decoded"),
        (["--model", "emim_tiny_motion", __file__, "--window-sec", "1"], "the video cannot be decoded"),
    ],
)
def test_mistakes_are_named(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.mp4", "b/x.mp4"):
        Path(name).parent.mkdir()
        Path(name).touch()
    monkeypatch.setattr("sys.argv", ["predict.py", *arguments])
    with pytest.raises(UserError, match=message):
        load_tool("predict").main()


def test_a_model_whose_lists_are_elsewhere_predicts_all_the_same():
    model = slowfast.load_model("emim_tiny_motion", device="cpu")
    moved = VideoModel(model.model, model.cfg.with_settings("DATA.PACKED", "/nowhere"), model.class_names, "cpu")
    assert moved.predict(slowfast.sample_video()).class_name == "moving up-right"


def test_classes_have_a_probability_each_where_a_video_may_have_several(tmp_path):
    model = slowfast.load_model("emim_tiny_motion", device="cpu")
    several = VideoModel(model.model, model.cfg.with_settings("DATA.MULTI_LABEL", True), model.class_names, "cpu")
    found = several.predict(slowfast.sample_video(), views=1)
    logits = found.logits[0].astype(float)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-logits.max())))
    assert several.explain(slowfast.sample_video()).probability == pytest.approx(found.probability, rel=1e-5)
    with open_video(slowfast.sample_video()) as reader:
        seconds = reader.seconds(reader.num_frames)
        timeline, shares = make_timeline(several, reader, seconds, seconds, top=12)
    assert shares.sum() > 1.01 * shares.max() and timeline["windows"][0]["probability"] == shares.max()
    np.testing.assert_allclose(shares[0], 1 / (1 + np.exp(-logits)), rtol=1e-4)


def test_weights_without_settings_are_refused(tmp_path):
    torch.save({"head.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth has weights but no settings.*create_model"):
        slowfast.load_model(tmp_path / "w.pth")


def test_the_model_of_the_package_knows_its_motions(tmp_path):
    model = slowfast.load_model("emim_tiny_motion", device="cpu")
    sample = model.predict(slowfast.sample_video())
    assert (sample.class_name, len(sample.top)) == ("moving up-right", 5) and sample.probability > 0.8
    clips = [render(np.random.SeedSequence(77, spawn_key=(i,)), i % 12, MOTIONS) for i in range(96)]
    found = model.predict(clips, views=1)
    assert np.mean([one.label == i % 12 for i, one in enumerate(found)]) > 0.95
    pooled, features = model.features(clips[0]), model.features(clips[0], "map")
    np.testing.assert_allclose(pooled, features.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    logits = torch.from_numpy(pooled) @ model.model.head.weight.T.detach() + model.model.head.bias.detach()
    np.testing.assert_allclose(logits, found[0].logits[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="frames must be uint8 RGB"):
        model.predict(clips[0].astype(float))
    with pytest.raises(UserError, match="a video is a path, or frames as an array .*, found a Tensor"):
        model.predict(torch.from_numpy(clips[0]))


def test_images_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    write_folder(tmp_path / "frames", 12, "frame-{}.jpg")
    (tmp_path / "frames/._frame-1.jpg").touch()  # left by a Mac
    with open_folder(str(tmp_path / "frames")) as reader:
        assert read_numbers(reader.read(range(12))) == list(range(12))


def test_a_timeline_finds_the_class_of_every_part(tmp_path):
    model, labels = slowfast.load_model("emim_tiny_motion", device="cpu"), [0, 3, 9, 11, 5, 2]
    clips = [render(np.random.SeedSequence(5, spawn_key=(i,)), label, MOTIONS) for i, label in enumerate(labels)]
    (reader,) = [Inputs([np.concatenate(clips)], model.cfg)]
    with reader.open(reader.records[0]) as frames:
        frames.frames_per_sec = 8.0
        timeline, shares = make_timeline(model, frames, window_sec=1.0, stride_sec=1.0, top=2)
    assert [window["label"] for window in timeline["windows"]] == labels and shares.shape == (6, 12)
    assert [window["start_sec"] for window in timeline["windows"]] == [0, 1, 2, 3, 4, 5]
    assert timeline["duration_sec"] == 6 and len(timeline["windows"][0]["top"]) == 2
    with open_video(write_video(tmp_path / "a.mp4", 50, rate=25, size=(64, 64))) as video:
        windows = make_timeline(model, video, window_sec=0.8, stride_sec=0.5, top=1)[0]["windows"]
    assert [window["end_sec"] for window in windows] == [0.8, 1.28, 1.8, 2.0]
    slower = [*range(0, 1000, 100), *range(1000, 10000, 900)]  # as phones do in the dark
    with open_video(write_video(tmp_path / "b.mp4", 20, times_ms=slower, size=(64, 64))) as video:
        windows = make_timeline(model, video, 10 / video.frames_per_sec, 10 / video.frames_per_sec, top=1)[0]["windows"]
    assert [(window["start_sec"], round(window["end_sec"])) for window in windows] == [(0, 1), (1, 9)]
    names = ("a.1", "a.2")
    for name in names:
        shutil.copy(tmp_path / "a.mp4", tmp_path / f"{name}.mp4")
    videos = [tmp_path / f"{name}.mp4" for name in names]
    shown = run_tool("predict.py", "--model", "emim_tiny_motion", *videos, "--window-sec", 1, "--out", tmp_path)
    assert shown.returncode == 0, shown.stderr
    for name in names:
        assert (tmp_path / f"{name}.timeline.png").read_bytes().startswith(b"\x89PNG")
        assert len(json.loads((tmp_path / f"{name}.timeline.json").read_text())["windows"]) == 3


def test_named_architectures_are_those_of_the_experiments():
    experiments = {
        "emim_s": "emim_s16_ssv1_in1k", "emim_b": "emim_b16_k400_in1k", "joint_s": "joint_s16_ssv1_in1k",
        "uniformer_s": "uniformer_s16_k400_in1k", "uniformer_b": "uniformer_b16_k400_in1k",
        "emim_s_image": "emim_s_in1k_image", "uniformer_s_image": "uniformer_s_in1k_image", "emim_tiny": "quickstart",
    }  # fmt: skip
    for name, experiment in experiments.items():
        ours = flat_settings(architecture_cfg(name, 12))
        theirs = flat_settings(load_cfg(f"{slowfast.__path__[0]}/../exp/{experiment}/config.yaml"))
        sections = ("UNIFORMER.", "EMIM.", "MODEL.MODEL_NAME", "DATA.MEAN", "DATA.TEST_SHORT", "DATA.TEST_INTER")
        different = [key for key in ours if key.startswith(sections) and ours[key] != theirs[key]]
        assert set(different) <= {"UNIFORMER.DROP_DEPTH_RATE"}, (name, different)
    assert {one.architecture for one in ZOO.values()} <= set(ARCHITECTURES) <= set(slowfast.list_models())
    with torch.device("meta"):
        model = slowfast.create_model("emim_s", num_classes=174, num_frames=16, EMIM__WINDOW=[5, 7])
    assert model.blocks3[0].attn.rpb.shape == (5, 5, 5) and model.head.weight.shape == (174, 512)
    with pytest.raises(UserError, match="there is no architecture 'emim_x'; known: emim_s, "):
        slowfast.create_model("emim_x", 3)
