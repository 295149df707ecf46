r"""No local minimum of the temporal loss is worse than the global one: where the loss is positive and the gradient vanishes, the curvature is
negative, by a sharp amount.

Statement. In dimension d >= 2, let F be a critical point of L, or any point whose frames leave a direction of space normal to all of them
(always so for d > N). Then

    \lambda_{\min}(\nabla^2 L(F)) \le - \frac{8 \, L(F)}{\sum_t \|F_t\|^2}.

So a local minimum has L = 0, and every other critical point is a strict saddle or a maximum. The critical values other
than 0 are

    \frac{1}{N-2} \sum_j \frac{4}{l_j},   l_j \ge 1 integers,   1 \le \sum_j l_j \le N-2,

the least of them being 4/(N-2)^2; l_j is the number of steps in which the similarity goes from 1 to -1 or back.

Hypotheses.
    H1  There are N >= 3 frames, none of them zero.
    H2  The gradient vanishes at F, or some direction is normal to every frame.
    H3  The features have dimension d >= 2. (On a line F = (1, 1, -1) has L = 4, no gradient and no curvature.)

**Attained** at every N, in every dimension d >= 2, by collinear frames with similarities 1, -1, 1, .. and squared norms
proportional to |y_{t-1}| + |y_t|.

In the paper: not there; it says what "converges to a local minimum" (C2) can mean. Proof: paper_notes.md, section
C2.landscape.
"""

from collections.abc import Sequence
from fractions import Fraction

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
from theory.descent.instances import chain, critical_similarities, draw_normals, profile
from theory.evidence import Evidence
from theory.temporal_loss import instances
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import _cosines, temporal_loss

MAXIMUM_FRAMES = 40
"""Above it the list of critical values is longer than anybody reads, and takes minutes to write."""

SIZES: tuple[Size, ...] = (
    (("num_frames", 4), ("dimension", 2), ("critical", 1)),
    (("num_frames", 5), ("dimension", 3), ("critical", 0)),
)

LEAST_SWING = 0.1
"""Least half difference between the largest and the smallest similarity of a start, so that its loss is no rounding error."""


def critical_values(num_frames: int) -> np.ndarray:
    """All values other than 0 that the temporal loss takes at critical points, sorted.

        (1/(N-2)) sum_j 4 / l_j,   l_j >= 1,   1 <= sum_j l_j <= N-2

    Exact rational arithmetic decides which sums coincide. The least is 4/(N-2)^2, the largest 4.

    Args:
        num_frames: N, from 3 to 40 (beyond which the list grows without use).

    Returns:
        (count,) float64, increasing.

    Source: paper_notes.md, C2.landscape.

    Raises:
        ValueError: fewer than 3 frames, or more than 40.
    """
    check_num_frames(num_frames)
    if num_frames > MAXIMUM_FRAMES:
        raise ValueError(f"num_frames = {num_frames}; at most {MAXIMUM_FRAMES} can be listed, the least value is 4/(N-2)^2 for any number")
    # reciprocals[n]: the sums of 1/l_j over the partitions of n.
    reciprocals: list[set[Fraction]] = [{Fraction(0)}]
    for total in range(1, num_frames - 1):
        reciprocals.append({Fraction(1, part) + rest for part in range(1, total + 1) for rest in reciprocals[total - part]})
    sums = set().union(*reciprocals[1:])
    return np.array([float(4 * value / (num_frames - 2)) for value in sorted(sums)])


