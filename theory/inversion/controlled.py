r"""The inversion error remains controlled: refuted, by a predictor whose round trip grows exponentially.

Statement, as we read it. One constant C serves all noise predictors and all schedules:

    \|E_0\| \le C \sum_k \|d_k\|,

the round trip errs by no more than a constant times what its single steps commit. The attack is run with C = 1.

Counterexample, for every C, on N uniform steps h of [0, sigma_max] with h L <= 1: e_k(y) = -L y + b_k, with b_k such
that the inversion goes through given states,

    S: z_k = c sigma_k^2 / 2     T (diffusers): z_k = c sigma_k sqrt(1 + sigma_k^2)     Y: z_k = c sigma_k.

Then all defects point one way, every sampling step multiplies the error by 1 + h L, and under every one of the three
conventions

    \frac{|E_0|}{\sum_k |d_k|} \ge \frac{(1 + hL)^N - 1}{N h L}
    \ \to\ \frac{e^{L \sigma_{\max}} - 1}{L \sigma_{\max}} \quad (N \to \infty),

with equality under S and Y: more steps do not help the ratio. With L sigma_max = log2(2 C N), 2 C N <= 2^N, it exceeds
    C. As N grows the
predictors tend to one that is smooth in both arguments.

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
from typing import Any

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
from theory.inversion import instances, log_concave, recorded, round_trip
from theory.inversion.ddim import Convention, recorded_round_trip
from theory.rounding import relative_budget

LARGEST_LOG_CONSTANT = 30.0
"""Constants up to e^30 are tried on 64 steps, where 2 C N <= 2^N holds up to e^39."""


def pushed_instance(
    num_steps: int, convention: Any, lipschitz: Any = 1.0, rate: Any = 1.0, sigma_max: Any = 2.0
) -> Instance:
    """The counterexample of the statement on uniform steps of [0, sigma_max]; JAX-traceable in all but the number of
    steps.

    Args:
        convention: S, T or Y.
        lipschitz, rate, sigma_max: L, c > 0 and the last level.
    """
    # One step more than is used gives level N its offset under S.
    sigmas = sigma_max * jnp.arange(num_steps + 2) / num_steps
    scales = jnp.sqrt(1 + sigmas**2)
    wanted = rate * jnp.where(
        convention == Convention.S, sigmas**2 / 2, jnp.where(convention == Convention.T, sigmas * scales, sigmas)
    )
    slopes = jnp.diff(wanted) / jnp.diff(sigmas)
    # What e^_k = -L (state seen) + b has to be corrected for: S sees z_k at level k, T and Y what they make of it at
    # level k + 1.
    seen = wanted[:-1] * jnp.where(convention == Convention.T, scales[1:] / scales[:-1], 1.0)
    pushes = slopes + lipschitz * seen
    offsets = jnp.where(convention == Convention.S, pushes, jnp.concatenate([jnp.zeros(1), pushes[:-1]]))
    levels, axis = num_steps + 1, jnp.asarray([1.0, 0.0])
    return {
        "sigmas": sigmas[:-1],
        "start": jnp.zeros(instances.DIMENSION),
        "convention": jnp.asarray(convention, dtype=jnp.int64),
        "start_offset": jnp.zeros(instances.DIMENSION),
        "lipschitz": lipschitz * jnp.ones(levels),
        "blend": jnp.ones(levels),
        "linear": jnp.tile(-jnp.eye(2), (levels, 1, 1)),
        "inner": jnp.tile(jnp.eye(2), (levels, 1, 1)),
        "shift": jnp.zeros((levels, instances.DIMENSION)),
        "offset": offsets[:, None] * axis[None, :],
    }


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
    """The counterexample with h L = 1/2 on [0, 2], under the convention of diffusers."""
    return pushed_instance(num_steps, Convention.T, lipschitz=num_steps / 4)


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    return instances.parameters_of(witness(num_steps=num_steps), Convention.T)


def _draw_proposal(key: jax.Array, *, num_steps: int) -> Parameters:
    constant_key, rate_key, range_key, convention_key = jax.random.split(key, 4)
    return {
        "convention": instances.draw_convention(convention_key),
        "constant": 3 * jax.random.normal(constant_key),
        "log_rate": jax.random.normal(rate_key),
        "log_range": jax.random.normal(range_key),
    }


def _against_proposal(parameters: Parameters, *, num_steps: int) -> Instance:
    """The counterexample to a proposed constant C in [1, e^30], under any convention."""
    squared = parameters["constant"] ** 2
    constant = jnp.exp(LARGEST_LOG_CONSTANT * squared / (1 + squared))
    sigma_max = instances.bounded_exp(parameters["log_range"], 2.0)
    lipschitz = lipschitz_to_exceed(constant, num_steps, sigma_max)
    rate = instances.bounded_exp(parameters["log_rate"], 2.0)
    convention = instances.convention(parameters["convention"])
    return pushed_instance(num_steps, convention, lipschitz, rate, sigma_max) | {"constant": constant}


COUNTEREXAMPLES = Problem(
    sizes=((("num_steps", 64),),),
    draw=_draw_proposal,
    instance=_against_proposal,
    measured=round_trip.measure,
    bound=lambda instance: instance["constant"] * _total_defect(instance),
    operations=instances.operations,
)

REPAIRED = dataclasses.replace(log_concave.PROBLEM, bound=lambda instance: jnp.sum(log_concave.defect_norms(instance)))


def _total(evidence: Evidence) -> Sequence[Outcome]:
    """How much the network's sampling amplifies the defects of its inversion: the ratio is the C it would need."""
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded_round_trip(record)
        total = np.sum(np.linalg.norm(trip.defects, axis=1) + round_trip.recorded_roundings(trip))
        budget = relative_budget(instances.operations(num_steps=len(trip.defects)))
        outcomes.append(Outcome(record.label, float(np.linalg.norm(trip.errors[0])), float(total), budget))
    return outcomes


def _alignment(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded.first_frame(record)
        sizes, whole = np.linalg.norm(trip.defects, axis=1), np.linalg.norm(trip.defects.sum(axis=0))
        outcomes.append(
            Outcome(
                record.label, float(0.9 * sizes.sum()), float(whole), recorded.recorded_budget(trip.errors.shape[1])
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
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="sum of the norms of the one-step defects, that is, C = 1, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={},
    definitional={
        "H1": "it says what a round trip is",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "the largest defect for their sum": lambda instance: jnp.max(log_concave.defect_norms(instance)),
        "without the defect nearest the data": lambda instance: jnp.sum(log_concave.defect_norms(instance)[1:]),
        "half of every defect but the largest": lambda instance: (
            jnp.sum(log_concave.defect_norms(instance)) / 2 + jnp.max(log_concave.defect_norms(instance)) / 2
        ),
        "root of the sum of squares": lambda instance: instances.norms(log_concave.defect_norms(instance)),
    },
    reality=(
        Comparison(
            question=(
                "Round-trip error of all frames of the trained network against the sum of its one-step defects: C = 1 "
                "would do for this trip"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_total,
        ),
        Comparison(
            question=(
                "The network's defects point one way, as the counterexample's do: nine tenths of the sum of their "
                "norms, first frame, against the norm of their sum"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_alignment,
        ),
    ),
    relies_on=("C3.any-inversion", "C3.log-concave"),
    lemmas=("Chebyshev's sum inequality",),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
