"""Prepare data sets: `python tools/prepare_data.py COMMAND --help`.

To add a command, write a function that adds its parser and sets `run`, and name the function in `COMMANDS`.
"""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.prepare import diving48, kinetics400, ssv1, ssv2
from slowfast.prepare.extract import Extraction
from slowfast.prepare.lists import REPORT_FILE, PreparedLists, Published
from slowfast.synthetic.scenes import DIRECTION_NAMES, KIND_NAMES, SceneSpec
from slowfast.synthetic.specs import CLASS_NAMES, MotionSpec, SpriteSpec
from slowfast.synthetic.writer import MEDIA_FORMATS, write_dataset

CORES = min(os.cpu_count() or 1, 16)
QUALITY = Extraction().quality
SPLITS = ("train", "val", "test")


class WarningFormatter(logging.Formatter):
    """Plain messages, with "warning: " before those that are warnings."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


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
    add_generator_arguments(parser, MotionSpec)


def add_scenes(commands: argparse._SubParsersAction) -> None:
    """Add `scenes`: generate clips that ask two questions, for the motion benchmark."""
    parser = commands.add_parser(
        "scenes",
        help="generate encoded clips with two independent labels, how and what moves",
        description="Generate encoded clips with a panning camera, distractors and clutter. train and val list how the "
        f"largest sprite moves relative to the background ({len(DIRECTION_NAMES)} directions in time-reversed pairs), "
        f"train_appearance and val_appearance what it is ({len(KIND_NAMES)} kinds), in the same videos. "
        "The same command gives the same files; a complete set is left alone, an interrupted one completed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_generator_arguments(parser, SceneSpec)


def add_generator_arguments(parser: argparse.ArgumentParser, spec_class: type[SpriteSpec]) -> None:
    """Add what the generated sets have in common, and the fields of a spec."""
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
    difficulty = parser.add_argument_group("size and difficulty (MIN MAX: each clip draws uniformly between them)")
    for field in dataclasses.fields(spec_class):
        is_range = isinstance(field.default, tuple)
        difficulty.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(field.default[0] if is_range else field.default),
            nargs=2 if is_range else None,
            metavar=("MIN", "MAX") if is_range else "X",
            default=field.default,
            help=f"{field.metadata['help']}; {field.metadata['low']} to {field.metadata['high']}",
        )
    parser.set_defaults(run=run_generator, spec_class=spec_class)


def run_generator(args: argparse.Namespace) -> None:
    """Run `synthetic` or `scenes`."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(args.spec_class)}
    spec = args.spec_class(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
    is_new = write_dataset(
        args.out, spec, args.num_train, args.num_val, args.media_format, seed=args.seed, workers=args.workers
    )
    state = "written" if is_new else "complete already, left as it is"
    print(f"{args.out}: {args.num_train} train and {args.num_val} val clips as {args.media_format}, {state}")


def add_prepare_arguments(
    parser: argparse.ArgumentParser, files: str, media_flag: str, media: str, workers: int = CORES
) -> None:
    """Add what the commands that read official files have in common."""
    parser.add_argument("--annotations", required=True, metavar="FOLDER", help=f"folder with {files}")
    parser.add_argument(media_flag, required=True, metavar="FOLDER", help=f"folder with {media}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the lists")
    parser.add_argument("--workers", type=int, default=workers, metavar="N", help="processes (default: %(default)s)")
    parser.set_defaults(media_flag=media_flag)


def add_extraction_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ssv2` and `diving48` say about frames."""
    group = parser.add_argument_group("frames instead of videos")
    group.add_argument(
        "--extract-frames",
        action="store_true",
        help="extract every video to OUT/frames/<id>/00001.jpg, ... and list these folders (train.txt, val.txt); the "
        "same command again continues an interrupted extraction",
    )
    group.add_argument("--short-side", type=int, metavar="PX", help="scale frames to this short side (default: as is)")
    group.add_argument("--quality", type=int, metavar="Q", help=f"of the JPEG files, 1 to 100 (default: {QUALITY})")


def extraction_of(args: argparse.Namespace) -> Extraction | None:
    """Return how to extract, or None to list the videos."""
    given = {"--short-side": args.short_side, "--quality": args.quality}
    if not args.extract_frames:
        for flag, value in given.items():
            if value is not None:
                raise ValueError(f"{flag} {value} has no effect without --extract-frames")
        return None
    quality = QUALITY if args.quality is None else args.quality
    return Extraction(short_side=args.short_side or 0, quality=quality)


def report_lists(args: argparse.Namespace, prepared: PreparedLists, published: Published) -> None:
    """Print what was written and what is unusual; exit with 1 if clips were left out."""
    if prepared.has_relative_paths:
        print(f"the lists hold paths relative to {args.out}")
    else:
        print(f"the lists hold absolute paths, since {args.media_flag} lies outside --out")
    for split in prepared.splits:
        num_clips, num_published = split.num_written + split.num_left_out, published.num_clips[split.name]
        if num_clips != num_published:
            print(f"note: {num_clips} {split.name} clips in the annotation, {num_published} in the published set")
    if prepared.num_classes != published.num_classes:
        print(
            f"note: {prepared.num_classes} classes, {published.num_classes} in the published set: "
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


LEFT_OUT_STATUS = (
    f"{REPORT_FILE} names every clip that is left out or looks unusual, and why. The exit status is 0 if all clips "
    "were found, 1 if some were left out, 2 after a wrong argument or annotation; an id that occurs twice is such an "
    "error."
)


def add_ssv1(commands: argparse._SubParsersAction) -> None:
    """Add `ssv1`: the official files of Something-Something V1 to list files."""
    parser = commands.add_parser(
        "ssv1",
        help="list files of Something-Something V1 from its official files",
        description="Count the frames of every clip on disk and write train.txt and val.txt (lines 'folder num_frames "
        "label'; folders relative to --out if --frames lies inside it, else absolute) and classes.txt (the "
        f"ASCII-sorted templates: the position is the label). {LEFT_OUT_STATUS}",
    )
    files = ", ".join((ssv1.LABELS_FILE, *ssv1.SPLIT_FILES.values()))
    # More processes than cores: they mostly wait for the disk.
    add_prepare_arguments(parser, files, "--frames", "<id>/00001.jpg, ...", workers=16)
    parser.set_defaults(run=run_ssv1)


def run_ssv1(args: argparse.Namespace) -> None:
    """Run `ssv1`."""
    report_lists(args, ssv1.prepare_ssv1(args.annotations, args.frames, args.out, args.workers), ssv1.PUBLISHED)


VIDEO_LISTS = (
    "Find and measure every video and write train.csv and val.csv (lines 'path,label'; paths relative to --out if "
    "--videos lies inside it, else absolute)"
)


def add_ssv2(commands: argparse._SubParsersAction) -> None:
    """Add `ssv2`: the official files of Something-Something V2 to list files."""
    parser = commands.add_parser(
        "ssv2",
        help="list files of Something-Something V2 from its official files",
        description=f"{VIDEO_LISTS} and classes.txt (the templates without brackets in the order of the official "
        f"labels). {LEFT_OUT_STATUS}",
    )
    files = ", ".join(names[0] for names in (ssv2.LABELS_FILES, *ssv2.SPLIT_FILES.values()))
    files += " (or labels.json, train.json, validation.json)"
    add_prepare_arguments(parser, files, "--videos", "<id>.webm or .mp4, at any depth")
    add_extraction_arguments(parser)
    parser.set_defaults(run=run_ssv2)


def run_ssv2(args: argparse.Namespace) -> None:
    """Run `ssv2`."""
    extraction = extraction_of(args)
    prepared = ssv2.prepare_ssv2(args.annotations, args.videos, args.out, args.workers, extraction)
    report_lists(args, prepared, ssv2.PUBLISHED)


def add_kinetics400(commands: argparse._SubParsersAction) -> None:
    """Add `kinetics400`: the official files of Kinetics-400 to list files."""
    parser = commands.add_parser(
        "kinetics400",
        help="list files of Kinetics-400 from its official files",
        description=f"{VIDEO_LISTS} and classes.txt (all 400 names in the order asked for). {LEFT_OUT_STATUS}",
    )
    media = "<youtube_id>_<start>_<end>.mp4 (six digits each), at any depth, as in class folders"
    add_prepare_arguments(parser, "train.csv and val.csv (or validate.csv)", "--videos", media)
    parser.add_argument(
        "--class-order",
        required=True,
        choices=kinetics400.CLASS_ORDERS,
        help="labels by ASCII-sorted names, as in most tools, or by the order of the published UniFormer weights",
    )
    parser.set_defaults(run=run_kinetics400)


def run_kinetics400(args: argparse.Namespace) -> None:
    """Run `kinetics400`."""
    prepared = kinetics400.prepare_kinetics400(args.annotations, args.videos, args.out, args.class_order, args.workers)
    report_lists(args, prepared, kinetics400.PUBLISHED)


def add_diving48(commands: argparse._SubParsersAction) -> None:
    """Add `diving48`: the official files of Diving48 V2 to list files."""
    parser = commands.add_parser(
        "diving48",
        help="list files of Diving48 V2 from its official files",
        description=f"{VIDEO_LISTS} and classes.txt (the vocabulary, one dive a line). {LEFT_OUT_STATUS}",
    )
    files = ", ".join((diving48.VOCAB_FILE, *diving48.SPLIT_FILES.values()))
    add_prepare_arguments(parser, files, "--videos", "<vid_name>.mp4, at any depth")
    add_extraction_arguments(parser)
    parser.set_defaults(run=run_diving48)


def run_diving48(args: argparse.Namespace) -> None:
    """Run `diving48`."""
    extraction = extraction_of(args)
    prepared = diving48.prepare_diving48(args.annotations, args.videos, args.out, args.workers, extraction)
    report_lists(args, prepared, diving48.PUBLISHED)


def add_check(commands: argparse._SubParsersAction) -> None:
    """Add `check`: decode every item of a configured data set."""
    parser = commands.add_parser(
        "check",
        help="decode every item that a configuration trains and tests on",
        description="Read the lists of every split and decode all frames of every item, with the readers of training. "
        "Every bad item is written with its reason, also where the decoder crashes or hangs; DATA.EXCLUDE_FILE leaves "
        "the items of that file out of training and testing. Warnings: counts other than those of the complete data "
        "set, equal labels, classes without videos, videos in both splits, and class names of Something-Something or "
        "Kinetics that are not in an order of published weights. The exit status is 0 if every bad item is excluded "
        "already, 1 if not, 2 after a mistake in the configuration or a list.",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="configuration")
    parser.add_argument("--out", metavar="FILE", help="file of the bad items (default: bad_items.csv beside the lists)")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=SPLITS, help="with --out FILE: check these only (default: all)"
    )
    parser.add_argument("--workers", type=int, default=CORES, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SEC",
        help="for one item; inf waits for ever (default: %(default)s)",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of the file")
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> None:
    """Run `check`."""
    # Here, since they import torch, which the other commands do not need.
    from slowfast.config.defaults import get_cfg
    from slowfast.prepare.check import BAD_ITEMS_FILE, check_data

    if set(args.splits) != set(SPLITS) and not args.out:
        splits = " ".join(args.splits)
        raise ValueError(f"--splits {splits} needs --out: {BAD_ITEMS_FILE} beside the lists is of all splits")
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    out = args.out or os.path.join(cfg.DATA.PATH_TO_DATA_DIR, BAD_ITEMS_FILE)
    checked = check_data(cfg, out, args.splits, args.workers, args.timeout)
    counts = (f"{split.name} {split.num_videos - split.num_bad} good, {split.num_bad} bad" for split in checked)
    num_excluded = sum(split.num_excluded for split in checked)
    excluded = f" ({num_excluded} of the bad ones are in DATA.EXCLUDE_FILE)" if num_excluded else ""
    print(f"{out}: {'; '.join(counts)}{excluded}")
    if num_excluded < sum(split.num_bad for split in checked):
        sys.exit(1)


def add_pack(commands: argparse._SubParsersAction) -> None:
    """Add `pack`: the files of a data set to ZIP files."""
    parser = commands.add_parser(
        "pack",
        help="many small files to a few ZIP files that are read at random",
        description="Copy the frame folders, videos or images that a configuration trains and tests on, unchanged, "
        "into uncompressed ZIP files with lists beside them. Items with missing files are left out, which is said. An "
        "interrupted run is completed by the same command. The last line has the keys that make the configuration read "
        "the pack; the folder may be copied anywhere that DATA.PACKED then names, object "
        "stores included. The exit status is 0 if all items were packed, 1 if some were left out, 2 after an error.",
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration of the data set (default: KEY VALUE pairs alone)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder of the pack")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="default: all three")
    parser.add_argument(
        "--items-per-zip", type=int, default=2000, metavar="N", help="clips, videos or images (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=16, metavar="N", help="threads (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of FILE")
    parser.set_defaults(run=run_pack)


def run_pack(args: argparse.Namespace) -> None:
    """Run `pack`."""
    # Here, since they import torch, which the other commands do not need.
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
    if any(left_out for _, left_out in counts.values()):
        sys.exit(1)


COMMANDS = (add_synthetic, add_scenes, add_ssv1, add_ssv2, add_kinetics400, add_diving48, add_check, add_pack)


def main(argv: list[str] | None = None) -> None:
    """Run one command; a user's mistake ends in one line on stderr and exit code 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(WarningFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    parser = OneLineErrorParser(prog="prepare_data.py", description="Prepare data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_command in COMMANDS:
        add_command(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog} {args.command}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog} {args.command}: interrupted\n")


if __name__ == "__main__":
    main()
