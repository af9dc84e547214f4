"""Compile the Triton kernels for GPUs that need not be there: python tests/ops/compile_check.py [DTYPE H,N,K,D ...]

The host code runs on CPU tensors with kernel launches replaced by compilation, so that what is compiled is what a GPU
would be given. Registers, spills and instructions are read from the machine code, by the tools of Triton's own wheel.
Prints a JSON object per kernel and architecture; without arguments, for the largest stage of EMIM-S in bfloat16.
"""

import collections
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
from slowfast.ops.emim.triton import emim_triton

TOOLS = Path(nvidia_backend).parent / "bin"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ARCHITECTURES = (90, 80)  # compute capability times ten
COUNTED = {name: name for name in ("LDL", "STL", "HGMMA", "HMMA", "FFMA", "LDG", "STG", "MUFU", "BAR")}
COUNTED |= {"LDG128": r"LDG\.E\..*128", "atomics": r"(RED|ATOM)G?\b"}


def launches(size: int, heads: int, window: int, channels: int, dtype: torch.dtype) -> list:
    """Return (kernel, arguments by name, options) of every launch of one forward and backward pass."""
    found = []

    def record(self, *args, grid, warmup, **kwargs):
        options = {key: kwargs.pop(key) for key in ("num_warps", "num_stages") if key in kwargs}
        found.append((self, {**dict(zip(self.arg_names, args)), **kwargs}, options))

    places = window * window
    shapes = [(heads, window, window), (4 * places, places), (4 * places,), (channels, 4 * places), (channels,)]
    qkv = torch.zeros(2, 16, size, size, 3, heads, channels, dtype=dtype, requires_grad=True)
    bias, *motion = (torch.zeros(shape, requires_grad=True, dtype=dtype) for shape in shapes)
    run, JITFunction.run = JITFunction.run, record
    try:
        emim_triton(*qkv.unbind(-3), window, bias, MotionWeights(*motion), EmimRules()).sum().backward()
    finally:
        JITFunction.run = run
    return found


def compile_launch(kernel, arguments: dict, options: dict, arch: int):
    """Compile a launch as Triton would on a GPU: integers 1 are constants, multiples of 16 are known as such."""
    pointers = {dtype: f"*{name}" for name, dtype in DTYPES.items()}
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[(i,)] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name], is_aligned = pointers[value.dtype], True
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
        options = {"capture_output": True, "text": True, "check": True, "env": environment}
        dumps = ("--dump-resource-usage", "--dump-sass")
        registers, code = (subprocess.run([TOOLS / "cuobjdump", dump, path], **options).stdout for dump in dumps)
    pattern = r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)"
    counts = collections.Counter(re.findall(pattern, code, re.MULTILINE))
    found = {name: sum(n for op, n in counts.items() if re.match(what, op)) for name, what in COUNTED.items()}
    found["regs"] = int(re.search(r"REG:(\d+)", registers)[1])
    return {**found, "shared": compiled.metadata.shared, "instr": sum(counts.values())}


def main(dtype: str = "bf16", *shapes: str) -> None:
    for shape in shapes or ["14,5,7,64"]:
        for kernel, arguments, options in launches(*map(int, shape.split(",")), DTYPES[dtype]):
            for arch in ARCHITECTURES:
                found = read_machine_code(compile_launch(kernel, arguments, options, arch))
                print(json.dumps({"kernel": kernel.__name__, "arch": arch, "shape": shape, **found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
