"""Log-concave data: curvature against automatic differentiation, the Gaussian closed form, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import log_concave_growth, round_trip_bound
from theory.inversion.ddim import Convention, round_trip
from theory.inversion.instances import norms
from theory.inversion.log_concave import CLAIM, log_concavity_of_pair, measure, witness
from theory.inversion.predictors import at_levels, gaussian_predictor, mixture_predictor, paired_predictor
from theory.rounding import relative_budget


def test_growth_by_hand():
    """m = 1, levels 0, 1, 3: 1 - 1 * 1 / 2 and 1 - 2 * 3 / 10."""
    np.testing.assert_allclose(log_concave_growth([0.0, 1.0, 3.0], 1.0), [0.5, 0.4], rtol=relative_budget(8))
    np.testing.assert_array_equal(log_concave_growth([0.0, 1.0, 3.0], 0.0), [1.0, 1.0])


@pytest.mark.parametrize("log_concavity", [-1.0, float("nan"), float("inf")])
def test_growth_refuses_data_that_are_not_log_concave(log_concavity):
    with pytest.raises(ValueError, match="log_concavity = .* >= 0 is needed"):
        log_concave_growth([0.0, 1.0], log_concavity)


@pytest.mark.parametrize("pairing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_curvature_of_smoothed_pair_lies_in_the_stated_range(pairing, sigma):
    """m sigma / (1 + m sigma^2) <= de/dy <= 1 / sigma, by automatic differentiation on a grid."""
    half_distance, std = jnp.asarray([0.7 * pairing]), jnp.asarray([0.7])
    predictor = paired_predictor(half_distance, std, jnp.eye(1))
    slopes = jax.vmap(lambda y: jax.jacfwd(lambda state: predictor(state, sigma))(y)[0, 0])(
        jnp.linspace(-5.0, 5.0, 201)[:, None]
    )
    m = max(float(log_concavity_of_pair(half_distance, std)), 0.0)
    budget = relative_budget(100)
    assert float(slopes.min()) >= m * sigma / (1 + m * sigma**2) * (1 - budget)
    assert float(slopes.max()) <= (1 + budget) / sigma


def test_log_concavity_is_the_least_curvature_of_the_data():
    half_distances, stds = np.array([0.4, 0.0]), np.array([0.8, 2.0])

    def negative_log_density(x):
        return -sum(
            jnp.logaddexp(-((x[i] - a) ** 2) / (2 * s**2), -((x[i] + a) ** 2) / (2 * s**2))
            for i, (a, s) in enumerate(zip(half_distances, stds))
        )

    curvature = jnp.linalg.eigvalsh(jax.hessian(negative_log_density)(jnp.zeros(2)))
    np.testing.assert_allclose(log_concavity_of_pair(half_distances, stds), curvature[0], rtol=relative_budget(200))
    assert log_concavity_of_pair(np.array([1.0]), np.array([0.9])) < 0


@pytest.mark.parametrize("num_steps", [4, 16])
def test_gaussian_error_in_closed_form(num_steps):
    """N(0, I / m) under S: d_k = h^2 z_k / (m v_k v_{k+1}), z a product; E_0 = -sum d_k prod rho_j."""
    sigmas, m = np.linspace(0.2, 5.0, num_steps + 1), 2.0
    variances = 1 / m + sigmas**2
    steps = np.diff(sigmas)
    states = np.cumprod(np.concatenate([[1.5], 1 + steps * sigmas[:-1] / variances[:-1]]))
    defects = steps**2 * states[:-1] / (m * variances[:-1] * variances[1:])
    expected = round_trip_bound(defects, log_concave_growth(sigmas, m))
    predictor = at_levels(gaussian_predictor(np.zeros(1), np.eye(1) / m), jnp.asarray(sigmas))
    trip = round_trip(predictor, jnp.asarray(sigmas), jnp.asarray([1.5]), Convention.S)
    # Differences of states of size z_N leave roundings of that size in an error of size E_0.
    budget = relative_budget(int(40 * num_steps * states[-1] / expected) + 1)
    np.testing.assert_allclose(-trip.errors[0, 0], expected, rtol=budget)


def test_more_steps_lower_the_error_of_the_witness():
    """The bound has no exponential, and the error falls at first order."""
    errors = []
    for num_steps in (50, 100):
        instance = dict(witness(num_steps=num_steps)) | {"sigmas": jnp.linspace(0.0, 4.0, num_steps + 1)}
        errors.append(float(measure(instance)))
    assert 1.8 < errors[0] / errors[1] < 2.2


def test_a_long_step_is_non_expansive_on_log_concave_data_and_not_on_clusters():
    predictors = {
        "log-concave": mixture_predictor([0.5, 0.5], [[0.5], [-0.5]], 0.6),
        "clusters": mixture_predictor([0.5, 0.5], [[0.5], [-0.5]], 0.1),
    }
    slopes = {
        name: float(1 - 3.0 * jax.jacfwd(lambda y: predictor(y, 3.0))(jnp.zeros(1))[0, 0])
        for name, predictor in predictors.items()
    }
    assert 0 <= slopes["log-concave"] <= 1
    near = {
        name: float(1 - 0.2 * jax.jacfwd(lambda y: predictor(y, 0.2))(jnp.zeros(1))[0, 0])
        for name, predictor in predictors.items()
    }
    assert 0 <= near["log-concave"] <= 1 < near["clusters"]


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
    assert all(0 < outcome.ratio for outcome in result.outcomes)


def test_sum_of_defects_is_approached_on_flat_data():
    """For m -> 0 no contraction is left: |E_0| / sum ||d_k|| -> 1."""
    ratios = []
    for variance in (1.0, 1e2, 1e4):
        sigmas = jnp.linspace(0.0, 2.0, 9)
        trip = round_trip(
            at_levels(gaussian_predictor(np.zeros(1), variance * np.eye(1)), sigmas), sigmas, jnp.ones(1), Convention.S
        )
        ratios.append(float(norms(trip.errors[0]) / norms(trip.defects).sum()))
    # 1 - rho_k = h sigma / (v + sigma^2) <= 1 / (2 v) at h = 1/4 and sigma <= 2; eight steps.
    assert ratios[0] < ratios[1] < ratios[2] and ratios[2] > 1 - 8 / 2e4
