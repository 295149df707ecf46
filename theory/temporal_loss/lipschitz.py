r"""Sharp Lipschitz constant of the gradient on frames of norm at least m, a set with holes.

Statement. For F, G with ||F_t||, ||G_t|| >= m > 0 for all t of N >= 3, in any dimension,

    \| \nabla L(F) - \nabla L(G) \| \le \frac{C_N}{m^2} \| F - G \|,

with the constant C_N of C1.hessian. The set is not convex: each frame avoids the ball of radius m, so the segment from
F to G may leave it, and there the Hessian is unbounded: the Hessian's bound alone gives no more than pi/2 times C_N, by
a detour round the holes. The holes turn out to cost nothing.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  All frames of both F and G have norm at least m > 0.

**Approached** in dimension d >= 2, as F and G tend to one point where the Hessian has the norm C_N / m^2, along its
extreme direction. No pair that attains it is known; the witness is a pair whose frames turn by up to 1/16.

In the paper: repairs Theorem 4.1, which bounds the norms from above. Proof: paper_notes.md, section C1.lipschitz.
"""

from collections.abc import Sequence

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
    Plant,
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.upper_curvature import upper_curvature_constant


def lipschitz_constant(num_frames: int) -> float:
    """The sharp Lipschitz constant of the gradient at m = 1: C_N, the constant of the Hessian.

    Source: paper_notes.md, C1.lipschitz.

    Raises:
        ValueError: fewer than 3 frames.
    """
    return hessian_constant(num_frames)


PROBLEM = Problem(
    sizes=instances.SIZES[:2],
    draw=instances.draw_pair,
    instance=instances.pair_instance,
    measured=instances.difference_quotient,
    bound=lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2,
    operations=instances.pair_operations,
)


SEPARATION = instances.SMALLEST_TURN
"""Angle between the frames of the witness that turn most: the least that the family has, so that its members are apart."""


def _stiffest_turns(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs of the extremal frames of C1.hessian, and the displacements normal to them along which the curvature is C_N, the largest 1."""
    incidence = np.eye(num_frames - 1, num_frames) + np.eye(num_frames - 1, num_frames, k=1)
    weights = np.full(num_frames - 1, 2.0)
    weights[[0, -1]] = 1.0
    perron = np.abs(np.linalg.eigh(incidence.T @ (weights[:, None] * incidence))[1][:, -1])
    signs = (-1.0) ** (np.arange(num_frames) // 2)
    # epsilon_t epsilon_{t+1} = -s_t: the two frames of a pair move against each other seen from their own directions.
    alternating = np.cumprod(np.concatenate([[1.0], -signs[1:] * signs[:-1]]))
    return signs, alternating * perron / np.max(perron)


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    """Collinear frames of norm m = 1 and the same turned along the direction of the largest curvature, by at most SEPARATION."""
    signs, turns = _stiffest_turns(num_frames)
    first = jnp.zeros((num_frames, dimension)).at[:, 0].set(signs)
    return {
        "directions": first,
        "excess": jnp.zeros(num_frames),
        "other_excess": jnp.zeros(num_frames),
        "log_min_norm": jnp.asarray(0.0),
        "turns": jnp.zeros((num_frames, dimension)).at[:, 1].set(jnp.sign(turns)),
        "weights": jnp.abs(jnp.asarray(turns)),
        # So far down the sigmoid that the angle is SEPARATION to the last bit.
        "logit_angle": jnp.asarray(-60.0),
    }


def witness(*, num_frames: int, dimension: int) -> Instance:
    """A pair at a distance, near the frames where the Hessian is extreme; m = 1."""
    signs, turns = _stiffest_turns(num_frames)
    first = jnp.zeros((num_frames, dimension)).at[:, 0].set(signs)
    angles = SEPARATION * jnp.asarray(turns)
    second = jnp.zeros((num_frames, dimension)).at[:, 0].set(signs * jnp.cos(angles)).at[:, 1].set(jnp.sin(angles))
    return {"frames": first, "others": second, "min_norm": jnp.asarray(1.0)}


def _short_frames() -> Outcome:
    size = instances.SIZES[0]
    pair = dict(witness(**dict(size)))
    return PROBLEM.outcome({name: (0.5 if name != "min_norm" else 1.0) * value for name, value in pair.items()}, size, "norms m / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.pair_instances(evidence)]


TANGENT_TOLERANCE = 0.5


def _gradient_after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        for label, before, after in recorded.layer_steps(record):
            found = recorded.expansion(before, after)
            bound = TANGENT_TOLERANCE * found["gradient_change"]
            outcomes.append(recorded.compared(label, found["gradient_error"], bound, before=before, after=after))
    return outcomes


def _with_constant(constant, power: int = 2):
    return lambda instance: constant(instance["frames"].shape[0]) / instance["min_norm"] ** power


CLAIM = Claim(
    id="C1.lipschitz",
    title="Sharp Lipschitz constant of the gradient on frames bounded away from zero",
    statement=(
        "On N frames of norm at least m the gradient of the temporal loss is Lipschitz with the constant C_N / m^2 of "
        "its Hessian, although the set of such frames is not convex; in dimension d >= 2 pairs that tend to one point "
        "come as close to it as one likes."
    ),
    latex=(
        r"\|\nabla L(F)-\nabla L(G)\| \le \frac{C_N}{m^2}\|F-G\|,\quad "
        r"C_N = \frac{4}{N-2}\lambda_{\max}(B^\top W B)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "All frames of both F and G have norm at least m > 0."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.APPROACHED,
    origin="repairs the paper's Theorem 4.1",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "difference quotient of the gradient between two different sets of frames, in units of 1 / (feature norm)^2"
    ),
    bound_in_words="C_N / m^2, m the least norm of a frame of either set, in the same units",
    sharpness=(
        "approached at every N, in dimension d >= 2, as the two sets tend to the extremal frames of C1.hessian along "
        "the extreme direction"
    ),
    necessity={"H2": _short_frames},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "m for m^2": _with_constant(lipschitz_constant, power=1),
        "the constant of N + 1 frames": _with_constant(lambda num_frames: lipschitz_constant(num_frames + 1)),
        "the gradient's constant for the Hessian's": _with_constant(gradient_constant),
        "the largest norm of the first set for the least": lambda instance: PROBLEM.bound(instances.with_largest_norm(instance)),
        "the upper curvature for the norm": Plant(
            _with_constant(upper_curvature_constant), lambda num_frames, **_: num_frames > 3, "C+_3 = C_3 = 12"
        ),
    },
    reality=(
        Comparison(
            question=(
                "Is the difference quotient of grad L between two of the UNet's features at most C_N / m^2, m the "
                "least norm of a frame of both?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.lipschitz; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does the Hessian of L at the features before a recorded training step, applied to the step, predict "
                "the change of grad L, layer by "
                "layer, to within a half?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_gradient_after_a_step,
        ),
    ),
    relies_on=("C1.hessian",),
    lemmas=("Perron-Frobenius", "a concave function that vanishes at 0 is subadditive", "Jensen"),
    floor=0.99,
    floor_reason=(
        "the members of a pair turn by at least 1/16 from each other, and a pair so far apart stays a little below "
        "the limit"
    ),
)
