"""The registry of data sets."""

import logging
from typing import Any

from fvcore.common.registry import Registry

from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.transform import build_test_transform, build_train_transform
from slowfast.datasets.image_folder import ImageFolder
from slowfast.datasets.manifest import exclude_records, read_exclusion
from slowfast.datasets.rendered import Rendered
from slowfast.datasets.sampling import build_sampler
from slowfast.datasets.video_dataset import EvalVideos, TrainVideos, VideoDataset
from slowfast.datasets.video_list import VideoList
from slowfast.utils.distributed import gather_to_all
from slowfast.utils.errors import UserError
from slowfast.utils.files import full_path

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")

DATASET_REGISTRY = Registry("DATASET")
DATASET_REGISTRY.__doc__ = """
Data sets by the name in ``DATA.DATASET``.

A registered class has a class method ``from_config(cfg, split)``, with split train | val | test, that returns an object
with, whatever the labels if MODEL.NUM_CLASSES is 0,

* ``records``, one ``manifest.Record`` per video, in a fixed order;
* ``class_names``, a list in label order, or None;
* ``open(record)``, which returns a ``decoder.FrameReader`` or raises ``decoder.DecodeError``;
* ``find_missing(records)``, if files may be missing: a description of each one that is;
* ``at_epoch(record, epoch)``, if every epoch of the training has videos of its own: the record to open;
* ``takes_args = True``, if it reads and checks DATA.ARGS.

Objects must survive pickling, for workers that are not forked. Frame sampling, augmentation, views, exclusion, checking
and packing work for any such class.
"""

DATASET_REGISTRY.register(VideoList)
DATASET_REGISTRY.register(ImageFolder)
DATASET_REGISTRY.register(Rendered)


def with_num_classes(cfg: CfgNode) -> CfgNode:
    """Return the configuration with the number of classes that the data have where MODEL.NUM_CLASSES is 0.

    What is built from it, saved and reported then knows that number.
    """
    if cfg.MODEL.NUM_CLASSES:
        return cfg
    sources = [build_source(cfg, "val")]
    if sources[0].class_names:
        number, origin = len(sources[0].class_names), "the number of class names"
    else:
        sources.append(build_source(cfg, "train"))
        last = max((record for source in sources for record in source.records), key=lambda record: max(record.labels))
        number, origin = max(last.labels) + 1, f"the largest label ({last.origin}) + 1"
    if number < 2:
        raise UserError(f"MODEL.NUM_CLASSES is 0, and {origin} is {number}; allowed: 2 classes or more")
    logger.info("MODEL.NUM_CLASSES is %d: %s", number, origin)
    return cfg.with_settings("MODEL.NUM_CLASSES", number)


def build_source(cfg: CfgNode, split: str) -> Any:
    """Build the member of the registry that DATA.DATASET names."""
    assert split in SPLITS
    if cfg.DATA.DATASET not in DATASET_REGISTRY:
        allowed = " | ".join(name for name, _ in DATASET_REGISTRY)
        raise UserError(f"DATA.DATASET is {cfg.DATA.DATASET!r}, allowed: {allowed}")
    kind = DATASET_REGISTRY.get(cfg.DATA.DATASET)
    if cfg.DATA.ARGS and not getattr(kind, "takes_args", False):
        raise UserError(f"DATA.ARGS is {dict(cfg.DATA.ARGS)}, but {cfg.DATA.DATASET} (DATA.DATASET) takes none")
    return kind.from_config(cfg, split)


def build_dataset(cfg: CfgNode, split: str) -> VideoDataset:
    """Build the data set that DATA.DATASET names, without what DATA.EXCLUDE_FILE names.

    ``train`` has random clips, ``val`` the clips x crops of TRAIN.EVAL_VIEWS, ``test`` TEST.NUM_ENSEMBLE_VIEWS clips x
    TEST.NUM_SPATIAL_CROPS crops.
    """
    source = build_source(cfg, split)
    if cfg.DATA.EXCLUDE_FILE:
        num_videos, paths = len(source.records), read_exclusion(full_path(cfg.DATA.EXCLUDE_FILE))
        source.records, others = exclude_records(source.records, paths)
        facts = (num_videos - len(source.records), num_videos, split, len(others), len(paths))
        message = "%s: leaves out %d of %d %s videos (%d of its %d paths name none of these)"
        logger.info(message, cfg.DATA.EXCLUDE_FILE, *facts)
    if not source.records:
        raise UserError(f"{cfg.DATA.EXCLUDE_FILE} (DATA.EXCLUDE_FILE) names all videos of {split}: none is left")
    if split == "train":
        parts = (source, build_sampler(cfg), build_train_transform(cfg), cfg.MODEL.NUM_CLASSES)
        return TrainVideos(*parts, num_copies=cfg.AUG.NUM_SAMPLE, seed=cfg.RNG_SEED)
    views = {"val": cfg.TRAIN.EVAL_VIEWS, "test": (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS)}
    num_clips, num_crops = views[split]
    parts = (source, build_sampler(cfg), build_test_transform(cfg, num_crops), cfg.MODEL.NUM_CLASSES)
    return EvalVideos(*parts, num_clips=num_clips)


def check_files(cfg: CfgNode, split: str, rank: int = 0, world_size: int = 1) -> VideoDataset:
    """Look for every listed file of a split, a share by each process, before hours depend on them; return the data set.

    Those missing are warned of. They are an error in ``test``, unless TEST.ON_BAD_VIDEO is count_wrong, and where they
    are more than the share DATA.MAX_BAD_SHARE in ``train`` and ``val``.
    """
    dataset = build_dataset(cfg, split)
    own = dataset.find_missing(dataset.records[rank::world_size]) if dataset.find_missing else []
    missing = [path for share in gather_to_all(own) for path in share]
    if missing:
        num_videos, share, policy = dataset.num_videos, cfg.DATA.MAX_BAD_SHARE, cfg.TEST.ON_BAD_VIDEO
        found = f"{len(missing)} of {num_videos} listed files of {split} do not exist: {', '.join(missing[:3])}"
        found += " and others" if len(missing) > 3 else ""
        if len(missing) == num_videos:
            raise UserError(f"{found}; check DATA.PATH_PREFIX, to which the paths in the list are relative")
        if split == "test" and policy == "error":
            raise UserError(f"{found}; DATA.EXCLUDE_FILE leaves them out, TEST.ON_BAD_VIDEO count_wrong counts them")
        if split != "test" and len(missing) > share * num_videos:
            raise UserError(f"{found}, more than DATA.MAX_BAD_SHARE {share:g} allows")
        logger.warning("%s", found)
    return dataset
