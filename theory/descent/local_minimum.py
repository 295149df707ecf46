r"""Descent need not converge to a local minimum; from a start below the least critical value it reaches the global one, at an explicit rate.

Statement as refuted. For step sizes in a suitable range, gradient descent on the temporal loss converges to a local
minimum from every start. Since a local minimum has L = 0 (C2.landscape), that is L(F^k) -> 0. A promise that can be
checked after k steps names a rate; the natural one, and the true one under the missing hypothesis, is, for some
constant p > 0 and eta < 2 m^2 / C_N,

    L(F^k) \le \frac{L_0}{1 + p \, a \, k \, L_0}, \qquad
    a = \frac{48 \, \eta (1 - \eta C_N / (2 m^2))}{N (N^2 - 1) \, (R^2 + \eta L_0 / (1 - \eta C_N / (2 m^2)))},

with L_0 the loss, m the least and R the largest norm of the start. Every p > 0 fails at every critical point of nonzero
value, where L(F^k) = L_0 for ever: (e, e, -e) is the global maximum, (e_1, e_1, e_2, -e_2) a saddle; and starts that
move can tend to that saddle too (its stable manifold). Descent passes near such points, and stalls there, from an open
set of starts.

Repaired. If L_0 < 4/(N-2)^2, the least critical value, the rate holds with p = (1 - omega) / (1 + omega), omega = (N-2)
sqrt(L_0) / 2 < 1: descent reaches L = 0, with no exceptional start.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame of the start.
    H3  0 < eta < 2 m^2 / C_N.
    H4  (missing in the statement, restored in the repair) L_0 < 4/(N-2)^2.

**Lower**: the statement is refuted; the repair is an upper bound.

In the paper: the convergence claim (C2); the range of learning rates is our reading, and so is "from every start".
Proof: paper_notes.md, section C2.stated.
"""

import math
from collections.abc import Sequence

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
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.descent.feature_descent import check_run, feature_step_limit, gradient
from theory.descent.instances import chain, critical_similarities, draw_normals, profile
from theory.descent.landscape import LEAST_SWING, least_critical_value
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = ((("num_frames", 4), ("dimension", 2)),)
"""The least number of frames with both a saddle and a maximum."""

STEPS = 16


def loss_bound(
    num_frames: int, initial_loss: float, min_norm: float, max_norm: float, step_size: float, num_steps: int
) -> float:
    """The loss after a number of steps of descent on the features, at most.

        L_k <= L_0 / (1 + a k L_0),   omega = (N-2) sqrt(L_0) / 2,   b = 1 - eta C_N / (2 m^2),
        a = 48 eta b (1 - omega) / ((1 + omega) N (N^2 - 1) (R^2 + eta L_0 / b))

    Args:
        num_frames: N.
        initial_loss: L_0 of the start, below 4/(N-2)^2.
        min_norm, max_norm: least and largest norm m, R of a frame of the start.
        step_size: eta, below `feature_step_limit(num_frames, min_norm)`.
        num_steps: k >= 0.

    Source: paper_notes.md, C2.stated.

    Raises:
        ValueError: an argument outside the range above; nothing is promised there.
    """
    check_run(num_frames, min_norm, max_norm, step_size, num_steps)
    ceiling = least_critical_value(num_frames)
    if not 0 <= initial_loss < ceiling:
        raise ValueError(f"initial_loss = {initial_loss}; it must lie in [0, {ceiling:.6g}), below the least critical value 4/(N-2)^2")
    swing = math.sqrt(initial_loss / ceiling)
    rate = (1 - swing) / (1 + swing) * float(_rate(num_frames, initial_loss, min_norm, max_norm, step_size))
    return initial_loss / (1 + rate * num_steps * initial_loss)


def _rate(num_frames: int, initial_loss, min_norm, max_norm, step_size):
    share = 1 - step_size * hessian_constant(num_frames) / (2 * min_norm**2)
    largest_square = max_norm**2 + step_size * initial_loss / share
    return 48 * step_size * share / (num_frames * (num_frames**2 - 1) * largest_square)


def loss_after_descent(instance: Instance) -> jax.Array:
    """L(F^k) after k = STEPS steps."""

    def step(frames: jax.Array, _: None) -> tuple[jax.Array, None]:
        return frames - instance["step_size"] * gradient(frames), None

    last, _ = jax.lax.scan(step, instance["frames"], None, length=STEPS)
    return temporal_loss(last)


def _promise(instance: Instance, proposed) -> jax.Array:
    frames = instance["frames"]
    loss, largest = temporal_loss(frames), jnp.sqrt(jnp.max(jnp.sum(frames**2, axis=1)))
    rate = proposed * _rate(frames.shape[0], loss, instance["min_norm"], largest, instance["step_size"])
    return loss / (1 + rate * STEPS * loss)


