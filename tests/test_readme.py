"""What README.md states is true: its counts, its configurations, the files it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.config.defaults import get_cfg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [re.sub(r"^ {3}", "", block, flags=re.M) for block in re.findall(r"```yaml\n(.*?)```", README, flags=re.S)]
COUNTS = re.findall(r"^\$ (python tools/benchmark\.py flops .*)\n((?:.+\n)+?)(?=\$|```)", README, flags=re.M)


def test_examples_were_found():
    assert len(BLOCKS) == 3 and len(COUNTS) == 2


@pytest.mark.parametrize(("command", "output"), COUNTS)
def test_counts_are_those_that_the_command_prints(command, output):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, cwd=ROOT, env=environment, timeout=120
    )
    assert printed.stdout == output


@pytest.mark.parametrize("block", BLOCKS)
def test_configurations_are_valid(block, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block.replace("_base_/", f"{ROOT}/configs/_base_/").replace("../../configs/", f"{ROOT}/configs/"))
    get_cfg().merge_from_file(str(path))


def test_named_paths_exist():
    made_by_the_reader = ("exp/quickstart/output", "exp/small_window", "configs/mine.yaml")
    # Of a pattern such as configs/ablation/table7_*.yaml the folder.
    paths = set(re.findall(r"\b(?:slowfast|tools|configs|exp|tests)/[\w./]+\w(?![\w*])", README))
    assert len(paths) > 10
    assert not [path for path in paths if not path.startswith(made_by_the_reader) and not (ROOT / path).exists()]
