"""Draw the pictures of README.md: python docs/draw.py, from the folder of the repository.

images/emim.svg is the EMIM block with the names and sizes that the code has; images/motions.webp are synthetic clips,
their predictions and the displacements that a linear function reads out of the affinities of the EMIM block;
images/explanation.png is what python tools/visualize.py --what cam motion makes of the package's model and clip.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast import create_model, load_model, sample_video
from slowfast.inference.draw import draw_field, visualize
from slowfast.inference.evaluate import linear_design, scene_spec, synthetic_clip, true_tokens
from slowfast.inference.explain import read_affinities
from slowfast.utils.pictures import text_line

IMAGES = Path(__file__).parent / "images"
GREY, BLUE, ORANGE, GREEN = "#f2f2f2", "#56b4e9", "#e69f00", "#009e73"  # of Okabe and Ito, for all eyes
SHOWN, NUM_FITTED, FACTOR = (6, 8, 9, 10), 120, 3  # classes; clips that the readout is fitted on; px of a px


def labels() -> dict[str, str]:
    """Return the texts of the figure, by their place in it; names and sizes are those of the first block of EMIM-S."""
    with torch.device("meta"):
        block = create_model("emim_s", num_classes=174).blocks3[0].attn
    channels, window = block.qkv.in_features, block.window
    motion = [block.motion_conv[0].in_features, *(block.motion_conv[i].out_features for i in (0, 2))]
    heads, depth = block.rpb.shape[0], motion[-1]
    assert channels == heads * depth and motion[0] == window * window
    names = {module: name for name, module in block.named_modules()}
    qkv, motion_conv, proj = (names[module] for module in (block.qkv, block.motion_conv, block.proj))
    return {
        "tokens": f"tokens\n(B, T, H, W, {channels})",
        "qkv": f"{qkv}\n{channels} → {block.qkv.out_features},\n{heads} heads",
        "now": "query, frame t",
        "later": f"{window} x {window} keys, values\nof frame t + 1",
        "affinity": f"affinities  q·k / √{depth} + rpb\n{motion[0]} per token and head: a cost volume",
        "motion": f"{motion_conv}: {' → '.join(map(str, motion))}\nmotion features",
        "appearance": "softmax · values\nappearance features",
        "proj": f"{proj}\n{channels} → {block.proj.out_features}",
    }


def draw_block(path: Path) -> None:
    """Draw the EMIM block from left to right."""
    figure = Figure(figsize=(11, 3.5))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 110), ylim=(0, 35))
    axis.set_axis_off()
    text = labels()

    def box(name: str, x: float, y: float, width: float, height: float, colour: str) -> None:
        style = {"boxstyle": "round,pad=0,rounding_size=1", "facecolor": colour, "edgecolor": "black"}
        axis.add_patch(FancyBboxPatch((x, y), width, height, alpha=0.45, **style))
        axis.text(x + width / 2, y + height / 2, text[name], ha="center", va="center", fontsize=8.5)

    def arrow(*ends: tuple[float, float]) -> None:
        style = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", ends[1], ends[0], arrowprops=style)

    def grid(x: float, y: float, inside: range, colour: str) -> None:
        for i, j in np.ndindex(9, 9):
            face = colour if i in inside and j in inside else GREY
            axis.add_patch(Rectangle((x + i, y + j), 1, 1, facecolor=face, edgecolor="white", linewidth=0.6))

    box("tokens", 1, 14, 14, 7, GREY)
    box("qkv", 19, 14, 11, 7, GREY)
    grid(35, 22, range(4, 5), ORANGE)
    axis.text(39.5, 32, text["now"], ha="center", fontsize=8.5)
    grid(35, 6, range(1, 8), BLUE)
    axis.text(39.5, 1.5, text["later"], ha="center", fontsize=8.5)
    box("affinity", 49, 13.5, 25, 8, ORANGE)
    box("motion", 79, 22, 19, 8, GREEN)
    box("appearance", 79, 5, 19, 8, BLUE)
    axis.text(88.5, 17.5, "+", ha="center", va="center", fontsize=15)
    box("proj", 99.5, 14, 9.5, 7, GREY)
    for ends in (
        ((15, 17.5), (19, 17.5)), ((30, 18.5), (35, 24.5)), ((30, 16.5), (35, 12)), ((44, 25), (49, 19.5)),
        ((44, 12), (49, 15.5)), ((74, 19), (79, 24)), ((74, 16), (79, 11)), ((44, 8), (79, 7)),
        ((88.5, 22), (88.5, 19)), ((88.5, 13), (88.5, 16)), ((90, 17.5), (99.5, 17.5)),
    ):  # fmt: skip
        arrow(*ends)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "emim", "font.family": "sans-serif"}):
        figure.savefig(path, facecolor="white", metadata={"Date": None})


def draw_motions(path: Path) -> None:
    """Draw the animation; the readout is that of :func:`slowfast.inference.evaluate.measure_motion`, for all heads."""
    model = load_model("emim_tiny_motion", "cpu")
    spec = scene_spec(model)

    def read(index: int) -> tuple:
        key, label, frames = synthetic_clip(spec, 0, index)
        (found,) = read_affinities(model.model, model.normalize(frames)).values()
        truth, is_target = true_tokens(key, label, spec, found)
        return frames[0].permute(1, 2, 3, 0).numpy(), found.forward[0].numpy(), truth.numpy(), is_target.numpy()

    fitted = [read(index) for index in range(NUM_FITTED)]
    design = linear_design(np.concatenate([affinity[is_target] for _, affinity, _, is_target in fitted]))
    weights, *_ = np.linalg.lstsq(design, np.concatenate([truth for _, _, truth, _ in fitted]), rcond=None)
    columns = []
    for label in SHOWN:
        frames, affinity, _, is_target = read(NUM_FITTED + label)
        field = np.zeros((*is_target.shape, 2), np.float32)  # px
        field[is_target] = linear_design(affinity[is_target]) @ weights * (frames.shape[2] / is_target.shape[2])
        best = model.predict(frames, views=1).top[0]
        pictures, _ = draw_field(field, frames, FACTOR)
        clear = frames.repeat(FACTOR, 1).repeat(FACTOR, 2)
        title = text_line(f"{best['class']} {100 * best['probability']:.0f} %", clear.shape[2])[None]
        column = np.concatenate([title.repeat(len(frames), 0), clear, pictures], axis=1)[: len(field)]
        columns.append(np.pad(column, ((0, 0), (0, 0), (0, 6), (0, 0)), constant_values=255))
    first, *others = [Image.fromarray(frame) for frame in np.concatenate(columns, axis=2)]
    first.save(path, save_all=True, append_images=others, duration=350, loop=0, quality=85, method=6)


def draw_explanation(path: Path) -> None:
    """Draw the class activation map and the displacements of the sample clip."""
    with tempfile.TemporaryDirectory() as folder:
        visualize("emim_tiny_motion", [sample_video()], ["cam", "motion"], None, "inferno", folder, None, "cpu")
        shutil.copyfile(Path(folder, "sample.png"), path)


if __name__ == "__main__":
    draw_explanation(IMAGES / "explanation.png")
    draw_block(IMAGES / "emim.svg")
    draw_motions(IMAGES / "motions.webp")
