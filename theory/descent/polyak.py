r"""The Polyak-Lojasiewicz inequality: away from similarities of 1 and -1 the gradient dominates the loss.

Statement. For N >= 3 frames with ||F_t|| <= R and |s_t| <= sqrt(1 - sigma), sigma in (0, 1],

    \|\nabla L(F)\|^2 \ge \mu \, L(F), \qquad
    \mu = \frac{64}{N-2} \sin^2\frac{\pi}{2(N-1)} \, \sin^2\frac{\pi}{2N} \cdot \frac{\sigma}{R^2}.

Where it holds along a run of descent with eta < 2 m^2 / C_N, each step multiplies the loss by at most 1 - eta mu (1 -
eta C_N / (2 m^2)). It need not go on holding: sigma may fall to 0 along a run, and descent may end in a saddle although
all |s_t| < 1 at the start (C2.stated). From a start with |s_t| <= c < 1 whose loss is small enough it holds for ever
(`linear_loss_bound`): the whole path is so short that no similarity gets past (1 + c) / 2.

Hypotheses.
    H1  There are N >= 3 frames, none of them zero.
    H2  s_t^2 <= 1 - sigma for every neighbouring pair.
    H3  ||F_t|| <= R for every frame.

**Attained** for N = 3 (mu = 8 sigma / R^2), in dimension d >= 2, by u_1 = (a, b), u_2 = (1, 0), u_3 = (-a, b), b^2 = sigma,
of norm R. For N >= 4 mu is a lower bound and not the best one: the two eigenvectors that would have to agree do not. The
smallest ratios ||grad L||^2 / (mu L) found are 1.71 (N = 4), 1.33 (5), 1.85 (6).

In the paper: not there. Proof: paper_notes.md, section C2.pl.
"""

import math
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
from theory.descent.feature_descent import check_run, gradient
from theory.descent.instances import chain, draw_normals, profile
from theory.descent.landscape import LEAST_SWING
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import similarities, temporal_loss

SIZES: tuple[Size, ...] = tuple((("num_frames", num_frames), ("dimension", dimension)) for num_frames, dimension in ((3, 2), (3, 3), (4, 2)))

LARGEST_SIMILARITY = 0.99
"""Of the instances that are searched, so that 1 - s^2 keeps all but six bits."""


def gradient_dominance(num_frames: int) -> float:
    """The constant of the inequality at sigma = R = 1.

        (64/(N-2)) sin^2(pi / (2 (N-1))) sin^2(pi / (2 N))

    It is 8 for three frames. Source: paper_notes.md, C2.pl.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return 64 / (num_frames - 2) * (math.sin(math.pi / (2 * (num_frames - 1))) * math.sin(math.pi / (2 * num_frames))) ** 2


def linear_loss_bound(
    num_frames: int,
    initial_loss: float,
    min_norm: float,
    max_norm: float,
    largest_similarity: float,
    step_size: float,
    num_steps: int,
) -> float:
    """The loss after a number of steps of descent on the features from a start near a minimum with no parallel neighbours, at
    most: it falls geometrically.

        L_k <= (1 - eta b mu)^k L_0,   b = 1 - eta C_N / (2 m^2),   mu = mu_N (1 - (1 + c)^2 / 4) / (R^2 + eta L_0 / b),
        provided   L_0 <= mu (m b (1 - c))^2 / 32

    with mu_N the constant of `gradient_dominance`.

    Args:
        num_frames: N.
        initial_loss: L_0 of the start.
        min_norm, max_norm: least and largest norm m, R of a frame of the start.
        largest_similarity: c = max |s_t| of the start, below 1.
        step_size: eta, below `feature_step_limit(num_frames, min_norm)`.
        num_steps: k >= 0.

    Source: paper_notes.md, C2.pl.

    Raises:
        ValueError: an argument outside the range above; a loss above the limit, which the message names.
    """
    limit = check_run(num_frames, min_norm, max_norm, step_size, num_steps)
    if not 0 <= largest_similarity < 1:
        raise ValueError(f"largest_similarity = {largest_similarity}; it must lie in [0, 1): the rate vanishes where neighbours are parallel")
    if not (math.isfinite(initial_loss) and initial_loss >= 0):
        raise ValueError(f"initial_loss = {initial_loss}; a finite number of at least 0 is needed")
    share = 1 - step_size / limit
    sigma = 1 - (1 + largest_similarity) ** 2 / 4
    dominance = gradient_dominance(num_frames) * sigma / (max_norm**2 + step_size * initial_loss / share)
    ceiling = dominance * (min_norm * share * (1 - largest_similarity)) ** 2 / 32
    if initial_loss > ceiling:
        raise ValueError(f"initial_loss = {initial_loss}; it must be at most {ceiling:.6g} for the similarities to stay away from 1 and -1")
    return initial_loss * (1 - step_size * share * dominance) ** num_steps


def dominated_loss(instance: Instance) -> jax.Array:
    """mu L(F)."""
    loss = temporal_loss(instance["frames"])
    return gradient_dominance(instance["frames"].shape[0]) * instance["sigma"] / instance["max_norm"] ** 2 * loss


def squared_gradient(frames: jax.Array) -> jax.Array:
    """||grad L(F)||^2."""
    return jnp.sum(gradient(frames) ** 2)


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    return draw_normals(
        key,
        {
            "similarities": (num_frames - 1,),
            "turns": (num_frames - 1, dimension - 1),
            "shortening": (num_frames,),
            "log_max_norm": (),
            "swing": (),
            "level": (),
        },
    )


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames of norms R/2 to R whose similarities stay away from 1 and -1, and differ enough for the loss to be no rounding error."""
    swing = LEAST_SWING + (1 - LEAST_SWING) * jnp.sin(parameters["swing"]) ** 2
    level = (1 - swing) * jnp.sin(parameters["level"])
    cosines = LARGEST_SIMILARITY * (level + swing * profile(parameters["similarities"]))
    max_norm = jnp.exp(parameters["log_max_norm"])
    norms = max_norm * (1 - jnp.sin(parameters["shortening"]) ** 2 / 2)
    return {
        "frames": norms[:, None] * chain(cosines, parameters["turns"]),
        "sigma": jnp.min((1 - cosines) * (1 + cosines)),
        "max_norm": max_norm,
    }


