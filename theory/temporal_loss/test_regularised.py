"""The augmentation behind the regularised loss, and the curvature it is known to reach."""

import math
from fractions import Fraction

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import (
    hessian_constant,
    regularised_constant,
    regularised_lower_constant,
    similarities,
    temporal_loss,
)
from theory.temporal_loss.regularised import augmented_frames, nearly_extremal_frames, regularised_hessian_norm

regularised_gradient = jax.jit(jax.grad(lambda frames: temporal_loss(frames, epsilon=1.0)))


@hypothesis.given(hnp.arrays(np.float64, (5, 3), elements=st.floats(-4, 4)), st.sampled_from([0.01, 1.0, 30.0]))
def test_augmented_frames_have_the_regularised_similarities(frames, epsilon):
    augmented = augmented_frames(frames, epsilon)
    assert np.min(np.linalg.norm(augmented, axis=1)) >= epsilon * (1 - relative_budget(8))
    assert np.max(np.abs(similarities(augmented) - similarities(frames, epsilon=epsilon))) <= relative_budget(64)


def test_recorded_lower_constants():
    assert regularised_lower_constant(3) == pytest.approx(8, rel=relative_budget(16 * 9))
    assert regularised_lower_constant(4) == pytest.approx(3 + math.sqrt(5), rel=relative_budget(16 * 16))
    assert {n: round(regularised_lower_constant(n), 4) for n in (5, 6, 8)} == {5: 4.2482, 6: 3.3733, 8: 2.4352}


@pytest.mark.parametrize("num_frames", [3, 4, 5, 6])
def test_lower_constant_is_approached(num_frames):
    """At distance R eps the far frames still turn by 1/R, so the curvature falls short by a relative O(1/R), here
    1e-6."""
    frames = jnp.asarray(nearly_extremal_frames(num_frames, 2, epsilon=0.5))
    measured = float(jax.jit(regularised_hessian_norm)(frames, 0.5))
    expected = 4 * regularised_lower_constant(num_frames)
    assert expected * (1 - 1e-5) < measured <= 4 * regularised_constant(num_frames)


@pytest.mark.parametrize("num_frames", [3, 4, 5, 6, 12, 100])
def test_constant_lies_between_the_known_curvature_and_the_plain_constant(num_frames):
    lower, upper = regularised_lower_constant(num_frames), regularised_constant(num_frames)
    assert lower <= upper * (1 + relative_budget(16 * num_frames**2))
    assert upper < hessian_constant(num_frames)
    assert num_frames > 3 or lower == pytest.approx(upper, rel=relative_budget(16 * 9))


roots = st.fractions(Fraction(1, 32), Fraction(31, 32), max_denominator=32)
shares = st.fractions(-1, 1, max_denominator=32)


@hypothesis.settings(max_examples=200)
@hypothesis.given(roots, roots, shares, shares)
def test_price_of_a_pair_in_exact_arithmetic(root_p, root_q, first, second):
    """Every inequality of the proof for a pair, with |f_1|^2 = p and |f_2|^2 = q squares of rationals: 2 |x_1|^2 + 2 |x_2|^2."""
    p, q = root_p**2, root_q**2
    a, b = first * root_p * root_q, second * root_q
    share = q * (1 - p) / (q * (1 - p) + p * (1 - q))
    outer, middle = 2 / share, 2 / (1 - share)
    assert 1 / outer + 1 / middle == Fraction(1, 2)
    normal = abs(b - a) * (1 + abs(a))
    assert 2 / (1 - p) - outer * q == 2 * (1 - q) + 2 * p * q / (1 - p)
    for weight, own, other, radial in ((outer, p, q, 2 * share), (middle, q, p, 2 * (1 - share))):
        dearest = max(radial, normal)
        assert (1 - own) * max(dearest, weight * other + (1 - other) * dearest) <= 2
    # The part of u_2 - a u_1 that lies in the features' own space.
    assert (q - a**2 * (2 - p)) / (1 - a**2) <= q


@pytest.mark.parametrize(("num_frames", "expected"), [(3, 8.0), (4, 6.0), (5, 16 / 3), (6, 4.0), (18, 1.0)])
def test_constant_in_numbers(num_frames, expected):
    assert regularised_constant(num_frames) == expected


def test_constant_is_sharp_in_the_limit_of_many_frames():
    ratios = [regularised_lower_constant(n) / regularised_constant(n) for n in (6, 12, 24, 48, 96)]
    assert all(np.diff(ratios) > 0) and 0.997 < ratios[-1] < 1


def test_small_epsilon_is_the_plain_loss():
    frames = np.random.default_rng(0).normal(size=(5, 4))
    # s changes by a relative eps^2 / ||F||^2, far below one rounding.
    difference = abs(temporal_loss(frames, epsilon=1e-12) - temporal_loss(frames))
    assert difference <= relative_budget(64)


def test_smooth_at_zero_frames():
    assert float(jax.jit(regularised_hessian_norm)(jnp.zeros((3, 2)), 1.0)) == 0.0
    gradient = np.asarray(regularised_gradient(jnp.asarray([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])))
    assert np.array_equal(gradient, np.zeros((3, 2)))


@hypothesis.given(st.integers(0, 2**31 - 1))
def test_gradient_is_globally_lipschitz(seed):
    """Pairs across zero included: the whole space is convex, so the Hessian's bound is the Lipschitz constant, with no
    factor."""
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-3, 3, (2, 3, 1))
    first, second = (jnp.asarray(frames) for frames in scale * generator.normal(size=(2, 3, 2)))
    difference = regularised_gradient(first) - regularised_gradient(second)
    quotient = float(jnp.linalg.norm(difference) / jnp.linalg.norm(first - second))
    assert quotient <= regularised_constant(3)


def test_too_few_frames():
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        regularised_lower_constant(2)
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        regularised_constant(2)
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        nearly_extremal_frames(2, 2)
