"""The motion exam in miniature: its certificate says what direct tests say, and what is done is not done again."""

import copy
import json

import numpy as np
import pytest
import torch
import yaml
from helpers_engine import load_tool

from slowfast.analysis.study import is_finished
from slowfast.engine.run import main
from slowfast.inference import exam
from slowfast.inference.certificate import draw_page, write_certificate
from slowfast.inference.evaluate import Tokens
from slowfast.inference.explain import Affinities
from slowfast.synthetic.stimuli import Stimulus, StimulusSpec
from slowfast.utils.errors import UserError

TINY = ["DATA.ARGS.num_train", "16", "DATA.ARGS.num_val", "16", "SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0.5"]
TINY += ["DEVICE", "cpu", "UNIFORMER.MLP_RATIO", "2.0", "DATA.MEAN", "[0.5,0.5,0.5]"]


def run_here(study, jobs):
    """Run what is not finished, as ``run_missing`` does, in this process: others import torch anew."""
    missing = [run for run in study.runs if not is_finished(run)]
    for run in missing:
        file = f"{study.out}/{run.name}_{run.seed}.yaml"
        with open(file, "w") as settings:
            settings.write(run.cfg.dump())
        assert main(("train", "test"), "", ["--cfg", file, "RNG_SEED", str(run.seed), "OUTPUT_DIR", run.folder]) == 0
    STARTED.append(len(missing))
    return []


STARTED = []  # trainings of every part


@pytest.fixture(scope="module")
def network(tmp_path_factory, settings):
    """File of a network whose recipe is for other data."""
    path = tmp_path_factory.mktemp("network") / "mine.yaml"
    path.write_text(yaml.safe_dump(settings | {"SOLVER": {"BASE_LR": 5.0}, "EMIM": {"WINDOW": [5, 3]}}))
    return path


