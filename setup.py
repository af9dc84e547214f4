"""Package metadata: dependencies from the requirements files, the version from slowfast/__init__.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def read_requirements(name):
    lines = [line.partition("#")[0].strip() for line in read(name).splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


setup(
    name="slowfast",
    version=re.search(r'__version__ = "(.+)"', read("slowfast/__init__.py"))[1],
    description="Video action recognition with UniFormer backbones and motion attention (EMIM)",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["slowfast", "slowfast.*"]),
    package_data={"slowfast.prepare": ["*.csv"], "slowfast.inference": ["weights/*"]},
    install_requires=read_requirements("requirements.txt"),
    extras_require={
        path.stem.removeprefix("requirements-"): read_requirements(path) for path in ROOT.glob("requirements-*.txt")
    },
)
