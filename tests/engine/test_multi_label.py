"""Videos with several labels: trained, validated and tested by mAP; what is not there for them is refused."""

import csv

import numpy as np
import pytest
import yaml
from helpers_engine import results

from slowfast.analysis.study import build_study
from slowfast.config import load_cfg
from slowfast.prepare.zip import pack_data
from slowfast.utils.errors import UserError
from slowfast.utils.logging import read_events
from slowfast.utils.metrics import mean_average_precision
from slowfast.utils.results import load_scores


@pytest.fixture
def run(run, config, data_dir, tmp_path):
    """Run on lists in which every other video has a second label."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "val"):
        lines = [line.split() for line in (data_dir / f"{split}.txt").read_text().splitlines()]
        for line in lines[::2]:
            line[2] += f"|{(int(line[2]) + 5) % 12}"
        (lists / f"{split}.txt").write_text("".join(" ".join(line) + "\n" for line in lines))
    settings = yaml.safe_load(config.read_text())
    settings["DATA"] |= {"PATH_TO_DATA_DIR": str(lists), "PATH_PREFIX": str(data_dir), "MULTI_LABEL": True}
    settings["LOSS"] = {"NAME": "binary_cross_entropy"}
    config.write_text(yaml.safe_dump(settings))
    return run


def test_a_run_is_trained_and_selected_by_map(run, config, tmp_path):
    settings = ("TENSORBOARD.IMAGES_PERIOD", 1, "DATA.ENSEMBLE_METHOD", "mean_probability", "SOLVER.EMA_DECAY", 0.5)
    settings += ("LOSS.CLASS_WEIGHTS", "balanced")
    done = run(*settings, tasks=("train", "test"))
    assert done.status == 0 and "validation: loss 0." in done.out and "test: mAP " in done.out
    folder, found = tmp_path / "run", results(tmp_path / "run")
    with np.load(folder / "test_scores.npz") as file:
        labels, scores, logits = file["labels"], file["scores"], file["logits"]
    assert labels.shape == (17, 12) and labels.sum(axis=1).tolist() == [2, 1] * 8 + [2]
    np.testing.assert_allclose(scores, (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=1), rtol=1e-6)
    assert found["mAP"] == pytest.approx(100 * mean_average_precision(scores, labels)) and "top1" not in found
    assert found["num_classes_with_videos"] == labels.any(axis=0).sum()
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    listed = [line.split()[2] for line in (tmp_path / "lists" / "val.txt").read_text().splitlines()]
    assert [{*row["label"].split("|")} for row in rows] == [{*label.split("|")} for label in listed]
    likely = ["|".join(map(str, np.flatnonzero(row > 0.5))) for row in scores]
    assert [row["prediction"] for row in rows] == likely and len(set(likely)) > 1
    assert not (folder / "confusion_matrix.png").exists() and (folder / "learning_curves.png").exists()
    assert all(0 < event["mAP"] < 100 and event["loss"] < 1 for event in read_events(str(folder), "val"))
    assert "already tested: test: mAP" in run(*settings, tasks=("train", "test")).out
    with pytest.raises(UserError, match="several labels per video"):
        load_scores(str(folder / "test_scores.npz"))
    counts, _ = pack_data(load_cfg(str(config)), str(tmp_path / "pack"))
    assert counts["train"] == (24, 0)
    fields = [line.split("\t")[2] for line in (tmp_path / "pack" / "train.txt").read_text().splitlines()]
    assert fields == [line.split()[2] for line in (tmp_path / "lists" / "train.txt").read_text().splitlines()]


def test_what_several_labels_do_not_go_with_is_refused(run, config):
    dry = run("--dry-run", "MODEL.NUM_CLASSES", 0, tasks=("train", "test"))
    assert dry.status == 0 and "MODEL.NUM_CLASSES is 12: the largest label" in dry.out
    for settings, message in (
        (("LOSS.NAME", "soft_target_cross_entropy"), "LOSS.NAME is soft_target_cross_entropy, for one class per video"),
        (
            ("DATA.TRAIN_SAMPLING", "balanced"),
            "DATA.TRAIN_SAMPLING is balanced; allowed with DATA.MULTI_LABEL: uniform",
        ),
        (("DATA.MULTI_LABEL", False), "several labels need DATA.MULTI_LABEL True"),
        (("DATA.DATASET", "ImageFolder"), "a file in ImageFolder has one class"),
    ):
        refused = run(*settings)
        assert refused.status == 2 and message in refused.err
    with pytest.raises(UserError, match="a study compares accuracies of one label per video"):
        build_study({"table": {"cfgs": [str(config)]}}, [0], "out", [])
