r"""The order of convergence: second on the standard normal under convention T, in closed form; elsewhere measured.

Statement. Let the data be N(0, I), sigma_k = tan theta_k and delta_k = theta_{k+1} - theta_k. Inverting under
convention T (diffusers) and sampling multiplies every y_0 by exactly

    \frac{w_0}{y_0} = \prod_k (1 - a_k), \qquad
    a_k = (1 - \cos\delta_k) \sin\delta_k\, \frac{\sin\theta_{k+1}}{\cos\theta_k} \in [0, 1),

so that ||E_0|| = (1 - prod_k (1 - a_k)) ||y_0|| <= sum_k a_k ||y_0|| <= 1/2 sum_k delta_k^3 sin theta_{k+1} / cos
theta_k ||y_0||: second order in the step, with the limit 1/2 delta^2 log(cos theta_0 / cos theta_N) for uniform angles.
Under convention S, and on N(0, v I) with v != 1, the same round trip is of first order.

Elsewhere the order is measured: `convergence` gives round-trip errors against the number of steps,
`order_of_convergence` the slope and the interval of its local values. A scheduler's training grid ends refinement at
num_train_timesteps steps, where an error is left (`training_levels`).

Hypotheses.
    H1  The data are N(0, I).
    H2  The inversion is of convention T.
    H3  Sampling starts where the inversion ended.

The product needs no order of the levels; a_k in [0, 1) and the bounds by sums need that they increase.

**Identity**: both sides agree on every instance.

In the paper: not there. Proof: paper_notes.md, section C3.order.
"""

import dataclasses
from collections.abc import Callable, Sequence
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
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention, RoundTrip, round_trip
from theory.inversion.predictors import NoisePredictor, at_levels
from theory.inversion.schedule import as_vector, check_noise_levels, noise_levels, refuse_first
from theory.rounding import relative_budget

DIMENSION = instances.DIMENSION
SIZES: tuple[Size, ...] = ((("num_steps", 8),),)
LARGEST_ANGLE = 1.4
"""arctan of the highest drawn noise level, 5.8."""

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
"""Of Stable Diffusion's schedule, "scaled_linear"."""


def standard_normal_factor(sigmas: Any) -> Any:
    """What an inversion under convention T and the sampling back multiply y_0 by, on data N(0, I).

        prod_k (1 - (1 - cos delta_k) sin delta_k sin theta_{k+1} / cos theta_k),   theta = arctan sigma

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.

    Raises:
        ValueError: noise levels that do not increase.
    """
    check_noise_levels(sigmas)
    return 1 - _standard_normal_error(*as_vector("noise levels", sigmas))


def standard_normal_bound(sigmas: Any) -> Any:
    """The relative round-trip error on N(0, I) under convention T, at most: second order in the steps.

        1/2 sum_k delta_k^3 sin theta_{k+1} / cos theta_k

    Raises:
        ValueError: noise levels that do not increase.
    """
    check_noise_levels(sigmas)
    sigmas, xp = as_vector("noise levels", sigmas)
    angles = xp.atan(sigmas)
    deltas = angles[1:] - angles[:-1]
    return xp.sum(deltas**3 * xp.sin(angles[1:]) / xp.cos(angles[:-1])) / 2


def _step_losses(sigmas: Any, xp: Any) -> Any:
    """a_k, (N,). The angle between two levels is taken from their difference, which does not cancel twice."""
    lower, upper = sigmas[:-1], sigmas[1:]
    deltas = xp.atan2(upper - lower, 1 + lower * upper)
    sine = upper / xp.sqrt(1 + upper**2)
    return 2 * xp.sin(deltas / 2) ** 2 * xp.sin(deltas) * sine * xp.sqrt(1 + lower**2)


def _standard_normal_error(sigmas: Any, xp: Any) -> Any:
    # 1 - prod (1 - a_k) without cancellation.
    return -xp.expm1(xp.sum(xp.log1p(-_step_losses(sigmas, xp))))


@dataclasses.dataclass(frozen=True)
class Order:
    """A measured order of convergence: error ~ N^slope.

    Attributes:
        num_steps, errors: what it was measured on.
        slope: least-squares slope of log error against log N; -1 is first order.
        interval: the smallest and the largest slope between neighbouring numbers of steps. It holds the fitted slope,
            which is an average of them. A wide interval has not reached its asymptotic order.
    """

    num_steps: tuple[int, ...]
    errors: tuple[float, ...]
    slope: float
    interval: tuple[float, float]


