r"""The inversion error remains controlled: refuted, by a predictor whose round trip grows exponentially.

Statement, as we read it. One constant C serves all noise predictors and all schedules:

    \|E_0\| \le C \sum_k \|d_k\|,

the round trip errs by no more than a constant times what its single steps commit. The attack is run with C = 1.

Counterexample, for every C: e(y, sigma) = -L (y - c sigma^2 / 2) + c sigma from y_0 = 0 on N uniform steps of [0,
sigma_max] under convention S, with h L <= 1, smooth in both arguments. All defects point one way, every sampling step
multiplies the error by 1 + h L, and

    |E_0| \ge \frac{h c}{L} \bigl((1 + hL)^N - 1\bigr), \qquad
    \frac{|E_0|}{\sum_k |d_k|} \to \frac{e^{L \sigma_{\max}} - 1}{L \sigma_{\max}} \quad (N \to \infty),

so more steps do not help the ratio. With L sigma_max = log2(2 C N), 2 C N <= 2^N, it exceeds C.

Hypotheses.
    H1  The noise levels increase, one predictor serves both directions, and sampling starts where the inversion ended.
    H2  (missing in the statement) The predictor is the exact score of log-concave data. With it C = 1 serves: theorem
        C3.log-concave.

**Lower**: no constant will do.

In the paper: claim C3, in the abstract's words; the hypotheses of its theorem are not known to us. Proof:
paper_notes.md, section C3.stated.
"""

import dataclasses
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
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, log_concave, round_trip
from theory.inversion.ddim import recorded_round_trip
from theory.rounding import relative_budget

LARGEST_LOG_CONSTANT = 30.0
"""Constants up to e^30 are tried on 64 steps, where 2 C N <= 2^N holds up to e^39."""


def limiting_amplification(lipschitz: float, sigma_max: float) -> float:
    """|E_0| / sum_k |d_k| of the counterexample for ever finer steps.

        (exp(L sigma_max) - 1) / (L sigma_max)

    Raises:
        ValueError: a factor that is not finite and positive.
    """
    for name, value in (("lipschitz", lipschitz), ("sigma_max", sigma_max)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value}; a finite number > 0 is needed")
    return float(np.expm1(lipschitz * sigma_max) / (lipschitz * sigma_max))


def lipschitz_to_exceed(constant, num_steps: int, sigma_max):
    """The Lipschitz constant with which the counterexample exceeds a proposed constant C >= 1. JAX-traceable.

    L = log2(2 C N) / sigma_max
    """
    return jnp.log2(2 * constant * num_steps) / sigma_max


def _total_defect(instance: Instance):
    trip = instances.table_round_trip(instance)
    return jnp.sum(instances.norms(trip.defects) + instances.table_rounding(trip, instance))


PROBLEM = dataclasses.replace(round_trip.PROBLEM, bound=_total_defect)


def witness(*, num_steps: int) -> Instance:
    """The counterexample with h L = 1/2 on [0, 2]."""
    return round_trip.groenwall_instance(num_steps, lipschitz=num_steps / 4, sigma_max=2.0)


def _draw_proposal(key: jax.Array, *, num_steps: int) -> Parameters:
    constant_key, rate_key, range_key = jax.random.split(key, 3)
    return {
        "constant": 3 * jax.random.normal(constant_key),
        "log_rate": jax.random.normal(rate_key),
        "log_range": jax.random.normal(range_key),
    }


def _against_proposal(parameters: Parameters, *, num_steps: int) -> Instance:
    """The counterexample to a proposed constant C in [1, e^30]."""
    squared = parameters["constant"] ** 2
    constant = jnp.exp(LARGEST_LOG_CONSTANT * squared / (1 + squared))
    sigma_max = instances.bounded_exp(parameters["log_range"], 2.0)
    lipschitz = lipschitz_to_exceed(constant, num_steps, sigma_max)
    rate = instances.bounded_exp(parameters["log_rate"], 2.0)
    return round_trip.groenwall_instance(num_steps, lipschitz, rate, sigma_max) | {"constant": constant}


COUNTEREXAMPLES = Problem(
    sizes=((("num_steps", 64),),),
    draw=_draw_proposal,
    instance=_against_proposal,
    measured=round_trip.measure,
    bound=lambda instance: instance["constant"] * _total_defect(instance),
    operations=instances.operations,
)

REPAIRED = dataclasses.replace(log_concave.PROBLEM, bound=lambda instance: jnp.sum(log_concave.defect_norms(instance)))


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """How much the network's sampling amplifies the defects of its inversion: the ratio is the C it would need."""
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded_round_trip(record)
        total = np.sum(np.linalg.norm(trip.defects, axis=1) + round_trip.recorded_roundings(trip))
        outcomes.append(
            Outcome(
                f"{record.label}: round trip over total defect",
                float(np.linalg.norm(trip.errors[0])),
                float(total),
                relative_budget(instances.operations(num_steps=len(trip.defects))),
            )
        )
    return outcomes


CLAIM = Claim(
    id="C3.stated",
    title="The inversion error remains controlled, unqualified",
    statement=(
        "For all noise predictors and schedules the round-trip error of DDIM inversion is at most one constant times "
        "the sum of its one-step defects."
    ),
    latex=r"\exists C\ \forall \epsilon, (\sigma_k):\quad \|E_0\| \le C \sum_k \|d_k\|",
    hypotheses=(
        Hypothesis(
            "H1",
            "The noise levels increase, one predictor serves both directions, and sampling starts where the inversion "
            "ended.",
        ),
        Hypothesis("H2", "(missing in the statement) The predictor is the exact score of log-concave data."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="claim C3 of the abstract, in our reading",
    problem=PROBLEM,
    witnesses=witness,
    necessity={},
    definitional={
        "H1": "it says what a round trip is",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "the largest defect for their sum": lambda instance: jnp.max(log_concave.defect_norms(instance)),
        "without the defect nearest the data": lambda instance: jnp.sum(log_concave.defect_norms(instance)[1:]),
        "root of the sum of squares": lambda instance: instances.norms(log_concave.defect_norms(instance)),
    },
    reality=(
        Comparison(
            question="the claim's inequality",
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_reality,
        ),
    ),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
