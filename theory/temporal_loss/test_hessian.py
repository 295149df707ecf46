"""The sharp constant's recorded values, and the key lemma of its proof, checked exactly and densely."""

import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import hessian_constant, instances
from theory.temporal_loss.hessian import extremal_frames, hessian_norm

RECORDED = {5: 8.59932, 6: 7.03404, 7: 5.87677, 8: 5.01961, 9: 4.36900, 10: 3.86197}


def test_closed_forms():
    assert hessian_constant(3) == pytest.approx(12, rel=relative_budget(16 * 9))
    assert hessian_constant(4) == pytest.approx(6 + 2 * math.sqrt(5), rel=relative_budget(16 * 16))


@pytest.mark.parametrize("num_frames", RECORDED)
def test_recorded_values(num_frames):
    assert round(hessian_constant(num_frames), 5) == RECORDED[num_frames]


@pytest.mark.parametrize(
    ("num_frames", "message"), [(2, "at least 3"), (-1, "at least 3"), (3.0, "integer"), (True, "integer")]
)
def test_bad_number_of_frames(num_frames, message):
    with pytest.raises(ValueError, match=message):
        hessian_constant(num_frames)


def test_limit():
    scaled = [(num_frames - 2) * hessian_constant(num_frames) for num_frames in (3, 5, 10, 50, 400)]
    assert scaled == sorted(scaled) and 31.99 < scaled[-1] < 32


@pytest.mark.parametrize("num_frames", [3, 4, 5, 7])
def test_attained_with_negative_curvature_only(num_frames):
    hessian = np.asarray(instances.dense_hessian(jnp.asarray(extremal_frames(num_frames, 3, min_norm=0.5))))
    eigenvalues = np.linalg.eigvalsh(hessian)
    bound = 4 * hessian_constant(num_frames)
    budget = relative_budget(instances.operations(num_frames=num_frames, dimension=3)) * bound
    assert abs(eigenvalues[0] + bound) <= budget and eigenvalues[-1] <= budget


def test_on_a_line_the_hessian_vanishes():
    """Off the origin the similarities are constant there; the loss itself refuses such vectors, so the plane's first
    axis stands in."""
    frames = np.asarray([[1.0, 0.0], [-2.0, 0.0], [3.0, 0.0], [0.5, 0.0]])
    hessian = np.asarray(instances.dense_hessian(jnp.asarray(frames))).reshape(4, 2, 4, 2)
    assert np.max(np.abs(hessian[:, 0, :, 0])) <= 4 * hessian_constant(4) * relative_budget(
        instances.operations(num_frames=4, dimension=2)
    )


def test_reduction_keeps_the_norm():
    """(N, d) with d > N + 1 and its (N, N + 1) reduction have the same Hessian norm."""
    features = np.random.default_rng(0).normal(size=(4, 3, 2, 3))
    flat = features.reshape(4, -1)
    reduced = instances.reduce_frames(features)
    assert reduced.shape == (4, 5)
    full, small = (float(jax.jit(hessian_norm)(jnp.asarray(frames))) for frames in (flat, reduced))
    assert abs(full - small) <= 2 * relative_budget(instances.operations(num_frames=4, dimension=18)) * full


fractions = st.fractions(-1, 1, max_denominator=64)


@hypothesis.settings(max_examples=200)
@hypothesis.given(fractions, fractions)
def test_algebra_of_the_key_lemma_in_exact_arithmetic(a, b):
    """Every identity and inequality of both sides of the split, in rationals."""
    delta, s1, s2 = b - a, 1 - a * a, 1 - b * b
    upper, lower = [], []
    for cosine, other, square in ((a, b, s1), (b, a, s2)):
        excess = cosine * (cosine - other)
        split = 4 + 2 * excess - delta**2 * square
        assert split - 2 * square == 2 + 3 * cosine**2 - other**2 + cosine**2 * delta**2
        upper.append(split - 2 * square)
        reserve = 4 - 2 * excess - delta**2 * square + 2 * square
        assert reserve == (s1 + s2) + (2 - excess) ** 2
        lower.append(reserve)
        # E_i of both sides is 2 - delta^2 S_i^2 / 2: between 0 and 2, so the off-diagonal blocks are at most 2.
        assert 0 <= 2 - delta**2 * square / 2 <= 2
        assert abs(delta * cosine) <= 2
    p, r = a * a, b * b
    assert (2 + 3 * p - r) * (2 + 3 * r - p) - 4 * s1 * s2 == 8 * (p + r) + 6 * p * r - 3 * (p * p + r * r)
    assert upper[0] * upper[1] >= 4 * s1 * s2 and min(upper) > 0
    assert lower[0] * lower[1] >= (s1 + s2) ** 2 >= 4 * s1 * s2


@hypothesis.given(
    hnp.arrays(np.float64, (3, 3), elements=st.floats(-4, 4)), hnp.arrays(np.float64, (3, 3), elements=st.floats(-4, 4))
)
def test_key_lemma(directions, step):
    """|x^T Hess L_3 x| <= 4 (p^2 + q^2), p = |x_1| + |x_2|, q = |x_2| + |x_3|, by a dense Hessian."""
    frames = instances.unit_rows(jnp.asarray(directions))
    curvature = abs(float(step.ravel() @ np.asarray(instances.dense_hessian(frames)) @ step.ravel()))
    norms = np.linalg.norm(step, axis=1)
    bound = 4 * ((norms[0] + norms[1]) ** 2 + (norms[1] + norms[2]) ** 2)
    hypothesis.target(curvature / bound if bound else 0.0)
    # The form rounds at the size of ||Hess|| ||x||^2 <= 12 ||x||^2 <= 3 times the bound's 4 ||x||^2.
    assert curvature <= bound * (1 + 3 * relative_budget(instances.operations(num_frames=3, dimension=3)))
