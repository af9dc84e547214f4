"""Still images in one folder per class, as ImageNet is kept: ``ROOT/{train,val}/CLASS/*.jpg``."""

import logging
import os
from collections.abc import Sequence

from slowfast.config.parser import CfgNode
from slowfast.datasets.decoder import FrameReader, ImageFile
from slowfast.datasets.manifest import Record, read_class_names
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path

logger = logging.getLogger(__name__)

# In lower case; the content of a file need not agree with its ending.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


class ImageFolder:
    """Images of one split, each a video of one frame; a label is the rank of its folder's name."""

    def __init__(self, records: Sequence[Record], class_names: list[str]) -> None:
        self.records = records
        self.class_names = class_names

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> "ImageFolder":
        """List the images of a split below DATA.PATH_TO_DATA_DIR; ``test`` without a folder of its own is ``val``.

        Class names are those of the folders, or of DATA.CLASS_NAMES_FILE if it is set.
        """
        if not cfg.DATA.PATH_TO_DATA_DIR:
            raise UserError('DATA.PATH_TO_DATA_DIR is "": set it to the folder of the splits (docs/data.md)')
        root = full_path(cfg.DATA.PATH_TO_DATA_DIR)
        if cfg.DATA.PACKED:
            raise UserError(
                f"DATA.PACKED is {cfg.DATA.PACKED!r}, which ImageFolder does not read; set DATA.DATASET to VideoList "
                "and the other keys that `python tools/prepare_data.py pack` printed"
            )
        if cfg.DATA.MULTI_LABEL:
            raise UserError("DATA.MULTI_LABEL is True, but a file in ImageFolder has one class, that of its folder")
        check_still_settings(cfg)
        folder = os.path.join(root, split)
        if split == "test" and not os.path.isdir(folder):
            folder = os.path.join(root, "val")
        names = list_classes(folder)
        if len(names) != (cfg.MODEL.NUM_CLASSES or len(names)):
            raise UserError(f"{folder} has {len(names)} class folders, MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}")
        train = os.path.join(root, "train")
        # Labels are ranks: another class folder in between would shift all that follow.
        if os.path.isdir(train) and (difference := sorted({*names} ^ {*list_classes(train)})):
            raise UserError(
                f"{folder} and {train} have different class folders: {len(difference)} are in one of them only, such "
                f"as {difference[0]!r}"
            )
        records = list_images(folder, names)
        if cfg.DATA.CLASS_NAMES_FILE:
            names = read_class_names(full_path(cfg.DATA.CLASS_NAMES_FILE), len(names))
        return cls(records, names)

    def open(self, record: Record) -> FrameReader:
        """Open an image."""
        return ImageFile(record.path)


def check_still_settings(cfg: CfgNode) -> None:
    """Refuse settings that ask for more than the one frame of a still image."""
    values = {"DATA.NUM_FRAMES": cfg.DATA.NUM_FRAMES, "TEST.NUM_ENSEMBLE_VIEWS": cfg.TEST.NUM_ENSEMBLE_VIEWS}
    for name, value in {**values, "TRAIN.EVAL_VIEWS[0]": cfg.TRAIN.EVAL_VIEWS[0]}.items():
        if value != 1:
            raise UserError(f"{name} is {value}, allowed for still images: 1, they have one frame only")


def list_classes(folder: str) -> list[str]:
    """Return the sorted names of the class folders in ``folder``; hidden ones do not count."""
    names = []
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(
            f"{folder} does not exist or has no class folders: set DATA.PATH_TO_DATA_DIR to a folder that has train "
            "and val with one folder of images per class (docs/data.md; tools/prepare_data.py prepares other data sets)"
        )
    return names


def list_images(folder: str, names: Sequence[str]) -> list[Record]:
    """Return the images, by their endings, of class folders, sorted by class and file name; no file is opened."""
    records, others = [], []
    split = os.path.basename(folder)
    for label, name in enumerate(names):
        class_folder = os.path.join(folder, name)
        files = [file for file in os.listdir(class_folder) if file[0] != "."]
        images = sorted(file for file in files if file.lower().endswith(IMAGE_ENDINGS))
        if not images:
            raise UserError(
                f"class folder {class_folder} has no images ({len(files)} other entries); allowed endings: "
                f"{' '.join(IMAGE_ENDINGS)}"
            )
        others += sorted({*files} - {*images})
        origin = f"{folder}:{name}"
        for image in images:
            path = os.path.join(class_folder, image)
            records.append(Record(path, label, None, origin, os.path.join(split, name, image)))
    if others:
        logger.warning("%s: left out %d entries that are no images, such as %s", folder, len(others), others[0])
    return records
