"""What a study consists of: tables of configurations, seeds, and the runs that they need, each once."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slowfast.config.defaults import get_cfg
from slowfast.config.parser import CfgNode, flat_settings, read_yaml

# What a run computes does not depend on these keys and sections.
WITHOUT_EFFECT = (
    "OUTPUT_DIR", "LOG_PERIOD", "DATA.MISSING_HINT", "DATA_LOADER.", "MODEL.PRETRAINED_HINT", "TRAIN.CHECKPOINT_PERIOD",
    "TRAIN.CHECKPOINT_STEPS", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.KEEP_EVERY", "TRAIN.AUTO_RESUME", "TENSORBOARD.",
    "WANDB.", "DIST.BACKEND", "DIST.TIMEOUT_MIN", "DIST.RENDEZVOUS_TIMEOUT_MIN", "DIST.STATIC_GRAPH",
)  # fmt: skip

# Every run of a study has values of its own.
_OF_THE_STUDY = {"RNG_SEED": "--seeds", "OUTPUT_DIR": "--out"}

# A study reads hundreds of dumped configurations; the same rules in C take a tenth of the time.
_FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NAME = re.compile(r"[\w.+-]+")
_RESERVED = ("runs", "report", "study")


@dataclass(frozen=True)
class TableSpec:
    """A table as it is asked for: paths or patterns of configuration files, and the name of one to compare with."""

    name: str
    cfgs: Sequence[str]
    baseline: str = ""
    title: str = ""


@dataclass(frozen=True)
class Variant:
    """Settings that are run once per seed; ``settings`` are those that count, ``folder`` holds one folder per seed."""

    name: str
    cfg: CfgNode
    settings: dict[str, Any]
    folder: str


@dataclass(frozen=True)
class Run:
    """A variant with a seed."""

    variant: Variant
    seed: int

    @property
    def folder(self) -> str:
        return os.path.join(self.variant.folder, f"seed{self.seed}")

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.variant.settings, "RNG_SEED": self.seed}

    def __str__(self) -> str:
        return f"{self.variant.name} seed {self.seed}"


@dataclass(frozen=True)
class Row:
    """A configuration of a table. Its variant has another name where an earlier row has the same settings."""

    name: str
    file: str
    variant: Variant


@dataclass(frozen=True)
class Table:
    """Rows to be compared, with the name of one of them as baseline, or ""."""

    name: str
    title: str
    rows: tuple[Row, ...]
    baseline: str

    def varied_keys(self) -> list[str]:
        """Return the keys in which the rows differ."""
        settings = [row.variant.settings for row in self.rows]
        return [key for key in settings[0] if any(other[key] != settings[0][key] for other in settings[1:])]


@dataclass(frozen=True)
class Study:
    """Tables and seeds; ``out`` is the folder of everything, ``overrides`` are KEY VALUE pairs over all files."""

    out: str
    tables: tuple[Table, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]

    def variants(self) -> list[Variant]:
        """Return what is run, in the order of the tables."""
        return list({row.variant.name: row.variant for table in self.tables for row in table.rows}.values())

    def runs(self) -> list[Run]:
        """Return all runs, the first seed of all variants first: half a study can be compared already."""
        return [Run(variant, seed) for seed in self.seeds for variant in self.variants()]


def build_study(specs: Sequence[TableSpec], seeds: Sequence[int], out: str, overrides: Sequence[Any]) -> Study:
    """Resolve the configurations of a study.

    Args:
        specs: tables; rows of equal settings, in one table or in two, share their runs.
        seeds: values of RNG_SEED.
        out: folder of the study.
        overrides: KEY, VALUE, KEY, VALUE, ... over every file.

    Raises:
        FileNotFoundError: a file does not exist, or no file fits a pattern.
        ValueError: a wrong configuration, seed, name or baseline.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds must be different numbers from 0 on, at least one, found {list(seeds)}")
    for key in overrides[0::2]:
        if key in _OF_THE_STUDY:
            raise ValueError(f"{key} cannot be set for a whole study: {_OF_THE_STUDY[key]} chooses it for every run")
    files = _named_files(specs)
    cfgs = {name: _resolve(file, overrides) for name, file in files.items()}
    settings = {name: relevant_settings(cfg.dump()) for name, cfg in cfgs.items()}
    groups: dict[str, list[str]] = {}
    for name in files:
        del settings[name]["RNG_SEED"]
        groups.setdefault(yaml.safe_dump(settings[name]), []).append(name)
    rows = {}
    for names in groups.values():
        # Where one of them was run already, its runs are used: a study may get another first table.
        first = next((name for name in names if os.path.isdir(os.path.join(out, name))), names[0])
        variant = Variant(first, cfgs[first], settings[first], os.path.join(out, first))
        rows.update({name: Row(name, files[name], variant) for name in names})
    tables = []
    for spec in specs:
        names = [configuration_name(file) for file in _files(spec.cfgs)]
        if spec.baseline and spec.baseline not in names:
            raise ValueError(
                f"the baseline {spec.baseline!r} of table {spec.name} is none of its rows: {', '.join(names)}"
            )
        tables.append(Table(spec.name, spec.title, tuple(rows[name] for name in names), spec.baseline))
    return Study(out, tuple(tables), tuple(seeds), tuple(str(word) for word in overrides))


