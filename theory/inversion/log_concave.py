r"""Log-concave data: sampling steps of any size are non-expansive, and the round-trip error has no exponential.

Statement. Let e be the exact noise predictor of data with density p_0, -grad^2 log p_0 >= m I with m >= 0. Then for
every step size

    0 \le I - h_k \nabla e_{k+1} \le \rho_k I, \qquad
    \rho_k = 1 - \frac{h_k m \sigma_{k+1}}{1 + m \sigma_{k+1}^2} \le 1,

and the round-trip error of DDIM inversion, under any convention, is at most

    \|E_0\| \le \sum_k \|d_k\| \prod_{j<k} \rho_j \le \sum_k \|d_k\|.

Hypotheses.
    H1  The data are log-concave: -grad^2 log p_0 >= m I with m >= 0.
    H2  The predictor that samples is their exact score, e = -sigma grad log p_sigma.
    H3  The noise levels increase from the data to the noise.
    H4  Sampling starts where the inversion ended.

**Attained** by N(mu, I / m) from every start under convention S, where d_k = h_k^2 (z_k - mu) / (m v_k v_{k+1}),
v_k = 1 / m + sigma_k^2, point one way and every step contracts by exactly rho_k. For m -> 0 the sum of the defects
itself is approached.

In the paper: not there; it is the structure under which claim C3 holds without an exponential. Proof: paper_notes.md,
section C3.log-concave.
"""

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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence, RoundTripRecord
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention, RoundTrip, round_trip
from theory.inversion.growth import round_trip_bound
from theory.inversion.predictors import at_levels, paired_predictor
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, noise_levels
from theory.rounding import relative_budget

DIMENSION = instances.DIMENSION
VARIANCE_FLOOR = 1e-2
"""Share of the mean variance added to each coordinate of a Gaussian fitted to a few frames, since some pixels do not
change at all."""


def log_concave_growth(sigmas: Any, log_concavity: Any) -> Any:
    """The factor by which each sampling step contracts at least, on the exact score of data with -grad^2 log p_0 >= m
    I.

        rho_k = 1 - h_k m sigma_{k+1} / (1 + m sigma_{k+1}^2)

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        log_concavity: m >= 0; 0 for data that are log-concave and no more.

    Returns:
        (num_steps,) float64 in [0, 1], of the same kind; to be passed to `round_trip_bound`.

    Raises:
        ValueError: noise levels that do not increase; m negative, NaN or infinite.

    Source: paper_notes.md, C3.log-concave.
    """
    check_noise_levels(sigmas)
    sigmas, _ = as_vector("noise levels", sigmas)
    if not is_traced(log_concavity) and not (np.isfinite(log_concavity) and log_concavity >= 0):
        raise ValueError(
            f"log_concavity = {log_concavity}; a finite number >= 0 is needed: for data that are not log-concave use "
            "round_trip.step_growth"
        )
    upper = sigmas[1:]
    return 1 - (upper - sigmas[:-1]) * log_concavity * upper / (1 + log_concavity * upper**2)


def log_concavity_of_pair(half_distances: Any, stds: Any) -> Any:
    """The largest m with -grad^2 log p_0 >= m I for the data of `paired_predictor`; negative if they are not
    log-concave.

        m = min over axes of (1 - (a / s)^2) / s^2
    """
    return ((1 - (half_distances / stds) ** 2) / stds**2).min()


def data_round_trip(instance: Instance) -> RoundTrip:
    """The round trip on the exact score of the instance's data, multiplied by its `scale` (1 under the hypotheses)."""
    exact = paired_predictor(instance["half_distances"], instance["stds"], instance["axes"])
    predict = at_levels(lambda state, sigma: instance["scale"] * exact(state, sigma), instance["sigmas"])
    return round_trip(
        predict, instance["sigmas"], instance["start"], instance["convention"], start_offset=instance["start_offset"]
    )


def defect_norms(instance: Instance):
    """||d_k|| with the roundings of the step added, (N,)."""
    trip = data_round_trip(instance)
    variances = instance["stds"][None, :] ** 2 + instance["sigmas"][1:, None] ** 2
    slopes = instance["sigmas"][1:, None] / variances
    roundings = instances.rounding_defects(
        trip,
        instance["scale"] * slopes.max(axis=1),
        instance["scale"] * instances.norms(slopes * instance["half_distances"][None, :]),
    )
    return instances.norms(trip.defects) + roundings


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(data_round_trip(instance).errors[0])


