r"""Sharp Lipschitz constant of the gradient on frames of norm at least m, a set with holes.

Statement. For F, G with ||F_t||, ||G_t|| >= m > 0 for all t of N >= 3, in any dimension,

    \| \nabla L(F) - \nabla L(G) \| \le \frac{C_N}{m^2} \| F - G \|,

with the constant C_N of C1.hessian. The set is not convex: each frame avoids the ball of radius m, so the segment from
F to G may leave it, and there the Hessian is unbounded: the Hessian's bound alone gives no more than pi/2 times C_N, by
a detour round the holes. The holes turn out to cost nothing.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  All frames of both F and G have norm at least m > 0.

**Tight**: where F and G coincide the quotient is read as its limit, the Hessian's norm, which attains C_N / m^2 in
dimension d >= 2. Pairs of different points come as close to it as one likes.

In the paper: repairs Theorem 4.1, which bounds the norms from above. Proof: paper_notes.md, section C1.lipschitz.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from theory.claim import Claim, Comparison, Hypothesis, Instance, Origin, Outcome, Problem, Tells, Tightness, Verdict
from theory.evidence import Evidence
from theory.temporal_loss import instances
from theory.temporal_loss.hessian import extremal_frames, hessian_constant, hessian_norm


def lipschitz_constant(num_frames: int) -> float:
    """The sharp Lipschitz constant of the gradient at m = 1: C_N, the constant of the Hessian.

    Source: paper_notes.md, C1.lipschitz.

    Raises:
        ValueError: fewer than 3 frames.
    """
    return hessian_constant(num_frames)


def quotient(instance: Instance):
    """||grad L(F) - grad L(G)|| / ||F - G|| of the pair (frames, others); ||Hess L(F)|| where F = G."""
    coincide = jnp.all(instance["frames"] == instance["others"])
    # Both branches are evaluated: a pair that coincides is replaced where its quotient would be 0 / 0, and no search
    # starts from such a pair, so the limit needs no derivative.
    apart = {**instance, "others": jnp.where(coincide, 2.0 * instance["frames"], instance["others"])}
    limit = jax.lax.stop_gradient(hessian_norm(jax.lax.stop_gradient(instance["frames"])))
    return jnp.where(coincide, limit, instances.difference_quotient(apart))


PROBLEM = Problem(
    sizes=instances.SIZES[:2],
    draw=instances.draw_pair,
    instance=instances.pair_instance,
    measured=quotient,
    bound=lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2,
    operations=instances.pair_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """A pair that coincides where the Hessian is extreme; m = 1."""
    frames = jnp.asarray(extremal_frames(num_frames, dimension))
    return {"frames": frames, "others": frames, "min_norm": jnp.asarray(1.0)}


def _short_frames() -> Outcome:
    size = instances.SIZES[0]
    frames = 0.5 * witness(**dict(size))["frames"]
    turn = instances.SMALLEST_TURN
    turned = frames.at[0].set(0.5 * jnp.asarray([jnp.cos(turn), jnp.sin(turn)]))
    pair = {"frames": frames, "others": turned, "min_norm": jnp.asarray(1.0)}
    return PROBLEM.outcome(pair, size, "norms m / 2, one frame turned")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.pair_instances(evidence)]


CLAIM = Claim(
    id="C1.lipschitz",
    title="Sharp Lipschitz constant of the gradient on frames bounded away from zero",
    statement=(
        "On N frames of norm at least m the gradient of the temporal loss is Lipschitz with the constant C_N / m^2 of "
        "its Hessian, although the set of such frames is not convex, and no smaller constant will do."
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
    tightness=Tightness.ATTAINED,
    origin="repairs the paper's Theorem 4.1",
    problem=PROBLEM,
    witnesses=witness,
    necessity={"H2": _short_frames},
    definitional={"H1": "with fewer than three frames the loss has no term"},
    planted={
        "m for m^2": lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["min_norm"],
        "the constant of N + 1 frames": lambda instance: (
            lipschitz_constant(instance["frames"].shape[0] + 1) / instance["min_norm"] ** 2
        ),
    },
    reality=(
        Comparison(
            question="the claim's inequality",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="the theorem, whose hypotheses hold for these numbers by the way they are read off",
        ),
    ),
    floor=0.995,
    floor_reason=(
        "the search keeps a turn of at least 1/16 between the two members of a pair, and a pair so far apart stays a "
        "little below the limit"
    ),
)
