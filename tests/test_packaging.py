"""The distribution: what is installed works outside the repository, and tells when another ``slowfast`` is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder with what setup.py installs."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("site")
    command = ["setup.py", "-q", "egg_info", "--egg-base", folder, "build_py", "--build-lib", folder]
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    return folder


def start(site, cwd, code, *arguments, first=""):
    """Run Python code with what is installed, and ``first`` before it on the path."""
    environment = {**os.environ, "PYTHONPATH": f"{first}{os.pathsep}{site}"}
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def entry_points(site):
    (file,) = site.glob("*.egg-info/entry_points.txt")
    return dict(line.split(" = ") for line in file.read_text().splitlines() if " = " in line)


def call(site, name):
    module, function = entry_points(site)[name].split(":")
    return f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())"


def test_the_installed_package_predicts_and_writes_where_it_was_started(site, tmp_path):
    shown = start(
        site, tmp_path, call(site, "slowfast-predict"), "--model", "emim_tiny_motion", "--out", "out",
        site / "slowfast/inference/weights/sample.mp4",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "moving up-right" in (tmp_path / "out" / "predictions.csv").read_text()
    code = "from slowfast.utils.files import full_path; print(full_path('output/mine'))"
    assert start(site, tmp_path, code).stdout == f"{tmp_path}/output/mine\n"


def test_every_command_has_a_tool(site):
    assert {"slowfast-train", "slowfast-predict"} <= entry_points(site).keys()
    for command in entry_points(site).values():
        assert (site / f"{command.replace(':', '/')}.py").is_file()


@pytest.mark.parametrize("command", ["slowfast-visualize", "slowfast-test"])
def test_help_of_a_command_names_commands(site, tmp_path, command):
    shown = start(site, tmp_path, call(site, command), "--help").stdout
    assert shown.startswith(f"usage: {command} ") and f"  {command} --" in shown and ".py" not in shown
    assert set(re.findall(r"slowfast-[a-z-]+", shown)) <= entry_points(site).keys()
    assert start(site, tmp_path, call(site, command), "--no").stderr.startswith(f"usage: {command} ")


def test_another_package_of_the_same_name_is_told(site, tmp_path):
    other = tmp_path / "slowfast"
    other.mkdir()
    (other / "__init__.py").touch()
    shown = start(site, tmp_path, call(site, "slowfast-train"), first=tmp_path)
    assert shown.returncode == 2 and shown.stderr.count("\n") == 1
    assert f"finds {other}/__init__.py, another package of that name" in shown.stderr
