"""Still images in one folder per class, as ImageNet is kept: ``ROOT/{train,val}/CLASS/*.jpg``."""

from __future__ import annotations

import logging
import os

from slowfast.config.parser import CfgNode
from slowfast.datasets.manifest import Record, read_class_names
from slowfast.datasets.video_dataset import VideoDataset
from slowfast.datasets.video_list import build_image_opener, build_videos, leave_out

logger = logging.getLogger(__name__)

# In lower case; the content of a file need not agree with its ending.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


class ImageFolder:
    """The images below DATA.PATH_TO_DATA_DIR, each a video of one frame; a label is the rank of its folder's name."""

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> VideoDataset:
        """Build the data set of a split; ``test`` without a folder of its own is ``val``.

        Class names are those of the folders, or of DATA.CLASS_NAMES_FILE if it is set.

        Raises:
            FileNotFoundError: the folder of the split or the class name file does not exist.
            ValueError: a class without images, a wrong number of classes, classes that differ from those of training,
                or a wrong value in the configuration.
        """
        root = cfg.DATA.PATH_TO_DATA_DIR
        if not root:
            raise ValueError("DATA.PATH_TO_DATA_DIR is empty: set it to the folder that holds train and val")
        if cfg.DATA.PACKED:
            raise ValueError(
                f"DATA.PACKED is {cfg.DATA.PACKED!r}, which ImageFolder does not read; set DATA.DATASET to VideoList "
                "and the other keys that `python tools/prepare_data.py pack` printed"
            )
        open_reader = build_image_opener(cfg)
        folder = os.path.join(root, split)
        if split == "test" and not os.path.isdir(folder):
            folder = os.path.join(root, "val")
        try:
            names = list_classes(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. {cfg.DATA.MISSING_HINT}".rstrip()) from error
        if len(names) != cfg.MODEL.NUM_CLASSES:
            raise ValueError(f"{folder} has {len(names)} class folders, MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}")
        if split != "train" and os.path.isdir(os.path.join(root, "train")):
            _check_same_classes(folder, names, os.path.join(root, "train"))
        records = list_images(folder, names)
        if cfg.DATA.EXCLUDE_FILE:
            records = leave_out(cfg, split, records, lambda other: list_images(os.path.join(root, other), names))
        if cfg.DATA.CLASS_NAMES_FILE:
            names = read_class_names(cfg.DATA.CLASS_NAMES_FILE, cfg.MODEL.NUM_CLASSES)
        return build_videos(cfg, split, records, open_reader, names)


def list_classes(folder: str) -> list[str]:
    """Return the sorted names of the class folders in ``folder``; hidden ones do not count.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no folders.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"image folder {folder} does not exist: DATA.PATH_TO_DATA_DIR needs folders train and val with one folder "
            "of images per class"
        )
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(
            f"{folder} has no class folders (it has {len(os.listdir(folder))} other entries); expected "
            f"{os.path.join(folder, 'CLASS', 'IMAGE.jpg')}"
        )
    return names


def list_images(folder: str, names: list[str]) -> list[Record]:
    """Return the images of the class folders ``names``, sorted by class and file name; no file is opened.

    Files that are no images by their ending are left out, which the log says.

    Raises:
        ValueError: a class folder without images.
    """
    records, others = [], []
    for label, name in enumerate(names):
        class_folder = os.path.join(folder, name)
        files = sorted(os.listdir(class_folder))
        images = [file for file in files if file.lower().endswith(IMAGE_ENDINGS)]
        if not images:
            raise ValueError(
                f"class folder {class_folder} has no images ({len(files)} other entries); allowed endings: "
                f"{' '.join(IMAGE_ENDINGS)}"
            )
        if len(images) < len(files):
            others += [os.path.join(class_folder, file) for file in files if not file.lower().endswith(IMAGE_ENDINGS)]
        origin = f"{folder}:{name}"
        records += [Record(os.path.join(class_folder, image), label, None, origin) for image in images]
    if others:
        logger.warning("%s: left out %d entries that are no images, such as %s", folder, len(others), others[0])
    return records


def _check_same_classes(folder: str, names: list[str], train_folder: str) -> None:
    """Labels are ranks: another class folder in between would shift all that follow."""
    difference = sorted(set(names).symmetric_difference(list_classes(train_folder)))
    if difference:
        raise ValueError(
            f"{folder} and {train_folder} have different class folders ({len(difference)} are in one of them only, "
            f"such as {difference[0]!r})"
        )
