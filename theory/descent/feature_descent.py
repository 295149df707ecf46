r"""Gradient descent on the features never leaves the region where its step size is safe: with a lower bound on the START alone, the loss
decreases for ever.

Statement. Let ||F_t^0|| >= m > 0 for the N >= 3 frames of the start, and F^{k+1} = F^k - eta grad L(F^k) with any eta >
0. The norms never decrease, the segment from F^k to F^{k+1} stays in {||F_t|| >= m}, and for every k

    L(F^k) - L(F^{k+1}) \ge \eta \Bigl(1 - \frac{\eta C^+_N}{2 m^2}\Bigr) \|\nabla L(F^k)\|^2,

with C+_N = (2/(N-2)) ||D_2||^2, the upper curvature of C1.upper-curvature. So for eta < 2 m^2 / C+_N the loss decreases
monotonically, for ever, with no upper bound on the norms. The inequality is checked in the equivalent form that does not
cancel: the curvature that the step sees,

    \kappa_k = \frac{2 \, [L(F^{k+1}) - L(F^k) + \eta \|\nabla L(F^k)\|^2]}{\eta^2 \|\nabla L(F^k)\|^2} \le
    \frac{C^+_N}{m^2}.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t^0|| >= m > 0 for every frame of the start.

**Approached** in dimension d >= 2, in the limit of a small displacement, by starts near s = 0, u_{t+2} = -u_t, displaced along the
stiffest direction. Above 2 m^2 / C+_N some start rises (theory/descent/threshold.py); what such steps can do is in
theory/descent/any_step.py.

In the paper: the monotone half of the convergence claim (C2), whose range of learning rates is read as 0 < eta < 2/L; L
there cannot be a bound over all features (C1). Proof: paper_notes.md, section C2.descent.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from theory.descent.instances import draw_normals, steepest_frames
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.loss import check_features, temporal_loss
from theory.temporal_loss.upper_curvature import upper_curvature_constant

STEPS = 4


class Descent(NamedTuple):
    """A run of gradient descent on features.

    Attributes:
        losses: (num_steps + 1,) loss of every iterate, the start included.
        norms: (num_steps + 1, frames) norms of the frames of every iterate.
        features: the last iterate, shaped like the start.
    """

    losses: jax.Array
    norms: jax.Array
    features: jax.Array


def _check_min_norm(min_norm: float) -> None:
    if not (math.isfinite(min_norm) and min_norm > 0):
        raise ValueError(f"min_norm = {min_norm}; a finite number above 0 is needed: the loss has no gradient at a zero frame")


def feature_step_limit(num_frames: int, min_norm: float) -> float:
    """The step size 2 / L, with L the Lipschitz constant of the gradient, below which descent on the features decreases the loss at every step.

        eta < 2 m^2 / C_N,   m the least norm of a frame of the start

    Source: paper_notes.md, C2.descent and C1.lipschitz. For more than three frames `exact_step_limit` is a little longer.

    Raises:
        ValueError: fewer than 3 frames; min_norm not a finite number above 0.
    """
    _check_min_norm(min_norm)
    return 2 * min_norm**2 / hessian_constant(num_frames)


def exact_step_limit(num_frames: int, min_norm: float) -> float:
    """The largest step size below which descent on the features decreases the loss at every step from every start of norms >= m.

        2 m^2 / C+_N,   C+_N the upper curvature; equal to `feature_step_limit` for three frames

    Source: paper_notes.md, C2.descent (below it) and C2.threshold (above it).

    Raises:
        ValueError: fewer than 3 frames; min_norm not a finite number above 0.
    """
    _check_min_norm(min_norm)
    return 2 * min_norm**2 / upper_curvature_constant(num_frames)


def check_run(num_frames: int, min_norm: float, max_norm: float, step_size: float, num_steps: int) -> float:
    """The step limit, after checking what a rate of descent is asked for.

    Raises:
        ValueError: see `feature_step_limit`; max_norm below min_norm or not finite; step_size outside (0, limit); num_steps < 0.
    """
    limit = feature_step_limit(num_frames, min_norm)
    if not min_norm <= max_norm < math.inf:
        raise ValueError(f"max_norm = {max_norm}; a finite number of at least min_norm = {min_norm} is needed")
    if not 0 < step_size < limit:
        raise ValueError(f"step_size = {step_size}; it must lie in (0, {limit:.6g}), below feature_step_limit")
    if num_steps < 0:
        raise ValueError(f"num_steps = {num_steps}; a number >= 0 is needed")
    return limit


def check_step_size(step_size: Any) -> None:
    """Raise ValueError unless the step size is one finite number above 0; under a JAX transformation only the shape is checked."""
    if np.ndim(step_size) != 0:
        raise ValueError(f"step_size has shape {np.shape(step_size)}; one number is needed (use jax.vmap for several)")
    if not isinstance(step_size, jax.core.Tracer) and not (math.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size = {step_size}; a finite learning rate above 0 is needed, descent is safe below feature_step_limit")


@functools.partial(jax.jit, static_argnames="num_steps")
def _descend(features: jax.Array, step_size: jax.Array, num_steps: int) -> Descent:
    def norms_of(frames: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.reshape(frames, (frames.shape[0], -1)) ** 2, axis=1))

    def step(frames: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        loss, gradient = jax.value_and_grad(temporal_loss)(frames)
        return frames - step_size * gradient, (loss, norms_of(frames))

    last, (losses, norms) = jax.lax.scan(step, features, None, length=num_steps)
    return Descent(
        jnp.concatenate([losses, temporal_loss(last)[None]]), jnp.concatenate([norms, norms_of(last)[None]]), last
    )


def descend(features: Any, step_size: float, num_steps: int) -> Descent:
    """Plain gradient descent on the temporal loss of the features.

        F^{k+1} = F^k - eta grad L(F^k)

    Compiled by JAX, once for every shape and number of steps; `jax.vmap(descend, in_axes=(0, None, None))` runs a
    batch.

    Args:
        features: (frames, ...) floating-point NumPy or JAX array, at least 3 frames, none of them zero.
        step_size: eta > 0; any is allowed, below `feature_step_limit` the losses never increase.
        num_steps: a number of steps >= 0.

    Returns:
        losses (num_steps + 1,), norms (num_steps + 1, frames) and the last features, in the dtype of the features.

    Raises:
        ValueError: bad features (see theory.temporal_loss); step_size not a finite number above 0, or so large that the
            features overflow; num_steps not an integer >= 0.
    """
    check_features(features)
    check_step_size(step_size)
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer) or num_steps < 0:
        raise ValueError(f"num_steps = {num_steps!r}; an integer >= 0 is needed")
    features = jnp.asarray(features)
    run = _descend(features, jnp.asarray(step_size, features.dtype), int(num_steps))
    if not isinstance(run.losses, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(run.losses)) & jnp.all(jnp.isfinite(run.norms))):
        # Norms cannot diverge (they converge for every step size), so only the range of the dtype can be at fault.
        raise ValueError(f"step_size = {step_size}: the features overflow {features.dtype}; take a smaller step size or rescale the features")
    return run


def slopes(frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Norms r, similarities s and y = dL/ds of (frames, dimension).

        y = 2/(N-2) D^T D s,   D the (N-2) x (N-1) difference matrix
    """
    norms = jnp.sqrt(jnp.sum(frames**2, axis=1))
    units = frames / norms[:, None]
    cosines = jnp.sum(units[1:] * units[:-1], axis=1)
    steps = jnp.pad(jnp.diff(cosines), 1)
    return norms, cosines, 2 / (frames.shape[0] - 2) * (steps[:-1] - steps[1:])


