r"""The filter never increases the energy of the differences of neighbouring frames: refuted, true for an infinite
sigma_range.

Statement. For all frames and every sigma_range

    \sum_i (B(x)_{i+1} - B(x)_i)^2 \le \sum_i (x_{i+1} - x_i)^2.

Counterexample: (0, 0.7, 4, 4.7) in range widths, whose energy grows 1.15828 times though it only rises: its two halves
are each drawn together, and the step between them grows.

Hypotheses.
    H1  There are at least 3 frames (reflect padding of a window of 5).
    H2  (missing in the statement) sigma_range is infinite: the weights do not depend on the values.

**Lower**: a counterexample; the largest growth is not known to us.

In the paper: claim C4, in the reading that filtering across frames always smooths. Proof: paper_notes.md, section
C4.energy.
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

SIZES: tuple[Size, ...] = ((("num_frames", 4),), (("num_frames", 8),))
STEP = (0.0, 0.7, 4.0, 4.7)
"""Frames in units of sigma_range."""


def energy(frames: jax.Array):
    """sum_i (x_{i+1} - x_i)^2."""
    return jnp.sum(jnp.diff(frames) ** 2)


def _measured(instance: Instance):
    return energy(instances.filtered(instance["frames"], instance["sigma_range"]))


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=_measured,
    bound=lambda instance: energy(instance["frames"]),
    operations=instances.operations,
)


def counterexample(num_frames: int) -> jax.Array:
    """The step, with its ends repeated."""
    before = (num_frames - len(STEP)) // 2
    return jnp.pad(jnp.asarray(STEP), (before, num_frames - len(STEP) - before), mode="edge")


def witness(*, num_frames: int) -> Instance:
    """The counterexample with sigma_range = 1."""
    return {"frames": counterexample(num_frames), "sigma_range": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int) -> Parameters:
    return instances.parameters_of(counterexample(num_frames))


def _draw_family(key: jax.Array, *, num_frames: int) -> Parameters:
    log_range, centre, *moves = jax.random.normal(key, (6,))
    return {"log_range": log_range, "centre": centre, "moves": jnp.stack(moves)}


def _family(parameters: Parameters, *, num_frames: int) -> Instance:
    """The step with every value moved by up to 0.05, around any value and in any unit."""
    sigma = instances.sigma_of(parameters)
    frames = parameters["centre"] + jnp.asarray(STEP) + 0.05 * jnp.tanh(parameters["moves"])
    return {"frames": sigma * frames, "sigma_range": sigma}


COUNTEREXAMPLES = Problem(
    sizes=(SIZES[0],),
    draw=_draw_family,
    instance=_family,
    measured=_measured,
    bound=PROBLEM.bound,
    operations=instances.operations,
)

REPAIRED = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=lambda instance: energy(bilateral_filter(instance["frames"], sigma_range=math.inf)),
    bound=PROBLEM.bound,
    operations=instances.operations,
)


def _linear(evidence: Evidence) -> Sequence[Outcome]:
    """How far the filter with sigma_range = 1 is from the linear one, in root mean square, against a hundredth of the
    latter's change."""
    outcomes = []
    for record in evidence.features:
        values = instances.columns(record)
        linear = bilateral_filter(values, sigma_range=math.inf)
        apart = float(np.linalg.norm(bilateral_filter(values, sigma_range=1.0) - linear))
        outcomes.append(
            Outcome(record.label, apart, 0.01 * float(np.linalg.norm(linear - values)), relative_budget(values.size))
        )
    return outcomes


def _squares(instance: Instance):
    return jnp.diff(instance["frames"]) ** 2


CLAIM = Claim(
    id="C4.energy",
    title="The bilateral filter never increases the energy of frame differences",
    statement=(
        "For all frames and every sigma_range the filter does not increase the sum of squared differences of "
        "neighbouring frames."
    ),
    latex=r"\sum_i (B(x)_{i+1} - B(x)_i)^2 \le \sum_i (x_{i+1} - x_i)^2",
    hypotheses=(
        Hypothesis("H1", "There are at least 3 frames, under reflect padding of a window of 5."),
        Hypothesis(
            "H2", "(missing in the statement) sigma_range is infinite: the weights do not depend on the values."
        ),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="claim C4, in the reading that filtering across frames always smooths",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the sum of squared differences of neighbouring frames after the filter, in squared units of the values"
    ),
    bound_in_words="the same sum before the filter",
    necessity={},
    definitional={
        "H1": "with fewer than 3 frames reflect padding names no frame two places beyond an end, so there is no filter",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "a quarter of the energy": lambda instance: jnp.sum(_squares(instance)) / 4,
        "every second difference": lambda instance: jnp.sum(_squares(instance)[::2]),
        "the differences but the first": lambda instance: jnp.sum(_squares(instance)[1:]),
        "the differences' mean, squared, times their number": lambda instance: (
            jnp.sum(jnp.diff(instance["frames"])) ** 2 / jnp.diff(instance["frames"]).size
        ),
        "a third of the largest squared difference": lambda instance: jnp.max(_squares(instance)) / 3,
    },
    reality=(
        Comparison(
            question=(
                "The hypothesis on the trained UNet's self-attention features along 5 frames: is the filter with "
                "sigma_range = 1, the public code's, as good as linear, that is, no further from the filter of "
                "infinite sigma_range than a hundredth of its change?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_linear,
        ),
    ),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
    lemmas=("Young's inequality for convolutions",),
)
