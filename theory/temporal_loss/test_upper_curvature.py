"""Upper curvature: recorded values, and the steps of the proof by exact or dense means that share nothing with it."""

from fractions import Fraction

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import hessian_constant, instances, upper_curvature_constant
from theory.temporal_loss.upper_curvature import extremal_frames, top_curvature

RECORDED = {3: 12.0, 4: 10.0, 5: 8.11927, 6: 6.69258, 7: 5.64357, 8: 4.85757, 9: 4.25321, 10: 3.77688}


@pytest.mark.parametrize("num_frames", RECORDED)
def test_recorded_values(num_frames):
    assert round(upper_curvature_constant(num_frames), 5) == RECORDED[num_frames]


@pytest.mark.parametrize("num_frames", [3, 4, 6, 7])
def test_attained(num_frames):
    measured = float(jax.jit(top_curvature)(jnp.asarray(extremal_frames(num_frames, min_norm=2.0))))
    bound = upper_curvature_constant(num_frames) / 4
    assert abs(measured - bound) <= relative_budget(instances.operations(num_frames=num_frames, dimension=2)) * bound


def test_below_the_hessian_constant_and_with_the_same_limit():
    assert upper_curvature_constant(3) == pytest.approx(hessian_constant(3), rel=relative_budget(16 * 9))
    for num_frames in range(4, 40):
        assert upper_curvature_constant(num_frames) < hessian_constant(num_frames)
    # ||D_2||^2 = 16 - O(1/N^2): a clamped string's second difference.
    assert 31.99 < 398 * upper_curvature_constant(400) < 32


def perron_weights(num_frames: int) -> np.ndarray:
    """w of every triple, (N-2, 3), from the Perron vector of |D_2|^T |D_2|."""
    second = np.abs(np.diff(np.eye(num_frames), n=2, axis=0))
    vector = np.abs(np.linalg.eigh(second.T @ second)[1][:, -1])
    triples = np.stack([vector[:-2], vector[1:-1], vector[2:]], axis=1)
    return triples / (triples @ [1.0, 2.0, 1.0])[:, None]


@pytest.mark.parametrize("num_frames", [3, 4, 5, 6, 7, 12, 50, 300])
def test_weights_satisfy_what_the_proof_uses(num_frames):
    weights = perron_weights(num_frames)
    assert np.all(weights <= 0.5)
    sigma = weights[:, 0] + weights[:, 1]
    assert np.all((sigma >= 0.29) & (sigma <= 0.71))


fractions = st.fractions(-1, 1, max_denominator=64)
sigmas = st.fractions(Fraction(29, 100), Fraction(71, 100), max_denominator=100)


@hypothesis.settings(max_examples=200)
@hypothesis.given(fractions, fractions, sigmas)
def test_polynomial_step_in_exact_arithmetic(a, b, sigma):
    """X Y >= sigma tau S_1^2 S_2^2, its expansion, and the signs that make it hold on the whole square."""
    tau, delta = 1 - sigma, b - a
    first = tau + 2 * sigma * a * a - sigma * a * b - delta**2 / 4
    second = sigma + 2 * tau * b * b - tau * a * b - delta**2 / 4
    assert first > 0 and second > 0
    # The exact quantities exceed these by a^2 delta^2 / 4 and b^2 delta^2 / 4.
    s1, s2 = 1 - a * a, 1 - b * b
    assert 1 - delta**2 * s1 / 4 - sigma * (s1 - a * (a - b)) == first + a * a * delta**2 / 4
    assert 1 - delta**2 * s2 / 4 - tau * (s2 - b * (b - a)) == second + b * b * delta**2 / 4
    quadratic = (sigma**2 + sigma - Fraction(1, 4)) * a * a + (tau**2 + tau - Fraction(1, 4)) * b * b
    quadratic += (Fraction(1, 2) - sigma**2 - tau**2) * a * b
    quartic = (first - tau) * (second - sigma) - sigma * tau * a * a * b * b
    assert first * second - sigma * tau * s1 * s2 == quadratic + quartic
    assert quadratic >= 0 and quadratic + quartic >= 0


@hypothesis.given(
    hnp.arrays(np.float64, (3, 3), elements=st.floats(-4, 4)),
    hnp.arrays(np.float64, (3, 3), elements=st.floats(-4, 4)),
    st.sampled_from([(num_frames, triple) for num_frames in (3, 4, 5, 8) for triple in range(num_frames - 2)]),
)
def test_triple_inequality(directions, step, where):
    """x^T Hess L_3 x / 2 <= xi_1^2 / w_1 + 2 xi_2^2 / w_2 + xi_3^2 / w_3, by a dense Hessian."""
    num_frames, triple = where
    weights = perron_weights(num_frames)[triple]
    frames = instances.unit_rows(jnp.asarray(directions))
    curvature = float(step.ravel() @ np.asarray(instances.dense_hessian(frames)) @ step.ravel()) / 2
    squares = np.sum(step**2, axis=1)
    bound = float(squares @ (np.asarray([1.0, 2.0, 1.0]) / weights))
    # The quadratic form rounds at the size of the Hessian's norm, 12, times ||x||^2, which the bound exceeds.
    assert curvature <= bound + 12 * np.sum(squares) * relative_budget(instances.operations(num_frames=3, dimension=3))


@pytest.mark.parametrize(("arguments", "message"), [((2,), "num_frames = 2"), ((3, 1), "dimension = 1")])
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        extremal_frames(*arguments)
    if len(arguments) == 1:
        with pytest.raises(ValueError, match=message):
            upper_curvature_constant(*arguments)
