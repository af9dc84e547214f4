"""Say whether the Python that runs this file has what the project needs.

    python tools/check_env.py [dev]

Exits with 0 if so, else prints one line that says what is wrong and exits with 1. "dev" adds
requirements-dev.txt.

The installed versions are compared with the requirements files every time (0.1 s). That says nothing about
binaries that do not fit together: a CPU build of torch and a CUDA build of torchvision satisfy every version
range and cannot be imported. So everything is imported once too, in a process of its own. The outcome of this
slower check is kept in .setup/ under a key of interpreter and versions; with other versions it is repeated.
"""

import hashlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".setup"

MODULE_NAMES = {"opencv-python-headless": "cv2", "pillow": "PIL", "PyYAML": "yaml"}
# Other distributions of the same module; two of them side by side overwrite each other's files.
EQUIVALENTS = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")}


def problem_with_environment(extras: list[str]) -> str | None:
    """Check the running interpreter.

    Args:
        extras: Names whose `requirements-NAME.txt` must be satisfied on top of `requirements.txt`.

    Returns:
        None if everything is there and can be imported, else one line that says what is not.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:  # an environment without any package still has pip's own copy
            from pip._vendor.packaging.requirements import Requirement
        except ImportError:
            return "it has neither pip nor packaging"

    def installed(file: str) -> dict[str, str]:
        versions = {}
        for requirement in map(Requirement, read_requirements(file)):
            if requirement.marker and not requirement.marker.evaluate():
                continue
            version = installed_version(requirement.name)
            if version is None:
                missing.append(requirement.name)
            elif not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
            else:
                versions[requirement.name] = version
        return versions

    missing, wrong = [], []
    versions = installed("requirements.txt")
    for extra in extras:
        installed(f"requirements-{extra}.txt")
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        wrong.insert(0, f"it lacks {', '.join(missing[:4])}{more}")
    # The extras are pure Python; without them, jobs with and without an extra share one check.
    return "; ".join(wrong) if wrong else problem_with_imports(versions)


def read_requirements(file: str) -> list[str]:
    """The lines of a requirements file, without comments and pip's options."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


def installed_version(name: str) -> str | None:
    """The version of an installed distribution or of its equivalent, None without one."""
    for candidate in (name, *EQUIVALENTS.get(name, ())):
        try:
            version = metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
        if version:  # None where an interrupted installation left a folder without metadata
            return version
    return None


def problem_with_imports(versions: dict[str, str]) -> str | None:
    """Import every distribution in one fresh process, unless the outcome for these versions is known already.

    Args:
        versions: Distribution name -> installed version.

    Returns:
        None, or the last line of the error message.
    """
    key = repr((sys.prefix, sys.version, sorted(versions.items())))
    stamp = STATE / f"imports-{hashlib.sha256(key.encode()).hexdigest()[:16]}.txt"
    if stamp.exists():
        return stamp.read_text(encoding="utf-8") or None

    modules = [MODULE_NAMES.get(name, name) for name in versions]
    print(f"setup: checking that the packages of {sys.prefix} can be imported ...", file=sys.stderr)
    run = subprocess.run(
        [sys.executable, "-c", "import " + ", ".join(modules)], cwd=ROOT, capture_output=True, text=True
    )
    problem = None
    if run.returncode:
        last_line = (run.stderr.strip() or f"exit status {run.returncode}").splitlines()[-1]
        problem = f"its packages cannot be imported: {last_line}"
    if run.returncode >= 0:  # killed by a signal (no memory, for example): another time it may work
        try:
            STATE.mkdir(exist_ok=True)
            partial = stamp.with_suffix(f".{os.getpid()}")
            partial.write_text(problem or "", encoding="utf-8")
            partial.replace(stamp)
        except OSError:
            pass  # a read-only checkout: the check is repeated next time
    return problem


if __name__ == "__main__":
    problem = problem_with_environment(sys.argv[1:])
    if problem:
        print(problem)
        sys.exit(1)
