"""A result page as one HTML file: tables and pictures, nothing that has to be loaded, no scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from slowfast.analysis.study.tables import Column

_STYLE = """
:root { color-scheme: light; --line: #d9dee5; --soft: #f5f7fa; --quiet: #5b6675; --accent: #1f77b4; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: #fff; color: #1c2430;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
p { margin: .4rem 0; max-width: 48rem; }
.quiet, figcaption { color: var(--quiet); font-size: .875rem; }
.note { border-left: 3px solid #d08700; padding-left: .75rem; }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
.text { text-align: left; }
.name { position: sticky; left: 0; background: #fff; box-shadow: 1px 0 0 var(--line); }
th.name { background: var(--soft); }
.long { white-space: normal; min-width: 16rem; }
tr.marked td { background: #fbf6e8; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: .5rem 0; min-width: 0; }
figure.wide { max-width: 40rem; }
figcaption { font-weight: 600; color: inherit; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .3rem 1rem; font-size: .875rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
nav a { margin-right: 1rem; color: var(--accent); }
@media (max-width: 40rem) { .name { min-width: 7rem; max-width: 10rem; white-space: normal; overflow-wrap: anywhere; } }
@media print { .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Figures:
    """Pictures under a heading: captions and PNG files; one alone is shown larger."""

    heading: str
    text: str
    pictures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A table, what a reader must know about it, and its pictures.

    ``marked`` is the line that stands out, counted from 0, or None.
    """

    title: str
    columns: Sequence[Column]
    marked: int | None
    notes: Sequence[str]
    figures: Sequence[Figures]


def page(title: str, texts: Sequence[str], sections: Sequence[Section], facts: Sequence[tuple[str, str]]) -> str:
    """Return the HTML page.

    Args:
        title: of the page.
        texts: paragraphs before the tables.
        sections: one per table.
        facts: names and values, where the results come from.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="quiet">{escape(text)}</p>' for text in texts)]
    if len(sections) > 1:
        links = (f'<a href="#part{place}">{escape(section.title)}</a>' for place, section in enumerate(sections))
        parts.append(f"<nav>{' '.join(links)}</nav>")
    for place, section in enumerate(sections):
        if len(sections) > 1:
            parts.append(f'<h2 id="part{place}">{escape(section.title)}</h2>')
        parts.append(_table(section))
        parts += [f'<p class="note">{escape(note)}</p>' for note in section.notes]
        parts += [_figures(figures) for figures in section.figures]
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    parts.append(f"<h2>Where this comes from</h2>\n<dl>\n{rows}\n</dl>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _table(section: Section) -> str:
    kinds = [_class(column, place) for place, column in enumerate(section.columns)]
    head = "".join(f"<th{kind}>{escape(column.heading)}</th>" for column, kind in zip(section.columns, kinds))
    rows = []
    for place, cells in enumerate(zip(*(column.cells for column in section.columns), strict=True)):
        marked = ' class="marked"' if place == section.marked else ""
        row = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds, strict=True))
        rows.append(f"<tr{marked}>{row}</tr>")
    lines = "\n".join(rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table></div>'


def _class(column: Column, place: int) -> str:
    names = ["text"] * column.is_text + ["name"] * (place == 1) + ["long"] * (column.heading == "settings")
    return f' class="{" ".join(names)}"' if names else ""


def _figures(figures: Figures) -> str:
    if not figures.pictures:
        return ""
    is_alone = len(figures.pictures) == 1
    shown = "\n".join(_figure(caption, path, is_alone) for caption, path in figures.pictures)
    return (
        f"<h3>{escape(figures.heading)}</h3>\n"
        + (f'<p class="quiet">{escape(figures.text)}</p>\n' if figures.text else "")
        + (shown if is_alone else f'<div class="grid">\n{shown}\n</div>')
    )


def _figure(caption: str, path: str, is_wide: bool) -> str:
    data = base64.b64encode(Path(path).read_bytes()).decode()
    kind = ' class="wide"' if is_wide else ""
    return (
        f"<figure{kind}><figcaption>{escape(caption)}</figcaption>"
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}"></figure>'
    )
