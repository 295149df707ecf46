"""Any inversion: by hand, its cases, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion.any_inversion import any_inversion_bound, defects_of_states, mean_predictions, sample_states
from theory.inversion.ddim import Convention, invert, round_trip
from theory.inversion.growth import round_trip_bound
from theory.inversion.predictors import at_levels, mixture_predictor


def test_bound_by_hand():
    """3 * (2 * 5) + 1 + 10 * 2; without start error it is the round trip's."""
    assert float(any_inversion_bound([1.0, 10.0], [2.0, 5.0], 3.0)) == 51
    assert float(any_inversion_bound([1.0, 10.0], [2.0, 5.0])) == float(round_trip_bound([1.0, 10.0], [2.0, 5.0]))


def _data(sigmas):
    return at_levels(mixture_predictor([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], 0.4), jnp.asarray(sigmas))


@pytest.mark.parametrize("convention", list(Convention))
def test_a_round_trip_is_a_case(convention):
    sigmas = jnp.linspace(0.1, 2.0, 7)
    trip = round_trip(_data(sigmas), sigmas, jnp.asarray([0.4, -0.2]), convention)
    missed = defects_of_states(sigmas, trip.inversion, trip.predictions_at_inversion)
    np.testing.assert_allclose(missed, trip.defects, atol=1e-14)


def test_a_finer_ladder_is_a_case():
    """Sampling four steps from an inversion of twelve: its averaged predictions lead to the same states, and the
    recursion is exact."""
    fine, places = jnp.linspace(0.1, 2.0, 13), [0, 3, 6, 9, 12]
    states, used = invert(_data(fine), fine, jnp.asarray([0.4, -0.2]), Convention.T)
    coarse = fine[jnp.asarray(places)]
    means = mean_predictions(fine, used, places)
    chosen = np.asarray(states)[places]
    np.testing.assert_allclose(np.diff(chosen, axis=0), np.diff(coarse)[:, None] * means, atol=1e-14)
    trip = sample_states(_data(coarse), coarse, jnp.asarray(chosen))
    missed = defects_of_states(coarse, chosen, trip.predictions_at_inversion)
    np.testing.assert_allclose(missed, np.diff(coarse)[:, None] * (trip.predictions_at_inversion - means), atol=1e-14)
    np.testing.assert_allclose(trip.errors[:-1], trip.errors[1:] - trip.feedback - missed, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: any_inversion_bound([1.0], [1.0], -1.0), "start = -1.0; a finite norm >= 0"),
        (lambda: any_inversion_bound([1.0], [1.0], float("nan")), "start = nan"),
        (lambda: defects_of_states([0.0, 1.0], np.zeros((3, 2)), np.zeros((1, 2))), "2 noise levels, states"),
        (lambda: defects_of_states([1.0, 0.0], np.zeros((2, 2)), np.zeros((1, 2))), "noise levels must increase"),
        (lambda: mean_predictions([0.0, 1.0, 2.0], np.zeros((2, 1)), [0, 3]), r"places = \[0, 3\]"),
        (lambda: mean_predictions([0.0, 1.0, 2.0], np.zeros((2, 1)), [2, 0]), r"places = \[2, 0\]"),
    ],
)
def test_faults_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