def _operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from the frames to either side, at the size of the bound.

    A chain of dot products, norms, projections and a division (counted as 16 (d + N)), squared. The similarities carry
    roundings of their own size, at most 1; the bound depends on their differences, at least 2 * 0.99 * 0.1 for some
    pair, and on 1 - s^2 >= 1 - 0.99^2.
    """
    smallest = min(2 * LARGEST_SIMILARITY * LEAST_SWING, 1 - LARGEST_SIMILARITY**2)
    return round(2 / smallest) * 16 * (dimension + num_frames)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=dominated_loss,
    bound=lambda instance: squared_gradient(instance["frames"]),
    operations=_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Frames of norm 1 with similarities 1/2, -1/2, 1/2, .., the outer ones of each three in the same half plane: sigma = 3/4, R = 1."""
    cosines = 0.5 * (-1.0) ** jnp.arange(num_frames - 1)
    return {"frames": chain(cosines, _turns(num_frames, dimension)), "sigma": jnp.asarray(0.75), "max_norm": jnp.asarray(1.0)}


def _turns(num_frames: int, dimension: int) -> jax.Array:
    """To one side and to the other in turn, in the plane of the first two axes."""
    return jnp.zeros((num_frames - 1, dimension - 1)).at[:, 0].set((-1.0) ** jnp.arange(num_frames - 1))


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    swing = (0.5 / LARGEST_SIMILARITY - LEAST_SWING) / (1 - LEAST_SWING)
    return {
        "similarities": (-1.0) ** jnp.arange(num_frames - 1),
        "turns": _turns(num_frames, dimension),
        "shortening": jnp.zeros(num_frames),
        "log_max_norm": jnp.asarray(0.0),
        "swing": jnp.arcsin(jnp.sqrt(jnp.asarray(swing))),
        "level": jnp.asarray(0.0),
    }


def _parallel_pair() -> Outcome:
    # A critical point of value 4: no sigma > 0 is admissible, and the gradient vanishes.
    size = SIZES[0]
    instance = dict(witness(**dict(size))) | {"frames": jnp.asarray([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])}
    return PROBLEM.outcome(instance, size, "similarities 1 and -1")


