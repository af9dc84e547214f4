"""The text of ``docs/configuration.md``: python -m slowfast.config.document > docs/configuration.md."""

import sys

import yaml

import slowfast.config.defaults  # noqa: F401 (fills KEYS)
from slowfast.config.parser import KEYS

_HEAD = """\
# Configuration

Made from `slowfast/config/defaults.py` by `python -m slowfast.config.document`. A YAML file (`--cfg FILE`) overrides
these defaults, the files that it names under `_BASE_` come before it, and `KEY VALUE` pairs of the command line last.
A relative path in a setting starts at the repository, wherever a command is started and whichever file has it; those of
`_BASE_` and `USER_MODULES` at the file that has them. `~` is the home folder. Messages show paths in full.
"""


def document() -> str:
    """Return all keys as Markdown, a table per section."""
    lines, section = [_HEAD], None
    for name, key in KEYS.items():
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines += [f"\n## {section or 'Run'}\n", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        default = yaml.safe_dump(key.default, default_flow_style=True).splitlines()[0]
        cells = (f"`{name}`", f"`{default}`", key.allowed.replace("|", "\\|"), key.meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
