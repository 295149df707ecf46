"""Bound A: its formula, the exact identity, the Groenwall predictor's closed form, recorded round trips, bad input."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from theory.inversion import round_trip_bound
from theory.inversion.ddim import Convention, recorded_round_trip, round_trip
from theory.inversion.instances import table_round_trip
from theory.inversion.predictors import at_levels, gaussian_predictor, mixture_predictor
from theory.inversion.round_trip import (
    CLAIM,
    groenwall_error,
    groenwall_instance,
    identity_residuals,
    measure,
    recorded_roundings,
    step_growth,
    timestep_defect_bounds,
    two_point_growth,
    uniform_bound,
)
from theory.rounding import relative_budget

DEFECTS, GROWTH = [1.0, 10.0, 100.0], [2.0, 3.0, 5.0]


@pytest.mark.parametrize(
    "kind", [list, np.asarray, jnp.asarray, torch.tensor], ids=["sequence", "numpy", "jax", "torch"]
)
def test_bound_by_hand(kind):
    """1 + 10 * 2 + 100 * 2 * 3: the defect nearest the data is not amplified, the last growth factor does not enter."""
    assert float(round_trip_bound(kind(DEFECTS), kind(GROWTH))) == 621


def test_bound_of_one_step_is_its_defect():
    assert float(round_trip_bound([0.25], [7.0])) == 0.25


def test_bound_equals_the_recursion():
    """r_N = 0, r_k = growth_k r_{k+1} + d_k, the form in which it is proved."""
    generator = np.random.default_rng(0)
    defects, growth = generator.exponential(size=50), 1 + generator.exponential(size=50)
    radius = 0.0
    for defect, factor in zip(defects[::-1], growth[::-1]):
        radius = factor * radius + defect
    np.testing.assert_allclose(round_trip_bound(defects, growth), radius, rtol=relative_budget(200))


@pytest.mark.parametrize(
    ("defects", "growth", "message"),
    [
        ([1.0, 2.0], [1.0], "2 defects and 1 growth"),
        ([1.0, -2.0], [1.0, 1.0], r"defect at step 1 is -2; a norm is at least 0"),
        ([1.0, 2.0], [-1.0, 1.0], r"growth at step 0 is -1"),
        ([1.0, float("nan")], [1.0, 1.0], r"defects at step 1 is nan"),
        ([1.0], [float("inf")], r"growth at step 0 is inf"),
        ([[1.0]], [[1.0]], r"shape \(1, 1\)"),
        ([], [], r"shape \(0,\)"),
        (np.ones(4), np.full(4, 1e200), r"product of the growth factors at step 2 is inf; the bound exceeds"),
        (np.ones(2), torch.ones(2), "arrays of one kind"),
    ],
)
def test_bound_refuses(defects, growth, message):
    with pytest.raises(ValueError, match=message):
        round_trip_bound(defects, growth)


def test_growth_by_hand_and_bad_input():
    np.testing.assert_array_equal(step_growth([0.0, 1.0, 3.0], [9.0, 2.0, 0.5]), [3.0, 2.0])
    with pytest.raises(ValueError, match="step 1 is -0.5; noise levels must increase"):
        step_growth([0.0, 1.0, 0.5], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="3 noise levels and 2 Lipschitz"):
        step_growth([0.0, 1.0, 2.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="level 2 is -1"):
        step_growth([0.0, 1.0, 2.0], [1.0, 1.0, -1.0])


def test_uniform_bound_lies_above_the_local_one():
    generator = np.random.default_rng(1)
    steps, lipschitz, rates = (
        generator.exponential(size=20),
        generator.exponential(size=21),
        generator.exponential(size=20),
    )
    sigmas = np.concatenate([[0.0], np.cumsum(steps)])
    local = round_trip_bound(np.diff(sigmas) * rates, step_growth(sigmas, lipschitz))
    assert local <= uniform_bound(rates.max(), lipschitz.max(), sigmas[-1])
    assert uniform_bound(2.0, 0.0, 3.0) == 6.0
    with pytest.raises(ValueError, match="lipschitz = -1"):
        uniform_bound(1.0, -1.0, 1.0)


@pytest.mark.parametrize("num_steps", [5, 40])
def test_groenwall_error_in_closed_form(num_steps):
    instance = groenwall_instance(num_steps, lipschitz=1.5, rate=0.7, sigma_max=3.0)
    expected = groenwall_error(num_steps, 1.5, 0.7, 3.0)
    np.testing.assert_allclose(measure(instance), expected, rtol=relative_budget(160 * num_steps**2))
    # The lower bound quoted for it: h c ((1 + h L)^N - 1) / L.
    step = 3.0 / num_steps
    assert expected >= step * 0.7 * ((1 + 1.5 * step) ** num_steps - 1) / 1.5


def test_groenwall_error_needs_small_steps():
    with pytest.raises(ValueError, match=r"h L = 2 .*take more than 8 steps"):
        groenwall_error(4, 2.0, 1.0, 4.0)


def test_error_scales_with_the_predictor():
    """Metamorphic: e and y_0 times 3 multiply states, defects and errors by 3 and leave growth alone."""
    instance = groenwall_instance(6)
    scaled = instance | {"offset": 3 * instance["offset"]}
    budget = relative_budget(160 * 36)
    np.testing.assert_allclose(measure(scaled), 3 * measure(instance), rtol=budget)
    np.testing.assert_allclose(
        two_point_growth(table_round_trip(scaled))[:-1],
        two_point_growth(table_round_trip(instance))[:-1],
        rtol=64 * budget,
    )


def test_defect_under_t_needs_no_regularity_in_time():
    """A predictor that jumps between levels: T's bound from latents alone holds, and S's defects exceed it."""
    sigmas = jnp.linspace(0.0, 2.0, 9)
    jumps = jnp.asarray([(-1.0) ** level for level in range(9)])[:, None]
    norms = {}
    for convention in (Convention.T, Convention.S):
        trip = round_trip(lambda y, level: 0.5 * y + jumps[level], sigmas, jnp.asarray([0.4]), convention)
        norms[convention] = np.linalg.norm(trip.defects, axis=1)
        if convention is Convention.T:
            latents = trip.inversion / jnp.sqrt(1 + sigmas**2)[:, None]
            lipschitz_in_latent = 0.5 * np.sqrt(1 + sigmas**2)
            bound = timestep_defect_bounds(sigmas, latents, lipschitz_in_latent)
    # Linear, so the bound is attained at every step.
    np.testing.assert_allclose(norms[Convention.T], bound, rtol=relative_budget(4096))
    assert (norms[Convention.S] > bound).all()


def test_timestep_defect_bounds_refuse():
    with pytest.raises(ValueError, match="3 noise levels, 2 states"):
        timestep_defect_bounds([0.0, 1.0, 2.0], np.zeros((2, 4)), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("convention", list(Convention))
def test_identity_and_bound_on_a_mixture(convention):
    sigmas = jnp.linspace(0.05, 6.0, 31)
    predictor = at_levels(mixture_predictor([0.3, 0.7], [[1.0, 0.0], [-1.0, 0.3]], 0.3), sigmas)
    trip = type(round_trip(predictor, sigmas, jnp.asarray([0.5, 0.2]), convention))(
        *(np.asarray(part) for part in round_trip(predictor, sigmas, jnp.asarray([0.5, 0.2]), convention))
    )
    assert (identity_residuals(trip) <= recorded_roundings(trip)).all()
    bound = round_trip_bound(np.linalg.norm(trip.defects, axis=1) + recorded_roundings(trip), two_point_growth(trip))
    assert np.linalg.norm(trip.errors[0]) <= bound


def test_second_order_for_the_standard_normal_under_t():
    """N(0, I) under T: the error falls by 4 when the step is halved, by 2 under S."""
    start = jnp.asarray([1.0, -0.5])
    errors = {}
    for convention in (Convention.S, Convention.T):
        for num_steps in (100, 200):
            sigmas = jnp.linspace(0.0, 4.0, num_steps + 1)
            trip = round_trip(at_levels(gaussian_predictor(np.zeros(2), np.eye(2)), sigmas), sigmas, start, convention)
            errors[convention, num_steps] = float(np.linalg.norm(trip.errors[0]))
    assert 3.8 < errors[Convention.T, 100] / errors[Convention.T, 200] < 4.2
    assert 1.9 < errors[Convention.S, 100] / errors[Convention.S, 200] < 2.1


def test_recorded_round_trips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
    assert len(result.outcomes) == 2 * len(recorded.round_trips)


@pytest.mark.parametrize("field", ["inversion_predictions", "sampling_predictions", "sampling"])
def test_a_record_in_the_wrong_order_is_rejected(recorded, field, untested_reality):
    """Power of the reality rung: arrays ordered from noise to data break the identity."""
    record = recorded.round_trips[0]
    wrong = dataclasses.replace(record, **{field: getattr(record, field)[::-1]})
    trip = recorded_round_trip(wrong)
    assert not (identity_residuals(trip) <= recorded_roundings(trip)).all()
    assert not untested_reality(CLAIM, dataclasses.replace(recorded, round_trips=(wrong,))).passed
