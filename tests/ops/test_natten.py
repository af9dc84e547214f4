"""EMIM through NATTEN against the equations, and its refusals."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from emim_oracle import AWKWARD, lowered, make_inputs, oracle

from slowfast.ops.emim import EmimRules, emim_attention
from slowfast.ops.emim.natten import why_not_natten
from slowfast.utils.errors import UserError

ROOT = Path(__file__).parents[2]
RULES = EmimRules()
REASON = why_not_natten(torch.zeros(1, 8), 3, RULES, needs_grad=False)
pytestmark = pytest.mark.filterwarnings("ignore:(return_lse is deprecated|flex_attention called without)")
needs_natten = pytest.mark.skipif(REASON is not None, reason=str(REASON))


# Channels that are no power of two with the bias; windows up to beyond twice the map.
@needs_natten
@pytest.mark.parametrize("shape", [*(shape for shape in AWKWARD if shape[-1] > 1), (2, 1, 1, 3), (2, 5, 9, 5)], ids=str)
def test_equals_the_equations(shape):
    rules = EmimRules(pad_value=0.5)
    inputs = make_inputs(*shape, channels=8 if shape[-1] < 7 else 16)
    with torch.no_grad():
        expected = oracle(*inputs, rules).float()
        found = emim_attention(*lowered(inputs, torch.float32), rules=rules, backend="natten")
        assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@needs_natten
def test_each_refusal_is_natten_s_own():
    import natten

    def fails(x, window):
        with pytest.raises((ValueError, NotImplementedError)):
            natten.na2d(x, x, x, kernel_size=window)
        return True

    query = torch.zeros(1, 6, 6, 1, 8)
    assert why_not_natten(query, 3, RULES, needs_grad=False) is None
    assert "float64" in why_not_natten(query.double(), 3, RULES, False) and fails(query.double(), 3)
    assert "window 1" in why_not_natten(query, 1, RULES, False) and fails(query, 1)
    assert "meta" in why_not_natten(query.to("meta"), 3, RULES, False) and fails(query.to("meta"), 3)
    assert "HAS_LIBNATTEN" in why_not_natten(query, 3, RULES, True) and fails(query.clone().requires_grad_(), 3)
    # Powers of two only: with a bias of 9 channels 503 is the widest head, and 504 would become 1024.
    assert why_not_natten(torch.zeros(503), 3, RULES, False) is None
    assert "make 513" in why_not_natten(torch.zeros(504), 3, RULES, False) and fails(torch.zeros(1, 6, 6, 1, 1024), 3)


@needs_natten
def test_the_reason_is_in_the_error():
    inputs = lowered(make_inputs(2, 4, 5, 3, channels=8), torch.float32)
    with pytest.raises(UserError, match="EMIM.BACKEND natten cannot run.*HAS_LIBNATTEN"):
        emim_attention(*inputs, backend="natten")
    with pytest.raises(UserError, match="natten cannot run.*EMIM.PADDING 'mask'"):
        emim_attention(*inputs, rules=EmimRules(padding="mask"), backend="natten")
    with pytest.raises(UserError, match="natten cannot run.*EMIM.SAMPLING is tiled"):
        emim_attention(*inputs[:4], rules=EmimRules(sampling="tiled"), backend="natten")


def test_neither_natten_nor_triton_is_imported_unasked_and_a_missing_one_is_named():
    # None in sys.modules makes Python refuse the import, as if the package were not installed.
    script = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
import torch, slowfast.models
from slowfast.ops.emim import EmimRules, emim_attention
from slowfast.ops.emim.natten import why_not_natten
from slowfast.ops.emim.triton import why_not_triton
x = torch.zeros(1, 2, 3, 3, 1, 32)
emim_attention(x, x, x, 3)
assert not {"natten", "timm", "slowfast.ops.emim.triton.launch"} & set(sys.modules)
sys.modules["natten"] = None
print(why_not_natten(x, 3, EmimRules(), False), why_not_triton(x, 3, EmimRules(), False), sep="\\n")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    of_natten, of_triton = ran.stdout.splitlines() or [ran.stderr] * 2
    assert of_natten.startswith("natten cannot be imported (ModuleNotFoundError"), ran.stderr
    assert "requirements-natten.txt" in of_natten and "triton is not there" in of_triton
