"""Prepare data sets: ``python tools/prepare_data.py COMMAND --help``."""

import argparse
import dataclasses
import logging
import math
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


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, (list, tuple)):
            values = " ".join(map(str, action.default))
            return f"{action.help} (default: {values})" if values else action.help
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def add_number(self, flag: str, default: float, text: str, low: float, high: float, **options) -> None:
        """Add a number between ``low`` and ``high``, of the type of ``low``."""

        def convert(value: str) -> float:
            if not low <= type(low)(value) <= high:  # nor NaN
                raise argparse.ArgumentTypeError(f"{value} is not allowed, only {low} to {high}")
            return type(low)(value)

        convert.__name__ = type(low).__name__  # argparse names it in its message
        options = {"metavar": "X"} | options
        allowed = f"at least {low}" if high == math.inf else f"{low} to {high}"
        self.add_argument(flag, type=convert, default=default, help=f"{text}; {allowed}", **options)


def add_release(parser: Parser, command: str) -> None:
    """Add the options of the commands that read official files."""
    flag = "--frames" if command == "ssv1" else "--videos"
    parser.add_argument("--annotations", required=True, metavar="FOLDER", help="folder of the official text files")
    parser.add_argument(flag, dest="media", required=True, metavar="FOLDER", help="folder of the clips, at any depth")
    if command == "kinetics400":
        orders = "ASCII-sorted names, as in most tools, or the order of the published UniFormer weights"
        parser.add_argument("--class-order", required=True, choices=("alphabetical", "uniformer"), help=orders)
    if command == "hmdb51":
        parser.add_argument("--split", type=int, choices=(1, 2, 3), default=1, help="of the three official ones")
    if command == "finegym":
        parser.add_argument("--subset", required=True, choices=("gym99", "gym288"), help="elements of so many classes")
    if command in ("ssv2", "diving48", "mpii"):
        add_extraction(parser, is_always=command == "mpii")


def add_extraction(parser: Parser, is_always: bool = False) -> None:
    """Add the options of commands that may extract the frames of videos, or always do, for clips are parts of them."""
    extract = "extract videos to OUT/frames/<id>/00001.jpg, ... and list these; goes on where it was interrupted"
    extract += " (always: clips are parts of videos)" if is_always else ""
    parser.add_argument("--extract-frames", action="store_true", default=is_always, help=extract)
    parser.add_number("--short-side", 0, "of extracted frames, px; 0 is as it is", 0, 4096)
    parser.add_number("--quality", 95, "of their JPEG files", 1, 100)


def read_extraction(args: argparse.Namespace) -> dict[str, int] | None:
    """Return the settings of an extraction, None where none is asked for."""
    if args.extract_frames:
        return {"short_side": args.short_side, "quality": args.quality}
    if (args.short_side, args.quality) != (0, 95):
        raise UserError("--short-side and --quality have no effect without --extract-frames")
    return None


def run_release(args: argparse.Namespace) -> bool:
    """Write the lists of a data set; return whether clips were left out."""
    from slowfast.prepare.lists import prepare

    given = vars(args)
    options = {key: given[key] for key in ("class_order", "split", "subset") if key in given}
    extraction = read_extraction(args) if "quality" in given else None
    annotation = import_module(f"slowfast.prepare.{args.command}").read_annotation(Path(args.annotations), **options)
    return prepare(annotation, args.media, args.out, args.workers, extraction) > 0


def add_folder(parser: Parser, command: str) -> None:
    """Add the options of ``folder``."""
    pattern = "paths below it without ending: {class}, {person} (never divided), * for any text"
    parser.add_argument("--videos", required=True, metavar="DIR", help="folder of the videos")
    parser.add_argument("--pattern", default="{class}/*", metavar="TEXT", help=pattern.replace("%", "%%"))
    folds = "person [K], each validated once; stratified [K], classes alike; none [K], train and val, one Kth"
    parser.add_argument("--folds", nargs="+", default=["none"], metavar="HOW", help=folds)
    parser.add_number("--shots", [], "lists with so many training clips a class, too", 1, 999_999, nargs="+")
    parser.add_argument("--without", nargs="+", default=[], metavar="CLASS", help="classes to leave out")
    parser.add_number("--seed", 0, "of folds and shots", 0, 2**32)
    add_extraction(parser)