def _named_files(specs: Sequence[TableSpec]) -> dict[str, str]:
    """Return the configuration files of all tables by name, in their order."""
    files: dict[str, str] = {}
    for spec in specs:
        if not _NAME.fullmatch(spec.name) or spec.name in _RESERVED:
            raise ValueError(
                f"{spec.name!r} cannot be the name of a table: it names files, may have letters, digits and _ . + - "
                f"only, and must not be {', '.join(_RESERVED)}"
            )
        own: dict[str, str] = {}
        for file in _files(spec.cfgs):
            name = configuration_name(file)
            if name in own:
                raise ValueError(f"table {spec.name} has two configurations called {name}: {own[name]}, {file}")
            if os.path.realpath(files.get(name, file)) != os.path.realpath(file):
                raise ValueError(f"two files give runs called {name}, {files[name]} and {file}: rename one of them")
            own[name] = file
        files.update({name: file for name, file in own.items() if name not in files})
    return files


def read_study(path: str) -> dict:
    """Read a study file: ``out``, ``seeds``, ``settings`` (a configuration over those of all files) and ``tables``.

    A table has ``cfgs`` (paths or patterns, relative to the working directory like every path of a configuration), and
    may have a ``title`` and a ``baseline``.

    Returns:
        ``out`` ("" if not given), ``seeds`` ([] if not given), ``overrides`` (KEY, VALUE, ...), ``tables`` (TableSpec).

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: invalid YAML, an unknown key or a value of a wrong type, naming it.
    """
    tree = read_yaml(path)
    _check_keys(tree, {"out": str, "seeds": list, "settings": dict, "tables": dict}, path)
    if not tree.get("tables"):
        raise ValueError(f"{path}: tables is missing: a study has one or more, each a name with its cfgs")
    specs = []
    for name, content in tree["tables"].items():
        where = f"{path}: tables.{name}"
        if not isinstance(content, dict) or not content.get("cfgs"):
            raise ValueError(f"{where} must be a section with cfgs, a list of configuration files, found {content!r}")
        _check_keys(content, {"cfgs": list, "baseline": str, "title": str}, where)
        specs.append(TableSpec(str(name), **content))
    seeds = tree.get("seeds", [])
    if not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{path}: seeds must be whole numbers, found {seeds}")
    overrides = [word for pair in flat_settings(tree.get("settings", {})).items() for word in pair]
    return {"out": tree.get("out", ""), "seeds": seeds, "overrides": overrides, "tables": specs}


def relevant_settings(dumped: str) -> dict[str, Any]:
    """Return, of a dumped configuration, the settings by full key that decide on what a run computes.

    A key that did not exist when it was written has its default: what was computed then was the same.
    """
    stored = {**_defaults(), **flat_settings(yaml.load(dumped, _FastLoader))}
    return {key: stored[key] for key in sorted(stored) if not key.startswith(WITHOUT_EFFECT)}


@functools.cache
def _defaults() -> dict[str, Any]:
    return flat_settings(yaml.safe_load(get_cfg().dump()))


def configuration_name(file: str) -> str:
    """Return the name of a configuration: that of its file, or of its folder if the file is called config.yaml."""
    path = Path(file)
    return Path(os.path.abspath(path)).parent.name if path.stem == "config" else path.stem


def _files(patterns: Sequence[str]) -> list[str]:
    files = []
    for pattern in patterns:
        found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(f"no configuration file fits {pattern} (looked in {os.getcwd()})")
        files += found
    return files


def _resolve(file: str, overrides: Sequence[Any]) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(file)
    cfg.merge_from_list(list(overrides))
    if not cfg.TEST.ENABLE:
        raise ValueError(f"{file}: TEST.ENABLE is False, but a study compares the results of tests")
    if cfg.TEST.CHECKPOINT_FILE_PATH and cfg.TRAIN.ENABLE:
        raise ValueError(
            f"{file}: TEST.CHECKPOINT_FILE_PATH is {cfg.TEST.CHECKPOINT_FILE_PATH!r}: every seed would be tested with "
            "that file; set it to '' to test what each run has trained"
        )
    cfg.freeze()
    return cfg


def _check_keys(tree: dict, allowed: dict[str, type], where: str) -> None:
    for key, value in tree.items():
        if key not in allowed:
            raise ValueError(f"{where}: unknown key {key!r}; allowed: {', '.join(allowed)}")
        if not isinstance(value, allowed[key]):
            raise ValueError(f"{where}: {key} takes a {allowed[key].__name__}, found {value!r}")
