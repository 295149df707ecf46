"""The three counterexamples to convergence to a local minimum, one of them moving, and the rate below the least critical value."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.descent import descend, feature_step_limit, least_critical_value, loss_bound
from theory.descent.feature_descent import gradient
from theory.descent.local_minimum import REPAIRED, stalled_frames
from theory.rounding import relative_budget
from theory.search import draw
from theory.temporal_loss import instances, similarities, temporal_loss

DIGITS = 30
STEP_SIZE = 0.05


def test_maximum_of_three_frames():
    frames = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(stalled_frames(3), frames)
    assert not np.any(gradient(frames))
    assert float(temporal_loss(frames)) == 4
    eigenvalues = np.linalg.eigvalsh(instances.dense_hessian(frames))
    assert eigenvalues[-1] <= 12 * relative_budget(instances.operations(num_frames=3, dimension=2))
    run = descend(frames, 0.5 * feature_step_limit(3, 1.0), 50)
    np.testing.assert_array_equal(run.losses, np.full(51, 4.0))


def test_saddle_of_four_frames():
    frames = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    np.testing.assert_allclose(stalled_frames(4), frames, rtol=0, atol=relative_budget(8))
    assert not np.any(gradient(frames))
    assert float(temporal_loss(frames)) == 1
    eigenvalues = np.linalg.eigvalsh(instances.dense_hessian(frames))
    # Four norms and the common rotation are flat.
    expected = [-2, 1 - 5**0.5, 0, 0, 0, 0, 0, 1 + 5**0.5]
    np.testing.assert_allclose(eigenvalues, expected, rtol=0, atol=4 * relative_budget(instances.operations(num_frames=4, dimension=2)))


def precise_gradient(frames):
    """Loss and gradient of planar frames in extended precision, from the definition by hand; shares no code with the library."""
    norms = [mpmath.hypot(*frame) for frame in frames]
    units = [[x / norm for x in frame] for frame, norm in zip(frames, norms, strict=True)]
    cosines = [a[0] * b[0] + a[1] * b[1] for a, b in zip(units[:-1], units[1:], strict=True)]
    rises = [0, *(b - a for a, b in zip(cosines[:-1], cosines[1:], strict=True)), 0]
    terms = len(frames) - 2
    slope = [[mpmath.mpf(0), mpmath.mpf(0)] for _ in frames]
    for index, cosine in enumerate(cosines):
        weight = mpmath.mpf(2) / terms * (rises[index] - rises[index + 1])
        for here, there in ((index, index + 1), (index + 1, index)):
            for axis in range(2):
                slope[here][axis] += weight * (units[there][axis] - cosine * units[here][axis]) / norms[here]
    return sum(rise**2 for rise in rises) / terms, slope


def moved(frames, slope, step):
    return [[x + step * g for x, g in zip(frame, row, strict=True)] for frame, row in zip(frames, slope, strict=True)]


@functools.cache
def moving_start():
    """A start far from the saddle whose descent tends to it, and the number of steps to within 1e-10 of it.

    The stable manifold is followed backwards, where it attracts: a step is inverted by fixed-point iteration (eta times
    the curvature is below 1), from 1e-10 along the stable eigenvector of the saddle, until the loss reaches 1.5.
    """
    with mpmath.workdps(DIGITS):
        small, ratio = mpmath.mpf(10) ** -10, 2 + mpmath.sqrt(5)
        angles = [-small, -small * ratio, mpmath.pi / 2 + small * ratio, 3 * mpmath.pi / 2 + small]
        frames = [[mpmath.cos(angle), mpmath.sin(angle)] for angle in angles]
        steps, loss = 0, mpmath.mpf(1)
        while loss < 1.5:
            earlier = frames
            for _ in range(200):
                before, earlier = earlier, moved(frames, precise_gradient(earlier)[1], STEP_SIZE)
                change = max(abs(a - b) for x, y in zip(before, earlier, strict=True) for a, b in zip(x, y, strict=True))
                if change < mpmath.mpf(10) ** (2 - DIGITS):
                    break
            frames, steps = earlier, steps + 1
            loss = precise_gradient(frames)[0]
        return frames, steps


def test_moving_start_tends_to_the_saddle_in_extended_precision():
    start, steps = moving_start()
    with mpmath.workdps(DIGITS):
        norms = [mpmath.hypot(*frame) for frame in start]
        assert STEP_SIZE < 0.5 * feature_step_limit(4, float(min(norms)))
        losses, frames = [], start
        for _ in range(steps):
            loss, slope = precise_gradient(frames)
            losses.append(loss)
            frames = moved(frames, slope, -STEP_SIZE)
        assert losses[0] >= 1.5
        assert all(later < earlier for earlier, later in zip(losses[:-1], losses[1:], strict=True))
        last, slope = precise_gradient(frames)
        # Back within the distance from which the manifold was followed; the loss is 1 to the square of it.
        assert 0 <= last - 1 < mpmath.mpf(10) ** -18
        assert max(abs(g) for row in slope for g in row) < mpmath.mpf(10) ** -8


def test_moving_start_in_double_precision_stalls_there_and_leaves():
    start, steps = moving_start()
    run = descend(np.array(start, dtype=float), STEP_SIZE, 6 * steps)
    held = int(np.sum(np.abs(run.losses - 1) < 1e-3))
    assert held > 50, "descent did not stall at the saddle"
    assert run.losses[-1] < 1e-3


def test_rate_holds_for_low_starts_and_many_steps():
    num_frames, dimension = 5, 3
    parameters = draw(REPAIRED, (("num_frames", num_frames), ("dimension", dimension)), 0, 200)
    starts = jax.jit(jax.vmap(functools.partial(REPAIRED.instance, num_frames=num_frames, dimension=dimension)))(parameters)
    # At the least critical value itself nothing is promised.
    losses = np.asarray(jax.vmap(temporal_loss)(starts["frames"]))
    low = losses < 0.99 * least_critical_value(num_frames)
    frames, step_sizes, min_norms = (np.asarray(starts[name])[low] for name in ("frames", "step_size", "min_norm"))
    runs = jax.vmap(functools.partial(descend, num_steps=500))(frames, step_sizes)
    largest = np.max(np.linalg.norm(frames, axis=-1), axis=1)
    steps = [0, 1, 10, 100, 500]
    for index in range(frames.shape[0]):
        promised = [
            loss_bound(num_frames, float(runs.losses[index, 0]), float(min_norms[index]), float(largest[index]), float(step_sizes[index]), k)
            for k in steps
        ]
        assert np.all(np.asarray(runs.losses[index])[steps] <= np.array(promised) * (1 + 1000 * relative_budget(500)))


def test_gradient_dominates_the_loss_below_the_least_critical_value():
    """||grad L(U)||^2 >= 48 L^2 (1 - omega) / ((1 + omega) N (N^2 - 1)) on unit frames, the inequality behind the rate."""
    num_frames = 5
    parameters = draw(REPAIRED, (("num_frames", num_frames), ("dimension", 3)), 1, 5000)
    starts = jax.jit(jax.vmap(functools.partial(REPAIRED.instance, num_frames=num_frames, dimension=3)))(parameters)
    units = starts["frames"] / jnp.linalg.norm(starts["frames"], axis=-1, keepdims=True)
    losses, slopes = (np.asarray(x) for x in jax.jit(jax.vmap(lambda x: (temporal_loss(x), gradient(x))))(units))
    swing = np.minimum(np.sqrt(losses / least_critical_value(num_frames)), 1)
    floor = 48 * losses**2 * (1 - swing) / ((1 + swing) * num_frames * (num_frames**2 - 1))
    assert np.all(np.sum(slopes**2, axis=(1, 2)) >= floor * (1 - relative_budget(10_000)))


def test_stalled_frames_take_equal_steps():
    np.testing.assert_allclose(similarities(stalled_frames(7)), np.linspace(1, -1, 6), rtol=0, atol=relative_budget(64))
    assert float(temporal_loss(stalled_frames(7, 4))) == pytest.approx(least_critical_value(7), rel=relative_budget(256))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"initial_loss": 1.0}, "initial_loss = 1.0; it must lie in"),
        ({"initial_loss": float("nan")}, "initial_loss = nan"),
        ({"max_norm": 0.5}, "max_norm = 0.5"),
        ({"step_size": 1.0}, "step_size = 1.0; it must lie in"),
        ({"step_size": 0.0}, "step_size = 0.0"),
        ({"num_steps": -1}, "num_steps = -1"),
        ({"num_frames": 2}, "num_frames = 2"),
        ({"min_norm": 0.0}, "min_norm = 0.0"),
    ],
)
def test_bad_arguments_of_the_rate(changed, message):
    good = {"num_frames": 4, "initial_loss": 0.5, "min_norm": 1.0, "max_norm": 2.0, "step_size": 0.05, "num_steps": 3}
    assert 0 < loss_bound(**good) < 0.5
    with pytest.raises(ValueError, match=message):
        loss_bound(**good | changed)


def test_too_few_dimensions():
    with pytest.raises(ValueError, match="dimension = 1; at least 2"):
        stalled_frames(4, dimension=1)
