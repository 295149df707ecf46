"""Rigorous enclosures of the constants of C1 in ball arithmetic, which share nothing with the proofs, and what the enclosures rest on."""

import itertools
from fractions import Fraction
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import enclosure, gradient_constant, hessian_constant, instances, upper_curvature_constant
from theory.temporal_loss.gradient import largest_gradient

THIRD_DIGIT = 1e-3


@pytest.mark.parametrize(
    ("num_frames", "sign", "constant"),
    [
        (3, 1, upper_curvature_constant),
        (3, -1, hessian_constant),
        pytest.param(4, 1, upper_curvature_constant, marks=pytest.mark.slow),
        (4, -1, hessian_constant),
    ],
)
def test_curvature_constant_is_enclosed(num_frames, sign, constant):
    found = enclosure.enclose(num_frames, sign, relative_width=THIRD_DIGIT)
    budget = relative_budget(16 * num_frames)
    assert found.lower <= constant(num_frames) * (1 + budget) and constant(num_frames) <= found.upper
    assert found.upper <= found.lower * (1 + 2 * THIRD_DIGIT)


@pytest.mark.parametrize("num_frames", [3, 4])
def test_largest_gradient_is_enclosed(num_frames):
    found = enclosure.enclose_gradient(num_frames, relative_width=THIRD_DIGIT)
    assert found.lower <= largest_gradient(num_frames).value * (1 + THIRD_DIGIT) and largest_gradient(num_frames).value <= found.upper
    assert found.lower <= gradient_constant(num_frames)
    assert found.upper <= found.lower * (1 + 2 * THIRD_DIGIT)


