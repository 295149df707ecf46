"""Random and adversarial search on a claim's inequality, batched and jitted in JAX. One implementation for all claims."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.problem import Outcome, Parameters, Problem, Size

FIRST_MOMENT_DECAY = 0.9
SECOND_MOMENT_DECAY = 0.99
INITIAL_STEP = 0.1
BATCH = 512
"""Instances evaluated side by side. One number for all, because every other one would be another program to compile."""


def _sides(problem: Problem, size: Size, parameters: Parameters) -> tuple[jax.Array, jax.Array]:
    instance = problem.instance(parameters, **dict(size))
    return problem.measured(instance), problem.bound(instance)


@functools.lru_cache(maxsize=None)
def _evaluator(problem: Problem, size: Size):
    return jax.jit(jax.vmap(functools.partial(_sides, problem, size)))


@functools.lru_cache(maxsize=None)
def _drawer(problem: Problem, size: Size):
    return jax.jit(jax.vmap(lambda key: problem.draw(key, **dict(size))))


def draw(problem: Problem, size: Size, seed: int, count: int) -> Parameters:
    """`count` random parameters, stacked along axis 0; the same seed gives the same parameters."""
    return _drawer(problem, size)(jax.random.split(jax.random.key(seed), count))


def evaluate(problem: Problem, size: Size, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of the inequality on a batch.

    Args:
        parameters: as `draw` returns them, stacked along axis 0.

    Returns:
        measured, bound: each (count,) float64.

    Raises:
        ArithmeticError: if either side is NaN or infinite anywhere; a search must not step over such an instance in silence.
    """
    measured, bound = (np.asarray(side) for side in _evaluator(problem, size)(parameters))
    bad = np.flatnonzero(~(np.isfinite(measured) & np.isfinite(bound)))
    if bad.size:
        first = int(bad[0])
        raise ArithmeticError(
            f"size {dict(size)}: {bad.size} of {measured.size} instances are not finite, the first at {first} "
            f"(measured {measured[first]}, bound {bound[first]})"
        )
    return measured, bound


def select(problem: Problem, size: Size, parameters: Parameters, index: int, label: str, seed: int | None) -> Outcome:
    """The outcome of one member of a batch, re-evaluated outside the batched program."""
    return problem.outcome_of(jax.tree.map(lambda leaf: np.asarray(leaf)[index], parameters), size, label, seed)


@functools.lru_cache(maxsize=None)
def _ascender(problem: Problem, size: Size, steps: int):
    """Multi-start ascent on log(measured / bound) by Adam with a cosine-annealed step, keeping the best point of every start."""

    def objective(parameters: Parameters) -> jax.Array:
        measured, bound = _sides(problem, size, parameters)
        return jnp.log(measured) - jnp.log(bound)

    def one_start(parameters: Parameters) -> tuple[Parameters, jax.Array]:
        def step(state: Any, index: jax.Array):
            current, first, second, best, best_value = state
            value, gradient = jax.value_and_grad(objective)(current)
            # A start that reaches a kink has a gradient that is not finite: it keeps its best point and takes a zero step.
            gradient = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), gradient)
            better = value > best_value
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)
            best_value = jnp.where(better, value, best_value)
            first = jax.tree.map(lambda m, g: FIRST_MOMENT_DECAY * m + (1 - FIRST_MOMENT_DECAY) * g, first, gradient)
            second = jax.tree.map(lambda v, g: SECOND_MOMENT_DECAY * v + (1 - SECOND_MOMENT_DECAY) * g * g, second, gradient)
            size_now = INITIAL_STEP * 0.5 * (1 + jnp.cos(jnp.pi * index / steps))
            first_correction = 1 - FIRST_MOMENT_DECAY ** (index + 1)
            second_correction = 1 - SECOND_MOMENT_DECAY ** (index + 1)
            current = jax.tree.map(
                lambda p, m, v: p + size_now * (m / first_correction) / (jnp.sqrt(v / second_correction) + 1e-12),
                current, first, second,
            )
            return (current, first, second, best, best_value), None

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        start = (parameters, zeros, zeros, parameters, jnp.asarray(-jnp.inf))
        (_, _, _, best, best_value), _ = jax.lax.scan(step, start, jnp.arange(steps, dtype=jnp.float64))
        return best, best_value

    return jax.jit(jax.vmap(one_start))


def maximise(
    problem: Problem, size: Size, *, seed: int, starts: int = 48, steps: int = 250, label: str = "attack"
) -> tuple[Outcome, np.ndarray]:
    """Multi-start gradient ascent on measured / bound.

    Args:
        seed: of the starting points.
        starts, steps: how many ascents run side by side, and how long.

    Returns:
        The best outcome with its instance, and the best ratio of every start, (starts,) float64.
    """
    drawn = draw(problem, size, seed, max(starts, BATCH))
    parameters, _ = _ascender(problem, size, steps)(jax.tree.map(lambda leaf: np.asarray(leaf)[:starts], drawn))
    # Repeated to a full batch, whose program is compiled already.
    filled = jax.tree.map(lambda leaf: np.resize(leaf, (max(starts, BATCH), *leaf.shape[1:])), parameters)
    measured, bound = (side[:starts] for side in evaluate(problem, size, filled))
    ratios = measured / bound
    return select(problem, size, parameters, int(np.argmax(ratios)), label, seed), ratios
