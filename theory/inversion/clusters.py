r"""No constant serves all data, not even for their exact scores: two clusters amplify exponentially what the steps of
an inversion miss.

Statement, which is refuted. One constant C serves the exact scores of all data, all schedules and all starts:

    \|E_0\| \le C\, (\sigma_N - \sigma_0) \max_k \|d_k\| / h_k,

the round trip errs by no more than a constant times what its steps commit at their worst rate. The attack is run with
C = 1.

Counterexample, for every C, under conventions S and T: two clusters N(+-1, s^2) on a line whose weights differ by an
odds ratio exp(2 eta), levels on [0, sigma_N] with s^2 + sigma_N^2 = 1/8, and the start -eta s M(1/s) on the line that
the flow itself keeps between the clusters, M the Mills ratio. As eta -> 0 and then N -> infinity the ratio tends to

    S: \frac{\int f'' e^A}{\sigma_N \max f''} \ge \frac{s}{5} e^{1/(2s^2) - 8}, \qquad
    T: \frac{\int q e^A}{\sigma_N \max q} \ge 14 s^3 e^{1/(2s^2) - 8}  (s \le 1/5),

    A(\sigma) = \tfrac12 (1/s^2 - 1/v) - \tfrac12 \log(v / s^2), \quad v = s^2 + \sigma^2,
    f = \sqrt v M(1 / \sqrt v), \quad q = |J| (f' - \sigma f / (1 + \sigma^2)), \quad J = (\sigma / v)(1 - 1 / v).

The predictor's Lipschitz constant is of order s^-3 there: the constant is exponential in its power 2/3, and more steps
do not help.

Hypotheses.
    H1  The noise levels increase, the exact score of some data serves both directions, and sampling starts where the
        inversion ended.
    H2  (missing in the statement) The data are log-concave. With it C = 1 serves: theorem C3.log-concave.

**Lower**: no constant will do.

In the paper: claim C3, read as "small, with a constant that knows neither the Lipschitz constant nor the data". Proof:
paper_notes.md, section C3.clusters.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Expected,
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
from theory.inversion import instances, log_concave, mixture_tube
from theory.inversion.ddim import Convention, RoundTrip

SIZES: tuple[Size, ...] = ((("num_steps", 16),),)
LARGEST_DISTANCE = 6.0
"""R / s at most in the family that is searched."""
LEVEL_RANGE = 5.0
"""Steps between exp(-5) and exp(5)."""
LAST_VARIANCE = 1 / 8
"""s^2 + sigma_N^2 of the counterexample, in units of the squared half distance of the clusters."""
SMALL_ODDS = 1e-12
"""eta of the counterexample: its trajectories are linear in eta to this relative accuracy and better."""
LARGEST_LOG_CONSTANT = 12.0
"""Constants up to e^12 are tried, on 128 steps."""


def mills_ratio(x: Any) -> Any:
    """Upper tail over density of the standard normal, for x >= 0; JAX.

    M(x) = exp(x^2 / 2) int_x^inf exp(-u^2 / 2) du
    """
    return jnp.exp(jax.scipy.special.log_ndtr(-x) + x**2 / 2 + math.log(2 * math.pi) / 2)


def cluster_lower_bound(std: float, convention: Convention) -> float:
    """What the constant has to be at least for clusters at +-1 of this width, in the limit of ever finer steps.

        S: s / 5 exp(1 / (2 s^2) - 8),   T: 14 s^3 exp(1 / (2 s^2) - 8)

    Raises:
        ValueError: a std outside (0, 1/5]; convention Y, for which nothing is proved.
    """
    if not 0 < std <= 1 / 5:
        raise ValueError(f"std = {std}; it must lie in (0, 1/5], where the bound is proved")
    if convention not in (Convention.S, Convention.T):
        raise ValueError(f"convention = {convention!r}; the bound is proved for S and T")
    factor = std / 5 if convention == Convention.S else 14 * std**3
    return factor * math.exp(1 / (2 * std**2) - 8)


def separatrix_instance(std: Any, num_steps: int, convention: Any, radius: Any = 1.0) -> Instance:
    """The counterexample: two clusters at +-radius, started where the flow leads to the middle between them;
    JAX-traceable.

    Args:
        std: s < radius / sqrt 8.
        num_steps: on uniform steps from 0 to the level at which s^2 + sigma^2 = radius^2 / 8.
        convention: S or T.
    """
    last = jnp.sqrt(LAST_VARIANCE * radius**2 - std**2)
    axis = jnp.asarray([1.0, 0.0])
    return {
        "sigmas": last * jnp.arange(num_steps + 1) / num_steps,
        "start": -SMALL_ODDS * std * mills_ratio(radius / std) * axis,
        "convention": jnp.asarray(convention, dtype=jnp.int64),
        "start_offset": jnp.zeros(instances.DIMENSION),
        "radius": jnp.asarray(radius),
        "std": jnp.asarray(std),
        "half_log_odds": jnp.asarray(SMALL_ODDS),
        "axis": axis,
        "scale": jnp.asarray(1.0),
        "support_share": jnp.asarray(1.0),
    }


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return mixture_tube.measure(instance)


def _rates(trip: RoundTrip, defects: Any) -> Any:
    return defects / jnp.diff(trip.sigmas)


def _worst_rate(instance: Instance):
    trip, defects = mixture_tube.simulated_defects(instance)
    return (trip.sigmas[-1] - trip.sigmas[0]) * jnp.max(_rates(trip, defects))


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 2)
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.0)
    drawn = mixture_tube.PROBLEM.draw(keys[1], num_steps=num_steps)
    return drawn | {"half_log_odds": spread * drawn["half_log_odds"], "start": spread * drawn["start"]}


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    steps = instances.bounded_exp(parameters["increments"], LEVEL_RANGE)
    first = parameters["first_level"] ** 2
    std = instances.bounded_exp(parameters["log_std"], 3.0)
    return mixture_tube.PROBLEM.instance(parameters, num_steps=num_steps) | {
        "sigmas": jnp.concatenate([first[None], first + jnp.cumsum(steps)]),
        "std": std,
        "radius": LARGEST_DISTANCE * std * jnp.sin(parameters["distance"]) ** 2,
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of the witness's error: they are amplified as its defects are, which are at least a hundredth
    of h^2 start each."""
    return instances.OPERATIONS_PER_STEP * 400 * num_steps**2


