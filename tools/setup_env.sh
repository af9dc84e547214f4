# Source this from bash; the script goes on with a complete Python environment, or stops:
#
#   source tools/setup_env.sh || exit 1
#   SETUP_EXTRAS=dev source tools/setup_env.sh || exit 1    # with requirements-dev.txt
#
# The Python on PATH (or PYTHON=/path/to/python), an activated environment included, is used as it is where it satisfies
# the requirements; it is never changed. Elsewhere .venv of the repository is used, and made or completed at need.
# Sets PY (absolute path), puts its folder first on PATH and the repository first on PYTHONPATH. Speaks on stderr.

# Fails unless a Python satisfies the requirements files; the last line of its output says why. Takes 0.1 s.
setup_env_check() {
    "$@" 2>&1 <<'PYTHON'
import sys
from importlib.metadata import version
try:
    from packaging.requirements import Requirement
except ImportError:  # an environment without any package still has pip's own copy
    from pip._vendor.packaging.requirements import Requirement
lines = [line.partition("#")[0].strip() for name in sys.argv[1:] for line in open(name, encoding="utf-8")]
for requirement in [Requirement(line) for line in lines if line and not line.startswith("-")]:
    if not requirement.marker or requirement.marker.evaluate():
        found = version(requirement.name)
        if not requirement.specifier.contains(found, prereleases=True):
            sys.exit(f"{requirement} is needed, there is {found}")
PYTHON
}

# Makes .venv with a Python, or completes it. .venv/complete tells for which requirements it has been done to the end.
setup_env_install() {
    local pip=(.venv/bin/python -m pip --disable-pip-version-check install) wanted
    wanted=$(cat setup.py requirements*.txt | cksum)
    if [ -x .venv/bin/python ] && [ "$(cat .venv/complete 2>/dev/null)" = "$wanted" ]; then return; fi
    echo "setup: installing into $PWD/.venv (the first time takes minutes and several GB)"
    if [ ! -x .venv/bin/python ] || [ ! -f .venv/complete ]; then # an interrupted one is made afresh,
        # not by the Python in it. Where Python comes without ensurepip, the pip that is here puts one there.
        base=$("$1" -c 'import sys; print("%s/bin/python%d.%d" % (sys.base_prefix, *sys.version_info[:2]))')
        "$base" -m venv --clear .venv || "$base" -m pip --python .venv install pip || return
    fi
    "${pip[@]}" -e '.[dev,docs]' || return
    # Why these options: see requirements-natten.txt. Without the cache, in which there may be a CUDA build.
    CUDA_VISIBLE_DEVICES='' "${pip[@]}" -q --no-build-isolation --no-deps --no-cache-dir -r requirements-natten.txt \
        2>/dev/null || echo "setup: no natten, an optional package that nothing depends on"
    echo "$wanted" >.venv/complete
}

# Prints the path of the interpreter.
setup_env() (
    cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null || exit
    candidates=(python3 python python3.13 python3.12 python3.11 python3.10 .venv/bin/python)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        python=$("$candidate" -c 'import sys; sys.version_info < (3, 10) or print(sys.executable)' 2>/dev/null)
        if [ -n "$python" ]; then break; fi
    done
    if [ -z "$python" ]; then
        echo "setup: Python 3.10 or newer is needed, none is here: PYTHON=/path/to/python3.12 names one" >&2
        exit 1
    fi
    if [[ "$python" != "$PWD"/.venv/* ]]; then
        if why=$(setup_env_check "$python" - requirements.txt ${SETUP_EXTRAS:+"requirements-$SETUP_EXTRAS.txt"}); then
            echo "$python" && exit
        fi
        echo "setup: not using the Python on PATH, $python: ${why##*$'\n'}" >&2
    fi
    mkdir -p .setup
    { # one at a time; the lock lasts until pip has ended, even where this shell is killed
        if command -v flock >/dev/null; then flock 9; fi
        setup_env_install "$python" >&2 || exit 1
    } 9>.setup/lock
    echo "$PWD/.venv/bin/python"
)

PY=$(setup_env) || return 1
export PY
export PATH="$(dirname "$PY"):$PATH"
export PYTHONPATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)${PYTHONPATH:+:$PYTHONPATH}"
unset -f setup_env setup_env_check setup_env_install
echo "setup: using $PY" >&2
