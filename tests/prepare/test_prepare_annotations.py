"""Official annotation files: their labels, their variants, and what is wrong with them."""

import json
from pathlib import Path

import invented_releases
import pytest
from torchvision.models.video import R3D_18_Weights

from slowfast.config.defaults import get_cfg
from slowfast.prepare import diving48, kinetics400, ssv1, ssv2
from slowfast.prepare.lists import Published

FRAGMENTS = Path(__file__).resolve().parents[2] / "configs/_base_"

TEMPLATES = {"Approaching something": "1", "Moving something up": "0", "Putting something onto something": "2"}
PUTTING = {"id": "4", "template": "Putting [something] onto [something]"}


def write_ssv2(folder, train, val=(("9", "Moving [something] up"),), labels=TEMPLATES, prefix=""):
    (folder / f"{prefix}labels.json").write_text(json.dumps(labels))
    for name, entries in (("train", train), ("validation", val)):
        content = [dict(zip(("id", "template"), entry)) if isinstance(entry, tuple) else entry for entry in entries]
        (folder / f"{prefix}{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"], ids=["redistributed", "official"])
def test_ssv2_labels_are_those_of_the_labels_file_without_brackets(tmp_path, prefix):
    write_ssv2(tmp_path, [("7", "Approaching [something]"), ("5", "Moving [something] up"), PUTTING], prefix=prefix)
    annotation = ssv2.read_annotation(tmp_path)
    assert annotation.labels == {"train": {"7": 1, "5": 0, "4": 2}, "val": {"9": 0}}
    assert annotation.class_names == sorted(TEMPLATES, key=TEMPLATES.get)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": [PUTTING, {"id": "5"}]}, ["train.json: entry 2", "'template'", "'id': '5'"]),
        ({"train": [{"id": 4, "template": "Moving [something] up"}]}, ["entry 1", "'id' (str)"]),
        ({"train": [("../4", "Moving [something] up")]}, ["entry 1", "'../4'"]),
        ({"train": [PUTTING, ("4", "Moving [something] up")]}, ["entry 2", "id 4 occurs before"]),
        ({"train": [("4", "Putting [something] on [x]")]}, ["'Putting something on x'", "'Putting something onto"]),
        ({"train": [PUTTING], "val": [PUTTING]}, ["1 ids are in both", "such as 4"]),
        ({"train": []}, ["train.json", "not empty"]),
        ({"train": [PUTTING], "labels": {"a": "0", "b": "0"}}, ["labels.json", "'a' and 'b' both have label 0"]),
        ({"train": [PUTTING], "labels": {"a": "0", "b": "2"}}, ["labels.json", "'b' has label '2'", "'1'"]),
        ({"train": [PUTTING], "labels": {"a": 0}}, ["labels.json", "label 0"]),
        ({"train": [PUTTING], "labels": {"a [something]": "0"}}, ["labels.json", "brackets"]),
        ({"train": [PUTTING], "labels": ["a"]}, ["labels.json", "expected a dict"]),
    ],
)
def test_wrong_ssv2_files_are_described(tmp_path, change, words):
    write_ssv2(tmp_path, **change)
    with pytest.raises(ValueError) as error:
        ssv2.read_annotation(tmp_path)
    assert [word for word in words if word not in str(error.value)] == []


