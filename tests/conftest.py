"""Settings that every test shares: few threads, and no GPU tests where there is no GPU."""

import logging
import os

import pytest

# Small tensors gain nothing from many threads, and the processes of a distributed test share the cores. An
# environment variable, set before torch is imported, reaches the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


@pytest.fixture(autouse=True)
def package_log_as_it_was():
    """Undo what a run in the test's own process does to the package's logger."""
    logger = logging.getLogger("slowfast")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate = propagate
    for handler in [handler for handler in logger.handlers if handler not in handlers]:
        logger.removeHandler(handler)
        handler.close()


def pytest_collection_modifyitems(items):
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_tests:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
