"""The monotone filter: doubly stochastic derivatives, differences that do not grow, changes within the bound."""

import functools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from theory.bilateral import bilateral_filter, defect_bound
from theory.rounding import relative_budget

BUDGET = relative_budget(4000)
PADDINGS = pytest.mark.parametrize("padding", ["symmetric", "circular"])


def frames_of(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=count) * np.exp(rng.normal())


@PADDINGS
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_jacobian_is_symmetric_and_doubly_stochastic(padding, count):
    for seed in range(20):
        run = functools.partial(bilateral_filter, sigma_range=0.8, monotone=True, padding=padding)
        jacobian = torch.autograd.functional.jacobian(run, torch.from_numpy(frames_of(seed, count)))
        assert float(jacobian.min()) >= -BUDGET
        assert float((jacobian - jacobian.T).abs().max()) <= BUDGET
        assert float((jacobian.sum(dim=0) - 1).abs().max()) <= BUDGET


@PADDINGS
@hypothesis.given(
    seed=st.integers(0, 2**31 - 1), count=st.integers(2, 9), power=st.sampled_from([1, 1.5, 2, 7, np.inf])
)
def test_differences_of_neighbours_do_not_grow(padding, seed, count, power):
    x = frames_of(seed, count)
    filtered = bilateral_filter(x, sigma_range=1.0, monotone=True, padding=padding)
    before, after = ((np.roll(y, -1) - y if padding == "circular" else np.diff(y)) for y in (x, filtered))
    slack = BUDGET * count * np.max(np.abs(x))
    assert np.linalg.norm(after, power) <= np.linalg.norm(before, power) + slack


@hypothesis.given(seed=st.integers(0, 2**31 - 1), sigma_range=st.floats(0.01, 100))
def test_changes_stay_within_the_bound_and_come_close_to_it(seed, sigma_range):
    x = frames_of(seed, 6)
    moved = np.max(np.abs(bilateral_filter(x, sigma_range=sigma_range, monotone=True) - x))
    assert moved <= defect_bound(sigma_range, monotone=True) * (1 + BUDGET) + BUDGET * np.max(np.abs(x))
    far = np.array([1e6, 1e6, 0.0, 1e6, 1e6]) * sigma_range
    moved = bilateral_filter(far, sigma_range=sigma_range, monotone=True)[2]
    assert (
        0.999 * defect_bound(sigma_range, monotone=True)
        < moved
        <= defect_bound(sigma_range, monotone=True) * (1 + BUDGET)
    )


def test_the_bilateral_filter_fails_where_the_monotone_one_holds():
    """Total variation and energy, on the counterexamples of C4.smoothing and C4.energy."""
    for power, frames in ((1, np.array([0.0, 0.0, 4.7, 1.0])), (2, np.array([0.0, 0.7, 4.0, 4.7]))):
        sizes = [
            np.linalg.norm(np.diff(y), power)
            for y in (
                frames,
                bilateral_filter(frames, sigma_range=1.0),
                bilateral_filter(frames, sigma_range=1.0, monotone=True),
            )
        ]
        assert sizes[2] < sizes[0] < sizes[1]
