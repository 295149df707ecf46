"""Fixed-point inversion: by hand, the exact defect, convergence beyond h L < 1, the two-cycle, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import fixed_point_bound
from theory.inversion.fixed_point import CLAIM, iterates, step_contractions
from theory.inversion.predictors import gaussian_predictor, mixture_predictor
from theory.rounding import relative_budget


def test_bound_by_hand():
    assert fixed_point_bound(0.5, 3.0, 2) == 1.5
    assert fixed_point_bound(0.0, 3.0, 0) == 3.0
    assert fixed_point_bound(0.0, 3.0, 1) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 1), r"contraction = 1.0; it must lie in \[0, 1\)"),
        ((1.5, 1.0, 1), "contraction = 1.5"),
        ((-0.1, 1.0, 1), "contraction = -0.1"),
        ((float("nan"), 1.0, 1), "contraction = nan"),
        ((0.5, -1.0, 1), "first_increment = -1.0"),
        ((0.5, float("inf"), 1), "first_increment = inf"),
        ((0.5, 1.0, -1), "num_iterations = -1"),
        ((0.5, 1.0, 1.5), "num_iterations = 1.5"),
    ],
)
def test_bound_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        fixed_point_bound(*arguments)


def test_contractions_of_a_schedule():
    np.testing.assert_array_equal(step_contractions([0.0, 0.5, 1.0], [9.0, 1.0, 1.5]), [0.5, 0.75])
    with pytest.raises(ValueError, match="h L at step 1 is 1.25; it must be below 1"):
        step_contractions([0.0, 0.5, 1.0], [9.0, 1.0, 2.5])
    with pytest.raises(ValueError, match="h L at step 0 is 1; it must be below 1"):
        step_contractions([0.0, 0.5, 1.0], [0.0, 2.0, 2.5])
    with pytest.raises(ValueError, match="step 1 is -0.25; noise levels must increase"):
        step_contractions([0.0, 0.5, 0.25], [1.0, 1.0, 1.0])


def test_defect_of_an_iterated_step_is_the_next_increment():
    """Inverting with e at y^(j) and stepping back with e at y^(j+1) misses by y^(j+2) - y^(j+1), to rounding."""
    predictor = mixture_predictor([0.4, 0.6], [[1.0], [-0.5]], 0.7)
    lower, sigma_from, sigma_to = jnp.asarray([0.3]), 0.8, 1.0
    step = sigma_to - sigma_from
    states = iterates(lambda y: lower + step * predictor(y, sigma_to), lower, 4)
    for index in range(1, 4):
        back = states[index] - step * predictor(states[index], sigma_to)
        np.testing.assert_allclose(lower - back, states[index + 1] - states[index], atol=relative_budget(100) * 4)


def test_two_cycle_on_two_narrow_clusters():
    """Without contraction: clusters +-1 of std 0.01, from sigma 0.25 to 0.5, iterates that alternate though the inverse
    step exists."""
    predictor = mixture_predictor([0.5, 0.5], [[1.0], [-1.0]], 0.01)
    states = np.asarray(iterates(lambda y: jnp.asarray([0.02]) + 0.25 * predictor(y, 0.5), jnp.asarray([0.02]), 400))[
        :, 0
    ]
    np.testing.assert_allclose(states[-2:], states[-4:-2], rtol=relative_budget(10_000))
    assert sorted(np.round(states[-2:], 3)) == [-0.242, 0.273]
    # The inverse step exists all the same: y - h e(y) = y_s near y = 0.008, by bisection on an increasing function.
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        back = middle - 0.25 * float(predictor(jnp.asarray([middle]), 0.5)[0])
        low, high = (middle, high) if back < 0.02 else (low, middle)
    assert round(low, 4) == 0.008


def test_gaussian_data_converge_for_every_step():
    """h de/dy = h sigma / (v + sigma^2) < 1 for h <= sigma: log-concave data always converge."""
    predictor = gaussian_predictor(np.zeros(1), 0.01 * np.eye(1))
    states = iterates(lambda y: jnp.asarray([1.0]) + 1.0 * predictor(y, 1.0), jnp.asarray([1.0]), 4000)
    np.testing.assert_allclose(states[-1], [1 / (1 - 1 / 1.01)], rtol=relative_budget(100 * 4000))


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
