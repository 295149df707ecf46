"""Attention in three libraries, the least alignment error against a general solver, and what bad input says."""

import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import torch

from theory.rounding import relative_budget
from theory.tokens import alignment_error, attend, chebyshev_radius, sufficient_logit_range, vertex_error_bounds
from theory.tokens.alignment import _lowest_weights, dual_value
from theory.tokens.attention import rest_weight
from theory.tokens.hull import aligned_keys


def drawn(seed: int, tokens: int = 5, width: int = 3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=width), rng.normal(size=(tokens, width))


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, torch.tensor])
def test_every_library_gives_the_same(make):
    rng = np.random.default_rng(1)
    query, keys, values = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 6))
    wanted = np.stack([attend(query[i], keys[i], values[i]) for i in range(2)])
    made = attend(make(query), make(keys), make(values))
    assert type(made) is type(make(query)) and made.shape == (2, 4, 6)
    np.testing.assert_allclose(np.asarray(made), wanted, rtol=0, atol=relative_budget(200) * 10)
    one = attend(make(query[0, 0]), make(keys[0]), make(values[0]))
    np.testing.assert_allclose(np.asarray(one), wanted[0, 0], rtol=0, atol=relative_budget(200) * 10)
    target, rows = drawn(2)
    assert float(alignment_error(make(target), make(rows), 1.0)) == float(alignment_error(target, rows, 1.0))
    assert vertex_error_bounds(make(rows), 0, 1.0) == vertex_error_bounds(rows, 0, 1.0)
    assert float(chebyshev_radius(make(rows))) == float(chebyshev_radius(rows))


def test_large_logits_do_not_overflow():
    output = attend(np.array([1e4]), np.array([[1.0], [-1.0]]), np.array([[2.0], [3.0]]))
    np.testing.assert_array_equal(output, [2.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(2), np.ones((3, 4)), np.ones((3, 1))), "last axis"),
        ((np.ones(2), np.ones((3, 2)), np.ones((4, 1))), "one key"),
        ((np.ones(2), np.ones(2), np.ones((3, 1))), "are needed"),
        ((np.ones((2, 1, 2)), np.ones((3, 4, 2)), np.ones((3, 4, 1))), "leading axes"),
        ((np.ones(2, dtype=int), np.ones((3, 2)), np.ones((3, 1))), "dtype int64"),
        ((np.array([np.nan, 1]), np.ones((3, 2)), np.ones((3, 1))), "1 values that are not finite"),
        ((np.ones(2), torch.ones(3, 2), np.ones((3, 1))), "one library"),
        (([1.0, 2.0], np.ones((3, 2)), np.ones((3, 1))), "is a list"),
        ((np.ones(2), np.ones((0, 2)), np.ones((0, 1))), "no axis may be empty"),
    ],
)
def test_bad_attention(arguments, message):
    with pytest.raises(ValueError, match=message):
        attend(*arguments)


