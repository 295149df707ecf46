"""The clusters' tube: the third-moment constant, curvature and spread against autodiff, its use in B1, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import euler_growth, mixture_tube_bound, tube_bound
from theory.inversion.ddim import Convention, round_trip
from theory.inversion.mixture_tube import CLAIM, jacobian_curvature, largest_third_moment, posterior_spread
from theory.inversion.predictors import at_levels, mixture_predictor
from theory.rounding import relative_budget


def test_one_step_by_hand():
    """N(0, 1 / 4), levels 0, 1/2, 1: growth 1 - h sigma / v = 1 - .25 / .5 at the step nearest the data."""
    np.testing.assert_allclose(
        mixture_tube_bound([0.0, 0.5, 1.0], [1.0, 2.0], [0.0, 0.0], 0.0, 0.5), [2.0, 2.0, 0.0], rtol=relative_budget(16)
    )


def test_third_moment_is_attained_and_never_exceeded():
    """Two points with probabilities (1 -+ 1 / sqrt 3) / 2; and 4096 drawn laws on [-1, 1] stay below."""
    share = (1 - 3**-0.5) / 2
    points, law = np.array([-1.0, 1.0]), np.array([1 - share, share])
    np.testing.assert_allclose(law @ (points - law @ points) ** 3, largest_third_moment(1.0), rtol=relative_budget(40))
    generator = np.random.default_rng(0)
    points = np.clip(2 * generator.normal(size=(4096, 4)), -1, 1)
    laws = generator.dirichlet(np.full(4, 0.3), size=4096)
    means = np.sum(laws * points, axis=1, keepdims=True)
    moments = np.abs(np.sum(laws * (points - means) ** 3, axis=1))
    assert 0.95 * largest_third_moment(1.0) < moments.max() <= largest_third_moment(1.0) * (1 + relative_budget(40))


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_curvature_is_the_largest_second_derivative_of_a_pair(sigma):
    """M is attained by the pair +-1 and no smaller constant serves: on a grid, by automatic differentiation."""
    predictor = mixture_predictor([0.5, 0.5], [[1.0], [-1.0]], 0.6)
    bends = jax.vmap(jax.hessian(lambda y: predictor(y, sigma)[0]))(jnp.linspace(-3.0, 3.0, 20001)[:, None])
    bound = float(jacobian_curvature([sigma], 1.0, 0.6)[0])
    largest = float(jnp.abs(bends).max())
    # The grid's spacing of 3e-4 misses the maximum by a relative square of it.
    assert bound * (1 - 1e-6) < largest <= bound * (1 + relative_budget(2000))


def test_spread_gives_the_jacobian():
    """J = sigma / v (I - Cov / v): least eigenvalue of the Jacobian against the spread, in three dimensions."""
    generator = np.random.default_rng(1)
    weights, means, std, sigma = np.array([0.2, 0.5, 0.3]), generator.normal(size=(3, 3)), 0.4, 0.9
    state = generator.normal(size=3)
    jacobian = jax.jacfwd(lambda y: mixture_predictor(weights, means, std)(y, sigma))(jnp.asarray(state))
    variance = std**2 + sigma**2
    expected = sigma / variance * (1 - posterior_spread(weights, means, std, state, sigma) / variance)
    np.testing.assert_allclose(np.linalg.eigvalsh(jacobian)[0], expected, rtol=relative_budget(2000))


@pytest.mark.parametrize("distance", [0.0, 0.1, 1.0, 10.0])
def test_growth_bounds_the_average_jacobian_of_a_segment(distance):
    """||I - h A|| along a segment from one cluster to another, by quadrature, against one step of the tube."""
    generator = np.random.default_rng(2)
    means = generator.normal(size=(3, 2))
    means *= 1 / np.linalg.norm(means, axis=1).max()
    weights, std, sigma_from, sigma_to = np.array([0.2, 0.5, 0.3]), 0.4, 0.3, 0.8
    predictor, step = mixture_predictor(weights, means, std), sigma_to - sigma_from
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda y: predictor(y, sigma_to))))
    nodes, quadrature = np.polynomial.legendre.leggauss(60)
    for angle in (0.0, 1.0, 2.0, 4.0):
        state, move = 2 * means[0], distance * np.array([np.cos(angle), np.sin(angle)])
        points = jnp.asarray(state + (nodes[:, None] + 1) / 2 * move)
        average = np.tensordot(quadrature / 2, np.asarray(jacobians(points)), axes=1)
        eigenvalues = np.linalg.eigvalsh(np.eye(2) - step * (average + average.T) / 2)
        spread = posterior_spread(weights, means, std, state, sigma_to)
        # A defect of `distance` at a step above, and none at this one: the radius is growth times distance.
        radii = mixture_tube_bound([sigma_from, sigma_to, 2.0], [0.0, distance], [spread, 0.0], 1.0, std)
        assert eigenvalues[0] >= 0
        assert eigenvalues[-1] * distance <= radii[0] * (1 + relative_budget(4000))


@pytest.mark.parametrize("num_steps", [10, 100])
def test_both_tubes_hold_the_sampling_at_every_level(num_steps):
    """B1 with the clusters' own M and B2, on three clusters in a plane: at most twice the error, and B2 no wider."""
    means, weights, std = np.array([[1.0, 0.0], [-0.5, 0.5], [0.0, -0.8]]), np.array([0.3, 0.3, 0.4]), 0.5
    sigmas = np.linspace(0.03, 3.0, num_steps + 1)
    predict = at_levels(mixture_predictor(weights, means, std), jnp.asarray(sigmas))
    trip = round_trip(predict, jnp.asarray(sigmas), jnp.asarray([0.4, -0.3]), Convention.S)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(predict)))(trip.inversion[1:], jnp.arange(1, num_steps + 1))
    defects, errors = (np.linalg.norm(values, axis=1) for values in (trip.defects, trip.errors))
    pairs = zip(np.asarray(trip.inversion)[1:], sigmas[1:])
    spreads = [posterior_spread(weights, means, std, state, sigma) for state, sigma in pairs]
    first = tube_bound(sigmas, defects, euler_growth(sigmas, jacobians), jacobian_curvature(sigmas[1:], 1.0, std))
    second = mixture_tube_bound(sigmas, defects, spreads, 1.0, std)
    # At the noise end radius and error are one defect, and states of size 10 are rounded.
    rounding = relative_budget(40 * num_steps) * 10
    for radii in (first, second):
        assert (errors <= radii + rounding).all()
        assert radii[0] < 2 * errors[0]
    assert second[0] <= first[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0, 0.5], [1.0, 1.0], [0.0, 0.0], 1.0, 1.0), "noise levels must increase"),
        (([0.0, 1.0, 2.0], [1.0], [0.0, 0.0], 1.0, 1.0), "2 steps, 1 defects and 2 covariances"),
        (([0.0, 1.0, 2.0], [1.0, -1.0], [0.0, 0.0], 1.0, 1.0), "defect at step 1 is -1"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [-1.0, 0.0], 1.0, 1.0), "covariance at step 0 is -1"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [0.0, 0.0], -1.0, 1.0), "radius = -1"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [0.0, 0.0], 1.0, float("nan")), "std = nan"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [0.0, 0.0], 1.0, 0.0), r"std\^2 \+ sigma\^2 at level 0 is 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture_tube_bound(*arguments)


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
