"""README.md and the pages of docs are true: Python, keys, counts, the files and pages that they name."""

import html
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.config.defaults import get_cfg
from slowfast.config.parser import KEYS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "exp/README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOUR = ROOT / "docs/tour.ipynb"
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
ALL = "\n".join(TEXTS.values())
# Of the parts of one's own, tests/engine/test_user_modules.py trains with those of docs/extending.md.
BLOCKS = [
    re.sub(r"^ {3}", "", block, flags=re.M)
    for name, text in TEXTS.items()
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    if name != "docs/extending.md"
]
COUNTS = re.findall(r"^\$ (python tools/benchmark\.py flops .*)\n((?:.+\n)+?)(?=\$|```)", ALL, flags=re.M)


def run(command, **options):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    options |= {"capture_output": True, "text": True, "check": True, "cwd": ROOT, "env": environment}
    return subprocess.run(command, **options).stdout


def test_examples_were_found():
    assert len(BLOCKS) == 3 and len(COUNTS) == 1


@pytest.mark.parametrize(("command", "output"), COUNTS)
def test_counts_are_those_that_the_command_prints(command, output):
    assert run(["bash", "-c", command], timeout=120) == output


def test_python_of_the_pages_and_the_tour_runs():
    codes = [re.findall(r"```python\n(.*?)```", TEXTS[page], flags=re.S) for page in ("README.md", "docs/use.md")]
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    codes += [["\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")]]
    shown = run([sys.executable, "-c", "\nprint('end')\n".join(code for (code,) in codes)], timeout=120)
    best = "moving up-right 93.4 %"  # as the comments of both pages say
    pages, (*parts, tour) = TEXTS["README.md"] + TEXTS["docs/use.md"], shown.split("end\n")
    assert all(best in part for part in parts) and "moving up-right" in tour and pages.count(f"{best}, ...") == 2


@pytest.mark.parametrize("block", BLOCKS)
def test_configurations_are_valid(block, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block.replace("_base_/", f"{ROOT}/configs/_base_/").replace("../emim", f"{ROOT}/exp/emim"))
    get_cfg().merge_from_file(str(path))


def test_keys_exist():
    sections = "|".join({key.partition(".")[0] for key in KEYS if "." in key})
    named = set(re.findall(rf"\b(?:{sections})\.[A-Z_]+[A-Z0-9_]*\b(?!\.\w)", ALL))
    assert named - set(KEYS) - {"MODEL.ARGS", "TINYNET.WIDTH"} == set()


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    made_by_the_reader = (
        "output/",
        "data/quickstart",
        "exp/quickstart/output",
        "exp/small_window",
        "configs/mine.yaml",
        "exp/NAME",
        "configs/FOLDER",
    )
    # Of a pattern such as configs/ablation/table7_*.yaml the folder.
    paths = set(re.findall(r"\b(?:slowfast|tools|configs|exp|tests|docs)/[\w./]+\w(?![\w*])", text))
    missing = [path for path in paths if not path.startswith(made_by_the_reader) and not (ROOT / path).exists()]
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text)
    missing += [link for link, _ in links if not (page.parent / link).exists()]
    missing += [f"{link}#{to}" for link, to in links if to and to not in anchors(page.parent / link if link else page)]
    assert not missing


def test_pictures_are_small_and_the_figure_has_the_names_and_sizes_of_the_code():
    # Made by: python docs/draw.py
    figure = html.unescape((ROOT / "docs/images/emim.svg").read_text(encoding="utf-8"))
    labels = runpy.run_path(str(ROOT / "docs/draw.py"))["labels"]()
    assert [line for text in labels.values() for line in text.splitlines() if line not in figure] == []
    assert (ROOT / "docs/images/motions.webp").stat().st_size < 1.5e6
