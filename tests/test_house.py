"""The house: imports go one way, files and functions stay small, docstrings are found by a search."""

import ast
import re
from pathlib import Path

from slowfast.config.document import document
from slowfast.config.parser import KEYS
from slowfast.models.zoo import ARCHITECTURES

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "slowfast").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
# Rooms that a room may import besides itself; "training" stands for all that a training run reaches.
GROUND = {"utils", "config", "ops"}
MAY_IMPORT = {
    "utils": set(),
    "config": {"utils"},
    "ops": {"utils"},
    "models": GROUND,
    "datasets": {"utils", "config", "synthetic"},
    "prepare": {"utils", "config", "datasets"},
    "synthetic": {"utils", "config"},
    "engine": GROUND | {"models", "datasets"},
    "analysis": GROUND | {"models", "datasets", "engine"},
    "inference": GROUND | {"models", "datasets", "engine", "prepare", "synthetic", "analysis"},
    "benchmark": GROUND | {"models", "datasets", "engine", "synthetic", "analysis"},
}


def room(path):
    return path.relative_to(ROOT / "slowfast").parts[0]


def imported_rooms(tree):
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("slowfast.") and name.count("."))


def test_imports_go_one_way():
    for path in FILES:
        if path.parent != ROOT / "slowfast":
            assert {*imported_rooms(TREES[path])} <= MAY_IMPORT[room(path)] | {room(path)}, path


def test_files_and_functions_are_small():
    for path in FILES:
        lines = len(path.read_text().splitlines())
        assert lines <= 380 or path.name == "defaults.py", path
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.FunctionDef) and "triton" not in path.parts:
                assert node.end_lineno - node.lineno < 65, f"{path}: {node.name}"
    assert len(list((ROOT / "slowfast/engine").glob("*.py"))) <= 9
    assert len([path for path in FILES if room(path) == "datasets"]) <= 22
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "slowfast/ops/emim/triton").glob("*.py")) <= 1000


def test_docstrings_are_noun_phrases_or_imperatives():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                assert not re.match(r"(What|Where|Which|How|Who)\b", text), f"{path}: {text.splitlines()[0]}"


def test_configuration_reads_as_its_document_says():
    # Made by: python -m slowfast.config.document > docs/configuration.md
    assert (ROOT / "docs" / "configuration.md").read_text() == document()
    assert len(KEYS) <= 122


def test_the_table_of_models_has_every_architecture():
    # Made by: python -m slowfast.models.document > docs/models.md
    page = (ROOT / "docs" / "models.md").read_text()
    assert [name for name in ARCHITECTURES if f"| `{name}` |" not in page] == []
