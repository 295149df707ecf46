r"""Sharp Hessian bound: on frames of norm at least m the curvature of the temporal loss is at most C_N / m^2.

Statement. For N >= 3 frames with ||F_t|| >= m > 0, in any dimension,

    \| \nabla^2 L(F) \|_{op} \le \frac{C_N}{m^2},
    \qquad C_N = \frac{4}{N-2} \, \lambda_{\max}(B^\top W B),

with B the (N-1) x N unsigned path incidence matrix, (B x)_t = x_t + x_{t+1}, and W = diag(1, 2, .., 2, 1) (the identity
for N = 3). C_3 = 12, C_4 = 6 + 2 sqrt 5, and (N-2) C_N -> 32.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame.

**Attained** at every N in dimension d >= 2 by collinear frames of norm m whose similarities alternate, s = (1, -1, 1, ..).
(For d = 1 the similarities are constant off the origin and the Hessian vanishes.)

In the paper: repairs Theorem 4.1, which bounds the norms from above. Proof: paper_notes.md, section C1.hessian.
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
from theory.temporal_loss.loss import MINIMUM_FRAMES


def check_num_frames(num_frames: int) -> None:
    """Raise ValueError unless the number of frames is an integer of at least 3."""
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer):
        raise ValueError(f"num_frames = {num_frames!r}; an integer is needed")
    if num_frames < MINIMUM_FRAMES:
        raise ValueError(
            f"num_frames = {num_frames}; at least {MINIMUM_FRAMES} are needed: the loss compares neighbouring pairs"
        )


def _constant(num_frames: int, inner_weight: float, divisor: int) -> float:
    incidence = np.eye(num_frames - 1, num_frames) + np.eye(num_frames - 1, num_frames, k=1)
    weights = np.full(num_frames - 1, inner_weight)
    weights[[0, -1]] = 1.0
    return 4 / divisor * float(np.linalg.eigvalsh(incidence.T @ (weights[:, None] * incidence))[-1])


def hessian_constant(num_frames: int) -> float:
    """The sharp constant C_N at m = 1.

        C_N = 4/(N-2) lambda_max(B^T W B)

    Source: paper_notes.md, C1.hessian.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return _constant(num_frames, inner_weight=2.0, divisor=num_frames - 2)


def hessian_norm(frames):
    """||Hess L||_op of (frames, dimension) by dense automatic differentiation; JAX, O((N d)^3)."""
    return instances.extreme_eigenvalue(instances.dense_hessian(frames), largest_magnitude=True)


def extremal_frames(num_frames: int, dimension: int = 2, min_norm: float = 1.0) -> np.ndarray:
    """Collinear frames of norm m with similarities 1, -1, 1, ..: the bound is attained there.

    Returns:
        (num_frames, dimension) float64.

    Raises:
        ValueError: fewer than 3 frames, or dimension < 2, where the Hessian vanishes.
    """
    check_num_frames(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the Hessian vanishes")
    frames = np.zeros((num_frames, dimension))
    # Pairs of equal frames, the sign changing from pair to pair: + + - - + + ..
    frames[:, 0] = min_norm * (-1.0) ** (np.arange(num_frames) // 2)
    return frames


def _bound(instance: Instance):
    return hessian_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2


def _planted(inner_weight: float = 2.0, divisor_shift: int = 2, power: int = 2):
    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        return _constant(num_frames, inner_weight, num_frames - divisor_shift) / instance["min_norm"] ** power

    return bound


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=lambda instance: hessian_norm(instance["frames"]),
    bound=_bound,
    operations=instances.operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The extremal instance with m = 1."""
    return {"frames": jnp.asarray(extremal_frames(num_frames, dimension)), "min_norm": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return instances.parameters_of(extremal_frames(num_frames, dimension))


def _one_short_frame() -> Outcome:
    size = instances.SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"].at[2].multiply(0.5)
    return PROBLEM.outcome(instance, size, "one frame of norm m / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.frame_instances(evidence)]


SECOND_ORDER_TOLERANCE = 0.25


def _second_order(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        for label, before, after in recorded.layer_steps(record):
            found = recorded.expansion(before, after)
            error = abs(found["change"] - found["first"] - found["second"])
            outcomes.append(recorded.compared(label, error, SECOND_ORDER_TOLERANCE * abs(found["change"]), before=before, after=after))
    return outcomes


CLAIM = Claim(
    id="C1.hessian",
    title="Sharp Hessian bound on frames bounded away from zero",
    statement=(
        "On N frames of norm at least m the Hessian of the temporal loss has norm at most C_N / m^2, and in every "
        "dimension "
        "d >= 2 some frames attain it."
    ),
    latex=r"\|\nabla^2 L(F)\|_{\mathrm{op}} \le \frac{C_N}{m^2},\quad C_N = \frac{4}{N-2}\lambda_{\max}(B^\top W B)",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="repairs the paper's Theorem 4.1",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "operator norm of the Hessian of the temporal loss in the features, in units of 1 / (feature norm)^2"
    ),
    bound_in_words="C_N / m^2, m the least norm of a frame, in the same units",
    sharpness=(
        "attained at every N, in dimension d >= 2, by collinear frames of norm m with similarities 1, -1, 1, ..; for "
        "d = 1 the Hessian is 0"
    ),
    necessity={"H2": _one_short_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "divisor N - 1 for N - 2": _planted(divisor_shift=1),
        "m for m^2": _planted(power=1),
        "the largest norm for the least": lambda instance: _bound(instances.with_largest_norm(instance)),
        "the constant of N + 1 frames": lambda instance: (
            hessian_constant(instance["frames"].shape[0] + 1) / instance["min_norm"] ** 2
        ),
        "inner pairs counted once for twice": Plant(
            _planted(inner_weight=1.0), lambda num_frames, **_: num_frames > 3, "three frames have no inner pair"
        ),
    },
    reality=(
        Comparison(
            question="Is ||Hess L|| at the UNet's features at most C_N / m^2, m the least norm of their frames?",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.hessian; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does the quadratic model at the features before a recorded training step (gradient and Hessian of L "
                "there) predict the "
                "loss of the features after it, layer by layer, to within a quarter of its change?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_second_order,
        ),
    ),
    lemmas=("Perron-Frobenius",),
    enclosure=(
        "theory/temporal_loss/enclosure.py: C_3 and C_4 again, by branch and bound in ball arithmetic, without a "
        "lemma of the proof"
    ),
    floor=0.999,
    floor_reason=(
        "the supremum is attained, but at a kink of the norm, which gradient ascent approaches and does not hit"
    ),
)
