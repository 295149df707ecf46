r"""Sharp upper curvature: on frames of norm at least m no eigenvalue of the Hessian exceeds C+_N / m^2.

Statement. For N >= 3 frames with ||F_t|| >= m > 0, in any dimension,

    \lambda_{\max}(\nabla^2 L(F)) \le \frac{C^+_N}{m^2}, \qquad C^+_N = \frac{2}{N-2} \|D_2\|^2,

with D_2 the (N-2) x N second-difference matrix, rows (.., 1, -2, 1, ..). C+_3 = 12, C+_4 = 10, and (N-2) C+_N -> 32.
This is the constant that gradient descent feels: it is smaller than C_N of C1.hessian for N >= 4, whose extreme
curvature is negative.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame.

**Attained** at every N in dimension d >= 2 by frames of norm m at right angles, s = 0, with u_{t+2} = -u_t.

In the paper: sharpens Theorem 4.1. Proof: paper_notes.md, section C1.upper-curvature.
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
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames

SIZES = tuple((("num_frames", num_frames), ("dimension", 2)) for num_frames in (3, 5))


def _constant(num_frames: int, order: int = 2, power: int = 2, divisor_shift: int = 2) -> float:
    difference = np.diff(np.eye(num_frames), n=order, axis=0)
    return 2 / (num_frames - divisor_shift) * float(np.linalg.norm(difference, 2)) ** power


def upper_curvature_constant(num_frames: int) -> float:
    """The sharp constant C+_N at m = 1.

        C+_N = 2/(N-2) ||D_2||^2

    Source: paper_notes.md, C1.upper-curvature.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return _constant(num_frames)


def top_curvature(frames):
    """lambda_max(Hess L) of (frames, dimension) by dense automatic differentiation; JAX, O((N d)^3)."""
    return instances.extreme_eigenvalue(instances.dense_hessian(frames), largest_magnitude=False)


def extremal_frames(num_frames: int, dimension: int = 2, min_norm: float = 1.0) -> np.ndarray:
    """Frames of norm m, each a quarter turn from the one before: e_1, e_2, -e_1, -e_2, ..

    Returns:
        (num_frames, dimension) float64.

    Raises:
        ValueError: fewer than 3 frames, or dimension < 2, where the Hessian vanishes.
    """
    check_num_frames(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the Hessian vanishes")
    frames = np.zeros((num_frames, dimension))
    index = np.arange(num_frames)
    frames[index, index % 2] = min_norm * (-1.0) ** (index // 2)
    return frames


def _planted(**changes: int):
    power = changes.pop("norm_power", 2)

    def bound(instance: Instance):
        return _constant(instance["frames"].shape[0], **changes) / instance["min_norm"] ** power

    return bound


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=lambda instance: top_curvature(instance["frames"]),
    bound=_planted(),
    operations=instances.operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The extremal instance with m = 1."""
    return {"frames": jnp.asarray(extremal_frames(num_frames, dimension)), "min_norm": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return instances.parameters_of(extremal_frames(num_frames, dimension))


def _one_short_frame() -> Outcome:
    instance = dict(witness(**dict(SIZES[0])))
    instance["frames"] = instance["frames"].at[1].multiply(0.5)
    return PROBLEM.outcome(instance, SIZES[0], "one frame of norm m / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.frame_instances(evidence)]


MARGIN = 1.25
"""How much more the loss may curve after a recorded step than before it: chosen."""


def _after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, *features in recorded.first_steps(evidence):
        before, after = (float(top_curvature(jnp.asarray(instances.reduce_frames(values)))) for values in features)
        outcomes.append(recorded.compared(label, after, MARGIN * before))
    return outcomes


CLAIM = Claim(
    id="C1.upper-curvature",
    title="Sharp upper curvature on frames bounded away from zero",
    statement=(
        "On N frames of norm at least m no eigenvalue of the temporal loss's Hessian exceeds C+_N / m^2, and in every "
        "dimension d >= 2 "
        "some frames attain it."
    ),
    latex=r"\lambda_{\max}(\nabla^2 L(F)) \le \frac{C^+_N}{m^2},\quad C^+_N = \frac{2}{N-2}\|D_2\|^2",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="sharpens the paper's Theorem 4.1",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "largest eigenvalue of the Hessian of the temporal loss in the features, in units of 1 / (feature norm)^2"
    ),
    bound_in_words="C+_N / m^2, m the least norm of a frame, in the same units",
    sharpness=(
        "attained at every N, in dimension d >= 2, by frames of norm m at right angles with u_{t+2} = -u_t; for d = 1 "
        "the Hessian is 0"
    ),
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "first differences for second": _planted(order=1),
        "||D_2|| for its square": _planted(power=1),
        "divisor N - 1 for N - 2": _planted(divisor_shift=1),
        "m for m^2": _planted(norm_power=1),
        "the largest norm for the least": lambda instance: _planted()(instances.with_largest_norm(instance)),
    },
    reality=(
        Comparison(
            question=(
                "Is lambda_max(Hess L) at the UNet's features at most C+_N / m^2, m the least norm of their frames?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.upper-curvature; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does lambda_max(Hess L) at the features before a recorded step of training bound it at the features after the step, layer by "
                "layer, to within a quarter?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_after_a_step,
        ),
    ),
    relies_on=("C1.hessian",),
    lemmas=("Perron-Frobenius",),
    enclosure=(
        "theory/temporal_loss/enclosure.py: C+_3 and C+_4 again, by branch and bound in ball arithmetic, without a "
        "lemma of the proof"
    ),
    floor=0.999,
    floor_reason=(
        "the supremum is attained in the interior of the search's domain, at frames where the top eigenvalue is simple"
    ),
)
