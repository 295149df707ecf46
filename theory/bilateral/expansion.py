r"""The filter never drives two clips apart: refuted by three frames, true while a window's values lie within one range
width.

Statement. For all clips x, x' and every sigma_range, in the maximum norm,

    \| B(x) - B(x') \| \le \| x - x' \|.

Counterexample: x = (-sqrt 3, 0, sqrt 3) and x' = (-3, 0, 3) in range widths. The filter maps (-d, 0, d) to (-f(d), 0,
f(d)), so that the ratio |f(3) - f(sqrt 3)| / (3 - sqrt 3) = 1.26081 is the same in every l_p norm. With more frames the
ratio comes close to 2.0249 (C4.lipschitz).

Hypotheses.
    H1  There are at least 3 frames (reflect padding of a window of 5).
    H2  (missing in the statement) In every window of both clips the values of a pixel lie within sigma_range of one
        another. Then all derivatives are at least 0 and add up to 1, on the whole segment between the clips, and the
        filter is non-expansive in the maximum norm.

**Lower**: the statement is false for every constant below C4.lipschitz's.

In the paper: claim C4 in its strongest reading, that the filter can only calm a clip. Proof: paper_notes.md, section
C4.stated.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
from theory.bilateral.constants import negative_share, neighbour_weight
from theory.bilateral.filter import bilateral_filter
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
from theory.evidence import Evidence
from theory.rounding import relative_budget

NARROW, WIDE = math.sqrt(3), 3.0
SIZES: tuple[Size, ...] = ((("num_frames", 3),), (("num_frames", 6),))
DISTANCE = math.sqrt(3 + negative_share(neighbour_weight()))
MOVE = 0.2
"""How far, in range widths, the frames of the longer counterexample are moved."""


def difference(instance: Instance, *, monotone: bool = False, padding: str = "reflect"):
    """B(x') - B(x)."""
    both = jnp.stack([instance["frames"], instance["other"]], axis=1)
    filtered = instances.filtered(both, instance["sigma_range"], padding, monotone=monotone)
    return filtered[:, 1] - filtered[:, 0]


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw_pair,
    instance=instances.pair,
    measured=lambda instance: instances.largest(difference(instance)),
    bound=lambda instance: instances.largest(instance["other"] - instance["frames"]),
    operations=instances.operations,
)


