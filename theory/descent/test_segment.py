"""The certificate of a step against dense Hessians and closed-form steps, at more sizes than the ladder searches."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from theory.descent import MonotoneStep, Warrant, certify_step, feature_step_limit
from theory.descent.feature_descent import gradient, step_curvature
from theory.rounding import relative_budget
from theory.temporal_loss import certify_curvature, hessian_constant, upper_curvature_constant
from theory.temporal_loss.instances import dense_hessian

BUDGET = 1e3 * relative_budget(64)


def _walk(num_frames, dimension, wander, seed):
    generator = np.random.default_rng(seed)
    return generator.normal(size=dimension) + wander * np.cumsum(generator.normal(size=(num_frames, dimension)), axis=0)


def _top(frames):
    return float(np.linalg.eigvalsh(np.asarray(dense_hessian(jnp.asarray(frames))))[-1])


@pytest.mark.parametrize("wander", [0.02, 0.3, 3.0])
@pytest.mark.parametrize("num_frames", [3, 6])
def test_curvature_on_the_segment_lies_below(num_frames, wander):
    for seed in range(4):
        frames = _walk(num_frames, 3, wander, seed)
        certificate = certify_step(frames)
        slope = np.asarray(gradient(jnp.asarray(frames)))
        for step_size in certificate.best_step * np.array([0.1, 1.0, 10.0]):
            bound = certificate.curvature(step_size)
            for share in (0.25, 1.0):
                assert _top(frames - share * step_size * slope) <= bound * (1 + BUDGET)
            assert float(step_curvature(jnp.asarray(frames), jnp.asarray(step_size))) <= bound * (1 + BUDGET)


def test_the_certificate_of_the_start_alone_does_not_cover_the_step():
    """What the third derivative is for: the curvature rises along a step, above what was certified at its start."""
    broken = 0
    for seed in range(20):
        frames = _walk(4, 2, 3.0, seed)
        least = float(np.min(np.linalg.norm(frames, axis=1)))
        end = frames - 4 * least**2 / hessian_constant(4) * np.asarray(gradient(jnp.asarray(frames)))
        broken += _top(end) > certify_curvature(frames).upper
    assert broken > 0


def test_it_tends_to_the_certificate_of_the_start_and_never_passes_the_constant():
    frames = _walk(5, 8, 0.1, 0)
    certificate = certify_step(frames)
    least = float(np.min(np.linalg.norm(frames, axis=1)))
    assert certificate.curvature(1e-12) == pytest.approx(certify_curvature(frames).upper, rel=1e-6)
    assert certificate.curvature(1e12) == pytest.approx(upper_curvature_constant(5) / least**2, rel=BUDGET)
    values = [certificate.curvature(step_size) for step_size in np.geomspace(1e-6, 1e6, 40)]
    assert np.all(np.diff(values) >= 0)


def test_steps_are_longer_than_what_the_constant_allows_and_lower_the_loss_as_promised():
    frames = _walk(5, 64, 0.1, 1)
    certificate = certify_step(frames)
    limit = feature_step_limit(5, float(np.min(np.linalg.norm(frames, axis=1))))
    assert certificate.longest_step > 3 * limit
    assert certificate.best_step * certificate.curvature(certificate.best_step) <= 1
    assert certificate.longest_step * certificate.curvature(certificate.longest_step) <= 2
    slope = np.asarray(gradient(jnp.asarray(frames)))
    assert certificate.squared_gradient_lower <= np.sum(slope**2) <= certificate.squared_gradient_upper
    assert certificate.squared_gradient_lower == pytest.approx(certificate.squared_gradient_upper, rel=1e-9)
    assert float(step_curvature(jnp.asarray(frames), jnp.asarray(certificate.longest_step))) * certificate.longest_step < 2


def test_a_critical_point_has_finite_steps():
    frames = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    certificate = certify_step(frames)
    assert 0 < certificate.best_step <= certificate.longest_step < np.inf


def test_both_ends_of_the_gradient_where_it_is_exactly_zero():
    """e, e, -e with e = 1/sqrt(200000) everywhere: gradient 0 and L = 4, the largest there is, so nothing may be certified to lower it."""
    entries = np.ones(200_000) / np.sqrt(200_000)
    certificate = certify_step(np.stack([entries, entries, -entries]))
    assert certificate.squared_gradient_lower == 0 < certificate.squared_gradient_upper
    step = MonotoneStep().step(4.0, certificate.squared_gradient_lower, curvature=certificate.curvature)
    assert step.warrant is Warrant.STATIONARY and step.loss == 4.0 and step.size == 0.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_ends_of_the_gradient_around_an_exact_value(scale):
    """F = r (e_1, e_1, e_2): ||grad L||^2 = 8 / r^2 exactly (pulls of length 2 on the two outer pairs' frames, none on the first)."""
    certificate = certify_step(scale * np.array([[1.0, 0], [1.0, 0], [0, 1.0]]))
    exact = Fraction(8) / Fraction(scale) ** 2
    assert Fraction(certificate.squared_gradient_lower) <= exact <= Fraction(certificate.squared_gradient_upper)
    assert certificate.squared_gradient_upper == pytest.approx(certificate.squared_gradient_lower, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_long_steps_turn_frames_by_less_than_a_right_angle(seed):
    """However long the step, nu = arctan(eta ||g_t|| / r_t) bounds the curvature at its end."""
    frames = _walk(4, 3, 0.4, seed)
    certificate = certify_step(frames)
    slope = np.asarray(gradient(jnp.asarray(frames)))
    for step_size in certificate.best_step * np.array([30.0, 1e3, 1e6]):
        for share in (0.1, 0.5, 1.0):
            assert _top(frames - share * step_size * slope) <= certificate.curvature(step_size) * (1 + BUDGET)


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan, np.inf])
def test_bad_step(step_size):
    with pytest.raises(ValueError, match="step_size = .*; a finite learning rate above 0"):
        certify_step(np.eye(3)).curvature(step_size)


def test_zero_frame_is_named():
    with pytest.raises(ValueError, match="frame 1"):
        certify_step(np.diag([1.0, 0.0, 1.0]))
