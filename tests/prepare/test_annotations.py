"""Official annotation files: their labels, their variants, and what is wrong with them, by file and line."""

import json
from pathlib import Path

import invented_releases
import numpy as np
import pytest
from numbered_video import read_numbers, write_video
from torchvision.models.video import R3D_18_Weights

from slowfast.datasets.decoder import FrameFolder
from slowfast.prepare import diving48, finegym, hmdb51, kinetics400, mpii, ssv1, ssv2
from slowfast.prepare.lists import prepare
from slowfast.utils.errors import UserError

FRAGMENTS = Path(__file__).resolve().parents[2] / "configs/_base_"

# The raw order differs from the ASCII order: a space precedes a comma, capitals precede small letters.
RAW_TEMPLATES = [
    "putting something down",
    "Lifting something up completely, then letting it drop down",
    'Showing "something", upright; or not',
    "Lifting something up completely without letting it drop down",
    "Zooming in on something that isn't moving",
]
V2_LABELS = {"Approaching something": "1", "Moving something up": "0", "Putting something onto something": "2"}
PUTTING = {"id": "4", "template": "Putting [something] onto [something]"}
HEADER = "label,youtube_id,time_start,time_end,split"
DIVE = {"vid_name": "a_1", "label": 1, "end_frame": 9}
VOCAB = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]]


def read_ssv1(folder, train=f"30;{RAW_TEMPLATES[0]}\n4;{RAW_TEMPLATES[1]}\n", labels="", val=f"7;{RAW_TEMPLATES[2]}\n"):
    labels = labels or "\n".join(RAW_TEMPLATES)
    for name, text in (("labels", labels), ("train", train), ("validation", val)):
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"something-something-v1-{name}.csv").write_bytes(content)
    return ssv1.read_annotation(folder)


def read_ssv2(folder, train=(PUTTING,), val=(PUTTING | {"id": "9"},), labels=V2_LABELS, prefix=""):
    for name, content in (("labels", labels), ("train", train), ("validation", val)):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{prefix}{name}.json").write_text(text)
    return ssv2.read_annotation(folder)


def read_kinetics(folder, train, val=f"{HEADER}\nzumba,v,1,11,val\n", order="alphabetical"):
    (folder / "train.csv").write_bytes(train.encode())
    (folder / "validate.csv").write_text(val)
    return kinetics400.read_annotation(folder, order)


def read_dives(folder, train=(DIVE,), vocab=VOCAB):
    test = [DIVE | {"vid_name": "t"}]
    for name, content in (("V2_train", train), ("V2_test", test), ("vocab", vocab)):
        (folder / f"Diving48_{name}.json").write_text(json.dumps(content))
    return diving48.read_annotation(folder)


@pytest.mark.parametrize("line_end", ["\n", " \r\n\n"])
def test_ssv1_labels_are_positions_among_the_sorted_templates(tmp_path, line_end):
    text = line_end.join(("\ufeff" + RAW_TEMPLATES[0], *RAW_TEMPLATES[1:], ""))
    train = line_end.join(("30 ;" + RAW_TEMPLATES[0], "4; " + RAW_TEMPLATES[1], ""))
    annotation = read_ssv1(tmp_path, train, text)
    assert annotation.class_names == [RAW_TEMPLATES[i] for i in (3, 1, 2, 4, 0)]
    assert (annotation.train, annotation.val) == ({"30": 4, "4": 1}, {"7": 2})


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"], ids=["redistributed", "official"])
def test_ssv2_labels_are_those_of_the_labels_file_without_brackets(tmp_path, prefix):
    pairs = [("7", "Approaching [something]"), ("5", "Moving [something] up")]
    train = [*({"id": clip_id, "template": template} for clip_id, template in pairs), PUTTING]
    annotation = read_ssv2(tmp_path, train, prefix=prefix)
    assert (annotation.train, annotation.val) == ({"7": 1, "5": 0, "4": 2}, {"9": 2})
    assert annotation.class_names == sorted(V2_LABELS, key=V2_LABELS.get)


