"""Orders of convergence: the closed form and its limit, measured slopes with intervals, the grid's floor, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion.ddim import Convention
from theory.inversion.order import (
    CLAIM,
    _standard_normal_error,
    convergence,
    measure,
    order_of_convergence,
    standard_normal_bound,
    standard_normal_factor,
    training_levels,
    witness,
)
from theory.inversion.predictors import gaussian_predictor, mixture_predictor
from theory.rounding import relative_budget

COUNTS = (50, 100, 250, 500, 999)


def test_factor_by_hand():
    """One step from theta = 0 to pi / 4: 1 - (1 - cos) sin sin / 1."""
    cosine = sine = 0.5**0.5
    np.testing.assert_allclose(standard_normal_factor([0.0, 1.0]), 1 - (1 - cosine) * sine**2, rtol=relative_budget(40))
    np.testing.assert_allclose(standard_normal_bound([0.0, 1.0]), (np.pi / 4) ** 3 * sine / 2, rtol=relative_budget(40))


def test_leading_constant_of_uniform_angles():
    """E_0 N^2 tends to Theta^2 / 2 log(1 / cos Theta), from the exact product; the bound has the same limit."""
    largest = 1.2
    limit = largest**2 / 2 * -np.log(np.cos(largest))
    gaps = []
    for count in (200, 400):
        sigmas = np.tan(np.linspace(0.0, largest, count + 1))
        error = 1 - standard_normal_factor(sigmas)
        assert error <= standard_normal_bound(sigmas)
        gaps.append(abs(error * count**2 / limit - 1))
    # The correction is of first order in the step.
    assert 1.8 < gaps[0] / gaps[1] < 2.2 and gaps[1] < 0.02


def test_slopes_on_the_training_grid():
    """Second order on the standard normal under T, first elsewhere; thin data are not there yet. Measured."""
    pair = mixture_predictor([0.5, 0.5], [[1.0], [-1.0]], 0.5)
    thin = gaussian_predictor([0.0], [[0.03**2]])
    unit, other = gaussian_predictor([0.0], [[1.0]]), gaussian_predictor([0.0], [[0.25]])
    subjects = {
        "N(0, 1), T": (unit, Convention.T, (-2.1, -1.9)),
        "N(0, 1), S": (unit, Convention.S, (-1.1, -0.9)),
        "N(0, 1/4), T": (other, Convention.T, (-1.1, -0.9)),
        "pair, T": (pair, Convention.T, (-1.1, -0.9)),
        "thin, T": (thin, Convention.T, (-0.9, -0.4)),
    }
    for name, (predictor, convention, (low, high)) in subjects.items():
        order = order_of_convergence(COUNTS, convergence(predictor, training_levels, [0.7], convention, COUNTS))
        assert low < order.slope < high, (name, order)
        assert order.interval[0] <= order.slope <= order.interval[1]
        # Refinement ends with the grid, at one timestep a step: an error is left that no number of steps removes.
        assert order.errors[-1] > 1e-6


def test_padding_changes_nothing():
    """Errors measured together with a longer schedule equal those measured alone."""
    predictor = gaussian_predictor([0.0], [[0.25]])
    together = convergence(predictor, training_levels, [0.7], Convention.S, (5, 20))
    alone = convergence(predictor, training_levels, [0.7], Convention.S, (5,))
    np.testing.assert_allclose(together[0], alone[0], rtol=relative_budget(40 * 20 * 100))


def test_interval_holds_the_fit():
    order = order_of_convergence([10, 20, 40, 80], [1.0, 0.3, 0.2, 0.05])
    local = np.diff(np.log([1.0, 0.3, 0.2, 0.05])) / np.log(2)
    np.testing.assert_allclose(order.interval, [local.min(), local.max()], rtol=relative_budget(40))
    assert order.interval[0] < order.slope < order.interval[1]
    exact = order_of_convergence([1, 10, 100], [1.0, 1e-2, 1e-4])
    np.testing.assert_allclose([exact.slope, *exact.interval], -2, rtol=relative_budget(200))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: order_of_convergence([10], [1.0]), "1 numbers of steps and 1 errors were given; at least 2"),
        (lambda: order_of_convergence([10, 20], [1.0]), "2 numbers of steps and 1 errors"),
        (lambda: order_of_convergence([20, 10], [1.0, 2.0]), "number of steps at step 1 is 10; it must increase"),
        (lambda: order_of_convergence([10, 20], [1.0, 0.0]), "error at position 1 is 0; it must be positive"),
        (lambda: training_levels(30), "num_steps = 30; it must divide 1000"),
        (lambda: training_levels(1000), r"num_steps = 1000; it must .* lie in 2 \.\. 500, or be 999"),
        (lambda: standard_normal_factor([1.0, 0.5]), "noise levels must increase"),
        (lambda: standard_normal_bound([1.0]), "at least 2"),
        (
            lambda: convergence(None, training_levels, [0.0], Convention.T, (5,)),
            "start is 0 throughout",
        ),
        (
            lambda: convergence(None, lambda count: np.arange(3.0), [1.0], Convention.T, (5,)),
            r"levels\(5\) has shape \(3,\); \(6,\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_product_needs_no_order_of_the_levels():
    """On shuffled levels, where some a_k are negative, the identity holds all the same."""
    levels = jnp.asarray(np.random.default_rng(0).permutation(np.linspace(0.1, 3.0, 9)))
    instance = dict(witness(num_steps=8)) | {"sigmas": levels}
    error = abs(float(_standard_normal_error(levels, jnp)))
    assert float(measure(instance)) == pytest.approx(error, rel=1e-10)


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