def _bound(instance: Instance):
    return round_trip_bound(defect_norms(instance), log_concave_growth(instance["sigmas"], instance["log_concavity"]))


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 8)
    # Nearly Gaussian, nearly flat data are extreme: as likely as clearly bimodal-looking ones.
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.0)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "start": jax.random.normal(keys[3], (DIMENSION,)),
        "convention": instances.draw_convention(keys[4]),
        "pairing": spread * jax.random.normal(keys[5], (DIMENSION,)),
        "log_std": jax.random.normal(keys[6]) + spread * jax.random.normal(keys[7], (DIMENSION,)),
        "angle": 3 * jax.random.normal(keys[7]),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Pairs of Gaussians closer than two standard deviations, where their mixture is log-concave; pairing 0 is a
    Gaussian."""
    stds = instances.bounded_exp(parameters["log_std"], 3.0)
    half_distances = stds * jnp.sin(parameters["pairing"]) ** 2
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": instances.convention(parameters["convention"]),
        "start_offset": jnp.zeros(DIMENSION),
        "half_distances": half_distances,
        "stds": stds,
        "axes": instances.rotations(parameters["angle"]),
        "scale": jnp.asarray(1.0),
        # The least of numbers that are at least 0 up to rounding, where the pair stands exactly two standard deviations
        # apart.
        "log_concavity": jnp.maximum(log_concavity_of_pair(half_distances, stds), 0.0),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings of a round trip, in units of the round-trip error of the witness.

    A step's operands are at most 4 states and a prediction of which the step takes less than a state: 6 z_N. On N(0, I)
    with steps of h = 1 / 2 its defect is h^2 z_k / (v_k v_{k+1}) >= h^2 z_0 / (1 + sigma_N^2)^2, while z_N <= z_0
    sqrt(1 + sigma_N^2) e^h; the error is the sum of the defects, of which the first alone, contracted by nothing, is
    h^2 z_0 / v_1 = z_0 / 5. So all N steps together are conditioned 6 N * 5 * 2 (1 + N / 2).
    """
    return instances.OPERATIONS_PER_STEP * 60 * num_steps * (1 + num_steps)


PROBLEM = Problem(
    sizes=instances.SIZES, draw=_draw, instance=_instance, measured=measure, bound=_bound, operations=_operations
)


def witness(*, num_steps: int) -> Instance:
    """N(0, I) under convention S, on levels 0, 1/2, 1, .."""
    return {
        "sigmas": jnp.arange(num_steps + 1) / 2,
        "start": jnp.ones(DIMENSION),
        "convention": jnp.asarray(int(Convention.S)),
        "start_offset": jnp.zeros(DIMENSION),
        "half_distances": jnp.zeros(DIMENSION),
        "stds": jnp.ones(DIMENSION),
        "axes": jnp.eye(DIMENSION),
        "scale": jnp.asarray(1.0),
        "log_concavity": jnp.asarray(1.0),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        **instances.level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.S),
        "pairing": jnp.zeros(DIMENSION),
        "log_std": jnp.zeros(DIMENSION),
        "angle": jnp.asarray(0.0),
    }


def _broken(label: str, **changes: Any) -> Outcome:
    size = instances.SIZES[1]
    changed = {name: jnp.asarray(value) for name, value in changes.items()}
    return PROBLEM.outcome(dict(witness(**dict(size))) | changed, size, label)


def _two_clusters() -> Outcome:
    """Two clusters far apart, started between them: at the ridge the sampling flow separates what lies close."""
    return _broken(
        "clusters at +-1 of width 0.1",
        half_distances=[1.0, 0.0],
        stds=[0.1, 0.1],
        start=[0.5, 0.0],
        log_concavity=0.0,
        sigmas=np.linspace(0.0, 1.5, 9),
    )


def _scaled_score() -> Outcome:
    """Eight times the exact score, as strong guidance would have it: long steps overshoot and expand."""
    return _broken("eight times the score", scale=8.0, sigmas=[1.0, 5.0, 9.0])


def _falling_levels() -> Outcome:
    """A step to a higher noise level expands, and by more than rho_k where an axis is narrower than m says."""
    return _broken("noise levels that decrease", sigmas=np.linspace(4.0, 1.0, 9), stds=[0.5, 0.5])


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", start_offset=[10.0, 10.0])


def _next_level(instance: Instance):
    sigmas, m = instance["sigmas"], instance["log_concavity"]
    growth = 1 - (sigmas[1:] - sigmas[:-1]) * m * sigmas[1:] / (1 + m * sigmas[:-1] ** 2)
    return round_trip_bound(defect_norms(instance), growth)


def _unsmoothed(instance: Instance):
    sigmas, m = instance["sigmas"], instance["log_concavity"]
    return round_trip_bound(defect_norms(instance), 1 / (1 + (sigmas[1:] - sigmas[:-1]) * m * sigmas[1:]))


def _own_step_too(instance: Instance):
    growth = log_concave_growth(instance["sigmas"], instance["log_concavity"])
    return round_trip_bound(defect_norms(instance) * growth, growth)


def _largest_term(instance: Instance):
    growth = log_concave_growth(instance["sigmas"], instance["log_concavity"])
    return jnp.max(defect_norms(instance) * jnp.concatenate([jnp.ones(1), jnp.cumprod(growth[:-1])]))


