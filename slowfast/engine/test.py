"""Multi-view test: every view of every video once, combined per video, written as JSON, CSV and pictures."""

from __future__ import annotations

import logging
import os

from slowfast.datasets.build import build_dataset
from slowfast.datasets.loader import construct_loader
from slowfast.engine.checkpoint import checkpoint_to_test, load_model_state
from slowfast.engine.evaluate import ON_BAD_VIDEO, score_views
from slowfast.engine.precision import resolve_precision
from slowfast.engine.record import Recorder
from slowfast.engine.results import write_results
from slowfast.models import build_model
from slowfast.models.pretrained import read_checkpoint
from slowfast.utils.distributed import Process
from slowfast.utils.metrics import ENSEMBLE_METHODS, ensemble

logger = logging.getLogger(__name__)


def test(cfg, process: Process, recorder: Recorder) -> dict | None:
    """Test a checkpoint on all views and write the results to OUTPUT_DIR.

    Returns:
        The content of ``test_results.json`` on the main process, None on the others.

    Raises:
        FileNotFoundError: no checkpoint or no list file.
        ValueError: a checkpoint of another architecture or with other class names, or a bad video.
    """
    precision = resolve_precision(cfg.TEST.PRECISION, process.device, "TEST.PRECISION")
    loader = construct_loader(cfg, "test", process.rank, process.world_size)
    path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH)
    state = read_checkpoint(path)
    if "model_state" not in state:
        raise ValueError(f"{path} is no checkpoint of a training run: it has {list(state)[:5]}, not model_state")
    _check_class_names(path, state.get("class_names"), loader.dataset.class_names)
    model = build_model(cfg)
    load_model_state(model, state["model_state"], path)
    model.to(process.device)
    logger.info(
        "testing %s (epoch %s) on %d videos x %d views of %s",
        path, state.get("epoch"), loader.dataset.num_videos, loader.dataset.num_views,
        loader.dataset.records[0].origin.rpartition(":")[0],
    )  # fmt: skip

    scores = score_views(model, loader, process, precision, cfg.TEST.ON_BAD_VIDEO, "test")
    if scores is None:
        return None
    crop, clips, crops = cfg.DATA.TEST_CROP_SIZE, cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
    return write_results(
        cfg.OUTPUT_DIR,
        scores,
        ensemble(scores.logits, cfg.DATA.ENSEMBLE_METHOD),
        loader.dataset.class_names,
        recorder,
        facts={
            "protocol": f"{cfg.DATA.NUM_FRAMES} frames x {clips} clips x {crops} crops, {crop}x{crop} px, "
            f"{cfg.DATA.FRAME_SAMPLING} sampling, {cfg.DATA.ENSEMBLE_METHOD}",
            "checkpoint": path,
            "checkpoint_time": os.path.getmtime(path),
            "epoch": state.get("epoch"),
            "precision": precision,
            "config": cfg.dump(),
        },
    )


def check_test_settings(cfg) -> None:
    """Raise ValueError or FileNotFoundError for whatever in the settings or the list of the test is wrong."""
    if cfg.DATA.ENSEMBLE_METHOD not in ENSEMBLE_METHODS:
        allowed = ", ".join(ENSEMBLE_METHODS)
        raise ValueError(f"DATA.ENSEMBLE_METHOD must be one of {allowed}, found {cfg.DATA.ENSEMBLE_METHOD!r}")
    if cfg.TEST.ON_BAD_VIDEO not in ON_BAD_VIDEO:
        allowed = ", ".join(ON_BAD_VIDEO)
        raise ValueError(f"TEST.ON_BAD_VIDEO must be one of {allowed}, found {cfg.TEST.ON_BAD_VIDEO!r}")
    build_dataset(cfg, "test")


def _check_class_names(path: str, trained: list[str] | None, tested: list[str] | None) -> None:
    if not trained or not tested or trained == tested:
        return
    differing = [i for i, (a, b) in enumerate(zip(trained, tested, strict=False)) if a != b]
    example = ""
    if differing:
        first = differing[0]
        example = f": class {first} is {trained[first]!r} there and {tested[first]!r} here"
    raise ValueError(
        f"{path} was trained with other class names or another order ({len(trained)} there, {len(tested)} here)"
        f"{example}; check DATA.CLASS_NAMES_FILE and the label lists"
    )
