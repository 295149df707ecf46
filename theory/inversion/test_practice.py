"""The released tools' procedure: by hand, parts that sum to the defect, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from theory.inversion import practice
from theory.inversion.any_inversion import defects_of_states
from theory.inversion.practice import SIZES, practice_bound, witness


def test_bound_by_hand():
    """(1 + 2 + 3) + (10 + 20 + 30) * 4"""
    assert float(practice_bound([1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 5.0])) == 246
    with pytest.raises(ValueError, match="2 ladder, 1 guidance and 2 adapter parts"):
        practice_bound([1.0, 10.0], [2.0], [3.0, 30.0], [4.0, 5.0])


@pytest.mark.parametrize("size", SIZES)
def test_the_parts_sum_to_the_defect(size):
    """On a random member of the family, whose parts point anywhere, and on the witness, whose parts point one way."""
    import jax

    parameters = practice.PROBLEM.draw(jax.random.key(3), **dict(size))
    for instance in (practice.PROBLEM.instance(parameters, **dict(size)), witness(**dict(size))):
        trip, means, at_states = practice._simulate(instance)
        scale, on, steps = instance["scale"], instance["adapter_on"][:, None], trip.steps[:, None]
        conditional, unconditional, adapter, other = (at_states[:, index] for index in range(4))
        parts = steps * (
            conditional
            - means
            + (scale - 1) * (conditional - unconditional)
            + on * (scale * adapter + (1 - scale) * other)
        )
        missed = defects_of_states(trip.sigmas, trip.inversion, trip.predictions_at_inversion)
        np.testing.assert_allclose(parts, missed, atol=1e-12 * float(jnp.max(jnp.abs(trip.inversion)) + 1))
