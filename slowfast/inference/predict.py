"""Predictions of many videos for the command line, and timelines of long ones.

Dimension letters: ``M`` videos, ``C`` channels, ``W`` windows, ``K`` classes.
"""

import csv
import itertools
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from slowfast.datasets.augment.transform import build_test_transform
from slowfast.datasets.decoder import DecodeError, FrameReader
from slowfast.datasets.sampling import build_sampler
from slowfast.engine.test import autocast, resolve_precision
from slowfast.inference.inputs import Inputs, expand
from slowfast.inference.model import Prediction, VideoModel, load_model
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, replacing
from slowfast.utils.logging import progress_bar, setup_logging
from slowfast.utils.metrics import ensemble

logger = logging.getLogger(__name__)

COLUMNS = ("path", "label", "class", "probability", "error")
# Classes in the picture of a timeline: those with the highest probability in any window.
_NUM_DRAWN = 12


def predict(
    model: str,
    inputs: list[str],
    top: int,
    views: str,
    out: str | None,
    window_sec: float | None,
    stride_sec: float | None,
    features: str | None,
    device: str,
    workers: int,
) -> int:
    """Do what ``tools/predict.py`` is asked for; return its exit status, 1 where some videos have no score.

    Raises:
        UserError: none of them has one; then nothing is written.
    """
    setup_logging(None, True)
    for option, value, least in (("--top", top, 1), ("--workers", workers, 0)):
        if value < least:
            raise UserError(f"{option} is {value}; allowed: at least {least}")
    for option, value in (("--window-sec", window_sec), ("--stride-sec", stride_sec)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{option} is {value:g}; allowed: above 0")
    if stride_sec is not None and window_sec is None:
        raise UserError("--stride-sec needs --window-sec")
    if features is not None and (window_sec is not None or os.path.isdir(features)):
        raise UserError(f"--features is {features!r}; allowed: a file, without --window-sec")
    if out is not None:
        make_folder(Path(out))
    if features is not None:
        make_folder(Path(features).absolute().parent)
    loaded = load_model(model, device)
    videos = Inputs(expand(inputs, loaded.cfg), loaded.cfg)
    if window_sec is not None:
        return write_timelines(loaded, videos, window_sec, stride_sec or window_sec / 2, top, out)
    predictions = loaded.predict_all(videos, top, views if views == "test" else 1, workers, "prediction")
    for prediction in predictions:
        logger.info("%s", prediction)
    status = _status(sum(bool(prediction.error) for prediction in predictions), len(predictions))
    if out is not None:
        write_predictions(Path(out), predictions)
    if features is not None:
        write_features(features, loaded, videos, predictions)
    return status


def _status(num_bad: int, number: int) -> int:
    """Return the exit status after ``number`` videos, whose errors have been told."""
    if num_bad == number:
        raise UserError("the video cannot be decoded" if number == 1 else f"none of the {number} videos can be decoded")
    if num_bad:
        logger.warning("%d of %d videos have no prediction", num_bad, number)
    return int(num_bad > 0)


def write_predictions(folder: Path, predictions: list[Prediction]) -> None:
    """Write ``predictions.jsonl`` and ``predictions.csv``, one line per video, in order."""
    with replacing(folder / "predictions.jsonl") as file:
        for one in predictions:
            fields = {"path": one.path, "label": one.label, "class": one.class_name, "probability": one.probability}
            file.write(json.dumps({**fields, "top": one.top, **({"error": one.error} if one.error else {})}) + "\n")
    with replacing(folder / "predictions.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in predictions:
            share = "" if one.probability is None else f"{one.probability:.6f}"
            writer.writerow([one.path, one.label, one.class_name, share, one.error])
    logger.info("%s has predictions.jsonl and predictions.csv", folder)


def write_features(path: str, model: VideoModel, videos: Inputs, predictions: list[Prediction]) -> None:
    """Write an .npz file with ``paths`` (M,) and ``features`` (M, C), NaN for videos that cannot be decoded."""
    items = list(zip(videos.records, predictions))
    found = [
        np.nan if prediction.error else model.features(Inputs([record], model.cfg))
        for record, prediction in progress_bar(items, len(items), "features")
    ]
    width = max(np.size(features) for features in found)
    rows = np.stack([np.broadcast_to(features, width) for features in found]).astype(np.float32)
    with replacing(path, "wb") as file:
        np.savez(file, paths=np.array([prediction.path for prediction in predictions]), features=rows)
    logger.info("%s has the features of %d videos: %s", path, len(rows), rows.shape)


def write_timelines(
    model: VideoModel, videos: Inputs, window_sec: float, stride_sec: float, top: int, out: str | None
) -> int:
    """Log, and write as JSON and PNG, the classes of windows over the time of each video; return the exit status."""
    num_bad = 0
    for record, stem in zip(videos.records, videos.stems(out or "")):
        try:
            with videos.open(record) as reader:
                timeline, shares = make_timeline(model, reader, window_sec, stride_sec, top)
        except DecodeError as error:
            logger.warning("%s", error)
            num_bad += 1
            continue
        for label, windows in itertools.groupby(timeline["windows"], key=lambda window: window["label"]):
            first, *_, last = [*windows] * 2
            times = f"{first['start_sec']:8.1f} to {last['end_sec']:8.1f} s"
            logger.info("%s: %s: %s", record.name, times, model.class_names[label])
        if out is not None:
            with replacing(f"{stem}.timeline.json") as file:
                json.dump(timeline, file, indent=1)
            draw_timeline(timeline, shares, model.class_names, f"{stem}.timeline.png")
    return _status(num_bad, len(videos.records))


def make_timeline(
    model: VideoModel, reader: FrameReader, window_sec: float, stride_sec: float, top: int
) -> tuple[dict, np.ndarray]:
    """Classify windows of a video, whose memory does not depend on its length.

    All windows have as many frames, those of ``window_sec`` at the average rate; their times are those of their frames.

    Returns:
        The timeline as plain data, and the probabilities of all windows (W, K).
    """
    rate = reader.frames_per_sec
    if not rate:
        raise DecodeError(reader.path, "it has no frame rate, which --window-sec needs: only video files do")
    length = min(max(1, round(window_sec * rate)), reader.num_frames)  # frames
    num_windows = 1 + math.ceil(max(0, reader.num_frames - length) / max(1.0, stride_sec * rate))
    starts = [min(round(i * max(1.0, stride_sec * rate)), reader.num_frames - length) for i in range(num_windows)]
    shares = np.concatenate([*_score_windows(model, reader, starts, length)])  # (W, K)
    windows = []
    for start, of_window in zip(starts, shares):
        best = model.best_classes(of_window, of_window, top)
        times = {"start_sec": reader.seconds(start), "end_sec": reader.seconds(start + length)}
        windows.append({**times, **best[0], "top": best})
    facts = {"path": reader.path, "window_sec": length / rate, "duration_sec": reader.seconds(reader.num_frames)}
    return {**facts, "windows": windows}, shares


@torch.no_grad()
def _score_windows(model: VideoModel, reader: FrameReader, starts: list[int], length: int) -> Iterator[np.ndarray]:
    """Yield probabilities (w, K) of the centre crop of successive windows."""
    sampler, transform = build_sampler(model.cfg), build_test_transform(model.cfg, 1)
    in_precision = autocast(resolve_precision(model.cfg.TEST.PRECISION, model.device), model.device)
    size = max(1, model.cfg.TEST.BATCH_SIZE)
    for first in progress_bar(range(0, len(starts), size), -(-len(starts) // size), "timeline"):
        clips = [
            transform(reader.read_each(start + sampler.test(length, 0, 1))) for start in starts[first : first + size]
        ]
        with in_precision():
            logits = model.model(model.normalize(torch.cat(clips).to(model.device)))[:, None]
        yield ensemble(logits.float().cpu().numpy(), "mean_probability", model.cfg.DATA.MULTI_LABEL)


def draw_timeline(timeline: dict, shares: np.ndarray, class_names: list[str], path: str) -> None:
    """Draw the probabilities (W, K) of the likeliest classes over the time of the windows."""
    drawn = np.argsort(-shares.max(0), kind="stable")[:_NUM_DRAWN]
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(drawn)), layout="constrained")
    axis = figure.add_subplot()
    centres = [(window["start_sec"] + window["end_sec"]) / 2 for window in timeline["windows"]]
    edges = [0, *((a + b) / 2 for a, b in itertools.pairwise(centres)), timeline["duration_sec"]]
    mesh = axis.pcolormesh(edges, np.arange(len(drawn) + 1), shares[:, drawn].T, vmin=0, vmax=1, cmap="cividis")
    axis.set_yticks(np.arange(len(drawn)) + 0.5, [class_names[label] for label in drawn])
    axis.invert_yaxis()
    axis.set_xlabel("time (s)")
    axis.set_title(os.path.basename(timeline["path"]), parse_math=False)
    figure.colorbar(mesh, label="probability")
    with matplotlib.rc_context({"text.parse_math": False}), replacing(path, "wb") as file:
        figure.savefig(file, dpi=120)