@pytest.fixture(scope="module")
def out(network, tmp_path_factory):
    """Folder of an exam that was taken twice."""
    folder = tmp_path_factory.mktemp("exam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exam, "run_missing", run_here)
        patch.setattr(exam, "SEEDS", (2,))
        assert exam.take(str(network), "", TINY, str(folder), 1) == 0
        files = [folder / "certificate.json", folder / "seed2/answers.json"]
        first = [(path.read_text(), path.stat().st_mtime) for path in files]
        assert exam.take(str(network), "", TINY, str(folder), 1) == 0
        assert STARTED == [1, 1, 0, 0]
        assert files[0].read_text() == first[0][0] and files[1].stat().st_mtime == first[1][1]
    return folder


@pytest.fixture
def certificate(out):
    return json.loads((out / "certificate.json").read_text())


@pytest.mark.parametrize(("test", "args", "perturb"), [
    ("texture cells", "{displacement: [1.0, 1.0], test_texture: cells}", ""),
    ("reverse", "{displacement: [1.0, 1.0]}", "reverse"),
    ("noise", "", ""),
])  # fmt: skip
def test_certificate_says_what_direct_tests_say(out, certificate, tmp_path, test, args, perturb):
    folder = out / "seed2/noise/run"  # whose own test is on the same clips
    if args:
        weights = out / "seed2/camouflage/run/checkpoints/epoch_00001.pyth"
        settings = ["DATA.ARGS", args, "TEST.CHECKPOINT_FILE_PATH", str(weights), "OUTPUT_DIR", str(tmp_path)]
        assert main(("test",), "", ["--cfg", str(out / "camouflage_2.yaml"), *settings], perturb) == 0
        folder = tmp_path / (f"perturb_{perturb}" if perturb else "")
    found = json.loads((folder / "test_results.json").read_text())["top1"]
    assert certificate["tests"][test]["percent"] == pytest.approx(found)


def test_network_is_the_users_and_the_rest_is_the_exams(out, network, certificate):
    name, parts = exam.read_network(str(network), "", TINY)
    assert name == "mine" and parts["camouflage"].EMIM.WINDOW == [5, 3]
    assert parts["camouflage"].SOLVER.BASE_LR == 1e-3 and parts["noise"].DATA.ARGS.stimulus == "noise"
    trained = yaml.safe_load(json.loads((out / "seed2/noise/run/test_results.json").read_text())["config"])
    assert trained["MODEL"]["PRETRAINED"].endswith("seed2/camouflage/run") and trained["RNG_SEED"] == 2
    runs = exam.plan(parts, str(out))
    for first, second in zip(runs["camouflage"], runs["noise"]):
        assert first.folder == second.cfg.MODEL.PRETRAINED and second.seed == first.seed
    assert len({run.folder for part in runs.values() for run in part}) == 2 * len(exam.SEEDS) == 4
    assert parts["noise"].DATA.MEAN == [0.5] * 3
    assert [*certificate["exam"]["changed"]] == TINY[0:8:2]
    assert [*certificate["settings"]] == ["UNIFORMER.MLP_RATIO", "DATA.MEAN"]  # not where it ran
    assert exam.read_network("", "emim_tiny", [])[1]["noise"].UNIFORMER.EMBED_DIM == [48, 64, 96, 96]


def test_files_stand_alone_and_show_those_that_took_the_same_exam(out, certificate, tmp_path):
    page = (out / "certificate.html").read_text()
    assert "ANOTHER EXAM: DATA.ARGS.num_train 16" in page and "http" not in page
    assert (out / "certificate.png").read_bytes().startswith(b"\x89PNG")
    same, other = ({**copy.deepcopy(certificate), "name": name} for name in ("$same$", "different"))
    other["exam"]["settings"]["noise"]["DATA.ARGS.grow"] = 0.0  # with as many clips
    same |= {"end_point_error": {}, "no_affinities": "it has none", "starts_from": "w.pth"}
    write_certificate(str(tmp_path), certificate, [same, other])
    page = (tmp_path / "certificate.html").read_text()
    assert "<th>$same$" in page and "different" not in page
    twin = {**copy.deepcopy(certificate), "cost": certificate["cost"] | {"parameters": 7}}
    for references, shown in (([certificate], 1), ([twin], 2)):  # another network from a file of the same name
        write_certificate(str(tmp_path), certificate, references)
        page = (tmp_path / "certificate.html").read_text()
        assert page.count(f"<th>{certificate['name']}") == shown
    page = draw_page(same, [], b"")
    assert "no affinities to read displacements from (it has none)" in page and "started from w.pth" in page


def test_page_states_the_certificates_of_its_folder_which_are_of_this_exam():
    page, references = (exam.FOLDER / "README.md").read_text(), exam.read_references()
    names, parts = [one["name"] for one in references], exam.read_network("", "emim_tiny", [])[1]
    assert f"| test | {' | '.join(f'`{name}`' for name in names)} |" in page and len(names) > 1
    assert set(references[0]["tests"]) == {*exam.TRIALS, "reverse, as the opposite"}
    for test in references[0]["tests"]:
        shares = [one["tests"][test] for one in references]
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(one["percent"], *one["interval95"]) for one in shares]
        assert f"| {test} | {' | '.join(cells)} |" in page
    clips = {part: 400 * cfg.SOLVER.MAX_EPOCH for part, cfg in parts.items()}
    own = {part: exam.own_settings(cfg) for part, cfg in parts.items()}
    assert own["noise"]["DATA.ARGS.grow"] == 0.5 and own["camouflage"]["SOLVER.BASE_LR"] == 1e-3
    told = {"training_clips": clips, "seeds": [1, 2], "test_clips": 256, "changed": {}, "settings": own}
    for one in references:
        assert one["exam"] == told


def test_what_comes_before_a_training_are_the_weights_that_it_starts_from(out, network):
    run = exam.plan(exam.read_network(str(network), "", TINY)[1], str(out))["noise"][1]
    assert run.seed == 2
    start = torch.load(out / "seed2/camouflage/run/checkpoints/best.pyth", weights_only=False)["model_state"]
    found = exam.build_untrained(run).state_dict()
    assert found.keys() == start.keys() and all(torch.equal(found[name], start[name]) for name in start)