def gradient(frames: jax.Array) -> jax.Array:
    """Gradient of the temporal loss of (frames, dimension) in closed form, tangential to rounding.

        grad_t L = [y_{t-1} (u_{t-1} - s_{t-1} u_t) + y_t (u_{t+1} - s_t u_t)] / r_t
    """
    norms, _, weights = slopes(frames)
    units = frames / norms[:, None]
    pulled = jnp.zeros_like(frames).at[:-1].add(weights[:, None] * units[1:]).at[1:].add(weights[:, None] * units[:-1])
    # Twice: after one projection of a nearly radial pull what is left still points outwards by its own rounding error.
    for _ in range(2):
        pulled = pulled - jnp.sum(pulled * units, axis=1, keepdims=True) * units
    return pulled / norms[:, None]


def similarity_expansion(frames: jax.Array, direction: jax.Array, step_size: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The similarities after a tangential step, without cancellation.

        s(F - eta V) = s(F) + eta first + eta^2 second,   exactly, for <F_t, V_t> = 0

    With p = <F_t, F_{t+1}>, l = <V_t, F_{t+1}> + <F_t, V_{t+1}>, q = <V_t, V_{t+1}>, P = r_t r_{t+1} before and P_+
    after the step (||F_t - eta V_t||^2 = r_t^2 + eta^2 ||V_t||^2),

        first  = - l / P
        second = q / P_+ - (p - eta l) (P_+^2 - P^2) / (eta^2 P P_+ (P + P_+))

    Source: paper_notes.md, C2.descent.
    """
    squares, lengths = jnp.sum(frames**2, axis=1), jnp.sum(direction**2, axis=1)
    product = jnp.sum(frames[:-1] * frames[1:], axis=1)
    linear = jnp.sum(direction[:-1] * frames[1:] + frames[:-1] * direction[1:], axis=1)
    quadratic = jnp.sum(direction[:-1] * direction[1:], axis=1)
    grown = squares + step_size**2 * lengths
    before, after = jnp.sqrt(squares[:-1] * squares[1:]), jnp.sqrt(grown[:-1] * grown[1:])
    growth = squares[:-1] * lengths[1:] + squares[1:] * lengths[:-1] + step_size**2 * lengths[:-1] * lengths[1:]
    second = quadratic / after - (product - step_size * linear) * growth / (before * after * (before + after))
    return -linear / before, second


def scaled_step(frames: jax.Array, step_size: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Direction V and step eta' with eta' V = eta grad L and max |V| = 1, so that squares of a tiny gradient do not underflow."""
    direction = gradient(frames)
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(direction)))
    return direction / jnp.where(scale > 0, scale, 1.0), step_size * scale


