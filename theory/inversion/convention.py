r"""What diffusers' DDIMInverseScheduler computes: one explicit Euler step under convention T, and no other.

Statement. For any noise predictor eps, with abar_k the value of alphas_cumprod at level k, the step of the scheduler,

    \hat x_0 = (x_k - \sqrt{1 - \bar\alpha_k}\, \epsilon) / \sqrt{\bar\alpha_k}, \qquad
    x_{k+1} = \sqrt{\bar\alpha_{k+1}}\, \hat x_0 + \sqrt{1 - \bar\alpha_{k+1}}\, \epsilon,
    \qquad \epsilon = \epsilon(x_k, t_{k+1}),

is y_{k+1} = y_k + (sigma_{k+1} - sigma_k) e_{k+1}(y_k sqrt((1 + sigma_{k+1}^2) / (1 + sigma_k^2))) in the variables
y = x / sqrt(abar). On data N(mu, diag(lambda)) this has a closed form,

    y_{k+1} = y_k + (\sigma_{k+1} - \sigma_k) \frac{\sigma_{k+1}}{\lambda + \sigma_{k+1}^2}
              \Bigl( y_k \sqrt{\tfrac{1 + \sigma_{k+1}^2}{1 + \sigma_k^2}} - \mu \Bigr),

to which the scheduler is compared one step at a time: a round trip closes whatever the schedule is.

Hypotheses.
    H1  0 < abar_{k+1} < abar_k <= 1.
    H2  The predictor is evaluated at the lower state with the timestep of the upper level, as diffusers' pipelines do.
    H3  The network predicts the noise ("epsilon").
    H4  The predicted sample is neither clipped nor thresholded.

**Identity**: both sides agree on every instance.

In the paper: the inversion procedure of claim C3, by diffusers in the companion code. Proof: paper_notes.md, section
C3.convention.
"""

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
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention
from theory.inversion.schedule import noise_levels
from theory.rounding import relative_budget

SIZES: tuple[Size, ...] = ((("num_steps", 1),), (("num_steps", 5),))
DIMENSION = 3

NO_CLIPPING = 1e300
STEP_OPERATIONS = 128
"""Roundings of one step, in units of its result.

The longest chain of the scheduler's formula, the predictor in it included, has some 16 roundings. Its operands are y_k,
sigma_k eps and sigma_{k+1} eps, its result is y_k + (sigma_{k+1} - sigma_k) eps with both terms of one sign. For mu = 0
the operands are at most 4 times the result: if sigma_k <= sigma_{k+1} / 2, then sigma_k + sigma_{k+1} <= 3 (sigma_{k+1}
- sigma_k); else sigma_{k+1} |eps| <= |y_k| sqrt((1 + sigma_{k+1}^2) / (1 + sigma_k^2)) <= 2 |y_k|. A mean across the
origin, no further from it than the state, at most doubles eps: 8 times the result, and 16 * 8 = 128.
"""


def scheduler_step(state, prediction, alphas_cumprod_from, alphas_cumprod_to, clip_range=np.inf):
    """One step of diffusers' DDIM schedulers (eta = 0) between two levels, in the order of its own operations.

        x_0 = (x - sqrt(1 - abar_from) eps) / sqrt(abar_from),   x' = sqrt(abar_to) clip(x_0) + sqrt(1 - abar_to) eps

    Source: arXiv 2010.02502, equation (12); diffusers, DDIMScheduler.step and DDIMInverseScheduler.step.
    """
    clean = (state - (1 - alphas_cumprod_from) ** 0.5 * prediction) / alphas_cumprod_from**0.5
    return alphas_cumprod_to**0.5 * clean.clip(-clip_range, clip_range) + (1 - alphas_cumprod_to) ** 0.5 * prediction


def gaussian_step(
    state, mean, variances, sigma_from, sigma_to, convention: Convention = Convention.T, power: float = 0.5
):
    """The closed form of one inversion step on data N(mean, diag(variances)), in the variables y.

    Args:
        state, mean, variances: (dimension,) y_k, mu and lambda.
        sigma_from, sigma_to: sigma_k and sigma_{k+1}.
        convention: T is the statement; S and Y are what it is not.
        power: of the ratio of the scales under T; other than 1/2 only to plant an error.
    """
    level = sigma_from if convention == Convention.S else sigma_to
    ratio = ((1 + sigma_to**2) / (1 + sigma_from**2)) ** power if convention == Convention.T else 1.0
    return state + (sigma_to - sigma_from) * level / (variances + level**2) * (ratio * state - mean)


def _predict_latent(latent, alphas_cumprod, mean, variances):
    """eps(x, t) of data N(mean, diag(variances)), from the latent itself: sqrt(1 - abar) (x - sqrt(abar) mu) / (abar
    lambda + 1 - abar)."""
    noise = 1 - alphas_cumprod
    return noise**0.5 * (latent - alphas_cumprod**0.5 * mean) / (alphas_cumprod * variances + noise)


