r"""The limit on the step size is exact: one step too long multiplies the loss by at most (eta C+_N / m^2 - 1)^2, and by no less at some start.

Statement. Let ||F_t|| >= m > 0 and let eta >= 2 m^2 / C+_N, with C+_N = (2/(N-2)) ||D_2||^2 of C1.upper-curvature. Then
one step of gradient descent satisfies

    L(F - \eta \nabla L(F)) \le \Bigl(\frac{\eta C^+_N}{m^2} - 1\Bigr)^2 L(F),

and no smaller factor will do, for any N >= 3 and any such eta: every step size above the limit raises the loss of some
start, none below it does (C2.descent). For three frames the limit is m^2 / 6.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame.
    H3  eta >= 2 m^2 / C+_N (below it the factor is 1, by C2.descent).

**Approached** in every dimension d >= 2, in the limit of starts near s = 0, u_{t+2} = -u_t, displaced along the top
eigenvector of the Hessian.

In the paper: not there; it decides whether the range 0 < eta < 2/L, our reading, could be longer. Proof:
paper_notes.md, section C2.threshold.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.descent.feature_descent import (
    WITNESS_OFFSET,
    draw_start,
    exact_step_limit,
    scaled_step,
    similarity_expansion,
    slopes,
    steepest_frames,
)
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.upper_curvature import upper_curvature_constant

SIZES: tuple[Size, ...] = tuple((("num_frames", num_frames), ("dimension", 2)) for num_frames in (3, 5))


def loss_growth(frames: jax.Array, step_size: jax.Array) -> jax.Array:
    """L(F - eta grad L) / L(F) without cancellation; 1 where the loss is 0, which descent then keeps.

        sqrt((N-2) L(F - eta g)) = |D s + eta D (first + eta second)|
    """
    _, cosines, _ = slopes(frames)
    direction, scaled = scaled_step(frames, step_size)
    first, second = similarity_expansion(frames, direction, scaled)
    differences = jnp.diff(cosines)
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(differences)))
    safe = jnp.where(scale > 0, scale, 1.0)
    before = differences / safe
    after = before + scaled * jnp.diff(first + scaled * second) / safe
    return jnp.where(scale > 0, jnp.sum(after**2) / jnp.where(scale > 0, jnp.sum(before**2), 1.0), 1.0)


def _factor(share: float = 1.0, power: int = 2, norm_power: int = 2):
    def bound(instance: Instance):
        constant = share * upper_curvature_constant(instance["frames"].shape[0])
        return (instance["step_size"] * constant / instance["min_norm"] ** norm_power - 1) ** power

    return bound


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """A start of norms >= m, and a step size of (1 + step^2) times the limit."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=dimension)
    limit = 2 * start["min_norm"] ** 2 / upper_curvature_constant(num_frames)
    return dict(start) | {"step_size": limit * (1 + parameters["step"] ** 2)}


def _operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from the start to the growth.

    Dot products over d coordinates, norms, projections and a division (counted as 16 (d + N)), twice: gradient, then
    similarities. The rounding of the similarities s is common to both losses and to the gradient: it puts |D (s + c)|^2 in
    the place of |D s|^2 with a constant c of that size, which shifts the curvature by c alone. The terms of D s + eta D(first
    + eta second) are at most (1 + eta C+_N / m^2) times D s, at most 3 times the factor eta C+_N / m^2 - 1 >= 1 that is
    squared.
    """
    return 2 * 3 * 2 * 16 * (dimension + num_frames)


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw_start,
    instance=_instance,
    measured=lambda instance: loss_growth(instance["frames"], instance["step_size"]),
    bound=_factor(),
    operations=_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The steepest start with m = 1 and a step one thousandth beyond the limit."""
    return {
        "frames": jnp.asarray(steepest_frames(num_frames, dimension, WITNESS_OFFSET)),
        "min_norm": jnp.asarray(1.0),
        "step_size": jnp.asarray(1.001 * exact_step_limit(num_frames, 1.0)),
    }


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    frames = steepest_frames(num_frames, dimension, WITNESS_OFFSET)
    return {**instances.parameters_of(frames), "step": jnp.sqrt(jnp.asarray(0.001))}


def _one_short_frame() -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"].at[1].multiply(0.5)
    return PROBLEM.outcome(instance, size, "one frame of norm m / 2")


def _short_step() -> Outcome:
    # At eta = m^2 / C+_N the factor would be 0: every start would reach the minimum in one step.
    size = SIZES[0]
    instance = dict(witness(**dict(size))) | {"step_size": jnp.asarray(exact_step_limit(3, 1.0) / 2)}
    instance["frames"] = instance["frames"].at[0].multiply(3.0)
    return PROBLEM.outcome(instance, size, "half the limit, one long frame")


MULTIPLES = (2.0, 100.0)
"""Of the limit: closer to it the factor is near 1, as is that of a loss which hardly moves, and their ratio would say nothing."""


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        limit = exact_step_limit(dict(size)["num_frames"], float(start["min_norm"]))
        for multiple in MULTIPLES:
            outcomes.append(PROBLEM.outcome(dict(start) | {"step_size": multiple * limit}, size, f"{label}, {multiple} times the limit"))
    return outcomes


def _past_the_limit_of_a_quadratic(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after a recorded step of three over the curvature along the gradient, beside the loss before it."""
    record = min(recorded.runs(evidence, "long"), key=lambda run: run.step_size)
    return [recorded.compared(record.label, recorded.loss_of_features(record, 1), record.temporal_losses[0])]


def _divisor(instance: Instance):
    num_frames = instance["frames"].shape[0]
    return _factor((num_frames - 2) / (num_frames - 1.5))(instance)


CLAIM = Claim(
    id="C2.threshold",
    title="The step-size limit is exact",
    statement=(
        "A step of size eta >= 2 m^2 / C+_N multiplies the loss by at most (eta C+_N / m^2 - 1)^2, and starts whose "
        "loss tends to 0 come as "
        "close to it as one likes, so no step size above the limit is safe for every start."
    ),
    latex=r"L(F - \eta\nabla L(F)) \le \Bigl(\frac{\eta C^+_N}{m^2} - 1\Bigr)^2 L(F)",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame."),
        Hypothesis("H3", "eta >= 2 m^2 / C+_N."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="loss after the step over the loss before it",
    bound_in_words="(eta C+_N / m^2 - 1)^2, m the least norm of a frame",
    sharpness=(
        "approached at every N and every eta above the limit, in dimension d >= 2, as the similarities tend to 0 at "
        "frames with u_{t+2} = -u_t"
    ),
    necessity={"H2": _one_short_frame, "H3": _short_step},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "11/12 of C+_N (for three frames a limit of m^2 / 5.5)": _factor(11 / 12),
        "m for m^2": _factor(norm_power=1),
        "N - 3/2 for N - 2": _divisor,
        "the factor without its square": _factor(power=1),
    },
    reality=(
        Comparison(
            question=(
                "On the UNet's features, does a step of 2 and of 100 times the limit multiply the loss by no more "
                "than (eta C+_N / m^2 - 1)^2?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.threshold; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does a recorded step on the adapter of 3 over the curvature along its gradient, 1.5 times where a "
                "quadratic stops falling, still lower the loss of the "
                "features, so that 2 / curvature is not the network's threshold?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_past_the_limit_of_a_quadratic,
        ),
    ),
    relies_on=("C2.descent", "C1.upper-curvature"),
    floor=0.999,
    floor_reason="the supremum is approached as the similarities tend to 0, where the loss and its gradient vanish",
)
