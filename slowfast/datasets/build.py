"""The registry of data sets."""

from __future__ import annotations

from fvcore.common.registry import Registry

from slowfast.config.parser import CfgNode
from slowfast.datasets.image_folder import ImageFolder
from slowfast.datasets.video_dataset import EvalVideos, TrainVideos, VideoDataset
from slowfast.datasets.video_list import VideoList
from slowfast.utils.errors import UserError

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
    """Build the data set that DATA.DATASET names, without what DATA.EXCLUDE_FILE names.

    ``train`` has random clips, ``val`` the central crop of the central clip, ``test`` TEST.NUM_ENSEMBLE_VIEWS clips x
    TEST.NUM_SPATIAL_CROPS crops.

    Args:
        cfg: the configuration.
        split: ``train``, ``val`` or ``test``.
    """
    assert split in SPLITS
    if cfg.DATA.DATASET not in DATASET_REGISTRY:
        allowed = " | ".join(name for name, _ in DATASET_REGISTRY)
        raise UserError(f"DATA.DATASET is {cfg.DATA.DATASET!r}, allowed: {allowed}")
    source = DATASET_REGISTRY.get(cfg.DATA.DATASET).from_config(cfg, split)
    return (TrainVideos if split == "train" else EvalVideos).from_config(cfg, split, source)
