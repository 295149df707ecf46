"""Every public certificate at instances whose exact value is known, 0 included: each end on its own side."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from theory.descent import certify_step, gauss_newton_model, gauss_newton_remainder, gauss_newton_sharpness, safe_ball
from theory.descent.lora import counterexample
from theory.temporal_loss import certify_curvature, certify_pixels, feature_bounds
from theory.temporal_loss.hessian import extremal_frames
from theory.temporal_loss.instances import dense_hessian
from theory.temporal_loss.upper_curvature import extremal_frames as steepest

ONE = np.array([0.6, 0.8])
KNOWN = {
    # name: frames, exact lambda_min, exact lambda_max
    "a still picture": (np.stack([ONE, ONE, ONE, ONE]), 0.0, 0.0),
    "collinear, signs in turn": (extremal_frames(3), -12.0, 0.0),
    "right angles": (steepest(3), 0.0, 12.0),
    "right angles, four frames of norm 2": (2.0 * steepest(4), 0.0, 2.5),
    "saddle": (np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0]]), -2.0, 1 + math.sqrt(5)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_curvature(name):
    frames, least, largest = KNOWN[name]
    values = np.linalg.eigvalsh(np.asarray(dense_hessian(jnp.asarray(frames))))
    assert values[0] == pytest.approx(least, abs=1e-12) and values[-1] == pytest.approx(largest, abs=1e-12)
    certificate = certify_curvature(frames)
    assert certificate.lower <= least and largest <= certificate.upper
    assert certificate.spectral >= max(largest, -least)
    assert certificate.margin >= 0


def test_many_entries_do_not_hide_the_direction_of_rounding():
    """A still picture of 200000 entries: the curvature is exactly 0, and what is left is rounding, on the safe side."""
    picture = np.full(200_000, 1 / math.sqrt(200_000))
    certificate = certify_curvature(np.stack([picture] * 3))
    assert certificate.lower <= 0 <= certificate.upper <= 1e-3
    assert certify_step(np.stack([picture] * 3)).squared_gradient_lower == 0


def test_pixels():
    """Two pixels, one still and one at the extremal frames: each block by itself, over P = 2."""
    features = np.stack([np.stack([ONE] * 3), extremal_frames(3)], axis=-1)[:, :, None, :]
    certificates = certify_pixels(features)
    assert certificates.lower[0, 0] <= 0 <= certificates.upper[0, 0]
    assert certificates.lower[0, 1] <= -6 <= 0 <= certificates.upper[0, 1]
    assert certificates.whole.spectral >= 6


def test_gauss_newton():
    """Residuals 0: no gradient, and the sharpness is that of the Gram matrix; a Gram matrix 0: no sharpness."""
    still = gauss_newton_model(np.zeros(2), np.diag([1.0, 4.0]))
    assert (still.loss, still.squared_gradient, still.along_gradient, still.sharpness) == (0.0, 0.0, 0.0, 4.0)
    assert gauss_newton_sharpness(np.zeros((3, 3))) == 0.0
    assert gauss_newton_sharpness(np.eye(2)) == pytest.approx(4.0)
    # At L = 0 the Hessian is its Gauss-Newton part; rounding of the similarities may leave a little.
    assert 0 <= gauss_newton_remainder(np.stack([ONE] * 3)) <= 1e-14


def test_feature_bounds_of_unit_frames():
    bounds = feature_bounds(np.stack([ONE] * 3))
    assert bounds.min_norm == pytest.approx(1.0) and bounds.hessian == pytest.approx(12.0) and bounds.gradient == pytest.approx(2 * math.sqrt(6))


def test_safe_ball_rounds_inwards():
    """A layer with one output at two positions whose J and H are known: ||X||^2 is the larger eigenvalue of [[2, -1], [-1, 4]], 3 + sqrt 2."""
    start = counterexample(1.0, 2.0)
    radius = 0.01
    ball = safe_ball(*(np.asarray(start[name]) for name in ("frames", "inputs", "down", "up")), radius)
    spectral = math.sqrt(3 + math.sqrt(2))
    exact = 1 - spectral * (2 * radius + radius**2 / 2)
    assert ball.min_norm < exact and ball.min_norm == pytest.approx(exact, rel=1e-12)
    curvature = 12 / exact**2 * spectral**2 * (2 + radius) ** 2 + 2 * math.sqrt(6) / exact * spectral
    assert ball.curvature > curvature and ball.curvature == pytest.approx(curvature, rel=1e-12)
    assert ball.step_size * ball.curvature <= 1
