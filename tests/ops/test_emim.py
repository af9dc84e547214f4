"""EMIM attention: every backend against loops over the paper's equations, and properties of the operator."""

import pytest
import torch
from emim_oracle import AWKWARD, EXACT, leaves, lowered, make_inputs, oracle

from slowfast.ops.emim import PAD_VALUE, EmimRules, MotionWeights, cost_volume, emim_attention
from slowfast.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("nan_in_new_tensors")

RULES = [
    EmimRules(temporal_interval=2),
    EmimRules(temporal_interval=3),
    EmimRules(temporal_interval=2, last_frame="self"),
    EmimRules(last_frame="self", pad_value=0.5),
    EmimRules(padding="mask"),
    EmimRules(padding="mask", last_frame="self", temporal_interval=3),
]
TILED = [
    EmimRules(sampling="tiled", pad_value=0.5),
    EmimRules(sampling="tiled", padding="mask"),
    EmimRules(sampling="tiled", last_frame="self", temporal_interval=2),
]


def check_against_oracle(inputs, rules, backend):
    out = emim_attention(*inputs, rules=rules, backend=backend)
    expected = oracle(*inputs, rules)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    weight = torch.arange(out.numel(), dtype=out.dtype).sin().reshape(out.shape)
    tensors = leaves(inputs)
    found = torch.autograd.grad((out * weight).sum(), tensors, allow_unused=True)
    for gradient, wanted in zip(found, torch.autograd.grad((expected * weight).sum(), tensors, allow_unused=True)):
        # Over tiles larger than the map, or windows that lie all outside, an input may have no influence at all.
        wanted = torch.zeros_like(gradient) if wanted is None else wanted
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", AWKWARD)
@pytest.mark.parametrize("backend", EXACT)
def test_equals_the_equations_forward_and_backward(backend, shape):
    for pad in (PAD_VALUE, 0.5):
        check_against_oracle(make_inputs(*shape), EmimRules(pad_value=pad), backend)


@pytest.mark.parametrize("rules", RULES, ids=repr)
@pytest.mark.parametrize("shape", [(1, 3, 4, 3), (2, 3, 5, 5), (3, 4, 3, 3), (7, 2, 3, 3)])
@pytest.mark.parametrize("backend", EXACT)
def test_every_rule(backend, shape, rules):
    check_against_oracle(make_inputs(*shape), rules, backend)


@pytest.mark.parametrize("rules", TILED, ids=repr)
@pytest.mark.parametrize("shape", [(1, 3, 3, 3), (3, 6, 9, 3), (4, 4, 5, 3), (2, 4, 4, 2), (2, 3, 4, 7)])
def test_tiles(shape, rules):
    check_against_oracle(make_inputs(*shape, rules=rules), rules, "auto")


@pytest.mark.parametrize("rules", [EmimRules(), EmimRules(sampling="tiled")], ids=repr)
@pytest.mark.parametrize("backend", EXACT)
def test_without_bias_and_without_motion(backend, rules):
    query, key, value, window, bias, motion = make_inputs(3, 5, 4, 3, rules=rules)
    for parts in ((None, motion), (bias, None), (None, None)):
        check_against_oracle((query, key, value, window, *parts), rules, backend)


@pytest.mark.parametrize("backend", EXACT)
def test_gradients_are_derivatives(backend):
    query, key, value, window, bias, motion = make_inputs(3, 3, 2, 3, clips=1, heads=1, channels=2, hidden=3)

    def function(query, key, value, bias, *motion):
        rules = EmimRules(pad_value=0.5)
        return emim_attention(query, key, value, window, bias, MotionWeights(*motion), rules, backend)

    assert torch.autograd.gradcheck(function, (query, key, value, bias, *motion))


@pytest.mark.parametrize("backend", EXACT)
def test_shifted_frame_puts_the_peak_at_its_displacement(backend):
    window, size, channels, (dy, dx) = 7, 12, 32, (2, -3)
    frame = torch.randn(size, size, channels, generator=torch.Generator().manual_seed(0))
    frame = torch.nn.functional.normalize(frame, dim=-1)
    clip = torch.stack((frame, frame.roll((dy, dx), (0, 1)))).reshape(1, 2, size, size, 1, channels)
    interior = cost_volume(clip, clip, window, backend=backend)[0, 0, 3:-3, 3:-3, 0]
    assert (interior.argmax(-1) == (dy + 3) * window + (dx + 3)).all()
    torch.testing.assert_close(interior.max(-1).values, torch.ones(6, 6))


@pytest.mark.parametrize("backend", EXACT)
def test_motion_features_read_the_affinities_before_the_softmax(backend):
    # With weights that copy, M is the affinity itself: scaled products plus bias.
    query, key, value, window, bias, _ = make_inputs(3, 4, 5, 3, channels=9)
    # Far from zero the hidden activation is the identity; the bias of 100 puts it there.
    eye, shift = torch.eye(9, dtype=query.dtype), torch.full((9,), 100.0, dtype=query.dtype)
    copy = MotionWeights(eye, shift, eye, -shift)
    found = emim_attention(query, key, torch.zeros_like(value), window, bias, copy, EmimRules(pad_value=0.0), backend)
    expected = cost_volume(query, key, window, EmimRules(pad_value=0.0)) / 3 + bias.flatten(1)
    torch.testing.assert_close(found, expected)


def test_wrong_arguments_are_named():
    query, key, value, window, bias, motion = make_inputs(2, 3, 3, 3)
    tiled = EmimRules(sampling="tiled")
    for message, arguments, options in (
        ("a window must be .*odd; found 4", (query, key, value, 4), {}),
        (r"key must have the shape \(2, 2.* found \(2, 1", (query, key[:, :1], value, window), {}),
        (r"relative_bias .* the shape \(2, 3, 3\), found \(1, 3, 3\)", (query, key, value, window, bias[:1]), {}),
        (r"relative_bias must have the shape \(2, 5, 5\)", (query, key, value, window, bias), {"rules": tiled}),
        ("motion bias1", (query, key, value, window, bias, motion._replace(bias1=motion.bias2)), {}),
    ):
        with pytest.raises(ValueError, match=message):
            emim_attention(*arguments, **options)
    with pytest.raises(UserError, match="EMIM.BACKEND natten cannot run.*cost volume"):
        cost_volume(query, key, window, backend="natten")


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
