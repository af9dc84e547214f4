"""The motion exam's certificate on one page: ``certificate.json``, ``.png`` and ``.html``, which needs no network."""

import base64
import io
import logging
import os
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from slowfast.config.parser import KEYS
from slowfast.inference.exam import BLIND, CHANCE, SPEEDS
from slowfast.synthetic.stimuli import Stimulus, StimulusSpec
from slowfast.utils.files import replacing
from slowfast.utils.results import write_json

logger = logging.getLogger(__name__)

# Told apart by colour-blind eyes (Okabe and Ito), and by their markers; the first is the network of the certificate.
_LOOKS = [("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#D55E00", "v"), ("#56B4E9", "P")]
_TEXTURES = {"grain\n(trained)": "displacement 1", **{name: f"texture {name}" for name in ("stripes", "cells", "dots")}}
_TIME = {
    "noise": "noise",
    "one frame\nrepeated": "single_frame",
    "frames\nshuffled": "shuffle",
    "back-\nwards": "reverse",
    "backwards,\nas opposite": "reverse, as the opposite",
}


def write_certificate(out: str, certificate: Mapping[str, Any], references: Sequence[Mapping[str, Any]]) -> None:
    """Write the files to ``out``; beside the network stand those references that took the same exam, but for itself."""
    own = certificate["name"], certificate["cost"]["parameters"]
    same = (one for one in references if one["exam"] == certificate["exam"])
    others = [one for one in same if (one["name"], one["cost"]["parameters"]) != own]
    write_json(os.path.join(out, "certificate.json"), certificate)
    picture = io.BytesIO()
    draw_certificate(certificate, others).savefig(picture, dpi=130)
    with replacing(os.path.join(out, "certificate.png"), "wb") as file:
        file.write(picture.getvalue())
    with replacing(os.path.join(out, "certificate.html")) as file:
        file.write(draw_page(certificate, others, picture.getvalue()))
    logger.info("%s\n%s/certificate.png, .html, .json", "\n".join(f"* {x}" for x in read_out(certificate)), out)


def read_out(certificate: Mapping[str, Any]) -> list[str]:
    """Return sentences that say what the figures mean."""
    tests = certificate["tests"]
    says = {name: "{:.1f} % [{:.1f}, {:.1f}]".format(one["percent"], *one["interval95"]) for name, one in tests.items()}
    seen = [f"{x:g}" for x in SPEEDS if tests[f"displacement {x:g}"]["interval95"][0] > CHANCE]
    lines = [f"It sees a camouflaged object move at {', '.join(seen)} tokens a frame; at 1: {says['displacement 1']}."]
    if not seen:
        lines = [f"It sees no motion: at 1 token a frame {says['displacement 1']}, and chance is {CHANCE} %."]
    best, *others = _TEXTURES.values()
    loss = tests[best]["percent"] - np.mean([tests[name]["percent"] for name in others])
    lines.append(f"On textures that it was not trained on, it loses {loss:.1f} points on average.")
    verdict = "It is not time-blind" if tests["noise"]["interval95"][0] > BLIND else "Time-blind"
    noise = f"of an object that only motion shows, in noise, it tells the direction in {says['noise']}"
    blind = f"{BLIND:.1f} % need no object, only the background's direction"
    lines.append(f"{verdict}: {noise}; {blind}, and 50 % both directions, but not which is the object's.")
    turned, shuffled, single = (says[name] for name in ("reverse, as the opposite", "shuffle", "single_frame"))
    order = f"Order: backwards, {turned} of the clips are answered as the opposite direction"
    lines.append(f"{order}; with frames shuffled {shuffled} are answered right, with one frame repeated {single}.")
    if block := best_block(certificate):
        rows = certificate["end_point_error"][block]
        (row,) = (row for row in rows if row["displacement"] == 1)
        way = "{epe_readout:.2f} tokens ({epe_readout_untrained:.2f} before the training)".format(**row)
        told = f"by a linear readout, by the softmax {row['epe']:.2f}"
        known = ", ".join(f"{row['displacement']:g}" for row in rows if row["epe_readout"] < row["still"]) or "none"
        better = f"the readout errs less than no motion at displacements of {known}"
        lines.append(f"Its affinities ({block}) tell a displacement of 1 token to within {way} {told}; {better}.")
    else:
        lines.append(f"There are no affinities to read displacements from ({certificate['no_affinities']}).")
    if certificate["starts_from"]:
        lines.append(f"It started from {certificate['starts_from']}, not from scratch.")
    if changed := certificate["exam"]["changed"]:
        lines.append(f"THIS IS ANOTHER EXAM: {', '.join(f'{key} {value}' for key, value in changed.items())}.")
    return lines


def best_block(certificate: Mapping[str, Any]) -> str:
    """Return the block whose affinities tell displacements best, "" for none."""
    errors = certificate["end_point_error"]
    return min(errors, key=lambda block: sum(row["epe_readout"] for row in errors[block]), default="")


