"""Count and time: python tools/benchmark.py flops|model|scaling|loader|op|depthwise|page [options] [KEY VALUE ...]."""

import argparse
import json
import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy
import PIL
import torch

from slowfast.benchmark.loader import LoaderTimes, time_loader, time_stages, write_synthetic_frames
from slowfast.benchmark.model import FORMULATIONS, Measured, time_models
from slowfast.benchmark.op import count_model, time_depthwise, time_emim
from slowfast.benchmark.page import PAGES, make_page
from slowfast.benchmark.scaling import AXES, time_scaling
from slowfast.benchmark.scaling_plot import plot_scaling
from slowfast.config.defaults import get_cfg
from slowfast.utils.distributed import choose_device, process_group
from slowfast.utils.machine import describe_machine, machine_line, num_cores

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def flops(args: argparse.Namespace) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    counts = count_model(cfg)
    size = f"{cfg.DATA.NUM_FRAMES}x{cfg.DATA.TRAIN_CROP_SIZE}x{cfg.DATA.TRAIN_CROP_SIZE}"
    print(f"{args.cfg}: {counts['parameters']:,} parameters")
    print(f"{counts['gflops']:.2f} GFLOPs (multiply-accumulates, as papers print them) per clip of {size}")
    print_shares("stage", counts["by_stage"])
    print_shares("operators", counts["by_kind"])
    write_json(args, {"cfg": args.cfg, "clip": size, **counts})


def print_shares(title: str, gflops: dict[str, float]) -> None:
    print(f"{title:<32} GFLOPs    share")
    total = sum(gflops.values())
    for name, value in gflops.items():
        print(f"  {name:<28} {value:8.2f} {value / total:8.1%}")


def write_json(args: argparse.Namespace, found: dict[str, Any]) -> None:
    if args.json:
        found = {"command": "python tools/benchmark.py " + shlex.join(sys.argv[1:]), **found}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


