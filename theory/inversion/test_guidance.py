"""Guidance: by hand, the Gaussian flow's closed form, a round trip that closes on a meaningless latent, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import guided_defects
from theory.inversion.ddim import Convention, round_trip
from theory.inversion.guidance import CLAIM, gaussian_guidance_amplification
from theory.rounding import relative_budget


def test_defects_by_hand():
    np.testing.assert_array_equal(guided_defects([1.0, 2.0], [10.0, 0.0], 3.0), [23.0, 6.0])
    np.testing.assert_array_equal(guided_defects([1.0, 2.0], [10.0, 0.0], 1.0), [1.0, 2.0])
    np.testing.assert_array_equal(guided_defects([1.0, 2.0], [10.0, 0.0], 0.0), [10.0, 0.0])


def test_amplification_by_hand():
    """v_c from 1 to 4 and v_u from 2 to 5, at w = 3: 4^(3/2) (2/5)."""
    expected = 8 * 2 / 5
    np.testing.assert_allclose(
        gaussian_guidance_amplification(1.0, 2.0, 0.0, 3**0.5, 3.0), expected, rtol=relative_budget(60)
    )


def trip(conditional, unconditional, scale, num_steps, convention=Convention.S):
    sigmas = jnp.linspace(0.03, 14.6, num_steps + 1)

    def predict(state, level):
        squared = sigmas[level] ** 2
        slope = scale / (conditional + squared) + (1 - scale) / (unconditional + squared)
        return sigmas[level] * slope * state

    return round_trip(predict, sigmas, jnp.ones(1), convention)


def test_inversion_converges_to_the_closed_form():
    misses = []
    for num_steps in (2000, 4000):
        raised = float(trip(0.5, 1.0, 3.0, num_steps).inversion[-1, 0])
        misses.append(abs(raised / gaussian_guidance_amplification(0.5, 1.0, 0.03, 14.6, 3.0) - 1))
    assert 1.8 < misses[0] / misses[1] < 2.2


def test_a_round_trip_says_nothing_of_the_latent():
    """l_u = 1, l_c = .1 at scale 15: the latent is far from any noise, the round trip misses less than the start."""
    guided = trip(0.1, 1.0, 15.0, 1000, Convention.T)
    latent = float(abs(guided.inversion[-1, 0])) / np.sqrt(1 + 14.6**2)
    error = float(abs(guided.errors[0, 0]))
    assert latent > 1e4
    assert error < 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: guided_defects([1.0], [1.0], -1.0), "guidance scale = -1.0; a finite number >= 0"),
        (lambda: guided_defects([1.0], [1.0], float("nan")), "guidance scale = nan"),
        (lambda: guided_defects([1.0, 1.0], [1.0], 1.0), "2 conditional and 1 unconditional defects"),
        (lambda: guided_defects([-1.0], [1.0], 1.0), "conditional defect at step 0 is -1"),
        (lambda: guided_defects([1.0], [-1.0], 1.0), "unconditional defect at step 0 is -1"),
        (lambda: gaussian_guidance_amplification(0.0, 1.0, 0.0, 1.0, 1.0), "conditional_variance = 0.0"),
        (lambda: gaussian_guidance_amplification(1.0, 1.0, 1.0, 0.0, 1.0), "noise levels must increase"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_recorded_clips_pass(recorded, untested_reality):
    result = untested_reality(CLAIM, recorded)
    assert result.passed, result.failures
