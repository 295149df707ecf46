r"""What a small temporal loss does promise: that the similarity drifts slowly from pair to pair.

Statement. For the similarities s_1, .., s_{N-1} of N >= 3 frames, and 1 <= t < u <= N - 1,

    |s_u - s_t| \le \sqrt{(u - t) \, (N-2) \, L}.

So the loss together with ONE similarity bounds all of them. It says nothing about their level (C1.flicker).

Hypotheses.
    H1  There are N >= 3 frames.
    H2  No frame is zero.

**Attained** at every N and u - t, in dimension d >= 2, by similarities that are constant up to t, rise by equal steps to u, and are
constant again.

In the paper: not there. Proof: paper_notes.md, section C1.steadiness.
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
    Plant,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import similarities, temporal_loss

SIZES: tuple[Size, ...] = tuple(
    (("num_frames", num_frames), ("dimension", dimension), ("first", first), ("gap", gap))
    for num_frames, dimension, first, gap in ((4, 2, 0, 2), (6, 3, 1, 3))
)
LEAST_RISE = 2.0**-10
"""Of the similarity between the two pairs of a drawn instance, so that their difference is no rounding error."""


def largest_drift(num_frames: int, loss: float, gap: int) -> float:
    """The most that the similarity can change over `gap` pairs of neighbours.

        min(2, sqrt(gap (N-2) L))

    Args:
        num_frames: N.
        loss: L, in [0, 4].
        gap: u - t, from 1 to N - 2.

    Source: paper_notes.md, C1.steadiness. Below 2 it is attained; similarities lie in [-1, 1].

    Raises:
        ValueError: fewer than 3 frames; a loss outside [0, 4]; a gap outside 1 .. N - 2.
    """
    check_num_frames(num_frames)
    if not 0 <= loss <= 4:
        raise ValueError(f"loss = {loss}; a number in [0, 4] is needed, the range of the temporal loss")
    if isinstance(gap, bool) or not isinstance(gap, int | np.integer) or not 1 <= gap <= num_frames - 2:
        raise ValueError(f"gap = {gap!r}; an integer from 1 to {num_frames - 2} is needed: {num_frames} frames have {num_frames - 1} similarities")
    return min(2.0, math.sqrt(gap * (num_frames - 2) * loss))


def frames_with(similarities: jax.Array, dimension: int) -> jax.Array:
    """Unit frames with these similarities in the plane of the first two axes of R^d, each turned on by arccos s_t."""
    angles = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.arccos(jnp.clip(similarities, -1.0, 1.0)))])
    return jnp.zeros((angles.shape[0], dimension)).at[:, 0].set(jnp.cos(angles)).at[:, 1].set(jnp.sin(angles))


def _draw(key: jax.Array, *, num_frames: int, dimension: int, first: int, gap: int) -> Parameters:
    frames_key, rise_key = jax.random.split(key)
    drawn = instances.draw(frames_key, num_frames=num_frames, dimension=dimension)
    return {**drawn, "similarities": 1.5 * jax.random.normal(rise_key, (num_frames - 1,))}


def _instance(parameters: Parameters, *, num_frames: int, dimension: int, first: int, gap: int) -> Instance:
    """Frames whose similarities are free but for a rise of at least LEAST_RISE between the two pairs."""
    cosines = jnp.sin(parameters["similarities"])
    rise = cosines[first + gap] - cosines[first]
    # Too flat a pair is replaced by a fixed ramp: every parameter gives an instance.
    flat = jnp.abs(rise) < LEAST_RISE
    ramp = jnp.linspace(-0.5, 0.5, num_frames - 1)
    cosines = jnp.where(flat, ramp, cosines)
    norms = jnp.exp(jnp.clip(parameters["log_min_norm"], -4.0, 4.0)) * (1.0 + parameters["excess"] ** 2)
    return {
        "frames": norms[:, None] * frames_with(cosines, dimension),
        "first": jnp.asarray(first),
        "gap": jnp.asarray(gap),
    }


def _operations(*, num_frames: int, dimension: int, first: int, gap: int) -> int:
    """Roundings of a difference of two cosines, at the size of the least difference, and of the sum under the root.

    A cosine has 8 (d + 2) roundings of its own, at the size of 1; the two that are compared differ by at least LEAST_RISE. The differences
    under the root are at least LEAST_RISE in their root mean square over the gap.
    """
    return int(4 / LEAST_RISE) * 8 * (dimension + 2) * num_frames


def drift(instance: Instance) -> jax.Array:
    """|s_u - s_t|."""
    cosines = similarities(instance["frames"])
    return jnp.abs(cosines[instance["first"] + instance["gap"]] - cosines[instance["first"]])


def _bound(gap_power: float = 0.5, shift: int = 2, root: bool = True, num_gaps: int = 0):
    def bound(instance: Instance):
        num_frames = instance["frames"].shape[0]
        total = (num_frames - shift) * temporal_loss(instance["frames"])
        return (instance["gap"] + num_gaps) ** gap_power * (jnp.sqrt(total) if root else total)

    return bound


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=drift, bound=_bound(), operations=_operations)


def _ramp(num_frames: int, first: int, gap: int) -> jax.Array:
    return -0.5 + jnp.clip((jnp.arange(num_frames - 1) - first) / gap, 0.0, 1.0)


def witness(*, num_frames: int, dimension: int, first: int, gap: int) -> Instance:
    """Similarities that rise by equal steps from -1/2 to 1/2 between the two pairs and stay there before and after; unit frames."""
    return {
        "frames": frames_with(_ramp(num_frames, first, gap), dimension),
        "first": jnp.asarray(first),
        "gap": jnp.asarray(gap),
    }


def witness_parameters(*, num_frames: int, dimension: int, first: int, gap: int) -> Parameters:
    frames = witness(num_frames=num_frames, dimension=dimension, first=first, gap=gap)["frames"]
    return {**instances.parameters_of(frames), "similarities": jnp.arcsin(_ramp(num_frames, first, gap)), "excess": jnp.zeros(num_frames)}


def _spread_of_layers(evidence: Evidence) -> Sequence[Outcome]:
    """|s_u - s_t| of every layer and pair of pairs at the UNet's features, with the loss of the same features."""
    outcomes = []
    for record in evidence.features:
        cosines = recorded.similarities_of(record.values)
        loss = float(np.mean(np.diff(cosines) ** 2))
        budget = relative_budget(1 << 20)
        for gap in range(1, len(cosines)):
            drifts = np.abs(cosines[gap:] - cosines[:-gap])
            bound = math.sqrt(gap * (len(cosines) - 1) * loss)
            # Close frames: a rounding of a cosine, 1e-16 times their dimension, beside differences of 1e-6.
            outcomes.append(Outcome(f"{record.label}, gap {gap}", float(np.max(drifts)), bound, budget, witness={"similarities": cosines}))
    return outcomes


