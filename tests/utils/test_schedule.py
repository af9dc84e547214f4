"""The schedule as numbers."""

import pytest

from slowfast.utils.schedule import cosine_with_warmup

RECIPE = {"base_lr": 2e-4, "max_epoch": 60, "warmup_epochs": 5.0, "warmup_start_lr": 1e-6, "end_lr": 1e-6}


def test_values_of_the_released_recipe():
    half, quarter = (1e-6 + 2e-4) / 2, 1e-6 + 0.75 * (2e-4 - 1e-6)
    for progress, rate in ((0, 1e-6), (2.5, half), (5, 2e-4), (5 + 55 / 3, quarter), (32.5, half), (60, 1e-6)):
        assert cosine_with_warmup(progress, **RECIPE) == pytest.approx(rate, rel=1e-12)


def test_no_jump_at_the_end_of_the_warmup_and_no_warmup_at_all():
    before, after = (cosine_with_warmup(5 + sign * 1e-9, **RECIPE) for sign in (-1, 1))
    assert before == pytest.approx(after, rel=1e-6)
    assert cosine_with_warmup(0, **{**RECIPE, "warmup_epochs": 0.0}) == 2e-4
    rates = [cosine_with_warmup(5 + step * 0.1, **RECIPE) for step in range(551)]
    assert rates == sorted(rates, reverse=True)
