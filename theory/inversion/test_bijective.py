"""Inverse steps: the damped iteration where the plain one cycles, guidance that loses the inverse, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import damped_contraction, inverse_lipschitz
from theory.inversion.bijective import CLAIM, damped_step, damping_limit, guided_pair
from theory.inversion.fixed_point import iterates
from theory.inversion.predictors import mixture_predictor
from theory.rounding import relative_budget

SIGMA_FROM, SIGMA_TO = 0.25, 0.5
CLUSTERS = mixture_predictor([0.5, 0.5], [[1.0], [-1.0]], 0.01)
RHO = SIGMA_FROM / SIGMA_TO
VARIANCE = 0.01**2 + SIGMA_TO**2
LARGEST = 1 - (SIGMA_TO - SIGMA_FROM) * SIGMA_TO / VARIANCE * (1 - 1 / VARIANCE)


def step_down(predictor, state: float) -> float:
    return state - (SIGMA_TO - SIGMA_FROM) * float(predictor(jnp.asarray([state]), SIGMA_TO)[0])


def bisect(function, low: float, high: float) -> float:
    """A zero of a function that is negative at one end and positive at the other."""
    sign = np.sign(function(high))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sign * function(middle) < 0 else (low, middle)
    return (low + high) / 2


def test_damping_finds_the_inverse_where_the_plain_iteration_cycles():
    """Clusters +-1 of std 0.01: Lambda = 2.5, so omega = 1 lies beyond 2 / Lambda = 0.8 (test_fixed_point.py)."""
    assert damping_limit(LARGEST) < 1
    damping = 2 / (RHO + LARGEST)
    contraction = damped_contraction(RHO, LARGEST, damping)
    lower = jnp.asarray([0.02])
    states = iterates(damped_step(CLUSTERS, lower, SIGMA_FROM, SIGMA_TO, damping), lower, 100)
    inverse = bisect(lambda state: step_down(CLUSTERS, state) - 0.02, -1.0, 1.0)
    assert round(inverse, 4) == 0.008
    distances = np.abs(np.asarray(states)[:, 0] - inverse)
    rounding = relative_budget(400) / (1 - contraction)
    assert (distances[1:] <= contraction * distances[:-1] + rounding).all()
    assert distances[-1] <= rounding


def test_plain_iteration_is_damping_one():
    states = iterates(damped_step(CLUSTERS, jnp.asarray([0.02]), SIGMA_FROM, SIGMA_TO), jnp.asarray([0.02]), 3)
    plain = iterates(lambda y: 0.02 + 0.25 * CLUSTERS(y, SIGMA_TO), jnp.asarray([0.02]), 3)
    np.testing.assert_allclose(states, plain, rtol=relative_budget(400))


def test_guidance_gives_two_states_one_image():
    """At scale 1 the step down rises throughout; at scale 3 it falls between the clusters: one image occurs twice."""
    grid = np.linspace(-2.0, 2.0, 81)
    exact, guided = (np.array([step_down(guided_pair(scale), y) for y in grid]) for scale in (1.0, 3.0))
    assert (np.diff(exact) > 0).all()
    falling = np.diff(guided) < 0
    assert falling.any() and not falling.all()
    top = int(np.argmax(falling))
    image = (guided[top] + guided[top + int(np.argmin(falling[top:]))]) / 2
    sides = ((-9.0, grid[top]), (grid[top], grid[top + int(np.argmin(falling[top:]))]))
    pair = [bisect(lambda y: step_down(guided_pair(3.0), y) - image, *ends) for ends in sides]
    images = [step_down(guided_pair(3.0), y) for y in pair]
    assert pair[1] - pair[0] > 0.1
    np.testing.assert_allclose(images[0], images[1], rtol=relative_budget(10_000))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse_lipschitz(0.0, 1.0), "sigma_from = 0; it must be positive"),
        (lambda: inverse_lipschitz(1.0, 0.5), "noise levels must increase"),
        (lambda: damping_limit(0.0), "largest eigenvalue = 0.0"),
        (lambda: damped_contraction(0.5, 2.5, 0.8), "damping = 0.8; it must lie between 0 and 2 / Lambda = 0.8"),
        (lambda: damped_contraction(0.5, 2.5, 0.0), "damping = 0.0"),
        (lambda: damped_contraction(3.0, 2.5, 0.5), r"smallest eigenvalue = 3.0; it must lie in \(0, 2.5\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
