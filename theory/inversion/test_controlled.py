"""The counterexample in closed form, and the exponential it converges to."""

import numpy as np
import pytest

from theory.inversion.controlled import CLAIM, limiting_amplification, lipschitz_to_exceed, pushed_instance
from theory.inversion.ddim import Convention
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


@pytest.mark.parametrize("convention", list(Convention))
@pytest.mark.parametrize("constant", [1.0, 1e3, 1e12])
def test_every_constant_is_exceeded_under_every_convention(constant, convention):
    lipschitz = float(lipschitz_to_exceed(constant, 64, 5.0))
    trip = table_round_trip(pushed_instance(64, int(convention), lipschitz, 0.1, 5.0))
    gain = lipschitz * 5.0 / 64
    assert gain <= 1
    ratio = float(norms(trip.errors[0]) / norms(trip.defects).sum())
    least = ((1 + gain) ** 64 - 1) / (64 * gain)
    assert ratio > constant
    # Equality under S and Y, where all defects are alike; more under T, where they grow with the level.
    assert ratio >= least * (1 - 1e-9) and (convention == Convention.T or ratio == pytest.approx(least, rel=1e-9))


@pytest.mark.parametrize("convention", list(Convention))
def test_the_states_and_defects_are_those_of_the_proof(convention):
    trip = table_round_trip(pushed_instance(16, int(convention), 2.0, 0.5, 4.0))
    sigmas = np.asarray(trip.sigmas)
    scales = np.sqrt(1 + sigmas**2)
    states = {Convention.S: sigmas**2 / 2, Convention.T: sigmas * scales, Convention.Y: sigmas}[convention] / 2
    sizes = {Convention.S: 1.0, Convention.T: 2.0 * scales[1:], Convention.Y: 2.0}[convention] / 2 * 0.25**2
    np.testing.assert_allclose(trip.inversion[:, 0], states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.abs(trip.defects[:, 0]), np.broadcast_to(sizes, 16), rtol=1e-9)
    assert (np.sign(trip.defects[:, 0]) == np.sign(trip.defects[0, 0])).all()


@pytest.mark.parametrize(("lipschitz", "sigma_max"), [(0.0, 1.0), (1.0, float("nan")), (1.0, -1.0)])
def test_limit_refuses(lipschitz, sigma_max):
    with pytest.raises(ValueError, match="a finite number > 0 is needed"):
        limiting_amplification(lipschitz, sigma_max)


def test_recorded_round_trips_are_reported(recorded):
    for comparison in CLAIM.reality:
        outcomes = comparison.outcomes(recorded)
        assert len(outcomes) == len(recorded.round_trips)
        assert all(np.isfinite(outcome.ratio) for outcome in outcomes)
