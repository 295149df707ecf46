r"""The statement as published: an upper bound on the norms makes the gradient Lipschitz. It does not.

Statement (refuted). There is a constant K, depending on N and M, such that for all F, G with ||F_t||, ||G_t|| <= M

    \| \nabla L(F) - \nabla L(G) \| \le K \| F - G \|.

Counterexample. F_1 = .. = F_{N-1} = M e_1, and F_N = r e_2 against 2 r e_2, with 2 r <= M: the difference quotient is
exactly

    \frac{1}{(N-2) \, r^2},

which exceeds every K once r is small. The loss is not even continuous at a zero frame: with F_3 = r (cos a, sin a) and
F_1 = F_2 = e_1 it is (1 - cos a)^2 for every r > 0, so it has no limit as r -> 0.

Hypotheses, as published.
    H1  There are N >= 3 frames.
    H2  ||F_t|| <= M for every frame.
    H3  (ours) The features have dimension d >= 2: on a line the gradient vanishes off 0, and the statement is true.

**Lower**: no constant exists. An upper bound on the norms is neither sufficient nor needed; with a lower bound m
instead the statement is true with K = C_N / m^2 (C1.lipschitz).

In the paper: Theorem 4.1, in the wording of a public review. Proof: paper_notes.md, section C1.stated.
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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.temporal_loss import instances, lipschitz
from theory.temporal_loss.gradient import gradient_constant


def shrinking_pair(num_frames: int, dimension: int, radius, max_norm=1.0) -> dict[str, jax.Array]:
    """Frames M e_1, .., M e_1 and a last one that goes from r e_2 to 2 r e_2, of difference quotient 1 / ((N-2) r^2).

    Args:
        num_frames, dimension: at least 3 and 2.
        radius: r, at most M / 2.
        max_norm: M.

    Returns:
        "frames" and "others", each (num_frames, dimension).
    """
    shared = jnp.zeros((num_frames, dimension)).at[:-1, 0].set(max_norm)
    return {"frames": shared.at[-1, 1].set(radius), "others": shared.at[-1, 1].set(2 * radius)}


def exact_quotient(num_frames: int, radius: float) -> float:
    """Difference quotient of the gradient along `shrinking_pair`.

        1 / ((N-2) r^2)

    Source: paper_notes.md, C1.stated.
    """
    return 1 / ((num_frames - 2) * radius**2)


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """A drawn pair whose directions differ."""
    return {**instances.draw_pair(key, num_frames=num_frames, dimension=dimension), "turned": jnp.asarray(1.0)}


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Pairs with norms M exp(-excess^2) <= M; where `turned` is 0 they differ in their norms alone, and somewhere by a factor."""
    max_norm = jnp.exp(parameters["log_min_norm"])
    first, turned = instances.pair_directions(parameters)
    second = jnp.where(parameters["turned"] == 0, first, turned)
    # Two members that coincide have no difference quotient: the second is then shortened by e.
    same = (parameters["turned"] == 0) & jnp.all(parameters["excess"] ** 2 == parameters["other_excess"] ** 2)
    parameters = {**parameters, "other_excess": jnp.where(same, 1.0 + jnp.abs(parameters["excess"]), parameters["other_excess"])}
    return {
        "frames": (max_norm * jnp.exp(-(parameters["excess"] ** 2)))[:, None] * first,
        "others": (max_norm * jnp.exp(-(parameters["other_excess"] ** 2)))[:, None] * second,
        "constant": lipschitz.lipschitz_constant(num_frames) / max_norm**2,
    }


PROBLEM = Problem(
    sizes=instances.SIZES[:2],
    draw=_draw,
    instance=_instance,
    measured=instances.difference_quotient,
    bound=lambda instance: instance["constant"],
    operations=instances.pair_operations,
)