@pytest.mark.parametrize("interval", [1, 2])
def test_true_tokens_are_what_stays_in_the_frame_and_move_as_far_in_a_frame(interval):
    spec = StimulusSpec(displacement=(2.0, 2.0))
    found = Affinities(*2 * [torch.zeros(1, 6 - interval, 8, 8, 1, 49)], 7, interval)
    for seed in range(20):
        stimulus = Stimulus(seed, seed % 8, spec, 6, 64)
        truth, is_covered = exam.true_tokens(stimulus, found)
        assert len(truth) == is_covered.sum() and is_covered.shape == (6 - interval, 8, 8)
        np.testing.assert_allclose(truth, np.broadcast_to(stimulus.object_velocity / 8, truth.shape), atol=1e-5)
        _, y, x = is_covered.nonzero(as_tuple=True)
        places = torch.stack([x, y], dim=1) + interval * truth
        assert ((places > -0.5) & (places < 7.5)).all()


def test_errors_of_displacements_are_in_tokens_of_the_exam():
    rng = np.random.default_rng(0)
    truths = rng.normal(size=(16, 12, 2)).astype(np.float32)
    affinities = [np.concatenate([x, rng.normal(size=(12, 2))], axis=1)[:, None] for x in truths]
    for side in (8, 16):
        clips = [(Tokens(one, truth[:, None] + [0.3, 0.4], truth), side) for one, truth in zip(affinities, truths)]
        rows = exam.end_point_errors({f"displacement {speed:g}": {"block": clips} for speed in exam.SPEEDS})["block"]
        assert [row["displacement"] for row in rows] == list(exam.SPEEDS)
        assert rows[0]["epe"] == pytest.approx(0.5 * side / 8) and rows[0]["epe_readout"] < 1e-5
        assert rows[0]["still"] == pytest.approx(np.linalg.norm(truths[8:], axis=2).mean() * side / 8)


def test_more_seeds_on_the_same_clips_narrow_no_interval():
    hits = np.arange(40) % 4 == 0
    one, three = exam.share(hits[None]), exam.share(np.stack([hits] * 3))
    assert one["interval95"] == three["interval95"] and one["percent"] == three["percent"] == 25
    assert one["interval95"][0] < 25 < one["interval95"][1] and three["seeds"] == [25] * 3


MODULE = """
import torch
from torch import nn
from slowfast.models import MODEL_REGISTRY, Model

@MODEL_REGISTRY.register()
class Wide{side}To{classes}(Model):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * {side} * {side}, {classes})

    @classmethod
    def from_config(cls, cfg):
        return cls()

    def forward(self, clips):
        return self.head(clips.mean(2).flatten(1))
"""


@pytest.mark.parametrize(("own", "opts", "message"), [
    ((224, 8), [], "Wide224To8 cannot take the exam's clips of 6 frames of 64 x 64 px .RuntimeError"),
    ((64, 5), [], r"returns \(2, 5\) for 2 of the exam's clips .* not logits \(2, 8\)"),
    (None, ["MODEL.MODEL_NAME", "torchvision/s3d"], "s3d cannot take clips of DATA.NUM_FRAMES 6 frames"),
    (None, ["MODEL.MODEL_NAME", "None"], "MODEL.MODEL_NAME 'None' is not a registered model"),
    (None, ["RNG_SEED", "3"], "RNG_SEED cannot be set for an exam"),
])  # fmt: skip
def test_what_cannot_take_it_is_told_in_one_line(network, tmp_path, own, opts, message):
    path = network
    if own:
        name = "Wide{}To{}".format(*own)
        (tmp_path / f"{name}.py").write_text(MODULE.format(side=own[0], classes=own[1]))
        path = tmp_path / "own.yaml"
        path.write_text(f"USER_MODULES: [{name}.py]\nMODEL: {{MODEL_NAME: {name}}}\n")
    with pytest.raises(UserError, match=message):
        exam.take(str(path), "", opts, str(tmp_path / "out"), 1)
    assert not (tmp_path / "out").exists()


def test_tool_refuses_names_that_are_none(monkeypatch):
    monkeypatch.setattr("sys.argv", ["motion_exam.py", "--model", "emim_huge"])
    with pytest.raises(UserError, match="there is no architecture 'emim_huge'; known: emim_s"):
        load_tool("motion_exam").main()