def fitted_gaussian(record: RoundTripRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The record's clean latents as states y_0, and the mean and per-coordinate variances of a Gaussian fitted to its
    frames.

    Returns:
        states (frames, dimension), mean (dimension,), variances (dimension,).
    """
    latents = np.asarray(record.inversion[0], dtype=np.float64) / np.sqrt(record.alphas_cumprod[0])
    states = latents.reshape(len(latents), -1)
    variances = states.var(axis=0)
    return (
        states,
        states.mean(axis=0),
        variances + VARIANCE_FLOOR * max(float(variances.mean()), np.finfo(np.float64).tiny),
    )


def fitted_gaussian_outcomes(
    evidence: Evidence, bound: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
) -> list[Outcome]:
    """Round trips of the real clip on the real schedule with the exact predictor of a Gaussian fitted to its frames.

    A network is no exact score, so this tests a bound on exact scores at real sizes and says nothing of the network.

    Args:
        bound: of sigmas (N + 1,), ||d_k|| with roundings added (N,) and the Gaussian's variances (dimension,).
    """
    outcomes = []
    for record in evidence.round_trips:
        sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
        levels = jnp.asarray(sigmas)
        states, mean, variances = fitted_gaussian(record)
        num_frames = len(states)
        centre, spread = jnp.asarray(np.tile(mean, num_frames)), jnp.asarray(np.tile(variances, num_frames))

        def predict(state, level, levels=levels, centre=centre, spread=spread):
            return levels[level] / (spread + levels[level] ** 2) * (state - centre)

        trip = round_trip(predict, levels, jnp.asarray(states.reshape(-1)), Convention.T)
        slopes = sigmas[1:] / (variances.min() + sigmas[1:] ** 2)
        roundings = instances.rounding_defects(trip, slopes, slopes * np.linalg.norm(centre))
        outcomes.append(
            Outcome(
                f"{record.label}: Gaussian fitted to its frames",
                float(instances.norms(trip.errors[0])),
                bound(sigmas, np.asarray(instances.norms(trip.defects) + roundings), variances),
                relative_budget(instances.OPERATIONS_PER_STEP * (len(sigmas) + states.size)),
            )
        )
    return outcomes


def _with_fitted_gaussian(evidence: Evidence) -> Sequence[Outcome]:
    """The real clip on the real schedule, with the exact predictor of a Gaussian fitted to its frames."""

    def bound(sigmas: np.ndarray, defects: np.ndarray, variances: np.ndarray) -> float:
        return float(round_trip_bound(defects, log_concave_growth(sigmas, float(1 / variances.max()))))

    return fitted_gaussian_outcomes(evidence, bound)


def _errors_shrink(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.round_trips:
        trip = recorded.first_frame(record)
        for step in range(len(trip.sigmas) - 1):
            growth = recorded.growth_of_error(trip, step)
            if growth is not None:
                label = f"{record.label}, level {step + 1}"
                outcomes.append(Outcome(label, growth, 1.0, recorded.recorded_budget(trip.errors.shape[1])))
    return outcomes


@recorded.at_every_level
def _pairs_do_not_separate(record, found, trip):
    return (found.stretched, 1.0) if trip.sigmas[found.step + 1] >= 1 else None


CLAIM = Claim(
    id="C3.log-concave",
    title="No exponential on log-concave data",
    statement=(
        "With the exact score of log-concave data every sampling step is non-expansive, however long, so the "
        "round-trip error is at most the sum of the one-step defects; data that are m-strongly log-concave contract by "
        "rho_k at every step besides."
    ),
    latex=(
        r"\|E_0\| \le \sum_k \|d_k\| \prod_{j<k} \rho_j,\quad \rho_k = 1 - \frac{h_k m \sigma_{k+1}}{1 + m "
        r"\sigma_{k+1}^2} \le 1"
    ),
    hypotheses=(
        Hypothesis("H1", "The data are log-concave: -grad^2 log p_0 >= m I with m >= 0."),
        Hypothesis("H2", "The predictor that samples is their exact score."),
        Hypothesis("H3", "The noise levels increase from the data to the noise."),
        Hypothesis("H4", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; repairs claim C3",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="one-step defects, each contracted by the steps that it still passes, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _two_clusters, "H2": _scaled_score, "H3": _falling_levels, "H4": _other_start},
    planted={
        "1 + m sigma_k^2 for 1 + m sigma_{k+1}^2": _next_level,
        "curvature of the data for that of the smoothed data": _unsmoothed,
        "product over j <= k": _own_step_too,
        "the largest term for the sum": _largest_term,
    },
    reality=(
        Comparison(
            question=(
                "No sampling step of the network grows the recorded error, first frame, as none does with the exact "
                "score of log-concave data: growth of each step against 1"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_errors_shrink,
        ),
        Comparison(
            question=(
                "Where the noise level is at least 1, no recorded pair of states is moved apart by a sampling step of "
                "the network: the largest stretch found against 1"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_pairs_do_not_separate,
        ),
        Comparison(
            question=(
                "The clip on its schedule with the exact score of a Gaussian fitted to its frames: round-trip error "
                "against the contracted sum of defects"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_with_fitted_gaussian,
            because="the theorem, since a Gaussian is log-concave and the predictor its exact score",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("Brascamp-Lieb inequality", "Tweedie's formula"),
    floor=0.999,
    floor_reason=(
        "attained by Gaussian data under convention S only, whose axes the ascent has to make equally wide or align "
        "with the start"
    ),
)
