r"""The filter's Lipschitz constant in the l_2 norm, enclosed from both sides.

Statement. Under symmetric or circular padding, for all frames and every sigma_range in (0, infinity),

    \| J \|_2 \le \sqrt{(1 + 2 \lambda) (1 + (2 + slack) \lambda)} \le 2.0275,    slack = 1/100,

and no constant below 1.870660 will do for long clips: a ramp of 1.85407 sigma_range a frame, disturbed by (-1)^i,
attains it in the limit of many frames. So in l_2, too, the filter is not non-expansive, and it expands no more than
about as much as in the maximum norm (2.0249284). Under reflect padding the same argument gives ||J||_2 <= 2.2275.

Hypotheses.
    H1  Padding is symmetric or circular, with a kernel of 5 and sigma_spatial = 1, and there are at least 2 frames.
    H2  All of the filtered value is taken, and no multiple of the filter's change.

**Upper**: the largest value known is 1.870660.

In the paper: claim C4 in the Euclidean norm, in which C3's bounds are stated. Proof: paper_notes.md, section
C4.euclidean, with a numerical certificate (theory/bilateral/certificate.py).
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
from theory.bilateral.certificate import certify, euclidean_factor
from theory.bilateral.constants import lipschitz_constant, negative_share, neighbour_weight
from theory.bilateral.filter import bilateral_filter, spatial_weights
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

SLACK = 0.01
SLOPE = 1.85407
"""Range widths a frame of the ramp that expands most in the limit of many frames."""


@functools.cache
def euclidean_bound(kernel_size: int = 5, sigma_spatial: float = 1.0) -> float:
    """An upper bound on the filter's Lipschitz constant in the l_2 norm, under symmetric or circular padding.

        sqrt((1 + 2 lambda) (1 + (2 + slack) lambda)), slack = 1/100;  2.0275 for kernel 5 and sigma_spatial 1

    Computed with its certificate, which takes about a second.

    Raises:
        ValueError: settings that define no filter, or a kernel for which the certificate fails (the argument behind it
            needs neighbours that weigh about as much as the frame itself).

    Source: paper_notes.md, C4.euclidean.
    """
    weight = neighbour_weight(kernel_size, sigma_spatial)
    try:
        certify(SLACK, weight)
    except ArithmeticError as error:
        raise ValueError(
            f"kernel_size = {kernel_size}, sigma_spatial = {sigma_spatial}: no bound in the l_2 norm is certified for "
            f"neighbours that weigh {weight:.6g} ({error}); use the maximum norm (lipschitz_constant)"
        ) from None
    return lipschitz_constant(kernel_size, sigma_spatial) * euclidean_factor(SLACK, negative_share(weight))


def ramp_gain(slope: float = SLOPE) -> float:
    """What the Jacobian of a long ramp does to the disturbance (-1)^i.

        a_0 - 2 a_1 + 2 a_2,  a_k = w_k (1 - (k slope)^2)

    A lower bound on the Lipschitz constant in l_2 for every number of frames large enough; 1.870660 at the best slope.
    """
    near, far = (2 * g * math.exp(-((k * slope) ** 2) / 2) for k, g in enumerate(spatial_weights(), start=1))
    total = 1 + near + far
    first, second = near / total * (1 - slope**2), far / total * (1 - (2 * slope) ** 2)
    return 1 - first - second - first + second


def operator_norm(frames: jax.Array, sigma_range: jax.Array, padding: str = "circular") -> jax.Array:
    """||J||_2 by automatic differentiation and a singular value decomposition."""
    return jnp.linalg.norm(instances.jacobian(frames, sigma_range, padding), 2)


PROBLEM = Problem(
    sizes=instances.SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=lambda instance: operator_norm(instance["frames"], instance["sigma_range"]),
    bound=lambda instance: jnp.asarray(euclidean_bound()),
    operations=instances.operations,
)


def witness(*, num_frames: int) -> Instance:
    """The ramp, with sigma_range = 1."""
    return {"frames": SLOPE * jnp.arange(float(num_frames)), "sigma_range": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int) -> Parameters:
    return instances.parameters_of(SLOPE * jnp.arange(float(num_frames)))


def _twice() -> Outcome:
    """The Jacobian of x + 2 (B(x) - x) on the ramp."""
    frames = jnp.asarray(SLOPE * np.arange(8.0))
    jacobian = 2 * instances.jacobian(frames, jnp.asarray(1.0), "circular") - jnp.eye(8)
    return Outcome(
        "twice the filter's change",
        float(jnp.linalg.norm(jacobian, 2)),
        euclidean_bound(),
        relative_budget(instances.OPERATIONS),
        witness={"frames": np.asarray(frames)},
    )


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, off, on in instances.adapter_pairs(evidence):
        for sigma in (1.0, 0.01):
            moved = bilateral_filter(on, sigma_range=sigma, padding="symmetric") - bilateral_filter(
                off, sigma_range=sigma, padding="symmetric"
            )
            outcomes.append(
                Outcome(
                    f"{label}, sigma_range {sigma:g}",
                    float(np.linalg.norm(moved)),
                    euclidean_bound() * float(np.linalg.norm(on - off)),
                    relative_budget(instances.OPERATIONS),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C4.euclidean",
    title="The bilateral filter's Lipschitz constant in the l_2 norm, enclosed",
    statement=(
        "Under symmetric or circular padding the filter's Lipschitz constant in the l_2 norm is at most 2.0275 for "
        "kernel 5 and sigma_spatial 1, for every number of frames and every sigma_range; for long clips it is at "
        "least 1.870660."
    ),
    latex=r"\|J\|_2 \le \sqrt{(1+2\lambda)(1+(2+\tfrac{1}{100})\lambda)} \le 2.0275",
    hypotheses=(
        Hypothesis(
            "H1",
            "The padding is symmetric or circular, the kernel 5, sigma_spatial 1, and there are at least 2 frames.",
        ),
        Hypothesis("H2", "All of the filtered value is taken, and no multiple of the filter's change."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.UPPER,
    origin="not in the paper, as far as we know: claim C4 in the norm of claim C3",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest singular value of the filter's Jacobian, a number without unit",
    bound_in_words="2.0275, certified",
    necessity={"H2": _twice},
    definitional={"H1": "it names the filter; one frame alone is its own neighbour and stays as it is"},
    planted={
        "the filter is non-expansive": lambda instance: jnp.ones(()),
        "1 + lambda, the largest derivative by the frame itself": lambda instance: jnp.asarray(
            1 + negative_share(neighbour_weight())
        ),
        "the gain of three frames, which is less than that of five": lambda instance: jnp.asarray(1.7528554),
        "the root of the maximum norm's constant": lambda instance: jnp.asarray(math.sqrt(lipschitz_constant())),
    },
    reality=(
        Comparison(
            question=(
                "The trained UNet's self-attention features, filtered along 5 frames under symmetric padding with "
                "sigma_range 1 and 0.01: how far apart are those with and without the adapter, in l_2, against 2.0275 "
                "times their distance before the filter?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_reality,
        ),
    ),
    lemmas=("mean value inequality", "Cauchy-Schwarz inequality", "weak duality of linear programs"),
)
