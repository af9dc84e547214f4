"""Explanations as files: a strip of pictures (PNG), a video (H.264) and one page (HTML) that needs no network.

Dimension letters: ``T`` frames, ``S`` side of a frame (px), ``Z`` that of a shown one, ``F`` pairs of frames, ``h w``
token grid.
"""

import base64
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import jinja2
import numpy as np
import torch
from PIL import Image
from torchvision.utils import flow_to_image

from slowfast.inference.evaluate import MIN_CLIPS, evaluate
from slowfast.inference.explain import Explanation, MotionField, MotionPrompts, explain
from slowfast.inference.inputs import Inputs, expand
from slowfast.inference.model import load_model
from slowfast.utils.errors import UserError
from slowfast.utils.files import make_folder, replacing
from slowfast.utils.logging import setup_logging
from slowfast.utils.pictures import text_line, write_png
from slowfast.utils.results import write_json

logger = logging.getLogger(__name__)

# From dark to bright at a steady pace, which print and all eyes can tell; but for jet.
COLOURS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,  # the same to colour-blind eyes; its middle is grey
    "jet": cv2.COLORMAP_JET,  # of figure 4 in arXiv 2510.18705
}
_SIDE, _GAP, _MAX_FRAMES, _FRAMES_PER_SEC, _FILM_WIDTH = 160, 4, 8, 4, 400
_FULL_NAMES = {"cam": "class activation map", "gradcam": "Grad-CAM"}


@dataclass(frozen=True)
class Panel:
    """One row of pictures over time; ``is_detail`` are those that only the page shows, folded."""

    title: str
    frames: np.ndarray  # uint8 (T, Z, Z, 3)
    legend: np.ndarray | None = None  # uint8 (Z, z, 3), beside the row
    is_detail: bool = False
    note: str = ""  # more than the film has room for


def visualize(
    model: str,
    inputs: list[str],
    what: Sequence[str],
    label: str | None,
    colours: str,
    out: str,
    num_clips: int | None,
    device: str,
) -> int:
    """Do what ``tools/visualize.py`` is asked for; return its exit status."""
    setup_logging(None, True)
    if not inputs and num_clips is None:
        raise UserError("there is nothing to show: name a video, or --evaluate")
    if num_clips is not None and num_clips < MIN_CLIPS:
        raise UserError(f"--evaluate is {num_clips}; allowed: at least {MIN_CLIPS} clips")
    loaded = load_model(model, device)
    folder = Path(out)
    videos = Inputs(expand(inputs, loaded.cfg), loaded.cfg) if inputs else None
    for stem, record in zip(videos.stems(folder), videos.records) if videos else ():
        explanation = explain(loaded, record, what, label)
        make_folder(folder)
        write_explanation(explanation, stem, colours)
    if num_clips is not None:
        report, lines = evaluate(loaded, num_clips, videos)
        make_folder(folder)
        write_json(str(folder / "evaluation.json"), {"model": model, **report})
        logger.info("%s\n%s has evaluation.json", "\n".join(lines), folder)
    return 0


def write_explanation(explanation: Explanation, stem: Path, colours: str = "inferno") -> None:
    """Write ``STEM.png``, ``STEM.mp4`` and ``STEM.html``."""
    panels = [*make_panels(explanation, colours)]
    headline = _headline(explanation)
    shown = [panel for panel in panels if not panel.is_detail]
    write_png(draw_strip(shown, headline), f"{stem}.png")
    write_mp4(draw_film(shown, headline), Path(f"{stem}.mp4"))
    with replacing(f"{stem}.html") as file:
        file.write(draw_page(explanation, panels, Path(f"{stem}.mp4").read_bytes()))
    logger.info("%s: %s: %s.png, .mp4, .html", explanation.path, headline, stem)


def _headline(explanation: Explanation) -> str:
    best, share = explanation.top[0], f"{100 * explanation.probability:.1f} %"
    predicted = f"predicted: {best['class']} {100 * best['probability']:.1f} %"
    is_best = best["label"] == explanation.label
    return predicted if is_best else f"{predicted}; maps of: {explanation.class_name} {share}"


