"""Trained models as files for others: safetensors, ONNX, programs of ``torch.export`` and folders for the Hub."""

import copy
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from slowfast.config import clip_frames
from slowfast.engine.checkpoint import find_run
from slowfast.engine.test import describe_views
from slowfast.inference.model import METADATA, PACKAGED, VideoModel, load_model
from slowfast.models.zoo import ZOO
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, replacing
from slowfast.utils.logging import setup_logging
from slowfast.utils.results import read_results, summary_line, write_json

logger = logging.getLogger(__name__)

# Settings that say where something was on the machine of the training; others have no use for them.
_PLACES = (
    "OUTPUT_DIR", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX", "DATA.PACKED", "DATA.CLASS_NAMES_FILE",
    "DATA.EXCLUDE_FILE", "MODEL.PRETRAINED", "TEST.CHECKPOINT_FILE_PATH",
)  # fmt: skip
# Sizes of the batches on which a file is compared with the model, and the largest difference of its logits allowed,
# relative to the largest logit.
_BATCHES = (1, 2, 5)
_TOLERANCE = {"safetensors": 0.0, "hf-folder": 0.0, "pt2": 1e-4, "onnx": 1e-4}
FORMATS = tuple(_TOLERANCE)

Run = Callable[[torch.Tensor], torch.Tensor]  # from normalised clips (B, 3, T, S, S) to logits (B, K)

CARD = """\
---
library_name: slowfast
pipeline_tag: video-classification
tags: [video-classification, action-recognition]
{license}---
# {title}

{parameters:,} parameters, {num_classes} classes; tested on {views}.

```python
from slowfast import load_model

model = load_model("hf-hub:USER/REPOSITORY")  # or the path of this folder
print(model.predict("clip.mp4"))
```

## Results

{results}

Frames, sampling, crop, mean, standard deviation and class names are in `config.json`.

## Licence

{licence}
"""
# Of the weights that come with a licence: UniFormer's authors publish theirs under MIT, those of this package are under
# its own. What a run has learnt is its owner's to license.
_LICENSES = dict.fromkeys(ZOO, "mit") | dict.fromkeys(PACKAGED, "apache-2.0")


def export(model: str, format: str, out: str, half: bool) -> int:
    """Do what ``tools/export.py`` is asked for: write, compare with the model, and only then put in place."""
    setup_logging(None, True)
    if half and format not in ("safetensors", "hf-folder"):
        raise UserError(f"--half rounds the weights of safetensors and hf-folder; {format} computes in float32")
    loaded, folder = load_model(model, "cpu"), Path(out)
    make_folder(folder)
    if half:
        round_weights(loaded)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        try:
            run = _WRITERS[format](loaded, Path(temporary), model, half)
            difference = largest_difference(loaded, run)
        except UserError:
            raise
        except Exception as error:  # of the tracing of the network, or of the runtime
            name, reason = loaded.cfg.MODEL.MODEL_NAME, f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{format}: {name} cannot be exported ({reason}); nothing is in {out}") from error
        if not difference <= _TOLERANCE[format]:
            raise UserError(f"{format}: logits differ by {difference:.1e}, which is too much; nothing is in {out}")
        names = sorted(os.listdir(temporary))
        if "README.md" in names and (folder / "README.md").exists():  # its owner was asked to write in it
            logger.info("%s stays as it is: delete it before to have a new one", folder / "README.md")
            names.remove("README.md")
        for name in names:
            os.replace(Path(temporary, name), folder / name)
    batches = ", ".join(map(str, _BATCHES))
    compared = f"logits differ by {difference:.1e} at most in batches of {batches}"
    logger.info("%s has %s; %s", out, ", ".join(names), compared)
    return 0


def round_weights(model: VideoModel) -> None:
    """Round all weights to float16, which halves files; say what that does to logits."""
    clips = random_clips(model, 2)
    with torch.no_grad():
        before = model.model(clips)
        for tensor in model.model.state_dict().values():
            tensor.copy_(tensor.half() if tensor.is_floating_point() else tensor)
        change = (model.model(clips) - before).abs().max() / before.abs().max()
    logger.info("rounding weights to float16 changes logits by %.1e", change)


