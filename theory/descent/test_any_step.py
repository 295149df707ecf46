"""Steps of any size: the inequality beyond the ladder's sizes, and whole runs far beyond every limit."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.descent import descend, feature_step_limit
from theory.descent.any_step import PROBLEM, norm_bound, relative_spread, total_ascent_bound
from theory.rounding import relative_budget
from theory.search import draw, evaluate
from theory.temporal_loss import upper_curvature_constant

STARTS, STEPS = 400, 400
NUM_FRAMES, DIMENSION = 4, 3
MULTIPLES = (1.1, 2.0, 5.0, 30.0, 1e3, 1e6)
"""Of each start's own limit."""

LOSS_BUDGET = 8 * relative_budget(64)
"""Rounding of a loss of size at most 4 whose similarities are sums of three products over two norms."""


@functools.cache
def runs(multiple: float):
    """Descent from random starts of very unequal norms, half of them close to a line."""
    generator = np.random.default_rng(7)
    cloud = generator.normal(size=(STARTS, NUM_FRAMES, DIMENSION))
    line = generator.normal(size=(STARTS, 1, DIMENSION)) * generator.choice([-1.0, 1.0], size=(STARTS, NUM_FRAMES, 1))
    frames = np.where(np.arange(STARTS)[:, None, None] % 2, cloud, line + 1e-2 * cloud)
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    frames *= np.exp(generator.uniform(-1, 1, size=(STARTS, NUM_FRAMES, 1)))
    least = np.linalg.norm(frames, axis=-1).min(axis=1)
    steps = np.array([multiple * 2 * norm**2 / upper_curvature_constant(NUM_FRAMES) for norm in least])
    run = jax.vmap(functools.partial(descend, num_steps=STEPS))(frames, steps)
    return steps, np.asarray(run.losses), np.asarray(run.norms)


@pytest.mark.parametrize("num_frames", [3, 6])
def test_inequality_on_thousands_of_steps(num_frames):
    size = (("num_frames", num_frames), ("dimension", 3))
    measured, bound = evaluate(PROBLEM, size, draw(PROBLEM, size, 1, 4000))
    assert np.all(measured <= bound * (1 + PROBLEM.budget(size)))


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_total_ascent_and_norms_are_bounded(multiple):
    steps, losses, norms = runs(multiple)
    ascents = np.sum(np.maximum(np.diff(losses, axis=1), 0), axis=1)
    starts = list(zip(norms[:, 0], steps, strict=True))
    bounds = np.array([total_ascent_bound(*start) for start in starts])
    assert np.all(ascents <= bounds + STEPS * LOSS_BUDGET)
    reach = np.array([norm_bound(*start) for start in starts])
    assert np.all(norms.max(axis=(1, 2)) <= reach * (1 + relative_budget(STEPS)))
    if multiple >= 5:
        assert np.max(ascents) > 0.1, "no start ascended, so nothing was tested"


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_monotone_once_every_frame_is_long_enough(multiple):
    """min_t r_t^2 >= eta C+_N / 2, with the upper curvature; some runs get there, others settle before."""
    steps, losses, norms = runs(multiple)
    safe = np.min(norms[:, :-1], axis=2) ** 2 >= steps[:, None] * upper_curvature_constant(NUM_FRAMES) / 2
    assert np.max(np.where(safe, np.diff(losses, axis=1), 0.0)) <= LOSS_BUDGET
    assert safe.any()
    # The norms never decrease, so it stays safe.
    assert np.all(safe[:, 1:] >= safe[:, :-1])


def test_bound_vanishes_at_the_limit_and_grows_like_the_logarithm():
    norms = np.array([1.0, 2.0, 1.5, 1.0])
    limit = 2 / upper_curvature_constant(4)
    assert total_ascent_bound(norms, 0.99 * limit) == 0
    assert 0 < total_ascent_bound(norms, 1.001 * limit) < 0.05
    far = [total_ascent_bound(norms, 10.0**power * limit) for power in (10, 11, 12)]
    assert far[2] - far[1] == pytest.approx(far[1] - far[0], rel=1e-9)
    # One power of ten adds log2(10) for every frame, times at most 4 + C+.
    assert far[2] - far[1] < 4 * np.log2(10) * (4 + upper_curvature_constant(4))


def test_safe_step_sizes_never_ascend():
    assert total_ascent_bound(np.array([1.0, 3.0, 2.0]), 0.999 * feature_step_limit(3, 1.0)) == 0


@pytest.mark.parametrize("relative_step", [1e-9, 1e-3, 0.2499, 0.2501, 1.0, 30.0, 1e6])
def test_spread_is_its_integral(relative_step):
    """2 int_0^1 (1 - tau) / (1 + tau^2 x^2) dtau in 30 digits, on both sides of where the series takes over."""
    with mpmath.workdps(30):
        x = mpmath.mpf(relative_step)
        exact = 2 * (mpmath.quad(lambda tau: (1 - tau) / (1 + (tau * x) ** 2), [0, min(1, 1 / x), 1]))
    # Above the switch psi is a difference of terms up to 2 / x^2 times as large as itself.
    found = float(relative_spread(jnp.asarray(relative_step)))
    assert found == pytest.approx(float(exact), rel=relative_budget(16 * 48))


@pytest.mark.parametrize(
    ("norms", "step_size", "message"),
    [
        ([1.0, 0.0, 1.0], 1.0, "frame 1 has norm 0.0"),
        ([1.0, 1.0, float("nan")], 1.0, "frame 2 has norm nan"),
        ([1.0, 1.0], 1.0, "num_frames = 2; at least 3"),
        ([[1.0, 1.0, 1.0]], 1.0, "norms have shape"),
        ([1.0, 1.0, 1.0], 0.0, "step_size = 0.0"),
        ([1.0, 1.0, 1.0], float("nan"), "step_size = nan"),
        ([1.0, 1.0, 1.0], float("inf"), "step_size = inf"),
    ],
)
def test_bad_arguments(norms, step_size, message):
    for bound in (total_ascent_bound, norm_bound):
        with pytest.raises(ValueError, match=message):
            bound(norms, step_size)