def make_panels(explanation: Explanation, colours: str) -> Iterator[Panel]:
    """Yield the rows of an explanation."""
    frames = explanation.frames
    factor = max(1, round(_SIDE / frames.shape[2]))
    yield Panel(f"frames 1 to {len(frames)}, {frames.shape[2]} x {frames.shape[1]} px", _enlarge(frames, factor))
    for name, values in explanation.maps.items():
        low, high = float(values.min()), float(values.max())
        title = f"{_FULL_NAMES[name]} of {explanation.class_name}"
        yield _heat(title, frames, values, (low, high), colours, factor, note=": high where it speaks for the class")
    for field in explanation.motion:
        yield from _motion_panels(field, frames, factor)
    if explanation.prompts is not None:
        yield from _prompt_panels(explanation.prompts, frames, colours, factor)


def _prompt_panels(prompts: MotionPrompts, frames: np.ndarray, colours: str, factor: int) -> Iterator[Panel]:
    limit = float(np.abs(prompts.difference).max())
    pictures = _enlarge(_colour(prompts.difference, -limit, limit, "cividis"), factor)
    bar = _legend(-limit, limit, "cividis", pictures.shape[1])
    yield Panel("differences D to the frame before, yellow brighter, blue darker", pictures, bar)
    yield _heat("attention A(D)", frames, prompts.attention, (0.0, 1.0), colours, factor)
    yield Panel("prompts: frames times A, grey where A is 0", _enlarge(prompts.frames, factor))
    still = float(np.interp(0, *prompts.curve))
    title = f"A(D), slope {prompts.slope:.3g}, shift {prompts.shift:.3g}, A(0) {still:.3f}"
    shown = np.stack([draw_curve(prompts.curve, values, factor * frames.shape[1]) for values in prompts.difference])
    yield Panel(title, shown, note="; across: D, -1.1 to 1.1, up: A, 0 to 1; bars: how often each D is, log scale")


def draw_curve(curve: np.ndarray, values: np.ndarray, side: int) -> np.ndarray:
    """Draw A over D (``curve``), and behind it a histogram of the differences ``values`` of a frame."""
    picture = np.full((side, side, 3), 255, np.uint8)
    low, high = curve[0, 0], curve[0, -1]
    counts, _ = np.histogram(values, bins=44, range=(low, high))
    heights = np.log1p(counts) / np.log1p(values.size) * (side - 1)
    for index, height in enumerate(heights):
        first, last = (round(edge * side / len(heights)) for edge in (index, index + 1))
        picture[side - round(height) :, first:last] = (190, 205, 225)
    zero = round(-low / (high - low) * (side - 1))
    picture[:, zero] = (150, 150, 150)
    points = np.stack([(curve[0] - low) / (high - low), 1 - curve[1]], axis=1) * (side - 1)
    cv2.polylines(picture, [np.rint(points).astype(np.int32)], False, (180, 30, 30), 2, cv2.LINE_AA)
    return picture


def _motion_panels(field: MotionField, frames: np.ndarray, factor: int) -> Iterator[Panel]:
    num_heads = field.confidence.shape[3] - 1
    later = "the next frame" if field.interval == 1 else f"{field.interval} frames later"
    for head in (num_heads, *range(num_heads)):
        whose = f"mean of {num_heads} heads" if head == num_heads else f"head {head}"
        confidence, error = (x[..., head] for x in (field.confidence, field.cycle_error))  # (F, h, w)
        note = f" to {later} (mean confidence {confidence.mean():.2f}, cycle error {error.mean():.1f} px)"
        pictures, legend = draw_field(field.displacement[..., head, :], frames, factor)
        yield Panel(f"{field.block}, {whose}: displacement", pictures, legend, head < num_heads, note)
        for name, values, limits in (
            ("confidence: 1 - entropy / log P", confidence, (0.0, 1.0)),
            ("cycle error, px", error, (0.0, float(error.max()))),
        ):
            grown = np.stack([cv2.resize(x, frames.shape[2:0:-1], interpolation=cv2.INTER_NEAREST) for x in values])
            yield _heat(f"{field.block}, {whose}: {name}", frames, grown, limits, "cividis", factor, True)


