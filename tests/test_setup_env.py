"""Setting up the environment, in small repositories with requirements of their own and without a network."""

import ast
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ["setup_env.sh", "setup_env.py", "check_env.py"]


def make_repository(folder, requirements, dev=""):
    """A folder with the real scripts and the given requirements."""
    (folder / "tools").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    (folder / "requirements.txt").write_text(requirements)
    (folder / "requirements-dev.txt").write_text(dev)
    (folder / "requirements-natten.txt").write_text("natten\n")
    return folder


def environment(**variables):
    """This process's environment without the settings that would lead pip or Python elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "SETUP_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **variables}


def start(repository, command='echo "$PY"', **variables):
    script = f'set -eu; source "{repository}/tools/setup_env.sh" || exit 7; {command}'
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(["bash", "-c", script], env=environment(**variables), **pipes)


def finish(process):
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout.strip(), stderr


def set_up(repository, *args, **variables):
    return finish(start(repository, *args, **variables))


def make_wheel(folder, name, version, code=""):
    info = f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def unpack_wheel(folder, *args, **kwargs):
    """Put a package into a folder for PYTHONPATH, in place of any other version of it."""
    shutil.rmtree(folder, ignore_errors=True)
    make_wheel(folder, *args, **kwargs)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def test_suitable_python_on_path_is_used_as_it_is(tmp_path):
    repository = make_repository(tmp_path / "a b", "# comment\n--prefer-binary\n\npackaging>=20  # why\n")
    code = 'cd /; echo "$PY"; command -v python; "$PY" -c "import sys; print(sys.path[1])"'
    status, stdout, stderr = set_up(repository, code)
    py, python, first_on_path = stdout.splitlines()
    assert status == 0, stderr
    assert Path(py).parent == Path(sys.executable).parent
    assert Path(python).parent == Path(py).parent
    assert first_on_path == str(repository)
    assert py in stderr and "satisfies" in stderr
    assert not (repository / ".venv").exists()


def test_requirement_for_another_platform_is_not_asked_for(tmp_path):
    lines = 'packaging\nnowhere-to-be-found>=1 ; sys_platform == "another"\n'
    assert check(make_repository(tmp_path / "r", lines)) == (0, "")


def test_no_python_that_is_new_enough(tmp_path):
    repository = make_repository(tmp_path / "r", "packaging\n")
    status, stdout, stderr = set_up(repository, PYTHON="/bin/false")
    assert (status, stdout) == (7, "")
    assert "Python 3.10 or newer" in stderr and "/bin/false" in stderr


def check(repository, extras=(), python=sys.executable, **variables):
    command = [python, repository / "tools" / "check_env.py", *extras]
    run = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    return run.returncode, run.stdout.strip()


def test_check_names_what_is_missing_and_what_is_too_old(tmp_path):
    repository = make_repository(tmp_path / "r", "packaging<1\nnowhere-one\n", dev="nowhere-two>=3\n")
    status, problem = check(repository, ["dev"])
    assert status == 1
    assert "lacks nowhere-one, nowhere-two" in problem
    assert "packaging is" in problem and "needed is <1" in problem
    assert "nowhere-two" not in check(repository)[1]


def test_check_imports_once_per_set_of_versions(tmp_path):
    repository = make_repository(tmp_path / "r", "alpha>=1\n")
    packages, log = tmp_path / "p", tmp_path / "log"
    imported = f"open({str(log)!r}, 'a').write('x')\n"
    broken = imported + "raise RuntimeError('operator alpha::nms does not exist')\n"

    unpack_wheel(packages, "alpha", "1.0", broken)
    for _ in range(2):
        status, problem = check(repository, PYTHONPATH=str(packages))
        assert status == 1
        assert "cannot be imported: RuntimeError: operator alpha::nms does not exist" in problem
        assert log.read_text() == "x"

    unpack_wheel(packages, "alpha", "1.0+cpu", imported)
    for _ in range(2):
        assert check(repository, PYTHONPATH=str(packages)) == (0, "")
        assert log.read_text() == "xx"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("alpha", "beta"):
        make_wheel(folder, name, "1.0")
    make_wheel(folder, "setuptools", "99.0")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheels):
    """A repository whose .venv was made by two runs at the same time."""
    repository = make_repository(tmp_path_factory.mktemp("repository") / "r", "alpha>=1\n", dev="beta>=1\n")
    runs = [start(repository, PIP_FIND_LINKS=str(wheels)) for _ in range(2)]
    for status, stdout, stderr in map(finish, runs):
        assert status == 0, stderr
        assert stdout == f"{repository}/.venv/bin/python"
        assert "not using the Python on PATH" in stderr and "it lacks alpha" in stderr
        assert ("warning: no natten" in stderr) == ("installing into" in stderr)
    return repository


def test_second_run_starts_at_once_and_installs_nothing(installed):
    begin = time.perf_counter()
    code = 'command -v python; cd /; "$PY" -c "import alpha"'
    status, stdout, stderr = set_up(installed, code)
    assert time.perf_counter() - begin < 5
    assert (status, stdout) == (0, f"{installed}/.venv/bin/python"), stderr
    assert "installing" not in stderr


def test_equivalent_distribution_is_accepted(installed, tmp_path):
    python = installed / ".venv" / "bin" / "python"
    repository = make_repository(tmp_path / "r", "opencv-python-headless>=4\n")
    assert check(repository, python=python) == (1, "it lacks opencv-python-headless")
    unpack_wheel(tmp_path / "p", "opencv_contrib_python", "4.1")
    (tmp_path / "p" / "cv2.py").touch()
    assert check(repository, python=python, PYTHONPATH=str(tmp_path / "p")) == (0, "")


def test_failed_addition_leaves_the_environment_usable(installed, tmp_path):
    status, _, stderr = set_up(installed, SETUP_EXTRAS="dev", PIP_FIND_LINKS=str(tmp_path))
    assert status == 7
    assert "pip could not install" in stderr
    assert set_up(installed)[0] == 0


def test_extra_is_added_to_the_environment(installed, wheels):
    variables = {"SETUP_EXTRAS": "dev", "PIP_FIND_LINKS": str(wheels)}
    status, _, stderr = set_up(installed, '"$PY" -c "import beta"', **variables)
    assert status == 0, stderr
    assert "it lacks beta" in stderr and "afresh" not in stderr


def test_interrupted_installation_is_repeated_from_inside_the_environment(installed, wheels):
    (installed / ".setup" / "installing").touch()
    package = next((installed / ".venv").rglob("alpha/__init__.py"))
    package.unlink()  # pip would not notice: the metadata is there
    path = f"{installed}/.venv/bin:{environment()['PATH']}"
    code = '"$PY" -c "import alpha; alpha.__file__ or exit(1)"'
    status, _, stderr = set_up(installed, code, PATH=path, PIP_FIND_LINKS=str(wheels))
    assert status == 0, stderr
    assert "interrupted" in stderr
    assert package.exists()


def requirements(name):
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


REQUIREMENTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_a_range(name):
    for requirement in requirements(name):
        assert sorted(specifier.operator for specifier in requirement.specifier) == ["<", ">="], requirement


def test_package_metadata_repeats_the_requirements(tmp_path):
    pytest.importorskip("setuptools", minversion="64")
    (tmp_path / "slowfast").mkdir()
    for path in [ROOT / "setup.py", ROOT / "slowfast" / "__init__.py", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    command = [sys.executable, "setup.py", "-q", "egg_info"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    sections, extra = {}, "requirements.txt"
    for line in (tmp_path / "slowfast.egg-info" / "requires.txt").read_text().split("\n"):
        if line.startswith("["):
            name = line.strip("[]").partition(":")[0]  # [extra:marker]
            extra = f"requirements-{name}.txt" if name else "requirements.txt"
        elif line:
            sections.setdefault(extra, set()).add(Requirement(line).name)
    for name in REQUIREMENTS:
        assert sections[name] == {requirement.name for requirement in requirements(name)}


def test_everything_imported_is_a_requirement():
    files = [file for folder in ("slowfast", "tools", "tests") for file in (ROOT / folder).rglob("*.py")]
    allowed = {"slowfast", "cv2", "PIL", "yaml", *sys.stdlib_module_names, *(file.stem for file in files)}
    # triton comes with torch on the platforms that have it, packaging with matplotlib and pytest.
    allowed |= {"triton", "packaging", "pip"}
    for name in REQUIREMENTS:
        allowed |= {requirement.name for requirement in requirements(name)}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{file}:{node.lineno} imports {name}"
