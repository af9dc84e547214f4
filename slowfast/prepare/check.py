"""Decode every item of a data set and look at its labels before a run depends on them."""

import csv
import itertools
import logging
import math
import os
from collections.abc import Sequence
from functools import partial

import numpy as np
from torch.utils.data import Dataset

from slowfast.config.parser import CfgNode
from slowfast.datasets.build import SPLITS, build_dataset, with_num_classes
from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.manifest import BAD_ITEMS_HEADER, Record, exclude_records, read_exclusion
from slowfast.prepare import kinetics400
from slowfast.prepare.processes import map_isolated
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path, replacing
from slowfast.utils.logging import progress_bar
from slowfast.utils.metrics import class_counts

logger = logging.getLogger(__name__)

# The time limit of an item grows by itself with every so many MiB or frames: what a slow core decodes in five minutes,
# with much to spare.
_MIB_PER_LIMIT, _FRAMES_PER_LIMIT = 10, 300


def check_data(cfg: CfgNode, out_path: str | None = None, workers: int = 1, timeout_sec: float = math.inf) -> int:
    """Decode all frames of every item with the reader of training, write the bad ones to a file, warn about the lists.

    Items that DATA.EXCLUDE_FILE names are read as well, so that the file is always complete. A folder that holds more
    images than its list says is bad too: they come from different extractions. A crash or a hang of the decoder is the
    reason of that item. The file, ``bad_items.csv`` beside the lists or ``out_path``, has lines ``path,split,reason``;
    ``timeout_sec`` is for a small item. Returns the number of bad items that DATA.EXCLUDE_FILE does not name.
    """
    out_path = out_path or os.path.join(full_path(cfg.DATA.PATH_TO_DATA_DIR), "bad_items.csv")
    excluded = read_exclusion(full_path(cfg.DATA.EXCLUDE_FILE)) if cfg.DATA.EXCLUDE_FILE else []
    cfg = with_num_classes(cfg).with_settings("DATA.EXCLUDE_FILE", "")
    datasets = {split: build_dataset(cfg, split) for split in SPLITS}
    if not os.access(os.path.dirname(out_path) or ".", os.W_OK):
        raise UserError(f"{out_path} cannot be written, its folder is missing or read-only; --out FILE names another")
    if datasets["val"].records == datasets["test"].records:
        del datasets["test"]
    _warn_about_lists(datasets, cfg.MODEL.NUM_CLASSES, cfg.DATA.EXPECTED_NUM_VIDEOS)

    rows, counts, num_new = [BAD_ITEMS_HEADER], [], 0
    for split, dataset in datasets.items():
        find = partial(find_problem, dataset=dataset, template=cfg.DATA.IMAGE_TEMPLATE, first=cfg.DATA.FIRST_IMAGE)
        reasons = map_isolated(find, dataset.records, workers, partial(limit_sec, timeout_sec=timeout_sec))
        reasons = progress_bar(reasons, len(dataset.records), f"reading {split}", unit="item")
        bad = [(record, reason) for record, reason in zip(dataset.records, reasons, strict=True) if reason]
        rows += [(record.path, split, reason) for record, reason in bad]
        counts.append(f"{split} {len(dataset.records) - len(bad)} good, {len(bad)} bad")
        num_new += len(exclude_records([record for record, _ in bad], excluded)[0])
    with replacing(out_path) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    num_excluded = len(rows) - 1 - num_new
    remark = f" ({num_excluded} of the bad ones are in DATA.EXCLUDE_FILE)" if num_excluded else ""
    logger.info("%s: %s%s", out_path, "; ".join(counts), remark)
    return num_new


def limit_sec(record: Record, timeout_sec: float) -> float:
    """Return the time limit of an item, which grows with its bytes or frames."""
    num_mib = os.path.getsize(record.path) / 2**20 if os.path.isfile(record.path) else 0
    return timeout_sec * (1 + num_mib / _MIB_PER_LIMIT + (record.num_frames or 0) / _FRAMES_PER_LIMIT)


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
    name = template.format(first + (record.num_frames or 0))
    if record.num_frames is not None and os.path.exists(os.path.join(record.path, name)):
        return f"the list says {record.num_frames} frames, yet there is {name}"
    return ""


def _warn_about_lists(datasets: dict[str, Dataset], num_classes: int, expected: list[int]) -> None:
    for split, dataset in datasets.items():
        empty = np.flatnonzero(class_counts(dataset.labels, num_classes) == 0)
        if len(empty):
            example = repr(dataset.class_names[empty[0]]) if dataset.class_names else empty[0]
            logger.warning("%s: %d of %d classes have no video, such as %s", split, len(empty), num_classes, example)
    for split, number in zip(("train", "val"), expected):
        if datasets[split].num_videos != number:
            message = "%s: %d videos, the complete data set has %d (DATA.EXPECTED_NUM_VIDEOS)"
            logger.warning(message, split, datasets[split].num_videos, number)
    labels: dict[str, dict[str, set]] = {}  # of each video in each split
    for split, dataset in datasets.items():
        labels[split] = {}
        for record in dataset.records:
            labels[split].setdefault(os.path.abspath(record.path), set()).add(record.label)
    for first, second in itertools.combinations(labels, 2):
        if shared := labels[first].keys() & labels[second].keys():
            logger.warning("%d videos are both in %s and in %s, such as %s", len(shared), first, second, min(shared))
    paths = sorted(set().union(*labels.values()))
    several = [path for path in paths if len(set().union(*(own.get(path, ()) for own in labels.values()))) > 1]
    if several:
        logger.warning("%d videos stand there with different labels, such as %s", len(several), several[0])
    sentence, is_known = describe_class_order(datasets["train"].class_names or [])
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
        return f"are those of Kinetics-400, in {known[0] if known else 'an unknown'} order", bool(known)
    if sum("something" in name.lower() for name in names) <= len(names) / 2:
        return "", True
    is_known = list(names) == sorted(names) and not any("[something" in name.lower() for name in names)
    order = "ASCII-sorted without brackets, as in published weights"
    return f"are those of Something-Something, {'' if is_known else 'yet not '}{order}", is_known
