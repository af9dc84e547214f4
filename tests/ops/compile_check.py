"""Compile the Triton kernels for GPUs that need not be there, and say what they take: python tests/ops/compile_check.py

The host code runs on CPU tensors with kernel launches replaced by compilation, so that what is compiled is what a GPU
would be given. Registers, spills and instructions are read from the machine code, by the tools of Triton's own wheel.
Prints a table, or with --json one object a line.
"""

import argparse
import collections
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import __file__ as nvidia_backend
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from slowfast.ops.emim import EmimRules, MotionWeights
from slowfast.ops.emim.rules import LAST_FRAMES, PADDINGS
from slowfast.ops.emim.triton import emim_triton

TOOLS = Path(nvidia_backend).parent / "bin"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
COLUMNS = ("regs", "shared", "LDL", "STL", "instr", "HGMMA", "HMMA", "FFMA", "LDG", "LDG128", "STG", "MUFU", "BAR")
# (H = W, N, K, D): stages 3 and 4 of EMIM-S, and what else the kernels promise.
MODEL_SHAPES = [(14, 5, 7, 64), (7, 8, 7, 64)]
OTHER_SHAPES = [
    (14, 5, 3, 64),
    (14, 5, 5, 64),
    (14, 5, 9, 64),
    (14, 5, 11, 64),
    (7, 8, 11, 64),
    (28, 2, 7, 64),
    (14, 5, 7, 32),
]


def launches(
    size: int,
    heads: int,
    window: int,
    channels: int,
    dtype: torch.dtype,
    clips: int,
    frames: int,
    rules: EmimRules = EmimRules(),  # noqa: B008 (immutable)
    has_motion: bool = True,
) -> list:
    """Return (kernel, arguments by name, options, grid) of every launch of one forward and backward pass."""
    found = []

    def record(self, *args, grid, warmup, **kwargs):
        options = {key: kwargs.pop(key) for key in ("num_warps", "num_stages") if key in kwargs}
        found.append((self, {**dict(zip(self.arg_names, args)), **kwargs}, options, grid))

    places = window * window
    shapes = [(heads, window, window), (4 * places, places), (4 * places,), (channels, 4 * places), (channels,)]
    qkv = torch.zeros(clips, frames, size, size, 3, heads, channels, dtype=dtype, requires_grad=True)
    bias, *motion = (torch.zeros(shape, requires_grad=True, dtype=dtype) for shape in shapes)
    run, JITFunction.run = JITFunction.run, record
    try:
        out = emim_triton(*qkv.unbind(-3), window, bias, MotionWeights(*motion) if has_motion else None, rules)
        out.sum().backward()
    finally:
        JITFunction.run = run
    return found


def compile_launch(kernel, arguments: dict, options: dict, arch: int):
    """Compile a launch as Triton would on a GPU: integers 1 are constants, multiples of 16 are known as such."""
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[(i,)] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name], is_aligned = POINTERS[value.dtype], True
        elif isinstance(value, int):
            signature[parameter.name], is_aligned = "i32", value % 16 == 0
        else:
            signature[parameter.name], is_aligned = "fp32", False
        if is_aligned:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def read_machine_code(compiled) -> dict[str, int]:
    """Return registers, bytes of shared memory and counts of instructions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}  # cuobjdump calls nvdisasm

        def dump(what: str) -> str:
            command = [TOOLS / "cuobjdump", what, path]
            return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

        registers = re.search(r"REG:(\d+)", dump("--dump-resource-usage"))
        code = dump("--dump-sass")
    pattern = r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)"
    counts = collections.Counter(re.findall(pattern, code, re.MULTILINE))
    names = {name: name for name in ("LDL", "STL", "HGMMA", "HMMA", "FFMA", "LDG", "STG", "MUFU", "BAR")}
    names.update(LDG128=r"LDG\.E\..*128", atomics=r"(RED|ATOM)G?\b")
    found = {name: sum(n for op, n in counts.items() if re.match(pattern, op)) for name, pattern in names.items()}
    return {"regs": int(registers[1]), "shared": compiled.metadata.shared, "instr": sum(counts.values()), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, action="append", help="compute capability times ten; default 80 and 90")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default all")
    parser.add_argument("--shape", action="append", help="H,N,K,D; default the model's and others")
    parser.add_argument("--kernel", default="", help="part of a kernel's name")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--last-frame", choices=LAST_FRAMES, default="repeat")
    parser.add_argument("--padding", choices=PADDINGS, default="constant")
    parser.add_argument("--no-motion", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    shapes = [tuple(map(int, shape.split(","))) for shape in args.shape or ()] or MODEL_SHAPES + OTHER_SHAPES
    if not args.json:
        print(f"triton {triton.__version__}, LDL and STL are spills; shapes are H, N, K, D")
        print(f"{'kernel':<22} arch type {'shape':<14} warps programs " + " ".join(f"{name:>6}" for name in COLUMNS))
    for arch, dtype, shape in itertools.product(args.arch or (90, 80), args.dtype or DTYPES, shapes):
        size, heads, window, channels = shape
        for kernel, arguments, options, grid in launches(
            *(size, heads, window, channels, DTYPES[dtype], args.clips, args.frames),
            EmimRules(last_frame=args.last_frame, padding=args.padding),
            not args.no_motion,
        ):
            name = kernel.__name__
            if args.kernel not in name:
                continue
            found = read_machine_code(compile_launch(kernel, arguments, options, arch))
            if args.json:
                print(json.dumps({"kernel": name, "arch": arch, "dtype": dtype, "shape": shape, **found}), flush=True)
                continue
            label = ",".join(map(str, shape))
            start = f"{name:<22} {arch:>4} {dtype} {label:<14} {options['num_warps']:>5} {grid[0] * grid[1]:>8} "
            print(start + " ".join(f"{found[column]:>6}" for column in COLUMNS), flush=True)


if __name__ == "__main__":
    main()
