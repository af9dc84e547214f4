"""Package metadata: dependencies from the requirements files, the version from slowfast/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
# Tools with a command of their own, slowfast-NAME; the others are for work on the repository.
COMMANDS = {"run": "run_net", "train": "train_net", "test": "test_net", "prepare-data": "prepare_data"}
COMMANDS |= {name: name for name in ("predict", "visualize", "export", "demo", "benchmark")}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def read_requirements(name):
    lines = [line.partition("#")[0].strip() for line in read(name).splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


setup(
    name="slowfast-emim",  # "slowfast" is PySlowFast; both are imported as slowfast: one of them in an environment
    version=re.search(r'__version__ = "(.+)"', read("slowfast/__init__.py"))[1],
    description="Video action recognition with UniFormer backbones and motion attention (EMIM)",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["slowfast", "slowfast.*"]), "slowfast_tools"],
    package_dir={"slowfast_tools": "tools"},
    package_data={"slowfast.prepare": ["*.csv"], "slowfast.inference": ["weights/*"]},
    entry_points={"console_scripts": [f"slowfast-{name} = slowfast_tools:{tool}" for name, tool in COMMANDS.items()]},
    install_requires=read_requirements("requirements.txt"),
    extras_require={
        path.stem.removeprefix("requirements-"): read_requirements(path) for path in ROOT.glob("requirements-*.txt")
    },
)
