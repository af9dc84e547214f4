"""Count and time: python tools/benchmark.py flops --cfg FILE [KEY VALUE ...] | op | depthwise [options]."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from slowfast.config.defaults import get_cfg
from slowfast.engine.benchmark import count_model, time_depthwise, time_emim

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def flops(args: argparse.Namespace) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(args.cfg)
    cfg.merge_from_list(args.opts)
    counts = count_model(cfg)
    size = f"{cfg.DATA.NUM_FRAMES}x{cfg.DATA.TRAIN_CROP_SIZE}x{cfg.DATA.TRAIN_CROP_SIZE}"
    print(f"{args.cfg}: {counts['parameters']:,} parameters")
    print(f"{counts['gflops']:.2f} GFLOPs (multiply-accumulates, as papers print them) per clip of {size}")


def op(args: argparse.Namespace) -> None:
    times = time_emim(args.frames, args.size, args.heads, args.channels, args.window, DTYPES[args.precision])
    print(
        f"EMIM attention, 1 x {args.frames} x {args.size} x {args.size} tokens, {args.heads} heads of {args.channels}, "
        f"window {args.window}, {args.precision}, CPU with {torch.get_num_threads()} threads, medians of one run"
    )
    print_ratios(times, base="reference")


def depthwise(args: argparse.Namespace) -> None:
    times = time_depthwise(args.clips, args.frames, args.size, args.channels, args.kernel)
    print(
        f"depthwise convolution, {args.clips} x {args.channels} x {args.frames} x {args.size} x {args.size}, kernel "
        f"{args.kernel}, channels last, fp32, CPU with {torch.get_num_threads()} threads, medians of one run"
    )
    print_ratios(times, base="torch")


def print_ratios(times: dict[str, dict[str, float]], base: str) -> None:
    for name, measured in times.items():
        forward, step = measured["forward_ms"], measured["step_ms"]
        print(
            f"{name:>10}: forward {forward:8.1f} ms ({times[base]['forward_ms'] / forward:.1f}x), "
            f"forward + backward {step:8.1f} ms ({times[base]['step_ms'] / step:.1f}x)"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("flops", help="parameters and multiply-accumulates of a configuration")
    command.add_argument("--cfg", required=True, metavar="FILE")
    command.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    command.set_defaults(run=flops)
    command = commands.add_parser("op", help="times of the EMIM backends, relative to the reference")
    for name, default in (("frames", 16), ("size", 14), ("heads", 5), ("channels", 64), ("window", 7)):
        command.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    command.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    command.set_defaults(run=op)
    command = commands.add_parser("depthwise", help="time of the depthwise convolution, relative to torch's")
    for name, default in (("clips", 1), ("frames", 16), ("size", 56), ("channels", 64), ("kernel", 5)):
        command.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    command.set_defaults(run=depthwise)
    args = parser.parse_args()
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
