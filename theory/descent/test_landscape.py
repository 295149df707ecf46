"""Critical points and values of the loss: enumeration, thousands of critical points, and where thousands of descents end."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.descent import critical_values, descend, feature_step_limit, least_critical_value
from theory.descent.feature_descent import gradient
from theory.descent.instances import chain, critical_similarities
from theory.descent.landscape import MAXIMUM_FRAMES, extremal_frames, loss_at_curvature
from theory.rounding import relative_budget
from theory.temporal_loss import instances, temporal_loss

COUNT = 2000


def critical_points(num_frames: int, dimension: int) -> np.ndarray:
    generator = np.random.default_rng(num_frames)
    raw = generator.normal(size=(COUNT, num_frames - 1))
    turns = generator.normal(size=(COUNT, num_frames - 1, dimension - 1))
    norms = np.exp(generator.uniform(-1, 1, size=(COUNT, num_frames, 1)))
    return norms * np.asarray(jax.jit(jax.vmap(lambda a, b: chain(critical_similarities(a), b)))(raw, turns))


def test_values_of_few_frames():
    np.testing.assert_array_equal(critical_values(3), [4])
    np.testing.assert_array_equal(critical_values(4), [1, 2, 4])
    np.testing.assert_allclose(critical_values(5), np.array([4 / 9, 2 / 3, 4 / 3, 2, 8 / 3, 4]), rtol=relative_budget(4))


@pytest.mark.parametrize("num_frames", [3, 6, 9])
def test_values_are_those_of_every_pattern_of_knots(num_frames):
    """Brute force over all similarities that are critical: 1, -1 or free at each pair, linear in between."""
    pairs, found = num_frames - 1, set()
    for pattern in itertools.product((1.0, -1.0, None), repeat=pairs):
        knots = [index for index, value in enumerate(pattern) if value is not None]
        if not knots or knots[0] != 0 or knots[-1] != pairs - 1:
            continue
        similarities = np.interp(np.arange(pairs), knots, [pattern[knot] for knot in knots])
        found.add(round(float(np.mean(np.diff(similarities) ** 2)), 12))
    np.testing.assert_allclose(sorted(found - {0.0}), critical_values(num_frames), rtol=0, atol=0.6e-12)


@pytest.mark.parametrize("num_frames", [3, 7, MAXIMUM_FRAMES])
def test_least_and_largest_value(num_frames):
    values = critical_values(num_frames)
    assert values[0] == pytest.approx(least_critical_value(num_frames), rel=relative_budget(4))
    assert values[-1] == 4
    assert np.all(np.diff(values) > 0)


@pytest.mark.parametrize("size", [(4, 2), (6, 3)], ids=str)
def test_critical_points_have_no_gradient_a_listed_value_and_a_way_down(size):
    frames = critical_points(*size)
    slopes = np.asarray(jax.jit(jax.vmap(gradient))(frames)) * np.linalg.norm(frames, axis=-1, keepdims=True)
    # y is a rounding error where s is linear; where s is 1 or -1 the tangent is one, of the sine of an angle rounded at cosine 1.
    assert np.max(np.abs(slopes)) <= 16 * relative_budget(32 * sum(size))
    losses, allowed = (np.asarray(x) for x in jax.jit(jax.vmap(lambda x: (temporal_loss(x), loss_at_curvature(x))))(frames))
    distance = np.min(np.abs(losses[:, None] - critical_values(size[0])), axis=1)
    assert np.max(distance) <= 8 * relative_budget(32 * sum(size))
    # Norms between 1/e and e: the Hessian is at most e^2 C_N, the bound at least 8 L / (N e^2).
    assert np.all(losses <= allowed * (1 + 100 * size[0] * relative_budget(instances.operations(num_frames=size[0], dimension=size[1]))))


@pytest.mark.parametrize("num_frames", [3, 4, 6, 8])
def test_extremal_critical_point(num_frames):
    frames = jnp.asarray(extremal_frames(num_frames))
    assert float(temporal_loss(frames)) == pytest.approx(4, rel=relative_budget(64))
    budget = relative_budget(instances.operations(num_frames=num_frames, dimension=2))
    assert float(loss_at_curvature(frames)) == pytest.approx(4, rel=num_frames * budget)


def test_random_starts_reach_the_global_minimum():
    """From almost every start descent below half the limit ends at 0; nearby critical values only hold it up."""
    num_frames, dimension = 4, 3
    frames = np.random.default_rng(0).normal(size=(COUNT, num_frames, dimension))
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    step_size = 0.49 * feature_step_limit(num_frames, 1.0)
    runs = jax.vmap(descend, in_axes=(0, None, None))(frames, step_size, 1000)
    assert np.max(runs.losses[:, 0]) > least_critical_value(num_frames), "no start was above the least critical value"
    assert np.max(runs.losses[:, -1]) < 0.01 * least_critical_value(num_frames)


@pytest.mark.parametrize("function", [critical_values, least_critical_value, extremal_frames])
def test_too_few_frames(function):
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        function(2)


def test_too_many_frames_and_too_few_dimensions():
    with pytest.raises(ValueError, match="num_frames = 41; at most 40"):
        critical_values(41)
    with pytest.raises(ValueError, match="dimension = 1; at least 2"):
        extremal_frames(4, dimension=1)
