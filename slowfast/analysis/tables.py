"""Tables of exp/README.md: experiments and ablations with their cost, and the accuracies of exp/results.csv.

Everything but the accuracies follows from the YAML files. Paths are relative to the current folder, the repository.
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from slowfast.config import CONFIG_FILE, configuration_name, load_cfg
from slowfast.config.parser import BASE_KEY, flat_settings, read_bases, read_yaml
from slowfast.models.complexity import view_gflops
from slowfast.models.zoo import HUB_PREFIX
from slowfast.utils.errors import UserError
from slowfast.utils.files import read_text

RESULTS = Path("exp/results.csv")
PAGE = Path("exp/README.md")
COLUMNS = ("name", "paper_top1", "paper_top5", "source", "our_top1", "our_top5")
FIGURES = ("paper: top-1 / top-5", "GFLOPs x clips x crops")


def read_accuracies(path: Path = RESULTS) -> dict[str, dict[str, str]]:
    """Return the lines of exp/results.csv by name, in their order: percentages as printed, "" where there is none."""
    found: dict[str, dict[str, str]] = {}
    header, *lines = csv.reader(read_text(path).splitlines())
    if tuple(header) != COLUMNS:
        raise UserError(f"{path}:1: the columns must be {','.join(COLUMNS)}, found {','.join(header)}")
    for number, fields in enumerate(lines, 2):
        if len(fields) != len(COLUMNS) or fields[0] in found:
            raise UserError(f"{path}:{number}: expected a name of its own and {len(COLUMNS)} fields, found {fields}")
        row = dict(zip(COLUMNS, fields))
        for key in (key for key in COLUMNS if "top" in key):
            if not re.fullmatch(r"\d{1,2}\.\d+|100\.0+|", row[key]):
                raise UserError(f"{path}:{number}: {key} is {row[key]!r}, not a percentage such as 58.8")
        found[row["name"]] = row
    return found


def list_experiments() -> dict[str, str]:
    """Return the configuration files of the folders of exp/ and of the ablations, by their names in exp/results.csv."""
    folders = sorted(Path("exp").glob(f"*/{CONFIG_FILE}"))
    children = sorted(Path("configs/ablation").glob("*.yaml"))
    return {path.parent.name: str(path) for path in folders} | {f"ablation/{path.stem}": str(path) for path in children}


def make_page(page: str, counted: dict[str, float] | None = None) -> str:
    """Return the text of exp/README.md, ``page``, with new tables; ``counted`` is a cache of ``view_gflops``."""
    paths, accuracies = list_experiments(), read_accuracies()
    unknown = [name for name in accuracies if name not in paths]
    if unknown:
        raise UserError(f"{RESULTS}: there is no configuration for {', '.join(unknown)}")
    experiments, ablations, names_by_output = [], [], {}
    counted = {} if counted is None else counted
    for name in dict.fromkeys((*accuracies, *paths)):
        path, cfg = paths[name], load_cfg(paths[name])
        # Two folders with one output folder are one run under two names.
        first = names_by_output.setdefault(cfg.OUTPUT_DIR, name)
        cost = f"{view_gflops(cfg, counted):.2f} x {cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"
        figures = [_accuracies(accuracies.get(name, {})), cost]
        if "/" in name:
            own = flat_settings({key: value for key, value in read_yaml(path).items() if key != BASE_KEY})
            settings = "<br>".join(f"`{key}: {in_yaml(value)}`" for key, value in own.items())
            ablations.append([_link(path), " ".join(map(_link, read_bases(path))), settings, *figures])
        elif first != name:
            experiments.append([_link(path), f"another name of `{first}`", "", "", ""])
        else:
            data_set, start = os.path.basename(cfg.DATA.PATH_TO_DATA_DIR), cfg.MODEL.PRETRAINED
            start = start.split("/")[1 if start.startswith(HUB_PREFIX) else -1]  # of the Hub, the repository
            start = f"`{start}`" if start else "scratch"
            experiments.append([_link(path), data_set, start, *figures])
    page = _replace(page, "experiments", ["experiment", "data set", "starts from", *FIGURES], experiments)
    return _replace(page, "ablations", ["ablation", "over", "sets", *FIGURES], ablations)


def _accuracies(row: dict[str, str]) -> str:
    paper, ours = (" / ".join(filter(None, (row.get(f"{of}_top1"), row.get(f"{of}_top5")))) for of in ("paper", "our"))
    paper = f"{paper} ({row['source']})" if paper else "–"
    return f"{paper}; ours {ours}" if ours else paper


def in_yaml(value: object) -> str:
    """Return a setting as it would stand in a YAML file."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]  # a second ends the document


def _link(path: str) -> str:
    return f"[`{configuration_name(path)}`]({os.path.relpath(path, PAGE.parent)})"


def _replace(page: str, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    begin, end = f"<!-- {name}: made by tools/list_experiments.py -->", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise UserError(f"{PAGE} must have the lines {begin!r} and {end!r} once, around the table")
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