def _heat(title, frames, values, limits, colours, factor, is_detail=False, note="") -> Panel:
    """Blend grey frames with the colours of values (t, S, S), t at most T; frames without values stay grey."""
    blended = _grey(frames)
    heat = _colour(values, *limits, colours)
    blended[: len(heat)] = np.rint(0.4 * blended[: len(heat)] + 0.6 * heat)
    pictures = _enlarge(blended, factor)
    return Panel(title, pictures, _legend(*limits, colours, pictures.shape[1]), is_detail, note)


def _legend(low: float, high: float, colours: str, side: int) -> np.ndarray:
    """Draw a bar of colours, ``side`` px high, with the values of its ends."""
    bar = np.full((side, 64, 3), 255, np.uint8)
    bar[:, :12] = _colour(np.repeat(np.linspace(high, low, side)[:, None], 12, 1)[None], low, high, colours)[0]
    _write(bar, (f"{high:.3g}", "high"), 16, 12)
    _write(bar, ("low", f"{low:.3g}"), 16, side - 17)
    return bar


def _write(picture: np.ndarray, lines: Sequence[str], x: int, y: int) -> None:
    """Write small lines of ASCII, the first at (x, y) px."""
    for number, line in enumerate(lines):
        place = (x, y + 14 * number)
        cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (30, 30, 30), 1, cv2.LINE_AA)


