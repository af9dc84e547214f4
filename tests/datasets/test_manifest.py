import logging

import pytest

from slowfast.datasets.manifest import (
    Record,
    exclude_records,
    label_array,
    read_class_names,
    read_exclusion,
    read_manifest,
)
from slowfast.utils.errors import UserError


def read(tmp_path, text, source="video", num_classes=10, encoding="utf-8", **settings):
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode(encoding))
    return read_manifest(str(path), "/videos", source, num_classes, **settings)


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_each_separator_is_read(tmp_path, separator):
    text = f"a.mp4{separator}3\n\n  \nsub/b.mp4{separator}0\r\n"
    records = read(tmp_path, text)
    assert [(r.path, r.label, r.num_frames) for r in records] == [
        ("/videos/a.mp4", 3, None),
        ("/videos/sub/b.mp4", 0, None),
    ]
    assert [r.origin for r in records] == [f"{tmp_path}/train.csv:1", f"{tmp_path}/train.csv:4"]


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_paths_may_contain_spaces(tmp_path, separator):
    records = read(tmp_path, separator.join(["my clip 1.mp4", "3"]) + "\n" + separator.join(["b c.mp4", "1"]))
    assert [r.path for r in records] == ["/videos/my clip 1.mp4", "/videos/b c.mp4"]
    records = read(tmp_path, separator.join(["my clip", "42", "3"]), source="frames")
    assert [(r.path, r.num_frames, r.label) for r in records] == [("/videos/my clip", 42, 3)]


def test_commas_in_paths_absolute_paths_byte_order_mark_and_missing_last_newline(tmp_path):
    assert [r.path for r in read(tmp_path, "a,b.mp4 3\n")] == ["/videos/a,b.mp4"]
    records = read(tmp_path, "/else/a.mp4,3\nb.mp4,4", encoding="utf-8-sig")
    assert [(r.path, r.label) for r in records] == [("/else/a.mp4", 3), ("/videos/b.mp4", 4)]


@pytest.mark.parametrize(
    ("text", "source", "words"),
    [
        ("a.mp4,1\nb.mp4\n", "video", [":2:", "found 1 fields", "expected 2", "'b.mp4'", "/videos/b.mp4"]),
        ("a.mp4,1\nb.mp4,,2\n", "video", [":2:", "found 3 fields", "expected 2", "'b.mp4,,2'"]),
        ("a.mp4,1\n,2\n", "video", [":2:", "non-empty"]),
        ("a,42,1\n", "video", ["found 3 fields", "expected 2"]),
        ("a 42 1\n", "video", ["found 3 fields", "expected 'path label'", "DATA.SOURCE"]),
        ("a 1\n", "frames", ["found 2 fields", "expected 3", "folder num_frames label"]),
        ("a 42 1\nb 0 1\n", "frames", [":2:", "num_frames 0"]),
        ("a x 1\n", "frames", ["num_frames label 'x 1' must be integers"]),
        ("path,label\na.mp4,1\n", "video", [":1:", "label 'label' must be integers", "header"]),
        ("a.mp4,1\nb.mp4,2.0\n", "video", [":2:", "'2.0'"]),
        ("a.mp4,10\n", "video", [":1:", "label 10", "0 to 9", "MODEL.NUM_CLASSES"]),
        ("a.mp4,-1\n", "video", ["label -1", "0 to 9"]),
        ("\n \n", "video", ["empty"]),
    ],
)
def test_a_wrong_line_is_described(tmp_path, text, source, words):
    with pytest.raises(UserError) as error:
        read(tmp_path, text, source=source)
    for word in ["train.csv", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_several_labels_in_one_field(tmp_path, separator):
    lines = [["a b", "42", "3|1"], ["c", "9", "2"]]
    text = "\n".join(separator.join(line) for line in lines)
    records = read(tmp_path, text, source="frames", multi_label=True)
    assert [(r.path, r.num_frames, r.label) for r in records] == [("/videos/a b", 42, (3, 1)), ("/videos/c", 9, (2,))]
    assert [r.label_text for r in records] == ["3|1", "2"]
    assert label_array(records, 4).tolist() == [[0, 1, 0, 1], [0, 0, 1, 0]]
    with pytest.raises(UserError, match=r"label '3\|1' must be integers.*several labels need DATA.MULTI_LABEL True"):
        read(tmp_path, "a.mp4,3|1\n")
    for label, problem in (("3|10", "label 10 is outside 0 to 9"), ("3|", "must be integers"), ("3|x", "must be")):
        with pytest.raises(UserError, match=problem):
            read(tmp_path, f"a.mp4,{label}\n", multi_label=True)


def test_a_missing_list_names_the_keys(tmp_path):
    with pytest.raises(UserError) as error:
        read_manifest(str(tmp_path / "train.csv"), "", "video", 10)
    for word in (f"{tmp_path}/train.csv", "DATA.PATH_TO_DATA_DIR", "DATA.LABEL_PATH_TEMPLATE", "tools/prepare_data.py"):
        assert word in str(error.value)


def test_equal_labels_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "a.mp4,3\nb.mp4,4\n")
        assert not caplog.records
        read(tmp_path, "a.mp4,3\nb.mp4,3\n")
    assert "label 3" in caplog.text


def test_class_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("riding a bike\nmarching\ndodgeball\n\n")
    assert read_class_names(str(path), 3) == ["riding a bike", "marching", "dodgeball"]
    with pytest.raises(ValueError, match=r"3 class names, MODEL\.NUM_CLASSES is 4"):
        read_class_names(str(path), 4)
    for text, line in (("a\n\nb\n", 2), ("a\nb\na\n", 3)):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"classes\.txt:{line}: class name .* is empty or stands above already"):
            read_class_names(str(path), 3)
    with pytest.raises(UserError, match="CLASS_NAMES_FILE"):
        read_class_names(str(tmp_path / "none.txt"), 3)


def test_exclusion(tmp_path):
    records = [Record(f"/videos/{name}.mp4", 0, None, "", f"{name}.mp4") for name in "abcd"]
    (tmp_path / "bad_items.csv").write_text('path,split,reason\n/videos/a.mp4,train,"broken, twice"\nc.mp4,val,x\n')
    (tmp_path / "plain.txt").write_text("/videos/a.mp4\n\n c.mp4 \nz,1.mp4\n")
    for name, unmatched in (("bad_items.csv", []), ("plain.txt", ["z,1.mp4"])):
        paths = read_exclusion(str(tmp_path / name))
        assert exclude_records(records, paths) == (records[1::2], unmatched)
    with pytest.raises(UserError, match=r"none\.csv does not exist: DATA\.EXCLUDE_FILE"):
        read_exclusion(str(tmp_path / "none.csv"))
