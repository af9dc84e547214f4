"""The layers against torch's own."""

import pytest
import torch
from torch import nn

from slowfast.ops.layers import Conv3d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("frames", [1, 2, 8])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [((3, 1, 1), 1, 1), ((5, 1, 1), (2, 1, 1), 1), ((3, 1, 1), 1, 2), ((3, 2, 2), 2, 1)],
)
def test_convolutions_equal_torch(kernel, stride, dilation, groups, frames, layout):
    torch.manual_seed(0)
    padding = (kernel[0] // 2 * dilation, 0, 0)
    theirs = nn.Conv3d(6, 9, kernel, stride, padding, dilation, groups).double()
    ours = Conv3d(6, 9, kernel, stride, padding, dilation, groups).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, frames, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    results = []
    for module in (ours, theirs):
        out = module(x)
        results.append((out, *torch.autograd.grad(out.sin().sum(), (x, *module.parameters()))))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_half_precision_gradients_of_clips_shorter_than_the_stem_are_right():
    torch.manual_seed(0)
    stem, clips = Conv3d(3, 16, (3, 4, 4), stride=(1, 4, 4), padding=(1, 0, 0)), torch.randn(2, 3, 2, 32, 32)
    gradients = []
    for is_half in (False, True):
        junk = [torch.full((size,), 1e30) for size in (1_000, 10_000, 100_000)]  # what freed memory may hold
        del junk
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            out = stem(clips)
        gradients.append(torch.autograd.grad(out.float().square().sum(), stem.weight)[0])
    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()