PROBLEM = Problem(
    sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_worst_rate, operations=_operations
)


def witness(*, num_steps: int) -> Instance:
    """Clusters of a quarter of their half distance, under convention T."""
    return separatrix_instance(0.25, num_steps, Convention.T)


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        "first_level": jnp.asarray(0.0),
        "increments": instances.bounded_log(jnp.diff(instance["sigmas"]), LEVEL_RANGE),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.T),
        "distance": jnp.arcsin(jnp.sqrt(instance["radius"] / (LARGEST_DISTANCE * instance["std"]))),
        "log_std": instances.bounded_log(instance["std"], 3.0),
        "half_log_odds": jnp.arctanh(instance["half_log_odds"] / 2),
        "angle": jnp.asarray(0.0),
    }


def _draw_proposal(key: jax.Array, *, num_steps: int) -> Parameters:
    constant_key, convention_key = jax.random.split(key)
    return {"constant": 3 * jax.random.normal(constant_key), "convention": jax.random.normal(convention_key)}


def std_to_exceed(constant: Any) -> Any:
    """A width with which the counterexample exceeds a proposed constant C in [1, e^12] on 128 steps. JAX-traceable.

    1 / (2 s^2) = 8 + 3/2 log(2 C)
    """
    return 1 / jnp.sqrt(2 * (8 + 1.5 * jnp.log(2 * constant)))


