r"""The filter never makes a clip flicker more: refuted for the total variation, true for clips that only rise or only
fall.

Statement. For all frames and every sigma_range

    \sum_i |B(x)_{i+1} - B(x)_i| \le \sum_i |x_{i+1} - x_i|.

Counterexample: (0, 0, 4.7, 1) in range widths, whose total variation grows 1.01577 times: its peak keeps its height,
because nothing like it is in its window, while the last frame is drawn down to the first two.

Hypotheses.
    H1  There are at least 3 frames (reflect padding of a window of 5, sigma_spatial = 1).
    H2  (missing in the statement) The values of a pixel never fall, or never rise. Then those of the filtered clip do
        not either, and the total variation does not grow.

**Lower**: a counterexample; the largest growth is not known to us.

In the paper: claim C4, in the reading that filtering across frames always smooths. Proof: paper_notes.md, section
C4.smoothing.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
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

SIZES: tuple[Size, ...] = ((("num_frames", 4),), (("num_frames", 6),))
COUNTEREXAMPLES_BY_SIZE = {4: (0.0, 0.0, 4.7, 1.0), 6: (0.0, 0.0, 4.4, 0.97, 5.38, 5.38)}
"""Frames in units of sigma_range."""


def variation(frames: jax.Array):
    """sum_i |x_{i+1} - x_i|."""
    return jnp.sum(jnp.abs(jnp.diff(frames)))


def _measured(instance: Instance):
    return variation(instances.filtered(instance["frames"], instance["sigma_range"]))


def draw(key: jax.Array, *, num_frames: int) -> Parameters:
    """Frames of which some repeat the one before: a total variation grows at steps."""
    keys = jax.random.split(key, 2)
    drawn = instances.draw(keys[0], num_frames=num_frames)
    repeat = jax.random.bernoulli(keys[1], 0.4, (num_frames,))
    frames = 3 * jax.random.normal(keys[0], (num_frames,))
    return drawn | {"frames": jnp.where(repeat, jnp.roll(frames, 1), frames)}


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw,
    instance=instances.instance,
    measured=_measured,
    bound=lambda instance: variation(instance["frames"]),
    operations=instances.operations,
)


def witness(*, num_frames: int) -> Instance:
    """The counterexample with sigma_range = 1."""
    return {"frames": jnp.asarray(COUNTEREXAMPLES_BY_SIZE[num_frames]), "sigma_range": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int) -> Parameters:
    return instances.parameters_of(COUNTEREXAMPLES_BY_SIZE[num_frames])


def _draw_family(key: jax.Array, *, num_frames: int) -> Parameters:
    parts = jax.random.normal(key, (4,))
    return {"log_range": parts[0], "centre": parts[1], "peak": parts[2], "end": parts[3]}


def _family(parameters: Parameters, *, num_frames: int) -> Instance:
    """(0, 0, a, b) with a within 0.1 of 4.7 and b within 0.1 of 1, around any value and in any unit."""
    sigma = instances.sigma_of(parameters)
    peak, end = 4.7 + 0.1 * jnp.tanh(parameters["peak"]), 1 + 0.1 * jnp.tanh(parameters["end"])
    frames = parameters["centre"] + jnp.stack([jnp.zeros(()), jnp.zeros(()), peak, end])
    return {"frames": sigma * frames, "sigma_range": sigma}


COUNTEREXAMPLES = Problem(
    sizes=(SIZES[0],),
    draw=_draw_family,
    instance=_family,
    measured=_measured,
    bound=PROBLEM.bound,
    operations=instances.operations,
)


def _monotone(parameters: Parameters, *, num_frames: int) -> Instance:
    """Frames that rise by the squares of the parameters, or fall by them where sigma_range is below 1."""
    sigma = instances.sigma_of(parameters)
    steps = jnp.where(parameters["log_range"] < 0, -1.0, 1.0) * parameters["frames"] ** 2
    return {"frames": sigma * jnp.cumsum(steps), "sigma_range": sigma}


REPAIRED = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=_monotone,
    measured=_measured,
    bound=PROBLEM.bound,
    operations=instances.operations,
)


def _rises_or_falls(values: np.ndarray) -> np.ndarray:
    """Which entries of (frames, entries) only rise or only fall."""
    steps = np.diff(values, axis=0)
    return (steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)


def _share(evidence: Evidence) -> Sequence[Outcome]:
    """The share of entries to which the theorem applies, against 2 / N!, what it is for frames in random order."""
    outcomes = []
    for record in evidence.features:
        values = instances.columns(record)
        share = float(np.mean(_rises_or_falls(values)))
        outcomes.append(Outcome(record.label, 2 / math.factorial(len(values)), share, relative_budget(2)))
    return outcomes


def _variations(evidence: Evidence) -> Sequence[Outcome]:
    """The total variation of those entries, before and after the filter with sigma_range = 0.01."""
    outcomes = []
    for record in evidence.features:
        values = instances.columns(record)
        values = values[:, _rises_or_falls(values)]
        if not values.size:
            continue
        after, before = (
            float(np.sum(np.abs(np.diff(frames, axis=0))))
            for frames in (bilateral_filter(values, sigma_range=0.01), values)
        )
        # Differences are small against the values, at whose size they round.
        budget = relative_budget(64) * float(np.sum(np.abs(values))) / before
        outcomes.append(Outcome(record.label, after, before, budget))
    return outcomes


CLAIM = Claim(
    id="C4.smoothing",
    title="The bilateral filter never increases the variation along the frames",
    statement=(
        "For all frames and every sigma_range the filter does not increase the total variation of a pixel along the "
        "frames."
    ),
    latex=r"\sum_i |B(x)_{i+1} - B(x)_i| \le \sum_i |x_{i+1} - x_i|",
    hypotheses=(
        Hypothesis(
            "H1", "There are at least 3 frames, under reflect padding of a window of 5, with sigma_spatial = 1."
        ),
        Hypothesis(
            "H2", "(missing in the statement) The values of a pixel never fall along the frames, or never rise."
        ),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="claim C4, in the reading that filtering across frames always smooths",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the sum of the sizes of the steps from frame to frame after the filter, in units of the values",
    bound_in_words="the same sum before the filter",
    necessity={},
    definitional={
        "H1": "with fewer than 3 frames reflect padding names no frame two places beyond an end, so there is no filter",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "nine tenths of the variation": lambda instance: 0.9 * variation(instance["frames"]),
        "the root of the sum of squared steps": lambda instance: jnp.sqrt(jnp.sum(jnp.diff(instance["frames"]) ** 2)),
        "the largest step": lambda instance: instances.largest(jnp.diff(instance["frames"])),
        "without the first step": lambda instance: variation(instance["frames"][1:]),
        "twice the largest distance from the mean, less the mean step": lambda instance: (
            2 * instances.largest(instance["frames"] - jnp.mean(instance["frames"]))
            - jnp.mean(jnp.abs(jnp.diff(instance["frames"])))
        ).clip(0),
    },
    reality=(
        Comparison(
            question=(
                "The hypothesis on the trained UNet's self-attention features along 5 frames: is the share of entries "
                "that only rise or only fall above 1/60, which is the chance for frames in random order?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_share,
        ),
        Comparison(
            question=(
                "On those entries: is the total variation no larger after the filter (sigma_range 0.01) than before?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_variations,
        ),
    ),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
    lemmas=("a family of distributions with monotone likelihood ratio is ordered stochastically",),
)
