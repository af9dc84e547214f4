"""One object to use a trained model: it knows its classes, frames, sampling, crops and normalisation.

Dimension letters: ``M`` videos, ``V`` views of a video, ``K`` classes, ``T`` frames, ``C`` channels.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from slowfast.config.defaults import get_cfg
from slowfast.config.parser import CfgNode
from slowfast.datasets.augment.on_device import build_normalize
from slowfast.datasets.augment.transform import build_test_transform
from slowfast.datasets.loader import make_loader
from slowfast.datasets.sampling import build_sampler
from slowfast.datasets.video_dataset import EvalVideos
from slowfast.engine.checkpoint import checkpoint_to_test, find_run, load_model_state
from slowfast.engine.test import Evaluation, resolve_precision, score_views
from slowfast.inference.inputs import Inputs, Video
from slowfast.models import build_model
from slowfast.models.pretrained import read_checkpoint, unwrap_weights
from slowfast.models.zoo import ARCHITECTURES, HUB_PREFIX, ZOO, fetch
from slowfast.prepare.kinetics400 import class_names as kinetics_names
from slowfast.utils.distributed import Process, choose_device
from slowfast.utils.errors import UserError
from slowfast.utils.metrics import ensemble

# Trained models in this package, by the name of their file.
PACKAGED = ("emim_tiny_motion",)
# Key of the metadata of a safetensors file, and content of a folder's config.json: settings and class names.
METADATA = "slowfast"


@dataclass(frozen=True)
class Prediction:
    """Prediction of one video; without a score ``error`` says why, and all the rest is empty."""

    path: str
    label: int | None = None
    class_name: str | None = None
    probability: float | None = None  # of the predicted class, averaged over the views
    top: list[dict[str, Any]] = field(default_factory=list)  # label, class and probability of the best classes
    logits: np.ndarray | None = None  # float32 (V, K)
    error: str = ""

    def __str__(self) -> str:
        best = ", ".join("{class} {percent:.1f} %".format(**one, percent=100 * one["probability"]) for one in self.top)
        return f"{self.path}: {self.error or best}"


class VideoModel:
    """A model in evaluation mode with all that belongs to it.

    Attributes:
        model: the network; it takes normalised clips (B, 3, T, H, W) and returns logits (B, K).
        cfg: its settings, frozen.
        class_names: in label order; their numbers where names are not known.
        device: of the network.
    """

    def __init__(self, model: nn.Module, cfg: CfgNode, class_names: list[str] | None = None, device: str = "auto"):
        self.device = choose_device(device, 0)
        self.model = model.to(self.device).eval()
        self.cfg = cfg.clone()
        self.cfg.freeze()
        self.class_names = class_names or [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]
        self.normalize = build_normalize(cfg)

    def best_classes(self, scores: np.ndarray, probabilities: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Return label, class and probability of the classes with the highest scores, (K,) both."""
        best = [int(label) for label in np.argsort(-scores, kind="stable")[:top]]
        return [
            {"label": label, "class": self.class_names[label], "probability": float(probabilities[label])}
            for label in best
        ]

    def evaluation(self, videos: Inputs, views: str | int = "test", num_workers: int = 0) -> Evaluation:
        """Return the views of videos, those of the test or the central one (``views`` 1), ready to be scored."""
        if views not in ("test", 1):
            raise UserError(f"views is {views!r}; allowed: 'test' | 1")
        test = self.cfg.TEST
        num_clips, num_crops = (test.NUM_ENSEMBLE_VIEWS, test.NUM_SPATIAL_CROPS) if views == "test" else (1, 1)
        dataset = EvalVideos(
            videos, build_sampler(self.cfg), build_test_transform(self.cfg, num_crops), num_clips=num_clips
        )
        loader = make_loader(
            self.cfg, dataset, test.BATCH_SIZE, range(len(dataset)), self.cfg.DATA.TEST_CROP_SIZE, num_workers
        )
        precision = resolve_precision(test.PRECISION, self.device)
        process = Process(0, 1, 0, self.device)
        return Evaluation(loader, self.normalize, precision, process, "report", self.cfg.DATA.ENSEMBLE_METHOD)

    def predict(self, video: Video | Iterable[Video], top: int = 5, views: str | int = "test", num_workers: int = 0):
        """Classify videos by the transforms, views and ensemble of the test.

        Args:
            video: a video file, a folder of frames, frames (T, H, W, 3) uint8 RGB, or several of these.
            top: how many of the best classes to tell.
            views: ``test`` for all views of the test, 1 for the central one.
            num_workers: processes that decode.

        Returns:
            A :class:`Prediction`; for several videos a list of them, in their order.

        Raises:
            UserError: the one video cannot be decoded; of several, each has its own ``error``.
        """
        is_one = isinstance(video, (str, os.PathLike, np.ndarray))
        predictions = self.predict_all(Inputs([video] if is_one else video, self.cfg), top, views, num_workers)
        if is_one and predictions[0].error:
            raise UserError(str(predictions[0]))
        return predictions[0] if is_one else predictions

    def predict_all(
        self, videos: Inputs, top: int = 5, views: str | int = "test", num_workers: int = 0, progress: str = ""
    ) -> list[Prediction]:
        """Classify the records of ``videos``, with a progress bar of that name if it has one."""
        scored = score_views(self.model, self.evaluation(videos, views, num_workers), progress)
        scores, shares = (
            ensemble(scored.logits, way, multi_label=self.cfg.DATA.MULTI_LABEL)
            for way in (self.cfg.DATA.ENSEMBLE_METHOD, "mean_probability")
        )
        reasons = {bad["path"]: bad["reason"] for bad in scored.bad_videos}
        found = []
        for record, logits, of_video, probabilities in zip(videos.records, scored.logits, scores, shares):
            if np.isnan(of_video).any():
                found.append(Prediction(record.name, error=reasons[record.path]))
                continue
            told = self.best_classes(of_video, probabilities, top)
            found.append(Prediction(record.name, *told[0].values(), told, logits))
        return found

    @torch.no_grad()
    def features(self, video: Video | Inputs, kind: str = "pooled", views: str | int = 1) -> np.ndarray:
        """Return what the classifier sees of a video, float32: ``pooled`` (C,), mean over the views.

        ``map`` is the last map, (C, T', H', W') of the central view.
        """
        if kind not in ("pooled", "map"):
            raise UserError(f"kind is {kind!r}; allowed: 'pooled' | 'map'")
        videos = video if isinstance(video, Inputs) else Inputs([video], self.cfg)
        evaluation = self.evaluation(videos, 1 if kind == "map" else views)
        maps = []
        for batch in evaluation.loader:
            for bad in batch.bad:
                raise UserError(f"{bad.path}: {bad.reason}")
            maps.append(self.model.forward_features(self.normalize(batch.clips.to(self.device))))
        features = torch.cat(maps).float()  # (V, C, T', H', W')
        return (features[0] if kind == "map" else features.flatten(2).mean((0, 2))).cpu().numpy()

    def explain(self, video: Video, what: Sequence[str] = ("cam",), label: str | int | None = None):
        """Return what the prediction of a video rests on: see :func:`slowfast.inference.explain.explain`."""
        from slowfast.inference.explain import explain

        return explain(self, video, what, label)