def test_kinetics_class_orders():
    alphabetical, uniformer = map(kinetics400.class_names, kinetics400.CLASS_ORDERS)
    assert alphabetical == sorted(R3D_18_Weights.KINETICS400_V1.meta["categories"])
    assert sorted(uniformer) == alphabetical and len(set(uniformer)) == 400
    known = {"abseiling": 0, "air drumming": 1, "answering questions": 2, "riding a bike": 267, "zumba": 399}
    assert {name: alphabetical.index(name) for name in known} == known
    known = {"riding a bike": 0, "marching": 1, "dodgeball": 2, "abseiling": 341, "air drumming": 158}
    known |= {"answering questions": 189, "archery": 302, "zumba": 331}
    assert {name: uniformer.index(name) for name in known} == known


@pytest.mark.parametrize("is_cc", ["", ",is_cc"])
def test_kinetics_ids_are_names_of_files_and_a_subset_keeps_the_labels_of_the_whole(tmp_path, is_cc):
    end = ",0" if is_cc else ""
    lines = [f"\ufeff{HEADER}{is_cc}", f'"petting animal (not cat)",-a_B,7,17,train{end}']
    annotation = read_kinetics(tmp_path, "\r\n".join([*lines, f"zumba,c,99999,100009,train{end}"]), order="uniformer")
    labels = {name: annotation.class_names.index(name) for name in ("petting animal (not cat)", "zumba")}
    assert annotation.train == {"-a_B_000007_000017": labels["petting animal (not cat)"], "c_099999_100009": 331}
    assert len(annotation.class_names) == 400


def test_dives_are_named_by_their_four_parts_and_keep_their_lengths(tmp_path):
    annotation = read_dives(tmp_path)
    assert annotation.class_names == ["Back 15som 05Twis FREE", "Back 15som 15Twis FREE"]
    assert (annotation.train, annotation.least_frames["a_1"]) == ({"a_1": 1}, 9)


def read_hmdb(folder, lines="b_1.avi 1\nb #2!.avi 2\nb_3.avi 0\n", count=51):
    for number in range(count):
        text = lines if number == 2 else f"{number}.avi 1\n"
        (folder / f"class {number:02d}_test_split1.txt").write_text(text)
    return hmdb51.read_annotation(folder, 1)


GYM = "A0xAXXysHUo_E_002184_002237_A_0035_0036"


def read_gym(folder, train=f"{GYM} 98\n", categories=""):
    (folder / "gym99_train_element_v1.1.txt").write_text(train)
    (folder / "gym99_val_element.txt").write_text(f"{GYM.replace('_0036', '_0037')} 0\n")
    if categories:
        (folder / "gym99_categories.txt").write_text(categories)
    return finegym.read_annotation(folder, "gym99")


SEGMENTS = [
    ("s1-cam-002", 5, 9, "peelV"), ("s1-cam-002", 7, 7, "cutV"), ("s1-cam-001", 5, 9, "peelV"),
    ("s1-cam-002", 1, 3, "knife"), ("s2-cam-002", 0, 2, "cutV"), ("s3-cam-002", 4, 30, "peelV"),
    ("s3-cam-002", 0, 1, "cutV"),
]  # fmt: skip


def read_cooking(folder, segments=SEGMENTS, train="s1 x\n"):
    (folder / "experimentalSetup").mkdir(exist_ok=True)
    (folder / mpii.ANNOTATION_FILE).touch()
    for name, text in zip(mpii.SPLITS.values(), (train, "s2\n", "s3\n")):
        (folder / "experimentalSetup" / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpii, "read_mat", lambda path: (segments, {"cutV", "peelV", "washV"}))
        return mpii.read_annotation(folder)


def test_cooking_is_split_by_sequences_and_named_by_activities_of_the_map(tmp_path):
    annotation = read_cooking(tmp_path)
    assert annotation.class_names == ["cutV", "peelV"]
    assert annotation.train == {"s1-cam-002_5_peelV": 1, "s1-cam-002_7_cutV": 0}
    assert (annotation.val, annotation.test) == (
        {"s2-cam-002_0_cutV": 0},
        {"s3-cam-002_4_peelV": 1, "s3-cam-002_0_cutV": 0},
    )
    assert annotation.parts["s1-cam-002_5_peelV"] == ("s1-cam-002", 5, 9) and len(annotation.parts) == 5


