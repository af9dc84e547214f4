"""Multi-view test: every view of every video once, combined per video, written as scores, JSON, CSV and pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

import numpy as np
from torch import nn

from slowfast.datasets.augment.on_device import build_normalize
from slowfast.datasets.build import build_dataset
from slowfast.datasets.loader import construct_loader
from slowfast.datasets.manifest import Record
from slowfast.engine.checkpoint import checkpoint_to_test, load_model_state
from slowfast.engine.evaluate import ON_BAD_VIDEO, score_views
from slowfast.engine.precision import resolve_precision
from slowfast.engine.record import Recorder
from slowfast.engine.results import SCORES, measure, summary_line, write_results
from slowfast.engine.scores import Scores, save_scores
from slowfast.models import build_model
from slowfast.models.pretrained import read_checkpoint, unwrap_weights
from slowfast.utils.distributed import Process
from slowfast.utils.metrics import ENSEMBLE_METHODS, ensemble

logger = logging.getLogger(__name__)

# What TEST.WEIGHTS may name.
WEIGHTS = ("model", "ema")


def test(cfg, process: Process, recorder: Recorder) -> dict | None:
    """Test a checkpoint, or a weight file as others publish them, on all views and write the results to OUTPUT_DIR.

    Returns:
        The content of ``test_results.json`` on the main process, None on the others.

    Raises:
        FileNotFoundError: no checkpoint or no list file.
        ValueError: a file that does not fill the model exactly or has other class names, or a bad video.
    """
    precision = resolve_precision(cfg.TEST.PRECISION, process.device, "TEST.PRECISION")
    loader = construct_loader(cfg, "test", process.rank, process.world_size)
    path = checkpoint_to_test(cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH)
    model, state = load_tested(cfg, path, loader.dataset.class_names)
    model.to(process.device)
    logger.info(
        "testing %s (%s) on %d videos x %d views of %s",
        path, f"epoch {state['epoch']}" if "epoch" in state else "weights only", loader.dataset.num_videos,
        loader.dataset.num_views, loader.dataset.records[0].origin.rpartition(":")[0],
    )  # fmt: skip

    views = score_views(model, loader, build_normalize(cfg), process, precision, cfg.TEST.ON_BAD_VIDEO, "test")
    if views is None:
        return None
    view_protocol = describe_views(cfg)
    facts = {
        "protocol": f"{view_protocol}, {cfg.DATA.ENSEMBLE_METHOD}",
        "view_protocol": view_protocol,
        "ensemble_method": cfg.DATA.ENSEMBLE_METHOD,
        "checkpoint": path,
        "checkpoint_time": os.path.getmtime(path),
        "epoch": state.get("epoch"),
        "weights": cfg.TEST.WEIGHTS,
        "precision": precision,
        "bad_videos": views.bad_videos,
        "config": cfg.dump(),
    }
    names = loader.dataset.class_names
    saved = Scores(_listed_paths(cfg, loader.dataset.records), views.labels, views.logits, names, facts)
    scores = ensemble(views.logits, cfg.DATA.ENSEMBLE_METHOD)
    results = measure(scores, views.labels, views.logits.shape[1], **facts)
    # First what cost hours: the line, should the disk be full, then the scores.
    logger.info(summary_line(results))
    recorder.event("test", **{key: value for key, value in results.items() if key != "config"})
    save_scores(os.path.join(cfg.OUTPUT_DIR, SCORES), saved, scores)
    write_results(cfg.OUTPUT_DIR, results, scores, views.labels, names)
    return results


def load_tested(cfg, path: str, class_names: list[str] | None) -> tuple[nn.Module, dict]:
    """Return the model with the weights of ``path``, on the CPU, and the content of that file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file does not fill the model exactly, or was trained with other class names.
    """
    state = read_checkpoint(path)
    _check_class_names(path, state.get("class_names"), class_names)
    model = build_model(cfg)
    load_model_state(model, _chosen_weights(state, cfg.TEST.WEIGHTS, path, model.state_dict()), path)
    return model, state


def describe_views(cfg) -> str:
    """Return how a video is tested: frames, views, resolution and sampling."""
    clips, crops = cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS
    return (
        f"{cfg.DATA.NUM_FRAMES} frames x {clips} clips x {crops} crops, {_describe_crop(cfg.DATA)}, "
        f"{cfg.DATA.FRAME_SAMPLING} sampling"
    )


def _chosen_weights(state: dict, which: str, path: str, names: Collection[str]) -> dict:
    if which == "model":
        return unwrap_weights(state, path, names)[0]
    if not state.get("ema_state"):
        raise ValueError(f"TEST.WEIGHTS is ema, but {path} has no averaged weights (SOLVER.EMA_DECAY makes them)")
    return state["ema_state"]


def _listed_paths(cfg, records: list[Record]) -> np.ndarray:
    """Return the paths of the videos as the list has them, so that they are the same on every machine."""
    folder = os.path.join(cfg.DATA.PACKED or cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR, "")
    return np.array([record.path.removeprefix(folder) for record in records])


def _describe_crop(data) -> str:
    side, short_side = data.TEST_CROP_SIZE, data.TEST_SHORT_SIDE or data.TEST_CROP_SIZE
    is_default = short_side == side and data.TEST_INTERPOLATION == "bilinear"
    return f"{side}x{side} px" + ("" if is_default else f" of short side {short_side} ({data.TEST_INTERPOLATION})")


def check_test_settings(cfg) -> None:
    """Raise ValueError or FileNotFoundError for whatever in the settings or the list of the test is wrong."""
    if cfg.DATA.ENSEMBLE_METHOD not in ENSEMBLE_METHODS:
        allowed = ", ".join(ENSEMBLE_METHODS)
        raise ValueError(f"DATA.ENSEMBLE_METHOD must be one of {allowed}, found {cfg.DATA.ENSEMBLE_METHOD!r}")
    if cfg.TEST.ON_BAD_VIDEO not in ON_BAD_VIDEO:
        allowed = ", ".join(ON_BAD_VIDEO)
        raise ValueError(f"TEST.ON_BAD_VIDEO must be one of {allowed}, found {cfg.TEST.ON_BAD_VIDEO!r}")
    if cfg.TEST.WEIGHTS not in WEIGHTS:
        raise ValueError(f"TEST.WEIGHTS must be one of {', '.join(WEIGHTS)}, found {cfg.TEST.WEIGHTS!r}")
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