def _against_proposal(parameters: Parameters, *, num_steps: int) -> Instance:
    squared = parameters["constant"] ** 2
    constant = jnp.exp(LARGEST_LOG_CONSTANT * squared / (1 + squared))
    convention = jnp.where(parameters["convention"] < 0, Convention.S, Convention.T)
    return separatrix_instance(std_to_exceed(constant), num_steps, convention) | {"constant": constant}


COUNTEREXAMPLES = Problem(
    sizes=((("num_steps", 128),),),
    draw=_draw_proposal,
    instance=_against_proposal,
    measured=measure,
    bound=lambda instance: instance["constant"] * _worst_rate(instance),
    operations=_operations,
)


def _repaired(instance: Instance, rate=jnp.max, span=lambda sigmas: sigmas[-1] - sigmas[0]):
    sigmas = instance["sigmas"]
    return span(sigmas) * rate(log_concave.defect_norms(instance) / jnp.diff(sigmas))


REPAIRED = Problem(
    sizes=log_concave.PROBLEM.sizes,
    draw=log_concave.PROBLEM.draw,
    instance=log_concave.PROBLEM.instance,
    measured=log_concave.PROBLEM.measured,
    bound=_repaired,
    operations=log_concave.PROBLEM.operations,
)


def _between_frames(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.round_trips[:1]:
        frames = np.asarray(record.inversion[0], dtype=np.float64) / np.sqrt(record.alphas_cumprod[0])
        radius = float(np.linalg.norm(frames[1] - frames[0]) / 2)
        instance = separatrix_instance(radius / 5, 128, Convention.S, radius)
        outcomes.append(
            PROBLEM.outcome(instance, COUNTEREXAMPLES.sizes[0], f"two frames at distance {2 * radius:.3g}, 128 steps")
        )
    return outcomes


CLAIM = Claim(
    id="C3.clusters",
    title="The inversion error of exact scores is small, with a constant that does not know the data",
    statement=(
        "With the exact score of any data the round-trip error is at most one constant times the range of noise "
        "levels and the largest rate at which the inversion's steps commit defects."
    ),
    latex=r"\exists C\ \forall p_0, (\sigma_k), y_0:\quad \|E_0\| \le C (\sigma_N - \sigma_0) \max_k \|d_k\| / h_k",
    hypotheses=(
        Hypothesis(
            "H1",
            "The noise levels increase, the exact score of some data serves both directions, and sampling starts "
            "where the inversion ended.",
        ),
        Hypothesis("H2", "(missing in the statement) The data are log-concave."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="claim C3 in the reading that the error is small for exact scores of any data",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "range of noise levels times the largest defect over its step, that is, C = 1, in the same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    definitional={
        "H1": "it says what a round trip of an exact score is",
        "H2": "the statement lacks it, and the repaired statement, which has it, is searched instead",
    },
    planted={
        "the largest defect for rate times range": lambda instance: jnp.max(log_concave.defect_norms(instance)),
        "the least rate for the largest": lambda instance: _repaired(instance, rate=jnp.min),
        "the rate of the step nearest the data": lambda instance: _repaired(instance, rate=lambda rates: rates[0]),
        "the range of asinh(sigma)": lambda instance: _repaired(
            instance, span=lambda sigmas: jnp.arcsinh(sigmas[-1]) - jnp.arcsinh(sigmas[0])
        ),
    },
    reality=(
        Comparison(
            question=(
                "Two neighbouring frames of the clip as clusters of a fifth of their half distance, started between "
                "them: round-trip error of their exact score against C = 1"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_between_frames,
            expected=Expected.VIOLATED,
            because=(
                "the counterexample, which is one at every distance: so C = 1 is refuted between frames of a real "
                "clip as well"
            ),
        ),
    ),
    no_network="It is about exact scores of clusters, and no network is one.",
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
    relies_on=("C3.log-concave",),
    lemmas=("Euler's method converges on smooth linear equations",),
)
