"""Trained models as files for others: safetensors with all that belongs to the model."""

import json
from pathlib import Path

from slowfast.inference.model import METADATA, VideoModel
from slowfast.utils.files import replacing

# Settings that say where something was on the machine of the training; others have no use for them.
_PLACES = (
    "OUTPUT_DIR", "DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX", "DATA.PACKED", "DATA.CLASS_NAMES_FILE",
    "DATA.EXCLUDE_FILE", "MODEL.PRETRAINED", "TEST.CHECKPOINT_FILE_PATH",
)  # fmt: skip


def describe(model: VideoModel) -> dict:
    """Return settings, as YAML text without paths of this machine, and class names."""
    places = [word for key in _PLACES for word in (key, "")]
    return {"cfg": model.cfg.with_settings(*places).dump(), "class_names": model.class_names}


def write_safetensors(model: VideoModel, path: Path, half: bool = False) -> None:
    """Write weights, settings and class names to one file that :func:`inference.model.load_model` reads.

    ``half`` rounds the weights to float16.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.model.state_dict().items()}
    state = {name: x.half() if half and x.is_floating_point() else x for name, x in state.items()}
    with replacing(path, "wb") as file:
        file.write(save(state, {METADATA: json.dumps(describe(model))}))
