"""The gradient's constant: its exact value at N = 3, its reduced problem, and the inequalities of its proof."""

import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from theory.rounding import relative_budget
from theory.temporal_loss import gradient_constant
from theory.temporal_loss.gradient import PROBLEM, frames_of, gradient_norm, largest_gradient

# "Observed" in the docstring: found by a separate search over the cube, recorded to all the digits shown.
OBSERVED = {4: 4.52133, 5: 4.03214, 6: 3.62275, 7: 3.31065, 8: 3.06419, 9: 2.86431, 10: 2.69841}


def test_three_frames_exactly():
    """s = (1, -1) / sqrt(2) gives ||grad L||^2 = 8 delta^2 (S_1^2 + S_2^2 + S_1 S_2) = 8 * 2 * 3/2 = 24."""
    frames = frames_of(np.asarray([1.0, -1.0]) / math.sqrt(2))
    outcome = PROBLEM.outcome({"frames": jnp.asarray(frames), "min_norm": jnp.asarray(1.0)}, PROBLEM.sizes[0], "N = 3")
    assert outcome.attains
    assert gradient_constant(3) == 2 * math.sqrt(6)


@pytest.mark.parametrize("num_frames", [3, *OBSERVED, 16, 40])
def test_reduced_problem_is_the_gradient_of_real_frames(num_frames):
    found = largest_gradient(num_frames)
    measured = float(gradient_norm(jnp.asarray(frames_of(found.similarities))))
    # Angles are summed along the frames, so their rounding grows with N before the gradient's own.
    assert abs(measured - found.value) <= relative_budget(64 * num_frames) * found.value
    assert 0.94 <= found.value / gradient_constant(num_frames) <= 1 + relative_budget(64 * num_frames)


@pytest.mark.parametrize("num_frames", OBSERVED)
def test_observed_values(num_frames):
    assert round(largest_gradient(num_frames).value, 5) == OBSERVED[num_frames]


@hypothesis.given(hnp.arrays(np.float64, st.integers(3, 8), elements=st.floats(-1, 1)))
def test_sum_of_squares_step_of_the_proof(similarities):
    """sum_t (D^T D s)_t^2 (1 - s_t^2) <= 4N - 37/4 for N >= 4, the step that needs the end pairs to count 27/8 and the
    inner ones 4."""
    num_frames = len(similarities) + 1
    difference = np.diff(np.eye(len(similarities)), axis=0)
    total = float(np.sum((difference.T @ difference @ similarities) ** 2 * (1 - similarities**2)))
    hypothesis.target(total / (4 * num_frames - 37 / 4))
    assert total <= (4 * num_frames - 37 / 4) * (1 + relative_budget(16 * num_frames))


def test_sum_of_squares_step_is_attained_at_four_frames():
    similarities = np.asarray([-1.0, 0.5, -1.0])
    difference = np.diff(np.eye(3), axis=0)
    assert float(np.sum((difference.T @ difference @ similarities) ** 2 * (1 - similarities**2))) == 27 / 4


@pytest.mark.parametrize("num_frames", [3, 4, 7, 100, 10_000])
def test_simple_form(num_frames):
    assert gradient_constant(num_frames) < 8 / math.sqrt(num_frames - 2)


def test_frames_of_has_these_similarities():
    similarities = np.asarray([0.3, -0.9, 1.0, -1.0, 0.0])
    frames = frames_of(similarities, dimension=4)
    assert frames.shape == (6, 4)
    assert np.max(np.abs(np.sum(frames[:-1] * frames[1:], axis=1) - similarities)) <= relative_budget(64)


@pytest.mark.parametrize("function", [gradient_constant, largest_gradient])
def test_too_few_frames(function):
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        function(2)


def test_a_line_is_refused():
    with pytest.raises(ValueError, match="dimension = 1; at least 2"):
        frames_of(np.zeros(2), dimension=1)