def test_ssv2_files_that_are_missing_double_or_not_json(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"something-something-v2-labels.json \(or labels.json\)"):
        ssv2.read_annotation(tmp_path)
    write_ssv2(tmp_path, [PUTTING])
    (tmp_path / "labels.json").write_text('{"a": "0", "a": "1"}')
    with pytest.raises(ValueError, match="key 'a' is given twice"):
        ssv2.read_annotation(tmp_path)
    (tmp_path / "labels.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="labels.json is not valid JSON"):
        ssv2.read_annotation(tmp_path)
    write_ssv2(tmp_path, [PUTTING], prefix="something-something-v2-")
    with pytest.raises(ValueError, match="keep one"):
        ssv2.read_annotation(tmp_path)


def test_kinetics_class_orders():
    alphabetical, uniformer = map(kinetics400.class_names, kinetics400.CLASS_ORDERS)
    assert alphabetical == sorted(R3D_18_Weights.KINETICS400_V1.meta["categories"])
    assert sorted(uniformer) == alphabetical and len(set(uniformer)) == 400
    known = {"abseiling": 0, "air drumming": 1, "answering questions": 2, "riding a bike": 267, "zumba": 399}
    assert {name: alphabetical.index(name) for name in known} == known
    known = {"riding a bike": 0, "marching": 1, "dodgeball": 2, "abseiling": 341, "air drumming": 158}
    known |= {"answering questions": 189, "archery": 302, "zumba": 331}
    assert {name: uniformer.index(name) for name in known} == known


@pytest.mark.parametrize(
    "module", [ssv1, ssv2, kinetics400, diving48], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_fragments_expect_the_published_sizes(module):
    cfg = get_cfg()
    cfg.merge_from_file(str(FRAGMENTS / f"{module.__name__.rpartition('.')[2]}.yaml"))
    expected = dict(zip(("train", "val"), cfg.DATA.EXPECTED_NUM_VIDEOS))
    assert Published(expected, cfg.MODEL.NUM_CLASSES) == module.PUBLISHED


HEADER = "label,youtube_id,time_start,time_end,split"


@pytest.mark.parametrize("is_cc", ["", ",is_cc"])
def test_kinetics_lines(tmp_path, is_cc):
    path = tmp_path / "train.csv"
    end = ",0" if is_cc else ""
    lines = [f"{HEADER}{is_cc}", f'"petting animal (not cat)",-a_B,7,17,train{end}', f"zumba,c,99999,100009,train{end}"]
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    labels = kinetics400.read_split(path, "train", {"zumba": 3, "petting animal (not cat)": 1})
    assert labels == {"-a_B_000007_000017": 1, "c_099999_100009": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zumba,a,1,11,train\n", [":1:", "header", "youtube_id"]),
        (f"{HEADER}\nzumbA,a,1,11,train\n", [":2:", "'zumbA'", "closest one there is 'zumba'"]),
        (f"{HEADER}\nzumba,a,1.5,11,train\n", [":2:", "time_start '1.5'", "whole seconds"]),
        (f"{HEADER}\nzumba,a,1\n", [":2:", "time_end ''"]),
        (f"{HEADER}\nzumba,../a,1,11,train\n", [":2:", "'../a'"]),
        (f"{HEADER}\nzumba,a,1,11,test\n", [":2:", "split 'test' in the file of train"]),
        (f"{HEADER}\nzumba,a,1,11,train\nzumba,a,01,11,train\n", [":3:", "a_000001_000011 occurs before"]),
        (f"{HEADER}\n", ["no clips"]),
    ],
)
def test_wrong_kinetics_lines_are_described(tmp_path, text, words):
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        kinetics400.read_split(path, "train", {"zumba": 0})
    assert [word for word in ["train.csv", *words] if word not in str(error.value)] == []


def test_kinetics_classes_that_a_subset_lacks_keep_their_labels(tmp_path):
    release = invented_releases.make("kinetics400", tmp_path)
    (release.annotations / "val.csv").rename(release.annotations / "kinetics-400_validate.csv")
    prepared = kinetics400.prepare_kinetics400(release.annotations, release.media, release.out, "alphabetical")
    assert prepared.num_classes == 400
    labels = [int(line.rpartition(",")[2]) for line in (release.out / "train.csv").read_text().splitlines()]
    names = (release.out / "classes.txt").read_text().splitlines()
    assert [names[label] for label in labels] == ["riding a bike", "marching", "dodgeball", "abseiling"]
    assert labels[0] == 267 and labels[3] == 0
    with pytest.raises(ValueError, match="class-order.*'raw'.*alphabetical . uniformer"):
        kinetics400.prepare_kinetics400(release.annotations, release.media, release.out, "raw")


DIVE = {"vid_name": "a_1", "label": 1, "start_frame": 0, "end_frame": 9}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([DIVE | {"label": 2}], ["entry 1", "label 2", "0 to 1"]),
        ([DIVE | {"label": "1"}], ["entry 1", "'label' (int)"]),
        ([DIVE | {"vid_name": "a/1"}], ["entry 1", "'a/1'"]),
        ([DIVE, DIVE], ["entry 2", "'a_1' occurs before"]),
        ([{"vid_name": "a_1", "label": 1}], ["entry 1", "'start_frame'"]),
    ],
)
def test_wrong_dives_are_described(tmp_path, entries, words):
    path = tmp_path / "Diving48_V2_train.json"
    invented_releases.write_json(path, entries)
    with pytest.raises(ValueError) as error:
        diving48.read_split(path, 2)
    assert [word for word in ["V2_train.json", *words] if word not in str(error.value)] == []


def test_dives_are_named_by_their_four_parts(tmp_path):
    path = tmp_path / "vocab.json"
    invented_releases.write_json(path, [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]])
    assert diving48.read_vocab(path) == ["Back 15som 05Twis FREE", "Back 15som 15Twis FREE"]
    invented_releases.write_json(path, [["Back", "15som", "05Twis"]])
    with pytest.raises(ValueError, match="class 0 is .*expected four strings"):
        diving48.read_vocab(path)
