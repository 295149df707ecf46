"""Noise levels and the DDIM loop on exact predictors: closed forms, array kinds, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.inversion import noise_levels
from theory.inversion.ddim import Convention, recorded_round_trip, round_trip, sample
from theory.inversion.predictors import (
    at_levels,
    gaussian_flow,
    gaussian_predictor,
    mixture_predictor,
    paired_predictor,
)
from theory.inversion.schedule import check_noise_levels
from theory.rounding import relative_budget

ALPHAS_CUMPROD = np.array([1.0, 0.8, 0.5, 0.1])


@pytest.mark.parametrize(
    "kind", [list, np.asarray, jnp.asarray, torch.tensor], ids=["sequence", "numpy", "jax", "torch"]
)
def test_noise_levels_of_every_kind_of_array(kind):
    np.testing.assert_allclose(np.asarray(noise_levels(kind(ALPHAS_CUMPROD))), [0, 0.5, 1, 3], rtol=relative_budget(4))


def test_noise_levels_keep_float32_values_exactly():
    """A scheduler's float32 table is the schedule: its levels are computed from the promoted values."""
    table = ALPHAS_CUMPROD.astype(np.float32)
    np.testing.assert_array_equal(noise_levels(torch.from_numpy(table)).numpy(), noise_levels(table.astype(np.float64)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.9, 0.95, 0.5], r"step 1 is 0\.95.*before it is 0\.9.*must be smaller"),
        ([0.1, 0.5, 0.9], r"step 1 is 0\.5"),
        ([0.9, 0.9, 0.5], r"step 1 is 0\.9"),
        ([0.9, 0.5, 0.0], r"step 2 is 0; it must lie in \(0, 1\]"),
        ([1.1, 0.5], r"step 0 is 1\.1; it must lie in \(0, 1\]"),
        ([0.9, -0.5], r"step 1 is -0\.5; it must lie in \(0, 1\]"),
        ([0.9, float("nan")], r"step 1 is nan.*finite"),
        ([[0.9, 0.5]], r"shape \(1, 2\)"),
        ([], r"shape \(0,\)"),
        (["a"], "dtype"),
    ],
)
def test_noise_levels_refuse(values, message):
    with pytest.raises(ValueError, match=message):
        noise_levels(values)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([0.0, 1.0, 1.0], r"step 1 is 0; noise levels must increase"),
        ([1.0], "at least 2"),
        ([-1.0, 1.0], r"step 0 is -1"),
    ],
)
def test_levels_that_do_not_increase_are_refused(sigmas, message):
    with pytest.raises(ValueError, match=message):
        check_noise_levels(sigmas)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gaussian_predictor([0.0], np.eye(2)), r"shape \(2, 2\); a symmetric \(1, 1\)"),
        (lambda: gaussian_predictor([0.0, 0.0], np.diag([1.0, 0.0])), "least eigenvalue 0"),
        (lambda: mixture_predictor([1.0, 0.0], np.zeros((2, 1)), 1.0), "weight 1 is 0"),
        (lambda: mixture_predictor([1.0], np.zeros((2, 1)), 1.0), r"means have shape \(2, 1\)"),
        (lambda: mixture_predictor([1.0], np.zeros((1, 1)), 0.0), "std = 0"),
    ],
)
def test_predictors_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def _log_density(means, std, weights, sigma):
    variance = std**2 + sigma**2

    def log_density(y):
        squared = jnp.sum((y[None, :] - means) ** 2, axis=1)
        return jax.scipy.special.logsumexp(jnp.log(weights) - squared / (2 * variance))

    return log_density


def test_mixture_predictor_is_the_score_of_its_density():
    generator = np.random.default_rng(0)
    means, weights, y = generator.normal(size=(3, 2)), np.array([0.2, 0.3, 0.5]), jnp.asarray(generator.normal(size=2))
    predicted = mixture_predictor(weights, means, 0.4)(y, 0.7)
    score = jax.grad(_log_density(means, 0.4, weights, 0.7))(y)
    np.testing.assert_allclose(predicted, -0.7 * score, rtol=relative_budget(200))