def _long_frame() -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"].at[0].multiply(2.0)
    return PROBLEM.outcome(instance, size, "one frame of norm 2 R")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        frames = start["frames"]
        cosines = similarities(frames)
        instance = {
            "frames": frames,
            "sigma": jnp.min((1 - cosines) * (1 + cosines)),
            "max_norm": jnp.sqrt(jnp.max(jnp.sum(frames**2, axis=1))),
        }
        outcomes.append(PROBLEM.outcome(instance, size, label))
    return outcomes


def _largest_sine(instance: Instance):
    """The largest 1 - s_t^2 in the place of the least."""
    cosines = similarities(instance["frames"])
    return squared_gradient(instance["frames"]) * instance["sigma"] / jnp.max((1 - cosines) * (1 + cosines))


def _constant_of(shift: int):
    """mu with the sines of N - shift frames: the larger constant of a shorter clip."""

    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        larger = 64 / (num_frames - 2) * (math.sin(math.pi / (2 * (num_frames - 1 - shift))) * math.sin(math.pi / (2 * (num_frames - shift)))) ** 2
        return squared_gradient(instance["frames"]) * gradient_dominance(num_frames) / larger

    return bound


def _rate_of_the_first_gradient(evidence: Evidence) -> Sequence[Outcome]:
    """Losses of the features along a recorded run, beside the geometric fall at the rate that gradient and curvature before it give.

        L_k <= (1 - eta mu (1 - eta kappa / 2))^k L_0,   mu = ||g||^2 / (2 L_0)
    """
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        promised = recorded.change_promised(record) / (2 * record.temporal_losses[0])
        for step in range(1, len(record.objectives)):
            bound = record.temporal_losses[0] * max(1 - promised, 0.0) ** step
            outcomes.append(recorded.compared(f"after {step} steps of the {record.label}", recorded.loss_of_features(record, step), bound))
    return outcomes


CLAIM = Claim(
    id="C2.pl",
    title="The gradient dominates the loss away from similarities of 1 and -1",
    statement=(
        "If s_t^2 <= 1 - sigma for all pairs and no norm exceeds R, the squared gradient is at least mu L with an "
        "explicit mu proportional to "
        "sigma / R^2; for three frames mu = 8 sigma / R^2 is the best constant. Descent converges linearly from a "
        "start near a minimum without parallel "
        "neighbours, and need not from elsewhere."
    ),
    latex=(
        r"\|\nabla L(F)\|^2 \ge \frac{64}{N-2}\sin^2\frac{\pi}{2(N-1)}\sin^2\frac{\pi}{2N}\,"
        r"\frac{\min_t(1-s_t^2)}{\max_t\|F_t\|^2}\,L(F)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames, none of them zero (N = 3 for the constant to be the best)."),
        Hypothesis("H2", "s_t^2 <= 1 - sigma for every neighbouring pair."),
        Hypothesis("H3", "||F_t|| <= R for every frame."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    sharp_for=lambda num_frames, **_: num_frames == 3,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="mu L(F), in units of 1 / (feature norm)^2",
    bound_in_words="squared norm of the gradient of the temporal loss, in the same units",
    sharpness=(
        "attained for N = 3 in dimension d >= 2. For N >= 4 mu is a lower bound on the best constant: the smallest "
        "||grad L||^2 / (mu L) found is 1.71 (N = 4), 1.33 (5), 1.85 (6)"
    ),
    necessity={"H2": _parallel_pair, "H3": _long_frame},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0; at a zero frame it is undefined"},
    planted={
        "no sigma": lambda instance: squared_gradient(instance["frames"]) * instance["sigma"],
        "the root of sigma": lambda instance: squared_gradient(instance["frames"]) * jnp.sqrt(instance["sigma"]),
        "R for R^2": lambda instance: squared_gradient(instance["frames"]) / instance["max_norm"],
        "the largest 1 - s_t^2 for the least": _largest_sine,
        "the sines of N - 1 frames": _constant_of(1),
    },
    reality=(
        Comparison(
            question="Is ||grad L||^2 at the UNet's features at least mu L, with sigma and R read off them?",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.pl, whose sigma and R are those of the same features",
        ),
        Comparison(
            question=(
                "Does the loss of the features fall geometrically along recorded training of the adapter on L, at "
                "half the rate that the first gradient and the curvature along it "
                "give?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_rate_of_the_first_gradient,
        ),
    ),
    relies_on=("C2.descent",),
    lemmas=("eigenvalues of the Dirichlet second difference",),
    floor=0.999,
    floor_reason="the supremum is attained at three planar frames with s = (a, -a), for every a",
)
