r"""The monotone filter never drives two clips apart, in any l_p norm.

Statement. With M(x)_i = x_i + (1 + G)^{-1} sum_k g(k) psi(x_{i+k} - x_i), psi(d) = d / sqrt(1 + (d / sigma_range)^2),
and symmetric or circular padding, for every p in [1, infinity] and all clips x, x',

    \| M(x) - M(x') \|_p \le \| x - x' \|_p,

and for the differences D of neighbouring frames ||D M(x)||_p <= ||D x||_p: neither the total variation (p = 1) nor the
energy (p = 2) of the frame differences grows. Moreover |M(x)_i - x_i| < G / (1 + G) sigma_range.

Hypotheses.
    H1  Padding is symmetric or circular: then the Jacobian is symmetric. With reflect padding p must be infinity.
    H2  The filter is the monotone one.

**Tight**: attained by two clips that differ by a constant.

In the paper: nothing like it. It is what makes claim C4 true without a condition on the clip. Proof: paper_notes.md,
section C4.monotone.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
from theory.bilateral.constants import defect_bound
from theory.bilateral.expansion import NARROW, WIDE, difference
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

MAXIMUM = 0
"""Stands for p = infinity in a size."""
SIZES: tuple[Size, ...] = tuple((("num_frames", 5), ("power", power)) for power in (1, 2, MAXIMUM))


def norm(values: jax.Array, power: jax.Array):
    """The l_1, l_2 or maximum norm."""
    # Scaled, so that squares neither overflow nor vanish; the gradient at equal clips is 0 and not NaN.
    scale = jnp.where(instances.largest(values) > 0, instances.largest(values), 1.0)
    squares = jnp.sum((values / scale) ** 2)
    euclidean = scale * jnp.sqrt(jnp.where(squares > 0, squares, 1.0)) * (squares > 0)
    return jnp.where(power == 1, jnp.sum(jnp.abs(values)), jnp.where(power == 2, euclidean, instances.largest(values)))


def _instance(parameters: Parameters, *, num_frames: int, power: int) -> Instance:
    return instances.pair(parameters, num_frames=num_frames) | {"power": jnp.asarray(float(power))}


def _measured(instance: Instance):
    return norm(difference(instance, monotone=True, padding="symmetric"), instance["power"])


def _gap(instance: Instance):
    return instance["other"] - instance["frames"]


def _bound(instance: Instance):
    # Equal clips may round differently at different places of an array.
    return norm(_gap(instance), instance["power"]) + instances.rounding(instance) * instance["frames"].shape[0]


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw_pair,
    instance=_instance,
    measured=_measured,
    bound=_bound,
    operations=instances.operations,
)


def witness(*, num_frames: int, power: int) -> Instance:
    """Two clips that differ by sigma_range = 1 everywhere."""
    frames = jnp.arange(float(num_frames)) ** 2 / 4
    return {"frames": frames, "other": frames + 1, "sigma_range": jnp.asarray(1.0), "power": jnp.asarray(float(power))}


def witness_parameters(*, num_frames: int, power: int) -> Parameters:
    frames = jnp.arange(float(num_frames)) ** 2 / 4
    return instances.parameters_of(frames) | {"change": jnp.zeros(num_frames), "shift": jnp.asarray(1.0)}


def _reflected() -> Outcome:
    """Reflect padding counts the second frame twice in the first one's window: in l_1 a change of it grows."""
    frames, other = jnp.zeros((5, 1)), jnp.zeros((5, 1)).at[2].set(1e-3)
    moved = bilateral_filter(other, sigma_range=1.0, padding="reflect", monotone=True) - bilateral_filter(
        frames, sigma_range=1.0, padding="reflect", monotone=True
    )
    return Outcome(
        "reflect padding, in l_1, a change of the third of five equal frames",
        float(jnp.sum(jnp.abs(moved))),
        float(jnp.sum(jnp.abs(other - frames))),
        relative_budget(instances.OPERATIONS),
        witness={"frames": np.asarray(frames), "other": np.asarray(other)},
    )


def _bilateral() -> Outcome:
    narrow, wide = (jnp.asarray([-d, 0.0, d]) for d in (NARROW, WIDE))
    instance = {"frames": narrow, "other": wide, "sigma_range": jnp.asarray(1.0), "power": jnp.asarray(2.0)}
    moved = difference(instance, padding="symmetric")
    return Outcome(
        "the bilateral filter itself, in l_2",
        float(norm(moved, instance["power"])),
        float(norm(wide - narrow, instance["power"])),
        relative_budget(instances.OPERATIONS),
        witness={name: np.asarray(value) for name, value in instance.items()},
    )


def _apart(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, off, on in instances.adapter_pairs(evidence):
        for sigma in (1.0, 0.01):
            moved = bilateral_filter(on, sigma_range=sigma, monotone=True) - bilateral_filter(
                off, sigma_range=sigma, monotone=True
            )
            outcomes.append(
                Outcome(
                    f"{label}, sigma_range {sigma:g}, l_2",
                    float(np.linalg.norm(moved)),
                    float(np.linalg.norm(on - off)),
                    relative_budget(instances.OPERATIONS),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C4.monotone",
    title="The monotone bilateral filter is non-expansive in every l_p norm",
    statement=(
        "Under symmetric or circular padding the monotone filter moves no two clips apart in any l_p norm, and does "
        "not increase the l_p norm of the differences of neighbouring frames; it changes a value by less than G / (1 "
        "+ G) sigma_range."
    ),
    latex=r"\|M(x) - M(x')\|_p \le \|x - x'\|_p,\quad 1 \le p \le \infty",
    hypotheses=(
        Hypothesis("H1", "Padding is symmetric or circular."),
        Hypothesis("H2", "The filter is the monotone one."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="repairs claim C4 in its strongest reading, by another filter",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the l_p norm of the difference of two clips after the filter, p = 1, 2 or infinity (0 in the size), in units "
        "of the values"
    ),
    bound_in_words="the l_p norm of their difference before it",
    necessity={"H1": _reflected, "H2": _bilateral},
    planted={
        "without the last frame": lambda instance: norm(_gap(instance)[:-1], instance["power"]),
        "the distance of the clips' means, in every frame": lambda instance: norm(
            jnp.full_like(_gap(instance), jnp.mean(_gap(instance))), instance["power"]
        ),
        "a contraction by G / (1 + G)": lambda instance: (
            defect_bound(1.0, monotone=True) * norm(_gap(instance), instance["power"])
        ),
        "the mean of the frames' distances": lambda instance: jnp.mean(jnp.abs(_gap(instance))),
        "half the range of the differences": lambda instance: jnp.ptp(_gap(instance)) / 2,
    },
    reality=(
        Comparison(
            question=(
                "The trained UNet's self-attention features with and without the adapter, after the monotone filter "
                "along 5 frames with sigma_range 1 and 0.01: are they no further apart than before, in l_2?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_apart,
        ),
    ),
    lemmas=("Riesz-Thorin interpolation between l_1 and l_infinity", "mean value inequality"),
    floor=0.999,
    floor_reason=(
        "clips that differ by a constant attain the bound, and a search over the difference comes close to one"
    ),
)
