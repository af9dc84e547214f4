"""Find or make a Python environment that satisfies the requirements, and print the path of its interpreter.

    python tools/setup_env.py [dev]

Called by tools/setup_env.sh; needs nothing but the standard library. The answer is the Python that runs this
file if it is suitable; else it is the .venv in the repository, which is made, completed or repaired at need.
Messages and pip's output go to standard error.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from check_env import ROOT, STATE, problem_with_environment

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
# Exists from before the first change of .venv until after the last one.
INSTALLING = STATE / "installing"


def main(extras: list[str]) -> None:
    if Path(sys.prefix).resolve() != VENV.resolve():
        problem = problem_with_environment(extras)
        if problem is None:
            say(f"using the Python on PATH, {sys.executable}: it satisfies the requirements")
            print(sys.executable)
            return
        say(f"not using the Python on PATH, {sys.executable}: {problem}")

    if problem_with_venv(extras) is not None:
        STATE.mkdir(exist_ok=True)
        with open(STATE / "lock", "w") as lock:
            wait_for(lock)
            problem = problem_with_venv(extras)
            if problem is not None:  # else another run has installed everything meanwhile
                say(f"installing into {VENV}: {problem}")
                install(extras, lock.fileno())
    say(f"using {VENV_PYTHON}")
    print(VENV_PYTHON)


def problem_with_venv(extras: list[str]) -> str | None:
    if not VENV.exists():
        return "it does not exist yet (the first time takes minutes and several GB)"
    if INSTALLING.exists():
        return "an installation was interrupted, starting afresh"
    if not venv_runs():
        return "it has no working Python >= 3.10 (any more), starting afresh"
    check = subprocess.run([VENV_PYTHON, ROOT / "tools" / "check_env.py", *extras], stdout=subprocess.PIPE, text=True)
    return check.stdout.strip() or "the check failed" if check.returncode else None


def install(extras: list[str], lock: int) -> None:
    def pip(*arguments: str, **kwargs) -> bool:
        command = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
        # With the lock handed down, it lasts until pip ends even if this process is killed.
        return subprocess.run(command, cwd=ROOT, stdout=sys.stderr, pass_fds=[lock], **kwargs).returncode == 0

    afresh = INSTALLING.exists() or not venv_runs()
    INSTALLING.touch()
    if afresh:
        for outcome in STATE.glob("imports-*"):
            outcome.unlink()
        make_venv()
    files = ["requirements.txt", *(f"requirements-{extra}.txt" for extra in extras)]
    # setuptools: builds natten below; named here so that pip chooses a version that torch accepts.
    if not pip("setuptools>=70.1", *(word for file in files for word in ("-r", file))):
        if not afresh:  # pip has left what was there: the environment still serves the jobs it served before
            INSTALLING.unlink()
        fail("pip could not install the requirements, see its message above. Run this again to retry.")

    # Why these options: see requirements-natten.txt. Without the cache, in which there may be a CUDA build.
    options = ["--no-build-isolation", "--no-deps", "--no-cache-dir"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "NATTEN_CUDA_ARCH": ""}
    natten = pip(*options, "-r", "requirements-natten.txt", env=environment) and venv_runs("import natten")
    if not natten:
        say("warning: no natten, an optional package that nothing depends on")

    # For work in an activated .venv: `import slowfast` from any folder.
    (site_packages() / "slowfast_repository.pth").write_text(f"{ROOT}\n", encoding="utf-8")

    INSTALLING.unlink()
    problem = problem_with_venv(extras)
    if problem is not None:
        fail(f"{VENV} is installed but unusable: {problem}. Remove {VENV} and {STATE} and run this again.")


def make_venv() -> None:
    python = sys.executable
    if sys.prefix != sys.base_prefix:  # in a virtual environment (.venv itself, perhaps): its origin
        python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    venv = subprocess.run(
        [python, "-m", "venv", "--clear", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if venv.returncode == 0:
        return
    # Some systems split ensurepip from Python; then the pip that is here has to put one there.
    bare = subprocess.run([python, "-m", "venv", "--clear", "--without-pip", VENV], stdout=sys.stderr)
    if bare.returncode == 0:
        command = [sys.executable, "-m", "pip", "install", "--target", site_packages(), "pip"]
        if subprocess.run(command, stdout=sys.stderr).returncode == 0:
            return
    say(venv.stdout.strip())
    fail(
        f"{python} could not make a virtual environment. Install its venv module (Debian, Ubuntu: apt install"
        " python3-venv), or activate an environment that has pip, and run this again."
    )


def venv_runs(code: str = "import sys; sys.exit(sys.version_info < (3, 10))") -> bool:
    try:
        return subprocess.run([VENV_PYTHON, "-c", code], stdout=sys.stderr).returncode == 0
    except OSError:
        return False


def site_packages() -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    run = subprocess.run([VENV_PYTHON, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return Path(run.stdout.strip())


def wait_for(lock) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another run is installing, waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def say(message: str) -> None:
    print(f"setup: {message}", file=sys.stderr)


def fail(message: str) -> None:
    say(message)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        fail("interrupted")
