"""Decode every item of a data set and look at its labels before a run depends on them."""

from __future__ import annotations

import csv
import itertools
import logging
import math
import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from slowfast.config.parser import CfgNode
from slowfast.datasets.build import SPLITS, build_dataset
from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.manifest import BAD_ITEMS_HEADER, Record, exclude_records, read_exclusion
from slowfast.prepare import kinetics400
from slowfast.prepare.processes import map_isolated
from slowfast.utils.errors import UserError
from slowfast.utils.files import replacing
from slowfast.utils.logging import progress_bar

logger = logging.getLogger(__name__)

BAD_ITEMS_FILE = "bad_items.csv"

# The time limit of an item grows by itself with every so many MiB or frames: what a slow core decodes in five minutes,
# with much to spare.
_MIB_PER_LIMIT, _FRAMES_PER_LIMIT = 10, 300


class CheckedSplit(NamedTuple):
    """Counts of one split: all videos, bad ones, and bad ones that DATA.EXCLUDE_FILE names already."""

    name: str
    num_videos: int
    num_bad: int
    num_excluded: int


def check_data(
    cfg: CfgNode, out_path: str = "", splits: Sequence[str] = SPLITS, workers: int = 1, timeout_sec: float = math.inf
) -> list[CheckedSplit]:
    """Decode all frames of every item with the reader of training, write the bad ones to a file, warn about the lists.

    Items that DATA.EXCLUDE_FILE names are read as well, so that the file is always complete. A folder that holds more
    images than its list says is bad too: they come from different extractions. A crash or a hang of the decoder is the
    reason of that item.

    Args:
        cfg: the configuration.
        out_path: file for the lines ``path,split,reason``; "" is ``bad_items.csv`` in DATA.PATH_TO_DATA_DIR.
        splits: of train, val, test; test is passed over if it has the items of val.
        workers: processes.
        timeout_sec: for a small item; large ones get more in proportion to their size.
    """
    if not timeout_sec > 0:  # nor NaN
        raise UserError(f"--timeout is {timeout_sec:g}; allowed: above 0, inf for none")
    out_path = out_path or os.path.join(cfg.DATA.PATH_TO_DATA_DIR, BAD_ITEMS_FILE)
    excluded = read_exclusion(cfg.DATA.EXCLUDE_FILE) if cfg.DATA.EXCLUDE_FILE else []
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.EXCLUDE_FILE = ""
    datasets = {split: build_dataset(cfg, split) for split in SPLITS if split in splits}
    if not os.access(os.path.dirname(out_path) or ".", os.W_OK):
        raise UserError(f"{out_path} cannot be written, its folder is missing or read-only; --out FILE names another")
    if "val" in datasets and "test" in datasets and datasets["val"].records == datasets["test"].records:
        logger.info("test has the items of val, which are read once")
        del datasets["test"]
    _warn_about_lists(datasets, cfg.MODEL.NUM_CLASSES, cfg.DATA.EXPECTED_NUM_VIDEOS)

    rows, checked = [], []
    for split, dataset in datasets.items():
        find = partial(find_problem, dataset=dataset, template=cfg.DATA.IMAGE_TEMPLATE, first=cfg.DATA.FIRST_IMAGE)
        results = map_isolated(find, dataset.records, workers, partial(limit_sec, timeout_sec=timeout_sec))
        reasons = dict(progress_bar(results, len(dataset.records), f"reading {split}", unit="item"))
        bad = [(record, reasons[index]) for index, record in enumerate(dataset.records) if reasons[index]]
        rows += [(record.path, split, reason) for record, reason in bad]
        kept, _ = exclude_records([record for record, _ in bad], excluded)
        checked.append(CheckedSplit(split, len(dataset.records), len(bad), len(bad) - len(kept)))
    with replacing(out_path) as file:
        csv.writer(file, lineterminator="\n").writerows([BAD_ITEMS_HEADER, *rows])
    counts = "; ".join(
        f"{split.name} {split.num_videos - split.num_bad} good, {split.num_bad} bad" for split in checked
    )
    num_excluded = sum(split.num_excluded for split in checked)
    remark = f" ({num_excluded} of the bad ones are in DATA.EXCLUDE_FILE)" if num_excluded else ""
    logger.info("%s: %s%s", out_path, counts, remark)
    return checked