def test_parts_of_videos_become_clips_of_their_frames(tmp_path):
    (tmp_path / "videos").mkdir()
    for name, num_frames in (("s1", 12), ("s2", 2), ("s3", 3)):
        write_video(tmp_path / f"videos/{name}-cam-002.avi", num_frames, "mpeg4")
    annotation = read_cooking(tmp_path)
    assert prepare(annotation, tmp_path / "videos", tmp_path / "set", 1, {"short_side": 0}) == 1
    lines = ["frames/s1-cam-002_5_peelV 5 1", "frames/s1-cam-002_7_cutV 1 0"]
    assert (tmp_path / "set/train.txt").read_text().splitlines() == lines
    assert (tmp_path / "set/val.txt").read_text() == "frames/s2-cam-002_0_cutV 2 0\n"  # the video ends before
    assert (tmp_path / "set/test.txt").read_text() == "frames/s3-cam-002_0_cutV 2 0\n"
    frames = FrameFolder(str(tmp_path / "set/frames/s1-cam-002_5_peelV"), "{:05d}.jpg", 1, 5).read(range(5))
    assert read_numbers(frames) == [5, 6, 7, 8, 9]
    assert "3 frames, the clip begins at frame 4" in (tmp_path / "set/prepare_report.csv").read_text()


def test_annotations_of_matlab(tmp_path):
    with pytest.raises(UserError, match="which needs|cannot be read|h5py is missing"):
        (tmp_path / "text.mat").write_text("no HDF5")
        mpii.read_mat(tmp_path / "text.mat")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.mat", "w") as file:

        def column(name, texts):
            refs = [file.create_dataset(f"{name}{i}", data=[[ord(c)] for c in x]).ref for i, x in enumerate(texts)]
            file[f"annos/{name}"] = np.array([[ref] for ref in refs], dtype=h5py.ref_dtype)

        column("fileName", [one[0] for one in SEGMENTS])
        column("activity", [one[3] for one in SEGMENTS])
        column("attributeMap", ["cutV", "knife"])
        for name, index in (("startFrame", 1), ("endFrame", 2)):
            file[f"annos/{name}"] = np.array([[float(one[index])] for one in SEGMENTS])
    assert mpii.read_mat(tmp_path / "a.mat") == (SEGMENTS, {"cutV", "knife"})


def test_splits_of_hmdb_and_elements_of_gymnastics(tmp_path):
    annotation = read_hmdb(tmp_path)
    assert annotation.class_names[2] == "class 02" and annotation.val == {"b #2!": 2}
    assert annotation.train["b_1"] == 2 and annotation.train["50"] == 50 and "b_3" not in annotation.train
    categories = "".join(f"Clabel: {label}; set: 1; Glabel: 7; (VT) move {label}; tuck\n" for label in range(99))
    annotation = read_gym(tmp_path, categories=categories)
    assert annotation.train == {GYM: 98} and annotation.class_names[98] == "(VT) move 98; tuck"


