"""Decode every item of a data set and look at its labels before a run depends on them."""

from __future__ import annotations

import csv
import itertools
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from slowfast.config.parser import CfgNode
from slowfast.datasets.build import SPLITS, build_dataset
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.exclusion import BAD_ITEMS_HEADER, exclude_records, read_exclusion
from slowfast.datasets.manifest import Record
from slowfast.datasets.video_dataset import VideoDataset
from slowfast.datasets.video_list import path_prefix
from slowfast.datasets.whole_video import iterate_chunks
from slowfast.prepare import kinetics400
from slowfast.prepare.isolation import Lost, map_isolated
from slowfast.utils.files import replacing
from slowfast.utils.logging import progress_bar

logger = logging.getLogger(__name__)

BAD_ITEMS_FILE = "bad_items.csv"


@dataclass(frozen=True, slots=True)
class CheckedSplit:
    """Counts of one split.

    Attributes:
        name: of the split.
        num_videos: in its list.
        num_bad: that cannot be read as the list says.
        num_excluded: of the bad ones, that DATA.EXCLUDE_FILE names already.
    """

    name: str
    num_videos: int
    num_bad: int
    num_excluded: int


def check_data(
    cfg: CfgNode,
    out_path: str | None = None,
    splits: Sequence[str] = SPLITS,
    workers: int = 1,
    timeout_sec: float = math.inf,
) -> list[CheckedSplit]:
    """Read every item of the splits as training would, write the bad ones to a file, and warn about labels and counts.

    The data sets are those of training and testing, with their readers (of videos the strictest, unless
    DATA.DECODING_BACKEND names one). Random clips can ask for any frame, therefore
    all frames of every item are decoded; nothing is augmented. Items that DATA.EXCLUDE_FILE names are read as well, so
    that the file of bad items is always complete. A folder of frames that holds more images than its list says is bad
    too: list and frames come from different extractions. A crash or a hang of the decoder is the reason of that item.

    Args:
        cfg: the configuration.
        out_path: file for the lines ``path,split,reason``; None is ``bad_items.csv`` in DATA.PATH_TO_DATA_DIR.
        splits: of train, val, test; test is passed over if it has the items of val.
        workers: processes.
        timeout_sec: for one item.

    Returns:
        The counts of every split that was read.

    Raises:
        FileNotFoundError: a list does not exist.
        ValueError: a wrong value in the configuration or a list, or a folder for the bad items that cannot be written.
    """
    excluded = read_exclusion(cfg.DATA.EXCLUDE_FILE) if cfg.DATA.EXCLUDE_FILE else []
    prefix = path_prefix(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.EXCLUDE_FILE = ""
    if cfg.DATA.DECODING_BACKEND == "auto":
        cfg.DATA.DECODING_BACKEND = "pyav"  # the only one that reports frames which FFmpeg could only guess
    datasets = {split: build_dataset(cfg, split) for split in SPLITS if split in splits}
    out_path = os.path.join(cfg.DATA.PATH_TO_DATA_DIR, BAD_ITEMS_FILE) if out_path is None else out_path
    _check_writable(os.path.dirname(out_path) or ".", os.path.basename(out_path))
    if "val" in datasets and "test" in datasets and datasets["val"].records == datasets["test"].records:
        logger.info("test has the items of val, which are read once")
        del datasets["test"]
    _warn_about_names(next(iter(datasets.values())).class_names)
    for split, dataset in datasets.items():
        _warn_about_labels(split, dataset, cfg.MODEL.NUM_CLASSES)
    _warn_about_counts(datasets, cfg.DATA.EXPECTED_NUM_VIDEOS)

    rows, checked = [], []
    for split, dataset in datasets.items():
        read = _WholeItem(dataset.open_reader, cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.FIRST_IMAGE)
        bad = _read_all(read, split, dataset.records, workers, timeout_sec)
        rows += [(record.path, split, reason) for record, reason in bad]
        records = [record for record, _ in bad]
        num_excluded = len(bad) - len(exclude_records(records, excluded, prefix)[0])
        checked.append(CheckedSplit(split, len(dataset.records), len(bad), num_excluded))
    with replacing(out_path) as file:
        csv.writer(file, lineterminator="\n").writerows([BAD_ITEMS_HEADER, *rows])
    return checked


def describe_class_order(names: Sequence[str]) -> tuple[str, bool]:
    """Say in which order class names are, where a known data set has a known order.

    Published weights and lists of these data sets agree only if the names stand in the same order: the ASCII-sorted
    templates of Something-Something, and one of the two orders of Kinetics-400. Other names may have any order.

    Args:
        names: in the order of the labels.

    Returns:
        A sentence, "" for other data sets, and whether the order is a known one.
    """
    if set(names) == set(kinetics400.class_names("alphabetical")):
        for order in kinetics400.CLASS_ORDERS:
            if list(names) == kinetics400.class_names(order):
                return f"class names are those of Kinetics-400 in {order} order", True
        orders = " nor ".join(kinetics400.CLASS_ORDERS)
        return f"class names are those of Kinetics-400, but in neither {orders} order", False
    if sum("something" in name.lower() for name in names) <= len(names) / 2:
        return "", True
    if any("[something" in name.lower() for name in names):
        return "class names are Something-Something's templates with brackets, which sort differently", False
    for first, second in itertools.pairwise(names):
        if first > second:
            return f"class names look like Something-Something but are not ASCII-sorted: {first!r}, {second!r}", False
    return "class names look like Something-Something, ASCII-sorted as in published weights", True


class _WholeItem:
    """Reads all frames of a record; returns what is wrong with it, "" if nothing is.

    Args:
        open_reader: of the data set.
        template: name of an image in a folder of frames.
        first_image: number of the first one.
    """

    def __init__(self, open_reader: Callable[[Record], FrameReader], template: str, first_image: int) -> None:
        self.open_reader = open_reader
        self.template = template
        self.first_image = first_image

    def __call__(self, record: Record) -> str:
        cv2.setNumThreads(0)  # the processes are the parallelism
        try:
            with self.open_reader(record) as reader:
                for _ in iterate_chunks(reader):
                    pass
        except DecodeError as error:
            return error.reason
        except Exception as error:  # would end a training; here it is a finding about one file
            return f"{type(error).__name__}: {error}"
        return self._unlisted_image(record)

    def _unlisted_image(self, record: Record) -> str:
        if record.num_frames is None:
            return ""
        next_image = self.template.format(self.first_image + record.num_frames)
        if not os.path.exists(os.path.join(record.path, next_image)):
            return ""
        return f"the list says {record.num_frames} frames, yet there is {next_image}"


def _read_all(
    read: _WholeItem, split: str, records: Sequence[Record], workers: int, timeout_sec: float
) -> list[tuple[Record, str]]:
    """Return the bad records with the reason, in the order of the list."""
    reasons = {}
    results = progress_bar(
        map_isolated(read, records, workers, timeout_sec), len(records), f"reading {split}", unit="item"
    )
    for index, result in results:
        reason = result.reason if isinstance(result, Lost) else result
        if reason:
            reasons[index] = reason
            results.set_postfix(bad=len(reasons), refresh=False)
    return [(records[index], reasons[index]) for index in sorted(reasons)]


def _check_writable(folder: str, name: str) -> None:
    """Complain before the long part instead of after it."""
    if not os.access(folder, os.W_OK):
        state = "cannot be written to" if os.path.isdir(folder) else "is not an existing folder"
        raise ValueError(f"{folder}, for {name}, {state}: name another place with --out")


def _warn_about_names(names: list[str] | None) -> None:
    if names is not None:
        sentence, is_known = describe_class_order(names)
        if sentence:
            logger.log(logging.INFO if is_known else logging.WARNING, "%s", sentence)


def _warn_about_labels(split: str, dataset: VideoDataset, num_classes: int) -> None:
    # That all labels are equal was said when the list was read.
    empty = np.flatnonzero(np.bincount(dataset.labels, minlength=num_classes) == 0)
    if len(empty):
        name = f" ({dataset.class_names[empty[0]]!r})" if dataset.class_names else ""
        logger.warning(
            "%s: %d of %d classes have no video, such as %d%s", split, len(empty), num_classes, empty[0], name
        )


def _warn_about_counts(datasets: dict[str, VideoDataset], expected: list[int]) -> None:
    if len(expected) not in (0, 2) or not all(type(number) is int for number in expected):
        raise ValueError(f"DATA.EXPECTED_NUM_VIDEOS is {expected}, allowed: [] or two numbers, of train and val")
    for split, number in zip(("train", "val"), expected):
        if split in datasets and datasets[split].num_videos != number:
            logger.warning(
                "%s: %d videos, the complete data set has %d (DATA.EXPECTED_NUM_VIDEOS)",
                split, datasets[split].num_videos, number,
            )  # fmt: skip
    if {"train", "val"} <= set(datasets):
        trained = {os.path.abspath(record.path) for record in datasets["train"].records}
        shared = [record.path for record in datasets["val"].records if os.path.abspath(record.path) in trained]
        if shared:
            logger.warning("%d videos are both in train and in val, such as %s", len(shared), shared[0])
