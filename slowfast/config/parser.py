"""YAML files to a configuration: ``_BASE_`` inheritance, strict keys and types, errors that name file and key."""

from __future__ import annotations

import os
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _FvcoreCfgNode

BASE_KEY = "_BASE_"

# fragments -> recipe -> experiment; deeper chains are hard to follow.
MAX_DEPTH = 3


# Words that keys accept beside values of their default's type, by full key.
_WORDS: dict[str, tuple[str, ...]] = {}


def accept_words(key: str, *words: str) -> None:
    """Let ``key`` (as in "TRAIN.MICRO_BATCH_SIZE") have one of ``words`` instead of a value of its default's type."""
    _WORDS[key] = words


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, which plain YAML accepts silently (the last one wins)."""


def _construct_unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            line = key_node.start_mark.line + 1
            raise ValueError(f"{loader.name}, line {line}: key {key!r} is given twice in the same section")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


class CfgNode(_FvcoreCfgNode):
    """A configuration tree with attribute access whose keys and types are fixed by its defaults."""

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Override values by those of a YAML file and of the files it names under ``_BASE_``.

        Args:
            cfg_filename: path of the YAML file; ``_BASE_`` paths in it are relative to it.
            allow_unsafe: accepted for compatibility with fvcore, must be False.

        Raises:
            FileNotFoundError: the file or one of its bases does not exist.
            ValueError: invalid YAML, an unknown key, a wrong type, a key given twice, inheritance too deep or circular.
        """
        if allow_unsafe:
            raise ValueError("allow_unsafe=True is not supported: a configuration never runs code")
        for path in _base_chain(cfg_filename):
            _merge(self, read_yaml(path), where=path, prefix="")

    def merge_from_list(self, cfg_list: list[str]) -> None:
        """Override values by ``["KEY", value, "KEY", value, ...]``; strings are read as YAML, as in a file.

        Raises:
            ValueError: a key without a value, an unknown key or a wrong type.
        """
        if len(cfg_list) % 2:
            raise ValueError(f"overrides must come as KEY VALUE pairs, found {len(cfg_list)} words: {cfg_list}")
        for full_key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            nested: Any = value
            for part in reversed(str(full_key).split(".")):
                nested = {part: nested}
            _merge(self, nested, where="command line", prefix="")


def read_yaml(path: str) -> dict:
    """Return the content of one YAML file, without that of the files that it names under ``_BASE_``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: invalid YAML, a key given twice, or no mapping of sections.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"configuration file {path} does not exist (looked in {os.getcwd()})")
    with open(path, encoding="utf-8") as file:
        try:
            tree = yaml.load(file, Loader=_UniqueKeyLoader) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a configuration is a mapping of sections, found a {type(tree).__name__}")
    return tree


def read_bases(path: str) -> list[str]:
    """Return the paths of the files that a YAML file names under ``_BASE_``.

    Raises:
        FileNotFoundError: the YAML file itself does not exist.
        ValueError: it is invalid, or the names are no paths.
    """
    bases = read_yaml(path).get(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: {BASE_KEY} must be a path or a list of paths, found {bases!r}")
    return [os.path.normpath(os.path.join(os.path.dirname(path), base)) for base in bases]


def _base_chain(path: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return the files to merge, in order, for ``path``: its bases first, ``path`` last."""
    path = os.path.normpath(path)
    if path in above:
        raise ValueError(f"{BASE_KEY} runs in a circle: {' -> '.join((*above, path))}")
    above = (*above, path)
    if len(above) > MAX_DEPTH:
        raise ValueError(f"{BASE_KEY} is nested more than {MAX_DEPTH} levels deep: {' -> '.join(above)}")
    return [file for base in read_bases(path) for file in _base_chain(base, above)] + [path]


def _merge(node: CfgNode, tree: dict, where: str, prefix: str) -> None:
    for key, value in tree.items():
        if key == BASE_KEY and not prefix:
            continue
        full_key = f"{prefix}{key}"
        if key not in node:
            raise ValueError(f"{where}: unknown key {full_key}{_suggestion(node, str(key), prefix)}")
        default = node[key]
        if isinstance(default, CfgNode):
            if not isinstance(value, dict):
                raise ValueError(f"{where}: {full_key} is a section with keys {sorted(default)}, found {value!r}")
            _merge(default, value, where, prefix=f"{full_key}.")
        elif full_key in _WORDS:
            node[key] = _coerce_or_word(value, default, _WORDS[full_key], f"{where}: {full_key}")
        else:
            node[key] = _coerce(value, default, f"{where}: {full_key}")


def flat_settings(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one mapping with keys such as "SOLVER.BASE_LR"."""
    flat = {}
    for key, value in tree.items():
        full_key = f"{prefix}{key}"
        flat.update(flat_settings(value, f"{full_key}.") if isinstance(value, dict) else {full_key: value})
    return flat


def _suggestion(node: CfgNode, key: str, prefix: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key.upper(), list(node), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else f"; allowed here: {', '.join(sorted(node))}"


def _decode(value: Any) -> Any:
    """Return what a string from the command line means, by the rules of the YAML files."""
    if not isinstance(value, str):
        return value
    try:
        decoded = yaml.safe_load(value)
        # YAML 1.1 reads 1e-4 (without a dot) as a string.
        return float(decoded) if isinstance(decoded, str) else decoded
    except (yaml.YAMLError, ValueError):
        return value


def _coerce_or_word(value: Any, default: Any, words: tuple[str, ...], where: str) -> Any:
    """Return ``value`` if it is one of ``words``, else in the type of numbers that the key takes."""
    if value in words:
        return value
    try:
        return _coerce(value, 0 if isinstance(default, str) else default, where)
    except ValueError as error:
        raise ValueError(f"{error}; allowed words: {', '.join(words)}") from error


def _coerce(value: Any, default: Any, where: str) -> Any:
    """Return ``value`` in the type of ``default``; only int -> float and tuple -> list convert."""
    if isinstance(value, dict):
        raise ValueError(f"{where} takes a {type(default).__name__}, found a section: {value!r}")
    decoded = _decode(value) if not isinstance(default, str) else value
    if isinstance(decoded, tuple):
        decoded = list(decoded)
    if isinstance(default, float) and isinstance(decoded, int) and not isinstance(decoded, bool):
        decoded = float(decoded)
    # Exact types: a bool is an int to isinstance.
    if type(decoded) is not type(default):
        raise ValueError(
            f"{where} takes a {type(default).__name__} such as {default!r}, found {value!r} ({type(decoded).__name__})"
        )
    if isinstance(decoded, list) and default:
        decoded = [_coerce(item, default[0], f"{where}[{i}]") for i, item in enumerate(decoded)]
    return decoded
