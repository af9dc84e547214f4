"""The data set that a list file describes: Something-Something, Kinetics, Diving48, still images or one's own."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Collection
from typing import Any

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.transform import build_test_transform, build_train_transform
from slowfast.datasets.decoder import BACKENDS, FrameFolder, FrameReader, ImageFile, open_video, resolve_backend
from slowfast.datasets.decoder.zip import PackedOpener
from slowfast.datasets.exclusion import exclude_records, read_exclusion
from slowfast.datasets.manifest import FIELDS, SEPARATORS, Record, read_class_names, read_manifest
from slowfast.datasets.sampling import DenseSampler, FrameSampler, SparseSampler
from slowfast.datasets.video_dataset import EvalVideos, TrainVideos, VideoDataset

logger = logging.getLogger(__name__)

DEFAULT_CLASS_NAMES_FILE = "classes.txt"


class VideoList:
    """Videos, folders of frames or stills named by ``{train,val,test}`` list files, as the keys of ``DATA`` say."""

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> VideoDataset:
        """Build the data set of a split.

        ``train`` has random clips, ``val`` the central crop of the central clip, ``test``
        TEST.NUM_ENSEMBLE_VIEWS clips x TEST.NUM_SPATIAL_CROPS crops.

        Raises:
            FileNotFoundError: the list or class name file does not exist.
            ModuleNotFoundError: the decoder that is asked for is not installed.
            ValueError: a wrong value in the configuration or a list.
        """
        num_classes = _at_least(1, cfg.MODEL.NUM_CLASSES, "MODEL.NUM_CLASSES")
        records = load_records(cfg, split, num_classes)
        if cfg.DATA.EXCLUDE_FILE:
            records = leave_out(cfg, split, records, functools.partial(load_records, cfg, num_classes=num_classes))
        open_reader = build_reader_factory(cfg)
        if cfg.DATA.PACKED:
            open_reader.check(records)
        return build_videos(cfg, split, records, open_reader, load_class_names(cfg))


def build_videos(
    cfg: CfgNode,
    split: str,
    records: list[Record],
    open_reader: Callable[[Record], FrameReader],
    class_names: list[str] | None,
) -> VideoDataset:
    """Return the data set of a split, given its records and how to open them: sampling, transform and views by ``cfg``.

    Raises:
        ValueError: a wrong value in the configuration.
    """
    parts = (records, build_sampler(cfg), open_reader)
    if split == "train":
        num_copies = _at_least(1, cfg.AUG.NUM_SAMPLE, "AUG.NUM_SAMPLE")
        return TrainVideos(*parts, build_train_transform(cfg), num_copies, cfg.RNG_SEED, class_names)
    num_clips, num_crops = 1, 1
    if split == "test":
        num_clips = _at_least(1, cfg.TEST.NUM_ENSEMBLE_VIEWS, "TEST.NUM_ENSEMBLE_VIEWS")
        num_crops = _at_least(1, cfg.TEST.NUM_SPATIAL_CROPS, "TEST.NUM_SPATIAL_CROPS")
    return EvalVideos(*parts, build_test_transform(cfg, num_crops), num_clips, num_crops, class_names)


def load_records(cfg: CfgNode, split: str, num_classes: int) -> list[Record]:
    """Return the records of a split; a missing list is an error that says where the data set comes from."""
    path = list_path(cfg, split)
    source = _one_of(FIELDS, cfg.DATA.SOURCE, "DATA.SOURCE")
    separators = ("auto", *SEPARATORS)
    separator = _one_of(separators, cfg.DATA.PATH_LABEL_SEPARATOR, "DATA.PATH_LABEL_SEPARATOR")
    try:
        return read_manifest(path, path_prefix(cfg), source, separator, num_classes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {cfg.DATA.MISSING_HINT}".rstrip()) from error


def leave_out(cfg: CfgNode, split: str, records: list[Record], load: Callable[[str], list[Record]]) -> list[Record]:
    """Return the records of a split that DATA.EXCLUDE_FILE does not name; the log says how many it names.

    Args:
        cfg: the configuration.
        split: of the records.
        records: of the split.
        load: returns the records of another split, to tell paths of theirs from those that match nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is malformed, or nothing would be left.
    """
    path = cfg.DATA.EXCLUDE_FILE
    prefix = path_prefix(cfg)
    entries = read_exclusion(path)
    kept, unmatched = exclude_records(records, entries, prefix)
    logger.info("%s: leaves out %d of %d %s videos", path, len(records) - len(kept), len(records), split)
    if not kept:
        raise ValueError(f"{path} (DATA.EXCLUDE_FILE) names all {len(records)} videos of {split}: none is left")
    for other in ("train", "val", "test"):
        if unmatched and other != split:
            # A list that cannot be read is an error when its split is used, not here.
            with contextlib.suppress(FileNotFoundError, ValueError):
                unmatched = exclude_records(load(other), unmatched, prefix)[1]
    if unmatched:
        logger.warning(
            "%s: %d of its %d paths match no video of any list, such as %r", path, len(unmatched), len(entries),
            unmatched[0],
        )  # fmt: skip
    return kept


def path_prefix(cfg: CfgNode) -> str:
    """Return the folder or URL to which the paths in the lists are relative."""
    return cfg.DATA.PACKED or cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR


def list_path(cfg: CfgNode, split: str) -> str:
    """Return the path of a split's list file; ``test`` without a list of its own is ``val``."""
    if not cfg.DATA.PATH_TO_DATA_DIR:
        raise ValueError("DATA.PATH_TO_DATA_DIR is empty: set it to the folder that holds the list files")
    template = cfg.DATA.LABEL_PATH_TEMPLATE
    if "{}" not in template:
        raise ValueError(f"DATA.LABEL_PATH_TEMPLATE is {template!r}, it needs a {{}} for train | val | test")
    path = os.path.join(cfg.DATA.PATH_TO_DATA_DIR, template.format(split))
    if split == "test" and not os.path.isfile(path):
        return os.path.join(cfg.DATA.PATH_TO_DATA_DIR, template.format("val"))
    return path


