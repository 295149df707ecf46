"""Two clusters: the limit that is proved against ever finer steps, the signs of the defects, the exact line between
them, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from theory.inversion import mixture_tube
from theory.inversion.clusters import (
    LAST_VARIANCE,
    cluster_lower_bound,
    mills_ratio,
    separatrix_instance,
    std_to_exceed,
)
from theory.inversion.ddim import Convention


def test_mills_ratio():
    for x in (0.0, 1.0, 4.0, 7.0):
        assert float(mills_ratio(x)) == pytest.approx(scipy.stats.norm.sf(x) / scipy.stats.norm.pdf(x), rel=1e-12)


def _between(std, sigma):
    """f = sqrt(v) M(1 / sqrt(v)), its value along the flow that stays between the clusters."""
    root = np.sqrt(std**2 + sigma**2)
    return root * float(mills_ratio(1 / root))


@pytest.mark.parametrize("std", [0.2, 0.12])
def test_the_line_between_the_clusters_solves_the_linear_flow(std):
    """f' = J f + sigma / v, from central differences; and f'' and the rate under T lie where the proof says."""
    last = np.sqrt(LAST_VARIANCE - std**2)
    for sigma in np.linspace(0.1 * last, last, 9):
        v, gap = std**2 + sigma**2, 1e-4
        slope = (_between(std, sigma + gap) - _between(std, sigma - gap)) / (2 * gap)
        jacobian = sigma / v * (1 - 1 / v)
        assert slope == pytest.approx(jacobian * _between(std, sigma) + sigma / v, rel=1e-5)
        bend = (_between(std, sigma + gap) - 2 * _between(std, sigma) + _between(std, sigma - gap)) / gap**2
        assert 0.5 <= bend <= 2.375
        rate = abs(jacobian) * (slope - sigma * _between(std, sigma) / (1 + sigma**2))
        assert 1.2 <= rate * v**2 / sigma**2 <= 2.0


def _ratio(std, num_steps, convention):
    instance = separatrix_instance(std, num_steps, convention)
    trip = mixture_tube._simulate(instance)
    steps = np.diff(trip.sigmas)
    defects = np.asarray(trip.defects)[:, 0]
    error, last = float(np.linalg.norm(trip.errors[0])), float(trip.sigmas[-1])
    return error / (last * float(np.max(np.abs(defects) / steps))), defects


@pytest.mark.parametrize("convention", [Convention.S, Convention.T])
def test_more_steps_lead_to_the_limit_and_the_limit_is_above_its_bound(convention):
    std = 0.2
    last = np.sqrt(LAST_VARIANCE - std**2)

    def amplification(sigma):
        v = std**2 + sigma**2
        return np.sqrt(std**2 / v) * np.exp((1 / std**2 - 1 / v) / 2)

    def rate(sigma):
        gap = 1e-4
        if convention == Convention.S:
            return (_between(std, sigma + gap) - 2 * _between(std, sigma) + _between(std, abs(sigma - gap))) / gap**2
        v = std**2 + sigma**2
        slope = sigma / v * (1 - 1 / v) * _between(std, sigma) + sigma / v
        return abs(sigma / v * (1 - 1 / v)) * (slope - sigma * _between(std, sigma) / (1 + sigma**2))

    grid = np.linspace(0.0, last, 401)
    rates = np.array([rate(sigma) for sigma in grid])
    limit = scipy.integrate.simpson(rates * amplification(grid), x=grid) / (last * rates.max())
    coarse, fine = (_ratio(std, steps, convention)[0] for steps in (500, 2000))
    assert abs(fine - limit) < 0.35 * abs(coarse - limit)
    assert fine == pytest.approx(limit, rel=0.05)
    assert limit >= cluster_lower_bound(std, convention)
    # All defects point one way: nothing cancels.
    defects = _ratio(std, 500, convention)[1]
    assert (np.sign(defects) == np.sign(defects[-1])).all()


def test_narrower_clusters_need_larger_constants_exponentially():
    bounds = [cluster_lower_bound(std, Convention.T) for std in (0.2, 0.15, 0.1)]
    assert bounds[0] > 10 and bounds[1] > 1e4 and bounds[2] > 1e15
    assert float(std_to_exceed(1.0)) > float(std_to_exceed(1e4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.3, Convention.T), "std = 0.3"),
        ((0.0, Convention.S), "std = 0.0"),
        ((0.1, Convention.Y), "proved for S and T"),
    ],
)
def test_faults_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster_lower_bound(*arguments)


def test_the_start_scales_with_the_odds():
    instance = separatrix_instance(0.2, 8, Convention.S)
    assert float(instance["start"][0]) < 0 and float(instance["start"][1]) == 0
    assert float(jnp.max(jnp.abs(instance["start"]))) < 1e-12
