"""``--help`` of every tool and command fits a screen and shows a command that the same tool accepts."""

import json
import re
import subprocess
import sys

from helpers_engine import ROOT

from tools.prepare_data import COMMANDS

CALLS = [[path.stem] for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "__init__"]
CALLS += [["prepare_data", command] for command in COMMANDS]
CALLS += [["benchmark", command] for command in ("flops", "model", "op", "loader")] + [["test_net", "--from-scores"]]
CODE = f"""
import contextlib, io, json, runpy, shlex, sys
shown = {{}}
for name, *arguments in {CALLS!r}:
    sys.argv = [name, *arguments, "--help"]
    shown[" ".join([name, *arguments])] = text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path({str(ROOT)!r} + f"/tools/{{name}}.py", run_name="__main__")
print(json.dumps({{name: text.getvalue() for name, text in shown.items()}}))
"""


def test_help_fits_a_screen_and_has_an_example(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    shown = json.loads(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
    for name, text in shown.items():
        assert text.count("\n") <= 48 and max(map(len, text.splitlines())) <= 120, name
        assert re.search(rf"xample:\n *python tools/{name.split()[0]}\.py", text), name
        assert "None" not in text, name