def _draw_constant(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    constant_key, norm_key = jax.random.split(key)
    return {
        "log_constant": jax.random.uniform(constant_key, minval=-20.0, maxval=20.0),
        "log_max_norm": jax.random.uniform(norm_key, minval=-3.0, maxval=3.0),
    }


def counterexample(constant, *, num_frames: int, dimension: int, max_norm=1.0) -> Instance:
    """A pair with norms at most M that breaks the proposed constant: r = M / (2 sqrt(1 + (N-2) K M^2)), so 1/((N-2)
    r^2) > 4 K."""
    radius = 0.5 * max_norm / jnp.sqrt(1 + (num_frames - 2) * constant * max_norm**2)
    return {**shrinking_pair(num_frames, dimension, radius, max_norm), "constant": jnp.asarray(constant, dtype=float)}


def _counterexample(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    return counterexample(
        jnp.exp(parameters["log_constant"]),
        num_frames=num_frames,
        dimension=dimension,
        max_norm=jnp.exp(parameters["log_max_norm"]),
    )


COUNTEREXAMPLES = Problem(
    sizes=PROBLEM.sizes,
    draw=_draw_constant,
    instance=_counterexample,
    measured=instances.difference_quotient,
    bound=lambda instance: instance["constant"],
    operations=instances.pair_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The counterexample to the constant that would be right if M bounded the norms from below."""
    return counterexample(lipschitz.lipschitz_constant(num_frames), num_frames=num_frames, dimension=dimension)


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    """All frames M e_1 but the last, of length r and 2 r along e_2; the directions stay."""
    pair = witness(num_frames=num_frames, dimension=dimension)
    lengths = {name: jnp.sqrt(jnp.sum(pair[name] ** 2, axis=1)) for name in ("frames", "others")}
    return {
        "directions": pair["frames"],
        "excess": jnp.sqrt(-jnp.log(lengths["frames"])),
        "other_excess": jnp.sqrt(-jnp.log(lengths["others"])),
        "log_min_norm": jnp.asarray(0.0),
        "turns": jnp.zeros((num_frames, dimension)),
        "weights": jnp.zeros(num_frames),
        "logit_angle": jnp.asarray(0.0),
        "turned": jnp.asarray(0.0),
    }


def max_norm_of(instance: Instance) -> jax.Array:
    """The largest norm of a pair's frames: the M of the statement."""
    return jnp.sqrt(jnp.max(jnp.sum(jnp.concatenate([instance["frames"], instance["others"]]) ** 2, axis=1)))


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """The network's frames with the last one shortened to r and to 2 r, r so small that the quotient exceeds C_N / M^2 by the proof.

    The last frame's gradient is g / r with g the same for both lengths, so the quotient is |g| / (2 r^2).
    """
    outcomes = []
    for label, size, record in instances.frame_instances(evidence):
        frames = record["frames"]
        largest = jnp.sqrt(jnp.max(jnp.sum(frames**2, axis=1)))
        constant = lipschitz.lipschitz_constant(frames.shape[0]) / largest**2
        length = jnp.sqrt(jnp.sum(frames[-1] ** 2))
        pull = length * jnp.sqrt(jnp.sum(instances.gradient(frames)[-1] ** 2))
        shrink = jnp.minimum(0.5, jnp.sqrt(pull / (8 * constant)) / length)
        pair = {"frames": frames.at[-1].multiply(shrink), "others": frames.at[-1].multiply(2 * shrink), "constant": constant}
        outcomes.append(PROBLEM.outcome(pair, size, f"{label}, last frame times {float(shrink):.3g}"))
    return outcomes


def _with_constant(constant, power: int = 2):
    return lambda instance: constant(instance["frames"].shape[0]) / instance["min_norm"] ** power


def _upper_norm_repair(instance: Instance):
    return lipschitz.lipschitz_constant(instance["frames"].shape[0]) / max_norm_of(instance) ** 2


CLAIM = Claim(
    id="C1.stated",
    title="An upper bound on the norms does not make the gradient Lipschitz",
    statement=(
        "Refuted in every dimension d >= 2: if the feature norms are at most M, the gradient of the temporal loss is "
        "Lipschitz with a constant "
        "that depends on N and M."
    ),
    latex=(
        r"\|F_t\|\le M \;\not\Rightarrow\; \|\nabla L(F)-\nabla L(G)\| \le K\|F-G\|;\quad \text{the quotient "
        r"}\frac{1}{(N-2)r^2}\text{ is reached for all } r\le M/2"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| <= M for every frame."),
        Hypothesis("H3", "The features have dimension d >= 2."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="the paper's Theorem 4.1, as published",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "difference quotient of the gradient between two sets of frames of norm at most M, in units of 1 / (feature "
        "norm)^2"
    ),
    bound_in_words=(
        "C_N / M^2, what would be right if M bounded the norms from below; every other constant is exceeded in the "
        "same way"
    ),
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "every counterexample satisfies it; the repair puts a bound from below in its place",
        "H3": (
            "for d = 1 every similarity is 1 or -1 and locally constant off 0, the gradient is 0 there, and the "
            "statement holds with K = 0"
        ),
    },
    planted={
        "repair with the largest norm in place of the least": _upper_norm_repair,
        "repair with m for m^2": _with_constant(lipschitz.lipschitz_constant, power=1),
        "repair with the constant of N + 1 frames": _with_constant(lambda num_frames: lipschitz.lipschitz_constant(num_frames + 1)),
        "repair with the gradient's constant": _with_constant(gradient_constant),
        "repair with the counterexample's own 1 / (N-2)": _with_constant(lambda num_frames: 1 / (num_frames - 2)),
    },
    reality=(
        Comparison(
            question=(
                "Does the published inequality with K = C_N / M^2, M the largest norm, survive on the UNet's frames "
                "when the last one is shortened, "
                "once to r and once to 2 r?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            expected=Expected.VIOLATED,
            because=(
                "the gradient at a frame is inversely proportional to its length, so where it is not 0 a short enough "
                "frame breaks any constant: "
                "nothing is promised by an upper bound on the norms"
            ),
        ),
    ),
    relies_on=("C1.lipschitz",),
    counterexamples=COUNTEREXAMPLES,
    repaired=lipschitz.PROBLEM,
)
