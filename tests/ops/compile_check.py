"""Compile the Triton kernels for GPUs that need not be there: python tests/ops/compile_check.py

The host code runs on CPU tensors with kernel launches replaced by compilation, so that what is compiled is what a GPU
would be given: the largest stage of EMIM-S in bfloat16. Prints a JSON object per kernel and architecture.
"""

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

TOOL = Path(nvidia_backend).parent / "bin" / "cuobjdump"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ARCHITECTURES = (90, 80)  # compute capability times ten
COUNTED = {"products": r"\b(wgmma\.mma_async|mma\.sync)", "wide_loads": r"\b(ld\.global|cp\.async).*(v4|16)"}
COUNTED["atomics"] = r"\b(atom|red)\.global"


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


def inspect(compiled) -> dict[str, int]:
    """Return bytes of stack and of shared memory, and counts of instructions."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        ran = subprocess.run([TOOL, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    counts = {name: len(re.findall(pattern, compiled.asm["ptx"])) for name, pattern in COUNTED.items()}
    return {**counts, "stack": int(re.search(r"STACK:(\d+)", ran.stdout)[1]), "shared": compiled.metadata.shared}


for kernel, arguments, options in launches(size=14, heads=5, window=7, channels=64, dtype=torch.bfloat16):
    for arch in ARCHITECTURES:
        found = inspect(compile_launch(kernel, arguments, options, arch))
        print(json.dumps({"kernel": kernel.__name__, "arch": arch, **found}), flush=True)