def run_folder(args: argparse.Namespace) -> bool:
    """Write the lists of videos of one's own; return whether some were left out."""
    from slowfast.prepare.folder import prepare_folder

    names = ("videos", "out", "pattern", "folds", "shots", "without", "seed", "workers")
    options = {name: getattr(args, name) for name in names}
    return prepare_folder(**options, extraction=read_extraction(args)) > 0


def add_generator(parser: Parser, command: str) -> None:
    """Add the options of the synthetic set, most of which are the fields of its spec."""
    from slowfast.synthetic.scenes import SceneSpec

    parser.add_argument("--format", choices=("frames", "mp4"), default="frames", help="JPEG folders, or H.264 videos")
    parser.add_number("--num-train", 3000, "training clips", 1, 999_999)
    parser.add_number("--num-val", 600, "validation clips", 1, 999_999)
    parser.add_number("--seed", 0, "of the whole set", 0, 2**32)
    for field in dataclasses.fields(SceneSpec):
        pair = {"nargs": 2, "metavar": ("MIN", "MAX")} if isinstance(field.default, tuple) else {}
        flag, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        parser.add_number(flag, field.default, text, *field.metadata["bounds"], **pair)


def run_generator(args: argparse.Namespace) -> None:
    """Write a synthetic set."""
    from slowfast.synthetic.scenes import SceneSpec
    from slowfast.synthetic.writer import write_dataset

    spec = SceneSpec(**{field.name: getattr(args, field.name) for field in dataclasses.fields(SceneSpec)})
    is_new = write_dataset(args.out, spec, args.num_train, args.num_val, args.format, args.seed, args.workers)
    state = "written" if is_new else "complete already, left as it is"
    print(f"{args.out}: {args.num_train} train and {args.num_val} val clips as {args.format}, {state}")


def add_cfg(parser: Parser, command: str) -> None:
    """Add the options of the commands that read a configuration."""
    parser.add_argument("--cfg", required=True, metavar="FILE", help="configuration of the data set")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of the file")
    if command == "pack":
        parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="these only")
        parser.add_number("--items-per-zip", 2000, "clips, videos or images", 1, 999_999)
    elif command == "stimuli":
        parser.add_number("--epochs", 1, "training clips of so many epochs, the last ones", 1, 999_999)
    else:
        parser.add_number("--timeout", 300.0, "limit of a small item, seconds; large ones get more", 1.0, math.inf)


def run_cfg(args: argparse.Namespace) -> bool:
    """Check or pack a data set; return whether items are bad, which DATA.EXCLUDE_FILE does not name, or left out."""
    from slowfast.config import load_cfg

    cfg = load_cfg(args.cfg, args.opts)  # first, since the rest takes seconds to import
    if args.command == "check":
        from slowfast.prepare.check import check_data

        return check_data(cfg, args.out, args.workers, args.timeout) > 0
    from slowfast.prepare.zip import pack_data

    counts, settings = pack_data(cfg, args.out, args.splits, args.items_per_zip, args.workers)
    parts = (f"{split} {packed} packed, {left_out} left out" for split, (packed, left_out) in counts.items())
    print(f"{args.out}: {'; '.join(parts)}")
    print("read it with " + " ".join(f"{key} {shlex.quote(value)}" for key, value in settings.items()))
    return any(left_out for _, left_out in counts.values())


