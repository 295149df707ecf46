"""The Polyak-Lojasiewicz inequality for more frames than the ladder searches, and the linear rate of descent."""

import functools

import jax
import numpy as np
import pytest

from theory.descent import descend, feature_step_limit, gradient_dominance
from theory.descent.instances import chain
from theory.descent.polyak import PROBLEM, linear_loss_bound
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


def test_linear_rate_holds_for_ever_from_an_explicit_neighbourhood():
    """Hundreds of starts with nearly constant similarities, at the largest loss that is admitted or below it."""
    num_frames, dimension, count, num_steps = 5, 3, 300, 400
    generator = np.random.default_rng(0)
    levels = generator.uniform(-0.8, 0.8, size=(count, 1))
    ripples = levels + 10.0 ** generator.uniform(-4, -1.5, size=(count, 1)) * generator.normal(size=(count, num_frames - 1))
    turns = generator.normal(size=(count, num_frames - 1, dimension - 1))
    units = np.asarray(jax.jit(jax.vmap(chain))(np.clip(ripples, -1, 1), turns))
    frames = generator.uniform(1, 1.3, size=(count, num_frames, 1)) * units
    norms = np.linalg.norm(frames, axis=-1)
    steps = np.array([generator.uniform(0.1, 0.7) * feature_step_limit(num_frames, least) for least in norms.min(axis=1)])
    cosines = np.asarray(jax.vmap(similarities)(frames))
    largest = np.max(np.abs(cosines), axis=1)
    runs = jax.vmap(functools.partial(descend, num_steps=num_steps))(frames, steps)
    losses, ends = np.asarray(runs.losses), np.asarray(jax.vmap(similarities)(runs.features))
    admitted = 0
    for index in range(count):
        arguments = (num_frames, float(losses[index, 0]), norms[index].min(), norms[index].max(), largest[index], steps[index])
        try:
            promised = [linear_loss_bound(*arguments, k) for k in range(num_steps + 1)]
        except ValueError as refused:
            assert "initial_loss" in str(refused)
            continue
        admitted += 1
        # Similarities carry a rounding of their own size into the square root of the loss.
        assert np.all(np.sqrt(losses[index]) <= np.sqrt(promised) + relative_budget(16 * num_steps))
        assert np.max(np.abs(ends[index])) <= (1 + largest[index]) / 2
        assert promised[-1] < 0.9 * promised[0]
    assert 50 < admitted < count


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"initial_loss": 0.1}, "initial_loss = 0.1; it must be at most"),
        ({"initial_loss": float("nan")}, "initial_loss = nan"),
        ({"largest_similarity": 1.0}, "largest_similarity = 1.0"),
        ({"max_norm": 0.5}, "max_norm = 0.5"),
        ({"step_size": 1.0}, "step_size = 1.0; it must lie in"),
        ({"step_size": float("nan")}, "step_size = nan"),
        ({"num_steps": -1}, "num_steps = -1"),
        ({"min_norm": 0.0}, "min_norm = 0.0"),
    ],
)
def test_bad_arguments_of_the_linear_rate(changed, message):
    good = {
        "num_frames": 4,
        "initial_loss": 1e-5,
        "min_norm": 1.0,
        "max_norm": 1.2,
        "largest_similarity": 0.3,
        "step_size": 0.05,
        "num_steps": 10,
    }
    assert 0 < linear_loss_bound(**good) < 1e-5
    with pytest.raises(ValueError, match=message):
        linear_loss_bound(**good | changed)


def test_too_few_frames():
    with pytest.raises(ValueError, match="num_frames = 2; at least 3"):
        gradient_dominance(2)
