r"""The same filtered predictor in inversion and sampling: the round trip stays of first order in the step.

Statement. Let inversion and sampling both run with the filtered predictor e^B. If e_k(y) = R_k(y) + P_k(phi_k(y)) with
Lipschitz constants r_k, p_k and q_k of R, P and phi in the maximum norm, then e^B_k has the constant Lambda^B_k = r_k +
2.0249284 p_k q_k, and

    \| w_0 - z_0 \|_\infty \le \sum_k \| d^B_k \|_\infty \prod_{j<k} (1 + h_j Lambda^B_{j+1}),
    d^B_k = h_k (e^B_{k+1}(z_{k+1}) - e^B_{k+1}(z_k)).

Every defect is of the order h_k^2, so the round trip's error vanishes with the steps: the filter changes its constant
and not its order, unlike a filter in the inversion alone (C4.inversion-alone).

Hypotheses.
    H1  The constants hold on convex sets that hold z_k and w_k and their features, k = 1, .., N-1.
    H2  Sampling starts where the inversion ended.
    H3  Both directions filter.

**Upper**: attained where the filter is not felt (q = 0), where it is the round trip's own bound.

In the paper: claim C4, if the editor filters in both directions. Proof: paper_notes.md, section C4.both-ways.
"""

import jax.numpy as jnp
import numpy as np

from theory.bilateral import editing, instances
from theory.bilateral.constants import lipschitz_constant
from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict

GAIN = lipschitz_constant()
RATE = 1.0


def _round_trip(instance: Instance, *, sampling_filtered: bool = True):
    noise, defects = editing.invert(instance, filtered=True)
    back = editing.sample(instance, noise + instance["offset"], filtered=sampling_filtered)
    return back - instance["start"], defects


def _measured(instance: Instance):
    return instances.largest(_round_trip(instance)[0])


def _rounding(instance: Instance):
    # A defect may vanish, as where rates and pre do, while the states round.
    operands = instances.largest(instance["start"]) + instances.largest(instance["features"]) * jnp.max(
        instance["post"]
    )
    return (
        2.0**-53 * 1000 * (1 + operands) * jnp.prod(1 + editing.steps(instance) * editing.lipschitz(instance, GAIN)[1:])
    )


def _bound_of(instance: Instance, gain: float, defects=None):
    found = _round_trip(instance)[1] if defects is None else defects
    return jnp.sum((found + _rounding(instance)) * editing.growth(instance, gain))


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return editing.instance(parameters, num_steps=num_steps) | {"offset": jnp.zeros(editing.NUM_FRAMES)}


PROBLEM = Problem(
    sizes=editing.SIZES[1:],
    draw=editing.draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: _bound_of(instance, GAIN),
    operations=editing.operations,
)


def witness(*, num_steps: int) -> Instance:
    """Features far above 0, and a rate of 1 in every frame: the defects have one sign."""
    features = np.full(editing.NUM_FRAMES, 3.0)
    return editing.explicit_instance(num_steps, np.full(editing.NUM_FRAMES, RATE), features) | {
        "offset": jnp.zeros(editing.NUM_FRAMES)
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    return editing.explicit_parameters(num_steps, np.full(editing.NUM_FRAMES, RATE), np.full(editing.NUM_FRAMES, 3.0))


def _steeper() -> Outcome:
    instance = witness(num_steps=4)
    found = PROBLEM.outcome(instance, editing.SIZES[1], "rates twice the Lipschitz constant")
    factors = editing.growth(instance | {"rates": instance["rates"] / 2}, GAIN)
    bound = float(jnp.sum(_round_trip(instance)[1] * factors))
    return Outcome(found.label, found.measured, bound, found.budget, witness=found.witness)


def _elsewhere() -> Outcome:
    instance = witness(num_steps=4) | {"offset": jnp.full(editing.NUM_FRAMES, -1.0)}
    return PROBLEM.outcome(instance, editing.SIZES[1], "sampling from another noise")


def _one_way() -> Outcome:
    instance = editing.explicit_instance(4, np.zeros(editing.NUM_FRAMES), editing.PATTERN) | {
        "offset": jnp.zeros(editing.NUM_FRAMES)
    }
    error, _ = _round_trip(instance, sampling_filtered=False)
    return Outcome(
        "the filter in the inversion alone",
        float(instances.largest(error)),
        float(_bound_of(instance, GAIN)),
        PROBLEM.budget(editing.SIZES[1]),
        witness={name: np.asarray(value) for name, value in instance.items()},
    )


def _defects(instance: Instance):
    return _round_trip(instance)[1]


CLAIM = Claim(
    id="C4.both-ways",
    title="Round-trip error of the same filtered predictor in both directions",
    statement=(
        "With the same filter in inversion and sampling the round trip errs by at most sum_k ||d^B_k|| prod_{j<k} (1 "
        "+ h_j Lambda^B_{j+1}) in the maximum norm, Lambda^B = r + 2.0249284 p q: of first order in the step, as "
        "without the filter."
    ),
    latex=(
        r"\|w_0 - z_0\|_\infty \le \sum_k \|d^B_k\|_\infty "
        r"\prod_{j<k} (1 + h_j \Lambda^B_{j+1}),\quad \Lambda^B = r + 2.0249284\, p q"
    ),
    hypotheses=(
        Hypothesis("H1", "The constants hold on convex sets that hold z_k and w_k and their features, k = 1, .., N-1."),
        Hypothesis("H2", "Sampling starts where the inversion ended."),
        Hypothesis("H3", "Both directions filter."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.UPPER,
    origin="claim C4, if the editor filters in both directions; no bound is known to us",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest error of a frame after inversion and sampling, in the variable y = x / sqrt(abar)",
    bound_in_words=(
        "the filtered inversion's one-step defects, each times the growth of the later sampling steps, in the same "
        "units"
    ),
    necessity={"H1": _steeper, "H2": _elsewhere, "H3": _one_way},
    planted={
        "without growth": lambda instance: jnp.sum(_defects(instance)),
        "the largest step for their sum": lambda instance: jnp.max(_defects(instance) * editing.growth(instance, GAIN)),
        "without the defect nearest the data": lambda instance: jnp.sum(
            (_defects(instance) * editing.growth(instance, GAIN))[1:]
        ),
        "root of the sum of squares": lambda instance: jnp.sqrt(
            jnp.sum((_defects(instance) * editing.growth(instance, GAIN)) ** 2)
        ),
    },
    no_network=(
        "The Lipschitz constants of a UNet in the maximum norm are not known, so the bound cannot be evaluated; the "
        "study of the filter measures the round trip itself."
    ),
    relies_on=("C4.lipschitz", "C3.round-trip"),
    lemmas=("discrete Groenwall inequality",),
)
