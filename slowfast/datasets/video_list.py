"""Videos named by list files: Something-Something, Kinetics, Diving48, still images or one's own."""

import os
import re
from collections.abc import Sequence

from slowfast.config.parser import CfgNode
from slowfast.datasets.decoder import FrameFolder, FrameReader, ImageFile, import_decord, open_video
from slowfast.datasets.decoder.zip import PackedOpener
from slowfast.datasets.image_folder import check_still_settings
from slowfast.datasets.manifest import Record, find_missing, read_class_names, read_manifest
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path


class VideoList:
    """Videos, folders of frames or stills that one list file names."""

    def __init__(self, records: Sequence[Record], class_names: list[str] | None, data: CfgNode) -> None:
        self.records = records
        self.class_names = class_names
        self._source, self._backend = data.SOURCE, data.DECODING_BACKEND
        self._template, self._first_image = data.IMAGE_TEMPLATE, data.FIRST_IMAGE
        self._pack = PackedOpener(full_path(data.PACKED), data.SOURCE, data.DECODING_BACKEND) if data.PACKED else None

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> "VideoList":
        """Read the list of a split, and the class names of DATA.CLASS_NAMES_FILE or of a classes.txt beside it."""
        check_settings(cfg)
        prefix = full_path(cfg.DATA.PACKED or cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR)
        kind = (cfg.DATA.SOURCE, cfg.MODEL.NUM_CLASSES, cfg.DATA.MULTI_LABEL)
        records = read_manifest(list_path(cfg, split), prefix, *kind)
        names = full_path(cfg.DATA.CLASS_NAMES_FILE or os.path.join(cfg.DATA.PATH_TO_DATA_DIR, "classes.txt"))
        names = names if cfg.DATA.CLASS_NAMES_FILE or os.path.isfile(names) else None
        videos = cls(records, names and read_class_names(names, cfg.MODEL.NUM_CLASSES), cfg.DATA)
        if videos._pack:
            videos._pack.check(records)
        return videos

    def find_missing(self, records: Sequence[Record]) -> list[str]:
        """Return the files that do not exist, of a folder of frames the last one, and where they are listed."""
        if self._pack:
            return []  # from_config has asked its index
        paths = [record.path for record in records]
        if self._source == "frames":
            last = [self._template.format(self._first_image + record.num_frames - 1) for record in records]
            paths = list(map(os.path.join, paths, last))
        return [f"{paths[i]} ({records[i].origin})" for i in find_missing(paths)]

    def open(self, record: Record) -> FrameReader:
        """Open the frames of a record."""
        if self._pack:
            return self._pack(record)
        if self._source == "image":
            return ImageFile(record.path)
        if self._source == "video":
            return open_video(record.path, self._backend)
        return FrameFolder(record.path, self._template, self._first_image, record.num_frames)


def list_path(cfg: CfgNode, split: str) -> str:
    """Return the path of a split's list file; ``test`` without a list of its own is ``val``."""
    folder, template = full_path(cfg.DATA.PATH_TO_DATA_DIR), cfg.DATA.LABEL_PATH_TEMPLATE
    path = os.path.join(folder, template.format(split))
    if split == "test" and not os.path.isfile(path):
        return os.path.join(folder, template.format("val"))
    return path


def check_settings(cfg: CfgNode) -> None:
    """Refuse settings of DATA that do not go together, or that would fail with every video."""
    data, template = cfg.DATA, cfg.DATA.IMAGE_TEMPLATE
    if data.SOURCE == "image":
        check_still_settings(cfg)
    if data.SOURCE == "video" and data.DECODING_BACKEND == "decord":
        import_decord()
    if data.PACKED and data.PATH_PREFIX:
        raise UserError(f"DATA.PATH_PREFIX is {data.PATH_PREFIX!r} and DATA.PACKED {data.PACKED!r}; allowed: only one")
    if not data.PATH_TO_DATA_DIR and not os.path.isabs(data.LABEL_PATH_TEMPLATE):
        raise UserError('DATA.PATH_TO_DATA_DIR is "": set it to the folder with your lists (docs/data.md)')
    if not re.fullmatch(r"[^{}]*\{\}[^{}]*", data.LABEL_PATH_TEMPLATE):
        raise UserError(f"DATA.LABEL_PATH_TEMPLATE is {data.LABEL_PATH_TEMPLATE!r}, it needs one {{}} for the split")
    if data.SOURCE == "frames" and not re.fullmatch(r"[^{}]*\{(:0?\d*d?)?\}[^{}]*", template):
        raise UserError(f"DATA.IMAGE_TEMPLATE is {template!r}, it needs one place for a number, as in '{{:05d}}.jpg'")
