"""The registry of data sets."""

from __future__ import annotations

from fvcore.common.registry import Registry
from torch.utils.data import Dataset

from slowfast.config.parser import CfgNode
from slowfast.datasets.image_folder import ImageFolder
from slowfast.datasets.video_list import VideoList

SPLITS = ("train", "val", "test")

DATASET_REGISTRY = Registry("DATASET")
DATASET_REGISTRY.__doc__ = """
Data sets by the name in ``DATA.DATASET``.

A registered class has a class method ``from_config(cfg, split)``, with split train | val | test, that returns
a ``torch.utils.data.Dataset`` with

* ``num_videos``, ``num_views`` (views of one video over all its items), ``labels`` (int64 array of shape
  (num_videos,)), ``class_names`` (list in label order, or None) and ``records`` (one ``manifest.Record`` per
  video);
* for train, items ``dataset[(epoch, video_index)]`` whose random draws depend on seed, epoch and index alone;
* for val and test, items ``dataset[i]``, i in range(len(dataset)), that together hold every view of every
  video once;
* items that are ``video_dataset.Sample``, or ``video_dataset.BadVideo`` where the video cannot be decoded;
  never an exception for bad data, never another video in its place.
"""

DATASET_REGISTRY.register(VideoList)
DATASET_REGISTRY.register(ImageFolder)


def build_dataset(cfg: CfgNode, split: str) -> Dataset:
    """Build the data set that DATA.DATASET names.

    Args:
        cfg: the configuration.
        split: ``train``, ``val`` or ``test``.

    Raises:
        FileNotFoundError: a list file does not exist.
        ValueError: a wrong value in the configuration or a list.
    """
    assert split in SPLITS
    if cfg.DATA.DATASET not in DATASET_REGISTRY:
        allowed = " | ".join(name for name, _ in DATASET_REGISTRY)
        raise ValueError(f"DATA.DATASET is {cfg.DATA.DATASET!r}, allowed: {allowed}")
    return DATASET_REGISTRY.get(cfg.DATA.DATASET).from_config(cfg, split)
