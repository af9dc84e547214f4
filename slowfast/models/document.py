"""The text of ``docs/models.md``: python -m slowfast.models.document > docs/models.md."""

import sys

import torch

from slowfast.config.defaults import get_cfg
from slowfast.models.build import build_model
from slowfast.models.complexity import count_gmacs, count_parameters
from slowfast.models.zoo import ARCHITECTURES

_HEAD = """\
# Models

Made by `python -m slowfast.models.document`. A name stands for the settings behind it: `slowfast.create_model("x3d_s",
num_classes=400)` builds the network, a YAML file gives the settings themselves. Arguments of a constructor are
`MODEL.ARGS`, checked against its signature; classes, frames and sides are always taken from the rest of the
configuration. Parameters are those with 400 classes (1,000 for stills), GFLOPs billions of multiply-accumulates of one
clip, counted operator by operator as the network runs it, with the side of a crop in training and in testing.

| name | MODEL.MODEL_NAME | MODEL.ARGS | parameters (M) | frames | side (px) | GFLOPs | side in test | GFLOPs |
|---|---|---|---|---|---|---|---|---|
"""

_TAIL = """
A run warns where mean, standard deviation, frames or side are others than those that the model was published with. A
clip that a network cannot take, an argument that it does not know and a name that is none are refused at once.

SlowFast (arXiv 1812.03982) and X3D (arXiv 2004.04730) have the parameter names of PyTorchVideo's model files, which
`MODEL.PRETRAINED` and `TEST.CHECKPOINT_FILE_PATH` read; `tests/models/test_slowfast_x3d.py` compares logits where
PyTorchVideo is installed. Both average over the whole last map, whatever its size; the public code slides a window of
the training's size over the larger map of a test and averages after the classifier, X3D's after the softmax.
SlowFast takes a multiple of `alpha` frames.

Networks of other libraries are those libraries' own modules (`transformers/NAME` needs `requirements-zoo.txt`), so
that logits equal theirs and weight files of theirs load, in `MODEL.PRETRAINED`, under their names:

| MODEL.MODEL_NAME | arguments | what it cannot |
|---|---|---|
| `torchvision/r3d_18`, `mc3_18`, `r2plus1d_18` | `layers`, `width`, `zero_init_residual` | recompute activations |
| `torchvision/s3d` | `dropout` | recompute activations; fewer than 14 frames or 224 px |
| `torchvision/mvit_v1_b`, `mvit_v2_s` | `width`, `depth`, `dropout`, `attention_dropout`, `stochastic_depth_prob` | \
recompute activations; another side in test; give features (its classifier sees a token) |
| `torchvision/swin3d_t`, `_s`, `_b` | `embed_dim`, `depths`, `num_heads`, `window_size`, `patch_size`, `mlp_ratio`, \
`dropout`, `attention_dropout`, `stochastic_depth_prob`, `emim`, `emim_in_place` | recompute activations |
| `transformers/timesformer`, `videomae`, `vivit`, `vjepa2` | those of its configuration class | another side in test, \
TimeSformer and V-JEPA 2 aside; give features, VideoMAE aside |
| `timm/NAME` | those of its class, `shift`, `emim` and `emim_in_place` | see motion but by these two; give \
features, convolutional ones aside |

`timm/NAME` is any image network of timm on every frame, the mean of whose logits is the clip's (TSN, arXiv 1608.00859).
`shift 8` gives every residual branch an eighth of its channels from the next frame and an eighth from the one before
(TSM, arXiv 1811.08383); it is for blocks that begin with `conv1` or `norm1`, which ResNets and vision transformers do.
Position tables of a file with another number of frames or another side are interpolated, and the report of the loading
names them.

EMIM goes into other networks as a block beside their attention, with `MODEL.ARGS.emim` 1 for every block and 2 for
every other one: in `torchvision/swin3d_*` in stages 3 and 4, whose windows `EMIM.WINDOW` has; in vision transformers
of timm (`timm/vit_small_patch16_224`) between neighbouring frames, with the first of them. Its projection starts at
zero, so that before the first step the network is the plain one to the last bit, and files of the plain one fill it.
With `MODEL.ARGS.emim_in_place True` it takes the place of their attention and keeps its projections, which files of
the plain network fill, as in EMIM's own UniFormer. That is another network from the start: a token attends to a
window of the next frame instead of its own frame or 3-D window, so that only a block beside can begin as the plain
one. A class token has no place in the grid: vision transformers need `class_token False` and `global_pool avg` for
it.

Every model has GFLOPs, layer-wise learning rates and exports to `safetensors`, `hf-folder`, `pt2` and `onnx`; where a
network cannot be traced, `tools/export.py` says so and writes nothing. Grad-CAM needs features to give, see above.
"""


def document() -> str:
    """Return the table of all architectures and what has to be known of them, as Markdown."""
    return _HEAD + "".join(map(_row, ARCHITECTURES)) + _TAIL


def _row(name: str) -> str:
    settings, cfg = ARCHITECTURES[name], get_cfg()
    cfg.merge_from_list([word for pair in settings.items() for word in pair])
    data = cfg.DATA
    cfg.MODEL.NUM_CLASSES = 1000 if data.NUM_FRAMES == 1 else 400
    with torch.device("meta"):
        model = build_model(cfg)
    sides = (data.TRAIN_CROP_SIZE, data.TEST_CROP_SIZE)
    counts = [f"{side} | {count_gmacs(model, (3, data.NUM_FRAMES, side, side)):.4g}" for side in sides]
    args = ", ".join(f"{key} {value}" for key, value in cfg.MODEL.ARGS.items())
    facts = (f"`{name}`", cfg.MODEL.MODEL_NAME, args, f"{count_parameters(model) / 1e6:.2f}", data.NUM_FRAMES, *counts)
    return f"| {' | '.join(map(str, facts))} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