def _colour(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    """Return colours, uint8 (t, y, x, 3), of values (t, y, x)."""
    levels = np.rint(255 * (values - low) / ((high - low) or 1)).clip(0, 255).astype(np.uint8)
    return np.stack([cv2.applyColorMap(level, COLOURS[colours])[..., ::-1] for level in levels])


def _grey(frames: np.ndarray) -> np.ndarray:
    luma = frames @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as bright as the colours look
    return np.rint(luma)[..., None].repeat(3, axis=3).astype(np.uint8)


def draw_field(displacement: np.ndarray, frames: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw displacements (F, h, w, 2), px, as colours and arrows over the frames; a wheel of the colours is beside it.

    Frames without a successor stay grey.
    """
    pictures = _enlarge(_grey(frames), factor)
    side, (height, width) = pictures.shape[2], displacement.shape[1:3]
    longest = float(np.linalg.norm(displacement, axis=-1).max())
    colours = flow_to_image(torch.from_numpy(displacement).permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).numpy()
    for picture, colour, arrows in zip(pictures, colours, displacement):
        wide = cv2.resize(colour, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        picture[:] = np.rint(0.45 * picture + 0.55 * wide)
        for y, x in np.ndindex(height, width):
            start = np.array([(x + 0.5) / width, (y + 0.5) / height]) * side
            _arrow(picture, start, start + factor * arrows[y, x])
    radius = 30
    grid = torch.stack(torch.meshgrid(*[torch.arange(-radius, radius + 1.0)] * 2, indexing="xy"))
    disc = flow_to_image(torch.where(grid.norm(dim=0) <= radius, grid, 0.0)).permute(1, 2, 0).numpy()
    legend = np.full((pictures.shape[1], 64, 3), 255, np.uint8)
    legend[: len(disc), : len(disc)] = disc
    _write(legend, ("rim:", f"{longest:.1f} px"), 4, 78)
    return pictures, legend


def _arrow(picture: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Draw an arrow that shows on every colour: black with a white border; none where it would be a dot."""
    length = float(np.linalg.norm(end - start))
    if length < 2:
        return
    points = [tuple(np.rint(point * 8).astype(int).tolist()) for point in (start, end)]  # eighths of a px
    tip = min(0.5, 6 / length)
    for colour, thickness in (((255, 255, 255), 3), ((0, 0, 0), 1)):
        cv2.arrowedLine(picture, *points, colour, thickness, cv2.LINE_AA, 3, tip)


def _enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def draw_strip(panels: Sequence[Panel], headline: str) -> np.ndarray:
    """Draw the panels one below the other, frames evenly spread from the first to the last."""
    num_frames = len(panels[0].frames)
    chosen = np.unique(np.linspace(0, num_frames - 1, min(num_frames, _MAX_FRAMES)).round().astype(int))
    rows = [(panel.title + panel.note, draw_row(panel, chosen)) for panel in panels]
    width = max(2 * _FILM_WIDTH, *(row.shape[1] for _, row in rows))
    rows = [part for title, row in rows for part in (text_line(title, width), _pad(row, row.shape[0], width))]
    return np.concatenate([text_line(headline, width), *rows])


def draw_row(panel: Panel, chosen: Sequence[int]) -> np.ndarray:
    """Draw chosen frames of a panel side by side, and its legend."""
    parts = [np.pad(panel.frames[t], ((0, 0), (0, _GAP), (0, 0)), constant_values=255) for t in chosen]
    return np.concatenate([*parts, *([] if panel.legend is None else [panel.legend])], axis=1)


def draw_film(panels: Sequence[Panel], headline: str) -> np.ndarray:
    """Draw the panels side by side, at most three in a row, for every frame: uint8 (T, height, width, 3), even."""
    film = []
    for t in range(len(panels[0].frames)):
        tiles = [_enlarge(draw_row(panel, [t])[None], 2)[0] for panel in panels]
        width = max(_FILM_WIDTH, *(tile.shape[1] for tile in tiles))
        tiles = [np.concatenate([text_line(p.title, width), _pad(x, len(x), width)]) for p, x in zip(panels, tiles)]
        rows = [np.concatenate(tiles[i : i + 3], axis=1) for i in range(0, len(tiles), 3)]
        page = max(row.shape[1] for row in rows)
        picture = np.concatenate([text_line(headline, page), *(_pad(row, len(row), page) for row in rows)])
        film.append(_pad(picture, picture.shape[0] + picture.shape[0] % 2, page + page % 2))
    return np.stack(film)


def _pad(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    added = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, added, constant_values=255)


def write_mp4(frames: np.ndarray, path: Path) -> None:
    """Write frames, uint8 (T, height, width, 3) of even sizes, as H.264 that browsers play while it arrives."""
    options = {"movflags": "+faststart"}
    # By its name: to move the index to the front, the library opens the file again.
    with replacing(path, "wb") as file, av.open(file.name, "w", format="mp4", container_options=options) as container:
        stream = container.add_stream("libx264", rate=_FRAMES_PER_SEC, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=88)
    return file.getvalue()


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ explanation.path }}</title>
<style>
body { font: 15px sans-serif; margin: 1.5em; color: #222; background: #fff; max-width: 1500px }
.top { display: flex; flex-wrap: wrap; gap: 2em; align-items: flex-start }
.top video { max-width: 100% }
td { padding: 2px 8px } td.bar { width: 160px } td.bar div { background: #2b6ca3; height: 12px }
figure { margin: 1em 0 } figure img { max-width: 100%; display: block }
</style>
<h1>{{ explanation.path }}</h1>
<div class="top">
<table>{% for one in explanation.top %}
<tr><td>{{ one.class }}<td>{{ "%.1f"|format(100 * one.probability) }} %
<td class="bar"><div style="width: {{ "%.1f"|format(100 * one.probability) }}%"></div>{% endfor %}</table>
<video src="data:video/mp4;base64,{{ video }}" autoplay loop muted controls playsinline></video>
</div>
<p>Central view, class explained: {{ explanation.class_name }}. Displacements are where tokens attend to, which need not
be where their content moves to.</p>
{% macro row(panel, image) %}
<figure><figcaption>{{ panel.title }}{{ panel.note }}</figcaption>
<img src="data:image/jpeg;base64,{{ image }}" alt=""></figure>
{% endmacro %}
{% for one in shown %}{{ row(*one) }}{% endfor %}
{% if details %}<details><summary>Single heads, confidence and cycle error</summary>
{% for one in details %}{{ row(*one) }}{% endfor %}</details>{% endif %}
"""


def draw_page(explanation: Explanation, panels: Sequence[Panel], video: bytes) -> str:
    """Return the page with the prediction, the video and all panels, nothing of which is elsewhere."""
    images = [(panel, _base64(_jpeg(draw_row(panel, range(len(panel.frames)))))) for panel in panels]
    shown, details = ([one for one in images if one[0].is_detail == is_detail] for is_detail in (False, True))
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return template.render(explanation=explanation, shown=shown, details=details, video=_base64(video))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
