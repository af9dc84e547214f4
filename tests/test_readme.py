"""README.md and the pages of docs are true: counts, configurations, the files and pages that they name."""

import html
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.config.defaults import get_cfg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "exp/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [re.sub(r"^ {3}", "", block, flags=re.M) for block in re.findall(r"```yaml\n(.*?)```", README, flags=re.S)]
COUNTS = re.findall(r"^\$ (python tools/benchmark\.py flops .*)\n((?:.+\n)+?)(?=\$|```)", README, flags=re.M)


def run(command, **options):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    options |= {"capture_output": True, "text": True, "check": True, "cwd": ROOT, "env": environment}
    return subprocess.run(command, **options).stdout


def test_examples_were_found():
    assert len(BLOCKS) == 2 and len(COUNTS) == 1


@pytest.mark.parametrize(("command", "output"), COUNTS)
def test_counts_are_those_that_the_command_prints(command, output):
    assert run(["bash", "-c", command], timeout=120) == output


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_python_of_a_page_runs(page):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
    assert "moving up-right" in run([sys.executable, "-c", code], timeout=120)


@pytest.mark.parametrize("block", BLOCKS)
def test_configurations_are_valid(block, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block.replace("_base_/", f"{ROOT}/configs/_base_/").replace("../emim", f"{ROOT}/exp/emim"))
    get_cfg().merge_from_file(str(path))


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
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (page.parent / link).exists()]
    assert not missing and not links


def test_pictures_are_small_and_the_figure_has_the_names_and_sizes_of_the_code():
    # Made by: python docs/draw.py
    figure = html.unescape((ROOT / "docs/images/emim.svg").read_text(encoding="utf-8"))
    labels = runpy.run_path(str(ROOT / "docs/draw.py"))["labels"]()
    assert [line for text in labels.values() for line in text.splitlines() if line not in figure] == []
    assert (ROOT / "docs/images/motions.webp").stat().st_size < 1.5e6
