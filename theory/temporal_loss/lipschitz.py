r"""Lipschitz constant of the gradient on frames of norm at least m, a set with holes.

Statement. For F, G with ||F_t||, ||G_t|| >= m > 0 for all t of N >= 3,

    \| \nabla L(F) - \nabla L(G) \| \le \frac{K_N}{m^2} \| F - G \|,
    \qquad K_N = C_N \frac{x}{\sin x}, \quad x = \min(G_N / C_N, \pi/2),

with the constants C_N of C1.hessian and G_N of C1.gradient. The set is not convex: each frame avoids the ball of radius
m, so the segment from F to G may leave it and the Hessian bound alone does not give a Lipschitz constant. A frame whose
segment meets the ball goes round it on the arc.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  All frames of both F and G have norm at least m > 0.

**Upper**: C_N <= m^2 Lip <= K_N, with K_N / C_N = 1.028 (N = 3), 1.036 (4), 1.048 (6), 1.067 (8), 1.161 (16), and never
above pi/2. No pair with a quotient above C_N / m^2 is known.

In the paper: repairs Theorem 4.1, which bounds the norms from above. Proof: paper_notes.md, section C1.lipschitz.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Problem, Tightness, Verdict
from theory.evidence import Evidence
from theory.temporal_loss import instances
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import extremal_frames, hessian_constant


def lipschitz_constant(num_frames: int) -> float:
    """A proved Lipschitz constant K_N of the gradient at m = 1.

        K_N = C_N x / sin x,   x = min(G_N / C_N, pi/2)

    Source: paper_notes.md, C1.lipschitz. It lies between the sharp Hessian constant C_N and (pi/2) C_N.

    Raises:
        ValueError: fewer than 3 frames.
    """
    curvature = hessian_constant(num_frames)
    angle = min(gradient_constant(num_frames) / curvature, math.pi / 2)
    return curvature * angle / math.sin(angle)


def detour(start: np.ndarray, end: np.ndarray, min_norm: float, num_points: int = 257) -> tuple[np.ndarray, float]:
    """The segment from start to end, its part inside the ball of radius min_norm about 0 replaced by an arc of that
    radius.

    Args:
        start, end: (dimension,) float64 of norm at least min_norm, dimension >= 2.

    Returns:
        Points along the path, (num_points, dimension), and its length, at most 2 m arcsin(||start - end|| / (2 m))
        where that exists and at most pi/2 times the distance always.

    Raises:
        ValueError: an end point inside the ball, or a single dimension, in which there is no way round.
    """
    if start.shape[0] < 2:
        raise ValueError(
            f"dimension = {start.shape[0]}; at least 2 is needed: on a line there is no way round the ball"
        )
    for name, point in (("start", start), ("end", end)):
        if not np.linalg.norm(point) >= min_norm:
            raise ValueError(
                f"{name} has norm {np.linalg.norm(point):.6g}; at least min_norm = {min_norm:.6g} is needed"
            )
    chord = end - start
    distance = float(np.linalg.norm(chord))
    positions = np.linspace(0.0, 1.0, num_points)
    # ||start + p chord||^2 = m^2 has two roots p in [0, 1] exactly when the segment crosses the ball.
    half_slope, gap = float(start @ chord), float(start @ start) - min_norm**2
    discriminant = half_slope**2 - distance**2 * gap
    if discriminant <= 0 or not 0 <= -half_slope <= distance**2:
        return start + positions[:, None] * chord, distance
    entry, exit_ = ((-half_slope + sign * math.sqrt(discriminant)) / distance**2 for sign in (-1, 1))
    enter, leave = start + entry * chord, start + exit_ * chord
    # Through the centre every half circle will do: start it in the basis direction least aligned with the chord.
    direction = (
        leave if abs(enter @ leave + min_norm**2) > 1e-8 * min_norm**2 else np.eye(len(start))[np.argmin(np.abs(enter))]
    )
    normal = direction - (direction @ enter) / (enter @ enter) * enter
    normal *= min_norm / np.linalg.norm(normal)
    angle = 2 * math.asin(min(1.0, float(np.linalg.norm(leave - enter)) / (2 * min_norm)))
    lengths = np.asarray([entry * distance, min_norm * angle, (1 - exit_) * distance])
    total = float(np.sum(lengths))
    places = positions * total
    on_arc = np.clip((places - lengths[0]) / min_norm, 0.0, angle)
    path = np.cos(on_arc)[:, None] * enter + np.sin(on_arc)[:, None] * normal
    before, after = places < lengths[0], places > lengths[0] + lengths[1]
    path[before] = start + (places[before] / distance)[:, None] * chord
    path[after] = end - ((total - places[after]) / distance)[:, None] * chord
    return path, total


PROBLEM = Problem(
    sizes=instances.SIZES[:2],
    draw=instances.draw_pair,
    instance=instances.pair_instance,
    measured=instances.difference_quotient,
    bound=lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2,
    operations=instances.pair_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Frames at which the Hessian is extreme, turned a little to either side along its top eigenvector; m = 1."""
    frames = extremal_frames(num_frames, dimension)
    incidence = np.eye(num_frames - 1, num_frames) + np.eye(num_frames - 1, num_frames, k=1)
    weights = np.full(num_frames - 1, 1.0 if num_frames == 3 else 2.0)
    weights[[0, -1]] = 1.0
    top = np.abs(np.linalg.eigh(incidence.T @ (weights[:, None] * incidence))[1][:, -1])
    # The sign pattern of the Hessian's top eigenvector: neighbours turn apart where they agree and together where they
    # are opposite.
    signs = np.cumprod(np.concatenate([[1.0], -np.sign(np.sum(frames[:-1] * frames[1:], axis=1))]))
    half_turns = instances.SMALLEST_TURN / 2 * (signs * top) / np.max(top)
    pair = []
    for angles in (half_turns, -half_turns):
        turned = np.zeros_like(frames)
        turned[:, 0] = np.cos(angles) * frames[:, 0]
        turned[:, 1] = np.sin(angles)
        pair.append(turned)
    least = min(np.min(np.linalg.norm(turned, axis=1)) for turned in pair)
    return {"frames": jnp.asarray(pair[0]), "others": jnp.asarray(pair[1]), "min_norm": jnp.asarray(least)}


