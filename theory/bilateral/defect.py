r"""How much the filter can change a value: the best constant.

Statement. For all frames and every sigma_range in (0, infinity)

    |B(x)_i - x_i| \le K sigma_range,    K = s / sqrt(1 + s),  s = 2 W(G / (2 sqrt e)),

0.5061296 sigma_range for kernel 5 and sigma_spatial 1, however far the frames lie apart.

Hypotheses.
    H1  There are at least 3 frames (reflect padding of a window of 5).
    H2  The change is measured against the weights' own range width sigma_range.

**Tight**: attained where all neighbours of a frame lie at x_i + sqrt(1 + s) sigma_range = x_i + 1.28459 sigma_range.

In the paper: claim C4 needs it: it is the mismatch that the filter brings into an inversion. Proof: paper_notes.md,
section C4.defect.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy.special import lambertw

from theory.bilateral import instances
from theory.bilateral.constants import defect_bound, largest_change, neighbour_weight
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
from theory.scramble import frame_order

NEIGHBOURS = neighbour_weight()
ROOT = 2 * float(lambertw(NEIGHBOURS / (2 * math.sqrt(math.e))).real)
DISTANCE = math.sqrt(1 + ROOT)
"""How far, in range widths, the neighbours lie in the instance that attains the bound."""
SIZES: tuple[Size, ...] = ((("num_frames", 3),), (("num_frames", 8),))


def change(instance: Instance):
    """max_i |B(x)_i - x_i|."""
    frames = instance["frames"]
    return instances.largest(instances.filtered(frames, instance["sigma_range"]) - frames)


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=change,
    bound=lambda instance: largest_change(NEIGHBOURS) * instance["sigma_range"],
    operations=instances.operations,
)


def extremal_frames(num_frames: int) -> np.ndarray:
    """(0, s, s, ..) in units of sigma_range: of the first frame reflect padding makes every neighbour one at s."""
    frames = np.full(num_frames, DISTANCE)
    frames[0] = 0.0
    return frames


def witness(*, num_frames: int) -> Instance:
    """The extremal frames with sigma_range = 1."""
    return {"frames": jnp.asarray(extremal_frames(num_frames)), "sigma_range": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int) -> Parameters:
    return instances.parameters_of(extremal_frames(num_frames))


def _half_the_width() -> Outcome:
    instance = dict(witness(num_frames=3))
    found = PROBLEM.outcome(instance, SIZES[0], "a sigma_range that is half the weights' own")
    return Outcome(found.label, found.measured, found.bound / 2, found.budget, witness=found.witness)


def _planted(weight: float, power: int = 1):
    return lambda instance: largest_change(weight) * instance["sigma_range"] ** power


def _bounded(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.features:
        values = instances.columns(record)
        for sigma in (1.0, 0.01):
            moved = float(np.max(np.abs(bilateral_filter(values, sigma_range=sigma) - values)))
            # A value rounds at its own size and not at that of its change.
            budget = relative_budget(64) * (1 + float(np.max(np.abs(values))) / sigma)
            outcomes.append(
                Outcome(f"{record.label}, sigma_range {sigma:g}", moved, float(defect_bound(sigma)), budget)
            )
    return outcomes


def _order_matters(evidence: Evidence) -> Sequence[Outcome]:
    """Root mean square of the change at sigma_range = 1, in the clip's order and in one in which few neighbours stay
    neighbours."""
    outcomes = []
    for record in instances.cleanest(evidence):
        values = instances.columns(record)
        shuffled = values[frame_order(len(values))]
        ordered, mixed = (
            float(np.sqrt(np.mean((bilateral_filter(frames, sigma_range=1.0) - frames) ** 2)))
            for frames in (values, shuffled)
        )
        outcomes.append(Outcome(record.label, ordered, mixed, relative_budget(values.size)))
    return outcomes


CLAIM = Claim(
    id="C4.defect",
    title="How much the bilateral filter changes a value at most",
    statement=(
        "The filter changes no value by more than K sigma_range, K = s / sqrt(1 + s), s = 2 W(G / (2 sqrt e)): "
        "0.5061296 for kernel 5 and sigma_spatial 1; no smaller constant will do."
    ),
    latex=r"|B(x)_i - x_i| \le \frac{s}{\sqrt{1+s}}\,\sigma_r,\quad s = 2 W\!\left(\frac{G}{2\sqrt e}\right)",
    hypotheses=(
        Hypothesis("H1", "There are at least 3 frames, under reflect padding of a window of 5."),
        Hypothesis("H2", "The change is measured against the weights' own range width sigma_range."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper, as far as we know: claim C4 needs it",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest change of a value by the filter, in units of the values",
    bound_in_words="K times sigma_range, in the same units",
    necessity={"H2": _half_the_width},
    definitional={
        "H1": "with fewer than 3 frames reflect padding names no frame two places beyond an end, so there is no filter"
    },
    planted={
        "neighbours of one side only": _planted(NEIGHBOURS / 2),
        "the nearest neighbours only": _planted(2 * math.exp(-0.5)),
        "s / (1 + s) for s / sqrt(1 + s)": lambda instance: ROOT / (1 + ROOT) * instance["sigma_range"],
        "sigma_range^2 for sigma_range": _planted(NEIGHBOURS, power=2),
        "half of the widest difference of neighbours": lambda instance: (
            0.5 * instances.largest(jnp.diff(instance["frames"]))
        ),
    },
    reality=(
        Comparison(
            question=(
                "The trained UNet's self-attention features filtered along 5 frames with sigma_range 1 and 0.01: the "
                "largest change of a value against K sigma_range"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_bounded,
        ),
        Comparison(
            question=(
                "Are neighbouring frames of the real clip alike to the trained UNet, at the recorded timestep with "
                "the least noise: does the filter (sigma_range 1) change its features less, in root mean square, in "
                "the clip's order than in the order 1, 3, .., 0, 2, ..? (At timesteps of more noise the last layer's "
                "features need not obey, and some do not.)"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_order_matters,
        ),
    ),
    enclosure="K for twelve kernels, theory/bilateral/test_constants.py",
    floor=0.999,
    floor_reason="the supremum is attained at a smooth maximum",
)
