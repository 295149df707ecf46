"""The rate of the mean similarity in exact arithmetic and along runs: what falls, what cannot, and where three frames end."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.descent import descend, falling_frames, mean_cannot_fall
from theory.descent.mean_similarity import COUNTEREXAMPLE_RATE, rate_of_sum
from theory.rounding import relative_budget
from theory.temporal_loss import similarities, temporal_loss

rate = jax.jit(rate_of_sum)


def _exact_frames(num_frames):
    """The falling frames in rationals: powers of (3 + 4 i)/5, then one turn by (4 + 3 i)/5."""
    points = [(Fraction(1), Fraction(0))]
    for index in range(1, num_frames):
        c, s = (Fraction(3, 5), Fraction(4, 5)) if index < num_frames - 1 else (Fraction(4, 5), Fraction(3, 5))
        x, y = points[-1]
        points.append((c * x - s * y, s * x + c * y))
    return points


def _exact_rate(points):
    """- 1^T J J^T y of unit frames with rational coordinates, by the chain rule alone."""
    count = len(points)
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    cosines = [dot(points[t], points[t + 1]) for t in range(count - 1)]
    steps = [Fraction(0), *[b - a for a, b in zip(cosines, cosines[1:], strict=False)], Fraction(0)]
    slopes = [Fraction(2, count - 2) * (steps[t] - steps[t + 1]) for t in range(count - 1)]
    pulls = []
    for t in range(count):
        pull = [Fraction(0), Fraction(0)]
        for pair, other in ((t - 1, t - 1), (t, t + 1)):
            if 0 <= pair < count - 1:
                for axis in range(2):
                    pull[axis] += slopes[pair] * (points[other][axis] - cosines[pair] * points[t][axis])
        pulls.append(pull)
    # Pulls are normal to their frames, so s_t changes by <pull_t, u_{t+1}> + <u_t, pull_{t+1}>.
    return -sum(dot(pulls[t], points[t + 1]) + dot(points[t], pulls[t + 1]) for t in range(count - 1)), cosines


@pytest.mark.parametrize("num_frames", [4, 5, 8, 20])
def test_the_mean_falls_in_exact_arithmetic(num_frames):
    points = _exact_frames(num_frames)
    exact, cosines = _exact_rate(points)
    assert exact == COUNTEREXAMPLE_RATE / (num_frames - 2) < 0
    assert all(cosine > 0 for cosine in cosines)
    frames = falling_frames(num_frames)
    np.testing.assert_allclose(frames, np.array([[float(x) for x in point] for point in points]), atol=64 * relative_budget(64))
    assert float(rate(jnp.asarray(frames))) == pytest.approx(float(exact), abs=relative_budget(1 << 12))
    assert not mean_cannot_fall(frames)


def test_a_step_of_descent_lowers_loss_and_mean_at_once():
    frames = falling_frames(4, 3)
    run = descend(frames, 1e-3, 20)
    means = [float(np.mean(similarities(np.asarray(x)))) for x in (frames, run.features)]
    assert np.all(np.diff(run.losses) < 0)
    assert means[1] < means[0]
    # Twenty short steps follow the flow, up to terms of the order of the step.
    assert (means[1] - means[0]) / 20e-3 == pytest.approx(float(COUNTEREXAMPLE_RATE) / 2 / 3, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_with_three_frames_the_mean_moves_away_from_zero(seed):
    frames = np.random.default_rng(seed).normal(size=(3, 4))
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    before = float(np.sum(similarities(frames)))
    change = float(rate(jnp.asarray(frames)))
    assert np.sign(change) == np.sign(before)
    difference = np.diff(similarities(frames))[0]
    assert change == pytest.approx(4 * difference**2 * before, abs=relative_budget(1 << 12))


def test_descent_ends_in_flicker_and_not_at_minus_one():
    """From e_1, -e_1, e_2 the mean falls from -1/2 while the loss falls to 0; it ends at -0.794, where both similarities agree."""
    run = descend(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), 1e-2, 4000)
    assert float(run.losses[0]) == 1.0 and float(run.losses[-1]) < 1e-20
    ends = similarities(np.asarray(run.features))
    assert np.max(ends) - np.min(ends) < 1e-9
    assert -0.80 < float(np.mean(ends)) < -0.78


def test_condition_holds_for_independent_turns_and_the_mean_rises():
    """Each frame a turn of the one before into a new dimension: second neighbours are as alike as the frame between makes them."""
    cosines = np.array([0.2, 0.9, 0.5, 0.7])
    frames = np.zeros((5, 5))
    frames[0, 0] = 1.0
    for t, cosine in enumerate(cosines):
        frames[t + 1] = cosine * frames[t]
        frames[t + 1, t + 1] += np.sqrt(1 - cosine**2)
    assert mean_cannot_fall(3.0 * frames)
    assert float(rate(jnp.asarray(frames))) > 0
    assert float(temporal_loss(frames)) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: falling_frames(3), "num_frames = 3; at least 4 are needed: with 3 a positive mean never falls"),
        (lambda: falling_frames(4, 1), "dimension = 1"),
        (lambda: mean_cannot_fall(np.eye(2)), "num_frames = 2"),
        (lambda: mean_cannot_fall(np.diag([1.0, 2.0, 1.0])), "norms lie between 1 and 2; one positive norm is needed"),
        (lambda: mean_cannot_fall(np.diag([1.0, 0.0, 1.0])), "norms lie between 0 and 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