def test_predictors_of_the_same_data_agree():
    """A one-component mixture is a Gaussian; an even pair along an axis is a mixture; a pair at distance 0 is a
    Gaussian."""
    generator = np.random.default_rng(1)
    y, mean = jnp.asarray(generator.normal(size=2)), generator.normal(size=2)
    budget = relative_budget(200)
    np.testing.assert_allclose(
        mixture_predictor([1.0], mean[None], 0.5)(y, 0.8),
        gaussian_predictor(mean, 0.25 * np.eye(2))(y, 0.8),
        rtol=budget,
    )
    half_distances, stds = jnp.asarray([0.7, 0.0]), jnp.full(2, 0.9)
    np.testing.assert_allclose(
        paired_predictor(half_distances, stds, jnp.eye(2))(y, 0.8),
        mixture_predictor([0.5, 0.5], [[0.7, 0.0], [-0.7, 0.0]], 0.9)(y, 0.8),
        rtol=budget,
    )


def test_sampling_converges_to_the_exact_flow_at_first_order():
    mean, covariance = np.array([0.3, -1.0]), np.array([[1.0, 0.3], [0.3, 0.5]])
    start = np.array([2.0, 1.0])
    errors = []
    for num_steps in (200, 400):
        sigmas = jnp.linspace(0.1, 3.0, num_steps + 1)
        states, _ = sample(at_levels(gaussian_predictor(mean, covariance), sigmas), sigmas, jnp.asarray(start))
        errors.append(np.linalg.norm(states[0] - gaussian_flow(mean, covariance, start, 3.0, 0.1)))
    # Explicit Euler: halving the step halves the error up to a relative O(h), here h = 0.015 times a constant of order
    # one.
    assert 1.9 < errors[0] / errors[1] < 2.1


@pytest.mark.parametrize("convention", list(Convention))
def test_loop_agrees_with_a_plain_loop(convention):
    """The scan against the formulas of ddim.py written out, in NumPy."""
    sigmas = np.array([0.0, 0.5, 0.7, 2.0])
    predictor = mixture_predictor([0.4, 0.6], [[1.0, 0.0], [-1.0, 0.5]], 0.6)
    trip = round_trip(
        at_levels(predictor, jnp.asarray(sigmas)), jnp.asarray(sigmas), jnp.asarray([0.3, -0.2]), convention
    )
    states = [np.array([0.3, -0.2])]
    for lower, upper in zip(sigmas[:-1], sigmas[1:]):
        state = states[-1]
        if convention is Convention.S:
            prediction = predictor(state, lower)
        elif convention is Convention.T:
            prediction = predictor(state / np.sqrt(1 + lower**2) * np.sqrt(1 + upper**2), upper)
        else:
            prediction = predictor(state, upper)
        states.append(state + (upper - lower) * np.asarray(prediction))
    np.testing.assert_allclose(trip.inversion, states, rtol=relative_budget(400))
    for lower, upper in reversed(list(zip(sigmas[:-1], sigmas[1:]))):
        states[-1] = states[-1] - (upper - lower) * np.asarray(predictor(states[-1], upper))
    np.testing.assert_allclose(trip.sampling[0], states[-1], rtol=relative_budget(800))


def test_a_record_whose_arrays_disagree_is_refused(recorded):
    record = recorded.round_trips[0]
    with pytest.raises(ValueError, match=r"sampling_predictions has shape \(11, .*\(12, "):
        recorded_round_trip(dataclasses.replace(record, sampling_predictions=record.sampling_predictions[1:]))
    with pytest.raises(ValueError, match="step 1 is"):
        recorded_round_trip(dataclasses.replace(record, alphas_cumprod=record.alphas_cumprod[::-1]))