def order_of_convergence(num_steps: Sequence[int], errors: Any) -> Order:
    """The order at which errors fall with the number of steps, with the interval of its local values.

    Args:
        num_steps: at least two, increasing.
        errors: as many, positive.

    Raises:
        ValueError: fewer than two; numbers of steps that do not increase; errors of another number, or not positive.
    """
    counts, _ = as_vector("numbers of steps", num_steps)
    errors, _ = as_vector("errors", errors)
    counts, errors = np.asarray(counts), np.asarray(errors)
    if counts.size < 2 or counts.size != errors.size:
        raise ValueError(
            f"{counts.size} numbers of steps and {errors.size} errors were given; at least 2 of each are needed"
        )
    refuse_first("number of steps", counts, np.concatenate([[counts[0] < 1], np.diff(counts) <= 0]), "it must increase")
    refuse_first("error", errors, errors <= 0, "it must be positive: an error of 0 has no order", label="position")
    x, y = np.log(counts), np.log(errors)
    local = np.diff(y) / np.diff(x)
    centred = x - x.mean()
    return Order(
        tuple(int(count) for count in counts),
        tuple(float(error) for error in errors),
        float(centred @ y / (centred @ centred)),
        (float(local.min()), float(local.max())),
    )


def training_levels(num_steps: int) -> np.ndarray:
    """Noise levels (num_steps + 1,) on Stable Diffusion's training grid, leading spacing, steps_offset = 1.

    The finest schedule has TRAINING_STEPS - 1 steps, one a timestep: refinement ends there, and an error is left.

    Raises:
        ValueError: num_steps neither TRAINING_STEPS - 1 nor a divisor of TRAINING_STEPS in 2 .. TRAINING_STEPS / 2.
    """
    divides = 1 < num_steps <= TRAINING_STEPS // 2 and TRAINING_STEPS % num_steps == 0
    if not (divides or num_steps == TRAINING_STEPS - 1):
        raise ValueError(
            f"num_steps = {num_steps}; it must divide {TRAINING_STEPS} and lie in 2 .. {TRAINING_STEPS // 2}, or be "
            f"{TRAINING_STEPS - 1}, the finest: use 500, 250, 200, 125, 100, 50 .."
        )
    betas = np.linspace(BETA_START**0.5, BETA_END**0.5, TRAINING_STEPS) ** 2
    table = np.cumprod(1 - betas)
    return noise_levels(np.concatenate([table[:1], table[1 :: TRAINING_STEPS // num_steps]]))


def convergence(
    predictor: NoisePredictor,
    levels: Callable[[int], np.ndarray],
    start: Any,
    convention: Convention,
    num_steps: Sequence[int],
) -> np.ndarray:
    """Relative round-trip errors ||E_0|| / ||y_0|| for several numbers of steps.

    Args:
        predictor: e(y, sigma), JAX-traceable.
        levels: num_steps -> noise levels (num_steps + 1,), for example `training_levels`.
        start: (dimension,) y_0, not zero.
        convention: S, T or Y.
        num_steps: which.

    Returns:
        (len(num_steps),) float64.

    Raises:
        ValueError: levels of another number or that do not increase; a start that is zero.
    """
    start = np.asarray(start, dtype=np.float64)
    if not np.any(start):
        raise ValueError("start is 0 throughout; a relative error needs a start that is not zero")
    longest = max(num_steps)
    padded = []
    for count in num_steps:
        sigmas = np.asarray(levels(count), dtype=np.float64)
        check_noise_levels(sigmas)
        if sigmas.shape != (count + 1,):
            raise ValueError(f"levels({count}) has shape {sigmas.shape}; ({count + 1},) is needed for {count} steps")
        # Steps of size 0 at the noise end change nothing, and let one program serve all numbers of steps.
        padded.append(np.concatenate([sigmas, np.full(longest - count, sigmas[-1])]))
    return np.asarray(_relative_errors(predictor, convention, jnp.asarray(np.stack(padded)), jnp.asarray(start)))


def _relative_errors(
    predictor: NoisePredictor, convention: Convention, sigmas: jax.Array, start: jax.Array
) -> jax.Array:
    def one(levels: jax.Array) -> jax.Array:
        return instances.norms(round_trip(at_levels(predictor, levels), levels, start, convention).errors[0])

    return jax.jit(jax.vmap(one))(sigmas) / instances.norms(start)


def _simulate(instance: Instance) -> RoundTrip:
    def predict(state: jax.Array, sigma: jax.Array) -> jax.Array:
        return sigma / (instance["variance"] + sigma**2) * state

    return round_trip(
        at_levels(predict, instance["sigmas"]),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _closed_form(instance: Instance):
    return _standard_normal_error(instance["sigmas"], jnp) * instances.norms(instance["start"])


def _leading_term(instance: Instance):
    return standard_normal_bound(instance["sigmas"]) * instances.norms(instance["start"])


def _lower_sine(instance: Instance):
    sigmas = instance["sigmas"]
    lower, upper = sigmas[:-1], sigmas[1:]
    shares = _step_losses(sigmas, jnp) * (lower / jnp.sqrt(1 + lower**2)) / (upper / jnp.sqrt(1 + upper**2))
    return -jnp.expm1(jnp.sum(jnp.log1p(-shares))) * instances.norms(instance["start"])


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 4)
    return {
        "first_angle": jax.random.normal(keys[0]),
        "increments": jax.random.normal(keys[1], (num_steps,)),
        "last_angle": jax.random.normal(keys[2]),
        "start": jax.random.normal(keys[3], (DIMENSION,)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Angles from theta_0 <= 0.1 to theta_N in [1, 1.4], steps within a factor of e^2, a start on the unit circle."""
    shares = instances.bounded_exp(parameters["increments"], 1.0)
    first = 0.1 * jnp.sin(parameters["first_angle"]) ** 2
    last = 1 + (LARGEST_ANGLE - 1) * jnp.sin(parameters["last_angle"]) ** 2
    angles = first + (last - first) * jnp.concatenate([jnp.zeros(1), jnp.cumsum(shares) / jnp.sum(shares)])
    start = parameters["start"] + jnp.asarray([1e-3, 0.0])
    return {
        "sigmas": jnp.tan(angles),
        "start": start / instances.norms(start),
        "variance": jnp.asarray(1.0),
        "convention": jnp.asarray(int(Convention.T)),
        "start_offset": jnp.zeros(DIMENSION),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of E_0. The states reach 1 / cos(1.4) = 6 and the levels 5.8, so the operands of all steps are
    at most 50 N starts. The angles step by at least 0.9 / (e^2 N), and a_k >= 0.4 delta_k^3 tan theta_k once theta_k >
    1/2: these steps alone lose at least 0.4 * 0.5 * 0.5 * (0.9 / (e^2 N))^2 = 1 / (700 N^2) of the start."""
    return instances.OPERATIONS_PER_STEP * 50 * num_steps * 700 * num_steps**2


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=measure,
    bound=_closed_form,
    operations=_operations,
)


def witness(*, num_steps: int) -> Instance:
    """Uniform angles from 0 to 1.4."""
    return {
        "sigmas": jnp.tan(jnp.linspace(0.0, LARGEST_ANGLE, num_steps + 1)),
        "start": jnp.asarray([0.6, 0.8]),
        "variance": jnp.asarray(1.0),
        "convention": jnp.asarray(int(Convention.T)),
        "start_offset": jnp.zeros(DIMENSION),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    return {
        "first_angle": jnp.asarray(0.0),
        "increments": jnp.zeros(num_steps),
        "last_angle": jnp.asarray(jnp.pi / 2),
        "start": witness(num_steps=num_steps)["start"] - jnp.asarray([1e-3, 0.0]),
    }


def _broken(label: str, **changes: Any) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(
        dict(witness(**dict(size))) | {name: jnp.asarray(value) for name, value in changes.items()}, size, label
    )


def _on_the_standard_normal(evidence: Evidence) -> Sequence[Outcome]:
    """The real clip's latents on the real schedule, with the exact predictor of the standard normal, which is the data
    that a pipeline's latents are scaled to; a network's order is measured, not proved."""
    outcomes = []
    for record in evidence.round_trips:
        sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
        start = (record.inversion[0] / np.sqrt(record.alphas_cumprod[0])).reshape(-1)
        instance = {
            "sigmas": jnp.asarray(sigmas),
            "start": jnp.asarray(start, dtype=jnp.float64),
            "variance": jnp.asarray(1.0),
            "convention": jnp.asarray(int(Convention.T)),
            "start_offset": jnp.zeros(start.size),
        }
        measured, error = float(measure(instance)), float(_standard_normal_error(jnp.asarray(sigmas), jnp))
        # States reach sqrt(1 + sigma_N^2) starts, and the error is this share of one.
        roundings = instances.OPERATIONS_PER_STEP * len(sigmas) * 8 * (1 + sigmas[-1] ** 2) / error + start.size
        outcomes.append(
            Outcome(
                f"{record.label}: its latents, data N(0, I)",
                measured,
                error * float(np.linalg.norm(start)),
                relative_budget(int(np.ceil(roundings))),
            )
        )
    return outcomes


def _refinement(evidence: Evidence) -> Sequence[Outcome]:
    """The relative error of the first frame at each number of steps against that at the next smaller number."""
    trips = [*evidence.refined_trips, *evidence.round_trips[:1]]
    found = []
    for record in trips:
        trip = recorded.first_frame(record)
        found.append(
            (len(trip.sigmas) - 1, float(np.linalg.norm(trip.errors[0]) / np.linalg.norm(trip.inversion[0])), record)
        )
    found.sort(key=lambda entry: entry[0])
    return [
        Outcome(f"{fewer} to {more} steps", error, before, recorded.recorded_budget(record.inversion[0, 0].size))
        for (fewer, before, _), (more, error, record) in zip(found[:-1], found[1:])
    ]


CLAIM = Claim(
    id="C3.order",
    title="Inversion is of second order on the standard normal under diffusers' convention",
    statement=(
        "On data N(0, I) the round trip of diffusers' DDIM inversion multiplies the start by an explicit product that "
        "differs from 1 by half a sum of cubed steps in the angle arctan sigma: second order, where N(0, v I) with "
        "v != 1 and the textbook convention have first."
    ),
    latex=(
        r"\frac{w_0}{y_0} = \prod_k \Bigl(1 - (1 - \cos\delta_k)\sin\delta_k "
        r"\tfrac{\sin\theta_{k+1}}{\cos\theta_k}\Bigr),\quad \sigma_k = \tan\theta_k,\ "
        r"\delta_k = \theta_{k+1} - \theta_k"
    ),
    hypotheses=(
        Hypothesis("H1", "The data are N(0, I)."),
        Hypothesis(
            "H2", "The inversion evaluates the lower latent with the timestep of the upper level (convention T)."
        ),
        Hypothesis("H3", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.IDENTITY,
    origin="not in the paper",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="norm of the start times 1 minus the product, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={
        "H1": lambda: _broken("data N(0, I / 4)", variance=0.25),
        "H2": lambda: _broken("convention S", convention=int(Convention.S)),
        "H3": lambda: _broken("sampling starts elsewhere", start_offset=[-1.0, -1.0]),
    },
    planted={
        "half the sum of delta^4": lambda instance: (
            _leading_term(instance) * jnp.max(jnp.diff(jnp.arctan(instance["sigmas"])))
        ),
        "a third of the sum for a half": lambda instance: _leading_term(instance) * 2 / 3,
        "the product without its last factor": lambda instance: (
            _standard_normal_error(instance["sigmas"][:-1], jnp) * instances.norms(instance["start"])
        ),
        "the sine of the lower angle": _lower_sine,
    },
    reality=(
        Comparison(
            question=(
                "More steps lower the network's round-trip error, adapter off, first frame, relative to the frame: "
                "the error at each number of steps against that at the next smaller one"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_refinement,
        ),
        Comparison(
            question=(
                "The clip's latents on its schedule as if their data were N(0, I): round-trip error against the product"
            ),
            origin=Origin.CONSTRUCTED,
            tells=Tells.IMPLIED,
            compare=_on_the_standard_normal,
            because="the theorem, since the predictor is the exact score of N(0, I)",
        ),
    ),
    lemmas=("Tweedie's formula",),
    floor=1 - 1e-6,
    floor_reason="both sides are one number; what is left below 1 is rounding, in units of a small error",
)