def sample_video() -> str:
    """Return the path of a clip that comes with the package, of a class that ``emim_tiny_motion`` knows."""
    return str(resources.files(__package__).joinpath("weights/sample.mp4"))


def list_models() -> list[str]:
    """Return the names that :func:`create_model` and :func:`load_model` know."""
    return sorted([*ARCHITECTURES, *ZOO, *PACKAGED])


def create_model(name: str, num_classes: int, num_frames: int | None = None, **settings: Any) -> nn.Module:
    """Return a network with fresh weights, without a YAML file.

    Args:
        name: a key of ``models.zoo.ARCHITECTURES``.
        num_classes: of its classifier.
        num_frames: of its clips; any number will do, it is only kept with the model.
        settings: keys of the configuration over those of the architecture, dots as two underscores: ``EMIM__WINDOW``.
    """
    return build_model(architecture_cfg(name, num_classes, num_frames, **settings))


def architecture_cfg(name: str, num_classes: int, num_frames: int | None = None, **settings: Any) -> CfgNode:
    """Return the settings of a named architecture."""
    if name not in ARCHITECTURES:
        raise UserError(f"there is no architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    keys = {**ARCHITECTURES[name], "MODEL.NUM_CLASSES": num_classes}
    keys |= {} if num_frames is None else {"DATA.NUM_FRAMES": num_frames}
    keys |= {key.replace("__", "."): value for key, value in settings.items()}
    return _cfg(keys)


def load_model(source: str | os.PathLike, device: str = "auto") -> VideoModel:
    """Load a trained model.

    Args:
        source: the output folder of a run or its experiment (whose checkpoint is chosen by TEST.CHECKPOINT), a
            checkpoint, a file or folder that ``tools/export.py`` made, a name of :func:`list_models`, or
            ``hf-hub:USER/REPOSITORY[/FILE]``.
        device: auto, cpu or cuda.
    """
    source = os.fspath(source)
    if source in PACKAGED:
        return _load_file(str(resources.files(__package__).joinpath(f"weights/{source}.safetensors")), device)
    if source in ZOO:
        return _load_published(source, device)
    if source.startswith(HUB_PREFIX):
        path = fetch(source)
        description = _description(fetch(f"{HUB_PREFIX}{'/'.join(source.split(':')[1].split('/')[:2])}/config.json"))
        return _load_file(path, device, description if path.endswith("model.safetensors") else None)
    if os.path.isfile(os.path.join(source, "model.safetensors")):
        config = os.path.join(source, "config.json")  # which is in the safetensors file, too, where it came alone
        description = _description(config) if os.path.isfile(config) else None
        return _load_file(os.path.join(source, "model.safetensors"), device, description)
    if os.path.isdir(source) or source.endswith((".yaml", ".yml")):
        folder, _ = find_run(source, "a model")
        cfg = _run_cfg(folder)
        return _load_file(checkpoint_to_test(folder, "", cfg.TEST.CHECKPOINT if cfg else "best"), device, cfg=cfg)
    if not os.path.isfile(source):
        known = ", ".join([*PACKAGED, *ZOO])
        raise UserError(f"there is no model {source!r}: neither a file or folder there is, nor one of {known}")
    return _load_file(source, device)


def _load_file(path: str, device: str, description: dict | None = None, cfg: CfgNode | None = None) -> VideoModel:
    """Load weights with the settings ``cfg`` or else those of a ``description``, by default that in the file."""
    content = read_checkpoint(path)
    if path.endswith(".safetensors") and description is None:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    description = description or content
    if not description.get("cfg"):
        problem = "has weights but no settings: it is no checkpoint of this program"
        raise UserError(f"{path} {problem}; name what it is (one of {', '.join(ZOO)}) or use slowfast.create_model")
    if cfg is None:
        cfg = get_cfg()
        cfg.merge_from_text(description["cfg"], path)
    weights = content.get("ema_state") if cfg.TEST.WEIGHTS == "ema" else None
    model = build_model(cfg)
    load_model_state(model, weights or unwrap_weights(content, path, model.state_dict())[0], path)
    return VideoModel(model, cfg, description.get("class_names"), device)


def _load_published(name: str, device: str) -> VideoModel:
    published = ZOO[name]
    cfg, path = _cfg(published.settings), fetch(name)
    model = build_model(cfg)
    load_model_state(model, unwrap_weights(read_checkpoint(path), path, model.state_dict())[0], path)
    names = {
        "kinetics400": lambda: kinetics_names("uniformer"),
        "imagenet": lambda: ResNet18_Weights.DEFAULT.meta["categories"],
        "": lambda: None,
    }
    return VideoModel(model, cfg, names[published.classes](), device)


def _cfg(keys: dict[str, Any]) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list([word for pair in keys.items() for word in pair])
    return cfg


def _run_cfg(folder: str) -> CfgNode | None:
    """Return the settings of what a run did last, training or test; None where they did not come with it."""
    cfg, path = get_cfg(), os.path.join(folder, "config.yaml")
    if not os.path.isfile(path):
        return None
    cfg.merge_from_file(path)
    return cfg


def _description(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            description = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if METADATA not in description:
        raise UserError(f"{path} is not of a folder that tools/export.py made")
    return description[METADATA]
