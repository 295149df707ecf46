"""Adapter mismatch: by hand, the Gaussian limit, non-monotone errors, recorded pairs, bad input."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from theory.evidence import Evidence
from theory.inversion import adapter_mismatch_bound
from theory.inversion.adapter_mismatch import CLAIM, constant_mismatch_limit, mismatched_pairs
from theory.inversion.ddim import Convention, RoundTrip, round_trip
from theory.inversion.instances import norms
from theory.inversion.predictors import at_levels, gaussian_predictor
from theory.inversion.round_trip import two_point_growth


def test_bound_by_hand():
    """(1 + 1 * 2) + (10 + 2 * 3) * 4"""
    assert adapter_mismatch_bound([1.0, 10.0], [0.0, 1.0, 3.0], [2.0, 3.0], [4.0, 5.0]) == 67


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [0.0, 1.0, 3.0], [2.0, 3.0], [4.0, 5.0]), "1 defects, 2 mismatch values and 3 noise levels"),
        (([1.0, 1.0], [0.0, 1.0, 0.5], [2.0, 3.0], [4.0, 5.0]), "step 1 is -0.5; noise levels must increase"),
        (([1.0, 1.0], [0.0, 1.0, 3.0], [2.0, -3.0], [4.0, 5.0]), "mismatch at step 1 is -3"),
        (([1.0, 1.0], [0.0, 1.0, 3.0], [2.0, 3.0], [4.0]), "2 defects and 1 growth"),
    ],
)
def test_bound_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        adapter_mismatch_bound(*arguments)


def _shifted(
    variance: float, shift: float, sigmas, convention: Convention, start: float = 1.0
) -> tuple[RoundTrip, RoundTrip]:
    base = at_levels(gaussian_predictor(np.zeros(1), variance * np.eye(1)), sigmas)
    alike = round_trip(base, sigmas, jnp.asarray([start]), convention)
    shifted = round_trip(
        base, sigmas, jnp.asarray([start]), convention, sampling_predict=lambda y, level: base(y, level) + shift
    )
    return alike, shifted


@pytest.mark.parametrize(("variance", "sigma_min"), [(1.0, 0.0), (0.25, 0.3)])
def test_constant_adapter_on_a_gaussian_reaches_its_limit(variance, sigma_min):
    """The change of the reconstruction, which has no discretisation error of the inversion in it, converges at first
    order to the asinh."""
    gaps = []
    for num_steps in (400, 800):
        sigmas = jnp.linspace(sigma_min, 6.0, num_steps + 1)
        alike, shifted = _shifted(variance, 0.7, sigmas, Convention.T)
        change = abs(float(shifted.sampling[0, 0] - alike.sampling[0, 0]))
        gaps.append(change - constant_mismatch_limit(variance, 0.7, sigma_min, 6.0))
    assert 1.8 < gaps[0] / gaps[1] < 2.2


def test_error_is_not_monotone_in_the_adapter():
    """A small adapter of the right sign cancels the inversion's own error, so the round trip alone cannot measure the
    adapter."""
    sigmas = jnp.linspace(0.0, 4.0, 11)
    errors = [float(norms(_shifted(1.0, shift, sigmas, Convention.S)[1].errors[0])) for shift in (0.0, -0.1, -1.0)]
    assert errors[1] < errors[0] < errors[2]


def test_limit_refuses():
    with pytest.raises(ValueError, match="variance = 0"):
        constant_mismatch_limit(0.0, 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="sigma_min = 2.0, sigma_max = 1.0"):
        constant_mismatch_limit(1.0, 1.0, 2.0, 1.0)


@pytest.fixture
def pair(recorded) -> Evidence:
    """The recorded mixture, and the same inversion sampled with a constant added to every prediction."""
    alike = recorded.round_trips[0]
    sigmas = np.sqrt((1 - alike.alphas_cumprod) / alike.alphas_cumprod)
    shift = 0.5
    # The states move, so the mixture's predictions there are not known: sample with its values at the inversion plus
    # the shift.
    sampled = alike.predictions_at_inversion + shift
    roots = np.sqrt(alike.alphas_cumprod).reshape(-1, 1, 1, 1, 1)
    states = [alike.inversion[-1] / roots[-1]]
    for step in reversed(range(len(sampled))):
        states.append(states[-1] - (sigmas[step + 1] - sigmas[step]) * sampled[step])
    mismatched = dataclasses.replace(
        alike,
        label="shifted",
        sampling=roots * np.stack(states[::-1]),
        sampling_predictions=sampled,
        predictions_at_inversion=sampled,
    )
    return Evidence(features=(), round_trips=(alike, mismatched))


def test_recorded_pair_passes_in_both_orders(pair, untested_reality):
    base = pair.round_trips[0].label
    assert [label for label, _, _ in mismatched_pairs(pair)] == [f"shifted, against {base}", f"{base}, against shifted"]
    result = untested_reality(CLAIM, pair)
    assert result.passed, result.failures


def test_a_run_without_a_pair_compares_nothing(recorded, untested_reality):
    with pytest.raises(ValueError, match="compares nothing on this evidence"):
        untested_reality(CLAIM, recorded)


def test_recorded_pair_breaks_the_bound_without_the_mismatch(pair):
    """Power of the reality rung: the defects of the inversion alone do not account for the adapter."""
    _, base, mismatched = next(mismatched_pairs(pair))
    growth = two_point_growth(mismatched)
    without = adapter_mismatch_bound(np.linalg.norm(base.defects, axis=1), base.sigmas, np.zeros(len(growth)), growth)
    assert np.linalg.norm(mismatched.errors[0]) > without


def test_adapter_on_both_sides_on_one_and_a_different_one_on_each():
    """N(0, 1) with delta = kappa on either side: alike on both sides they cost a defect only, on one side the mismatch,
    and on different ones their difference. The bound with |difference| on the inversion trajectory holds for all."""
    sigmas = jnp.linspace(0.0, 4.0, 41)
    base = at_levels(gaussian_predictor(np.zeros(1), np.eye(1)), sigmas)
    steps = np.diff(np.asarray(sigmas))
    # The slope of the predictor is positive and its steps contract, so growth 1 serves.
    growth = jnp.ones(len(steps))
    errors = {}
    for inverting, sampling in ((0.0, 0.0), (0.5, 0.5), (0.0, 0.5), (0.5, 0.0), (0.5, -0.5)):
        trip = round_trip(
            lambda y, level, shift=inverting: base(y, level) + shift,
            sigmas,
            jnp.ones(1),
            Convention.T,
            sampling_predict=lambda y, level, shift=sampling: base(y, level) + shift,
        )
        own = norms(trip.defects - trip.steps[:, None] * (sampling - inverting))
        bound = adapter_mismatch_bound(own, sigmas, np.full(len(steps), abs(sampling - inverting)), growth)
        errors[inverting, sampling] = float(norms(trip.errors[0]))
        assert errors[inverting, sampling] <= float(bound)
    limit = constant_mismatch_limit(1.0, 0.5, 0.0, 4.0)
    # A common adapter moves the trajectory, and is a tenth of what it costs on one side only.
    assert errors[0.5, 0.5] < 0.1 * limit
    assert errors[0.0, 0.5] == pytest.approx(limit, rel=0.1) and errors[0.5, 0.0] == pytest.approx(limit, rel=0.1)
    assert errors[0.5, -0.5] == pytest.approx(2 * limit, rel=0.1)
