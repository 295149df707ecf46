r"""Clamping the norms at eps, as frameworks do to avoid dividing by zero, does not make the gradient Lipschitz.

Statement (refuted). With s_t = <F_t, F_{t+1}> / (max(||F_t||, eps) max(||F_{t+1}||, eps)), eps > 0, there is a constant
K such that for all F, G

    \| \nabla L(F) - \nabla L(G) \| \le K \| F - G \|.

Counterexample. The gradient of the clamped cosine with a unit vector u' is u' / eps just inside the ball ||F|| < eps
and (u' - s u) / eps just outside, so it jumps by s u / eps at ||F|| = eps. In the loss, F_1 = 2 eps e_1, F_3 = -F_1 and
F_2 from eps (1 - h) e_1 to eps (1 + h) e_1 give the quotient

    \frac{4 (1 - h)}{h \, \varepsilon^2} \quad (N = 3),

which exceeds every K once h is small.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  The norms are clamped at eps > 0; the frames are arbitrary.

**Lower**: no constant exists. Where all norms are at least eps the clamp is idle and C_N / eps^2 is a constant
(C1.lipschitz); to be smooth everywhere, regularise instead (C1.regularised).

In the paper: not there; it is what torch.nn.functional.cosine_similarity computes (forward; its gradient inside the
ball is not even the gradient of its forward, see test_clamped.py). Proof: paper_notes.md, section C1.clamped.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from theory.claim import (
    Claim,
    Comparison,
    Expected,
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
from theory.evidence import Evidence
from theory.temporal_loss import instances
from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.lipschitz import lipschitz_constant

SIZES: tuple[Size, ...] = ((("num_frames", 3), ("dimension", 2)),)
SMALLEST_GAP = 2.0**-10


def clamped_loss(frames: jax.Array, epsilon) -> jax.Array:
    """The temporal loss with norms clamped at eps: max(||F_t||, eps) in place of ||F_t||.

    Args:
        frames: (frames, dimension) JAX array.
        epsilon: positive.
    """
    norms = jnp.sqrt(jnp.maximum(jnp.sum(frames**2, axis=1), epsilon**2))
    cosines = jnp.sum(frames[:-1] * frames[1:], axis=1) / (norms[:-1] * norms[1:])
    return jnp.mean((cosines[1:] - cosines[:-1]) ** 2)


def exact_quotient(gap: float, epsilon: float) -> float:
    """Difference quotient of the gradient of three frames, the middle one going from eps (1 - h) to eps (1 + h).

        4 (1 - h) / (h eps^2)

    Source: paper_notes.md, C1.clamped.
    """
    return 4 * (1 - gap) / (gap * epsilon**2)


def straddling_pair(gap, epsilon, *, num_frames: int = 3, dimension: int = 2) -> dict[str, jax.Array]:
    """eps times 2 e_1, (1 -+ h) e_1, -2 e_1, and, for more than three frames, -2 e_1 again, whose similarities stay
    1."""
    line = jnp.full(num_frames, 2.0).at[1].set(1.0).at[2:].set(-2.0)
    middle = jnp.zeros(num_frames).at[1].set(gap)
    first_axis = jnp.zeros((1, dimension)).at[0, 0].set(1.0)
    return {
        "frames": epsilon * (line - middle)[:, None] * first_axis,
        "others": epsilon * (line + middle)[:, None] * first_axis,
    }


def clamped_quotient(instance: Instance) -> jax.Array:
    """||grad L(F) - grad L(G)|| / ||F - G|| of the clamped loss for the pair (frames, others)."""
    gradient = jax.grad(clamped_loss)
    difference = gradient(instance["frames"], instance["epsilon"]) - gradient(instance["others"], instance["epsilon"])
    return jnp.sqrt(jnp.sum(difference**2) / jnp.sum((instance["frames"] - instance["others"]) ** 2))


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    first_key, radius_key, gap_key = jax.random.split(key, 3)
    return {
        "directions": instances.draw(first_key, num_frames=num_frames, dimension=dimension)["directions"],
        "log_radii": 0.3 * jax.random.normal(radius_key, (num_frames,)),
        "log_epsilon": jnp.asarray(0.0),
        "logit_gap": 4.0 * jax.random.normal(gap_key),
    }


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames of norms around eps, with the second one shortened and lengthened by a factor 1 -+ h/2, h between SMALLEST_GAP
    and 1."""
    epsilon = jnp.exp(parameters["log_epsilon"])
    frames = epsilon * jnp.exp(parameters["log_radii"])[:, None] * instances.unit_rows(parameters["directions"])
    gap = SMALLEST_GAP + (1 - SMALLEST_GAP) * jax.nn.sigmoid(parameters["logit_gap"])
    return {
        "frames": frames.at[1].multiply(1 - gap / 2),
        "others": frames.at[1].multiply(1 + gap / 2),
        "epsilon": epsilon,
        "constant": lipschitz_constant(num_frames) / epsilon**2,
    }


