"""Count and time: python tools/benchmark.py flops|model|op|loader [options] [KEY VALUE ...]. Example:
python tools/benchmark.py flops --cfg exp/emim_s16_ssv1_in1k/config.yaml
"""

import argparse
import json
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.config import load_cfg
from slowfast.utils.errors import UserError, run_tool

EXAMPLE = "exp/emim_s16_ssv1_in1k/config.yaml"
PRECISIONS = ("fp32", "bf16", "fp16")


def positive(kind: type):
    """Return the type of an argument that is a positive number."""

    def convert(text: str):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"  # argparse names it in its message
    return convert


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: str, text: str, has_cfg: bool = True) -> argparse.ArgumentParser:
        """Add a subcommand; its arguments are those of the function, MODULE.NAME in slowfast.benchmark."""
        example = f"example:\n  python tools/benchmark.py {name}" + (f" --cfg {EXAMPLE}" if has_cfg else "")
        command = commands.add_parser(name, help=text, description=f"{text}.", epilog=example, formatter_class=raw)
        command.set_defaults(function=function)
        command.add_argument("--json", metavar="FILE", help="write the figures to FILE too, unrounded")
        if has_cfg:
            command.add_argument("--cfg", required=True, metavar="FILE", help="configuration")
            command.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of the file")
        return command

    def add_sizes(command: argparse.ArgumentParser, **defaults: int) -> None:
        command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        for name, default in defaults.items():
            command.add_argument(
                f"--{name}", type=positive(int), default=default, metavar="N", help=f"default {default}"
            )

    add("flops", "model.count_flops", "parameters and multiply-accumulates of a configuration")
    command = add("model", "model.time_models", "times and memory of whole models, relative to the first one")
    command.add_argument("--against", nargs="+", default=[], metavar="FILE", help="configurations to compare with")
    command.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    add_sizes(command, clips=1, rounds=3)
    command = add("op", "op.time_emim", "times of the EMIM backends, relative to the reference", has_cfg=False)
    command.add_argument("--precision", choices=PRECISIONS, default="fp32")
    add_sizes(command, clips=1, frames=16, size=14, heads=5, channels=64, window=7, rounds=5)
    command = add("loader", "loader.report_loading", "times of the stages of loading, and clips per second")
    command.add_argument("--synthetic", metavar="WIDTHxHEIGHT", help="make JPEG frames of this size, read no data")
    command.add_argument("--step-ms", type=positive(float), metavar="MS", help="a training step, to name its workers")
    command.add_argument("--stages-only", action="store_true", help="leave out the loader with all its workers")
    command.add_argument("--rounds", type=positive(int), default=5, help="measurements of the stages, default 5")
    return parser.parse_args()


def main() -> None:
    args = vars(parse())
    json_file, (module, name) = args.pop("json"), args.pop("function").split(".")
    for path in (args["cfg"], *args.get("against", ())) if "cfg" in args else ():
        load_cfg(path, args["opts"])  # a mistake is said before the seconds that the rest takes to import
    if json_file and not os.path.isdir(folder := os.path.dirname(json_file) or "."):
        raise UserError(f"--json is {json_file!r}, but there is no folder {folder}")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler greets on stderr otherwise
    text, figures = getattr(import_module(f"slowfast.benchmark.{module}"), name)(**args)
    print(text)
    if json_file:
        command = f"python tools/benchmark.py {shlex.join(sys.argv[1:])}"
        Path(json_file).write_text(json.dumps({"command": command, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    run_tool(main)