def draw_certificate(certificate: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the page: accuracies and errors with the references beside them, and what they mean."""
    shown = [certificate, *others]
    figure = Figure(figsize=(13, 10.2), layout="constrained")
    figure.suptitle(f"Motion exam: {certificate['name']}", fontsize=16, fontweight="bold", parse_math=False)
    axes = figure.subplot_mosaic(
        [["speed", "texture", "error"], ["time", "time", "cost"], ["text"] * 3], height_ratios=[1, 1, 0.8]
    )
    for number, one in reversed([*enumerate(shown)]):  # the network itself on top
        name, (color, marker) = one["name"], _LOOKS[number % len(_LOOKS)]
        look = {"color": color, "marker": marker, "markersize": 7 if number == 0 else 5, "zorder": 3 - number / 10}
        wide = look | {"linewidth": 2.2 if number == 0 else 1.2, "label": name}
        _shares(axes["speed"], one, np.log2(SPEEDS), [f"displacement {speed:g}" for speed in SPEEDS], wide, number == 0)
        shift = 0.7 * ((number + 0.5) / len(shown) - 0.5)
        for axis, tests in ((axes["texture"], _TEXTURES), (axes["time"], _TIME)):
            places = np.arange(len(tests)) + shift
            _shares(axis, one, places, tests.values(), look | {"linestyle": "none"}, number == 0)
        if block := best_block(one):
            rows = one["end_point_error"][block]
            axes["error"].plot(np.log2(SPEEDS), [row["epe_readout"] for row in rows], **wide)
            if number == 0:
                before = [row["epe_readout_untrained"] for row in rows]
                axes["error"].plot(np.log2(SPEEDS), before, "--", color=color, linewidth=1)
                axes["error"].text(np.log2(SPEEDS[0]), before[0], "untrained", va="bottom", fontsize=8, color=color)
        axes["cost"].plot(one["cost"]["gflops"], one["tests"]["displacement 1"]["percent"], **look)
    _label(axes, certificate)
    handles, names = axes["speed"].get_legend_handles_labels()
    for text in figure.legend(handles[::-1], names[::-1], loc="outside upper right", ncols=6).get_texts():
        text.set_parse_math(False)
    return figure


def _shares(axis: Axes, one: Mapping, places: Sequence[float], names, look: dict, with_seeds: bool) -> None:
    tests = [one["tests"][name] for name in names]
    middle = np.array([test["percent"] for test in tests])
    ends = np.array([test["interval95"] for test in tests]).T
    axis.errorbar(places, middle, np.maximum([middle - ends[0], ends[1] - middle], 0), capsize=3, **look)
    if with_seeds:
        for seeds in zip(*(test["seeds"] for test in tests)):
            axis.plot(places, seeds, ".", color="black", markersize=4, zorder=4)


def _label(axes: Mapping[str, Axes], certificate: Mapping[str, Any]) -> None:
    titles = {
        "speed": "Does it see motion? Camouflaged object",
        "texture": "On other textures, 1 token a frame",
        "error": "Do its affinities know where things go?",
        "time": "Time: noise that only moves, and clips whose frames are out of order",
        "cost": "Cost, and 1 token a frame",
    }
    for name, axis in [(name, axes[name]) for name in titles]:
        axis.set_title(titles[name], loc="left", fontsize=11)
        axis.grid(alpha=0.3)
        if name != "error":
            axis.set(ylim=(-3, 103), ylabel="direction right (%)")
            axis.axhline(CHANCE, color="#555555", linestyle=":")
    place = axes["time"].get_yaxis_transform()
    axes["time"].text(1, CHANCE + 1, "chance ", transform=place, ha="right", fontsize=8, color="#555555")
    for name in ("speed", "error"):
        axes[name].set_xticks(np.log2(SPEEDS), [f"{speed:g}" for speed in SPEEDS])
        axes[name].set_xlabel("displacement (tokens of 8 px a frame)")
    for name, tests in (("texture", _TEXTURES), ("time", _TIME)):
        axes[name].set_xticks(range(len(tests)), tests, fontsize=9)
    axes["time"].set_ylabel("direction right, or opposite (%)")
    axes["error"].set_ylabel("end-point error (tokens)")
    if axes["error"].lines:
        axes["error"].plot(np.log2(SPEEDS), SPEEDS, color="#555555", linestyle=":", zorder=1)
        axes["error"].text(np.log2(SPEEDS[-1]), SPEEDS[-1], "no motion ", ha="right", fontsize=8, color="#555555")
    else:
        axes["error"].text(0.5, 0.5, "no affinities", transform=axes["error"].transAxes, ha="center")
    axes["error"].set_ylim(0, None)
    axes["cost"].set_xlabel("GFLOPs a clip (multiply-accumulates)")
    axes["text"].axis("off")
    lines = [wrap(f"• {line}", 165, subsequent_indent="   ") for line in read_out(certificate)]
    lines += [[""], *(wrap(line, 165) for line in facts(certificate))]
    told = {"transform": axes["text"].transAxes, "va": "top", "fontsize": 10, "parse_math": False}
    axes["text"].text(0, 1, "\n".join(line for some in lines for line in some), in_layout=False, **told)


def facts(certificate: Mapping[str, Any]) -> list[str]:
    """Return lines on the network, the exam and how to read the page."""
    cost, exam = certificate["cost"], certificate["exam"]
    clips = ", then ".join(f"{number:,} of {part}" for part, number in exam["training_clips"].items())
    shown = next(iter(exam["settings"].values()))  # those that are no defaults
    frames, side = (shown.get(key, KEYS[key].default) for key in ("DATA.NUM_FRAMES", "DATA.TRAIN_CROP_SIZE"))
    settings = "".join(f", {key} {value}" for key, value in certificate["settings"].items())
    return [
        f"{certificate['model']}{settings}: {cost['parameters']:,} parameters, {cost['gflops']:.2f} GFLOPs a clip, "
        f"trained at {cost['clips_per_sec']:.1f} clips/s a run ({cost['device']}, torch {cost['torch']}).",
        f"Seeds {exam['seeds']}, each trained on {clips} ({frames} frames of {side} x {side} px), and tested on "
        f"{exam['test_clips']} clips each time.",
        "Marks: means of the seeds, 95 % Wilson intervals over the clips; black dots: single seeds of "
        f"{certificate['name']}. Eight directions, chance {CHANCE} %.",
    ]


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Motion exam: {{ certificate.name }}</title>
<style>
body { font: 15px/1.4 sans-serif; margin: 1.5em auto; padding: 0 1em; color: #222; background: #fff; max-width: 1100px }
img.page { max-width: 100% } .clips { display: flex; gap: 2em; flex-wrap: wrap; margin-bottom: 2em }
figure { margin: 0; max-width: 330px } figure img { image-rendering: pixelated; display: block }
table { border-collapse: collapse } td, th { padding: 2px 10px; text-align: right } td:first-child { text-align: left }
tr:nth-child(even) { background: #f2f5f8 }
</style>
<h1>Motion exam: {{ certificate.name }}</h1>
<p>Does a video network see motion? Every network takes the same exam: from as many rendered clips it learns in which
of eight directions an object moves that no single frame shows, and then answers clips that are new to it. Guessing is
right in {{ chance }} %.</p>
<ul>{% for line in lines %}<li>{{ line }}{% endfor %}</ul>
<div class="clips">{% for part, image in clips %}
<figure><img width="192" height="192" src="data:image/webp;base64,{{ image }}" alt="a clip of {{ part }}">
<figcaption>{{ captions[part] }}</figcaption></figure>{% endfor %}</div>
<img class="page" src="data:image/png;base64,{{ picture }}" alt="the figures of the table below as curves">
<table><tr><th>right, % [95 % interval]{% for one in shown %}<th>{{ one.name }}{% endfor %}
{% for test in certificate.tests %}<tr><td>{{ test }}{% for one in shown %}
<td>{{ "%.1f [%.1f, %.1f]"|format(one.tests[test].percent, *one.tests[test].interval95) }}{% endfor %}{% endfor %}
{% for key, form in costs %}<tr><td>{{ key }}{% for one in shown %}<td>{{ form.format(one.cost[key]) }}{% endfor %}
{% endfor %}</table>
{% for line in facts %}<p>{{ line }}{% endfor %}
<p>A displacement is in tokens of 8 px a frame. Reverse, shuffle and single_frame are at 1 token. GFLOPs are billions of
multiply-accumulates of a clip. Clips a second are those of the training, on the device that certificate.json names.
"""
_CAPTIONS = {
    "camouflage": "Camouflage: a disc moves over noise that it is cut from. Stopped, there is nothing to see.",
    "noise": "Noise: it moves one way inside an outline that stays, another way outside of it.",
}
_COSTS = [("parameters", "{:,}"), ("gflops", "{:.2f}"), ("clips_per_sec", "{:.1f}")]


def draw_page(certificate: Mapping[str, Any], others: Sequence[Mapping[str, Any]], picture: bytes) -> str:
    """Return the page with the picture, two moving clips and a table, nothing of which is elsewhere."""
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return template.render(
        certificate=certificate, shown=[certificate, *others], lines=read_out(certificate), facts=facts(certificate),
        chance=CHANCE, picture=_base64(picture), costs=_COSTS, captions=_CAPTIONS,
        clips=[(part, _base64(_film(part))) for part in _CAPTIONS],
    )  # fmt: skip


def _film(stimulus: str) -> bytes:
    """Return a clip as an animated WebP without loss."""
    spec, file = StimulusSpec(stimulus=stimulus, displacement=(0.5, 0.5)), io.BytesIO()
    first, *others = map(Image.fromarray, Stimulus(0, 0, spec, 12, 64).frames())
    first.save(file, format="WebP", save_all=True, append_images=others, duration=120, loop=0, lossless=True)
    return file.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