def limit_sec(record: Record, timeout_sec: float) -> float | None:
    """Return the time limit of an item, which grows with its bytes or frames; None is no limit."""
    num_mib = os.path.getsize(record.path) / 2**20 if os.path.isfile(record.path) else 0
    limit = timeout_sec * (1 + num_mib / _MIB_PER_LIMIT + (record.num_frames or 0) / _FRAMES_PER_LIMIT)
    return None if math.isinf(limit) else limit


def find_problem(record: Record, dataset: Dataset, template: str, first: int) -> str:
    """Decode all frames of an item and return what is wrong with it, "" if nothing is."""
    try:
        with dataset.open(record) as reader:
            for _ in reader.iterate():
                pass
    except DecodeError as error:
        return error.reason
    except Exception as error:  # would end a training; here it is a finding about one file
        return f"{type(error).__name__}: {error}"
    if record.num_frames is not None:
        name = template.format(first + record.num_frames)
        if os.path.exists(os.path.join(record.path, name)):
            return f"the list says {record.num_frames} frames, yet there is {name}"
    return ""


def _warn_about_lists(datasets: dict[str, Dataset], num_classes: int, expected: list[int]) -> None:
    for split, dataset in datasets.items():
        empty = np.flatnonzero(np.bincount(dataset.labels, minlength=num_classes) == 0)
        if len(empty):
            name = f" ({dataset.class_names[empty[0]]!r})" if dataset.class_names else ""
            message = "%s: %d of %d classes have no video, such as %d%s"
            logger.warning(message, split, len(empty), num_classes, empty[0], name)
    for split, number in zip(("train", "val"), expected):
        if split in datasets and datasets[split].num_videos != number:
            message = "%s: %d videos, the complete data set has %d (DATA.EXPECTED_NUM_VIDEOS)"
            logger.warning(message, split, datasets[split].num_videos, number)
    if {"train", "val"} <= set(datasets):
        train, val = ({os.path.abspath(r.path) for r in datasets[split].records} for split in ("train", "val"))
        if train & val:
            logger.warning("%d videos are both in train and in val, such as %s", len(train & val), min(train & val))
    sentence, is_known = describe_class_order(next(iter(datasets.values())).class_names or [])
    if sentence:
        logger.log(logging.INFO if is_known else logging.WARNING, "class names %s", sentence)


def describe_class_order(names: Sequence[str]) -> tuple[str, bool]:
    """Return what the order of the class names is, "" for unknown data sets, and whether it is a known one.

    Published weights and lists of these data sets agree only if the names stand in the same order: the ASCII-sorted
    templates of Something-Something, and one of the two orders of Kinetics-400. Other names may have any order.
    """
    orders = {order: kinetics400.class_names(order) for order in kinetics400.CLASS_ORDERS}
    if sorted(names) == orders["alphabetical"]:
        known = [order for order, ordered in orders.items() if list(names) == ordered]
        place = f"{known[0]} order" if known else f"neither {' nor '.join(orders)} order"
        return f"are those of Kinetics-400, in {place}", bool(known)
    if sum("something" in name.lower() for name in names) <= len(names) / 2:
        return "", True
    if any("[something" in name.lower() for name in names):
        return "are Something-Something's templates with brackets, which sort differently", False
    for first, second in itertools.pairwise(names):
        if first > second:
            return f"look like Something-Something but are not ASCII-sorted: {first!r}, {second!r}", False
    return "look like Something-Something, ASCII-sorted as in published weights", True
