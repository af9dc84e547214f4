"""Setting up the environment, in small repositories with requirements of their own and without a network."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))

# Builds the package of a small repository, without setuptools, which pip would have to download.
BACKEND = """
import zipfile

def write_wheel(folder, name, requirements=""):
    with zipfile.ZipFile(f"{folder}/{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        info = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n{requirements}"
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", info)
        info = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", info)
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return f"{name}-1.0-py3-none-any.whl"

def build_editable(folder, config_settings=None, metadata_directory=None):
    return write_wheel(folder, "small", "Provides-Extra: dev\\nRequires-Dist: alpha\\n")
"""


def make_repository(folder, requirements):
    """Make a folder with the real script and the given requirements."""
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "setup_env.sh", folder / "tools")
    build_system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"requirements.txt": requirements, "requirements-dev.txt": "x>=1\n", "requirements-natten.txt": "natten"}
    files |= {"setup.py": "", "backend.py": BACKEND, "pyproject.toml": build_system}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def start(repository, command='echo "$PY"', **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "SETUP_"))}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    script = f'set -eu; source "{repository}/tools/setup_env.sh" || exit 7; {command}'
    return subprocess.Popen(
        ["bash", "-c", script], env={**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def set_up(*args, **variables):
    """Return status, output and messages."""
    process = start(*args, **variables)
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout.strip(), stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    exec(BACKEND, written_by := {})
    written_by["write_wheel"](folder := tmp_path_factory.mktemp("wheels"), "alpha")
    return str(folder)


def test_suitable_python_on_path_is_used_as_it_is(tmp_path):
    requirements = '# comment\n--prefer-binary\n\npackaging>=20  # why\nnowhere>=1 ; sys_platform == "another"\n'
    repository = make_repository(tmp_path / "a b", requirements)
    code = 'cd /; echo "$PY"; command -v python; "$PY" -c "import sys; print(sys.path[1])"'
    status, stdout, stderr = set_up(repository, code)
    assert status == 0, stderr
    py, python, first_on_path = stdout.splitlines()
    assert Path(py).parent == Path(python).parent == Path(sys.executable).parent
    assert first_on_path == str(repository) and stderr == f"setup: using {py}\n"
    assert not (repository / ".venv").exists()


def test_what_is_wrong_is_said(tmp_path):
    repository = make_repository(tmp_path / "r", "packaging<1\n")
    status, stdout, stderr = set_up(repository, PYTHON="/bin/false")
    assert (status, stdout) == (7, "") and "Python 3.10 or newer" in stderr
    # pip finds nothing to install from: the set-up fails, and is not taken for complete the next time.
    status, stdout, stderr = set_up(repository)
    assert (status, stdout) == (7, "") and "packaging<1 is needed, there is" in stderr
    assert "No matching distribution found for alpha" in stderr
    assert not (repository / ".venv" / "complete").exists()


def test_environment_is_made_once_and_repaired(tmp_path, wheels):
    repository = make_repository(tmp_path / "r", "alpha>=1\n")
    runs = [start(repository, PIP_FIND_LINKS=wheels) for _ in range(2)]  # at the same time
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert sum("installing into" in error for error in errors) == 1
    assert sum("no natten, an optional package" in error for error in errors) == 1
    assert all("not using the Python on PATH" in error for error in errors)

    code = 'command -v python; cd /; "$PY" -c "import alpha; alpha.__file__ or exit(1)"'
    status, stdout, stderr = set_up(repository, code)
    assert (status, stdout) == (0, f"{repository}/.venv/bin/python") and "installing" not in stderr

    # Interrupted: pip would not notice that a file is missing. Begun from inside the environment, which goes.
    (repository / ".venv" / "complete").unlink()
    next((repository / ".venv").rglob("alpha.py")).unlink()
    path = f"{repository}/.venv/bin:{os.environ['PATH']}"
    status, _, stderr = set_up(repository, code, PATH=path, PIP_FIND_LINKS=wheels)
    assert status == 0 and "installing" in stderr, stderr

    (repository / "requirements.txt").write_text("alpha>=1\n# another\n")
    status, _, stderr = set_up(repository, code, PIP_FIND_LINKS=wheels)
    assert status == 0 and "installing" in stderr and "already satisfied: alpha" in stderr, stderr


def requirements(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_a_range(name):
    for requirement in requirements(name):
        assert sorted(specifier.operator for specifier in requirement.specifier) == ["<", ">="], requirement


def test_everything_imported_is_a_requirement():
    files = [file for folder in ("slowfast", "tools", "tests") for file in (ROOT / folder).rglob("*.py")]
    allowed = {"slowfast", "tools", "cv2", "PIL", "yaml", *sys.stdlib_module_names, *(file.stem for file in files)}
    # triton comes with torch on the platforms that have it, packaging with matplotlib and pytest.
    allowed |= {"triton", "packaging"}
    allowed |= {"h5py"}  # of `tools/prepare_data.py mpii` alone, which names it where it is missing
    allowed |= {requirement.name for name in REQUIREMENTS for requirement in requirements(name)}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{file}:{node.lineno} imports {name}"