def load_class_names(cfg: CfgNode) -> list[str] | None:
    """Return the class names of DATA.CLASS_NAMES_FILE, or of classes.txt beside the lists if it exists."""
    path = cfg.DATA.CLASS_NAMES_FILE
    if not path:
        path = os.path.join(cfg.DATA.PATH_TO_DATA_DIR, DEFAULT_CLASS_NAMES_FILE)
        if not os.path.isfile(path):
            return None
    return read_class_names(path, cfg.MODEL.NUM_CLASSES)


def build_sampler(cfg: CfgNode) -> FrameSampler:
    """Return the frame sampler that DATA.FRAME_SAMPLING names."""
    num_frames = _at_least(1, cfg.DATA.NUM_FRAMES, "DATA.NUM_FRAMES")
    samplers = {
        "sparse": lambda: SparseSampler(num_frames),
        "dense": lambda: DenseSampler(num_frames, _at_least(1, cfg.DATA.SAMPLING_RATE, "DATA.SAMPLING_RATE")),
    }
    return samplers[_one_of(samplers, cfg.DATA.FRAME_SAMPLING, "DATA.FRAME_SAMPLING")]()


def build_reader_factory(cfg: CfgNode) -> Callable[[Record], FrameReader]:
    """Return the function that opens the frames of a record, by DATA.SOURCE and DATA.PACKED."""
    source = _one_of(FIELDS, cfg.DATA.SOURCE, "DATA.SOURCE")
    open_image = build_image_opener(cfg) if source == "image" else None
    backend = _one_of(BACKENDS, cfg.DATA.DECODING_BACKEND, "DATA.DECODING_BACKEND")
    if source == "video":
        resolve_backend(backend)  # a decoder that is not installed is an error now, not one per video
    if cfg.DATA.PACKED:
        if cfg.DATA.PATH_PREFIX:
            raise ValueError(
                f"DATA.PATH_PREFIX is {cfg.DATA.PATH_PREFIX!r} and DATA.PACKED {cfg.DATA.PACKED!r}; allowed: one of "
                "them, since the lists of a pack name its items"
            )
        return PackedOpener(cfg.DATA.PACKED, source, backend)
    if source == "image":
        return open_image
    if source == "video":
        return functools.partial(_open_video, backend=backend)
    template = cfg.DATA.IMAGE_TEMPLATE
    try:
        numbers_show = template.format(1) != template.format(2)
    except (ValueError, IndexError, KeyError):
        numbers_show = False
    if not numbers_show:
        raise ValueError(f"DATA.IMAGE_TEMPLATE is {template!r}, it needs one place for a number, as in '{{:05d}}.jpg'")
    return functools.partial(_open_folder, template=template, first_image=cfg.DATA.FIRST_IMAGE)


def build_image_opener(cfg: CfgNode) -> Callable[[Record], FrameReader]:
    """Return the function that opens a still image as a video of one frame.

    Raises:
        ValueError: settings that ask for more than that frame.
    """
    for key, value in (
        ("DATA.NUM_FRAMES", cfg.DATA.NUM_FRAMES),
        ("TEST.NUM_ENSEMBLE_VIEWS", cfg.TEST.NUM_ENSEMBLE_VIEWS),
    ):
        if value != 1:
            raise ValueError(f"{key} is {value}, allowed for still images: 1, they have one frame only")
    return _open_image


# Module-level functions, so that worker processes that are not forked can receive them.
def _open_video(record: Record, backend: str) -> FrameReader:
    return open_video(record.path, backend)


def _open_folder(record: Record, template: str, first_image: int) -> FrameReader:
    return FrameFolder(record.path, template, first_image, record.num_frames)


def _open_image(record: Record) -> FrameReader:
    return ImageFile(record.path)


def _one_of(allowed: Collection[str], value: str, key: str) -> str:
    if value not in allowed:
        raise ValueError(f"{key} is {value!r}, allowed: {' | '.join(repr(name) for name in allowed)}")
    return value


def _at_least(minimum: int, value: Any, key: str) -> Any:
    if value < minimum:
        raise ValueError(f"{key} is {value}, it must be at least {minimum}")
    return value
