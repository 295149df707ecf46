"""The tube: by hand, the Gaussian identity, the logarithmic norm's wrong sign, curvature on balls, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import round_trip_bound, tube_bound
from theory.inversion.ddim import Convention, round_trip
from theory.inversion.predictors import at_levels, gaussian_predictor
from theory.inversion.tube import CLAIM, euler_growth
from theory.rounding import relative_budget


def test_radii_by_hand():
    """r_2 = 0, r_1 = 3, r_0 = 2 * 3 + 1 * 4 * 9 / 2 + 1."""
    np.testing.assert_array_equal(tube_bound([0.0, 1.0, 3.0], [1.0, 3.0], [2.0, 5.0], [4.0, 7.0]), [25.0, 3.0, 0.0])


def test_curvature_is_asked_for_on_the_ball_that_was_found():
    asked = []

    def curvature(step, radius):
        asked.append((step, float(radius)))
        return 4.0

    assert float(tube_bound([0.0, 1.0, 3.0], [1.0, 3.0], [2.0, 5.0], curvature)[0]) == 25
    assert asked == [(1, 0.0), (0, 3.0)]


def test_without_curvature_it_is_bound_a_with_its_own_growth():
    generator = np.random.default_rng(0)
    sigmas = np.concatenate([[0.0], np.cumsum(generator.exponential(size=30))])
    defects, growth = generator.exponential(size=30), 1 + generator.exponential(size=30)
    radius = tube_bound(sigmas, defects, growth, np.zeros(30))[0]
    np.testing.assert_allclose(radius, round_trip_bound(defects, growth), rtol=relative_budget(120))


def test_exact_on_gaussian_data_in_one_dimension():
    """M = 0, and under S all defects point one way: the radius is the error at every level, and g < 1 throughout."""
    sigmas = np.linspace(0.1, 3.0, 11)
    levels = jnp.asarray(sigmas)
    trip = round_trip(at_levels(gaussian_predictor([0.5], [[0.25]]), levels), levels, jnp.asarray([1.5]), Convention.S)
    jacobians = (sigmas[1:] / (0.25 + sigmas[1:] ** 2))[:, None, None]
    growth = euler_growth(sigmas, jacobians)
    radii = tube_bound(sigmas, np.abs(np.asarray(trip.defects)[:, 0]), growth, np.zeros(10))
    assert growth.max() < 1
    # Operands of at most 30 against errors of at least .01 at the levels below the first.
    np.testing.assert_allclose(np.abs(trip.errors)[:-2, 0], radii[:-2], rtol=relative_budget(40 * 10 * 3000))


def test_a_logarithmic_norm_of_the_wrong_sign_promises_contraction_where_sampling_expands():
    """e(y) = -y: exp(h mu(J)) = exp(-h) < 1, and every sampling step multiplies the error by 1 + h."""
    sigmas = np.linspace(0.0, 2.0, 9)
    levels = jnp.asarray(sigmas)
    trip = round_trip(lambda y, k: jnp.asarray([3.0]) * k - y, levels, jnp.ones(1), Convention.S)
    defects = np.abs(np.asarray(trip.defects)[:, 0])
    wrong = round_trip_bound(defects, np.exp(-np.diff(sigmas)))
    right = round_trip_bound(defects, euler_growth(sigmas, np.full((8, 1, 1), -1.0)))
    error = float(abs(trip.errors[0, 0]))
    assert wrong < error / 2
    np.testing.assert_allclose(error, right, rtol=relative_budget(40 * 8 * 100))


def test_not_even_the_right_logarithmic_norm_bounds_an_euler_step():
    """A quarter turn: mu(-J) = 0 promises no growth, and the step has ||I - h J|| = sqrt(1 + h^2)."""
    turn = np.array([[[0.0, -1.0], [1.0, 0.0]]])
    assert np.linalg.eigvalsh(-(turn[0] + turn[0].T) / 2).max() == 0
    np.testing.assert_allclose(euler_growth([0.0, 0.5], turn), [np.sqrt(1.25)], rtol=relative_budget(16))


def test_jacobians_of_the_searched_family_are_those_of_autodiff():
    from theory.inversion.tube import PROBLEM, _bent_predictor, _jacobians, _simulate

    size = PROBLEM.sizes[0]
    parameters = PROBLEM.draw(jax.random.key(3), **dict(size))
    instance = PROBLEM.instance(parameters, **dict(size))
    trip = _simulate(instance)
    expected = jax.vmap(jax.jacfwd(_bent_predictor(instance)))(trip.inversion[1:], jnp.arange(1, 4))
    np.testing.assert_allclose(_jacobians(instance, trip), expected, rtol=relative_budget(1000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 1.0, 0.5], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]), "step 1 is -0.5; noise levels must increase"),
        (([0.0, 1.0, 2.0], [1.0], [1.0, 1.0], [0.0, 0.0]), "2 steps and 1 defects"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [1.0], [0.0, 0.0]), "2 steps and 1 growth factors"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [1.0, 1.0], [0.0]), "2 steps and 1 curvatures"),
        (([0.0, 1.0, 2.0], [1.0, -1.0], [1.0, 1.0], [0.0, 0.0]), "defects at step 1 is -1; a norm is at least 0"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [1.0, -1.0], [0.0, 0.0]), "growth factors at step 1 is -1"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [1.0, 1.0], [0.0, float("nan")]), "curvatures at step 1 is nan"),
        (([0.0, 1.0, 2.0], [1.0, 1.0], [1.0, 1.0], lambda step, radius: -1.0), "curvature at step 1 is -1"),
        (([0.0, 1.0, 2.0], [1.0, 1e200], [1.0, 1.0], [1.0, 1.0]), "radius at step 0 is inf, above the largest float"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        tube_bound(*arguments)


def test_growth_refuses():
    with pytest.raises(ValueError, match=r"jacobians have shape \(1, 2, 3\); \(1, dimension, dimension\)"):
        euler_growth([0.0, 1.0], np.ones((1, 2, 3)))


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
