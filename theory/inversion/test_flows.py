"""The flows' factors: by hand, the quantile map against an ODE solver, a plane of clusters, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from theory.inversion import inversion_amplification, sampling_amplification
from theory.inversion.flows import CLAIM, PROBLEM, _bound, _transported, measure
from theory.inversion.predictors import mixture_predictor
from theory.rounding import relative_budget


def test_factors_by_hand():
    """v from 1 to 4: sqrt 4 up; down 1/2 exp(8 / 2 (1 - 1/4)) for clusters at distance sqrt 8."""
    np.testing.assert_allclose(inversion_amplification(0.0, 3**0.5, 1.0), 2.0, rtol=relative_budget(16))
    expected = 0.5 * np.exp(3.0)
    np.testing.assert_allclose(sampling_amplification(0.0, 3**0.5, 1.0, 8**0.5), expected, rtol=relative_budget(80))
    assert sampling_amplification(0.0, 3**0.5, 1.0, 0.0) == pytest.approx(0.5, rel=relative_budget(16))


def solve(weights, means, std, states, sigma_from, sigma_to, tolerance=1e-11):
    """States (count, dimension) carried by the flow, by an adaptive solver."""
    weights, means = np.asarray(weights), np.asarray(means)

    def slope(sigma, flat):
        y = flat.reshape(-1, 1, means.shape[1])
        variance = std**2 + sigma**2
        logits = np.log(weights) - np.sum((y - means) ** 2, axis=2) / (2 * variance)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return (sigma / variance * (y[:, 0] - shares @ means)).reshape(-1)

    solution = scipy.integrate.solve_ivp(
        slope, (sigma_from, sigma_to), np.asarray(states).reshape(-1), rtol=tolerance, atol=tolerance, method="DOP853"
    )
    return solution.y[:, -1].reshape(np.shape(states))


def test_quantile_map_is_the_flow():
    """The one-dimensional flow of the searched family against an ODE solver, to 1e4 times its local tolerance."""
    size = PROBLEM.sizes[0]
    instance = PROBLEM.instance(PROBLEM.draw(jax.random.key(2), **dict(size)), **dict(size))
    std = 0.5 * float(instance["lower_variance"]) ** 0.5
    ends = [(float(instance[name]) - std**2) ** 0.5 for name in ("lower_variance", "upper_variance")]
    means, weights = np.asarray(instance["means"])[:, None], np.exp(instance["log_weights"])
    carried = solve(weights, means, std, [[float(instance["start"])]], *ends)
    np.testing.assert_allclose(float(_transported(instance)), carried[0, 0], rtol=1e-7)
    step = 1e-4
    pair = solve(weights, means, std, [[float(instance["start"]) - step], [float(instance["start"]) + step]], *ends)
    np.testing.assert_allclose(float(measure(instance)), (pair[1, 0] - pair[0, 0]) / (2 * step), rtol=1e-5)


def test_in_the_plane():
    """Three clusters in a plane, pairs of states at finite distance, both ways: no more than the factors."""
    generator = np.random.default_rng(0)
    weights, means, std = np.array([0.2, 0.5, 0.3]), generator.normal(size=(3, 2)), 0.4
    radius = np.linalg.norm(means, axis=1).max()
    states = generator.normal(size=(40, 2)) * 1.5
    raised = solve(weights, means, std, states, 0.1, 2.0)
    below, above = (np.linalg.norm(values[::2] - values[1::2], axis=1) for values in (states, raised))
    up, down = inversion_amplification(0.1, 2.0, std), sampling_amplification(0.1, 2.0, std, radius)
    assert ((above / below) <= up).all() and ((below / above) <= down).all()
    # A test that cannot fail is none: the slack is less than a tenth on the way up for clusters that hardly matter.
    assert (above / below).max() > 0.9 * up


def test_bound_of_the_family_is_the_public_one():
    for size in PROBLEM.sizes:
        instance = PROBLEM.instance(PROBLEM.draw(jax.random.key(1), **dict(size)), **dict(size))
        ends = [float(instance[name]) ** 0.5 for name in ("lower_variance", "upper_variance")]
        radius = float(instance["radius"])
        expected = sampling_amplification(*ends, 0.0, radius) if size[0][1] else inversion_amplification(*ends, 0.0)
        np.testing.assert_allclose(float(_bound(instance)), expected, rtol=relative_budget(400))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inversion_amplification(1.0, 0.5, 1.0), "noise levels must increase"),
        (lambda: inversion_amplification(0.0, 0.5, 0.0), "std = 0 at sigma_from = 0"),
        (lambda: inversion_amplification(0.0, 0.5, -1.0), "std = -1"),
        (lambda: sampling_amplification(0.0, 1.0, 1.0, float("inf")), "radius = inf"),
        (lambda: sampling_amplification(0.01, 1.0, 0.0, 10.0), r"factor is exp\(.*1e\+03 standard deviations"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_predictor_has_the_stated_curvature():
    """(sigma / v) (1 - R^2 / v) <= J <= sigma / v on a grid of the plane, by automatic differentiation."""
    means, std, sigma = np.array([[1.0, 0.0], [-0.5, 0.5], [0.0, -1.0]]), 0.3, 0.5
    predictor = mixture_predictor(np.ones(3), means, std)
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 15), np.linspace(-2, 2, 15)), axis=-1).reshape(-1, 2)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda y: predictor(y, sigma))))(jnp.asarray(grid))
    slopes, variance = np.linalg.eigvalsh(jacobians), std**2 + sigma**2
    assert slopes.max() <= sigma / variance * (1 + relative_budget(400))
    assert slopes.min() >= sigma / variance * (1 - 1 / variance) * (1 + relative_budget(400))


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
