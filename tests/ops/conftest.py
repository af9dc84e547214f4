import pytest
import torch


@pytest.fixture
def nan_in_new_tensors():
    """Deterministic mode fills what torch.empty returns with NaN: a place that nobody writes shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