def _after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    """The loss that the gradient and the curvature before the first step promise, and the similarities of the features after it."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        promised = record.temporal_losses[0] - recorded.change_promised(record, stiffer=STIFFER)
        after = recorded.layer_similarities(record, 1)
        layers, pairs = after.shape
        for gap in range(1, pairs):
            drifts = np.abs(after[:, gap:] - after[:, :-gap])
            # The mean over the layers is promised; one layer may have all of it.
            bound = math.sqrt(gap * (pairs - 1) * layers * promised)
            outcomes.append(recorded.compared(f"gap {gap} after step 1 of the {record.label}", np.max(drifts), bound, similarities=after))
    return outcomes


STIFFER = 1.5
"""How much more the step may curve than its start: the margin of the prediction, chosen."""

CLAIM = Claim(
    id="C1.steadiness",
    title="The loss bounds how fast the similarity drifts",
    statement=(
        "Two similarities u - t pairs apart differ by at most sqrt((u - t) (N - 2) L), so the loss and one similarity "
        "bound all of them; in every "
        "dimension d >= 2 some frames attain it."
    ),
    latex=r"|s_u - s_t| \le \sqrt{(u-t)\,(N-2)\,L(F)}",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "No frame is zero."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; it says what the loss asks for",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="difference of two similarities, u - t pairs of neighbours apart (dimensionless)",
    bound_in_words="sqrt((u - t) (N - 2) L), L the temporal loss of the same frames (dimensionless)",
    sharpness=(
        "attained at every N and u - t, in dimension d >= 2; for d = 1 similarities are 1 or -1 and the bound holds"
    ),
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "a zero frame has no similarity",
    },
    planted={
        "u - t left out": _bound(gap_power=0.0),
        "the root of u - t dropped to a fourth root": _bound(gap_power=0.25),
        "N - 3 for N - 2": _bound(shift=3),
        "the loss for its root": _bound(root=False),
        "u - t - 1 for u - t": Plant(_bound(num_gaps=-1)),
    },
    reality=(
        Comparison(
            question=(
                "Do two similarities of the UNet's features differ by no more than sqrt((u - t) (N - 2) L) of the "
                "same features?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_spread_of_layers,
            because="C1.steadiness, which asks nothing but frames that are not zero",
        ),
        Comparison(
            question=(
                "Does the loss that the first recorded training step promises (a curvature of 1.5 times that at its "
                "start) bound how far the "
                "similarities of the features AFTER the step lie apart?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_after_a_step,
        ),
    ),
    lemmas=("Cauchy-Schwarz",),
    floor=0.999,
    floor_reason="attained in the interior of the search's domain, where the similarities outside the gap are constant",
)