def _gap(instance: Instance, swing_share: float = 1.0) -> jax.Array:
    swing = swing_share * jnp.sqrt(temporal_loss(instance["frames"]) / least_critical_value(instance["frames"].shape[0]))
    return jnp.maximum(1 - swing, 0.0) / (1 + swing)


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    return draw_normals(
        key,
        {
            "similarities": (num_frames - 1,),
            "turns": (num_frames - 1, dimension - 1),
            "excess": (num_frames,),
            "log_min_norm": (),
            "swing": (),
            "level": (),
            "step": (),
            "log_proposed": (),
        },
    )


def _start(parameters: Parameters, similarities: jax.Array) -> dict[str, jax.Array]:
    """Frames of norms m to 2 m with the given similarities, and a step size of 1/20 to 1/2 of the limit."""
    min_norm = jnp.exp(parameters["log_min_norm"])
    norms = min_norm * (1 + jnp.sin(parameters["excess"]) ** 2)
    limit = 2 * min_norm**2 / hessian_constant(norms.shape[0])
    return {
        "frames": norms[:, None] * chain(similarities, parameters["turns"]),
        "min_norm": min_norm,
        "step_size": limit * (0.05 + 0.45 * jax.nn.sigmoid(parameters["step"])),
        "proposed": jnp.asarray(1.0),
    }