def _short_frames() -> Outcome:
    size = instances.SIZES[0]
    pair = dict(witness(**dict(size)))
    pair["frames"], pair["others"] = 0.5 * pair["frames"], 0.5 * pair["others"]
    return PROBLEM.outcome(pair, size, "norms m / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.pair_instances(evidence)]


CLAIM = Claim(
    id="C1.lipschitz",
    title="Lipschitz constant of the gradient on frames bounded away from zero",
    statement=(
        "On pairs of N frames of norm at least m the gradient of the temporal loss is Lipschitz with the constant K_N "
        "/ m^2, although the "
        "set of such frames is not convex."
    ),
    latex=(
        r"\|\nabla L(F)-\nabla L(G)\| \le \frac{K_N}{m^2}\|F-G\|,\quad K_N = C_N\frac{x}{\sin x},\ "
        r"x=\min(G_N/C_N,\pi/2)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "All frames of both F and G have norm at least m > 0."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.UPPER,
    origin="repairs the paper's Theorem 4.1",
    problem=PROBLEM,
    witnesses=witness,
    necessity={"H2": _short_frames},
    definitional={"H1": "with fewer than three frames the loss has no term"},
    planted={
        "0.98 C_N for K_N": lambda instance: (
            0.98 * hessian_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2
        ),
        "m for m^2": lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["min_norm"],
        "the constant of N + 1 frames": lambda instance: (
            lipschitz_constant(instance["frames"].shape[0] + 1) / instance["min_norm"] ** 2
        ),
    },
    reality=_reality,
    floor=0.96,
    floor_reason=(
        "pairs close together reach C_N, and C_N / K_N is 0.972 and 0.965 at N = 3 and 4; nothing above C_N is known"
    ),
)