def _scheduled(instance: Instance):
    """||x_N|| after the scheduler's steps, the predictor evaluated where the instance says."""
    abar, evaluated = instance["alphas_cumprod"], instance["evaluated_alphas_cumprod"]
    latent = abar[0] ** 0.5 * instance["start"]
    for step in range(abar.shape[0] - 1):
        prediction = _predict_latent(latent, evaluated[step], instance["mean"], instance["variances"])
        # A network that predicts v: the inverse scheduler converts it at the lower level, though it was evaluated at
        # the upper one.
        clean = (latent - (1 - evaluated[step]) ** 0.5 * prediction) / evaluated[step] ** 0.5
        velocity = evaluated[step] ** 0.5 * prediction - (1 - evaluated[step]) ** 0.5 * clean
        converted = abar[step] ** 0.5 * velocity + (1 - abar[step]) ** 0.5 * latent
        prediction = jnp.where(instance["predicts_velocity"], converted, prediction)
        latent = scheduler_step(latent, prediction, abar[step], abar[step + 1], instance["clip_range"])
    return instances.norms(latent)


def _closed_form(instance: Instance, convention: Convention = Convention.T, power: float = 0.5):
    """||x_N|| by the closed form."""
    abar = instance["alphas_cumprod"]
    sigmas = ((1 - abar) / abar) ** 0.5
    state = instance["start"]
    for step in range(abar.shape[0] - 1):
        state = gaussian_step(
            state, instance["mean"], instance["variances"], sigmas[step], sigmas[step + 1], convention, power
        )
    return abar[-1] ** 0.5 * instances.norms(state)


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 5)
    return {
        "first_level": jax.random.normal(keys[0]),
        "increments": jax.random.normal(keys[1], (num_steps,)),
        "start": jax.random.normal(keys[2], (DIMENSION,)),
        "mean": jax.random.normal(keys[3], (DIMENSION,)),
        "log_std": jax.random.normal(keys[4], (DIMENSION,)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Levels in (0, 1], and a mean on the other side of the origin than the state, so that no step subtracts two like
    terms."""
    sigmas = instances.increasing_levels(parameters["first_level"], parameters["increments"])
    abar = 1 / (1 + sigmas**2)
    start = parameters["start"]
    return {
        "alphas_cumprod": abar,
        "evaluated_alphas_cumprod": abar[1:],
        "start": start,
        "mean": -start * jnp.sin(parameters["mean"]) ** 2,
        "variances": instances.bounded_exp(2 * parameters["log_std"], 4.0),
        "predicts_velocity": jnp.asarray(False),
        "clip_range": jnp.asarray(NO_CLIPPING),
    }


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_scheduled,
    bound=_closed_form,
    operations=lambda *, num_steps: 2 * STEP_OPERATIONS * num_steps,
)


def witness(*, num_steps: int) -> Instance:
    """Gaussian data of three variances, on levels 0, 1/2, 1, .."""
    sigmas = jnp.arange(num_steps + 1) / 2
    abar = 1 / (1 + sigmas**2)
    return {
        "alphas_cumprod": abar,
        "evaluated_alphas_cumprod": abar[1:],
        "start": jnp.ones(DIMENSION),
        "mean": jnp.zeros(DIMENSION),
        "variances": jnp.asarray([0.25, 1.0, 4.0]),
        "predicts_velocity": jnp.asarray(False),
        "clip_range": jnp.asarray(NO_CLIPPING),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        "first_level": jnp.asarray(0.0),
        "increments": instances.bounded_log(jnp.full(num_steps, 0.5), 2.0),
        "start": instance["start"],
        "mean": jnp.zeros(DIMENSION),
        "log_std": instances.bounded_log(instance["variances"], 4.0) / 2,
    }


def _broken(label: str, **changes) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(
        dict(witness(**dict(size))) | {name: jnp.asarray(value) for name, value in changes.items()}, size, label
    )


_FAR_LEVELS = 1 / (1 + np.asarray([2.0, 3.0]) ** 2)


def _evaluated_below() -> Outcome:
    return _broken(
        "timestep of the lower level",
        alphas_cumprod=_FAR_LEVELS,
        evaluated_alphas_cumprod=_FAR_LEVELS[:1],
        variances=np.full(DIMENSION, 0.25),
    )


def _velocity() -> Outcome:
    return _broken(
        "v-prediction",
        alphas_cumprod=_FAR_LEVELS,
        evaluated_alphas_cumprod=_FAR_LEVELS[1:],
        mean=np.full(DIMENSION, -10.0),
        predicts_velocity=True,
    )


def _clipped() -> Outcome:
    # Far below the data's mean the step subtracts noise from a large predicted sample; clipping keeps the noise only.
    return _broken(
        "clip_sample",
        alphas_cumprod=_FAR_LEVELS,
        evaluated_alphas_cumprod=_FAR_LEVELS[1:],
        mean=np.full(DIMENSION, 10.0),
        variances=np.ones(DIMENSION),
        clip_range=1.0,
    )


def _scheduler_steps(evidence: Evidence) -> Sequence[Outcome]:
    """Each recorded step of either scheduler against the closed form, to the rounding of its own operands."""
    outcomes = []
    for record in evidence.round_trips:
        sigmas = noise_levels(record.alphas_cumprod)
        roots = np.sqrt(record.alphas_cumprod)
        step_sizes = np.diff(sigmas)
        for name, states, predictions in (
            ("inversion", record.inversion, record.inversion_predictions),
            ("sampling", record.sampling, record.sampling_predictions),
        ):
            shape = (-1, *[1] * (states.ndim - 1))
            levels = states / np.reshape(roots, shape)
            moves = np.reshape(step_sizes, shape) * predictions
            deviation = levels[1:] - levels[:-1] - moves
            operands = (
                np.abs(levels[1:])
                + np.abs(levels[:-1])
                + np.reshape(sigmas[1:] + sigmas[:-1], shape) * np.abs(predictions)
            )
            axes = tuple(range(1, states.ndim))
            measured = np.sqrt(np.sum(deviation**2, axis=axes))
            rounding = relative_budget(STEP_OPERATIONS) * np.sqrt(np.sum(operands**2, axis=axes))
            step = int(np.argmax(measured / rounding))
            outcomes.append(
                Outcome(
                    f"{record.label}: {name}, step {step}, against rounding",
                    float(measured[step]),
                    float(rounding[step]),
                    relative_budget(states[0].size),
                )
            )
    return outcomes


@recorded.at_every_level
def _same_timestep(record, found, trip):
    if "sampling only" in record.trip:  # there the two evaluations are by two networks
        return None
    lower, upper = trip.sigmas[found.step], trip.sigmas[found.step + 1]
    seen = np.sqrt((1 + upper**2) / (1 + lower**2)) * trip.inversion[found.step]
    change = np.linalg.norm(trip.defects[found.step])
    return change / np.linalg.norm(trip.inversion[found.step + 1] - seen), found.steepest


CLAIM = Claim(
    id="C3.convention",
    title="diffusers' inverse DDIM step in closed form",
    statement=(
        "The step of diffusers' DDIMInverseScheduler is one explicit Euler step of the DDIM equation that evaluates "
        "the network at the lower latent with the timestep of the upper level (convention T); on Gaussian data it has "
        "a closed form."
    ),
    latex=(
        r"y_{k+1} = y_k + (\sigma_{k+1} - \sigma_k)\, e_{k+1}\!\left(y_k "
        r"\sqrt{\tfrac{1+\sigma_{k+1}^2}{1+\sigma_k^2}}\right)"
    ),
    hypotheses=(
        Hypothesis("H1", "0 < alphas_cumprod[k+1] < alphas_cumprod[k] <= 1."),
        Hypothesis("H2", "The predictor is evaluated at the lower state with the timestep of the upper level."),
        Hypothesis("H3", "The network predicts the noise (epsilon prediction)."),
        Hypothesis("H4", "The predicted sample is neither clipped nor thresholded."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.IDENTITY,
    origin="the inversion procedure of claim C3, as diffusers implements it",
    measured_in_words="norm of the latent after the scheduler's steps, evaluated in the order of its own operations",
    bound_in_words="norm of the latent by the closed form",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H2": _evaluated_below, "H3": _velocity, "H4": _clipped},
    definitional={"H1": "outside (0, 1] there is no noise level, and levels that do not increase make no inversion"},
    planted={
        "convention S": lambda instance: _closed_form(instance, Convention.S),
        "convention Y": lambda instance: _closed_form(instance, Convention.Y),
        "the ratio of the scales turned over": lambda instance: _closed_form(instance, power=-0.5),
        "the fourth root for the root": lambda instance: _closed_form(instance, power=0.25),
    },
    reality=(
        Comparison(
            question=(
                "Under convention T a defect is the predictor's change between two states at ONE timestep: the defect "
                "over their distance, first frame, against the steepest pair of states sought at that timestep"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_same_timestep,
        ),
        Comparison(
            question=(
                "Every recorded step of diffusers' two schedulers against an Euler step with the recorded prediction, "
                "to rounding"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_scheduler_steps,
        ),
    ),
    lemmas=("Tweedie's formula",),
    floor=1 - 1e-9,
    floor_reason="both sides are one number; what is left below 1 is rounding",
)
