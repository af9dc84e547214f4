"""Prepare data sets: `python tools/prepare_data.py COMMAND --help`.

To add a command, write a function that adds its parser and sets `run`, and name the function in `COMMANDS`.
"""

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.datasets.ssv1 import (
    LABELS_FILE,
    PUBLISHED_NUM_CLASSES,
    PUBLISHED_NUM_CLIPS,
    REPORT_FILE,
    SPLIT_FILES,
    prepare_ssv1,
)
from slowfast.datasets.synthetic import CLASS_NAMES, MotionSpec
from slowfast.datasets.synthetic_writer import MEDIA_FORMATS, write_dataset


class OneLineErrorParser(argparse.ArgumentParser):
    """A parser whose usage errors are one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_synthetic(commands: argparse._SubParsersAction) -> None:
    """Add `synthetic`: generate clips whose class is their motion alone."""
    parser = commands.add_parser(
        "synthetic",
        help="generate encoded clips whose class is their motion alone",
        description=f"Generate encoded clips of a moving sprite. The {len(CLASS_NAMES)} classes form pairs, "
        "each the other played backwards, and no single frame or unordered set of frames tells a pair apart. "
        "The same command gives the same files; a complete set is left alone, an interrupted one completed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--format",
        dest="media_format",
        choices=MEDIA_FORMATS,
        default="frames",
        help="numbered JPEG folders at 12 frames per second, H.264 at 30, or VP9 at 12",
    )
    parser.add_argument("--num-train", type=int, default=3000, metavar="N", help="training clips")
    parser.add_argument("--num-val", type=int, default=600, metavar="N", help="validation clips")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="seed of the whole set")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        metavar="W",
        help="processes; no effect on the files",
    )
    difficulty = parser.add_argument_group(
        "size and difficulty (MIN MAX: each clip draws uniformly between them)"
    )
    for field in dataclasses.fields(MotionSpec):
        is_range = isinstance(field.default, tuple)
        difficulty.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(field.default[0] if is_range else field.default),
            nargs=2 if is_range else None,
            metavar=("MIN", "MAX") if is_range else "X",
            default=field.default,
            help=f"{field.metadata['help']}; {field.metadata['low']} to {field.metadata['high']}",
        )
    parser.set_defaults(run=run_synthetic)


def run_synthetic(args: argparse.Namespace) -> None:
    """Run `synthetic`."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(MotionSpec)}
    spec = MotionSpec(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
    is_new = write_dataset(
        args.out, spec, args.num_train, args.num_val, args.media_format, seed=args.seed, workers=args.workers
    )
    state = "written" if is_new else "complete already, left as it is"
    print(f"{args.out}: {args.num_train} train and {args.num_val} val clips as {args.media_format}, {state}")


def add_ssv1(commands: argparse._SubParsersAction) -> None:
    """Add `ssv1`: the official files of Something-Something V1 to list files."""
    parser = commands.add_parser(
        "ssv1",
        help="list files of Something-Something V1 from its official files",
        description="Count the frames of every clip on disk and write train.txt and val.txt (lines 'folder num_frames "
        "label'; folders relative to --out if --frames lies inside it, else absolute), classes.txt (the ASCII-sorted "
        f"templates: the position is the label) and {REPORT_FILE} (every clip that is left out or looks unusual, and "
        "why). The exit status is 0 if all clips were found, 1 if some were left out, 2 after a wrong argument or "
        "annotation; an id that occurs twice is such an error.",
    )
    parser.add_argument(
        "--annotations",
        required=True,
        metavar="FOLDER",
        help=f"folder with {', '.join((LABELS_FILE, *SPLIT_FILES.values()))}",
    )
    parser.add_argument("--frames", required=True, metavar="FOLDER", help="folder with <id>/00001.jpg, ...")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the lists")
    parser.add_argument("--workers", type=int, default=16, metavar="N", help="threads (default: %(default)s)")
    parser.set_defaults(run=run_ssv1)


def run_ssv1(args: argparse.Namespace) -> None:
    """Run `ssv1`."""
    prepared = prepare_ssv1(args.annotations, args.frames, args.out, args.workers)
    if prepared.has_relative_paths:
        print(f"the lists hold paths relative to {args.out}")
    else:
        print("the lists hold absolute paths, since --frames lies outside --out")
    for split in prepared.splits:
        num_clips, published = split.num_written + split.num_left_out, PUBLISHED_NUM_CLIPS[split.name]
        if num_clips != published:
            print(f"note: {num_clips} {split.name} clips in the annotation, {published} in the published set")
    if prepared.num_classes != PUBLISHED_NUM_CLASSES:
        print(
            f"note: {prepared.num_classes} classes, {PUBLISHED_NUM_CLASSES} in the published set: "
            f"set MODEL.NUM_CLASSES to {prepared.num_classes}"
        )
    num_unusual = sum(split.num_unusual for split in prepared.splits)
    if num_unusual:
        print(f"note: {num_unusual} clips were written although they look unusual")
    num_left_out = sum(split.num_left_out for split in prepared.splits)
    if num_unusual or num_left_out:
        print(f"the reasons are in {Path(args.out, REPORT_FILE)}")
    counts = (f"{split.name} {split.num_written} written, {split.num_left_out} left out" for split in prepared.splits)
    print(f"{args.out}: {'; '.join(counts)}")
    if num_left_out:
        sys.exit(1)


COMMANDS = (add_synthetic, add_ssv1)


def main(argv: list[str] | None = None) -> None:
    """Run one command; a user's mistake ends in one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = OneLineErrorParser(prog="prepare_data.py", description="Prepare data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_command in COMMANDS:
        add_command(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog} {args.command}: error: {error}\n")


if __name__ == "__main__":
    main()
