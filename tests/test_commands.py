"""Commands of README.md and the pages of docs are taken by the tools' own parsers; keys, values and files are there."""

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from slowfast.config import load_cfg
from slowfast.config.defaults import get_cfg
from slowfast.inference.model import list_models

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "exp/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
# What the reader has, or what an earlier command of the pages has made.
OF_THE_READER = r"(/data/mine|(clip|film)\.mp4|(configs/mine|quickstart)\.yaml)$|/?[A-Z]\w*$|exp/(NAME|small_window)/"
MADE = r"(data/(quickstart|mine|ssv1|ssv2|kinetics400|diving48|mpii|gym99|hmdb51)|output|exp/quickstart)($|/)"
COMMAND = r"(?:[A-Z_]+=\S+ )*(?:python (?:tools|docs)/|tools/\w+\.py |slowfast-(?!emim)|bash |torchrun |srun )"


def find_commands():
    """Return (page, command, whether it stands in a block, which makes it complete)."""
    found = []
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.S | re.M):
            lines = [re.sub(r"^\$ ", "", line.strip()) for line in block.replace("\\\n", " ").splitlines()]
            found += [(name, line, True) for line in lines if re.match(COMMAND, line)]
        spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
        found += [(name, " ".join(span.split()), False) for span in spans if re.match(COMMAND, span)]
    return found


def as_tool(command):
    """Return the tool that a command starts, and its arguments; no tool for tests/run.sh and the like."""
    words = shlex.split(re.split(r"[|>;]| \|\| ", command)[0].replace('"$@"', ""), comments=True)
    for index, word in enumerate(words):
        if match := re.fullmatch(r"(exp/\w+)/(run|test)\.sh", word):
            tool = {"run": "run_net", "test": "test_net"}[match[2]]
            return tool, ["--cfg", f"{match[1]}/config.yaml", *words[index + 1 :]]
        if match := re.fullmatch(r"tools/(\w+)\.py|slowfast-([a-z-]+)", word):
            tool = match[1] or match[2].replace("-", "_")
            return f"{tool}_net" if tool in ("run", "train", "test") else tool, words[index + 1 :]
    return None, words


class Parsed(BaseException):
    """End of a tool that has read its arguments, which are ``args[0]``; no tool catches it."""


def parse(tool, arguments, monkeypatch):
    """Start a tool and return what its parser makes of the arguments, or the text of its complaint."""

    def stop(parse_arguments):
        def parse_and_stop(self, *args, **options):
            raise Parsed(parse_arguments(self, *args, **options))

        return parse_and_stop

    with monkeypatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as complaint:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, stop(getattr(argparse.ArgumentParser, name)))
        patch.setattr(sys, "argv", [tool, *arguments])
        try:
            runpy.run_path(str(ROOT / f"tools/{tool}.py"), run_name="__main__")
        except Parsed as parsed:
            return vars(parsed.args[0]), ""
        except SystemExit:
            return None, complaint.getvalue()


COMMANDS = find_commands()
CALLS = [(page, line, is_block, *as_tool(line)) for page, line, is_block in COMMANDS]


def test_commands_were_found():
    tools = {tool for *_, tool, _ in CALLS if tool}
    assert {path.stem for path in (ROOT / "tools").glob("[a-z]*.py")} == tools


def missing_files(given):
    names = [given[key] for key in ("cfg", "data", "study", "videos", "annotations", "media") if given.get(key)]
    names += [*given.get("cfgs", ()), *given.get("against", ()), *given.get("inputs", ()), *given.get("files", ())]
    names += [name for name in [given.get("model")] if name and name not in list_models()]
    there = [name for name in names if re.match(OF_THE_READER, name) or re.match(MADE, name) or [*ROOT.glob(name)]]
    return [name for name in names if name not in there]


@pytest.mark.parametrize("tool", sorted({call[3] for call in CALLS if call[3]}))
def test_commands_are_taken_by_their_tools(tool, monkeypatch):
    monkeypatch.chdir(ROOT)
    for page, line, is_block, _, arguments in [call for call in CALLS if call[3] == tool]:
        arguments = [word for word in arguments if word not in ("[KEY", "VALUE", "...]", "[options]")]
        if not is_block and not arguments:
            continue
        given, complaint = parse(tool, arguments, monkeypatch)
        where = f"{page}: {line}"
        if given is None:  # in running text what is required may be left out
            partly = "are required|expected one argument|invalid choice: 'COMMAND'" + "|^$" * ("--help" in arguments)
            assert not is_block and re.search(partly, complaint), f"{where}: {complaint}"
            continue
        assert not missing_files(given), where
        settings = [word for word in given.get("opts") or () if word != "--dry-run"]
        path = next(iter([given.get("cfg"), *given.get("cfgs", ())]), None)
        if path and Path(path).is_file():
            load_cfg(path, settings)
        else:
            get_cfg().merge_from_list(settings)


def test_the_quickstart_without_the_repository_makes_the_same_clips():
    (made,) = re.findall(r"(tools/prepare_data\.py .*\n.*\n.*)\n", (ROOT / "exp/quickstart/run.sh").read_text())
    (told,) = [arguments for page, *_, tool, arguments in CALLS if (page, tool) == ("docs/install.md", "prepare_data")][
        :1
    ]
    assert as_tool(made.replace("\\\n", " ")) == ("prepare_data", told)


def test_options_in_running_text_exist():
    sources = "".join(path.read_text() for path in [*ROOT.glob("tools/*.py"), ROOT / "slowfast/engine/run.py"])
    sources += " ".join(f'"--{name}"' for name in ("clips", "size", "heads"))  # of keywords of benchmark op
    spans = re.findall(r"`(--[a-z-]+)[^`]*`", "".join(page.read_text(encoding="utf-8") for page in PAGES))
    assert {option for option in spans if f'"{option}"' not in sources} == {
        "--signal",
        "--tool",
    }  # of SLURM and compute-sanitizer


def test_other_commands_start_what_is_there():
    for page, line, _, tool, words in CALLS:
        if tool is None:
            paths = [word for word in words if re.search(r"\w/\w", word)]
            assert all((ROOT / path).exists() or "NAME" in path for path in paths), f"{page}: {line}"
