"""The registry of data sets."""

from __future__ import annotations

import contextlib
import logging

from fvcore.common.registry import Registry

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.transform import build_test_transform, build_train_transform
from slowfast.datasets.image_folder import ImageFolder
from slowfast.datasets.manifest import exclude_records, read_exclusion
from slowfast.datasets.sampling import build_sampler
from slowfast.datasets.video_dataset import EvalVideos, TrainVideos, VideoDataset, VideoSource
from slowfast.datasets.video_list import VideoList, path_prefix
from slowfast.utils.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")

DATASET_REGISTRY = Registry("DATASET")
DATASET_REGISTRY.__doc__ = """
Data sets by the name in ``DATA.DATASET``.

A registered class has a class method ``from_config(cfg, split)``, with split train | val | test, that returns an object
with

* ``records``, one ``manifest.Record`` per video, in a fixed order;
* ``class_names``, a list in label order, or None;
* ``open(record)``, which returns a ``decoder.FrameReader`` or raises ``decoder.DecodeError``.

Objects must survive pickling, for workers that are not forked. Frame sampling, augmentation, views, exclusion, checking
and packing work for any such class.
"""

DATASET_REGISTRY.register(VideoList)
DATASET_REGISTRY.register(ImageFolder)


def build_dataset(cfg: CfgNode, split: str) -> VideoDataset:
    """Build the data set that DATA.DATASET names.

    ``train`` has random clips, ``val`` the central crop of the central clip, ``test`` TEST.NUM_ENSEMBLE_VIEWS clips x
    TEST.NUM_SPATIAL_CROPS crops.

    Args:
        cfg: the configuration.
        split: ``train``, ``val`` or ``test``.
    """
    assert split in SPLITS
    source = load_source(cfg, split)
    if cfg.DATA.EXCLUDE_FILE:
        exclude_videos(cfg, split, source)
    sampler = build_sampler(cfg)
    if split == "train":
        return TrainVideos(source, sampler, build_train_transform(cfg), cfg.AUG.NUM_SAMPLE, cfg.RNG_SEED)
    num_clips, num_crops = (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) if split == "test" else (1, 1)
    return EvalVideos(source, sampler, build_test_transform(cfg, num_crops), num_clips)


def load_source(cfg: CfgNode, split: str) -> VideoSource:
    """Return the videos of a split, all of them."""
    if cfg.DATA.DATASET not in DATASET_REGISTRY:
        allowed = " | ".join(name for name, _ in DATASET_REGISTRY)
        raise UserError(f"DATA.DATASET is {cfg.DATA.DATASET!r}, allowed: {allowed}")
    return DATASET_REGISTRY.get(cfg.DATA.DATASET).from_config(cfg, split)


def exclude_videos(cfg: CfgNode, split: str, source: VideoSource) -> None:
    """Remove from a source the records that DATA.EXCLUDE_FILE names; the log says how many."""
    path, prefix, num_videos = cfg.DATA.EXCLUDE_FILE, path_prefix(cfg), len(source.records)
    entries = read_exclusion(path)
    source.records, unmatched = exclude_records(source.records, entries, prefix)
    logger.info("%s: leaves out %d of %d %s videos", path, num_videos - len(source.records), num_videos, split)
    if not source.records:
        raise UserError(f"{path} (DATA.EXCLUDE_FILE) names all {num_videos} videos of {split}: none is left")
    for other in SPLITS:
        if unmatched and other != split:
            # A list that cannot be read is an error when its split is used, not here.
            with contextlib.suppress(UserError):
                unmatched = exclude_records(load_source(cfg, other).records, unmatched, prefix)[1]
    if unmatched:
        message = "%s: %d of its %d paths match no video of any list, such as %r"
        logger.warning(message, path, len(unmatched), len(entries), unmatched[0])
