r"""A step of any size: what it can gain or lose, from the norm that each frame has now; so descent settles for every
eta.

Statement. Let F be N >= 3 frames with ||F_t|| >= r_t > 0, and F' = F - eta grad L(F) with any eta > 0. With x_t = eta
||grad_t L|| / r_t and psi(x) = x arctan x - log(1 + x^2) / 2,

    L(F') - L(F) + \eta \|\nabla L(F)\|^2 \le C^+_N \sum_t \psi(x_t) \le \frac{C^+_N}{2} \sum_t x_t^2,

with C+_N of C1.upper-curvature. Every frame enters with its own norm, and a long step with psi(x) ~ pi x / 2 only. So
along descent with one eta, from norms r_t, with z_t = eta C+_N / (2 r_t^2):

* a frame raises the loss only while z_t > 1; from where all z_t <= 1 descent is monotone;
* the total ascent is finite, at most A = sum over z_t > 1 of (C+_N/2) (log z_t - 1 + 1/z_t) + 2 G_N^2 z_t (z_t - 1) /
  C+_N, and at most (4 + C+_N psi(1)) times the sum over z_t > 1 of 1 + log_2 z_t, which grows like log eta;
* the norms are bounded, the gradient tends to 0, and the loss converges to a critical value.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= r_t > 0 for every frame t.

**Approached** in dimension d >= 2 as all x_t -> 0, at small displacements of frames with s = 0, u_{t+2} = -u_t, whatever the
norm: the constant C+_N cannot be lowered. For long steps psi is an upper bound and not the best one: for N = 3 the function
psi(lambda x) / lambda^2 is false for lambda^2 > 10, and no search has broken it for lambda = 2.

In the paper: not there; its range of learning rates is read as 0 < eta < 2/L, and this says what happens outside.
Proof: paper_notes.md, section C2.any-step.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.descent.feature_descent import (
    WITNESS_OFFSET,
    check_step_size,
    draw_start,
    scaled_step,
    similarity_expansion,
    slopes,
    steepest_frames,
)
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.upper_curvature import upper_curvature_constant

SIZES = instances.SIZES[:2]


def _check_norms(norms: Any) -> np.ndarray:
    array = np.asarray(norms, np.float64)
    if array.ndim != 1:
        raise ValueError(f"norms have shape {array.shape}; one norm for each frame is needed")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        raise ValueError(
            f"frame {bad[0]} has norm {array[bad[0]]}; a finite number above 0 is needed: the loss has no gradient at a "
            "zero frame"
        )
    return array


def total_ascent_bound(norms: Any, step_size: float) -> float:
    """The sum of all increases of the loss along descent on the features, at most, for any step size.

        min( sum_{z_t > 1} (C/2)(log z_t - 1 + 1/z_t) + (2 G^2 / C) z_t (z_t - 1),
             (4 + C psi(1)) sum_{z_t > 1} (1 + log_2 z_t) ),   z_t = eta C / (2 r_t^2)

    with C = C+_N of C1.upper-curvature and G = G_N of C1.gradient. It is 0 where all z_t <= 1: descent is monotone.

    Args:
        norms: (frames,) r_t of the start.
        step_size: eta > 0.

    Source: paper_notes.md, C2.any-step.

    Raises:
        ValueError: fewer than 3 frames; a norm or the step size not a finite number above 0.
    """
    array = _check_norms(norms)
    check_step_size(step_size)
    return min(_integral_bound(array, step_size), _logarithmic_bound(array, step_size))


def _excess(norms: np.ndarray, step_size: float) -> tuple[float, np.ndarray]:
    constant = upper_curvature_constant(norms.size)
    ratios = step_size * constant / (2 * norms**2)
    return constant, ratios[ratios > 1]


def _integral_bound(norms: np.ndarray, step_size: float) -> float:
    constant, z = _excess(norms, step_size)
    overshoot = 2 * gradient_constant(norms.size) ** 2 / constant * z * (z - 1)
    return float(np.sum(constant / 2 * (np.log(z) - 1 + 1 / z) + overshoot))


def _logarithmic_bound(norms: np.ndarray, step_size: float) -> float:
    constant, z = _excess(norms, step_size)
    return float((4 + constant * (math.pi / 4 - math.log(2) / 2)) * np.sum(1 + np.log2(z)))


def norm_bound(norms: Any, step_size: float) -> float:
    """A bound on every norm that descent on the features reaches, for any step size.

        r^2 <= max(max_t r_t^2, eta C) + eta^2 G^2 / min_t r_t^2 + 2 eta (4 + A_1)

    with A_1 the first of the two bounds on the total ascent.

    Args, raises: as `total_ascent_bound`. Source: paper_notes.md, C2.any-step.
    """
    array = _check_norms(norms)
    check_step_size(step_size)
    constant, steepest = upper_curvature_constant(array.size), gradient_constant(array.size)
    jump = (step_size * steepest / np.min(array)) ** 2
    settled = max(float(np.max(array)) ** 2, step_size * constant)
    return math.sqrt(settled + float(jump) + 2 * step_size * (4 + _integral_bound(array, step_size)))


def relative_spread(relative_step: jax.Array) -> jax.Array:
    """2 psi(x) / x^2 = 2 int_0^1 (1 - tau) / (1 + tau^2 x^2) dtau, from 1 at x = 0 down to 0; by its series where psi
    cancels."""
    small = relative_step < 0.25
    inside, outside = jnp.where(small, relative_step, 0.0), jnp.where(small, 1.0, relative_step)
    # 1 - x^2/6 + x^4/15 - ..: the 13th term is below 1e-16 at x = 1/4.
    orders = np.arange(11, -1, -1)
    series = jnp.polyval(jnp.asarray((-1.0) ** orders / ((orders + 1) * (2 * orders + 1))), inside**2)
    closed = 2 * (outside * jnp.arctan(outside) - jnp.log1p(outside**2) / 2) / outside**2
    return jnp.where(small, series, closed)


def step_remainder(instance: Instance) -> jax.Array:
    """[L(F') - L(F) + eta ||grad L||^2] / eta'^2, eta' = eta max |grad L|, without cancellation; 0 for a negative one,
    where a step gains more than promised."""
    direction, scaled = scaled_step(instance["frames"], instance["step_size"])
    _, _, weights = slopes(instance["frames"])
    first, second = similarity_expansion(instance["frames"], direction, scaled)
    return jnp.maximum(jnp.sum(weights * second) + jnp.mean(jnp.diff(first + scaled * second) ** 2), 0.0)


def _bound(instance: Instance, power: int = 1, early: float = 1.0) -> jax.Array:
    """C+_N sum_t psi(x_t) / eta'^2."""
    direction, scaled = scaled_step(instance["frames"], instance["step_size"])
    lengths = jnp.sqrt(jnp.sum(direction**2, axis=1)) / instance["least_norms"] ** power
    spread = relative_spread(early * scaled * lengths)
    return upper_curvature_constant(lengths.shape[0]) / 2 * jnp.sum(lengths**2 * spread)


def _largest_norm_for_all(instance: Instance) -> jax.Array:
    norms = instance["least_norms"]
    return _bound(dict(instance) | {"least_norms": jnp.full_like(norms, jnp.max(norms))})


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """A start of known norms, and a step size from e^-12 to e^12 times the limit."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=dimension)
    frames = start["frames"]
    limit = 2 * start["min_norm"] ** 2 / upper_curvature_constant(num_frames)
    return {
        "frames": frames,
        "least_norms": jnp.sqrt(jnp.sum(frames**2, axis=1)),
        "step_size": limit * jnp.exp(12 * jnp.tanh(parameters["step"] / 4)),
    }


def _operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from the frames to either side, at the size of the bound.

    A gradient, norms, projections and the expansion: dot products over d coordinates with a bounded number of
    operations around each (counted as 32 (d + N)). A long step divides the terms of the expansion by the growth of the
    norms, as it does the bound, but by one power of it fewer; the loss is at most 4 then, and the bound at least x
    arctan x.
    """
    return 8 * 32 * (dimension + num_frames)


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw_start,
    instance=_instance,
    measured=step_remainder,
    bound=_bound,
    operations=_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The steepest start, at ten times the step limit."""
    return {
        "frames": jnp.asarray(steepest_frames(num_frames, dimension, WITNESS_OFFSET)),
        "least_norms": jnp.ones(num_frames),
        "step_size": jnp.asarray(20 / upper_curvature_constant(num_frames)),
    }


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    frames = steepest_frames(num_frames, dimension, WITNESS_OFFSET)
    return {**instances.parameters_of(frames), "step": 4 * jnp.arctanh(jnp.log(jnp.asarray(10.0)) / 12)}


def _one_short_frame() -> Outcome:
    instance = dict(witness(**dict(SIZES[0])))
    instance["frames"] = instance["frames"].at[1].multiply(0.5)
    return PROBLEM.outcome(instance, SIZES[0], "one frame of half its norm")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """One step on the network's features, at the limit of C2.descent, at ten times and at a thousand times it."""
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        limit = 2 * start["min_norm"] ** 2 / upper_curvature_constant(dict(size)["num_frames"])
        for multiple in (1.0, 10.0, 1000.0):
            instance = {
                "frames": start["frames"],
                "least_norms": jnp.sqrt(jnp.sum(start["frames"] ** 2, axis=1)),
                "step_size": multiple * limit,
            }
            outcomes.append(PROBLEM.outcome(instance, size, f"{label}, {multiple:g} times the step limit"))
    return outcomes


def _first_differences(instance: Instance) -> jax.Array:
    num_frames = instance["least_norms"].shape[0]
    first = np.linalg.norm(np.diff(np.eye(num_frames), axis=0), 2) ** 2 * 2 / (num_frames - 2)
    return first / upper_curvature_constant(num_frames) * _bound(instance)


def _longest_steps(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after a recorded step of six over the curvature along the gradient, beside the loss before it."""
    record = max(recorded.runs(evidence, "long"), key=lambda run: run.step_size)
    return [recorded.compared(record.label, recorded.loss_of_features(record, 1), record.temporal_losses[0])]


CLAIM = Claim(
    id="C2.any-step",
    title="What a step of any size can do, and why descent settles for every step size",
    statement=(
        "A step of any size eta changes the loss by at most -eta times the squared gradient plus C+_N times the sum of "
        "psi(eta ||grad_t L|| / ||F_t||). So for every eta the loss rises by a finite amount in total, the norms stay "
        "bounded and the loss converges to a critical value."
    ),
    latex=(
        r"L(F-\eta\nabla L) - L(F) + \eta\|\nabla L\|^2 \le "
        r"C^+_N\sum_t\psi\Bigl(\frac{\eta\|\nabla_tL\|}{\|F_t\|}\Bigr),"
        r"\quad \psi(x) = x\arctan x - \tfrac12\log(1+x^2)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= r_t > 0 for every frame t, with r_t in the place of ||F_t|| in the bound."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "what a step loses against -eta ||g||^2, [L(F') - L(F) + eta ||g||^2], over the square of its longest entry; "
        "0 where it gains"
    ),
    bound_in_words="C+_N sum_t psi(eta ||grad_t L|| / r_t), over the same square",
    sharpness=(
        "approached at every N, in dimension d >= 2, as all eta ||grad_t L|| / r_t tend to 0; for long steps psi is "
        "an upper bound and the best function is not known"
    ),
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "the largest norm for every frame": _largest_norm_for_all,
        "a step counted as four times as long": functools.partial(_bound, early=4.0),
        "first differences for second": _first_differences,
        "root of the norms": functools.partial(_bound, power=0.5),
    },
    reality=(
        Comparison(
            question=(
                "On the UNet's features, does a step of 1, 10 and 1000 times the limit of C2.descent lose no more "
                "than C+_N sum_t psi against its first order?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.any-step; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does a recorded step on the adapter of 6 over the curvature along its gradient, three times where a "
                "quadratic stops falling, still lower the loss of the "
                "features?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_longest_steps,
        ),
    ),
    relies_on=("C1.upper-curvature", "C1.gradient"),
    lemmas=("Taylor's formula with integral remainder",),
    floor=0.999,
    floor_reason="the supremum is approached as the step shortens, at frames where the similarities vanish",
)