def random_clips(model: VideoModel, number: int) -> torch.Tensor:
    """Return normalised clips (B, 3, T, S, S) of noise."""
    side = model.cfg.DATA.TEST_CROP_SIZE
    shape = (number, 3, clip_frames(model.cfg), side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


@torch.no_grad()
def largest_difference(model: VideoModel, run: Run) -> float:
    """Return the largest difference of ``run`` to the model, relative to the largest logit."""
    worst = 0.0
    for number in _BATCHES:
        clips = random_clips(model, number)
        wanted = model.model(clips)
        worst = max(worst, float((run(clips) - wanted).abs().max() / wanted.abs().max()))
    return worst


def describe(model: VideoModel) -> dict:
    """Return settings, as YAML text without paths of this machine, and class names."""
    places = [word for key in _PLACES for word in (key, "")]
    return {"cfg": model.cfg.with_settings(*places).dump(), "class_names": model.class_names}


def preprocessing(model: VideoModel) -> dict:
    """Return how the central view of a video becomes the input of an exported program, as plain data."""
    data = model.cfg.DATA
    return {
        "input": "clips: float32 (batch, 3, num_frames, crop_size, crop_size), (RGB / 255 - mean) / std",
        "output": "logits: float32 (batch, classes)",
        "num_frames": clip_frames(model.cfg),
        "frame_sampling": data.FRAME_SAMPLING,
        "sampling_rate": data.SAMPLING_RATE,
        "short_video": data.SHORT_VIDEO,
        "short_side": data.TEST_SHORT_SIDE or data.TEST_CROP_SIZE,
        "interpolation": data.TEST_INTERPOLATION,
        "crop_size": data.TEST_CROP_SIZE,
        "mean": data.MEAN,
        "std": data.STD,
        "multi_label": data.MULTI_LABEL,
        "class_names": model.class_names,
    }


def write_safetensors(model: VideoModel, path: Path, half: bool = False) -> None:
    """Write weights, settings and class names to one file that :func:`inference.model.load_model` reads.

    ``half`` rounds the weights to float16.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.model.state_dict().items()}
    state = {name: x.half() if half and x.is_floating_point() else x for name, x in state.items()}
    with replacing(path, "wb") as file:
        file.write(save(state, {METADATA: json.dumps(describe(model))}))


def _write_safetensors(model: VideoModel, folder: Path, source: str, half: bool) -> Run:
    write_safetensors(model, folder / "model.safetensors", half)
    return load_model(folder / "model.safetensors", "cpu").model


def _write_hub_folder(model: VideoModel, folder: Path, source: str, half: bool) -> Run:
    write_safetensors(model, folder / "model.safetensors", half)
    write_json(str(folder / "config.json"), {METADATA: describe(model)})
    results = results_of(source)
    text = "They were not measured, or the measurement did not come with the model."
    if results is not None:
        data = os.path.basename(os.path.normpath(model.cfg.DATA.PATH_TO_DATA_DIR))
        text = f"On `{data}`, {summary_line(results)}."
    license = _LICENSES.get(source)
    licence = f"{license}, which the weights were published under."
    if license is None:
        licence = "Not stated. Who publishes these weights chooses one and adds `license:` to the head of this file."
    with replacing(folder / "README.md") as file:
        file.write(
            CARD.format(
                title=f"{model.cfg.MODEL.MODEL_NAME}, {Path(source).stem or source}",
                parameters=sum(parameter.numel() for parameter in model.model.parameters()),
                num_classes=model.cfg.MODEL.NUM_CLASSES,
                views=describe_views(model.cfg),
                results=text,
                license=f"license: {license}\n" if license else "",
                licence=licence,
            )
        )
    return load_model(folder, "cpu").model


def results_of(source: str) -> dict | None:
    """Return the results of the test of a run, or of one of its checkpoints, that are beside it."""
    path = Path(source)
    if path.is_file() and path.suffix == ".pyth":
        results = read_results(str(path.parents[1]))
        return results if results and Path(results["checkpoint"]).name == path.name else None
    is_run = (path.is_dir() and not (path / "model.safetensors").exists()) or source.endswith((".yaml", ".yml"))
    return read_results(find_run(source)[0]) if is_run else None


def _write_pt2(model: VideoModel, folder: Path, source: str, half: bool) -> Run:
    program = torch.export.export(
        model.model, (random_clips(model, 2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},)
    )
    torch.export.save(program, folder / "model.pt2")
    write_json(str(folder / "model.json"), preprocessing(model))
    return torch.export.load(folder / "model.pt2").module()


def _write_onnx(model: VideoModel, folder: Path, source: str, half: bool) -> Run:
    try:
        import onnxruntime
        from onnxscript import optimizer
    except ImportError as error:
        advice = 'pip install "slowfast-emim[export]", in the repository pip install -r requirements-export.txt'
        raise UserError(f"{error.name} is missing, which ONNX needs: {advice}") from error
    logger.info("tracing and translating, which takes minutes for large models")
    network = copy.deepcopy(model.model)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and module.bias is None:
            # The exporter of torch 2.14 would write one of a wrong shape.
            module.bias = torch.nn.Parameter(torch.zeros(module.out_channels))
    program = torch.onnx.export(
        network, (random_clips(model, 2),), dynamo=True, verbose=False, optimize=False,
        input_names=["clips"], output_names=["logits"], dynamic_shapes=({0: "batch"},),
    )  # fmt: skip
    # Of the exporter's optimisations, which take as long as all the rest, what ONNX Runtime does not do before it looks
    # for convolutions that it has fast kernels for.
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    program.save(folder / "model.onnx")
    write_json(str(folder / "model.json"), preprocessing(model))
    shutil.copy(str(resources.files(__package__).joinpath("run_onnx.py")), folder / "run_onnx.py")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(np.asarray(session.run(None, {"clips": clips.numpy()})[0]))


_WRITERS = dict(zip(FORMATS, (_write_safetensors, _write_hub_folder, _write_pt2, _write_onnx)))
