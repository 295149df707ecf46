"""Filtering in pieces: with enough overlap the whole clip's result bit for bit, without it off by the bound and no
more."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.bilateral import bilateral_filter, chunked_difference_bound, chunked_filter
from theory.bilateral.chunks import _constant, extremal_frames
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
    assert not _constant(5, 2.0)[1]


def test_a_finer_grid_finds_no_more():
    past, future = np.meshgrid(np.linspace(0, 5, 1001), np.linspace(0, 5, 1001), indexing="ij")
    weight = 2 * (np.exp(-0.5) + np.exp(-2))
    p, q = weight / 2 * np.exp(-(past**2) / 2), weight / 2 * np.exp(-(future**2) / 2)
    values = (q * future - p * past) / (1 + p + q) + 2 * p * past / (1 + 2 * p)
    assert chunked_difference_bound(1.0) * (1 - 1e-5) <= values.max() <= chunked_difference_bound(1.0) * (1 + BUDGET)


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
