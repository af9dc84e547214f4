"""The tables of exp/README.md: experiments and ablations with their cost, what papers report, what was measured here.

Everything but the accuracies follows from the YAML files. Paths are relative to the current folder, the repository.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from slowfast.config.experiment import CONFIG_FILE, load_cfg
from slowfast.config.parser import BASE_KEY, read_bases, read_yaml
from slowfast.models import build_model
from slowfast.models.complexity import count_gmacs

RESULTS = Path("exp/results.csv")
PAGE = Path("exp/README.md")
ABLATIONS = Path("configs/ablation")
COLUMNS = ("name", "paper_top1", "paper_top5", "source", "our_top1", "our_top5")

DATA_SETS = {
    "ssv1": "Something-Something V1",
    "ssv2": "Something-Something V2",
    "kinetics400": "Kinetics-400",
    "diving48": "Diving48 V2",
    "imagenet": "ImageNet-1K",
    "quickstart": "12 synthetic motions",
}


@dataclass(frozen=True)
class Accuracies:
    """A line of exp/results.csv: percentages as printed, "" where there is none."""

    paper_top1: str = ""
    paper_top5: str = ""
    source: str = ""
    our_top1: str = ""
    our_top5: str = ""

    @property
    def paper(self) -> str:
        """What a paper reports, with its name."""
        found = _pair(self.paper_top1, self.paper_top5)
        return f"{found} ({self.source})" if found else "–"

    @property
    def ours(self) -> str:
        """What was measured here."""
        return _pair(self.our_top1, self.our_top5)


def _pair(top1: str, top5: str) -> str:
    return f"{top1} / {top5}" if top5 else top1


def read_accuracies(path: Path = RESULTS) -> dict[str, Accuracies]:
    """Return the lines of exp/results.csv by name, in their order.

    Raises:
        ValueError: other columns, a name that occurs twice, or a value that is no percentage, naming the line.
    """
    found: dict[str, Accuracies] = {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}:1: the columns must be {','.join(COLUMNS)}, found {rows.fieldnames}")
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise ValueError(f"{path}:{number}: expected {len(COLUMNS)} fields, as many as there are columns")
            name = row.pop("name")
            if name in found:
                raise ValueError(f"{path}:{number}: {name} occurs twice")
            for key in ("paper_top1", "paper_top5", "our_top1", "our_top5"):
                if row[key] and not re.fullmatch(r"\d{1,2}\.\d+|100\.0+", row[key]):
                    raise ValueError(f"{path}:{number}: {key} is {row[key]!r}, not a percentage such as 58.8")
            found[name] = Accuracies(**row)
    return found


def list_experiments() -> dict[str, str]:
    """Return the configuration files of the folders of exp/ and of the ablations, by their names in exp/results.csv."""
    folders = sorted(Path("exp").glob(f"*/{CONFIG_FILE}"))
    children = sorted(ABLATIONS.glob("*.yaml"))
    return {path.parent.name: str(path) for path in folders} | {f"ablation/{path.stem}": str(path) for path in children}


def make_page(page: str, counted: dict[str, float] | None = None) -> str:
    """Return the text of exp/README.md with its tables made anew.

    Args:
        page: the text as it is.
        counted: what :func:`view_gflops` has counted already, and where it keeps what it counts.

    Raises:
        ValueError: a line of exp/results.csv without an experiment. (An experiment needs no line.)
    """
    paths, accuracies = list_experiments(), read_accuracies()
    unknown = [name for name in accuracies if name not in paths]
    if unknown:
        raise ValueError(f"{RESULTS}: there is no configuration for {', '.join(unknown)}")
    experiments, ablations, names_by_output = [], [], {}
    counted = {} if counted is None else counted
    for name in dict.fromkeys((*accuracies, *paths)):
        cfg = load_cfg(paths[name])
        # Two folders with one output folder are one run under two names.
        first = names_by_output.setdefault(cfg.OUTPUT_DIR, name)
        line = accuracies.get(name, Accuracies())
        if "/" in name:
            ablations.append(_ablation_row(paths[name], cfg, line, counted))
        elif first != name:
            experiments.append([f"`{name}`", f"another name of `{first}`", *[""] * 5, _command(name)])
        else:
            experiments.append(_experiment_row(name, paths[name], cfg, line, counted))
    header = ("experiment", "recipe", "data set", "starts from", "paper: top-1 / top-5", "GFLOPs x clips x crops")
    page = _replace(page, "experiments", _table((*header, "ours", "command"), experiments))
    header = ("ablation", "over", "sets", "paper: top-1 / top-5", "GFLOPs x clips x crops", "ours")
    return _replace(page, "ablations", _table(header, ablations))


def _experiment_row(name: str, path: str, cfg, accuracies: Accuracies, counted: dict[str, float]) -> list[str]:
    data_set = os.path.basename(cfg.DATA.PATH_TO_DATA_DIR)
    start = os.path.basename(cfg.MODEL.PRETRAINED)
    return [
        f"`{name}`", " ".join(map(_link, read_bases(path))), DATA_SETS.get(data_set, data_set),
        f"`{start}`" if start else "scratch", accuracies.paper, _cost(cfg, counted), accuracies.ours, _command(name),
    ]  # fmt: skip


def _ablation_row(path: str, cfg, accuracies: Accuracies, counted: dict[str, float]) -> list[str]:
    own = {key: value for key, value in read_yaml(path).items() if key != BASE_KEY}
    settings = [f"`{key}: {_in_yaml(value)}`" for key, value in _flat(own)]
    bases = " ".join(map(_link, read_bases(path)))
    return [_link(path), bases, "<br>".join(settings), accuracies.paper, _cost(cfg, counted), accuracies.ours]


def _in_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]  # a second line ends the document


def _flat(tree: dict, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def _link(path: str) -> str:
    return f"[`{os.path.splitext(os.path.basename(path))[0]}`](../{path})"


def _command(name: str) -> str:
    return f"`bash exp/{name}/run.sh`"


def view_gflops(cfg, counted: dict[str, float]) -> float:
    """Return the billions of multiply-accumulates of one view.

    Args:
        cfg: the configuration.
        counted: counts by model, which several configurations share; this one is added.
    """
    side = cfg.DATA.TEST_CROP_SIZE
    # Without the number of classes: the head takes less than a thousandth of what is printed.
    key = f"{cfg.MODEL.MODEL_NAME} {cfg.DATA.NUM_FRAMES} {side} {cfg.UNIFORMER} {cfg.EMIM}"
    if key not in counted:
        with torch.device("meta"):
            model = build_model(cfg)
        counted[key] = count_gmacs(model, (3, cfg.DATA.NUM_FRAMES, side, side))
    return counted[key]


def _cost(cfg, counted: dict[str, float]) -> str:
    return f"{view_gflops(cfg, counted):.2f} x {cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"


def _table(header: Iterable[str], rows: list[list[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _replace(page: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}: made by tools/list_experiments.py -->", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE} must have the lines {begin!r} and {end!r} once, around the table")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