def counterexample(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clips in units of sigma_range: the three frames of the statement, or for 5 frames and more the extremal
    window of C4.lipschitz with its middle moved one way and everything else the other way."""
    if num_frames < 5:
        frames = np.zeros(num_frames)
        frames[[0, 2]] = -1.0, 1.0
        return NARROW * frames, WIDE * frames
    frames = DISTANCE * np.concatenate([[-1.0, -1.0, 0.0], np.ones(num_frames - 3)])
    move = np.full(num_frames, -MOVE / 2)
    move[2] = MOVE / 2
    return frames - move, frames + move


def witness(*, num_frames: int) -> Instance:
    """The counterexample with sigma_range = 1."""
    frames, other = counterexample(num_frames)
    return {"frames": jnp.asarray(frames), "other": jnp.asarray(other), "sigma_range": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int) -> Parameters:
    frames, other = counterexample(num_frames)
    return instances.parameters_of(frames) | {"change": jnp.asarray(other - frames), "shift": jnp.asarray(0.0)}


def _draw_family(key: jax.Array, *, num_frames: int) -> Parameters:
    parts = jax.random.normal(key, (4,))
    return {"log_range": parts[0], "centre": parts[1], "narrow": parts[2], "wide": parts[3]}


def _family(parameters: Parameters, *, num_frames: int) -> Instance:
    """(-d, 0, d) and (-d', 0, d'), d within 0.1 of sqrt 3 and d' within 0.1 of 3, around any value and in any unit."""
    sigma = instances.sigma_of(parameters)
    shape = jnp.asarray([-1.0, 0.0, 1.0])
    narrow, wide = NARROW + 0.1 * jnp.tanh(parameters["narrow"]), WIDE + 0.1 * jnp.tanh(parameters["wide"])
    centre = parameters["centre"]
    return {"frames": sigma * (centre + narrow * shape), "other": sigma * (centre + wide * shape), "sigma_range": sigma}


COUNTEREXAMPLES = Problem(
    sizes=(SIZES[0],),
    draw=_draw_family,
    instance=_family,
    measured=PROBLEM.measured,
    bound=PROBLEM.bound,
    operations=instances.operations,
)


def _draw_calm(key: jax.Array, *, num_frames: int) -> Parameters:
    keys = jax.random.split(key, 4)
    near = jnp.exp(jax.random.uniform(keys[0], minval=-4.0, maxval=1.0))
    shape = (2, num_frames)
    frames, drift = jax.random.normal(keys[1], shape), jax.random.normal(keys[2], shape)
    return {
        "inner": jnp.stack([frames[0], frames[0] + near * frames[1]]),
        "drift": jnp.stack([drift[0], drift[0] + near * drift[1]]),
        "shift": jax.random.normal(keys[3]),
        "log_range": jax.random.normal(keys[0]),
    }


def _calm(parameters: Parameters, *, num_frames: int) -> Instance:
    """Two clips whose windows of 5 span at most sigma_range: half of it at any place, half along a drift of 1/8 a
    frame."""
    sigma = instances.sigma_of(parameters)
    drift = jnp.cumsum(jnp.tanh(parameters["drift"]), axis=1) / 8
    frames = sigma * (jnp.cos(parameters["inner"]) ** 2 / 2 + drift)
    return {"frames": frames[0], "other": frames[1] + sigma * parameters["shift"], "sigma_range": sigma}


REPAIRED = Problem(
    sizes=SIZES,
    draw=_draw_calm,
    instance=_calm,
    measured=PROBLEM.measured,
    bound=lambda instance: PROBLEM.bound(instance) + instances.rounding(instance),
    operations=instances.operations,
)


def _gap(instance: Instance):
    return instance["other"] - instance["frames"]


def _ranges(evidence: Evidence) -> Sequence[Outcome]:
    """The largest range of one entry over the recorded frames (at most 5 of them are a window) against sigma_range =
    1."""
    return [
        Outcome(
            f"{record.label}: range of an entry over {len(record.values)} frames",
            float(np.max(np.ptp(instances.columns(record), axis=0))),
            1.0,
            relative_budget(2),
        )
        for record in evidence.features
    ]


def _non_expansive(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, off, on in instances.adapter_pairs(evidence):
        moved = bilateral_filter(on, sigma_range=1.0) - bilateral_filter(off, sigma_range=1.0)
        distance = float(np.max(np.abs(on - off)))
        outcomes.append(Outcome(label, float(np.max(np.abs(moved))), distance, relative_budget(instances.OPERATIONS)))
    return outcomes


CLAIM = Claim(
    id="C4.stated",
    title="The bilateral filter is non-expansive",
    statement="For all clips and every sigma_range the filter moves no two clips apart, in the maximum norm.",
    latex=r"\|B(x) - B(x')\|_\infty \le \|x - x'\|_\infty",
    hypotheses=(
        Hypothesis("H1", "There are at least 3 frames, under reflect padding of a window of 5."),
        Hypothesis(
            "H2",
            (
                "(missing in the statement) In every window of both clips the values of a pixel lie within sigma_range "
                "of one another."
            ),
        ),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="claim C4 in its strongest reading",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest difference of two clips after the filter, in units of the values",
    bound_in_words="their largest difference before it",
    necessity={},
    definitional={
        "H1": "with fewer than 3 frames reflect padding names no frame two places beyond an end, so there is no filter",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "nine tenths of the distance": lambda instance: 0.9 * instances.largest(_gap(instance)),
        "the mean distance of a frame": lambda instance: jnp.mean(jnp.abs(_gap(instance))),
        "the distance's root mean square": lambda instance: jnp.sqrt(jnp.mean(_gap(instance) ** 2)),
        "the first frame's distance": lambda instance: jnp.abs(_gap(instance)[0]),
        "half the range of the differences": lambda instance: jnp.ptp(_gap(instance)) / 2,
    },
    reality=(
        Comparison(
            question=(
                "The hypothesis on the trained UNet's features: how far does an entry of a self-attention output "
                "range over 5 neighbouring frames, against sigma_range = 1, the public code's?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_ranges,
        ),
        Comparison(
            question=(
                "The trained UNet's features with and without the adapter, filtered with sigma_range = 1: are they no "
                "further apart than before, in the maximum norm?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_non_expansive,
            because="every entry of both ranges over less than sigma_range = 1, which the question above asks",
        ),
    ),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
    lemmas=("mean value inequality",),
)
