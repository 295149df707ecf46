"""Descent on features: closed forms, thousands of starts side by side, extended precision, bad input."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.descent import descend, exact_step_limit, feature_step_limit
from theory.descent.feature_descent import gradient, steepest_frames, step_curvature
from theory.descent.threshold import loss_growth
from theory.rounding import relative_budget
from theory.temporal_loss import hessian_constant, temporal_loss

STARTS = 2000


@functools.lru_cache
def starts(num_frames: int, dimension: int, seed: int) -> np.ndarray:
    """Starts with norms from 1/20 to 20, half of them close to a line."""
    generator = np.random.default_rng(seed)
    cloud = generator.normal(size=(STARTS, num_frames, dimension))
    line = generator.normal(size=(STARTS, 1, dimension)) * generator.choice([-1.0, 1.0], size=(STARTS, num_frames, 1))
    frames = np.where(np.arange(STARTS)[:, None, None] % 2, cloud, line + 1e-3 * cloud)
    frames *= np.exp(generator.uniform(-3, 3, size=(STARTS, num_frames, 1))) / np.linalg.norm(frames, axis=-1, keepdims=True)
    return frames


@functools.lru_cache
def runs(num_frames: int, dimension: int, multiple: float, num_steps: int):
    """Descent from all starts at a multiple of each one's own step limit."""
    frames = starts(num_frames, dimension, seed=num_frames)
    limits = np.array([feature_step_limit(num_frames, norm) for norm in np.linalg.norm(frames, axis=-1).min(axis=1)])
    batched = jax.vmap(functools.partial(descend, num_steps=num_steps))
    return frames, multiple * limits, jax.tree.map(np.asarray, batched(frames, multiple * limits))


def loss_budget(num_frames: int, dimension: int) -> float:
    """Rounding of a loss whose similarities, of size 1, are sums of d products over two norms (counted as 4 d + 16); each of the N - 2
    squares has size at most 4 and carries the rounding of its difference twice."""
    return 4 * 2 * relative_budget(4 * dimension + 16 + num_frames)


def test_step_limit_of_three_frames_is_a_sixth():
    assert feature_step_limit(3, 2.0) == pytest.approx(4 / 6, rel=relative_budget(64))


@pytest.mark.parametrize("size", [(3, 2), (6, 3)], ids=str)
def test_gradient_is_the_derivative_of_the_one_loss(size):
    frames = starts(*size, seed=1)
    closed, automatic = jax.jit(jax.vmap(lambda x: (gradient(x), jax.grad(temporal_loss)(x))))(frames)
    # Both are sums of terms of size at most 16 / ||F_t||.
    scale = 16 / np.linalg.norm(frames, axis=-1, keepdims=True)
    assert np.max(np.abs(closed - automatic) / scale) <= relative_budget(16 * sum(size))


@pytest.mark.parametrize("size", [(3, 2), (6, 3)], ids=str)
def test_losses_never_rise_below_the_limit_and_norms_never_fall(size):
    _, _, run = runs(*size, multiple=0.999, num_steps=100)
    assert np.max(np.diff(run.losses, axis=1)) <= loss_budget(*size)
    # A step rounds every coordinate of a frame, and the radial part of the gradient is its rounding.
    assert np.min(np.diff(run.norms, axis=1) / run.norms[:, :-1]) >= -relative_budget(32 * sum(size))


@pytest.mark.parametrize("num_frames", [3, 4, 6])
@pytest.mark.parametrize(("multiple", "expected"), [(1.001, 1.002**2), (0.999, 0.998**2)])
def test_threshold_at_the_steepest_start(num_frames, multiple, expected):
    """1.001 times 2 m^2 / C raises the loss by the factor 1.004, 0.999 times lowers it by 0.996."""
    offset = 1e-4
    run = descend(steepest_frames(num_frames, offset=offset), multiple * exact_step_limit(num_frames, 1.0), 1)
    # The growth differs from its limit by a multiple of offset^2 (the step is of size offset, the loss even in it); the loss, of size
    # offset^2, is the square of a difference of similarities of size 1.
    slack = 100 * offset**2 + relative_budget(64) / offset
    assert float(run.losses[1] / run.losses[0]) == pytest.approx(expected, rel=slack)


def test_exact_limit_is_that_of_the_hessian_for_three_frames_only():
    assert exact_step_limit(3, 2.0) == pytest.approx(feature_step_limit(3, 2.0), rel=relative_budget(64))
    ratios = [feature_step_limit(n, 1.0) / exact_step_limit(n, 1.0) for n in range(4, 11)]
    # The upper curvatures of 4 to 10 frames, to the digits in which they were found by an independent search.
    found = [10, 8.11927, 6.69258, 5.64357, 4.85757, 4.25321, 3.77688]
    np.testing.assert_allclose([2 / exact_step_limit(n, 1.0) for n in range(4, 11)], found, rtol=0, atol=5.1e-6)
    assert 0.94 < min(ratios) and max(ratios) < 0.98


