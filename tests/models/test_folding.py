"""A folded model is the same function with fewer layers."""

import pytest
import torch
from helpers_models import tiny_model

from slowfast.models.folding import folded
from slowfast.models.layers import BATCH_NORM


@pytest.mark.parametrize("name, frames", [("Uniformer", 4), ("Uniformer2d", 1)])
def test_folded_model_computes_the_same(name, frames):
    torch.manual_seed(0)
    model = tiny_model(MODEL__MODEL_NAME=name, DATA__NUM_FRAMES=frames, EMIM__MOTION=frames > 1).double()
    clips = torch.randn(2, 3, frames, 64, 96, dtype=torch.float64)
    for norm in (module for module in model.modules() if isinstance(module, tuple(BATCH_NORM.values()))):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(tensor)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model.eval()(clips)
    fast = folded(model.train())
    assert model.training and not fast.training
    torch.testing.assert_close(fast(clips), expected, rtol=1e-10, atol=1e-10)
    assert not any(isinstance(module, tuple(BATCH_NORM.values())) for module in fast.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="TEST.FOLD_NORMS.*not in Linear"):
        folded(torch.nn.Linear(1, 1))
