"""Still images: folders of classes and lists, files of every kind, and ImageNet's evaluation to the pixel."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from slowfast.config.defaults import get_cfg
from slowfast.datasets.augment.on_device import build_normalize
from slowfast.datasets.augment.transform import build_test_transform
from slowfast.datasets.build import build_dataset
from slowfast.datasets.decoder import DecodeError, ImageFile
from slowfast.datasets.video_dataset import BadVideo
from slowfast.utils.errors import UserError

CLASSES = ("apple", "pear", "quince")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smooth_image(seed, height=40, width=56):
    """A colourful image that JPEG hardly changes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path):
    """Three classes with four training images and three validation images each, of different sizes and endings."""
    for split, count in (("train", 4), ("val", 3)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                ending = ("jpg", "JPEG", "png", "webp")[index]
                image = smooth_image(100 * label + index, 40 + 9 * index, 56 - 7 * index)
                image.save(folder / f"{index}.{ending}")
    return tmp_path


@pytest.fixture
def cfg(root):
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.DATASET", "ImageFolder", "DATA.PATH_TO_DATA_DIR", str(root), "DATA.NUM_FRAMES", 1])
    cfg.merge_from_list(["DATA.TRAIN_CROP_SIZE", 24, "DATA.TEST_CROP_SIZE", 24, "MODEL.NUM_CLASSES", 3])
    cfg.merge_from_list(["TRAIN.BATCH_SIZE", 6, "TEST.BATCH_SIZE", 4, "DATA_LOADER.NUM_WORKERS", 0])
    return cfg


def test_labels_are_the_ranks_of_the_folders(cfg, root):
    train, val = build_dataset(cfg, "train"), build_dataset(cfg, "val")
    assert train.class_names == val.class_names == list(CLASSES)
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    names = ("0.jpg", "1.JPEG", "2.png")
    assert [record.path for record in val.records[:3]] == [str(root / "val" / "apple" / name) for name in names]
    assert build_dataset(cfg, "test").records == val.records
    (root / "val").rename(root / "test")
    assert build_dataset(cfg, "test").num_videos == 9


@pytest.mark.parametrize("sampling", ["sparse", "dense"])
def test_lists_of_images_are_the_same_data(cfg, root, sampling):
    by_folder = build_dataset(cfg, "val")
    lines = [f"{record.path.removeprefix(f'{root}/')} {record.label}\n" for record in by_folder.records]
    (root / "val.txt").write_text("".join(lines))
    cfg.merge_from_list(["DATA.DATASET", "VideoList", "DATA.SOURCE", "image", "DATA.LABEL_PATH_TEMPLATE", "{}.txt"])
    cfg.DATA.FRAME_SAMPLING = sampling
    by_list = build_dataset(cfg, "val")
    assert by_list.labels.tolist() == by_folder.labels.tolist()
    for first, second in zip(by_list, by_folder):
        assert torch.equal(first.clips, second.clips)


def empty(split):
    for file in (split / "pear").iterdir():
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("split", "damage", "message"),
    [
        ("train", empty, r"class folder .*train/pear has no images \(4 other entries\).*\.jpg"),
        ("train", lambda split: shutil.rmtree(split / "pear"), r"train has 2 class folders, MODEL\.NUM_CLASSES is 3"),
        ("val", lambda split: (split / "pear").rename(split / "peach"), r"different class folders: 2 .*'peach'"),
        ("val", shutil.rmtree, r"val does not exist or has no class folders.*DATA\.PATH_TO_DATA_DIR.*prepare_data\.py"),
    ],
)
def test_wrong_folders_are_named(cfg, root, split, damage, message):
    damage(root / split)
    with pytest.raises(UserError, match=message):
        build_dataset(cfg, split)


@pytest.mark.parametrize("dataset", ["ImageFolder", "VideoList"])
@pytest.mark.parametrize("key", ["DATA.NUM_FRAMES", "TEST.NUM_ENSEMBLE_VIEWS"])
def test_an_image_has_one_frame(cfg, root, dataset, key):
    (root / "val.csv").write_text("val/apple/0.jpg,0\n")
    cfg.merge_from_list(["DATA.DATASET", dataset, "DATA.SOURCE", "image", key, 2])
    with pytest.raises(ValueError, match=rf"{key} is 2, allowed for still images: 1"):
        build_dataset(cfg, "val")


def test_other_entries_are_left_out_and_reported(cfg, root, caplog):
    (root / "val" / ".cache").mkdir()
    (root / "val" / "apple" / "readme.txt").touch()
    assert build_dataset(cfg, "val").num_videos == 9
    assert "left out 1 entries that are no images, such as" in caplog.text and "readme.txt" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_undecodable_images_are_reported_in_their_place(cfg, root, content):
    path = root / "val" / "pear" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    dataset = build_dataset(cfg, "val")
    item = dataset[4]
    assert isinstance(item, BadVideo) and item.video_index == 4 and item.path == str(path)
    assert "image file" in item.reason and "pear" in item.reason
    assert sum(isinstance(dataset[i], BadVideo) for i in range(len(dataset))) == 1
    path.unlink()
    assert "No such file" in dataset[4].reason


def read(path):
    return ImageFile(str(path)).read([0])[0]


def test_every_kind_of_image_becomes_rgb(tmp_path):
    rgb = smooth_image(0)
    original = np.asarray(rgb).astype(int)
    grey = np.asarray(rgb.convert("L")).astype(int)[..., None]
    rgb.save(tmp_path / "rgb.png")
    rgb.save(tmp_path / "png_inside.JPEG", format="PNG")  # ImageNet has one of these
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)  # and some of these
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    for name, expected, tolerance in (
        ("rgb.png", original, 0),
        ("png_inside.JPEG", original, 0),
        ("cmyk.jpg", original, 12),
        ("alpha.png", original, 0),
        ("palette.png", original, 40),
        ("grey.png", grey, 0),
        ("grey16.png", grey, 0),
    ):
        image = read(tmp_path / name)
        assert image.shape == (40, 56, 3) and image.dtype == np.uint8
        assert np.abs(image - expected).max() <= tolerance, name


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 3.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DecodeError, match=r"float\.tif.*32-bit numbers \(mode F\)"):
        read(tmp_path / "float.tif")


# The rest beside the crop is even or odd (modulo 4: 1 and 3, where roundings differ), short sides below and above 256.
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 377), (120, 90), (256, 259)])
def test_bicubic_test_transform_is_the_one_of_imagenet_evaluations(height, width):
    image = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.TEST_SHORT_SIDE", 256, "DATA.TEST_INTERPOLATION", "bicubic"])
    cfg.merge_from_list(["DATA.MEAN", list(MEAN), "DATA.STD", list(STD)])
    ours = build_normalize(cfg)(build_test_transform(cfg, 1)(np.asarray(image)[None]))[0, :, 0]

    theirs = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    torch.testing.assert_close(ours, theirs(image), rtol=0, atol=2e-6)