def precise_loss(frames) -> mpmath.mpf:
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / mpmath.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    s = [cosine(a, b) for a, b in zip(frames[:-1], frames[1:], strict=True)]
    return sum((b - a) ** 2 for a, b in zip(s[:-1], s[1:], strict=True)) / (len(frames) - 2)


@pytest.mark.parametrize("seed", range(3))
def test_step_curvature_and_growth_agree_with_the_definition_in_extended_precision(seed):
    """The closed forms share nothing with the loss as it is defined; 50 digits leave no cancellation."""
    frames = starts(4, 3, seed=9)[seed]
    step_size = 1.5 * feature_step_limit(4, float(np.linalg.norm(frames, axis=1).min()))
    with mpmath.workdps(50):
        exact = [[mpmath.mpf(float(x)) for x in row] for row in frames]
        step = mpmath.mpf(10) ** -20

        def partial(frame, coordinate):
            values = []
            for sign in (1, -1):
                moved = [list(row) for row in exact]
                moved[frame][coordinate] += sign * step
                values.append(precise_loss(moved))
            return (values[0] - values[1]) / (2 * step)

        slope = [[partial(frame, coordinate) for coordinate in range(3)] for frame in range(4)]
        squared = sum(x * x for row in slope for x in row)
        moved = [[x - step_size * g for x, g in zip(a, b, strict=True)] for a, b in zip(exact, slope, strict=True)]
        before, after = precise_loss(exact), precise_loss(moved)
        curvature = float(2 * (after - before + step_size * squared) / (step_size**2 * squared))
        growth = float(after / before)
    bound = hessian_constant(4) / np.min(np.sum(frames**2, axis=1))
    # Conditioning of a generic start: the smallest of its sines enters squared.
    units = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    sine = np.sqrt(1 - np.max(np.abs(np.sum(units[1:] * units[:-1], axis=1))) ** 2)
    assert abs(float(step_curvature(jnp.asarray(frames), step_size)) - curvature) <= bound * relative_budget(16 * 7) / sine**2
    spread = np.max(np.abs(np.diff(np.sum(units[1:] * units[:-1], axis=1))))
    assert float(loss_growth(jnp.asarray(frames), step_size)) == pytest.approx(growth, rel=relative_budget(16 * 7) / (sine * spread) ** 2)


def test_step_curvature_vanishes_at_a_critical_point():
    assert float(step_curvature(jnp.asarray([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), 0.1)) == 0
    assert float(loss_growth(jnp.ones((3, 2)), 0.1)) == 1


def test_shapes_dtypes_and_the_last_iterate():
    features = np.random.default_rng(0).normal(size=(4, 2, 3, 5)).astype(np.float32)
    run = descend(features, 0.1, 7)
    assert (run.losses.shape, run.norms.shape, run.features.shape) == ((8,), (8, 4), features.shape)
    assert {run.losses.dtype, run.norms.dtype, run.features.dtype} == {jnp.dtype(np.float32)}
    assert float(temporal_loss(run.features)) == pytest.approx(float(run.losses[-1]), rel=2.0**-20)
    still = descend(features, 0.1, 0)
    np.testing.assert_array_equal(still.features, features)
    assert still.losses.shape == (1,)


def test_batched_runs_are_the_single_ones():
    frames = starts(4, 3, seed=2)[:3]
    batched = jax.vmap(descend, in_axes=(0, None, None))(frames, 0.01, 5)
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(batched.losses[index], descend(frame, 0.01, 5).losses, rtol=0, atol=loss_budget(4, 3))


GOOD = np.eye(3)


@pytest.mark.parametrize("step_size", [0.0, -1e-3, float("nan"), float("inf")])
def test_bad_step_size(step_size):
    with pytest.raises(ValueError, match="step_size = .* above 0"):
        descend(GOOD, step_size, 3)


def test_several_step_sizes():
    with pytest.raises(ValueError, match=r"shape \(2,\); one number"):
        descend(GOOD, np.ones(2), 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.eye(3) * [1, 1, 0], "frame 2 has squared norm 0"),
        (np.full((3, 2), np.nan), "frame 0 has squared norm nan"),
        (np.full((3, 2), np.inf), "frame 0 has squared norm inf"),
        (np.ones((2, 4)), "2 frames were given, at least 3"),
    ],
)
def test_bad_features(features, message):
    with pytest.raises(ValueError, match=message):
        descend(features, 0.1, 3)


@pytest.mark.parametrize("num_steps", [-1, 1.5, True])
def test_bad_number_of_steps(num_steps):
    with pytest.raises(ValueError, match="num_steps"):
        descend(GOOD, 0.1, num_steps)


def test_overflow_names_the_step_size():
    features = np.random.default_rng(0).normal(size=(3, 2))
    with pytest.raises(ValueError, match="step_size = 1e\\+200: the features overflow float64"):
        descend(features, 1e200, 3)


@pytest.mark.parametrize(("num_frames", "min_norm"), [(2, 1.0), (3, 0.0), (3, float("nan")), (3, -1.0), (3, float("inf"))])
def test_bad_limit(num_frames, min_norm):
    for limit in (feature_step_limit, exact_step_limit):
        with pytest.raises(ValueError, match="needed"):
            limit(num_frames, min_norm)
