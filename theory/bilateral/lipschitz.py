r"""The filter's exact Lipschitz constant in the maximum norm, which does not depend on the range width.

Statement. With G the spatial weights of a window without its middle and W Lambert's function, for every odd kernel,
every sigma_spatial, every sigma_range in (0, infinity) and every share a in (0, 1] of the filtered value,

    \| J \|_\infty \le 1 + 4 a W(G e^{-3/2}),    J the Jacobian of (1 - a) x + a B(x),

so ||B(x) - B(x')||_inf <= 2.0249284 ||x - x'||_inf for the public code's kernel of 5 and sigma_spatial = 1.

Hypotheses.
    H1  There are at least 3 frames (reflect padding of a window of 5).
    H2  0 < a <= 1; a = 1 is the filter itself.

**Tight**: attained from 5 frames on by the window (-t, -t, 0, t, t) sigma_range, t = sqrt(3 + lambda), lambda = 2 W(G
e^{-3/2}): its weights agree, its mean stays at 0, and each neighbour's derivative is negative. For 3 and 4 frames it is
an upper bound.

In the paper: claim C4 says that inversion stays controlled with bilateral filtering; no constant is known to us. Proof:
paper_notes.md, section C4.lipschitz.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import lambertw

from theory.bilateral import instances
from theory.bilateral.constants import lipschitz_constant, negative_share, neighbour_weight
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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget

NEIGHBOURS = neighbour_weight()
DISTANCE = math.sqrt(3 + negative_share(NEIGHBOURS))
"""t: how far, in range widths, the neighbours of the extremal window lie from its middle."""


def row_norm(frames: jax.Array, sigma_range: jax.Array, share: jax.Array) -> jax.Array:
    """||(1 - a) I + a J||_inf, the largest sum of the derivatives' sizes of one filtered frame."""
    mixed = (1 - share) * jnp.eye(frames.shape[0]) + share * instances.jacobian(frames, sigma_range)
    return jnp.max(jnp.sum(jnp.abs(mixed), axis=1))


def extremal_frames(num_frames: int) -> np.ndarray:
    """(-t, -t, 0, t, t, t, ..) in units of sigma_range."""
    return DISTANCE * np.concatenate([[-1.0, -1.0, 0.0], np.ones(num_frames - 3)])


def _draw(key: jax.Array, *, num_frames: int) -> Parameters:
    frames_key, share_key = jax.random.split(key)
    return instances.draw(frames_key, num_frames=num_frames) | {"share": jax.random.normal(share_key)}


def _instance(parameters: Parameters, *, num_frames: int) -> Instance:
    return instances.instance(parameters, num_frames=num_frames) | {"share": 1 / (1 + parameters["share"] ** 2)}


def _bound(instance: Instance):
    return 1 + instance["share"] * (lipschitz_constant() - 1)


def _planted(weight: float = NEIGHBOURS, exponent: float = 1.5, factor: float = 4.0, power: int = 1):
    slope = factor * float(lambertw(weight * math.exp(-exponent)).real)
    return lambda instance: 1 + slope * instance["share"] ** power


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=_draw,
    instance=_instance,
    measured=lambda instance: row_norm(instance["frames"], instance["sigma_range"], instance["share"]),
    bound=_bound,
    operations=instances.operations,
)


def witness(*, num_frames: int) -> Instance:
    """The extremal window with sigma_range = 1, wholly filtered."""
    return {
        "frames": jnp.asarray(extremal_frames(num_frames)),
        "sigma_range": jnp.asarray(1.0),
        "share": jnp.asarray(1.0),
    }


def witness_parameters(*, num_frames: int) -> Parameters:
    return instances.parameters_of(extremal_frames(num_frames)) | {"share": jnp.asarray(0.0)}


def _sharpening() -> Outcome:
    """With a < 0 the filter's effect is subtracted: at equal frames the middle counts 1 - a (1 - 1 / (1 + G)) > 1."""
    size = instances.SIZES[0]
    instance = {"frames": jnp.zeros(5), "sigma_range": jnp.asarray(1.0), "share": jnp.asarray(-0.5)}
    return PROBLEM.outcome(instance, size, "half of the filter's effect subtracted")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """Filtered features without and with the adapter, against their distance before the filter."""
    outcomes = []
    for label, off, on in instances.adapter_pairs(evidence):
        for sigma in (1.0, 0.01):
            moved = bilateral_filter(on, sigma_range=sigma) - bilateral_filter(off, sigma_range=sigma)
            outcomes.append(
                Outcome(
                    f"{label}, sigma_range {sigma:g}",
                    float(np.max(np.abs(moved))),
                    lipschitz_constant() * float(np.max(np.abs(on - off))),
                    relative_budget(instances.OPERATIONS),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C4.lipschitz",
    title="Exact Lipschitz constant of the bilateral filter in the maximum norm",
    statement=(
        "In the maximum norm the filter has Lipschitz constant 1 + 4 W(G e^(-3/2)), 2.0249284 for kernel 5 and "
        "sigma_spatial 1, whatever sigma_range; for a share a of the filtered value it is 1 + 4 a W(G e^(-3/2)). From "
        "5 frames on no smaller constant will do."
    ),
    latex=r"\|J\|_\infty \le 1 + 4 a\, W(G e^{-3/2})",
    hypotheses=(
        Hypothesis("H1", "There are at least 3 frames, under reflect padding of a window of 5."),
        Hypothesis("H2", "The share a of the filtered value lies in (0, 1]."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper, as far as we know: claim C4 needs it",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest sum of the sizes of a filtered frame's derivatives, a number without unit",
    bound_in_words="1 + 4 a W(G e^(-3/2)), with the share a of the filtered value",
    necessity={"H2": _sharpening},
    definitional={
        "H1": "with fewer than 3 frames reflect padding names no frame two places beyond an end, so there is no filter"
    },
    planted={
        "the filter is non-expansive": lambda instance: jnp.ones_like(instance["share"]),
        "2 W for 4 W": _planted(factor=2.0),
        "e^-2 for e^(-3/2)": _planted(exponent=2.0),
        "neighbours of one side only": _planted(weight=NEIGHBOURS / 2),
        "the nearest neighbours only": _planted(weight=2 * math.exp(-0.5)),
        "a^2 for a": _planted(power=2),
    },
    reality=(
        Comparison(
            question=(
                "The trained UNet's self-attention features, filtered along 5 frames with sigma_range 1 and 0.01: how "
                "far apart are those with and without the adapter, in the maximum norm, against 2.0249284 times their "
                "distance before the filter?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_reality,
        ),
    ),
    lemmas=("mean value inequality", "Cauchy-Schwarz inequality"),
    enclosure="1 + 4 W(G e^(-3/2)) for twelve kernels, theory/bilateral/test_constants.py",
    floor=0.99,
    floor_reason="the supremum is attained at a smooth maximum, which gradient ascent from 48 starts comes close to",
)