KINETICS = f"{HEADER}\nzumba,a,1,11,train\n"
WRONG = [
    (read_ssv1, {"train": f"4;{RAW_TEMPLATES[0]}\n9;Zooming in\n"}, ["v1-train.csv:2", "'Zooming in'", "labels.csv"]),
    (read_ssv1, {"train": "4;Zooming in on something that is not moving"}, ["closest", "that isn't moving\""]),
    (read_ssv1, {"val": "9\n"}, ["v1-validation.csv:1", "'9'", "'id;template'"]),
    (read_ssv1, {"train": "id;template\n"}, ["v1-train.csv:1", "number as id"]),
    (read_ssv1, {"labels": f"{RAW_TEMPLATES[0]}\n" * 2}, ["v1-labels.csv:2", RAW_TEMPLATES[0]]),
    (read_ssv1, {"val": "\n"}, ["v1-validation.csv", "no clips"]),
    (read_ssv1, {"labels": b"caf\xe9\n"}, ["v1-labels.csv", "not UTF-8"]),
    (read_ssv2, {"train": [PUTTING, {"id": "5"}]}, ["train.json: entry 2", "'template'", "'id': '5'"]),
    (read_ssv2, {"train": [PUTTING | {"id": 4}]}, ["entry 1", "'id' (str)"]),
    (read_ssv2, {"train": [PUTTING, PUTTING]}, ["entry 2", "4 is there for the second time"]),
    (read_ssv2, {"train": [PUTTING | {"template": "Putting [something] on [x]"}]}, ["'Putting something on x'"]),
    (read_ssv2, {"labels": {"a": "0", "b": "0"}}, ["labels.json", "found 'b': '0'", "each once"]),
    (read_ssv2, {"labels": {"a": "0", "b": "2"}}, ["labels.json", "found 'b': '2'", "'0' to '1'"]),
    (read_ssv2, {"labels": '{"a": "0", "a": "1"}'}, ["labels.json", "found 'a': '1'"]),
    (read_ssv2, {"labels": {"a [something]": "0"}}, ["labels.json", "brackets"]),
    (read_ssv2, {"labels": ["a"]}, ["labels.json", "expected a dict"]),
    (read_ssv2, {"labels": '{"a": '}, ["labels.json is not valid JSON"]),
    (read_kinetics, {"train": "zumba,a,1,11,train\n"}, ["train.csv", "no clips"]),
    (read_kinetics, {"train": f"{HEADER}\nzumbA,a,1,11,train\n"}, [":2:", "'zumbA'", "closest one there is 'zumba'"]),
    (read_kinetics, {"train": f"{HEADER}\nzumba,a,1.5,11,train\n"}, [":2:", "time_start '1.5'", "whole seconds"]),
    (read_kinetics, {"train": f"{HEADER}\nzumba,a,1\n"}, [":2:", "'time_end' (str)"]),
    (read_kinetics, {"train": "zumba,a,1,11\nzumba,b,1,11\n"}, ["train.csv:2", "'label' (str)"]),
    (read_kinetics, {"train": f"{HEADER}\nzumba,../a,1,11,train\n"}, [":2:", "'../a'"]),
    (read_kinetics, {"train": f"{KINETICS}zumba,a,01,11,train\n"}, [":3:", "a_000001_000011 is there for the second"]),
    (read_dives, {"train": [DIVE | {"label": 2}]}, ["V2_train.json: entry 1", "label 2", "0 to 1"]),
    (read_dives, {"train": [DIVE | {"label": "1"}]}, ["entry 1", "'label' (int)"]),
    (read_dives, {"train": [DIVE | {"vid_name": "a/1"}]}, ["entry 1", "'a/1'"]),
    (read_dives, {"vocab": [VOCAB[0][:3]]}, ["vocab.json", "class 0", "four strings"]),
    (read_hmdb, {"lines": "a.avi 3\n"}, ["class 02_test_split1.txt:1", "'file.avi 0', 1 or 2"]),
    (read_hmdb, {"count": 50}, ["has 50 files *_test_split1.txt, expected those of 51 classes"]),
    (read_gym, {"train": f"{GYM} 99\n"}, ["gym99_train_element_v1.1.txt:1", "a label from 0 to 98"]),
    (read_gym, {"categories": "move\n"}, ["gym99_categories.txt:1", "found 'move', expected 'Clabel: number;"]),
    (read_cooking, {"train": "s9\n"}, ["sequencesTrainAttr.txt:1", "has no segments of s9-cam-002"]),
    (read_dives, {"vocab": [VOCAB[0], VOCAB[0]]}, ["vocab.json", "class 1", "no other class has"]),
]


@pytest.mark.parametrize(("read", "change", "words"), WRONG)
def test_wrong_files_are_described(tmp_path, read, change, words):
    with pytest.raises(UserError) as error:
        read(tmp_path, **change)
    assert [word for word in words if word not in str(error.value)] == []


def test_files_that_are_missing_or_double_and_clips_in_both_splits(tmp_path):
    with pytest.raises(UserError, match="one file something-something-v2-labels.json or labels.json; there is none"):
        ssv2.read_annotation(tmp_path)
    read_ssv2(tmp_path)
    with pytest.raises(UserError, match="there is something-something-v2-labels.json and labels.json"):
        read_ssv2(tmp_path, prefix="something-something-v2-")
    release = invented_releases.make("ssv1", tmp_path)
    read_ssv1(release.annotations, val=f"30;{RAW_TEMPLATES[0]}\n")
    with pytest.raises(UserError, match="1 ids are in both train and val, such as 30"):
        prepare(ssv1.read_annotation(release.annotations), release.media, release.out)
