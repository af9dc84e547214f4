"""Score files: what a test saves, and what follows from it without a model."""

import csv
import json
import resource
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_engine import load_tool
from helpers_engine import run_tool as start_tool

from slowfast.analysis.scores import align, combine, compare, rescore
from slowfast.config.defaults import get_cfg
from slowfast.engine.run import main
from slowfast.models import build_model
from slowfast.utils.errors import UserError, run_tool
from slowfast.utils.metrics import ENSEMBLE_METHODS, ensemble, softmax
from slowfast.utils.results import Scores, load_scores, save_scores


@pytest.fixture
def weights(config, tmp_path):
    """File of random weights whose predictions vary."""
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "running" not in name and "norm" not in name:
            tensor.normal_(std=0.3)
    path = tmp_path / "weights.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture
def tested(config, weights, data_dir, tmp_path):
    """Folder of a test of 17 videos x 6 views in which one video cannot be decoded, and that video's listed path."""
    broken = tmp_path / "broken"
    shutil.copytree(data_dir, broken)
    victim = (broken / "val.txt").read_text().split()[0]
    (broken / victim / "00003.jpg").write_bytes(b"no image")
    settings = ("DATA.PATH_TO_DATA_DIR", broken, "TEST.ON_BAD_VIDEO", "count_wrong", "DATA.NUM_FRAMES", 6)
    settings += ("TEST.CHECKPOINT_FILE_PATH", weights, "DATA.ENSEMBLE_METHOD", "mean_probability")
    assert main(("test",), "test run", ["--cfg", str(config), *map(str, settings)]) == 0
    return tmp_path / "run", victim


@pytest.fixture
def from_scores(capsys):
    """Function that runs test_net.py --from-scores in this process and returns what it printed."""
    tool = load_tool("test_net")
    return lambda *arguments: tool.from_scores(list(map(str, arguments))) or capsys.readouterr().out


def make_run(seed=0, views=2, videos=40, classes=6, **changes):
    """Return invented scores that are right more often than not."""
    labels = np.random.default_rng(0).integers(0, classes, size=videos)
    logits = np.random.default_rng(seed).normal(size=(videos, views, classes)).astype(np.float32)
    logits[np.arange(videos), :, labels] += 1
    names = np.array([f"folder/clip {index}.mp4" for index in range(videos)])
    facts = {"view_protocol": f"8 frames x {views} clips x 1 crops, 32x32 px", "ensemble_method": "sum_logits"}
    return replace(Scores(names, labels, logits, [f"class {k}" for k in range(classes)], facts), **changes)


def save(path, run):
    save_scores(str(path), run, ensemble(run.logits, "sum_logits"))
    return str(path)


def shuffled(run, seed=0):
    order = np.random.default_rng(seed).permutation(len(run.videos))
    return replace(run, videos=run.videos[order], labels=run.labels[order], logits=run.logits[order])


def test_a_test_saves_every_view_under_the_path_of_the_list(tested, data_dir):
    folder, victim = tested
    with np.load(folder / "test_scores.npz", allow_pickle=False) as file:
        found = dict(file)
    lines = [line.split() for line in (data_dir / "val.txt").read_text().splitlines()]
    assert found["videos"].tolist() == [line[0] for line in lines]
    assert found["labels"].tolist() == [int(line[2]) for line in lines]
    assert found["logits"].shape == (17, 6, 12) and found["logits"].dtype == np.float32
    assert found["views"].tolist() == list(range(6))
    assert found["class_names"].tolist() == (data_dir / "classes.txt").read_text().splitlines()
    bad = np.isnan(found["logits"]).all(axis=(1, 2))
    assert found["videos"][bad].tolist() == [victim] and not np.isnan(found["logits"][~bad]).any()
    np.testing.assert_array_equal(found["scores"], ensemble(found["logits"], "mean_probability"))
    facts = json.loads(str(found["facts"]))
    assert facts["view_protocol"] == "6 frames x 2 clips x 3 crops, 32x32 px, sparse sampling"
    assert facts["checkpoint"].endswith("weights.pth") and "ENSEMBLE_METHOD: mean_probability" in facts["config"]


