"""Score files: what a model said about every view of every video, from which everything else can be computed.

A score file is an ``.npz`` that ``numpy.load`` opens without pickle. Letters: ``M`` videos, ``V`` views, ``K`` classes.

===============  ==================  ==================================================================================
array            shape, type         content
===============  ==================  ==================================================================================
``videos``       (M,) text           paths as in the list file
``labels``       (M,) int64          true classes
``views``        (V,) int64          numbers of the views, ``clip * crops + crop``
``logits``       (M, V, K) float32   outputs of the model; NaN for a video that has no score
``scores``       (M, K) float64      scores of the videos, by the ensemble method in ``facts``
``class_names``  (K,) text           or (0,) if classes have no names
``facts``        () text             JSON: protocol (and view_protocol, without the ensemble method), ensemble_method,
                                     checkpoint, checkpoint_time, epoch, precision, bad_videos, config
===============  ==================  ==================================================================================

A file of another program needs ``videos``, ``labels`` and ``logits`` only.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Content of a score file, see the top of this module; ``path`` is the file, for messages."""

    videos: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    class_names: list[str] | None = None
    facts: dict = field(default_factory=dict)
    path: str = ""


def save_scores(path: str, saved: Scores, scores: np.ndarray) -> None:
    """Write a score file; ``scores`` (M, K) are those of the videos. The file is there completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = {
        "videos": np.asarray(saved.videos, dtype=np.str_),
        "labels": saved.labels,
        "views": np.arange(saved.logits.shape[1]),
        "logits": saved.logits,
        "scores": scores,
        "class_names": np.asarray(saved.class_names or [], dtype=np.str_),
        "facts": np.asarray(json.dumps(saved.facts)),
    }
    temporary = f"{path}.writing"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        # Half a file on a full disk would only be in the way.
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise OSError(f"the scores cannot be written to {path}: {error.strerror or error}") from error


def load_scores(path: str) -> Scores:
    """Read a score file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no score file, or its arrays do not fit together.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"score file {path} does not exist; a test writes one into its OUTPUT_DIR")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{path} is no score file (.npz), or it is damaged: {error}") from error
    missing = [name for name in ("videos", "labels", "logits") if name not in arrays]
    if missing:
        raise ValueError(f"{path} is no score file: it has no {', '.join(missing)}; found: {', '.join(arrays)}")
    videos, labels, logits = arrays["videos"], arrays["labels"], arrays["logits"]
    if logits.ndim != 3 or 0 in logits.shape or not videos.shape == labels.shape == logits.shape[:1]:
        raise ValueError(
            f"{path}: videos {videos.shape}, labels {labels.shape} and logits {logits.shape} must have the shapes "
            "(M,), (M,) and (M, V, K)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[2]:
        raise ValueError(
            f"{path}: labels must be integers from 0 to {logits.shape[2] - 1}, "
            f"found {labels.min()} to {labels.max()} ({labels.dtype})"
        )
    class_names = arrays.get("class_names", np.empty(0)).tolist() or None
    if class_names and len(class_names) != logits.shape[2]:
        raise ValueError(f"{path}: {len(class_names)} class names for logits of {logits.shape[2]} classes")
    facts = json.loads(str(arrays["facts"])) if "facts" in arrays else {}
    return Scores(videos.astype(np.str_), labels.astype(np.int64), logits, class_names, facts, path)
