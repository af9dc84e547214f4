"""Videos named by list files: Something-Something, Kinetics, Diving48, still images or one's own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence

from slowfast.config.parser import CfgNode
from slowfast.datasets.decoder import FrameFolder, FrameReader, ImageFile, import_decord, open_video
from slowfast.datasets.decoder.zip import PackedOpener
from slowfast.datasets.image_folder import check_still_settings
from slowfast.datasets.manifest import Record, read_class_names, read_manifest
from slowfast.utils.errors import UserError

DEFAULT_CLASS_NAMES_FILE = "classes.txt"


class VideoList:
    """Videos, folders of frames or stills that one list file names.

    Args:
        records: the lines of the list.
        opener: opens the frames of a record.
        class_names: in label order, or None.
    """

    def __init__(
        self, records: Sequence[Record], opener: Callable[[Record], FrameReader], class_names: list[str] | None
    ) -> None:
        self.records = records
        self.class_names = class_names
        self._opener = opener

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> VideoList:
        """Read the list of a split, as the keys of DATA say."""
        records = read_manifest(list_path(cfg, split), path_prefix(cfg), cfg.DATA.SOURCE, cfg.MODEL.NUM_CLASSES)
        opener = build_opener(cfg)
        if cfg.DATA.PACKED:
            opener.check(records)
        return cls(records, opener, load_class_names(cfg))

    def open(self, record: Record) -> FrameReader:
        """Open the frames of a record."""
        return self._opener(record)


def path_prefix(cfg: CfgNode) -> str:
    """Return the folder or URL to which the paths in lists are relative."""
    return cfg.DATA.PACKED or cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR


def list_path(cfg: CfgNode, split: str) -> str:
    """Return the path of a split's list file; ``test`` without a list of its own is ``val``."""
    folder, template = cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.LABEL_PATH_TEMPLATE
    if not folder:
        raise UserError("DATA.PATH_TO_DATA_DIR is empty: set it to the folder that holds the list files")
    if "{}" not in template:
        raise UserError(f"DATA.LABEL_PATH_TEMPLATE is {template!r}, it needs a {{}} for train | val | test")
    path = os.path.join(folder, template.format(split))
    if split == "test" and not os.path.isfile(path):
        return os.path.join(folder, template.format("val"))
    return path


def load_class_names(cfg: CfgNode) -> list[str] | None:
    """Return the class names of DATA.CLASS_NAMES_FILE, or of classes.txt beside the lists if it exists."""
    path = cfg.DATA.CLASS_NAMES_FILE
    if not path:
        path = os.path.join(cfg.DATA.PATH_TO_DATA_DIR, DEFAULT_CLASS_NAMES_FILE)
        if not os.path.isfile(path):
            return None
    return read_class_names(path, cfg.MODEL.NUM_CLASSES)


def build_opener(cfg: CfgNode) -> Callable[[Record], FrameReader]:
    """Build the function that opens the frames of a record, by DATA.SOURCE and DATA.PACKED."""
    source, backend = cfg.DATA.SOURCE, cfg.DATA.DECODING_BACKEND
    if source == "image":
        check_still_settings(cfg)
    if source == "video" and backend == "decord":
        import_decord()  # a decoder that is not installed is an error now, not one per video
    if cfg.DATA.PACKED:
        if cfg.DATA.PATH_PREFIX:
            raise UserError(
                f"DATA.PATH_PREFIX is {cfg.DATA.PATH_PREFIX!r} and DATA.PACKED {cfg.DATA.PACKED!r}; allowed: one of "
                "them, since the lists of a pack name its items"
            )
        return PackedOpener(cfg.DATA.PACKED, source, backend)
    if source == "image":
        return _open_image
    if source == "video":
        return functools.partial(_open_video, backend=backend)
    template = cfg.DATA.IMAGE_TEMPLATE
    try:
        numbers_show = template.format(1) != template.format(2)
    except (ValueError, IndexError, KeyError):
        numbers_show = False
    if not numbers_show:
        raise UserError(f"DATA.IMAGE_TEMPLATE is {template!r}, it needs one place for a number, as in '{{:05d}}.jpg'")
    return functools.partial(_open_folder, template=template, first_image=cfg.DATA.FIRST_IMAGE)


# Module-level functions, so that worker processes that are not forked can receive them.
def _open_video(record: Record, backend: str) -> FrameReader:
    return open_video(record.path, backend)


def _open_folder(record: Record, template: str, first_image: int) -> FrameReader:
    return FrameFolder(record.path, template, first_image, record.num_frames)


def _open_image(record: Record) -> FrameReader:
    return ImageFile(record.path)
