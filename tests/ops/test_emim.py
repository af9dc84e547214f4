"""EMIM attention: the oracle, the backends against it, and properties of the operator."""

import pytest
import torch

from slowfast.ops.emim import BACKENDS, PAD_VALUE, MotionWeights, emim_attention

# (T, H, W, K): two frames, odd and unequal maps, windows larger than the map, a single frame.
AWKWARD = [(2, 7, 7, 7), (3, 5, 9, 3), (4, 4, 5, 11), (1, 3, 4, 5), (3, 1, 6, 3), (5, 6, 6, 1)]


def make_inputs(frames, height, width, window, clips=2, heads=2, channels=4, hidden=6, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)

    query, key, value = (draw(clips, frames, height, width, heads, channels) for _ in range(3))
    places = window * window
    motion = MotionWeights(draw(hidden, places), draw(hidden), draw(channels, hidden), draw(channels))
    return query, key, value, draw(heads, window, window), motion


@torch.no_grad()
def oracle(query, key, value, bias, motion, pad):
    """Equations 3 to 5 as loops over every token and displacement."""
    _, frames, height, width, _, channels = query.shape
    window = bias.shape[-1]
    radius = window // 2
    out = torch.zeros_like(query)
    for b, t, y, x, n in torch.cartesian_prod(*(torch.arange(s) for s in query.shape[:5])).tolist():
        target = 0 if frames == 1 else min(t + 1, frames - 1)
        source = 0 if frames == 1 else target - 1
        affinity, values = [], []
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                place = (b, target, y + dy, x + dx, n)
                k = key[place] if inside else torch.full((channels,), pad, dtype=key.dtype)
                v = value[place] if inside else torch.full((channels,), pad, dtype=key.dtype)
                score = (query[b, source, y, x, n] * k).sum() / channels**0.5
                affinity.append(score + bias[n, dy + radius, dx + radius])
                values.append(v)
        affinity = torch.stack(affinity)
        attended = affinity.softmax(0) @ torch.stack(values)
        if motion is not None:
            hidden = motion.weight1 @ affinity + motion.bias1
            hidden = hidden * torch.sigmoid(1.702 * hidden)
            attended = attended + motion.weight2 @ hidden + motion.bias2
        out[b, t, y, x, n] = attended
    return out


@pytest.mark.parametrize("pad", [PAD_VALUE, 0.5])
@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (3, 3, 2, 5), (1, 2, 2, 3)])
def test_reference_is_the_definition(shape, pad):
    inputs = make_inputs(*shape, clips=1)
    for motion in (inputs[-1], None):
        arguments = (*inputs[:-1], motion)
        expected = oracle(*arguments, pad)
        torch.testing.assert_close(emim_attention(*arguments, pad, "reference"), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pad", [PAD_VALUE, 0.5])
@pytest.mark.parametrize("shape", AWKWARD)
@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"reference"}))
def test_backends_agree_forward_and_backward(backend, shape, pad):
    inputs = make_inputs(*shape)
    flat = (*inputs[:-1], *inputs[-1])
    results = []
    for name in ("reference", backend):
        out = emim_attention(*inputs, pad, name)
        weight = torch.arange(out.numel(), dtype=out.dtype).sin().reshape(out.shape)
        results.append((out, *torch.autograd.grad((out * weight).sum(), flat)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_gradients_are_derivatives(backend):
    *tensors, motion = make_inputs(3, 3, 2, 3, clips=1, heads=1, channels=2, hidden=3)

    def function(query, key, value, bias, *motion):
        return emim_attention(query, key, value, bias, MotionWeights(*motion), 0.5, backend)

    assert torch.autograd.gradcheck(function, (*tensors, *motion))


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_shifted_frame_puts_the_peak_at_its_displacement(backend):
    # The motion path sees the raw affinities: with weights that copy them, M is the cost volume itself.
    window, size, places, (dy, dx) = 7, 12, 49, (2, -3)
    generator = torch.Generator().manual_seed(0)
    frame = torch.nn.functional.normalize(torch.randn(size, size, places, generator=generator), dim=-1)
    clip = torch.stack((frame, frame.roll((dy, dx), (0, 1)))).reshape(1, 2, size, size, 1, places)
    # Far from zero the hidden activation is the identity; the bias of 100 puts it there.
    copy = MotionWeights(torch.eye(places), torch.full((places,), 100.0), torch.eye(places), torch.zeros(places))
    no_value, no_bias = torch.zeros_like(clip), torch.zeros(1, window, window)
    cost_volume = emim_attention(clip, clip, no_value, no_bias, copy, backend=backend) - 100
    interior = cost_volume[0, 0, 3:-3, 3:-3, 0]
    assert (interior.argmax(-1) == (dy + 3) * window + (dx + 3)).all()
    torch.testing.assert_close(interior.max(-1).values, torch.full((6, 6), places**-0.5), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_last_frame_repeats_the_one_before(backend):
    out = emim_attention(*make_inputs(4, 3, 5, 3), backend=backend)
    assert torch.equal(out[:, -1], out[:, -2])
    assert not torch.allclose(out[:, 0], out[:, 1])


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_window_of_one_looks_up_the_same_place_in_the_next_frame(backend):
    query, key, value, bias, _ = make_inputs(3, 4, 5, 1)
    out = emim_attention(query, key, value, bias, None, backend=backend)
    torch.testing.assert_close(out[:, :2], value[:, 1:])


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_and_finite(backend, dtype):
    *tensors, motion = make_inputs(3, 7, 7, 7, channels=16)
    expected = emim_attention(*tensors, motion, backend="reference")
    low = [x.detach().to(dtype).requires_grad_() for x in (*tensors, *motion)]
    found = emim_attention(*low[:4], MotionWeights(*low[4:]), backend=backend)
    found.float().sum().backward()
    assert found.dtype == dtype
    assert all(x.grad.isfinite().all() for x in low)
    scale = expected.abs().max()
    assert (found.double() - expected).abs().max() / scale < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_wrong_arguments_are_named():
    query, key, value, bias, motion = make_inputs(2, 3, 3, 3)
    with pytest.raises(ValueError, match="must be odd.*found 4"):
        emim_attention(query, key, value, torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="reference.*dense"):
        emim_attention(query, key, value, bias, motion, backend="fast")
    with pytest.raises(ValueError, match="query, key and value"):
        emim_attention(query, key[:, :1], value, bias)
    with pytest.raises(ValueError, match="relative_bias"):
        emim_attention(query, key, value, bias[:1])
    with pytest.raises(ValueError, match="motion weights"):
        emim_attention(query, key, value, bias, motion._replace(bias1=motion.bias2))