def test_everything_follows_from_the_file(tested, tmp_path):
    folder, victim = tested
    again = start_tool("test_net.py", "--from-scores", folder / "test_scores.npz", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    with open(folder / "predictions.csv") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["path", "label", "class", "prediction", "predicted_class", "probability"]
    assert first[0] == victim and first[1] != "" and first[3:] == ["", "", ""]
    for name in ("per_class_accuracy.csv", "predictions.csv", "confusion_matrix.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    first, second = (json.loads((path / "test_results.json").read_text()) for path in (folder, tmp_path / "again"))
    assert first["protocol"].endswith("sparse sampling, mean_probability") and len(first["bad_videos"]) == 1
    only_in_a_test = {"view_protocol", "checkpoint", "checkpoint_time", "epoch", "weights", "precision", "config"}
    assert {key: first[key] for key in first if key not in only_in_a_test} == {
        key: second[key] for key in second if key != "runs"
    }
    # The line on the screen is that of the test, and is in its log.
    line = next(line for line in again.stdout.splitlines() if line.startswith("test: "))
    assert line in (folder / "run.log").read_text() and "102 views, 1 without a score" in line
    low, high = first["interval95"]["top1"]
    assert f"top-1 {first['top1']:.2f} % [{low:.1f}, {high:.1f}]" in line

    other = rescore([str(folder / "test_scores.npz")], method="max")
    assert other["protocol"].endswith("sparse sampling, max") and [bad["path"] for bad in other["bad_videos"]] == [
        str(tmp_path / "broken" / victim)
    ]


def test_ensembles_are_what_they_are_defined_as():
    a, b = make_run(1, views=2), make_run(2, views=3)
    expected = {
        "sum_logits": lambda logits: logits.mean(axis=1),
        "mean_probability": lambda logits: softmax(logits).mean(axis=1),
        "max": lambda logits: logits.max(axis=1),
    }
    for method in ENSEMBLE_METHODS:
        of_a, of_b = (expected[method](run.logits.astype(float)) for run in (a, b))
        np.testing.assert_allclose(combine([a, b], method), (of_a + of_b) / 2, rtol=1e-12)
        np.testing.assert_allclose(combine([a, b], method, [1, 3]), of_a / 4 + of_b * 3 / 4, rtol=1e-12)
        np.testing.assert_allclose(combine([a, b], method, [0, 2]), of_b, rtol=1e-12)


def test_the_order_of_the_videos_does_not_matter(tmp_path):
    a, b = make_run(1), make_run(2, views=3)
    # One path listed twice with two labels, as lists of several segments may have it.
    for run in (a, b):
        run.videos[7] = run.videos[3]
        run.labels[7], run.labels[3] = 0, 1
    first = save(tmp_path / "a.npz", a)
    straight = rescore([first, save(tmp_path / "b.npz", b)])
    mixed = rescore([first, save(tmp_path / "b2.npz", shuffled(b))])
    assert (straight["num_videos"], straight["num_views"]) == (40, 200)
    assert {**straight, "runs": 0} == {**mixed, "runs": 0}
    aligned = align([a, shuffled(b)])[1]
    np.testing.assert_array_equal(aligned.logits, b.logits)


def test_an_ensemble_through_the_tool(tmp_path, from_scores, capsys):
    files = [save(tmp_path / f"{seed}.npz", make_run(seed)) for seed in (1, 2, 3)]
    *members, line = from_scores(*files, "--method", "mean_probability", "--weights", 1, 1, 2).splitlines()
    assert len(members) == 3 and "weight 2" in members[2] and "240 views" in line
    assert "(ensemble of 3: 8 frames x 2 clips x 1 crops, 32x32 px, mean_probability;" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.npz", "2.npz", "3.npz"]
    with pytest.raises(SystemExit, match="0"):
        from_scores("--help")
    assert "in any order" in capsys.readouterr().out and "--from-scores" in start_tool("test_net.py", "--help").stdout


def test_comparison_of_two_runs(tmp_path, from_scores):
    a = make_run(1, videos=400)
    better = replace(a, logits=a.logits.copy())
    better.logits[np.arange(0, 400, 4), :, a.labels[::4]] += 5
    paths = save(tmp_path / "a.npz", a), save(tmp_path / "b.npz", shuffled(better))
    found = compare(*paths)["top1"]
    assert found["difference"] == pytest.approx(found["b"] - found["a"])
    assert 0 < found["interval95"][0] < found["difference"] < found["interval95"][1]
    assert "B is better" in from_scores(*paths, "--compare", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["top1"] == found
    same = compare(paths[0], paths[0])["top5"]
    assert (same["difference"], same["interval95"]) == (0, [0, 0])


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda run: {"videos": np.char.replace(run.videos, "clip 3.", "clip x.")}, ["1 only", "/clip 3.", "/clip x."]),
        (
            lambda run: {"labels": np.where(np.arange(40) == 5, 1 - run.labels, run.labels)},
            ["1 only", "('folder/clip 5.mp4', 0)", "('folder/clip 5.mp4', 1)"],
        ),
        (lambda run: {"class_names": ["other", *run.class_names[1:]]}, ["class 0 is 'class 0' in", "'other'"]),
        (lambda run: {"logits": run.logits[..., :5], "class_names": None}, ["has 6 classes", "has 5"]),
        (lambda run: {"facts": {"ensemble_method": "max"}}, ["sum_logits", "max", "--method"]),
    ],
)
def test_runs_that_do_not_fit_together(tmp_path, change, messages):
    run = make_run()
    run = replace(run, labels=run.labels % 2)
    paths = save(tmp_path / "a.npz", run), save(tmp_path / "b.npz", replace(run, **change(run)))
    with pytest.raises(UserError) as error:
        rescore(paths)
    assert all(message in str(error.value) for message in [*messages, "b.npz"]), error.value