def least_critical_value(num_frames: int) -> float:
    """The least critical value of the temporal loss other than 0, for any number of frames.

        4 / (N-2)^2

    Source: paper_notes.md, C2.landscape.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return 4 / (num_frames - 2) ** 2


def extremal_frames(num_frames: int, dimension: int = 2) -> np.ndarray:
    """Collinear frames with similarities 1, -1, 1, .. and squared norms proportional to |y_{t-1}| + |y_t|: the bound is attained there.

    Returns:
        (num_frames, dimension) float64.

    Raises:
        ValueError: fewer than 3 frames, or dimension < 2, where the Hessian vanishes.
    """
    check_num_frames(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the Hessian vanishes")
    slopes = np.zeros(num_frames + 1)
    slopes[1:-1] = 2.0
    slopes[[1, -2]] = 1.0
    frames = np.zeros((num_frames, dimension))
    frames[:, 0] = np.sqrt(slopes[:-1] + slopes[1:]) * (-1.0) ** (np.arange(num_frames) // 2)
    return frames


def loss_at_curvature(frames: jax.Array, factor: float = 8.0) -> jax.Array:
    """The largest loss that the most negative curvature at F allows.

        (||F_1||^2 + .. + ||F_N||^2) (- lambda_min(Hess L)) / 8
    """
    return jnp.sum(frames**2) * instances.extreme_eigenvalue(-instances.dense_hessian(frames), largest_magnitude=False) / factor


def _draw(key: jax.Array, *, num_frames: int, dimension: int, critical: int) -> Parameters:
    return draw_normals(
        key,
        {
            "similarities": (num_frames - 1,),
            "turns": (num_frames - 1, dimension - 2 + critical),
            "excess": (num_frames,),
            "swing": (),
            "level": (),
        },
    )


def _instance(parameters: Parameters, *, num_frames: int, dimension: int, critical: int) -> Instance:
    """Frames of norm 1 to 3 at a critical point of nonzero value, or in a hyperplane with a loss that is not negligible."""
    if critical:
        units = chain(critical_similarities(parameters["similarities"]), parameters["turns"])
    else:
        swing = LEAST_SWING + (1 - LEAST_SWING) * jnp.sin(parameters["swing"]) ** 2
        similarities = (1 - swing) * jnp.sin(parameters["level"]) + swing * profile(parameters["similarities"])
        units = jnp.pad(chain(similarities, parameters["turns"]), ((0, 0), (0, 1)))
    return {"frames": (1 + 2 * jnp.sin(parameters["excess"]) ** 2)[:, None] * units}


def _operations(*, num_frames: int, dimension: int, critical: int) -> int:
    """Longest chain of roundings from the frames to the least eigenvalue, at the size of the bound.

    The chain to an eigenvalue of the dense Hessian (theory/temporal_loss/instances.py) has errors relative to its norm,
    at most C_N <= 12 for norms >= 1; it is compared with 8 L / (9 N) at L >= 0.01 * 4/(N-2)^2, which is smaller by at
    most the factor below.
    """
    largest_over_least = round(12 * 9 * num_frames / (8 * LEAST_SWING**2 * 4 / (num_frames - 2) ** 2))
    return largest_over_least * instances.operations(num_frames=num_frames, dimension=dimension)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=lambda instance: temporal_loss(instance["frames"]),
    bound=lambda instance: loss_at_curvature(instance["frames"]),
    operations=_operations,
)


def witness(*, num_frames: int, dimension: int, critical: int) -> Instance:
    """The extremal critical point, of value 4."""
    return {"frames": jnp.asarray(extremal_frames(num_frames, dimension))}


def witness_parameters(*, num_frames: int, dimension: int, critical: int) -> Parameters:
    frames = extremal_frames(num_frames, dimension)
    alternating = jnp.asarray((-1.0) ** np.arange(num_frames - 1))
    return {
        "similarities": alternating,
        "turns": jnp.zeros((num_frames - 1, dimension - 2 + critical)),
        "excess": jnp.arcsin(jnp.sqrt((jnp.asarray(np.linalg.norm(frames, axis=1)) - 1) / 2)),
        "swing": jnp.asarray(jnp.pi / 2),
        "level": jnp.asarray(0.0),
    }


def _on_a_line() -> Outcome:
    """(1, 1, -1) for d = 1: L = 4, a critical point, and a Hessian of zero. `temporal_loss` refuses vectors of length one, so it is summed here."""

    def loss(line: jax.Array) -> jax.Array:
        return jnp.mean(jnp.diff(_cosines(jnp, line[:, None], 0.0)) ** 2)

    line = jnp.asarray([1.0, 1.0, -1.0])
    allowed = jnp.sum(line**2) * jnp.linalg.eigvalsh(-jax.hessian(loss)(line))[-1] / 8
    budget = PROBLEM.budget((("num_frames", 3), ("dimension", 1), ("critical", 1)))
    return Outcome("three frames on a line", float(loss(line)), abs(max(float(allowed), 0.0)), budget, witness={"frames": np.asarray(line)[:, None]})


def _full_plane() -> Outcome:
    # s = (1, -1) / sqrt 2 and L = 2, but the least eigenvalue is -4 and not -16/3: in the plane no displacement is normal to all frames.
    size = (("num_frames", 3), ("dimension", 2), ("critical", 0))
    half = 0.5**0.5
    frames = jnp.asarray([[1.0, 0.0], [half, half], [-1.0, 0.0]])
    return PROBLEM.outcome({"frames": frames}, size, "frames that fill the plane, away from critical points")


def _planted_norms(frames: jax.Array) -> jax.Array:
    return loss_at_curvature(frames) * frames.shape[0] * jnp.min(jnp.sum(frames**2, axis=1)) / jnp.sum(frames**2)


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome({"frames": start["frames"]}, (*size, ("critical", 0)), label) for label, size, start in instances.frame_instances(evidence)]


def _one_frame_for_all(instance: Instance) -> jax.Array:
    """The largest squared norm in the place of their sum."""
    squares = jnp.sum(instance["frames"] ** 2, axis=1)
    return loss_at_curvature(instance["frames"]) * jnp.max(squares) / jnp.sum(squares)


def _squared_mean(instance: Instance) -> jax.Array:
    """N times the square of the mean norm in the place of the sum of squares."""
    squares = jnp.sum(instance["frames"] ** 2, axis=1)
    return loss_at_curvature(instance["frames"]) * squares.shape[0] * jnp.mean(jnp.sqrt(squares)) ** 2 / jnp.sum(squares)


def _inner_frames(instance: Instance) -> jax.Array:
    """The outer two frames left out of the sum."""
    squares = jnp.sum(instance["frames"] ** 2, axis=1)
    return loss_at_curvature(instance["frames"]) * jnp.sum(squares[1:-1]) / jnp.sum(squares)


CLAIM = Claim(
    id="C2.landscape",
    title="No local minimum of the temporal loss is worse than the global one",
    statement=(
        "In dimension d >= 2, at every critical point, and everywhere if the dimension exceeds the number of frames, "
        "the Hessian of the temporal loss has an "
        "eigenvalue of at most -8 L / (sum of squared norms): where the loss is not 0 there is a way down. 8 is the "
        "best constant."
    ),
    latex=r"\lambda_{\min}(\nabla^2 L(F)) \le -\frac{8\,L(F)}{\sum_t\|F_t\|^2}",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames, none of them zero."),
        Hypothesis("H2", "The gradient vanishes at F, or some direction is normal to every frame."),
        Hypothesis("H3", "The features have dimension d >= 2."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="temporal loss (dimensionless)",
    bound_in_words=(
        "- lambda_min(Hess L) times the sum of squared norms, over 8: the largest loss that the most negative "
        "curvature allows"
    ),
    sharpness=(
        "attained at every N, in dimension d >= 2, by collinear frames with similarities 1, -1, 1, .. and squared "
        "norms proportional to |y_{t-1}| + |y_t|"
    ),
    necessity={"H2": _full_plane, "H3": _on_a_line},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0; at a zero frame it is undefined"},
    planted={
        "the largest squared norm for the sum": _one_frame_for_all,
        "N times the squared mean norm for the sum of squares": _squared_mean,
        "the outer frames left out of the sum": _inner_frames,
        "9 for 8": lambda instance: loss_at_curvature(instance["frames"], factor=9.0),
        "N times the least squared norm for the sum of squared norms": lambda instance: _planted_norms(instance["frames"]),
    },
    reality=(
        Comparison(
            question=(
                "Does the Hessian at the UNet's features, in more dimensions than frames, have an eigenvalue of at "
                "most -8 L / (sum of squared norms)?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.landscape; a feature has thousands of entries, so some direction is normal to every frame",
        ),
    ),
    lemmas=("Perron-Frobenius",),
    floor=0.999,
    floor_reason="the supremum is attained at collinear frames, which gradient ascent approaches",
)