def step_curvature(frames: jax.Array, step_size: jax.Array) -> jax.Array:
    """The curvature that a step of descent sees; 0 at a critical point, where there is no step.

        kappa = 2 [L(F - eta g) - L(F) + eta ||g||^2] / (eta^2 ||g||^2),   g = grad L(F)
              = 2 [<y, second> + |D (first + eta second)|^2 / (N-2)] / ||g||^2

    since L is quadratic in s and <y, first> = - ||g||^2. The loss falls exactly when eta kappa <= 2.

    Args:
        frames: (frames, dimension) JAX array.
        step_size: eta.
    """
    _, _, weights = slopes(frames)
    direction, scaled = scaled_step(frames, step_size)
    first, second = similarity_expansion(frames, direction, scaled)
    change = jnp.diff(first + scaled * second)
    squared = jnp.sum(direction**2)
    remainder = jnp.sum(weights * second) + jnp.mean(change**2)
    return 2 * remainder / jnp.where(squared > 0, squared, 1.0)


def _worst_curvature(instance: Instance):
    step_size = instance["step_size"]

    def step(frames: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return frames - step_size * gradient(frames), step_curvature(frames, step_size)

    _, curvatures = jax.lax.scan(step, instance["frames"], None, length=STEPS)
    # A step that sees negative curvature gains more than promised; 0 keeps the magnitude that is compared non-negative.
    return jnp.maximum(jnp.max(curvatures), 0.0)


def _bound(instance: Instance):
    return upper_curvature_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2


def draw_start(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Frames between a line and a cloud, norms and step; nearly collinear frames, whose gradient nearly vanishes, are common."""
    drawn = draw_normals(
        key,
        {
            "line": (1, dimension),
            "signs": (num_frames, 1),
            "cloud": (num_frames, dimension),
            "log_spread": (),
            "excess": (num_frames,),
            "log_min_norm": (),
            "step": (),
        },
    )
    spread = 10.0 ** (3 * drawn["log_spread"])
    directions = drawn["line"] * jnp.sign(drawn["signs"]) + spread * drawn["cloud"]
    return {"directions": directions} | {name: drawn[name] for name in ("excess", "log_min_norm", "step")}


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """A start of norms >= m and a step size up to twice the limit: the inequality holds beyond it, it only promises nothing there."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=dimension)
    limit = 2 * start["min_norm"] ** 2 / upper_curvature_constant(num_frames)
    return dict(start) | {"step_size": 2 * limit * jax.nn.sigmoid(parameters["step"])}


def _operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from the start to the curvature of the last step.

    One step is a chain of dot products over d coordinates, norms, two projections and a division (counted as 16 (d +
    N)); its curvature is another such chain; errors of one step reach the next multiplied by |1 - eta lambda| <= 5, for
    at most twice the limit.
    """
    return 5 ** (STEPS - 1) * 2 * 16 * (dimension + num_frames)


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=draw_start,
    instance=_instance,
    measured=_worst_curvature,
    bound=_bound,
    operations=_operations,
)


WITNESS_OFFSET = 1e-9
"""Small enough that the curvature differs from its limit by less than a rounding (the difference is quadratic in the offset)."""


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The steepest start with m = 1, at half the step limit."""
    return {
        "frames": jnp.asarray(steepest_frames(num_frames, dimension, WITNESS_OFFSET)),
        "min_norm": jnp.asarray(1.0),
        "step_size": jnp.asarray(exact_step_limit(num_frames, 1.0) / 2),
    }


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    frames = steepest_frames(num_frames, dimension, WITNESS_OFFSET)
    return {**instances.parameters_of(frames), "step": -jnp.log(jnp.asarray(3.0))}


def _one_short_frame() -> Outcome:
    size = instances.SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"].at[1].multiply(0.5)
    return PROBLEM.outcome(instance, size, "one frame of norm m / 2")


def _planted(power: int = 2, order: int = 2, square: int = 2, shift: int = 0):
    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        norm = float(np.linalg.norm(np.diff(np.eye(num_frames), n=order, axis=0), 2))
        return 2 / (num_frames - 2 + shift) * norm**square / instance["min_norm"] ** power

    return bound


def _every_step(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after each recorded step, beside what the lemma promises from the step before it, where eta kappa <= 1."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        for step in range(len(record.squared_gradients)):
            promised = record.temporal_losses[step] - record.step_size * record.squared_gradients[step] / 2
            outcomes.append(recorded.compared(f"step {step + 1} of the {record.label}", recorded.loss_of_features(record, step + 1), promised))
    return outcomes


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        limit = exact_step_limit(dict(size)["num_frames"], float(start["min_norm"]))
        for fraction in (0.5, 0.99):
            instance = dict(start) | {"step_size": jnp.asarray(fraction * limit)}
            outcomes.append(PROBLEM.outcome(instance, size, f"{label}, {fraction} of the step limit"))
    return outcomes


CLAIM = Claim(
    id="C2.descent",
    title="Descent on features is monotone for ever, from a lower bound on the start alone",
    statement=(
        "Gradient descent on the features never decreases a norm, so with m the least norm of the start every step of "
        "size eta lowers the "
        "loss by at least eta (1 - eta C+_N / (2 m^2)) times the squared gradient, for ever; some starts come as "
        "close to C+_N as one likes."
    ),
    latex=r"L(F^k) - L(F^{k+1}) \ge \eta\Bigl(1 - \frac{\eta C^+_N}{2m^2}\Bigr)\|\nabla L(F^k)\|^2,\quad m = \min_t\|F^0_t\|",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame of the start."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.APPROACHED,
    origin="repairs the monotone half of the paper's convergence claim",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "largest curvature that four steps of descent see, 2 (L_{k+1} - L_k + eta ||g||^2) / (eta^2 ||g||^2), in "
        "units of 1 / (feature norm)^2"
    ),
    bound_in_words="C+_N / m^2, m the least norm of a frame of the start, in the same units",
    sharpness=(
        "approached at every N, in dimension d >= 2, as the displacement from frames with s = 0, u_{t+2} = -u_t tends "
        "to 0"
    ),
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "m for m^2": _planted(power=1),
        "first differences for second": _planted(order=1),
        "||D_2|| for its square": _planted(square=1),
        "divisor N - 1 for N - 2": _planted(shift=1),
        "the largest norm for the least": lambda instance: _bound(instances.with_largest_norm(instance)),
    },
    reality=(
        Comparison(
            question=(
                "Is the curvature that four steps of descent on the UNet's features see, at 0.5 and 0.99 of the step "
                "limit, at most C+_N / m^2?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.descent; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does every recorded step of training the adapter on L, of half of 1 / curvature at the start, lower "
                "the loss of the features by at least half of eta "
                "||g||^2, g the gradient before the step?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_every_step,
        ),
    ),
    relies_on=("C1.upper-curvature",),
    lemmas=("Taylor's formula with integral remainder", "convergence of analytic descent (Lojasiewicz; Absil, Mahony and Andrews 2005)"),
    floor=0.93,
    floor_reason=(
        "attained only where the gradient vanishes, which some searches of six frames approach slowly: the worst of "
        "ten seeds stopped at 0.944"
    ),
)
