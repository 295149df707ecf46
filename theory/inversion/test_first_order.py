"""First-order estimates: exact where the Jacobian is constant, second order elsewhere, and no bound; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion.ddim import Convention, round_trip
from theory.inversion.first_order import adjoint_terms, first_order_terms
from theory.inversion.predictors import at_levels, gaussian_predictor, mixture_predictor
from theory.rounding import relative_budget

COVARIANCE = np.array([[1.0, 0.6], [0.6, 0.5]])


def trip_and_jacobians(predictor, sigmas, start, convention=Convention.S):
    levels = jnp.asarray(sigmas)
    predict = at_levels(predictor, levels)
    trip = round_trip(predict, levels, jnp.asarray(start), convention)
    jacobians = jax.vmap(jax.jacfwd(predict))(trip.inversion[1:], jnp.arange(1, len(sigmas)))
    return trip, np.asarray(jacobians)


@pytest.mark.parametrize("convention", list(Convention))
def test_exact_where_the_jacobian_is_constant(convention):
    sigmas = np.linspace(0.1, 3.0, 9)
    trip, jacobians = trip_and_jacobians(gaussian_predictor(np.zeros(2), COVARIANCE), sigmas, [1.0, -2.0], convention)
    terms = first_order_terms(sigmas, jacobians, trip.defects)
    # States reach 12, and 9 steps of 40 roundings of them stand against an error of .1.
    np.testing.assert_allclose(terms.sum(axis=0), trip.errors[0], rtol=relative_budget(9 * 40 * 12 * 10))
    functional = np.array([0.3, -0.7])
    shares = adjoint_terms(sigmas, lambda step, vector: jacobians[step].T @ vector, trip.defects, functional)
    np.testing.assert_allclose(shares, terms @ functional, rtol=0, atol=relative_budget(9 * 40) * np.abs(terms).max())


def test_off_at_second_order_in_the_error_where_it_is_not():
    """Halving the steps halves the error and quarters what the estimate misses of it, or more."""
    errors, missed = [], []
    for num_steps in (100, 200):
        sigmas = np.linspace(0.1, 2.0, num_steps + 1)
        predictor = mixture_predictor([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], 0.5)
        trip, jacobians = trip_and_jacobians(predictor, sigmas, [0.4, -0.6])
        error = np.asarray(trip.errors[0])
        errors.append(np.linalg.norm(error))
        missed.append(np.linalg.norm(first_order_terms(sigmas, jacobians, trip.defects).sum(axis=0) - error))
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert 3.6 < missed[0] / missed[1] < 4.4 and missed[0] > 1e-6


def test_an_estimate_is_no_bound():
    """e(y) = 3/2 - .. - y - y^2 / 2, whose bend adds to every error: more than the sum of all ||P d||."""
    from theory.inversion.tube import _bent_predictor, witness

    instance = witness(num_steps=3)
    levels = instance["sigmas"]
    predict = _bent_predictor(instance)
    trip = round_trip(predict, levels, instance["start"], Convention.S)
    jacobians = jax.vmap(jax.jacfwd(predict))(trip.inversion[1:], jnp.arange(1, 4))
    terms = first_order_terms(levels, jacobians, trip.defects)
    assert np.linalg.norm(terms, axis=1).sum() < 0.99 * np.linalg.norm(trip.errors[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: first_order_terms([0.0, 1.0], np.eye(2)[None], np.ones((2, 2))), r"shape \(2, 2\); \(1, dimension\)"),
        (lambda: first_order_terms([0.0, 1.0], np.eye(3)[None], np.ones((1, 2))), r"jacobians have shape \(1, 3, 3\)"),
        (lambda: first_order_terms([1.0, 0.0], np.eye(2)[None], np.ones((1, 2))), "noise levels must increase"),
        (lambda: adjoint_terms([0.0, 1.0], None, np.ones((1, 2)), np.ones(3)), r"functional has shape \(3,\); \(2,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