@pytest.mark.parametrize("logit_range", [0.0, -1.0, math.nan])
def test_bad_logit_range(logit_range):
    target, values = drawn(0)
    for call in (
        lambda: alignment_error(target, values, logit_range),
        lambda: vertex_error_bounds(values, 0, logit_range),
    ):
        with pytest.raises(ValueError, match="a number > 0 is needed"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment_error(np.ones(2), np.ones((3, 4)), 1.0), "width 2 and the values 4"),
        (lambda: alignment_error(np.ones((1, 2)), np.ones((3, 2)), 1.0), "shape"),
        (lambda: alignment_error(np.full(2, np.inf), np.ones((3, 2)), 1.0), "not finite"),
        (lambda: vertex_error_bounds(np.ones((1, 2)), 0, 1.0), "at least 2"),
        (lambda: vertex_error_bounds(np.ones((3, 2)), 3, 1.0), "from 0 to 2"),
        (lambda: vertex_error_bounds(np.ones((3, 2)), True, 1.0), "index"),
        (lambda: sufficient_logit_range(np.full(2, 5.0), np.eye(2), 0.1), "outside the convex hull"),
        (lambda: sufficient_logit_range(np.full(2, 0.5), np.eye(2), 0.0), "error = 0.0"),
        (lambda: chebyshev_radius(np.ones(3)), "shape"),
        (lambda: chebyshev_radius(np.array([[np.nan]])), "not finite"),
    ],
)
def test_bad_targets(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("seed", range(6))
def test_least_weights_against_a_linear_program(seed):
    """The extreme points are the ones of the statement: no direction finds a lower value over p_j <= e^G p_l."""
    rng = np.random.default_rng(seed)
    count, logit_range = int(rng.integers(2, 7)), float(rng.uniform(0.2, 3))
    scores = rng.normal(size=count)
    pairs = [(j, k) for j in range(count) for k in range(count) if j != k]
    limits = np.zeros((len(pairs), count))
    for row, (j, k) in enumerate(pairs):
        limits[row, j], limits[row, k] = 1.0, -math.exp(logit_range)
    solved = scipy.optimize.linprog(scores, limits, np.zeros(len(pairs)), np.ones((1, count)), [1.0], bounds=(0, 1))
    weights = _lowest_weights(scores, logit_range)
    assert abs(weights.sum() - 1) <= relative_budget(count + 4)
    assert weights.max() <= math.exp(logit_range) * weights.min() * (1 + relative_budget(8))
    # linprog stops at its own tolerance of 1e-7.
    assert abs(scores @ weights - solved.fun) <= 1e-6 * np.abs(scores).sum()
    value = float(dual_value(jnp.asarray(scores[:, None]), jnp.zeros(1), jnp.ones(1), jnp.asarray(logit_range)))
    assert abs(value - scores @ weights) <= relative_budget(8 * count) * np.abs(scores).sum()


@hypothesis.given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 8),
    st.integers(1, 6),
    st.sampled_from([0.1, 1.0, 5.0, 50.0, 800.0, math.inf]),
)
def test_certificate_closes(seed, tokens, width, logit_range):
    """Both ends meet to rounding, the weights are reachable, and no drawn keys do better than the lower end."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(tokens, width)) * 10.0 ** rng.uniform(-3, 3)
    target = rng.normal(size=width) * np.abs(values).max() * rng.choice([0.0, 0.1, 1.0, 3.0])
    least = alignment_error(target, values, logit_range)
    scale = float(np.max(np.linalg.norm(values - target, axis=1)))
    assert 0 <= least.lower <= float(least) * (1 + relative_budget(64)) and float(least) <= least.upper
    assert least.upper - least.lower <= 4 * relative_budget(64 * (tokens + width) + 256) * scale
    weights = least.multipliers
    assert abs(weights.sum() - 1) <= relative_budget(64 * (tokens + 8))
    if logit_range < 700:
        assert weights.max() <= math.exp(logit_range) * weights.min() * (1 + relative_budget(64 * (tokens + 8)))
    logits = rng.uniform(-0.5, 0.5, size=(50, tokens)) * min(logit_range, 700)
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) @ values
    assert np.min(np.linalg.norm(outputs - target, axis=1)) >= least.lower


def test_coinciding_values():
    least = alignment_error(np.ones(3), np.ones((4, 3)), 2.0)
    assert (float(least), least.lower, least.upper) == (0.0, 0.0, 0.0)


@hypothesis.given(st.integers(0, 2**31 - 1), st.integers(2, 7), st.sampled_from([0.3, 1.0, 4.0]))
def test_vertex_bounds_hold_the_least_error(seed, tokens, logit_range):
    _, values = drawn(seed, tokens)
    lower, upper = vertex_error_bounds(values, 0, logit_range)
    least = alignment_error(values[0], values, logit_range)
    assert lower <= least.upper and least.lower <= upper


def test_vertex_bounds_agree_where_the_others_coincide():
    values = np.zeros((5, 3))
    values[0] = [3.0, 0.0, 4.0]
    lower, upper = vertex_error_bounds(values, 0, 1.5)
    exact = 5 * rest_weight(5, 1.5)
    assert lower <= exact <= upper and upper - lower <= exact * relative_budget(400)
    assert abs(float(alignment_error(values[0], values, 1.5)) - exact) <= exact * relative_budget(200)
    assert vertex_error_bounds(values, 0, math.inf) == (0.0, 0.0)


@pytest.mark.parametrize("error", [1.0, 1e-2, 1e-6])
def test_sufficient_range_suffices(error):
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=(6, 3)), rng.dirichlet(np.ones(6))
    target = weights @ values
    logit_range = sufficient_logit_range(target, values, error)
    query = np.array([0.6, 0.8])
    keys = np.asarray(aligned_keys(jnp.asarray(query), jnp.asarray(weights), jnp.asarray(max(logit_range, 1e-9))))
    logits = keys @ query / math.sqrt(2)
    assert np.ptp(logits) <= logit_range + relative_budget(64) * (1 + logit_range) + 1e-9
    assert np.linalg.norm(attend(query, keys, values) - target) <= error


@pytest.mark.parametrize("seed", range(5))
def test_chebyshev_radius(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(int(rng.integers(2, 9)), int(rng.integers(1, 5))))
    radius = chebyshev_radius(targets)
    slack = relative_budget(4000) * np.abs(targets).max()
    assert radius.upper - radius.lower <= slack
    moves = rng.normal(size=(200, targets.shape[1])) * 0.3
    worst = np.linalg.norm(targets[None] - (radius.point + moves)[:, None], axis=2).max(axis=1)
    assert worst.min() >= radius.lower
    np.testing.assert_allclose(radius.multipliers @ targets, radius.point, rtol=0, atol=slack)


def test_equilateral_triangle():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    radius = chebyshev_radius(corners)
    assert abs(float(radius) - 1 / math.sqrt(3)) <= relative_budget(200)
    assert float(chebyshev_radius(np.ones((4, 2)))) == 0.0
