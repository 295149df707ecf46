"""The counterexample in numbers, the search's own, and the promise on a ball over whole runs."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.claim import attack
from theory.descent.adapter import derivative_bounds, recorded_adapter
from theory.descent.lora import (
    AS_STATED,
    CLAIM,
    LEARNING_RATE,
    REPAIRED,
    SLOPE,
    counterexample,
    largest_radius,
    parameter_gradient,
    safe_ball,
    step,
    worst_curvature,
)
from theory.rounding import relative_budget
from theory.search import draw, evaluate
from theory.temporal_loss import hessian_constant, temporal_loss

LARGER = (("num_frames", 5), ("outputs", 3), ("positions", 1), ("extra", 2), ("rank", 2))


def precise_loss_of_product(p) -> mpmath.mpf:
    """(h(1-p) - h(p))^2, h(p) = p / sqrt(1 + p^2): the loss of the counterexample, by hand."""
    return ((1 - p) / mpmath.sqrt(1 + (1 - p) ** 2) - p / mpmath.sqrt(1 + p**2)) ** 2


def test_loss_depends_on_the_product_and_norms_stay_above_one():
    start = counterexample(1.0, 2.0)
    for p in (-3.0, 0.0, 0.4, 1.0, 7.0):
        frames = np.array([[1.0, p], [0.0, 1.0], [-1.0, 1.0 - p]])
        moved = start["frames"] + jnp.einsum("oi,tip->top", jnp.asarray([[p / 2]]) @ start["down"], start["inputs"])
        np.testing.assert_array_equal(moved[:, 0, :], frames)
        assert np.min(np.linalg.norm(frames, axis=1)) >= 1
        expected = float(precise_loss_of_product(p))
        assert float(temporal_loss(frames)) == pytest.approx(expected, abs=4 * relative_budget(32))


def test_exact_numbers_of_the_counterexample():
    """At eta = 1e-4 and a = 79 the first step goes from p = 0 to 1.19466, the loss from 0.5 to 0.91755."""
    instance = counterexample(1e-4, 79.0)
    after, _ = jax.jit(step)(instance, 1e-4)
    with mpmath.workdps(30):
        slope = mpmath.diff(precise_loss_of_product, 0)
        p = -slope * mpmath.mpf("1e-4") * 79**2
        expected = [precise_loss_of_product(mpmath.mpf(0)), precise_loss_of_product(p)]
        assert abs(slope + mpmath.sqrt(2) + mpmath.mpf(1) / 2) < mpmath.mpf(10) ** -12
    assert float(after["up"][0, 0] * after["down"][0, 0]) == pytest.approx(float(p), rel=relative_budget(64))
    losses = [float(temporal_loss(one["frames"])) for one in (instance, after)]
    np.testing.assert_allclose(losses, [float(x) for x in expected], rtol=relative_budget(256))
    assert [round(loss, 5) for loss in losses] == [0.5, 0.91755]


@pytest.mark.parametrize("step_size", [1e-12, 1e-4, 1.0, 1e3])
def test_every_learning_rate_fails_just_beyond_its_own_threshold(step_size):
    """The loss rises for a^2 > 1 / (SLOPE eta) and falls below it."""
    for share, rises in ((1.01, True), (0.99, False)):
        start = counterexample(step_size, math.sqrt(share / (SLOPE * step_size)))
        after, curvature = jax.jit(step)(start, step_size)
        assert bool(temporal_loss(after["frames"]) > temporal_loss(start["frames"])) is rises
        assert bool(curvature > 2 / step_size) is rises


def test_features_are_far_from_their_own_limit():
    """The same step taken on the features, all of norm at least 1, is below a thousandth of their limit."""
    assert LEARNING_RATE < 1e-3 * 2 / hessian_constant(3)


@pytest.mark.xdist_group(CLAIM.id)  # where the search has been made already
def test_search_finds_a_start_whose_loss_rises():
    (found,) = attack(CLAIM)
    assert found.ratio > 1
    after, _ = step({name: jnp.asarray(value) for name, value in found.witness.items()}, LEARNING_RATE)
    assert float(temporal_loss(after["frames"])) > float(temporal_loss(found.witness["frames"]))


def test_gradient_and_curvature_are_those_of_the_loss():
    """Against automatic differentiation of F + [(B + dB)(A + dA) - B A] X, and the definition where it does not
    cancel."""
    parameters = draw(AS_STATED, LARGER, 2, 100)
    drawn = jax.jit(jax.vmap(functools.partial(AS_STATED.instance, **dict(LARGER))))(parameters)

    def sides(one):
        def loss(changes):
            down, up = one["down"] + changes[0], one["up"] + changes[1]
            update = up @ down - one["up"] @ one["down"]
            return temporal_loss(one["frames"] + jnp.einsum("oi,tip->top", update, one["inputs"]))

        still = jnp.zeros_like(one["down"]), jnp.zeros_like(one["up"])
        closed, automatic = parameter_gradient(one), jax.grad(loss)(still)
        jacobian, second = derivative_bounds(one["inputs"], one["down"], one["up"])
        # A step that moves the features by a tenth of the least norm.
        length = jnp.sqrt(sum(jnp.sum(part**2) for part in closed))
        eta = 0.1 * one["min_norm"] / (jacobian * length)
        after, curvature = step(one, eta)
        defined = temporal_loss(after["frames"]) - temporal_loss(one["frames"]) + eta * length**2
        error = jnp.maximum(*(jnp.max(jnp.abs(a - b)) for a, b in zip(closed, automatic, strict=True)))
        return error, jacobian / one["min_norm"], curvature * (eta * length) ** 2 / 2, defined

    error, scale, closed, defined = map(np.asarray, jax.jit(jax.vmap(sides))(drawn))
    assert np.all(error <= relative_budget(1024) * scale)
    # Both sides are changes of losses of size at most 4 with similarities of size 1.
    assert np.max(np.abs(closed - defined)) <= 64 * relative_budget(256)
    assert np.max(np.abs(defined)) > 1e-3


def test_promise_of_the_ball_over_whole_runs():
    """Hundreds of starts, each run for as many steps as its ball covers (at most 200): monotone, inside, curvature
    below L_B."""
    steps = 200
    parameters = draw(REPAIRED, LARGER, 4, 300)
    drawn = jax.jit(jax.vmap(functools.partial(REPAIRED.instance, **dict(LARGER))))(parameters)

    def run(one):
        jacobian, second = derivative_bounds(one["inputs"], one["down"], one["up"])

        def follow(current, _):
            after, curvature = step(current, one["step_size"])
            distance = jnp.sqrt(jnp.sum((after["down"] - one["down"]) ** 2) + jnp.sum((after["up"] - one["up"]) ** 2))
            least = jnp.sqrt(jnp.min(jnp.sum(after["frames"] ** 2, axis=(1, 2))))
            return after, (temporal_loss(after["frames"]), distance, least, curvature)

        _, recorded = jax.lax.scan(follow, one, None, length=steps)
        least = one["min_norm"] - jacobian * one["radius"] - second * one["radius"] ** 2 / 2
        return temporal_loss(one["frames"]), least, REPAIRED.bound(one), recorded

    start, least, bound, (losses, distances, norms, curvatures) = map(
        lambda tree: jax.tree.map(np.asarray, tree), jax.jit(jax.vmap(run))(drawn)
    )
    covered = np.floor(np.asarray(drawn["radius"]) ** 2 / (2 * np.asarray(drawn["step_size"]) * start)).astype(int)
    assert np.min(covered) >= 3 and np.max(covered) > steps
    inside = np.arange(1, steps + 1)[None, :] <= covered[:, None]
    losses = np.concatenate([start[:, None], losses], axis=1)
    assert np.max(np.where(inside, np.diff(losses, axis=1), -np.inf)) <= 64 * relative_budget(64)
    slack = 1 + relative_budget(steps * 256)
    assert np.all(~inside | (distances <= np.asarray(drawn["radius"])[:, None] * slack))
    assert np.all(~inside | (norms >= least[:, None] / slack))
    assert np.all(~inside | (curvatures <= bound[:, None] * slack))
    # Not for want of motion: some runs use up a good part of what they were granted.
    assert np.max(np.where(inside, distances, 0) / np.asarray(drawn["radius"])[:, None]) > 0.3


def test_repaired_curvature_for_a_larger_layer():
    measured, bound = evaluate(REPAIRED, LARGER, draw(REPAIRED, LARGER, 0, 1000))
    assert np.all(measured <= bound * (1 + REPAIRED.budget(LARGER)))


def test_ball_of_the_networks_own_layer(evidence):
    (record,) = evidence.adapters
    _, instance = recorded_adapter(record)
    jacobian, second = (float(x) for x in derivative_bounds(instance["inputs"], instance["down"], instance["up"]))
    radius = 0.1 * float(largest_radius(instance["min_norm"], jacobian, second))
    ball = safe_ball(record.outputs, instance["inputs"], record.down, record.up, radius)
    loss = float(temporal_loss(record.outputs))
    assert 0 < ball.min_norm < float(instance["min_norm"])
    assert ball.steps(loss) >= 1
    run = jax.jit(worst_curvature, static_argnames="num_steps")
    curvature = float(run(instance | {"step_size": ball.step_size}, num_steps=5))
    assert 0 < curvature <= ball.curvature


GOOD = tuple(np.asarray(counterexample(1.0, 2.0)[name]) for name in ("frames", "inputs", "down", "up"))


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf"), 5.0])
def test_bad_radius(radius):
    with pytest.raises(ValueError, match=r"radius = .*; it must lie in \(0, 0\.\d+\)"):
        safe_ball(*GOOD, radius)


def test_bad_arguments_of_the_number_of_steps():
    ball = safe_ball(*GOOD, 0.01)
    assert ball.steps(1.0) == math.floor(ball.radius**2 / (2 * ball.step_size))
    assert ball.step_size * ball.curvature <= 1
    for loss in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="loss = "):
            ball.steps(loss)
    for step_size in (0.0, 2 * ball.step_size, float("nan")):
        with pytest.raises(ValueError, match="step_size = "):
            ball.steps(1.0, step_size)
