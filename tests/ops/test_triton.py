"""The Triton kernels of EMIM: in Triton's interpreter, as machine code for GPUs that are not there, and on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton_cases

from slowfast.ops.emim import EmimRules, emim_attention
from slowfast.ops.emim.triton import HAS_TRITON, why_not_triton
from slowfast.utils.errors import UserError

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not there")


def run_script(name: str, **environment: str) -> list[dict]:
    """Run a script of this folder in a process of its own and return the objects that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    ran = subprocess.run([sys.executable, HERE / name], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str | None]:
    # Kernels are interpreted or compiled for the whole life of a process: one process runs all cases.
    found = run_script("triton_cases.py", TRITON_INTERPRET="1")
    return {each["name"]: each["failure"] for each in found}


@needs_triton
@pytest.mark.parametrize("name", [*map(repr, triton_cases.CASES), *(check.__name__ for check in triton_cases.CHECKS)])
def test_in_the_interpreter(interpreted, name):
    assert interpreted[name] is None, interpreted[name]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> list[dict]:
    pytest.importorskip("triton")
    from triton.backends.nvidia import __file__ as backend

    if not (Path(backend).parent / "bin" / "cuobjdump").exists():
        pytest.skip("this triton has no cuobjdump")
    cache = str(tmp_path_factory.mktemp("triton"))
    return run_script("compile_check.py", TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache)


# By compute capability: bytes of stack, which spilled registers take (how many depends on the assembler that comes with
# triton), and bytes of shared memory that a program can have.
MOST_STACK = {90: 0, 80: 192}
SHARED_MEMORY = {90: 227 * 1024, 80: 163 * 1024}
KERNELS = {"attend_forward", "attend_backward_query", "attend_backward_key"}
KERNELS |= {"mlp_forward", "mlp_backward_band", "mlp_backward_weights"}


@needs_triton
def test_machine_code_of_the_model_s_kernels(compiled):
    assert {each["kernel"] for each in compiled} == KERNELS and len(compiled) == 2 * len(KERNELS)
    for each in compiled:
        assert each["stack"] <= MOST_STACK[each["arch"]], f"registers are spilled: {each}"
        assert each["shared"] <= SHARED_MEMORY[each["arch"]], f"more shared memory than there is: {each}"
        assert each["products"] > 0, f"no tensor cores: {each}"
        assert each["wide_loads"] > 0, f"no wide loads: {each}"
        assert each["atomics"] == 0, f"sums without an order: {each}"


@needs_triton
def test_where_it_cannot_run_it_says_why_and_auto_goes_on_to_the_next():
    rules = EmimRules()
    tokens = torch.rand(1, 2, 3, 3, 1, 32)
    assert "CUDA devices, found cpu" in why_not_triton(tokens, 3, rules, False)
    assert "float64" in why_not_triton(tokens.double(), 3, rules, False)
    assert "32 or 64 channels, found 16" in why_not_triton(tokens[..., :16], 3, rules, False)
    assert "up to 11, found 13" in why_not_triton(tokens, 13, rules, False)
    assert "found meta" in why_not_triton(tokens.to("meta"), 3, rules, False)
    with pytest.raises(UserError, match=r"EMIM.BACKEND triton cannot run: .*found cpu"):
        emim_attention(tokens, tokens, tokens, 3, backend="triton")
    with pytest.raises(UserError, match="triton cannot run.*EMIM.SAMPLING is tiled"):
        emim_attention(tokens, tokens, tokens, 3, rules=EmimRules(sampling="tiled"), backend="triton")
    expected = emim_attention(tokens, tokens, tokens, 3, backend="dense")
    assert torch.equal(emim_attention(tokens, tokens, tokens, 3), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("case", triton_cases.CASES, ids=repr)
def test_on_a_gpu(nan_in_new_tensors, case):
    triton_cases.check_errors(case, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("check", triton_cases.CHECKS)
def test_beyond_numbers_on_a_gpu(check):
    check("cuda")
