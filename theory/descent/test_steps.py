"""The step-size rule: it never raises the loss, says why, and refuses what it cannot use."""

import numpy as np
import pytest

from theory.descent import MonotoneStep, Warrant, certify_step, check_learning_rate
from theory.descent.feature_descent import gradient
from theory.descent.steps import ARMIJO
from theory.temporal_loss import temporal_loss


def _quadratic(eigenvalues):
    scale = np.asarray(eigenvalues)
    return lambda point: float(scale @ point**2 / 2), lambda point: scale * point


def _run(rule, start, value, slope, steps, **given):
    point, taken = start, []
    for _ in range(steps):
        direction = slope(point)
        step = rule.step(value(point), direction @ direction, lambda eta, p=point, g=direction: value(p - eta * g), **given)
        point = point - step.size * direction
        taken.append(step)
    return point, taken


def test_checked_steps_descend_from_the_inverse_sharpness():
    value, slope = _quadratic([1.0, 10.0])
    point, taken = _run(MonotoneStep(), np.array([1.0, 1.0]), value, slope, 30, sharpness=10.0)
    assert all(step.warrant is Warrant.CHECKED and step.trials == 1 and step.size == 0.1 for step in taken)
    assert value(point) < 1e-2 * value(np.array([1.0, 1.0]))


def test_a_step_that_is_far_too_long_is_shortened_until_the_loss_falls():
    value, slope = _quadratic([1.0, 10.0])
    start = np.array([1.0, 1.0])
    direction = slope(start)
    step = MonotoneStep().step(value(start), direction @ direction, lambda eta: value(start - eta * direction), proposal=1e6)
    assert step.warrant is Warrant.CHECKED and step.trials > 1
    assert step.loss == value(start - step.size * direction) <= value(start) - ARMIJO * step.size * direction @ direction
    # Of a quadratic every trial sees the same curvature, the Rayleigh quotient.
    assert step.curvature == pytest.approx(direction @ slope(direction) / (direction @ direction), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_without_a_sharpness_it_finds_its_length_and_stays_monotone(seed):
    generator = np.random.default_rng(seed)
    value = lambda point: float(np.sum(np.log1p(point**2)) + point[0] ** 4)  # noqa: E731, not convex
    slope = lambda point: 2 * point / (1 + point**2) + np.array([4 * point[0] ** 3, 0, 0])  # noqa: E731
    _, taken = _run(MonotoneStep(first=1e3), 3 * generator.normal(size=3), value, slope, 60)
    losses = [step.loss for step in taken]
    assert np.all(np.diff(losses) <= 0)
    assert losses[-1] < 1e-6
    assert sum(step.trials for step in taken) < 3 * len(taken)


def test_a_trial_that_overflows_counts_as_a_rise():
    step = MonotoneStep().step(1.0, 1.0, lambda eta: np.inf if eta > 0.3 else (np.nan if eta > 0.2 else 1 - eta), proposal=1e3)
    assert step.size <= 0.2 and step.warrant is Warrant.CHECKED


@pytest.mark.parametrize("proposal", [None, 1e-3, 1e9])
def test_certified_steps_keep_their_promise_without_a_trial(proposal):
    frames = np.random.default_rng(0).normal(size=(5, 20))
    rule = MonotoneStep()
    for _ in range(5):
        loss, direction = float(temporal_loss(frames)), np.asarray(gradient(frames))
        step = rule.step(loss, np.sum(direction**2), curvature=certify_step(frames).curvature, proposal=proposal)
        frames = frames - step.size * direction
        assert step.warrant is Warrant.CERTIFIED and step.trials == 0
        assert float(temporal_loss(frames)) <= step.loss < loss
    assert proposal != 1e-3 or step.size == proposal


def test_certified_step_is_the_best_one_of_the_certificate():
    frames = np.random.default_rng(1).normal(size=(4, 9))
    certificate = certify_step(frames)
    for first in (1e-6, 1.0, 1e6):
        step = MonotoneStep(first=first).step(1.0, 1.0, curvature=certificate.curvature)
        assert step.size == pytest.approx(certificate.best_step, rel=2.0**-7)


def test_a_gradient_that_the_loss_cannot_resolve_ends_the_run():
    assert MonotoneStep().step(1.0, 0.0, lambda eta: 1.0).warrant is Warrant.STATIONARY
    step = MonotoneStep().step(1.0, 1e-20, lambda eta: 1.0 + 1e-16)
    assert step.warrant is Warrant.STATIONARY and step.size == 0.0


def _flat(eta):
    return 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MonotoneStep(first=0.0), r"first = 0.0; a finite learning rate above 0"),
        (lambda: MonotoneStep(growth=0.5), "growth = 0.5"),
        (lambda: MonotoneStep(resolution=1.0), "resolution = 1.0"),
        (lambda: MonotoneStep().step(np.zeros(2), 1.0, _flat), r"loss has shape \(2,\); one number is needed: the objective must be scalar"),
        (lambda: MonotoneStep().step(np.nan, 1.0, _flat), "loss = nan"),
        (lambda: MonotoneStep().step(1.0, -1.0, _flat), "squared_gradient = -1.0"),
        (lambda: MonotoneStep().step(1.0, 1.0), "neither trial nor curvature"),
        (lambda: MonotoneStep().step(1.0, 1.0, _flat, sharpness=-1.0), "sharpness = -1.0"),
        (lambda: MonotoneStep().step(1.0, 1.0, _flat, proposal=np.inf), "proposal = inf"),
        (lambda: MonotoneStep().step(1.0, 1.0, curvature=lambda eta: np.nan), r"curvature\(1\) = nan"),
        (lambda: MonotoneStep(resolution=0.0).step(1.0, 1.0, _flat), "40 trials down to a step of"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("learning_rate", [0, -1e-3, float("nan"), float("inf"), "fast", np.zeros(2)])
def test_bad_learning_rate(learning_rate):
    with pytest.raises(ValueError, match="learning_rate = "):
        check_learning_rate(learning_rate)
