"""The appearance branch through NATTEN against its definition, and why NATTEN cannot run some things."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from emim_oracle import AWKWARD, make_inputs, oracle

from slowfast.ops.emim import EmimRules, emim_attention
from slowfast.ops.emim.natten import natten_context, why_not_natten

ROOT = Path(__file__).parents[2]
RULES = EmimRules()
REASON = why_not_natten(torch.zeros(1, 8), 3, RULES, needs_grad=False)
pytestmark = pytest.mark.filterwarnings("ignore:(return_lse is deprecated|flex_attention called without)")
needs_natten = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def definition(query, key, value, window, bias, pad):
    """Softmax over a window, one displacement after the other, in float64."""
    query, key, value = (x.double() for x in (query, key, value))
    height, width, _, channels = query.shape[2:]
    radius = window // 2

    def shifted(x, dy, dx):
        padded = torch.full((*x.shape[:2], height + 2 * radius, width + 2 * radius, *x.shape[4:]), pad).to(x)
        padded[:, :, radius : radius + height, radius : radius + width] = x
        return padded[:, :, radius + dy : radius + dy + height, radius + dx : radius + dx + width]

    offsets = range(-radius, radius + 1)
    places = [(dy, dx) for dy in offsets for dx in offsets]
    logits = torch.stack([(query * shifted(key, *place)).sum(-1) / channels**0.5 for place in places], dim=-1)
    if bias is not None:
        logits = logits + bias.double().flatten(1)
    weights = logits.softmax(-1)  # (B, F, H, W, N, P)
    return sum(weights[..., p, None] * shifted(value, *place) for p, place in enumerate(places))


def draw(clips, frames, height, width, heads, channels, window, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shape = (clips, frames, height, width, heads, channels)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]
    return *tensors, torch.randn(heads, window, window, generator=generator)


# (F, H, W, K, N, D): windows up to beyond twice the map, a single token, widths that are no power of two with the bias.
CASES = [
    (2, 7, 7, 7, 2, 16),
    (1, 5, 9, 3, 3, 8),
    (2, 5, 9, 5, 1, 64),
    (1, 4, 5, 9, 2, 16),
    (2, 4, 5, 11, 2, 64),
    (1, 7, 7, 11, 1, 8),
    (1, 1, 1, 3, 2, 8),
]


@needs_natten
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("pad", [1e-6, 0.5])
@pytest.mark.parametrize("with_bias", [True, False])
def test_is_the_definition(case, pad, with_bias):
    frames, height, width, window, heads, channels = case
    query, key, value, bias = draw(2, frames, height, width, heads, channels, window)
    bias = bias if with_bias else None
    found = natten_context(query, key, value, window, bias, pad)
    expected = definition(query, key, value, window, bias, pad)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@needs_natten
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_half_precision_stays_close(dtype, tolerance):
    query, key, value, bias = draw(1, 2, 7, 7, 2, 16, 7, dtype)
    found = natten_context(query, key, value, 7, bias, 1e-6)
    expected = definition(query, key, value, 7, bias, 1e-6)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@needs_natten
def test_parameters_may_want_gradients_where_none_are_recorded():
    inputs = [x.requires_grad_() for x in draw(1, 1, 4, 5, 1, 8, 3)]
    *tensors, bias = inputs
    with torch.no_grad():
        assert not natten_context(*tensors, 3, bias, 1e-6).requires_grad


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
@pytest.mark.parametrize("shape", [shape for shape in AWKWARD if shape[-1] > 1], ids=str)
@pytest.mark.parametrize("pad", [1e-6, 0.5])
def test_whole_operator_equals_the_equations(shape, pad):
    rules = EmimRules(pad_value=pad)
    inputs = make_inputs(*shape)
    expected = oracle(*inputs, rules)
    with torch.no_grad():
        found = emim_attention(*(single(x) for x in inputs), rules=rules, backend="natten")
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def single(x):
    if isinstance(x, tuple):
        return type(x)(*(y.float() for y in x))
    return x.float() if isinstance(x, torch.Tensor) else x


@needs_natten
def test_what_cannot_run_raises_with_the_reason():
    query, key, value, bias = draw(1, 1, 4, 5, 1, 8, 3)
    with pytest.raises(ValueError, match="EMIM.BACKEND natten cannot run.*HAS_LIBNATTEN"):
        emim_attention(query, key, value, 3, bias.clone().requires_grad_(), backend="natten")
    with pytest.raises(ValueError, match="float64"):
        emim_attention(query.double(), key.double(), value.double(), 3, backend="natten")
    with pytest.raises(ValueError, match="natten cannot run.*EMIM.PADDING 'mask'"):
        emim_attention(query, key, value, 3, bias, rules=EmimRules(padding="mask"), backend="natten")
    with pytest.raises(ValueError, match="natten cannot run.*EMIM.SAMPLING is tiled"):
        emim_attention(query, key, value, 3, None, rules=EmimRules(sampling="tiled"), backend="natten")


def test_natten_is_imported_when_asked_for_and_missed_with_a_reason():
    # None in sys.modules makes Python refuse the import, as if the package were not installed.
    script = (
        "import sys, torch, slowfast.models\n"
        "from slowfast.ops.emim import EmimRules\n"
        "from slowfast.ops.emim.natten import why_not_natten\n"
        "assert 'natten' not in sys.modules\n"
        "sys.modules['natten'] = None\n"
        "print(why_not_natten(torch.zeros(8), 3, EmimRules(), False))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.startswith("natten cannot be imported (ModuleNotFoundError"), ran.stderr
    assert "requirements-natten.txt" in ran.stdout
