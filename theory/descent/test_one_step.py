"""The descent lemma against its definition, against a solver for worst cases, and on the regularised temporal loss."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from theory.descent.expansion import averaged_curvature
from theory.descent.one_step import PROBLEM, regularised_step, slope, step_curvature, value, witness, worst_change
from theory.rounding import relative_budget
from theory.search import draw
from theory.temporal_loss import hessian_constant, temporal_loss

STEP_SIZES = (0.1, 0.5, 1.0, 1.5, 1.8, 1.95, 2.0, 2.1, 2.2)
"""In units of 1/L."""


@pytest.mark.parametrize("dimension", [1, 3])
def test_gradient_and_curvature_are_those_of_the_function(dimension):
    parameters = draw(PROBLEM, (("dimension", dimension),), 3, 200)
    drawn = jax.jit(jax.vmap(lambda one: PROBLEM.instance(one, dimension=dimension)))(parameters)

    def sides(instance):
        gradient, start = slope(instance, instance["start"]), instance["start"]
        moved, squared = start - instance["step_size"] * gradient, jnp.sum(gradient**2)
        change = value(instance, moved) - value(instance, start) + instance["step_size"] * squared
        # What is subtracted, for the rounding of the definition.
        waves = jnp.sum(jnp.abs(instance["wave"]) / instance["frequency"] ** 2)
        size = jnp.sum(jnp.abs(instance["quadratic"])) * (jnp.sum(start**2) + jnp.sum(moved**2)) + 2 * waves
        size = size + instance["step_size"] * squared
        half = instance["step_size"] ** 2 * squared / 2
        automatic = jax.grad(value, argnums=1)(instance, start)
        return gradient - automatic, step_curvature(instance), change / half, size / half, instance["smoothness"], start

    difference, closed, defined, size, smoothness, start = map(np.asarray, jax.jit(jax.vmap(sides))(drawn))
    scale = smoothness * (1 + np.max(np.abs(start), axis=1))
    # sin(w t + c) / w: the angle is rounded at the size of w t + c, which the division undoes.
    assert np.max(np.abs(difference) / scale[:, None]) <= relative_budget(64)
    slack = relative_budget(64) * size
    assert np.all(np.abs(closed - defined) <= slack + relative_budget(64) * smoothness)
    # Where the definition keeps its digits, which is what makes the comparison one.
    assert np.mean(slack < 1e-6 * smoothness) > 0.5


@pytest.mark.parametrize("eta_times_smoothness", [*STEP_SIZES, 5.0])
def test_the_parabola_attains_it_at_every_step_size(eta_times_smoothness):
    smoothness = 2.0
    instance = witness(dimension=1) | {"step_size": jnp.asarray(eta_times_smoothness / smoothness)}
    start, gradient = instance["start"], slope(instance, instance["start"])
    change = value(instance, start - instance["step_size"] * gradient) - value(instance, start)
    expected = worst_change(eta_times_smoothness / smoothness, smoothness) * float(jnp.sum(gradient**2))
    # f itself is rounded: at the start 1, after the step (1 - eta L)^2.
    assert abs(float(change) - expected) <= relative_budget(32) * (1 + (1 - eta_times_smoothness) ** 2)


@pytest.mark.parametrize("eta_times_smoothness", STEP_SIZES)
def test_worst_case_solver_finds_no_worse_function(eta_times_smoothness):
    """The semidefinite program over all L-smooth functions, in any dimension; it shares nothing with the proof.

    Its dual value is an upper bound on the worst case but for the solver's tolerance: the gap, and the multipliers
    times the residuals of the constraints, each at most `tolerance`. The parabola bounds the worst case from below,
    exactly.
    """
    from PEPit import PEP
    from PEPit.functions import SmoothFunction

    tolerance = 1e-8
    problem = PEP()
    function = problem.declare_function(SmoothFunction, L=1.0)
    start = problem.set_initial_point()
    gradient, before = function.oracle(start)
    after = function(start - eta_times_smoothness * gradient)
    # An equation: below the threshold a function with no gradient would be the worst.
    problem.set_initial_condition(gradient**2 == 1)
    problem.set_performance_metric(after - before)
    solver = {"solver": "CLARABEL", "tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance}
    upper = problem.solve(verbose=0, return_primal_or_dual="dual", **solver)
    assert (problem.wrapper.prob.status, problem.wrapper.solver_name) == ("optimal", "CLARABEL")
    lower = problem.objective.eval()
    multipliers = sum(abs(float(one.eval_dual())) for one in problem._list_of_constraints_sent_to_wrapper)
    slack = tolerance * (1 + abs(upper) + multipliers + float(np.trace(problem.residual)))
    exact = worst_change(eta_times_smoothness, 1.0)
    assert upper <= exact + slack, "the solver's bound exceeds the lemma's"
    assert upper >= exact - slack, "the solver's bound excludes the parabola"
    assert lower <= upper + slack
    assert slack < 1e-6


def test_sign_of_the_worst_change_turns_at_the_threshold():
    assert worst_change(1.999, 1.0) < 0 < worst_change(2.001, 1.0)
    assert worst_change(2.0, 1.0) == 0
    assert worst_change(2.2, 1.0) == pytest.approx(0.22, rel=relative_budget(8))


def precise_change(frames, direction, bend, step_size, epsilon):
    """Loss after the step, before it, and its derivative along the direction, in 60 digits from the definition."""

    def loss(shift):
        moved = [
            [mpmath.mpf(f) - shift * mpmath.mpf(v) + shift**2 * mpmath.mpf(q) for f, v, q in zip(*rows, strict=True)]
            for rows in zip(frames.tolist(), direction.tolist(), bend.tolist(), strict=True)
        ]
        norms = [mpmath.sqrt(sum(x * x for x in row) + mpmath.mpf(epsilon) ** 2) for row in moved]
        cosines = [
            sum(x * y for x, y in zip(moved[t], moved[t + 1], strict=True)) / (norms[t] * norms[t + 1])
            for t in range(len(moved) - 1)
        ]
        return sum((b - a) ** 2 for a, b in zip(cosines[:-1], cosines[1:], strict=True)) / (len(moved) - 2)

    small = mpmath.mpf(10) ** -20
    return loss(mpmath.mpf(step_size)), loss(mpmath.mpf(0)), (loss(small) - loss(-small)) / (2 * small)


@pytest.mark.parametrize("step_size", [1e-6, 0.3])
@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_curvature_along_a_parabola_is_its_definition_in_extended_precision(step_size, epsilon):
    frames, direction, bend = np.random.default_rng(0).normal(size=(3, 4, 3))
    squared = float(np.sum(direction**2))
    found = averaged_curvature(*map(jnp.asarray, (frames, direction, bend)), step_size, squared, epsilon)
    with mpmath.workdps(60):
        after, before, linear = precise_change(frames, direction, bend, step_size, epsilon)
        step = mpmath.mpf(step_size)
        exact = float(2 * (after - before - step * linear) / (step**2 * mpmath.mpf(squared)))
    # Its terms are products of up to four of the numbers ||V_t|| / ||F_t||, (||V_t||^2 + ||Q_t||) / ||F_t||^2.
    norms = np.linalg.norm(frames, axis=1)
    ratio = np.max(np.linalg.norm(direction, axis=1) / norms) + np.sqrt(np.max(np.linalg.norm(bend, axis=1) / norms))
    assert abs(float(found) - exact) <= relative_budget(256) * 64 * ratio**2 * (1 + step_size * ratio) ** 6 / squared


def test_regularised_loss_obeys_the_lemma_from_any_frames():
    """The one form of the temporal loss that is smooth everywhere, zero frames and steps across zero included."""
    generator = np.random.default_rng(1)
    frames = 10.0 ** generator.uniform(-2, 1, (500, 1, 1)) * generator.normal(size=(500, 5, 3))
    frames[::5, 2] = 0.0
    limit = 2 / hessian_constant(5)
    step = jax.jit(jax.vmap(regularised_step, in_axes=(0, None, None)))
    for multiple in (0.1, 1.0, 1.1):
        curvature = step(frames, 1.0, multiple * limit)
        assert float(jnp.max(curvature)) <= hessian_constant(5)
    after = frames - 0.999 * limit * np.asarray(jax.vmap(jax.grad(lambda x: temporal_loss(x, epsilon=1.0)))(frames))
    losses = jax.jit(jax.vmap(lambda x: temporal_loss(x, epsilon=1.0)))
    assert float(jnp.max(losses(after) - losses(frames))) <= 8 * relative_budget(128)


def test_theory_is_imported_without_the_solver():
    """Its import takes seconds, and only one test needs it."""
    command = "import sys, theory.descent.one_step; sys.exit(any(name in sys.modules for name in ('PEPit', 'cvxpy')))"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match="step_size = .* above 0"):
        worst_change(bad, 1.0)
    with pytest.raises(ValueError, match="smoothness = .* above 0"):
        worst_change(1.0, bad)
