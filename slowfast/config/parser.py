"""YAML files to a configuration: ``_BASE_`` inheritance, strict keys and types, errors that name file and key."""

import copy
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from yacs.config import CfgNode as _YacsCfgNode

from slowfast.config.keys import Key
from slowfast.config.user_modules import import_user_module
from slowfast.utils.errors import UserError
from slowfast.utils.files import read_text

BASE_KEY, MODULES_KEY = "_BASE_", "USER_MODULES"

# Declarations by full name, such as "SOLVER.BASE_LR"; slowfast/config/defaults.py and modules of users fill it.
KEYS: dict[str, Key] = {}


def declare(section: str, **keys: Key) -> None:
    """Declare keys of a section, new or not; "" is the top level."""
    for name, key in keys.items():
        full_key = f"{section}.{name}" if section else name
        if full_key in KEYS:
            raise UserError(f"the configuration key {full_key} is declared twice: give yours another name")
        KEYS[full_key] = key


class CfgNode(_YacsCfgNode):
    """A configuration tree with attribute access, whose keys, types and ranges are declared in ``KEYS``."""

    def add_declared(self) -> None:
        """Add the keys that are declared and not here yet, with their defaults."""
        for full_key, key in KEYS.items():
            *sections, name = full_key.split(".")
            node = self
            for section in sections:
                node = node.setdefault(section, CfgNode())
            node.setdefault(name, CfgNode() if key.default == {} else copy.deepcopy(key.default))

    def merge_from_file(self, cfg_filename: str) -> None:
        """Override values by those of a YAML file and of the files it names under ``_BASE_``, relative to it.

        A file that several of them name is read once, where it is named first.
        """
        trees = [(path, read_yaml(path)) for path in dict.fromkeys(_base_chain(cfg_filename))]
        for path, tree in [item for item in trees if MODULES_KEY in item[1]][-1:]:  # the list that counts
            self._import_modules(tree, path)  # first of all, for they may declare keys
        for path, tree in trees:
            tree.pop(BASE_KEY, None)
            _merge(self, tree, where=path, prefix="")

    def merge_from_text(self, text: str, where: str) -> None:
        """Override values by those of a dumped configuration; ``where`` it is from is for messages."""
        tree = yaml.safe_load(text)
        if tree.get(MODULES_KEY):
            self._import_modules(tree, where)
        _merge(self, tree, where, prefix="")

    def merge_from_list(self, cfg_list: Sequence) -> None:
        """Override values by ``["KEY", value, "KEY", value, ...]``; strings are read as YAML, as in a file."""
        if len(cfg_list) % 2:
            hint = "; no = between them" if any("=" in str(word) for word in cfg_list[0::2]) else ""
            found = " ".join(map(str, cfg_list))
            raise UserError(
                f"command line: settings must be KEY VALUE pairs{hint}, found an odd number of words: {found}"
            )
        for full_key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            nested: Any = value
            for part in reversed(str(full_key).split(".")):
                nested = {part: nested}
            if full_key == MODULES_KEY:
                self._import_modules(nested, "command line")
            _merge(self, nested, where="command line", prefix="")

    def _import_modules(self, tree: dict, where: str) -> None:
        """Import the user's modules that ``tree`` names, note where they were found, and add what they declare."""
        names = _coerce(tree[MODULES_KEY], [], f"{where}: {MODULES_KEY}")
        KEYS[MODULES_KEY].check(f"{where}: {MODULES_KEY}", names)
        tree[MODULES_KEY] = [import_user_module(name, where) for name in names]
        self.add_declared()

    def with_settings(self, *pairs: Any) -> "CfgNode":
        """Return a copy with ``KEY, value, ...`` over it, frozen if this tree is."""
        cfg = self.clone()
        cfg.merge_from_list(pairs)
        return cfg


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, which plain YAML accepts silently (the last one wins)."""


def _construct_unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if isinstance(key, (list, dict)):
            raise UserError(f"{loader.name}, line {line}: a key must be a word, found {key!r}")
        if key in mapping:
            raise UserError(f"{loader.name}, line {line}: key {key!r} is given twice in the same section")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


def read_yaml(path: str) -> dict:
    """Return the content of one YAML file, without that of the files that it names under ``_BASE_``."""
    if not os.path.isfile(path):
        problem = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UserError(f"configuration file {os.path.abspath(path)} {problem}")
    text = read_text(path)
    try:
        loader = _UniqueKeyLoader(text)
        loader.name = path
        tree = loader.get_single_data() or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{path}{place}: this is not valid YAML: {reason}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a configuration is a mapping of sections, found a {type(tree).__name__}")
    return tree


def read_bases(path: str) -> list[str]:
    """Return the paths of the files that a YAML file names under ``_BASE_``."""
    bases = read_yaml(path).get(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: {BASE_KEY} must be a path or a list of paths, found {bases!r}")
    return [os.path.normpath(os.path.join(os.path.dirname(path), base)) for base in bases]


def _base_chain(path: str, above: tuple[str, ...] = ()) -> list[str]:
    """Return the files to merge, in order, for ``path``: its bases first, ``path`` last."""
    path = os.path.normpath(path)
    if path in above:
        raise UserError(f"{BASE_KEY} runs in a circle: {' -> '.join((*above, path))}")
    return [file for base in read_bases(path) for file in _base_chain(base, (*above, path))] + [path]


def _merge(node: CfgNode, tree: dict, where: str, prefix: str) -> None:
    for key, value in tree.items():
        full_key = f"{prefix}{key}"
        if key not in node:
            raise UserError(f"{where}: unknown key {full_key}{_suggestion(node, str(key), prefix)}")
        if isinstance(node[key], CfgNode) and full_key not in KEYS:
            if not isinstance(value, dict):
                raise UserError(f"{where}: {full_key} is a section with keys {sorted(node[key])}, found {value!r}")
            _merge(node[key], value, where, prefix=f"{full_key}.")
            continue
        declared = KEYS[full_key]
        if isinstance(declared.default, dict):
            node[key] = _merge_mapping(node[key], value, f"{where}: {full_key}")
            continue
        if value not in declared.words:
            if declared.words and isinstance(_decode(value), str):
                raise UserError(f"{where}: {full_key} is {value!r}; allowed: {declared.allowed}")
            default = 0 if declared.default in declared.words else declared.default
            value = _coerce(value, default, f"{where}: {full_key}")
        declared.check(f"{where}: {full_key}", value)
        node[key] = value


def _merge_mapping(old: CfgNode, value: Any, where: str) -> CfgNode:
    """Return a mapping of names to plain values with those of ``value`` over it; None takes a name out."""
    value = _decode(value)
    if not isinstance(value, dict):
        raise UserError(f"{where} takes a mapping of names to values, found {value!r}")
    new = CfgNode({**old, **{str(name): _decode(item) for name, item in value.items()}})
    for name, item in value.items():
        if isinstance(item, dict):
            raise UserError(f"{where}.{name} takes a plain value or a list, found {item!r}")
        if new[str(name)] is None:
            del new[str(name)]
    return new


def flat_settings(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one mapping with keys such as "SOLVER.BASE_LR"."""
    flat = {}
    for key, value in tree.items():
        full_key = f"{prefix}{key}"
        flat.update(flat_settings(value, f"{full_key}.") if isinstance(value, dict) else {full_key: value})
    return flat


def _suggestion(node: CfgNode, key: str, prefix: str) -> str:
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


# In messages.
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", list: "a list"}


def _coerce(value: Any, default: Any, where: str) -> Any:
    """Return ``value`` in the type of ``default``; only int -> float and tuple -> list convert."""
    if isinstance(value, dict):
        raise UserError(f"{where} takes {_KINDS[type(default)]}, found a section: {value!r}")
    decoded = _decode(value) if not isinstance(default, str) else value
    if isinstance(decoded, tuple):
        decoded = list(decoded)
    if isinstance(default, float) and isinstance(decoded, int) and not isinstance(decoded, bool):
        decoded = float(decoded)
    # Exact types: a bool is an int to isinstance.
    if type(decoded) is not type(default):
        raise UserError(f"{where} takes {_KINDS[type(default)]} such as {default!r}, found {value!r}")
    if isinstance(decoded, list) and default:
        decoded = [_coerce(item, default[0], f"{where}[{i}]") for i, item in enumerate(decoded)]
    return decoded
