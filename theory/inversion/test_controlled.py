"""The counterexample in closed form, and the exponential it converges to."""

import numpy as np
import pytest

from theory import ladder
from theory.inversion.controlled import CLAIM, limiting_amplification, lipschitz_to_exceed
from theory.inversion.instances import norms, table_round_trip
from theory.inversion.round_trip import groenwall_error, groenwall_instance


def test_two_thousand_steps_and_an_error_of_four_thousand():
    """L = 4 and sigma_max = 4, unit rate: the states stay below 8, and the round trip misses by 4169."""
    assert groenwall_error(2000, 4.0, 1.0, 4.0) == pytest.approx(4169, abs=0.5)
    trip = table_round_trip(groenwall_instance(2000, 4.0, 1.0, 4.0))
    assert float(norms(trip.inversion).max()) < 8
    assert float(norms(trip.errors[0])) == pytest.approx(4169, abs=0.5)


def test_finer_steps_do_not_help_the_ratio():
    """|E_0| / sum ||d_k|| rises to (exp(L sigma_max) - 1) / (L sigma_max) from below as the steps get finer."""
    ratios = []
    for num_steps in (50, 200, 800):
        trip = table_round_trip(groenwall_instance(num_steps, 2.0, 1.0, 3.0))
        ratios.append(float(norms(trip.errors[0]) / norms(trip.defects).sum()))
    limit = limiting_amplification(2.0, 3.0)
    assert ratios == sorted(ratios) and ratios[-1] < limit
    # First-order convergence: four times the steps leave a quarter of the gap, up to a relative O(h).
    assert 3 < (limit - ratios[1]) / (limit - ratios[2]) < 5


@pytest.mark.parametrize("constant", [1.0, 1e3, 1e12])
def test_every_constant_is_exceeded(constant):
    lipschitz = float(lipschitz_to_exceed(constant, 64, 5.0))
    trip = table_round_trip(groenwall_instance(64, lipschitz, 0.1, 5.0))
    assert lipschitz * 5.0 / 64 <= 1
    assert float(norms(trip.errors[0])) > constant * float(norms(trip.defects).sum())


@pytest.mark.parametrize(("lipschitz", "sigma_max"), [(0.0, 1.0), (1.0, float("nan")), (1.0, -1.0)])
def test_limit_refuses(lipschitz, sigma_max):
    with pytest.raises(ValueError, match="a finite number > 0 is needed"):
        limiting_amplification(lipschitz, sigma_max)


def test_recorded_round_trips_are_reported(recorded):
    result = ladder.run_reality(CLAIM, recorded)
    assert result.passed and len(result.outcomes) == len(recorded.round_trips)
    assert all(np.isfinite(outcome.ratio) for outcome in result.outcomes)
