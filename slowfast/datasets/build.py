"""The registry of data sets."""

import logging

from fvcore.common.registry import Registry

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.transform import build_test_transform, build_train_transform
from slowfast.datasets.image_folder import ImageFolder
from slowfast.datasets.manifest import exclude_records, read_exclusion
from slowfast.datasets.sampling import build_sampler
from slowfast.datasets.video_dataset import EvalVideos, TrainVideos, VideoDataset
from slowfast.datasets.video_list import VideoList
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
    """Build the data set that DATA.DATASET names, without what DATA.EXCLUDE_FILE names.

    ``train`` has random clips, ``val`` the clips x crops of TRAIN.EVAL_VIEWS, ``test`` TEST.NUM_ENSEMBLE_VIEWS clips x
    TEST.NUM_SPATIAL_CROPS crops.
    """
    assert split in SPLITS
    if cfg.DATA.DATASET not in DATASET_REGISTRY:
        allowed = " | ".join(name for name, _ in DATASET_REGISTRY)
        raise UserError(f"DATA.DATASET is {cfg.DATA.DATASET!r}, allowed: {allowed}")
    source = DATASET_REGISTRY.get(cfg.DATA.DATASET).from_config(cfg, split)
    if cfg.DATA.EXCLUDE_FILE:
        num_videos, paths = len(source.records), read_exclusion(cfg.DATA.EXCLUDE_FILE)
        source.records, others = exclude_records(source.records, paths)
        facts = (num_videos - len(source.records), num_videos, split, len(others), len(paths))
        message = "%s: leaves out %d of %d %s videos (%d of its %d paths name none of these)"
        logger.info(message, cfg.DATA.EXCLUDE_FILE, *facts)
    if not source.records:
        raise UserError(f"{cfg.DATA.EXCLUDE_FILE} (DATA.EXCLUDE_FILE) names all videos of {split}: none is left")
    if split == "train":
        return TrainVideos(
            source, build_sampler(cfg), build_train_transform(cfg), num_copies=cfg.AUG.NUM_SAMPLE, seed=cfg.RNG_SEED
        )
    views = {"val": cfg.TRAIN.EVAL_VIEWS, "test": (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS)}
    num_clips, num_crops = views[split]
    return EvalVideos(source, build_sampler(cfg), build_test_transform(cfg, num_crops), num_clips=num_clips)
