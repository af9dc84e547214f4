"""The depthwise convolution against torch's own, forward and every gradient."""

import copy

import pytest
import torch
from torch import nn

from slowfast.ops.depthwise import DepthwiseConv3d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "shape"), [(3, (2, 4, 5, 6, 7)), (5, (1, 2, 1, 2, 3)), (7, (2, 3, 5, 4, 9))])
def test_equals_torch(kernel, shape, layout, bias):
    torch.manual_seed(0)
    dim = shape[1]
    ours = DepthwiseConv3d(dim, kernel, bias).double()
    theirs = nn.Conv3d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        out = module(x)
        gradients = torch.autograd.grad((out * weight).sum(), (x, *module.parameters()))
        results.append((out, *gradients))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_frozen_parameters_and_inputs_without_gradient():
    module = DepthwiseConv3d(3, 3)
    x = torch.randn(1, 3, 2, 4, 4)
    module(x).sum().backward()
    assert module.weight.grad is not None
    module.requires_grad_(False)
    x.requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("frames", "kernel"), [(4, 5), (2, 3), (1, 5), (6, 5)])
def test_half_precision_gradients_of_clips_shorter_than_the_kernel(frames, kernel, dtype):
    torch.manual_seed(0)
    module = DepthwiseConv3d(16, kernel)
    clips = torch.randn(4, 16, frames, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last_3d)
    weights = torch.randn(4, 16, frames, 8, 8)
    gradients = []
    for precise in (True, False):
        x = (clips.double() if precise else clips.clone()).requires_grad_()
        run = copy.deepcopy(module).to(x.dtype)
        junk = [torch.full((size,), 1e30) for size in (1_000, 10_000, 100_000)]  # what freed memory may hold
        del junk
        (run(x).to(torch.float64) * weights).sum().backward()
        gradients.append([x.grad.double(), run.weight.grad.double(), run.bias.grad.double()])
    with torch.autocast("cpu", dtype):
        out = module(clips.float())
    out.float().sum().backward()
    assert out.dtype == dtype and module.weight.grad.dtype == torch.float32
    for expected, found in zip(*gradients):
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()