def start(args: argparse.Namespace) -> tuple[torch.device, dict[str, str | int]]:
    """Return the device and what is there; print the latter."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, which PyTorch does not find here; allowed: cpu")
    device = choose_device(args.device, 0)
    machine = describe_machine(device)
    print(machine_line(machine))
    return device, machine


def read_cfgs(args: argparse.Namespace) -> dict[str, Any]:
    cfgs = {}
    for path in (args.cfg, *args.against):
        cfgs[path] = get_cfg()
        cfgs[path].merge_from_file(path)
        # Values play no part in times, and weights to start from may not be there.
        cfgs[path].merge_from_list(["MODEL.PRETRAINED", "", *args.opts])
    return cfgs


def clip_size(cfg) -> str:
    return f"{cfg.DATA.NUM_FRAMES}x{cfg.DATA.TRAIN_CROP_SIZE}x{cfg.DATA.TRAIN_CROP_SIZE}"


def model(args: argparse.Namespace) -> None:
    cfgs = read_cfgs(args)
    device, machine = start(args)
    measured = time_models(
        cfgs, args.formulations, args.precision, device, args.clips, args.rounds, train=not args.forward_only
    )
    size = clip_size(cfgs[args.cfg])
    print(f"batches of {args.clips} x {size}, medians of {args.rounds} rounds in turn")
    print_models(measured)
    figures = [one.figures() for one in measured]
    write_json(args, {"machine": machine, "clips": args.clips, "clip": size, "rounds": args.rounds, "models": figures})


def scaling(args: argparse.Namespace) -> None:
    cfgs = read_cfgs(args)
    values = {axis: sizes for axis in AXES if (sizes := getattr(args, axis))}
    if not values:
        raise ValueError("nothing to vary; give " + ", ".join(f"--{axis} N N ..." for axis in AXES))
    device, machine = start(args)
    rows = []
    print(f"batches of {args.clips}, {args.precision}, medians of {args.rounds} rounds in turn")
    width = max(len(Path(path).stem) for path in cfgs)
    for row in time_scaling(cfgs, values, args.precision, device, args.clips, args.rounds):
        first = next((one for one in rows if one["axis"] == row["axis"]), row)
        rows.append(row)
        columns = [
            figures(row[f"{kind}_ms"], row[f"{kind}_bytes"], first[f"{kind}_ms"], first[f"{kind}_bytes"])
            for kind in ("forward", "step")
        ]
        print(f"{row['axis']:>6} {row['value']:4} {row['name']:{width}}  {'  '.join(columns)}", flush=True)
    size = clip_size(cfgs[args.cfg])
    write_json(args, {"machine": machine, "clips": args.clips, "clip": size, "rounds": args.rounds, "rows": rows})
    if args.plot:
        plot_scaling(rows, args.plot)


def print_models(measured: list[Measured]) -> None:
    base = measured[0]
    width = max(len(one.name) for one in measured)
    print(" " * (width + 6) + f"  {'forward':<32}  forward + backward")
    for one in measured:
        columns = [
            figures(one.forward_ms, one.forward_bytes, base.forward_ms, base.forward_bytes),
            figures(one.step_ms, one.step_bytes, base.step_ms, base.step_bytes) if one.step_ms else "",
        ]
        print(f"{one.name:{width}} {one.precision:>5}  {'  '.join(columns)}".rstrip())


def figures(ms: float, num_bytes: int, base_ms: float, base_bytes: int) -> str:
    share = f"({num_bytes / base_bytes:4.0%})" if base_bytes else "      "
    return f"{ms:8.1f} ms ({base_ms / ms:5.2f}x) {num_bytes / 2**20:5.0f} MiB {share}"


def op(args: argparse.Namespace) -> None:
    device, machine = start(args)
    times = time_emim(
        args.frames, args.size, args.heads, args.channels, args.window, DTYPES[args.precision], args.repeats,
        args.clips, device.type,
    )  # fmt: skip
    title = (
        f"EMIM attention, {args.clips} x {args.frames} x {args.size} x {args.size} tokens, {args.heads} heads of "
        f"{args.channels}, window {args.window}, {args.precision}"
    )
    report(args, title, machine, times, base="reference")


def depthwise(args: argparse.Namespace) -> None:
    device, machine = start(args)
    times = time_depthwise(
        args.clips, args.frames, args.size, args.channels, args.kernel, args.repeats, DTYPES[args.precision],
        device.type,
    )  # fmt: skip
    title = (
        f"depthwise convolution, {args.clips} x {args.channels} x {args.frames} x {args.size} x {args.size}, kernel "
        f"{args.kernel}, channels last, {args.precision}"
    )
    report(args, title, machine, times, base="torch")


def report(args: argparse.Namespace, title: str, machine: dict[str, str | int], times: dict, base: str) -> None:
    print(f"{title}, medians of {args.repeats} in turn")
    print_ratios(times, base)
    write_json(args, {"machine": machine, "title": title, "times": times})


def loader(args: argparse.Namespace) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    with ExitStack() as stack:
        process = stack.enter_context(process_group(cfg.DEVICE))
        if args.synthetic:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            use_synthetic_frames(cfg, Path(folder), args.synthetic, args.videos)
        machine = describe_machine(process.device)
        print(machine_line(machine))
        versions = {"numpy": numpy, "OpenCV": cv2, "Pillow": PIL}
        print("stages on 1 thread; " + ", ".join(f"{name} {module.__version__}" for name, module in versions.items()))
        times = time_stages(cfg, process.device, args.videos, args.rounds, args.compare_plain)
        print_stages(times)
        found = {"machine": machine, "clips_per_video": times.clips_per_video, "stages_ms": times.stages_ms}
        found |= {"worker_ms": times.worker_ms, "plain_ms": times.plain_ms}
        if cfg.DATA.PACKED:
            print("reading is part of decode, since the files lie inside the shards of DATA.PACKED")
        if args.compare_plain:
            ratios = [times.plain_ms / ms for ms in (times.worker_ms, times.worker_ms + times.stages_ms["finish"])]
            print(
                f"plain pipeline {times.plain_ms:.1f} ms per video: {ratios[0]:.2f}x the time of the worker, "
                f"{ratios[1]:.2f}x with the finish"
            )
        if args.step_ms:
            num_videos = cfg.TRAIN.BATCH_SIZE
            needed = times.workers_for(num_videos, args.step_ms)
            print(f"a step of {args.step_ms:g} ms on {num_videos} videos needs {needed} workers, with a core each")
        if not args.stages_only:
            num_workers = cfg.DATA_LOADER.NUM_WORKERS
            total = time_loader(cfg, args.batches or 2 * max(2, num_workers))
            print(f"in total {total:.1f} clips/s with {num_workers} workers on {num_cores()} cores")
            found |= {"clips_per_sec": total, "workers": num_workers}
        write_json(args, found)


def use_synthetic_frames(cfg, folder: Path, size: str, num_videos: int) -> None:
    """Point the configuration at frames made for the occasion, as many as a batch needs."""
    try:
        width, height = (int(length) for length in size.split("x"))
    except ValueError:
        width = height = 0
    if min(width, height) < 16:
        raise ValueError(f"--synthetic is {size!r}; allowed: WIDTHxHEIGHT in px, such as 427x240")
    num_frames = max(2, cfg.DATA.NUM_FRAMES * 3 // 2)
    write_synthetic_frames(folder, max(num_videos, cfg.TRAIN.BATCH_SIZE), width, height, num_frames)
    cfg.merge_from_list(
        ["DATA.DATASET", "VideoList", "DATA.SOURCE", "frames", "DATA.PATH_TO_DATA_DIR", str(folder)]
        + ["DATA.PATH_PREFIX", "", "DATA.LABEL_PATH_TEMPLATE", "{}.txt", "DATA.CLASS_NAMES_FILE", ""]
        + ["DATA.IMAGE_TEMPLATE", "{:05d}.jpg", "DATA.FIRST_IMAGE", 1, "DATA.PATH_LABEL_SEPARATOR", "auto"]
        + ["DATA.PACKED", "", "DATA.EXCLUDE_FILE", ""]
    )


def page(args: argparse.Namespace) -> None:
    os.chdir(Path(__file__).resolve().parents[1])
    for path in PAGES:
        current = path.read_text(encoding="utf-8")
        made = make_page(current)
        if args.check and made != current:
            raise ValueError(f"{path} is not current: run python tools/benchmark.py page --write")
        if made != current:
            path.write_text(made, encoding="utf-8")
        print(f"{path} is {'current' if made == current else 'written'}")


def print_stages(times: LoaderTimes) -> None:
    print("stage     ms per video   share of the worker")
    for stage, ms in times.stages_ms.items():
        share = "training process" if stage == "finish" else f"{ms / times.worker_ms:.1%}"
        print(f"{stage:<10} {ms:11.2f}   {share}")
    print(
        f"worker     {times.worker_ms:11.2f}   for {times.clips_per_video} clips: "
        f"{1000 * times.clips_per_video / times.worker_ms:.1f} clips/s per core, decoding "
        f"{times.stages_ms['decode'] / times.worker_ms:.0%} of the time"
    )


def print_ratios(times: dict[str, dict[str, float]], base: str) -> None:
    labels = {"forward_ms": "forward", "step_ms": "forward + backward"}
    for name, measured in times.items():
        columns = [f"{labels[key]} {ms:9.3f} ms ({times[base][key] / ms:.1f}x)" for key, ms in measured.items()]
        print(f"{name:>17}: {', '.join(columns)}" + ("" if "step_ms" in measured else ", no gradients here"))


def positive(kind: type):
    """Return the type of an argument that is a positive number."""

    def convert(text: str):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"  # argparse names it in its message
    return convert


def add_model_arguments(command: argparse.ArgumentParser, rounds: int) -> None:
    command.add_argument("--cfg", required=True, metavar="FILE")
    command.add_argument("--against", nargs="+", default=[], metavar="FILE", help="configurations to compare with")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument("--clips", type=positive(int), default=1, help="of a batch, default 1")
    command.add_argument("--rounds", type=positive(int), default=rounds, help=f"measurements of each, default {rounds}")
    command.add_argument("--json", metavar="FILE", help="write the figures to FILE too")
    command.add_argument("opts", nargs="*", metavar="KEY VALUE")


def add_timing_arguments(command: argparse.ArgumentParser, **sizes: int) -> None:
    """Add sizes with their defaults, and what both timing commands take."""
    for name, default in sizes.items():
        command.add_argument(f"--{name}", type=positive(int), default=default, help=f"default {default}")
    command.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    command.add_argument("--repeats", type=positive(int), default=5, help="measurements of each, default 5")
    command.add_argument("--json", metavar="FILE", help="write the times to FILE too, unrounded")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("flops", help="parameters and multiply-accumulates of a configuration")
    command.add_argument("--cfg", required=True, metavar="FILE")
    command.add_argument("--json", metavar="FILE", help="write the counts to FILE too, unrounded")
    command.add_argument("opts", nargs="*", metavar="KEY VALUE")
    command.set_defaults(run=flops)
    command = commands.add_parser("model", help="times and memory of whole models, relative to the first one")
    add_model_arguments(command, rounds=5)
    command.add_argument(
        "--formulations",
        nargs="+",
        choices=FORMULATIONS,
        default=["plain", "fast"],
        help="plain: gathered windows, attention matrices and channels-first maps, of the first configuration only; "
        "fast: what training and testing use; folded: for inference, without batch norms; compiled: torch.compile; "
        "graphed: folded and compiled, recorded as a CUDA graph",
    )
    command.add_argument("--precision", nargs="+", choices=("fp32", "bf16", "fp16"), default=["fp32", "bf16"])
    command.add_argument("--forward-only", action="store_true", help="leave out training")
    command.set_defaults(run=model)
    command = commands.add_parser("scaling", help="how time and memory of whole models grow with clip and window")
    add_model_arguments(command, rounds=2)
    for axis, keys in AXES.items():
        command.add_argument(f"--{axis}", nargs="+", type=positive(int), metavar="N", help=f"values of {keys[0]}")
    command.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    command.add_argument("--plot", metavar="FILE", help="draw it into a PNG file")
    command.set_defaults(run=scaling)
    command = commands.add_parser("op", help="times of the EMIM backends, relative to the reference")
    add_timing_arguments(command, clips=1, frames=16, size=14, heads=5, channels=64, window=7)
    command.set_defaults(run=op)
    command = commands.add_parser("depthwise", help="time of the depthwise convolution, relative to torch's")
    add_timing_arguments(command, clips=1, frames=16, size=56, channels=64, kernel=5)
    command.set_defaults(run=depthwise)
    command = commands.add_parser("loader", help="times of the stages of loading, and clips per second")
    command.add_argument("--cfg", required=True, metavar="FILE")
    size = "make JPEG frames of this size instead of reading data"
    command.add_argument("--synthetic", metavar="WIDTHxHEIGHT", help=size)
    plain = "time the recipe done frame by frame with Pillow too"
    command.add_argument("--compare-plain", action="store_true", help=plain)
    step = "say how many workers a training step of this time needs"
    command.add_argument("--step-ms", type=positive(float), metavar="MS", help=step)
    command.add_argument("--stages-only", action="store_true", help="leave out the loader with all its workers")
    command.add_argument("--videos", type=positive(int), default=8, help="videos of a measurement, default 8")
    command.add_argument("--rounds", type=positive(int), default=5, help="measurements of the stages, default 5")
    command.add_argument("--batches", type=positive(int), help="batches of the loader, default 2 per worker")
    command.add_argument("--json", metavar="FILE", help="write the figures to FILE too")
    command.add_argument("opts", nargs="*", metavar="KEY VALUE")
    command.set_defaults(run=loader)
    command = commands.add_parser("page", help="put the figures in docs/benchmarks into the tables of the documents")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables")
    what.add_argument("--check", action="store_true", help="fail if they are not current; write nothing")
    command.set_defaults(run=page)
    args = parser.parse_args()
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
