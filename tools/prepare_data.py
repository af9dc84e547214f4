"""Prepare data sets: ``python tools/prepare_data.py COMMAND --help``."""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import UserError, run_tool

CORES = min(os.cpu_count() or 1, 16)
SPLITS = ("train", "val", "test")


class Parser(argparse.ArgumentParser):
    """Parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_release(parser: Parser, command: str) -> None:
    """Add the options of the commands that read official files."""
    flag = "--frames" if command == "ssv1" else "--videos"
    parser.add_argument("--annotations", required=True, metavar="FOLDER", help="folder of the official text files")
    parser.add_argument(flag, dest="media", required=True, metavar="FOLDER", help="folder of the clips, see README.md")
    if command == "kinetics400":
        orders = "ASCII-sorted names, as in most tools, or the order of the published UniFormer weights"
        parser.add_argument("--class-order", required=True, choices=("alphabetical", "uniformer"), help=orders)
    if command in ("ssv2", "diving48"):
        extract = "extract videos to OUT/frames/<id>/00001.jpg, ... and list these; goes on where it was interrupted"
        parser.add_argument("--extract-frames", action="store_true", help=extract)
        parser.add_argument(
            "--short-side", type=int, default=0, metavar="PX", help="of extracted frames; 0 is as it is"
        )
        parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of their JPEG files, 1 to 100")
    parser.set_defaults(run=run_release)


def run_release(args: argparse.Namespace) -> int:
    """Write the lists of a data set; status 1 if clips were left out."""
    from slowfast.prepare.extract import Extraction
    from slowfast.prepare.lists import prepare

    extraction = None
    if getattr(args, "extract_frames", False):
        extraction = Extraction(args.short_side, args.quality)
    elif args.command in ("ssv2", "diving48") and (args.short_side, args.quality) != (0, 95):
        raise UserError("--short-side and --quality have no effect without --extract-frames")
    options = {"class_order": args.class_order} if args.command == "kinetics400" else {}
    annotation = import_module(f"slowfast.prepare.{args.command}").read_annotation(Path(args.annotations), **options)
    return int(prepare(annotation, args.media, args.out, args.workers, extraction) > 0)


def add_generator(parser: Parser, command: str) -> None:
    """Add the options of the synthetic sets, most of which are the fields of a spec."""
    from slowfast.synthetic.scenes import SCENES, SceneSpec
    from slowfast.synthetic.writer import FORMATS

    spec = SCENES if command == "scenes" else SceneSpec()
    parser.add_argument("--format", choices=FORMATS, default="frames", help="JPEG folders, or H.264 videos")
    parser.add_argument("--num-train", type=int, default=3000, metavar="N", help="training clips")
    parser.add_argument("--num-val", type=int, default=600, metavar="N", help="validation clips")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the whole set")
    for field in dataclasses.fields(spec)[1:]:
        if field.metadata["style"] in ("", spec.style):
            value = getattr(spec, field.name)
            kind = {"nargs": 2, "type": float, "metavar": ("MIN", "MAX")}
            kind = kind if isinstance(value, tuple) else {"type": type(value), "metavar": "X"}
            text = f"{field.metadata['help']}; {field.metadata['low']} to {field.metadata['high']}"
            parser.add_argument("--" + field.name.replace("_", "-"), default=value, help=text, **kind)
    parser.set_defaults(run=run_generator, spec=spec)


def run_generator(args: argparse.Namespace) -> int:
    """Write a synthetic set."""
    from slowfast.synthetic.writer import write_dataset

    names = {field.name for field in dataclasses.fields(args.spec)}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items() if name in names}
    spec = dataclasses.replace(args.spec, **values)
    is_new = write_dataset(args.out, spec, args.num_train, args.num_val, args.format, args.seed, args.workers)
    state = "written" if is_new else "complete already, left as it is"
    print(f"{args.out}: {args.num_train} train and {args.num_val} val clips as {args.format}, {state}")
    return 0


def add_cfg(parser: Parser, command: str) -> None:
    """Add the options of ``check`` and ``pack``, which read a configuration."""
    parser.add_argument("--cfg", required=command == "check", metavar="FILE", help="configuration of the data set")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=SPLITS, help="these only; a check needs --out FILE"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of the file")
    if command == "pack":
        parser.add_argument("--items-per-zip", type=int, default=2000, metavar="N", help="clips, videos or images")
    else:
        limit = "time limit of a small item, large ones get more; inf waits for ever"
        parser.add_argument("--timeout", type=float, default=300.0, metavar="SEC", help=limit)
    parser.set_defaults(run=run_pack if command == "pack" else run_check)


def run_check(args: argparse.Namespace) -> int:
    """Read all items; status 1 if there are bad ones that DATA.EXCLUDE_FILE does not name."""
    from slowfast.config import load_cfg

    if set(args.splits) != set(SPLITS) and not args.out:
        raise UserError(
            f"--splits {' '.join(args.splits)} needs --out: bad_items.csv beside the lists is of all splits"
        )
    cfg = load_cfg(args.cfg, args.opts)
    from slowfast.prepare.check import check_data  # after the file, whose mistakes are told at once

    checked = check_data(cfg, args.out or "", args.splits, args.workers, args.timeout)
    return int(any(split.num_bad > split.num_excluded for split in checked))


def run_pack(args: argparse.Namespace) -> int:
    """Pack the files of a data set; status 1 if items were left out."""
    from slowfast.config.defaults import get_cfg
    from slowfast.prepare.zip import pack_data

    cfg = get_cfg()
    if args.cfg:
        cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    counts, settings = pack_data(cfg, args.out, args.splits, args.items_per_zip, args.workers)
    parts = (f"{split} {packed} packed, {left_out} left out" for split, (packed, left_out) in counts.items())
    print(f"{args.out}: {'; '.join(parts)}")
    print("read it with " + " ".join(f"{key} {shlex.quote(value)}" for key, value in settings.items()))
    return int(any(left_out for _, left_out in counts.values()))


COMMANDS = {
    "ssv1": (add_release, "list files of Something-Something V1 from its official files"),
    "ssv2": (add_release, "list files of Something-Something V2 from its official files"),
    "kinetics400": (add_release, "list files of Kinetics-400 from its official files"),
    "diving48": (add_release, "list files of Diving48 V2 from its official files"),
    "check": (add_cfg, "decode every item that a configuration trains and tests on"),
    "pack": (add_cfg, "many small files to a few large ones that are read at random"),
    "synthetic": (add_generator, "generate clips whose class is their motion alone"),
    "scenes": (add_generator, "generate scenes with two labels, how and what moves, for the motion benchmark"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = Parser(prog="prepare_data.py", description="Prepare data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_options, description) in COMMANDS.items():
        formatter = argparse.ArgumentDefaultsHelpFormatter
        command = commands.add_parser(name, help=description, description=description, formatter_class=formatter)
        if name in argv[:1]:  # the others would import what is not needed
            out = "bad items (default: bad_items.csv beside the lists)" if name == "check" else "folder of what is made"
            command.add_argument("--out", required=name != "check", metavar="PATH", help=out)
            command.add_argument("--workers", type=int, default=CORES, metavar="N", help="processes")
            add_options(command, name)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    run_tool(main)