def operations(*, num_frames: int, dimension: int) -> int:
    """As for a pair of plain gradients, with members as close as SMALLEST_GAP: the roundings of the gradients grow by
    its inverse."""
    return int(1 / SMALLEST_GAP) * instances.gradient_operations(num_frames=num_frames, dimension=dimension)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=clamped_quotient,
    bound=lambda instance: instance["constant"],
    operations=operations,
)


def counterexample(constant, epsilon, *, num_frames: int, dimension: int) -> Instance:
    """A pair that breaks the proposed constant: h = 2 / (4 + (N-2) K eps^2) gives a quotient above 2 K."""
    gap = 2 / (4 + (num_frames - 2) * constant * epsilon**2)
    pair = straddling_pair(gap, epsilon, num_frames=num_frames, dimension=dimension)
    return {**pair, "epsilon": jnp.asarray(epsilon, dtype=float), "constant": jnp.asarray(constant, dtype=float)}


def _draw_constant(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    constant_key, epsilon_key = jax.random.split(key)
    return {
        "log_constant": jax.random.uniform(constant_key, minval=-10.0, maxval=10.0),
        "log_epsilon": jax.random.uniform(epsilon_key, minval=-3.0, maxval=3.0),
    }


COUNTEREXAMPLES = Problem(
    sizes=((("num_frames", 3), ("dimension", 2)), (("num_frames", 5), ("dimension", 2))),
    draw=_draw_constant,
    instance=lambda parameters, *, num_frames, dimension: counterexample(
        jnp.exp(parameters["log_constant"]),
        jnp.exp(parameters["log_epsilon"]),
        num_frames=num_frames,
        dimension=dimension,
    ),
    measured=clamped_quotient,
    bound=lambda instance: instance["constant"],
    operations=operations,
)


def _outside(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Pairs of norms above eps, by a margin that rounding cannot cross: a norm that rounds to just below eps is on the
    wrong side of the jump."""
    pair = instances.pair_instance(parameters, num_frames=num_frames, dimension=dimension)
    return {"frames": pair["frames"], "others": pair["others"], "epsilon": (1 - SMALLEST_GAP) * pair["min_norm"]}


REPAIRED = Problem(
    sizes=SIZES,
    draw=instances.draw_pair,
    instance=_outside,
    measured=clamped_quotient,
    bound=lambda instance: lipschitz_constant(instance["frames"].shape[0]) / instance["epsilon"] ** 2,
    operations=instances.pair_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The counterexample to the constant that holds outside the ball, at eps = 1."""
    return counterexample(lipschitz_constant(num_frames), 1.0, num_frames=num_frames, dimension=dimension)


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    pair = witness(num_frames=num_frames, dimension=dimension)
    middle = (pair["frames"] + pair["others"]) / 2
    gap = 1 - pair["frames"][1, 0]  # the witness's h; the family's is 2 h
    share = (2 * gap - SMALLEST_GAP) / (1 - SMALLEST_GAP)
    return {
        "directions": middle,
        "log_radii": jnp.log(jnp.sqrt(jnp.sum(middle**2, axis=1))),
        "log_epsilon": jnp.asarray(0.0),
        "logit_gap": jnp.log(share / (1 - share)),
    }


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """The network's features, clamped at the norm of their second frame, which goes from just inside to just outside."""
    outcomes = []
    for label, size, record in instances.frame_instances(evidence):
        frames = record["frames"]
        middle = jnp.sqrt(jnp.sum(frames[1] ** 2))
        constant = lipschitz_constant(frames.shape[0]) / middle**2
        # |s u| of the jump is |y| |s| / eps at least; a gap that makes the quotient more than twice the constant by the proof.
        jump = jnp.abs(_radial_pull(frames)) / middle
        gap = jnp.minimum(SMALLEST_GAP, jump / (8 * constant * middle))
        pair = {"frames": frames.at[1].multiply(1 - gap), "others": frames.at[1].multiply(1 + gap), "epsilon": middle, "constant": constant}
        outcomes.append(PROBLEM.outcome(pair, size, f"{label}, h = {float(gap):.3g}"))
    return outcomes


def _radial_pull(frames: jax.Array) -> jax.Array:
    """y_1 s_1 + y_2 s_2: what the gradient of the second frame has along it just inside the clamp, times eps, and has not outside."""
    units = instances.unit_rows(frames)
    cosines = jnp.sum(units[1:] * units[:-1], axis=1)
    steps = jnp.pad(jnp.diff(cosines), 1)
    slopes = 2 / (frames.shape[0] - 2) * (steps[:-1] - steps[1:])
    return slopes[0] * cosines[0] + slopes[1] * cosines[1]


def _with_constant(constant, power: int = 2):
    return lambda instance: constant(instance["frames"].shape[0]) / instance["epsilon"] ** power


def _largest_norm(instance: Instance):
    largest = jnp.max(jnp.sum(jnp.concatenate([instance["frames"], instance["others"]]) ** 2, axis=1))
    return lipschitz_constant(instance["frames"].shape[0]) / largest


CLAIM = Claim(
    id="C1.clamped",
    title="Clamping the norms does not make the gradient Lipschitz",
    statement=(
        "Refuted: with norms clamped at eps > 0 the gradient of the temporal loss is Lipschitz. It jumps where a norm "
        "crosses eps."
    ),
    latex=(
        r"\max(\|F_t\|,\varepsilon)\;\not\Rightarrow\;\|\nabla L(F)-\nabla L(G)\|\le K\|F-G\|;\quad\text{the quotient "
        r"}\frac{4(1-h)}{h\,\varepsilon^2}\text{ is reached}"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "The norms are clamped at eps > 0; the frames are arbitrary."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="not in the paper; the usual guard in its companion's framework",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "difference quotient of the gradient of the clamped loss between two sets of frames, in units of 1 / (feature "
        "norm)^2"
    ),
    bound_in_words=(
        "C_N / eps^2, which holds where every norm is at least eps; every other constant is exceeded in the same way"
    ),
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": (
            "every counterexample satisfies it, in every dimension, 1 included; the repair keeps the frames where the "
            "clamp is idle"
        ),
    },
    planted={
        "repair with eps for eps^2": _with_constant(lipschitz_constant, power=1),
        "repair with the constant of N + 1 frames": _with_constant(lambda num_frames: lipschitz_constant(num_frames + 1)),
        "repair with the gradient's constant": _with_constant(gradient_constant),
        "repair with the largest norm for eps": _largest_norm,
    },
    reality=(
        Comparison(
            question=(
                "Does the clamped loss keep the quotient below C_N / eps^2 on the UNet's frames, clamped at the norm "
                "of the second one, which goes "
                "from eps (1 - h) to eps (1 + h)?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            expected=Expected.VIOLATED,
            because=(
                "the gradient jumps by |y_1 s_1 + y_2 s_2| / eps there, so where that is not 0 a small enough h "
                "breaks any constant: a clamp promises no "
                "Lipschitz gradient"
            ),
        ),
    ),
    relies_on=("C1.lipschitz",),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