def test_exact_gradient_constant_of_three_frames_is_enclosed():
    found = enclosure.enclose_gradient(3, relative_width=1e-4)
    assert found.lower <= gradient_constant(3) <= found.upper <= found.lower * (1 + 2e-4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("num_frames", [3, 4])
def test_a_level_below_the_supremum_is_not_proved(num_frames, sign):
    with pytest.raises(ArithmeticError, match="out of reach"):
        enclosure.upper_end(num_frames, sign, 0.99 * enclosure.lower_end(num_frames, sign))


@pytest.mark.parametrize("num_frames", [3, 4])
def test_forms_are_those_of_the_dense_hessian(num_frames):
    """The quotient in ball arithmetic and the form in rho, beta, gamma and normal parts, on random unit frames and directions."""
    rng = np.random.default_rng(num_frames)
    frames = np.asarray(instances.unit_rows(jnp.asarray(rng.standard_normal((num_frames, 5)))))
    step = rng.standard_normal(frames.shape)
    dense = float(step.ravel() @ np.asarray(jax.jit(instances.dense_hessian)(jnp.asarray(frames))) @ step.ravel())
    budget = relative_budget(instances.operations(num_frames=num_frames, dimension=5)) * hessian_constant(num_frames) * np.sum(step**2)
    assert abs(float(enclosure._rayleigh_quotient(frames, step).mid()) * np.sum(step**2) - dense) <= budget

    layout = enclosure._Layout(num_frames)
    cosines = np.sum(frames[:-1] * frames[1:], axis=1)
    sines = np.sqrt(1 - cosines**2)
    matrix = enclosure._values(layout, 1, cosines, sines)
    radial = np.sum(frames * step, axis=1)
    tangent = step - radial[:, None] * frames
    ahead = (frames[1:] - cosines[:, None] * frames[:-1]) / sines[:, None]
    back = (frames[:-1] - cosines[:, None] * frames[1:]) / sines[:, None]
    beta, gamma = np.sum(ahead * tangent[:-1], axis=1), np.sum(back * tangent[1:], axis=1)
    coordinates = np.concatenate([radial, beta, gamma])
    scalars = np.array([matrix[block, block][0, 0] for block in layout.blocks[1 : 1 + num_frames]])
    slopes = np.array([matrix[block, block][0, 1] for block in layout.blocks[1 + num_frames :]])
    normal = np.sum((tangent[:-1] - beta[:, None] * ahead) * (tangent[1:] - gamma[:, None] * back), axis=1)
    first = matrix[layout.blocks[0], layout.blocks[0]]
    reduced = -coordinates @ first @ coordinates - scalars @ np.sum(tangent**2, axis=1) + 2 * slopes @ normal
    assert abs(reduced - dense) <= budget


def test_remainder_bounds_the_distance_from_the_tangent():
    rng = np.random.default_rng(0)
    for num_frames in (3, 4):
        layout = enclosure._Layout(num_frames)
        for _ in range(50):
            angles, half = rng.uniform(0, np.pi, num_frames - 1), 10.0 ** rng.uniform(-2, 0)
            turns = half * rng.uniform(-1, 1, num_frames - 1)
            cosines, sines = np.cos(angles), np.sin(angles)
            ahead = enclosure._values(layout, 1, cosines - turns * sines, sines + turns * cosines)
            behind = enclosure._values(layout, 1, cosines + turns * sines, sines - turns * cosines)
            tangent = enclosure._values(layout, 1, cosines, sines) + (ahead - behind) / 2
            true = enclosure._values(layout, 1, np.cos(angles + turns), np.sin(angles + turns))
            for block, row in zip(layout.blocks, enclosure._remainder_rows(num_frames), strict=True):
                # Entries are below 32 in size, sums of at most 16 products.
                assert np.linalg.norm((true - tangent)[block, block], 2) <= row * half**2 + 32 * relative_budget(64)


def bernstein(coefficients: np.ndarray, box: list[tuple[Fraction, Fraction]]) -> np.ndarray:
    """Bernstein coefficients on a box of the polynomial sum c_ijk x^i y^j z^k; the polynomial lies between the least and the largest."""
    for axis, (low, high) in enumerate(box):
        rows = np.moveaxis(coefficients, axis, 0)
        degree = rows.shape[0] - 1
        shifted = [
            sum(rows[j] * (comb(j, i) * low ** (j - i) * (high - low) ** i) for j in range(i, degree + 1)) for i in range(degree + 1)
        ]
        rows = [sum(shifted[j] * Fraction(comb(i, j), comb(degree, j)) for j in range(i + 1)) for i in range(degree + 1)]
        coefficients = np.moveaxis(np.array(rows), 0, axis)
    return coefficients


def interpolated(function, degrees: tuple[int, ...]) -> np.ndarray:
    """Exact coefficients of a polynomial of the given degrees, from its values at the integers 0, 1, .."""
    values = np.empty([degree + 1 for degree in degrees], dtype=object)
    for index in np.ndindex(values.shape):
        values[index] = function(*map(Fraction, index))
    for axis, degree in enumerate(degrees):
        # Newton's forward differences, then falling factorials into powers.
        rows = list(np.moveaxis(values, axis, 0))
        for order in range(1, degree + 1):
            for i in range(degree, order - 1, -1):
                rows[i] = (rows[i] - rows[i - 1]) / Fraction(order)
        powers = [rows[degree] * 0 for _ in range(degree + 1)]
        for i in range(degree, -1, -1):
            powers = [
                (powers[j - 1] if j else rows[i]) - i * powers[j] + (0 if j else 0 * rows[i]) for j in range(degree + 1)
            ]
        values = np.moveaxis(np.array(powers), 0, axis)
    return values


def remaining_polynomial(ratio: Fraction, square: Fraction, sigma: Fraction) -> Fraction:
    """(X Y - sigma tau S_1^2 S_2^2) / b^2 of the proof of C1.upper-curvature, at a = ratio b, b^2 = square > 0."""
    tau = 1 - sigma
    s1, s2, delta2 = 1 - ratio**2 * square, 1 - square, (1 - ratio) ** 2 * square
    e1, e2 = ratio * (ratio - 1) * square, (1 - ratio) * square
    first = 1 - delta2 * s1 / 4 - sigma * (s1 - e1)
    second = 1 - delta2 * s2 / 4 - tau * (s2 - e2)
    return (first * second - sigma * tau * s1 * s2) / square


def test_polynomial_of_the_upper_curvature_is_positive_by_its_bernstein_coefficients():
    """On |a| <= |b| <= 1, sigma in [0.29, 0.71]; the rest follows by exchanging a with b and sigma with 1 - sigma."""
    degrees = (6, 3, 2)
    coefficients = interpolated(lambda x, y, z: remaining_polynomial(x, y + 1, z), degrees)
    sample = remaining_polynomial(Fraction(1, 3), Fraction(2, 5), Fraction(3, 10))
    at = (Fraction(1, 3), Fraction(-3, 5), Fraction(3, 10))
    powers = [[value**i for i in range(degree + 1)] for value, degree in zip(at, degrees, strict=True)]
    assert sample == sum(coefficients[i] * powers[0][i[0]] * powers[1][i[1]] * powers[2][i[2]] for i in np.ndindex(coefficients.shape))
    ratios = [(Fraction(-1), Fraction(0)), (Fraction(0), Fraction(1))]
    squares = [(Fraction(-1), Fraction(-1, 2)), (Fraction(-1, 2), Fraction(0))]
    for ratio, square in itertools.product(ratios, squares):
        assert np.min(bernstein(coefficients, [ratio, square, (Fraction(29, 100), Fraction(71, 100))])) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: enclosure.enclose(5, 1), "num_frames = 5"),
        (lambda: enclosure.enclose_gradient(2), "num_frames = 2"),
        (lambda: enclosure.upper_end(3, 0, 12.0), "sign = 0"),
        (lambda: enclosure.enclose(3, 1, relative_width=0.0), "relative_width = 0.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
