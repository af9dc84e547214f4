"""EMIM in half precision and under autocast: what stays in float32, and that nothing becomes infinite."""

import pytest
import torch
from emim_oracle import leaves, lowered, make_inputs

from slowfast.ops.emim import BACKENDS, EmimRules, MotionWeights, cost_volume, emim_attention

EXACT = [name for name in BACKENDS if name not in ("natten", "triton")]  # see test_natten.py and test_triton.py
HALVES = [torch.bfloat16, torch.float16]
# Largest difference from the float64 result of the same (rounded) inputs, over the largest value: a few roundings.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.mark.parametrize("rules", [EmimRules(), EmimRules(padding="mask"), EmimRules(sampling="tiled")], ids=repr)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", EXACT)
def test_half_precision_inputs(backend, dtype, rules):
    low = lowered(make_inputs(3, 7, 7, 7, channels=16, rules=rules), dtype)
    exact = lowered(low, torch.float64)
    found, expected = (emim_attention(*x, rules=rules, backend=backend) for x in (low, exact))
    assert found.dtype == dtype
    pairs = [(found, expected)]
    found.float().square().mean().backward()
    expected.square().mean().backward()
    pairs += [(a.grad, b.grad) for a, b in zip(leaves(low), leaves(exact))]
    for a, b in pairs:
        assert (a.double() - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", EXACT)
def test_affinities_of_half_precision_tokens_are_float32(backend, dtype):
    query, key = (x.detach().to(dtype) for x in make_inputs(2, 5, 5, 3, channels=64)[:2])
    exact = cost_volume(query.double(), key.double(), 3)
    for is_autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=is_autocast):
            found = cost_volume(query, key, 3, backend=backend)
        assert found.dtype == torch.float32
        # Products of half-precision numbers are exact in float32: only the sum rounds.
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 300.0])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", EXACT)
def test_gradients_stay_finite(backend, dtype, scale):
    # At 300 the affinities reach 1e6, beyond the range of float16; the softmax is one-hot.
    *tensors, window, bias, motion = make_inputs(3, 7, 7, 5, channels=64, dtype=torch.float32)
    with torch.no_grad():
        tensors[0].mul_(scale)
        tensors[1].mul_(scale)
    motion = MotionWeights(*(0.02 * weight.detach() for weight in motion))
    tensors = [x.detach().to(dtype).requires_grad_() for x in tensors]
    motion = MotionWeights(*(weight.requires_grad_() for weight in motion))
    with torch.autocast("cpu", dtype):
        out = emim_attention(*tensors, window, bias, motion, backend=backend)
    assert out.isfinite().all()
    (2**10 * out.float().square().mean().sqrt()).backward()  # as a loss scaler does, against underflow
    for x in (*tensors, bias, *motion):
        assert x.grad.isfinite().all() and x.grad.any()