def _any_start(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Any similarities whose largest and smallest differ by at least 1/5, so that the loss is no rounding error."""
    swing = LEAST_SWING + (1 - LEAST_SWING) * jnp.sin(parameters["swing"]) ** 2
    level = (1 - swing) * jnp.sin(parameters["level"])
    return _start(parameters, level + swing * profile(parameters["similarities"]))


def _low_start(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Any similarities whose loss is between 1/100 of the least critical value and that value, where the promised rate has fallen to 0."""
    shape = profile(parameters["similarities"])
    share = LEAST_SWING**2 + (1 - LEAST_SWING**2) * jnp.sin(parameters["swing"]) ** 2
    # The profile runs from -1 to 1, so its loss is at least 4/(N-2)^2 and the swing at most 1.
    swing = jnp.sqrt(share * least_critical_value(num_frames) / jnp.mean(jnp.diff(shape) ** 2))
    level = (1 - swing) * jnp.sin(parameters["level"])
    return _start(parameters, jnp.clip(level + swing * shape, -1.0, 1.0))


def _critical_start(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Any critical point of nonzero value and any promised rate."""
    start = _start(parameters, critical_similarities(parameters["similarities"]))
    return start | {"proposed": jnp.exp(parameters["log_proposed"])}


def _operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from the start to the last loss, at the size of the first one.

    A step is a chain of dot products, norms, projections and a division (counted as 16 (d + N)); an error in the
    features is multiplied by at most |1 - eta lambda| <= 2 a step, for half the step limit. An error of delta in the
    features changes the loss by at most C_N delta relative to m, compared with L_0 >= 0.01 * 4/(N-2)^2, which is
    smaller by at most the factor below.
    """
    largest_over_least = round(12 * (num_frames - 2) ** 2 / (4 * LEAST_SWING**2))
    return 2**STEPS * largest_over_least * 16 * (dimension + num_frames)


AS_STATED = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_any_start,
    measured=loss_after_descent,
    bound=lambda instance: _promise(instance, instance["proposed"]),
    operations=_operations,
)

COUNTEREXAMPLES = Problem(
    sizes=((("num_frames", 3), ("dimension", 2)), (("num_frames", 7), ("dimension", 4))),
    draw=_draw,
    instance=_critical_start,
    measured=loss_after_descent,
    bound=AS_STATED.bound,
    operations=_operations,
)

REPAIRED = Problem(
    sizes=((("num_frames", 3), ("dimension", 2)), *SIZES),
    draw=_draw,
    instance=_low_start,
    measured=loss_after_descent,
    bound=lambda instance: _promise(instance, _gap(instance)),
    operations=_operations,
)


def stalled_frames(num_frames: int, dimension: int = 2) -> np.ndarray:
    """A critical point of the least nonzero value: the similarity goes from 1 to -1 in N - 2 equal steps.

    For three frames this is the global maximum (e, e, -e), for four the saddle (e_1, e_1, e_2, -e_2).

    Returns:
        (num_frames, dimension) float64, unit frames in a plane.

    Raises:
        ValueError: fewer than 3 frames, or dimension < 2.
    """
    ceiling = least_critical_value(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the loss is constant between zero frames")
    similarities = 1 - np.sqrt(ceiling) * np.arange(num_frames - 1)
    return np.asarray(chain(jnp.asarray(similarities), jnp.eye(1, dimension - 1).repeat(num_frames - 1, axis=0)))


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The critical point of the least nonzero value with m = 1, at a quarter of the step limit."""
    return {
        "frames": jnp.asarray(stalled_frames(num_frames, dimension)),
        "min_norm": jnp.asarray(1.0),
        "step_size": jnp.asarray(feature_step_limit(num_frames, 1.0) / 4),
        "proposed": jnp.asarray(1.0),
    }


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return {
        # The similarities fall from 1 to -1 in equal steps for four frames, the only size at which the statement is searched.
        "similarities": jnp.linspace(1.0, -1.0, num_frames - 1),
        "turns": jnp.eye(1, dimension - 1).repeat(num_frames - 1, axis=0),
        "excess": jnp.zeros(num_frames),
        "log_min_norm": jnp.asarray(0.0),
        "swing": jnp.asarray(jnp.pi / 2),
        "level": jnp.asarray(0.0),
        # A quarter of the limit is 4/9 of the way from 1/20 to 1/2.
        "step": jnp.log(jnp.asarray(0.8)),
        "log_proposed": jnp.asarray(0.0),
    }


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """What the repaired rate promises to lose in 16 steps, beside what they lose: the losses themselves hardly differ.

    Raises:
        ValueError: features whose loss is not below the least critical value: the repair promises nothing there.
    """
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        num_frames = dict(size)["num_frames"]
        limit = feature_step_limit(num_frames, float(start["min_norm"]))
        instance = dict(start) | {"step_size": jnp.asarray(limit / 2), "proposed": jnp.asarray(1.0)}
        loss = float(temporal_loss(start["frames"]))
        if not loss < least_critical_value(num_frames):
            raise ValueError(f"{label} has loss {loss:.6g}; the repaired rate needs one below {least_critical_value(num_frames):.6g}")
        promised = loss - float(_promise(instance, _gap(instance)))
        outcomes.append(recorded.compared(label, promised, loss - float(loss_after_descent(instance)), **{"frames": start["frames"]}))
    return outcomes


def _does_not_stall(evidence: Evidence) -> Sequence[Outcome]:
    """Loss of the features after a recorded run, beside half of the loss before it."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        last = len(record.squared_gradients)
        outcomes.append(recorded.compared(f"after {last} steps of the {record.label}", recorded.loss_of_features(record, last), record.temporal_losses[0] / 2))
    return outcomes


def _gap_without(denominator: bool):
    """(1 - omega) / (1 + omega) with one of its halves left out."""

    def bound(instance: Instance):
        swing = jnp.sqrt(temporal_loss(instance["frames"]) / least_critical_value(instance["frames"].shape[0]))
        return _promise(instance, 1 / (1 + swing) if denominator else 1 - swing**2 / 2)

    return bound


CLAIM = Claim(
    id="C2.stated",
    title="Descent converges to a local minimum, as stated",
    statement=(
        "Gradient descent on the temporal loss converges to a local minimum from every start. False: it stays at, or "
        "tends to, maxima and "
        "saddles. True below the least critical value 4/(N-2)^2, where it reaches the global minimum at an explicit "
        "rate."
    ),
    latex=r"L(F^k) \le \frac{L_0}{1 + p\,a\,k\,L_0}\ \text{for some } p > 0;\quad \text{repaired: } L_0 < \frac{4}{(N-2)^2},\ p = \frac{1-\omega}{1+\omega}",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame of the start."),
        Hypothesis("H3", "0 < eta < 2 m^2 / C_N."),
        Hypothesis("H4", "(restored by the repair) L_0 < 4/(N-2)^2."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="the paper's convergence claim; its range of learning rates is our reading",
    problem=AS_STATED,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="temporal loss after 16 steps of descent (dimensionless)",
    bound_in_words="L_0 / (1 + 16 p a L_0) for the promised rate p = 1; every other p > 0 is refuted in the same way",
    necessity={},
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "every counterexample satisfies it, with m the least norm of its start",
        "H3": "every counterexample satisfies it; what larger steps do is C2.threshold and C2.any-step",
        "H4": "its absence is what the counterexamples refute",
    },
    planted={
        "1 / (1 + omega) for (1 - omega) / (1 + omega)": _gap_without(denominator=True),
        "1 - omega^2 / 2 for (1 - omega) / (1 + omega)": _gap_without(denominator=False),
        "no loss of rate near the least critical value": lambda instance: _promise(instance, 1.0),
        "the gap measured to four times the least critical value": lambda instance: _promise(instance, _gap(instance, swing_share=0.5)),
    },
    reality=(
        Comparison(
            question="Do 16 steps of descent on the UNet's features lose at least what the repaired rate promises?",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.stated as repaired; that the loss lies below 4/(N-2)^2 is checked beside it",
        ),
        Comparison(
            question=(
                "Does recorded training of the adapter on L alone lose at least half of the features' loss in its "
                "steps, instead of stalling at a saddle?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_does_not_stall,
        ),
    ),
    relies_on=("C2.landscape", "C2.descent"),
    lemmas=("Cauchy-Schwarz",),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
