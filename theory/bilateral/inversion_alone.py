r"""The filter in the inversion alone, as the public pipelines run it: what the round trip then errs by.

Statement. Let the inversion run with the filtered predictor, z_{k+1} = z_k + h_k e^B_{k+1}(z_k), and the sampling with
the unfiltered one, w_N = z_N, w_k = w_{k+1} - h_k e_{k+1}(w_{k+1}). With the inversion's own one-step defects d^B_k =
h_k (e^B_{k+1}(z_{k+1}) - e^B_{k+1}(z_k)), in the maximum norm,

    \| w_0 - z_0 \|_\infty \le \sum_k (\|d^B_k\|_\infty + h_k P_{k+1} K sigma_range) \prod_{j<k} (1 + h_j Lambda_{j+1}),

P the Lipschitz constant of the way from the features to the prediction and Lambda that of the unfiltered predictor. The
filter's part does not vanish with finer steps: it tends to P K sigma_range (e^{Lambda sigma_max} - 1) / Lambda.

This is the theorem on the round trip of any inversion, z_k = z_{k+1} - h_k e_{k+1}(z_{k+1}) + d_k, with d_k = d^B_k +
h_k (e - e^B)_{k+1} (z_{k+1}).

Hypotheses.
    H1  Lambda_k is a Lipschitz constant of e_k on a convex set that holds z_k and w_k, k = 1, .., N-1.
    H2  P_k is a Lipschitz constant of the way from the features to the prediction.
    H3  Sampling starts where the inversion ended.

**Tight**: attained by features that keep the extremal pattern, and a rate in its middle frame alone, where both parts
of the defect have one sign.

In the paper: claim C4; the public code of the companion system removes the filter before sampling. Proof:
paper_notes.md, section C4.inversion-alone.
"""

import jax.numpy as jnp
import numpy as np

from theory.bilateral import editing, instances
from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict

RATE = 1.0
LEVEL = 10.0
"""What the features lie above 0 in the extremal instance, in range widths, so that every prediction is positive."""


def _round_trip(instance: Instance):
    noise, defects = editing.invert(instance, filtered=True)
    return editing.sample(instance, noise + instance["offset"]) - instance["start"], defects


def _measured(instance: Instance):
    return instances.largest(_round_trip(instance)[0])


def _parts(instance: Instance):
    return _round_trip(instance)[1] + editing.filter_moves(instance)


def _bound(instance: Instance):
    return jnp.sum(_parts(instance) * editing.growth(instance))


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    return editing.instance(parameters, num_steps=num_steps) | {"offset": jnp.zeros(editing.NUM_FRAMES)}


PROBLEM = Problem(
    sizes=editing.SIZES,
    draw=editing.draw,
    instance=_instance,
    measured=_measured,
    bound=_bound,
    operations=editing.operations,
)


def _rates() -> np.ndarray:
    rates = np.zeros(editing.NUM_FRAMES)
    rates[editing.MIDDLE] = RATE
    return rates


def witness(*, num_steps: int) -> Instance:
    """The extremal features at every level, and a rate of 1 in the middle frame."""
    return editing.explicit_instance(num_steps, _rates(), editing.PATTERN + LEVEL) | {
        "offset": jnp.zeros(editing.NUM_FRAMES)
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    return editing.explicit_parameters(num_steps, _rates(), editing.PATTERN + LEVEL)


def _steeper() -> Outcome:
    """Growth and nothing else taken at half the rate."""
    instance = witness(num_steps=4)
    found = PROBLEM.outcome(instance, editing.SIZES[1], "rates twice the Lipschitz constant")
    factors = editing.growth(instance | {"rates": instance["rates"] / 2})
    return Outcome(
        found.label, found.measured, float(jnp.sum(_parts(instance) * factors)), found.budget, witness=found.witness
    )


def _louder() -> Outcome:
    instance = witness(num_steps=4)
    found = PROBLEM.outcome(instance, editing.SIZES[1], "features read twice as loudly as P says")
    parts = _round_trip(instance)[1] + editing.filter_moves(instance) / 2
    bound = float(jnp.sum(parts * editing.growth(instance)))
    return Outcome(found.label, found.measured, bound, found.budget, witness=found.witness)


def _elsewhere() -> Outcome:
    instance = witness(num_steps=4) | {"offset": jnp.full(editing.NUM_FRAMES, 0.5)}
    return PROBLEM.outcome(instance, editing.SIZES[1], "sampling from another noise")


CLAIM = Claim(
    id="C4.inversion-alone",
    title="Round-trip error of a filter in the inversion alone",
    statement=(
        "If the inversion filters features and the sampling does not, the round trip errs by at most sum_k (||d^B_k|| "
        "+ h_k P_{k+1} K sigma_range) prod_{j<k} (1 + h_j Lambda_{j+1}) in the maximum norm, and no smaller "
        "combination of these numbers will do."
    ),
    latex=(
        r"\|w_0 - z_0\|_\infty \le \sum_k (\|d^B_k\|_\infty + h_k P_{k+1} K \sigma_r) "
        r"\prod_{j<k} (1 + h_j \Lambda_{j+1})"
    ),
    hypotheses=(
        Hypothesis(
            "H1", "Lambda_k is a Lipschitz constant of e_k on a convex set that holds z_k and w_k, k = 1, .., N-1."
        ),
        Hypothesis("H2", "P_k is a Lipschitz constant of the way from the features to the prediction."),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="claim C4, as the public code of the companion system runs it; no bound is known to us",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the largest error of a frame after inversion and sampling, in the variable y = x / sqrt(abar)",
    bound_in_words=(
        "the inversion's one-step defects and the filter's moves, each times the growth of the later sampling steps, "
        "in the same units"
    ),
    necessity={"H1": _steeper, "H2": _louder, "H3": _elsewhere},
    planted={
        "the inversion's defects alone": lambda instance: jnp.sum(_round_trip(instance)[1] * editing.growth(instance)),
        "the filter's moves alone": lambda instance: jnp.sum(editing.filter_moves(instance) * editing.growth(instance)),
        "without growth": lambda instance: jnp.sum(_parts(instance)),
        "the larger of the two parts": lambda instance: jnp.sum(
            jnp.maximum(_round_trip(instance)[1], editing.filter_moves(instance)) * editing.growth(instance)
        ),
        "the largest step for their sum": lambda instance: jnp.max(_parts(instance) * editing.growth(instance)),
    },
    no_network=(
        "The Lipschitz constants of a UNet in the maximum norm, Lambda and P, are not known, so the bound cannot be "
        "evaluated; the study of the filter measures the round trip itself."
    ),
    relies_on=("C4.defect", "C3.any-inversion"),
    lemmas=("discrete Groenwall inequality",),
    floor=0.95,
    floor_reason=(
        "the supremum is attained, but at kinks of the maximum norm, which gradient ascent approaches and does not hit"
    ),
)
