"""Bounded outputs: by hand, the lemma on the last layers against dense matrices and ascent, rounding upwards, bad
input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from theory.evidence import OutputLayerRecord
from theory.inversion import output_layer
from theory.inversion.bounded import hybrid_bounds, uniform_error_bound
from theory.inversion.output_layer import convolution_norm_bound, group_bound, guided_output_bound, output_bound, silu


def test_bounds_by_hand():
    """2 G (3 - sigma_m) prod + sum, for m = 0, 1, 2, with defects 1, 10 and growth 2, 5 on levels 0, 1, 3."""
    np.testing.assert_allclose(
        hybrid_bounds([0.0, 1.0, 3.0], [1.0, 10.0], [2.0, 5.0], 4.0), [24.0, 8 * 2 * 2 + 1, 1 + 20]
    )
    assert uniform_error_bound([0.0, 1.0, 3.0], 4.0) == pytest.approx(24.0)
    assert uniform_error_bound([0.0, 1.0, 3.0], 4.0, 1.0) == pytest.approx(15.0)
    assert uniform_error_bound([0.0, 3.0], 0.0) == 0.0
    assert guided_output_bound(2.0, 7.5) == pytest.approx(28.0) and guided_output_bound(2.0, 0.5) == pytest.approx(2.0)


def test_the_turning_point_is_enclosed():
    """SiLU' changes sign inside the stated interval, and the stated value is above |SiLU| at both ends."""
    derivative = jax.grad(lambda t: t * jax.nn.sigmoid(t))
    low, high = output_layer.TURNING_POINT
    assert derivative(low - 1e-9) < 0 < derivative(high + 1e-9)
    assert all(abs(silu(np.asarray(t))) <= output_layer.LARGEST_NEGATIVE for t in np.linspace(-30, 0, 100001))
    assert output_layer.LARGEST_NEGATIVE - abs(silu(np.asarray(low))) < 1e-15


def _normalised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred * np.sqrt(values.size) / np.linalg.norm(centred)


@pytest.mark.parametrize(
    ("gain", "shift"),
    [([1.0, 1.0], [0.1, 0.2]), ([1.0, -0.5], [-2.0, 1.0]), ([0.0, 2.0], [3.0, -9.0]), ([0.3, 0.2], [0.0, 0.0])],
)
def test_no_group_exceeds_its_bound_and_none_is_far(gain, shift):
    """Ascent from many starts on all normalised inputs of a group of 2 channels of 9 pixels."""
    pixels = 9
    gains, shifts = np.repeat(gain, pixels), np.repeat(shift, pixels)
    limit = group_bound(gain, shift, pixels)
    rng, best = np.random.default_rng(0), 0.0
    for _ in range(12):
        start = rng.standard_normal(2 * pixels) ** 3
        found = scipy.optimize.minimize(
            lambda u: -np.linalg.norm(silu(gains * _normalised(u) + shifts)), start, method="L-BFGS-B"
        )
        best = max(best, -found.fun)
    assert best <= limit
    assert best >= 0.75 * limit


def test_a_group_without_gain_is_its_shift():
    """gamma = 0: the output is SiLU(beta) whatever the input, and 0 for beta = 0."""
    assert group_bound([0.0], [2.0], 4) == pytest.approx(2 * float(silu(np.asarray(2.0))), rel=1e-6)
    assert group_bound([0.0], [0.0], 4) <= 1e-4


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (6, 6)])
def test_the_convolution_is_at_most_its_symbol(size):
    kernel = np.random.default_rng(2).standard_normal((2, 3, 3, 3))
    height, width = size
    padded = np.zeros((3 * height * width, 3, height + 2, width + 2))
    for row, (channel, y, x) in enumerate(np.ndindex(3, height, width)):
        padded[row, channel, y + 1, x + 1] = 1
    columns = sum(
        np.einsum("oi,nihw->nohw", kernel[:, :, k, m], padded[:, :, k : k + height, m : m + width])
        for k in range(3)
        for m in range(3)
    )
    exact = np.linalg.norm(columns.reshape(len(padded), -1), ord=2)
    limit = convolution_norm_bound(kernel, size)
    assert exact <= limit
    # On one pixel only the middle of the kernel acts, on many nearly every frequency of the torus is there.
    assert min(size) < 6 or limit <= 1.3 * exact


def test_a_layer_of_one_pixel_is_bounded_and_zero_is_zero():
    layer = OutputLayerRecord("zero", np.zeros((2, 4, 3, 3)), np.zeros(2), np.ones(4), np.zeros(4), 2, (2, 2))
    assert output_bound(layer) == 0.0
    only_bias = OutputLayerRecord(
        "bias", np.zeros((2, 4, 3, 3)), np.array([3.0, 4.0]), np.ones(4), np.zeros(4), 2, (2, 2)
    )
    assert 10.0 <= output_bound(only_bias) <= 10.0 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_error_bound([0.0, 1.0], -1.0), "output bound = -1.0"),
        (lambda: uniform_error_bound([1.0, 0.0], 1.0), "noise levels must increase"),
        (lambda: hybrid_bounds([0.0, 1.0], [1.0, 2.0], [1.0], 1.0), "2 noise levels, 2 defects and 1 growth"),
        (lambda: hybrid_bounds([0.0, 1.0], [-1.0], [1.0], 1.0), "defect at step 0 is -1"),
        (lambda: hybrid_bounds([0.0, 1.0], [1.0], [1.0], float("inf")), "output bound = inf"),
        (lambda: group_bound([1.0], [1.0, 2.0], 4), r"gain \(1,\), shift \(2,\)"),
        (lambda: group_bound([np.nan], [1.0], 4), "values that are not finite"),
        (lambda: convolution_norm_bound(np.zeros((2, 3, 5, 5)), (4, 4)), r"kernel \(2, 3, 5, 5\)"),
        (lambda: guided_output_bound(1.0, -2.0), "guidance scale = -2.0"),
    ],
)
def test_faults_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_jax_and_numpy_agree():
    arguments = ([0.0, 1.0, 3.0], [1.0, 10.0], [2.0, 5.0])
    np.testing.assert_array_equal(
        hybrid_bounds(*map(jnp.asarray, arguments), 4.0), hybrid_bounds(*map(np.asarray, arguments), 4.0)
    )
