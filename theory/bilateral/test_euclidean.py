"""The l_2 constant: its certificate proves what is true and nothing else, and the ramp comes close to its limit."""

import functools

import numpy as np
import pytest
import torch

from theory.bilateral.certificate import MARGIN, Box, _largest, certify
from theory.bilateral.constants import largest_change, lipschitz_constant, negative_share, neighbour_weight
from theory.bilateral.euclidean import SLACK, SLOPE, euclidean_bound, ramp_gain
from theory.bilateral.filter import bilateral_filter, spatial_weights


def gain(frames: np.ndarray, padding: str) -> float:
    """||J||_2, with torch's derivatives."""
    run = functools.partial(bilateral_filter, sigma_range=1.0, padding=padding)
    return float(np.linalg.norm(torch.autograd.functional.jacobian(run, torch.from_numpy(frames)).numpy(), 2))


WEIGHT = neighbour_weight()
SHARE = negative_share(WEIGHT)


def test_the_bound_and_the_certificate_behind_it():
    assert 2.0274 < euclidean_bound() <= 2.0275
    assert 50 < certify(SLACK, WEIGHT) < 500


@pytest.mark.parametrize(("slack", "weight"), [(-0.01, WEIGHT), (SLACK, neighbour_weight(3, 0.3))])
def test_a_false_inequality_is_not_certified(slack, weight):
    """Below slack 0 the extremal window breaks it; for neighbours that weigh little some window does."""
    with pytest.raises(ArithmeticError, match="is false there or slack"):
        certify(slack, weight)


def test_no_certified_kernel_is_no_bound():
    with pytest.raises(ValueError, match="no bound in the l_2 norm is certified for neighbours that weigh 0.00773"):
        euclidean_bound(3, 0.3)
    with pytest.raises(ValueError, match="kernel_size = 4; an odd integer"):
        euclidean_bound(4)


def test_what_is_checked_on_a_box_covers_every_point_of_it():
    """The bound of a box against the inequality itself at random points of it."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        box = Box(rng.uniform(0.4, 0.8), 0.02, rng.uniform(0.05, 0.4), 0.02)
        kappa, nu = rng.normal(size=2)
        m = box.m + box.half_m * rng.uniform(-1, 1, size=(400, 1))
        mean = box.mean + box.half_f * rng.uniform(-1, 1, size=(400, 1))
        u = rng.uniform(-8, 8, size=(1, 2000))
        rho = np.exp(-(u**2) / 2)
        alpha = rho * (1 - u * (u - mean))
        exact = (
            alpha**2
            - m * alpha
            - kappa * (rho - (m - SHARE / WEIGHT) / SHARE)
            - nu * (rho * u - mean * m / SHARE)
            - (2 + SLACK) * m**2
        )
        assert exact.max() <= _largest(box, kappa, nu, SLACK, SHARE, WEIGHT) - MARGIN / 2


def test_rows_obey_the_inequality_that_the_certificate_proves():
    """sum_k a_k^2 / |a*_k| <= 1 + (2 + slack) lambda for windows of all kinds, and 1 + 2 lambda at the extremal one."""
    rng = np.random.default_rng(1)
    near = np.array(spatial_weights())
    spatial = np.array([*near[::-1], *near])
    t = np.sqrt(3 + SHARE)
    windows = np.concatenate(
        [rng.normal(size=(20_000, 4)) * 2, t * np.sign(rng.normal(size=(2000, 4))) + 0.05 * rng.normal(size=(2000, 4))]
    )
    windows = np.concatenate([windows, [[-t, -t, t, t]]])
    weights = spatial * np.exp(-(windows**2) / 2)
    weights /= 1 + weights.sum(axis=1, keepdims=True)
    mean = (weights * windows).sum(axis=1, keepdims=True)
    assert np.abs(mean).max() <= largest_change(WEIGHT)
    derivatives = weights * (1 - windows * (windows - mean))
    middle = 1 - derivatives.sum(axis=1)
    found = middle**2 / (1 + SHARE) + (derivatives**2 * WEIGHT / (SHARE * spatial)).sum(axis=1)
    assert found.max() <= 1 + (2 + SLACK) * SHARE
    assert abs(found[-1] - lipschitz_constant()) <= 1e-12 * lipschitz_constant()


def test_a_long_ramp_approaches_the_lower_bound():
    assert round(ramp_gain(), 6) == 1.87066
    assert max(ramp_gain(slope) for slope in np.linspace(1.5, 2.2, 71)) <= ramp_gain() * (1 + 1e-6)
    gains = [gain(SLOPE * np.arange(float(count)), "symmetric") for count in (8, 24, 72)]
    assert gains == sorted(gains) and 0.998 * ramp_gain() < gains[-1] < ramp_gain()


@pytest.mark.parametrize(("count", "least"), [(3, 1.714), (4, 1.756), (5, 1.79)])
def test_reflect_padding_has_a_bound_of_its_own(count, least):
    """At most 2.2275; the ramp shows that it comes to `least`."""
    slope = 1.9619 if count == 3 else 1.9
    assert least - 0.01 < gain(slope * np.arange(float(count)), "reflect") <= 2.2275