def run_stimuli(args: argparse.Namespace) -> None:
    """Write the clips that a configuration renders."""
    from slowfast.config import load_cfg

    cfg = load_cfg(args.cfg, args.opts)  # first, since the rest takes seconds to import
    from slowfast.datasets.rendered import clips_of
    from slowfast.synthetic.writer import write_stimuli

    source, records, facts = clips_of(cfg, args.epochs)
    is_new = write_stimuli(args.out, source, records, facts, args.workers)
    counts = " and ".join(f"{len(some)} {split}" for split, some in records.items())
    print(f"{args.out}: {counts} clips as mp4, {'written' if is_new else 'complete already, left as they are'}")
    settings = {"DATASET": "VideoList", "PATH_TO_DATA_DIR": os.path.abspath(args.out)} | {
        f"ARGS.{name}": "null" for name in cfg.DATA.ARGS
    }
    print("read them with " + " ".join(f"DATA.{key} {shlex.quote(value)}" for key, value in settings.items()))


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    example = f"example:\n  python tools/prepare_data.py {next(iter(EXAMPLES.values()))}"
    options = {"epilog": example, "formatter_class": Formatter}
    parser = Parser(description="Prepare data sets; every command has a --help.", **options)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_options, run, text) in COMMANDS.items():
        options["epilog"] = f"example:\n  python tools/prepare_data.py {EXAMPLES[name]}"
        command = commands.add_parser(name, help=text, description=f"{text}.", **options)
        if name in argv[:1]:  # the others would import what is not needed
            out = "bad items (default: bad_items.csv beside the lists)" if name == "check" else "folder of what is made"
            command.add_argument("--out", required=name != "check", metavar="PATH", help=out)
            command.add_number("--workers", CORES, "processes", 1, 256)
            add_options(command, name)
            command.set_defaults(run=run)
    args = parser.parse_args(argv)
    return int(args.run(args) or 0)


COMMANDS = {
    "ssv1": (add_release, run_release, "list files of Something-Something V1 from its official files"),
    "ssv2": (add_release, run_release, "list files of Something-Something V2 from its official files"),
    "kinetics400": (add_release, run_release, "list files of Kinetics-400 from its official files"),
    "diving48": (add_release, run_release, "list files of Diving48 V2 from its official files"),
    "mpii": (add_release, run_release, "clips and list files of MPII Cooking 2, split as for Video Motion Prompts"),
    "finegym": (add_release, run_release, "list files of FineGym from its official files"),
    "hmdb51": (add_release, run_release, "list files of HMDB-51 from its official files"),
    "folder": (add_folder, run_folder, "lists and folds of your own videos, whose class is in their folder or name"),
    "check": (add_cfg, run_cfg, "decode every item that a configuration trains and tests on"),
    "pack": (add_cfg, run_cfg, "many small files to a few large ones that are read at random"),
    "synthetic": (add_generator, run_generator, "generate clips whose class is their motion alone"),
    "stimuli": (add_cfg, run_stimuli, "write as videos what a configuration of DATA.DATASET Rendered renders"),
}

EXAMPLES = {
    "ssv1": "ssv1 --annotations ssv1 --frames ssv1/frames --out data/ssv1",
    "ssv2": "ssv2 --annotations ssv2 --videos ssv2/videos --out data/ssv2",
    "kinetics400": "kinetics400 --annotations k400 --videos k400 --out data/k400 --class-order uniformer",
    "diving48": "diving48 --annotations diving48 --videos diving48/rgb --out data/diving48",
    "mpii": "mpii --annotations mpii --videos mpii/videos --out data/mpii --short-side 320",
    "finegym": "finegym --subset gym99 --annotations gym --videos gym/videos --out data/gym99",
    "hmdb51": "hmdb51 --split 1 --annotations hmdb51 --videos hmdb51/videos --out data/hmdb51",
    "folder": "folder --videos /data/mine --out data/mine --folds stratified 5",
    "check": "check --cfg exp/quickstart/config.yaml",
    "pack": "pack --cfg exp/quickstart/config.yaml --out data/quickstart_packed",
    "synthetic": "synthetic --out data/motions --num-train 3000 --num-val 600",
    "stimuli": "stimuli --cfg configs/motion_study/emim.yaml --out data/camouflage",
}

if __name__ == "__main__":
    run_tool(main)
