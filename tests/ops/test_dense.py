"""The operators between tokens and windows: registration, derivatives of any order, counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from slowfast.ops.emim import dense, emim_attention, plain


def draw(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def inputs_of(shape, **kwargs):
    *grid, channels, window = shape
    tokens = (draw(*grid, channels, seed=1, **kwargs), draw(*grid, channels, seed=2, **kwargs))
    return draw(*grid, window**2, **kwargs), *tokens, window


def operators_of(weights, first, second, window):
    """Return the three operators with their tensors, and what follows these."""
    yield dense.affinity, (first, second), (window, 0.5)
    yield dense.context, (weights, second), (window, 0.5)
    yield dense.scatter, (weights, second), (window,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_registered_as_operators(dtype):
    weights, first, second, window = inputs_of((1, 2, 7, 3, 2, 4, 3), dtype=dtype)
    strided = second.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    for operator, tensors, options in operators_of(weights, first, strided, window):
        # Schema, autograd registration, fake tensors, and tracing with dynamic shapes.
        torch.library.opcheck(operator, (*tensors, *options))


@pytest.mark.parametrize("shape", [(1, 2, 3, 2, 1, 2, 3), (1, 1, 2, 2, 1, 1, 5)])
def test_first_and_second_derivatives(shape):
    for operator, tensors, options in operators_of(*inputs_of(shape)):
        function = lambda *x: operator(*x, *options)  # noqa: B023, E731 (used at once)
        assert torch.autograd.gradcheck(function, tensors)
        assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("block_bytes", [1, 4000, 2**30])
def test_result_does_not_depend_on_how_the_work_is_cut(monkeypatch, block_bytes):
    operators = list(operators_of(*inputs_of((2, 5, 7, 4, 2, 3, 3))))
    expected = [operator(*tensors, *options) for operator, tensors, options in operators]
    monkeypatch.setattr(dense, "CPU_BLOCK_BYTES", block_bytes)
    found = [operator(*tensors, *options) for operator, tensors, options in operators]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 14, 9, 2, 4, 5), (1, 1, 3, 4, 2, 4, 7), (1, 2, 10, 8, 1, 4, 3)])
def test_what_is_exported_computes_the_same(shape):
    weights, first, second, window = inputs_of(shape)
    for name, factor in (("affinity", first), ("context", weights)):
        found, expected = (getattr(module, name)(factor, second, window, 0.5) for module in (plain, dense))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_no_key_or_value_is_copied_into_windows():
    # Windows of 7 x 7 around 4 x 14 x 14 tokens with 64 channels, unfolded, are 9.8 MB; no allocation comes near.
    tokens = [draw(1, 4, 14, 14, 1, 64, dtype=torch.float32, seed=seed) for seed in range(3)]
    unfolded_bytes = 4 * tokens[0].numel() * 49
    with torch.profiler.profile(profile_memory=True) as profile:
        emim_attention(*tokens, 7, backend="dense").sum().backward()
    allocated = [event.cpu_memory_usage for event in profile.events() if event.name.startswith("aten::empty")]
    assert max(allocated) >= 4 * tokens[0].numel()
    assert max(allocated) < unfolded_bytes / 10


def test_counted_by_definition_and_not_by_what_is_computed():
    weights, first, second, window = inputs_of((2, 3, 5, 4, 2, 8, 3))
    products = 2 * 3 * 5 * 4 * 2 * 9 * 8
    with FlopCounterMode(display=False) as counter:
        dense.affinity(first, second, window, 1e-6).sum().backward()
        dense.context(weights, second, window, 1e-6).sum().backward()
    # Forward once, and one product for the gradient of each of the two factors.
    assert counter.get_total_flops() == 2 * 2 * products * 3
    counts = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert counts["emim.scatter"] == 2 * 2 * products
