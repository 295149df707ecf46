"""The Polyak-Lojasiewicz inequality for more frames than the ladder searches, and the linear rate of descent."""

import functools

import jax
import numpy as np
import pytest

from theory.descent import descend, feature_step_limit, gradient_dominance
from theory.descent.polyak import PROBLEM
from theory.rounding import relative_budget
from theory.search import draw, evaluate
from theory.temporal_loss import hessian_constant, similarities


def test_constant_of_three_frames():
    assert gradient_dominance(3) == pytest.approx(8, rel=relative_budget(16))


@pytest.mark.parametrize("num_frames", [4, 8])
def test_inequality_on_thousands_of_instances(num_frames):
    size = (("num_frames", num_frames), ("dimension", 3))
    measured, bound = evaluate(PROBLEM, size, draw(PROBLEM, size, 0, 4000))
    assert np.all(measured <= bound * (1 + PROBLEM.budget(size)))


def test_descent_is_linear_while_the_similarities_stay_away_from_one():
    num_frames, num_steps = 4, 200
    size = (("num_frames", num_frames), ("dimension", 3))
    starts = jax.vmap(functools.partial(PROBLEM.instance, **dict(size)))(draw(PROBLEM, size, 1, 50))
    for frames in np.asarray(starts["frames"]):
        step_size = 0.5 * feature_step_limit(num_frames, float(np.linalg.norm(frames, axis=1).min()))
        run = descend(frames, step_size, num_steps)
        # The inequality at every iterate in turn, with that iterate's own sigma and R.
        iterates = [frames, *(descend(frames, step_size, k).features for k in (1, 10, 100))]
        for k, iterate in zip((0, 1, 10, 100), iterates, strict=True):
            sigma = float(np.min(1 - np.asarray(similarities(iterate)) ** 2))
            least, largest = float(run.norms[0].min()), float(run.norms[k].max())
            rate = gradient_dominance(num_frames) * sigma / largest**2 * step_size
            shrink = 1 - rate * (1 - step_size * hessian_constant(num_frames) / (2 * least**2))
            # Similarities carry a rounding of their own size into the square root of the loss.
            before, after = float(run.losses[k]) ** 0.5, float(run.losses[k + 1]) ** 0.5
            assert after <= before * shrink**0.5 + relative_budget(16 * 7)


def test_too_few_frames():
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        gradient_dominance(2)
