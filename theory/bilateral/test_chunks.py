"""Filtering in pieces: with enough overlap the whole clip's result bit for bit, without it off by the bound and no
more."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.bilateral import bilateral_filter, chunked_difference_bound, chunked_filter
from theory.bilateral.chunks import _constant, end_extremum, extremal_frames
from theory.bilateral.constants import largest_change, neighbour_weight
from theory.rounding import relative_budget

BUDGET = relative_budget(4000)


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    count=st.integers(6, 14),
    frames_at_once=st.integers(1, 9),
    kernel_size=st.sampled_from([3, 5]),
    framework=st.sampled_from([np.asarray, jnp.asarray, torch.as_tensor]),
    monotone=st.booleans(),
)
def test_overlap_gives_the_whole_clip(seed, count, frames_at_once, kernel_size, framework, monotone):
    x = framework(np.random.default_rng(seed).normal(size=(count, 3)))
    settings = {"sigma_range": 0.7, "kernel_size": kernel_size, "monotone": monotone}
    found = chunked_filter(x, frames_at_once, overlap=kernel_size // 2, **settings)
    assert type(found) is type(x)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(bilateral_filter(x, **settings)))


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    kernel_size=st.sampled_from([3, 5, 7]),
    sigma_spatial=st.floats(0.4, 5),
    piece=st.integers(4, 6),
)
def test_no_cut_changes_more_than_the_bound_and_none_far_away(seed, kernel_size, sigma_spatial, piece):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * piece, 300)) * np.exp(rng.normal(size=300)) + rng.choice([0.0, 1.5], size=(2 * piece, 300))
    settings = {"sigma_range": 1.0, "kernel_size": kernel_size, "sigma_spatial": sigma_spatial}
    apart = np.abs(chunked_filter(x, piece, **settings) - bilateral_filter(x, **settings)).max(axis=1)
    assert apart.max() <= chunked_difference_bound(1.0, kernel_size, sigma_spatial) * (1 + BUDGET)
    half = kernel_size // 2
    far = np.abs(np.arange(2 * piece) - (piece - 0.5)) > half
    assert (apart[far] == 0).all()


def test_value_and_where_it_is_attained():
    assert round(chunked_difference_bound(1.0), 7) == 0.5407874
    frames = extremal_frames(6, 3)
    apart = np.abs(chunked_filter(frames, 3, sigma_range=1.0) - bilateral_filter(frames, sigma_range=1.0))
    assert int(np.argmax(apart)) == 2
    assert abs(apart[2] / chunked_difference_bound(1.0) - 1) <= BUDGET


def test_the_constant_is_attained_for_narrow_kernels_and_says_where_it_may_not_be():
    assert [_constant(kernel, width)[1] for kernel, width in ((3, 9.0), (5, 0.5), (5, 1.0), (7, 1.0))] == [True] * 4
    assert _constant(5, 1.593)[1] and not _constant(5, 1.594)[1]


def pull_of_the_future(past: np.ndarray, moment: np.ndarray, weight: float) -> np.ndarray:
    """An upper bound on max_s (q s - moment) / (1 + past + q), q = w exp(-s^2 / 2): a root, by Newton's method.

    m is the maximum if and only if w max_s exp(-s^2 / 2) (s - m) = m (1 + past) + moment; the left side is convex and
    falls in m, so Newton's method from below stays below, and a number slightly above is checked to lie above.
    """
    found = -moment / (1 + past)
    for _ in range(12):
        t = (found + np.sqrt(found**2 + 4)) / 2
        value = weight * np.exp(-(t**2) / 2) / t - found * (1 + past) - moment
        slope = -weight * np.exp(-(t**2) / 2) - (1 + past)
        found = found - value / slope
    above = found + 1e-12
    t = (above + np.sqrt(above**2 + 4)) / 2
    assert (weight * np.exp(-(t**2) / 2) / t <= above * (1 + past) + moment).all()
    return above


def test_the_constant_is_enclosed():
    """D <= its value + 2e-7, on intervals of the past's distance r that cover everything, from monotone parts alone."""
    middle, half_weight = end_extremum(neighbour_weight())[1], neighbour_weight() / 2
    fine = np.linspace(middle - 0.05, middle + 0.05, 1_000_001)
    edges = np.unique(np.concatenate([np.linspace(0, fine[0], 20_001), fine, np.linspace(fine[-1], 12, 100_001)]))
    weights = half_weight * np.exp(-(edges**2) / 2)
    moments = weights * edges
    # Weights fall in r; moments rise until r = 1 and fall from there, so their least value is at an end.
    least, moment = weights[1:], np.minimum(moments[1:], moments[:-1])
    most = np.maximum(moments[1:], moments[:-1])
    most[(edges[:-1] < 1) & (edges[1:] > 1)] = half_weight * np.exp(-0.5)
    bound = pull_of_the_future(least, moment, half_weight) + 2 * most / (1 + 2 * least)
    # Beyond the last edge the past has no weight to speak of.
    beyond = largest_change(2 * half_weight) + 1e-12
    assert max(float(bound.max()), beyond) <= chunked_difference_bound(1.0) + 2e-7
    assert float(bound.max()) >= chunked_difference_bound(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chunked_difference_bound(-1.0), "sigma_range = -1.0; a finite number > 0"),
        (lambda: chunked_difference_bound(1.0, 6), "kernel_size = 6; an odd integer"),
        (lambda: chunked_filter(np.zeros((4, 1)), 0, sigma_range=1.0), "frames_at_once = 0; at least 1"),
        (lambda: chunked_filter(np.zeros((4, 1)), 2, overlap=-1, sigma_range=1.0), "overlap = -1; 0 or more"),
        (lambda: chunked_filter(np.zeros((4, 1)), 2, sigma_range=1.0), "2 frames were given; reflect padding"),
    ],
)
def test_faults_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