def test_files_that_are_no_score_files(tmp_path):
    good = tmp_path / "good.npz"
    save(good, make_run())
    content = good.read_bytes()
    path = tmp_path / "bad.npz"

    def message():
        with pytest.raises(UserError, match="bad.npz") as error:
            load_scores(str(path))
        return str(error.value)

    for damaged in (content[: len(content) // 2], b"", b"path,label\n", content.replace(b"descr", b"dxscr")):
        path.write_bytes(damaged)
        assert "no score file (.npz), or it is damaged" in message()
    np.savez(path, scores=np.zeros((2, 2)))
    assert "it has no videos, labels, logits; found: scores" in message()
    right = {"videos": ["a", "b"], "labels": [0, 1], "logits": np.zeros((2, 1, 2))}
    for change, expected in (
        ({"videos": np.array(["a", None], dtype=object)}, "damaged"),  # pickled objects are not read
        ({"labels": [0, 2]}, "labels must be integers from 0 to 1, found 0 to 2"),
        ({"logits": np.zeros((2, 2))}, "must have the shapes"),
        ({"class_names": ["x"]}, "1 class names for logits of 2 classes"),
    ):
        np.savez(path, **{**right, **change})
        assert expected in message()


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, videos=["b", "a"], labels=[1, 0], logits=np.eye(2)[:, None])
    with pytest.raises(UserError, match="--method"):
        rescore([str(path)])
    assert rescore([str(path)], method="max")["top1"] == 0.0


def test_mistakes_at_the_command_line(tmp_path, from_scores):
    path = save(tmp_path / "a.npz", make_run())
    for arguments, message in (
        ([tmp_path / "none.npz"], "none.npz does not exist"),
        ([path, "--out", tmp_path], "is the folder of a score file"),
        *(([path, path, "--weights", *weights], "none negative") for weights in ([1], [-1, 2], [0, 0], ["nan", 1])),
    ):
        with pytest.raises(UserError, match=message):
            from_scores(*arguments)
    failed = start_tool("test_net.py", "--from-scores", path, "--compare")
    assert failed.returncode == 2 and "--compare takes two files" in failed.stderr


def test_a_disk_that_fills_up_leaves_the_older_file(tmp_path, capsys):
    path = save(tmp_path / "a.npz", make_run())
    before = (tmp_path / "a.npz").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"the scores cannot be written to .*a.npz"):
            save(path, make_run(1))
        with pytest.raises(SystemExit, match="2"):
            run_tool(lambda: rescore([path], output_dir=str(tmp_path / "out")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shutil.rmtree(tmp_path / "out")
    assert (tmp_path / "a.npz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: [Errno 27] File too large: '{tmp_path}/out/")


def test_logits_that_are_not_finite_are_no_silent_mistakes(config, weights, tmp_path, capsys):
    state = torch.load(weights, weights_only=True)
    state["model"]["head.bias"][3] = torch.inf
    torch.save(state, weights)
    command = ["--cfg", str(config), "TEST.CHECKPOINT_FILE_PATH", str(weights)]
    assert main(("test",), "test run", command) == 2
    error = capsys.readouterr().err
    assert "the model's logits are not finite in fp32" in error and "TEST.ON_BAD_VIDEO" in error
    assert main(("test",), "test run", [*command, "TEST.ON_BAD_VIDEO", "count_wrong"]) == 0
    found = json.loads((tmp_path / "run" / "test_results.json").read_text())
    assert len(found["bad_videos"]) == 17 and found["top1"] == found["mean_class"] == 0


def test_names_that_look_like_formulas(tmp_path):
    names = ["$\\frac{$", "50 % of $1 and $2", "a_b^c", "{", "\\", "plain"]
    path = save(tmp_path / "a.npz", make_run(class_names=names))
    rescore([path], output_dir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
