# Source this from bash (the job's script goes on with a complete Python environment, or stops):
#
#   source tools/setup_env.sh || exit 1
#   SETUP_EXTRAS=dev source tools/setup_env.sh || exit 1    # with requirements-dev.txt
#
# The Python on PATH, an activated virtual or conda environment included, is used as it is when it satisfies the
# requirements; it is never changed. Otherwise .venv in the repository is made, completed or repaired, and used.
# PYTHON=/path/to/python names another interpreter than the one on PATH.
#
# Sets PY (absolute path of the interpreter), puts its folder first on PATH, and the repository first on PYTHONPATH.
# Start several processes with "$PY" -m torch.distributed.run: unlike the torchrun script, it cannot belong to another
# environment. All messages go to standard error.

setup_env_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# A subshell: none of its variables stay behind in the script that sources this one.
find_python() (
    # The last one serves when the Python that made .venv has left PATH.
    candidates=(python3 python python3.13 python3.12 python3.11 python3.10 "$setup_env_root/.venv/bin/python")
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        "$candidate" -c 'import sys; sys.version_info >= (3, 10) or sys.exit(1); print(sys.executable)' 2>/dev/null && exit
    done
    echo "setup: Python 3.10 or newer is needed. Tried: ${candidates[*]}" >&2
    echo "setup: install one (or activate an environment that has one), or name it: PYTHON=/path/to/python3.12 bash ..." >&2
    exit 1
)

PY="$(find_python)" && PY="$("$PY" "$setup_env_root/tools/setup_env.py" ${SETUP_EXTRAS:-})" || return 1
export PY
export PATH="$(dirname "$PY"):$PATH"
export PYTHONPATH="$setup_env_root${PYTHONPATH:+:$PYTHONPATH}"
unset -f find_python
unset setup_env_root
