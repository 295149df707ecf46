r"""Bound B2: the tube of smoothed clusters, whose curvature is known, so that nothing has to be estimated.

Statement. Let the data be nu * N(0, s^2 I) with nu supported in a ball of radius R, let e be their exact predictor, v =
s^2 + sigma_{k+1}^2, C the largest eigenvalue of the covariance of nu's point given z_{k+1}, and \|E_{k+1}\| <= r. Then
the average \bar A of the Jacobian over the segment from z_{k+1} to w_{k+1} satisfies

    0 \le I - h_k \bar A \le \gamma(r) I, \qquad
    \gamma(r) = 1 - \frac{h_k \sigma_{k+1}}{v} \Bigl(1 - \frac{1}{v} \min\bigl(R^2,\ \varphi(x) C,\
                C + \tfrac{K r}{2 v}\bigr)\Bigr),
    \quad x = \frac{2 R r}{v},\ \varphi(x) = \frac{e^x - 1}{x},\ K = \frac{(2R)^3}{6 \sqrt 3},

and the radii r_N = 0, r_k = gamma_k(r_{k+1}) r_{k+1} + ||d_k|| hold the sampling: ||E_k|| <= r_k. K is the largest
third central moment that a variable on an interval of length 2 R can have, and M = sigma K / v^3 is the least
Lipschitz constant of the Jacobian that serves all such data: with it C3.tube is a theorem about these predictors.

Hypotheses.
    H1  nu is supported in a ball of radius R.
    H2  The predictor that samples is the exact score of nu * N(0, s^2 I).
    H3  The noise levels increase from the data to the noise.
    H4  Sampling starts where the inversion ended.

**Attained** under convention S by every Gaussian (R = 0); and reached, where the growth exceeds 1, by two clusters at
+-R in the limit of starts close to the middle between them.

In the paper: not there. Proof: paper_notes.md, section C3.mixture-tube.
"""

from collections.abc import Callable, Sequence
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
from theory.inversion import instances, recorded
from theory.inversion.ddim import Convention, RoundTrip, round_trip
from theory.inversion.growth import round_trip_bound
from theory.inversion.predictors import at_levels, mixture_predictor
from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, noise_levels, refuse_first
from theory.rounding import relative_budget

DIMENSION = instances.DIMENSION
SIZES: tuple[Size, ...] = ((("num_steps", 4),),)
LARGEST_DISTANCE = 3.0
"""Clusters up to this many standard deviations from their middle: beyond, the drawn starts never see both."""


def largest_third_moment(radius: Any) -> Any:
    """The largest third central moment of a random variable on an interval of length 2 R.

    K = (2 R)^3 / (6 sqrt 3),   attained by two points with probabilities (1 -+ 1 / sqrt 3) / 2
    """
    return (2 * radius) ** 3 / (6 * 3**0.5)


def jacobian_curvature(sigmas: Any, radius: float, std: float) -> np.ndarray:
    """M, a Lipschitz constant of the Jacobian of the exact predictor, the same on every ball; for `tube_bound`.

        M = sigma K / v^3,   v = std^2 + sigma^2

    Args:
        sigmas: (levels,) noise levels.
        radius: R >= 0, of a ball that holds the clusters' centres.
        std: s >= 0.

    Raises:
        ValueError: a radius or std negative, NaN or infinite; v = 0 at some level.
    """
    variances = _variances(sigmas, radius, std)
    return np.asarray(sigmas, dtype=np.float64) * largest_third_moment(radius) / variances**3


def _variances(sigmas: Any, radius: float, std: float) -> np.ndarray:
    for name, value in (("radius", radius), ("std", std)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value}; a finite number >= 0 is needed")
    variances = std**2 + np.asarray(sigmas, dtype=np.float64) ** 2
    refuse_first("std^2 + sigma^2", variances, variances <= 0, "it must be positive", label="level")
    return variances


def _growth(step_size, sigma, variance, support, covariance, radius, xp):
    """gamma(r) of the statement; `xp` is NumPy or jax.numpy."""
    exponent = 2 * support * radius / variance
    # phi overflows long after R^2 has become the least of the three.
    held = xp.minimum(exponent, 50.0)
    inflation = xp.where(held > 0, xp.expm1(held) / xp.where(held > 0, held, 1.0), 1.0)
    spread = xp.minimum(inflation * covariance, covariance + largest_third_moment(support) * radius / (2 * variance))
    return 1 - step_size * sigma / variance * (1 - xp.minimum(support**2, spread) / variance)


def mixture_tube_bound(sigmas: Any, defects: Any, covariances: Any, radius: float, std: float) -> Any:
    """Radii of balls around the inversion's states that hold the sampling's, for the exact score of smoothed clusters.

        r_N = 0,   r_k = gamma_k(r_{k+1}) r_{k+1} + defects[k]

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        defects: (num_steps,) norms ||d_k||; k = 0 is the step nearest the data.
        covariances: (num_steps,) largest eigenvalue of the covariance of the cluster given z_{k+1}; see
            `posterior_spread`. At most R^2.
        radius: R >= 0, of a ball that holds the clusters' centres.
        std: s >= 0, their standard deviation.

    Returns:
        (num_steps + 1,) float64 radii r_0, .., r_N of the same kind as the defects; r_0 bounds the round-trip error.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ; an entry negative, NaN or infinite; a bound
            above the largest float.

    Source: paper_notes.md, C3.mixture-tube.
    """
    check_noise_levels(sigmas)
    if not is_traced(sigmas, radius, std):
        _variances(sigmas, radius, std)
    sigmas, _ = as_vector("noise levels", sigmas)
    defects, xp = as_vector("defects", defects)
    covariances, _ = as_vector("covariances", covariances)
    num_steps = sigmas.shape[0] - 1
    if not defects.shape == covariances.shape == (num_steps,):
        raise ValueError(
            f"{num_steps} steps, {defects.shape[0]} defects and {covariances.shape[0]} covariances were given; one of "
            "each is needed per step"
        )
    if not is_traced(defects, covariances):
        refuse_first("defect", defects, defects < 0, "a norm is at least 0")
        refuse_first("covariance", covariances, covariances < 0, "an eigenvalue of a covariance is at least 0")
    radii = [0 * defects[0]]
    for step in reversed(range(num_steps)):
        lower, upper = sigmas[step], sigmas[step + 1]
        with np.errstate(over="ignore"):
            growth = _growth(upper - lower, upper, std**2 + upper**2, radius, covariances[step], radii[-1], xp)
            radii.append(growth * radii[-1] + defects[step])
        if not is_traced(radii[-1]) and not np.isfinite(float(radii[-1])):
            raise ValueError(f"the tube's radius at step {step} is above the largest float; take shorter steps")
    return xp.stack(radii[::-1])


def posterior_spread(weights: Any, means: Any, std: float, state: Any, sigma: float) -> float:
    """Largest eigenvalue of the covariance of the cluster's centre given the noisy state.

        sum_i r_i (u_i - m)(u_i - m)^T,   m = sum_i r_i u_i,   r_i ~ weights_i exp(-||y - u_i||^2 / 2 v)

    Args:
        weights: (components,) positive.
        means: (components, dimension).
        std: >= 0.
        state: (dimension,) y.
        sigma: noise level; std^2 + sigma^2 > 0.
    """
    weights, means, state = (np.asarray(value, dtype=np.float64) for value in (weights, means, state))
    logits = np.log(weights) - np.sum((state - means) ** 2, axis=1) / (2 * (std**2 + sigma**2))
    responsibilities = np.exp(logits - logits.max())
    responsibilities /= responsibilities.sum()
    offsets = np.sqrt(responsibilities)[:, None] * (means - responsibilities @ means)
    # The Gram matrix of the offsets has the same nonzero eigenvalues, and a size of components instead of pixels.
    return float(max(np.linalg.eigvalsh(offsets @ offsets.T)[-1], 0.0))


def _pair_tilt(instance: Instance, along: jax.Array, variances: jax.Array) -> jax.Array:
    """tanh of half the log odds of the two clusters, whose product with R is the mean of the posterior."""
    return jnp.tanh(instance["radius"] * along / variances + instance["half_log_odds"])


def _simulate(instance: Instance) -> RoundTrip:
    """Two clusters at +-R along an axis, of unequal weight; the score multiplied by `scale`, 1 under the hypotheses."""
    axis = instance["axis"]

    def predict(state: jax.Array, sigma: jax.Array) -> jax.Array:
        variance = instance["std"] ** 2 + sigma**2
        mean = instance["radius"] * _pair_tilt(instance, jnp.sum(axis * state), variance) * axis
        return instance["scale"] * sigma / variance * (state - mean)

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


def simulated_defects(instance: Instance) -> tuple[RoundTrip, jax.Array]:
    """The round trip of an instance, and ||d_k|| with the roundings of the step added, (N,)."""
    trip = _simulate(instance)
    sigmas, radius = instance["sigmas"], instance["radius"]
    variances = instance["std"] ** 2 + sigmas[1:] ** 2
    slopes = instance["scale"] * sigmas[1:] / variances
    # |tanh(x + b)| <= |x| + |tanh b|: only the second part does not shrink with the state.
    constants = slopes * radius * jnp.abs(jnp.tanh(instance["half_log_odds"]))
    roundings = instances.rounding_defects(trip, slopes * (1 + radius**2 / variances), constants)
    return trip, instances.norms(trip.defects) + roundings


def _radius(instance: Instance, spread_weight: float = 1.0, growth: Callable[..., Any] | None = None):
    trip, defects = simulated_defects(instance)
    sigmas, radius, std = instance["sigmas"], instance["radius"], instance["std"]
    along = trip.inversion[1:] @ instance["axis"]
    covariances = radius**2 * (1 - _pair_tilt(instance, along, std**2 + sigmas[1:] ** 2) ** 2)
    claimed = radius * instance["support_share"]
    if growth is not None:
        return round_trip_bound(defects, growth(sigmas, std**2 + sigmas**2, claimed))
    return mixture_tube_bound(sigmas, defects, spread_weight * covariances, claimed, std)[0]


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 8)
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.0)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "start": jax.random.normal(keys[3], (DIMENSION,)),
        "convention": instances.draw_convention(keys[4]),
        "distance": spread * jax.random.normal(keys[5]),
        "log_std": jax.random.normal(keys[6]),
        "half_log_odds": jax.random.normal(keys[7]),
        "angle": 3 * jax.random.normal(keys[7]),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    std = instances.bounded_exp(parameters["log_std"], 3.0)
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": instances.convention(parameters["convention"]),
        "start_offset": jnp.zeros(DIMENSION),
        "radius": LARGEST_DISTANCE * std * jnp.sin(parameters["distance"]) ** 2,
        "std": std,
        "half_log_odds": 2 * jnp.tanh(parameters["half_log_odds"]),
        "axis": instances.rotations(parameters["angle"])[:, 0],
        "scale": jnp.asarray(1.0),
        "support_share": jnp.asarray(1.0),
    }


def _operations(*, num_steps: int) -> int:
    """Roundings in units of the witness's error: operands are states and predictions of at most 4 starts a step, and
    each of its N defects, of one sign, is at least h^2 / 4 > 1 / 200 of a start; growth acts on both alike."""
    return instances.OPERATIONS_PER_STEP * 4 * 200 * num_steps


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_radius, operations=_operations)


def witness(*, num_steps: int) -> Instance:
    """Clusters at +-1 of width 1/2, started next to their middle, on levels from 1/2 in steps of .15, under convention
    S.

    The distance to the middle is so small that the covariance of the clusters is R^2 to rounding all along.
    """
    return {
        "sigmas": 0.5 + 0.15 * jnp.arange(num_steps + 1),
        "start": jnp.asarray([1e-9, 0.0]),
        "convention": jnp.asarray(int(Convention.S)),
        "start_offset": jnp.zeros(DIMENSION),
        "radius": jnp.asarray(1.0),
        "std": jnp.asarray(0.5),
        "half_log_odds": jnp.asarray(0.0),
        "axis": jnp.asarray([1.0, 0.0]),
        "scale": jnp.asarray(1.0),
        "support_share": jnp.asarray(1.0),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    share = instance["radius"] / (LARGEST_DISTANCE * instance["std"])
    return {
        **instances.level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.S),
        "distance": jnp.arcsin(jnp.sqrt(share)),
        "log_std": instances.bounded_log(instance["std"], 3.0),
        "half_log_odds": jnp.asarray(0.0),
        "angle": jnp.asarray(0.0),
    }


def _broken(label: str, **changes: Any) -> Outcome:
    size = SIZES[0]
    changed = {name: jnp.asarray(value) for name, value in changes.items()}
    return PROBLEM.outcome(dict(witness(**dict(size))) | changed, size, label)


def _wider_support() -> Outcome:
    return _broken("clusters at twice the stated radius", support_share=0.5)


def _scaled_score() -> Outcome:
    return _broken("eight times the score", scale=8.0, sigmas=[1.0, 5.0, 9.0])


def _falling_levels() -> Outcome:
    """Backwards the widest growth is across the clusters' axis, where nothing pulls and h_k < 0 expands."""
    return _broken("noise levels that decrease", sigmas=np.linspace(1.0, 0.5, 5), start=[0.0, 1.0])


def _other_start() -> Outcome:
    return _broken("sampling starts elsewhere", start_offset=[1.0, 0.0])


def _with_clusters_at_the_frames(evidence: Evidence) -> Sequence[Outcome]:
    """The real clip on the real schedule, with the exact predictor of clusters at its own frames: what a network would
    predict that has seen these frames, blurred, and nothing else."""
    outcomes = []
    for record in evidence.round_trips:
        sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
        frames = np.asarray(record.inversion[0], dtype=np.float64) / np.sqrt(record.alphas_cumprod[0])
        frames = frames.reshape(len(frames), -1)
        centred = frames - frames.mean(axis=0)
        support, weights = float(np.linalg.norm(centred, axis=1).max()), np.ones(len(frames))
        std = support / 4
        predict = at_levels(mixture_predictor(weights, centred, std), jnp.asarray(sigmas))
        # Between two frames, where the clusters' pull is the most uneven.
        trip = round_trip(predict, jnp.asarray(sigmas), jnp.asarray(centred[:2].mean(axis=0)), Convention.T)
        states = np.asarray(trip.inversion)[1:]
        covariances = [posterior_spread(weights, centred, std, *pair) for pair in zip(states, sigmas[1:])]
        slopes = sigmas[1:] / (std**2 + sigmas[1:] ** 2)
        roundings = instances.rounding_defects(trip, slopes * (1 + support**2 / std**2), slopes * support)
        defects = np.asarray(instances.norms(trip.defects) + roundings)
        outcomes.append(
            Outcome(
                f"{record.label}: clusters at its frames",
                float(instances.norms(trip.errors[0])),
                float(mixture_tube_bound(sigmas, defects, covariances, support, std)[0]),
                relative_budget(instances.OPERATIONS_PER_STEP * (len(sigmas) + frames.size)),
            )
        )
    return outcomes


@recorded.at_every_level
def _steep_pairs(record, found, trip):
    return found.rising, 1 - found.ratio


CLAIM = Claim(
    id="C3.mixture-tube",
    title="A tube for the exact score of smoothed clusters",
    statement=(
        "For data that are clusters in a ball, smoothed by a Gaussian, a sampling step contracts an error like a "
        "Gaussian's, less what the posterior spread of the clusters takes from it, and the error itself can inflate "
        "that spread by a known factor only; the radii this gives hold the sampling."
    ),
    latex=(
        r"\|E_k\| \le r_k = \gamma_k(r_{k+1})\, r_{k+1} + \|d_k\|,\quad \gamma_k(r) = 1 - \tfrac{h_k\sigma_{k+1}}{v}"
        r"\bigl(1 - \tfrac1v \min(R^2, \varphi(\tfrac{2Rr}{v}) C, C + \tfrac{Kr}{2v})\bigr)"
    ),
    hypotheses=(
        Hypothesis("H1", "The clusters' centres lie in a ball of radius R."),
        Hypothesis("H2", "The predictor that samples is the exact score of the clusters smoothed by N(0, s^2 I)."),
        Hypothesis("H3", "The noise levels increase from the data to the noise."),
        Hypothesis("H4", "Sampling starts where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    sharpness=(
        "attained by every Gaussian (R = 0); for R > 0 reached in the limit of starts that close in on the middle of "
        "two like clusters"
    ),
    origin="not in the paper",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="radius of the tube at the data's level, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _wider_support, "H2": _scaled_score, "H3": _falling_levels, "H4": _other_start},
    planted={
        "half of the clusters' spread": lambda instance: _radius(instance, spread_weight=0.5),
        "without the clusters": lambda instance: _radius(instance, spread_weight=0.0),
        "no growth": lambda instance: _radius(instance, growth=lambda sigmas, variances, radius: 0 * sigmas[1:]),
        "the lower level's sigma over the upper variance": lambda instance: _radius(
            instance,
            growth=lambda sigmas, variances, radius: (
                1 - jnp.diff(sigmas) * sigmas[:-1] / variances[1:] * (1 - radius**2 / variances[1:])
            ),
        ),
    },
    reality=(
        Comparison(
            question=(
                "The slope of an exact score, of any data, is at most 1 / sigma: the largest <v, h (e(z + v) - e(z))> "
                "/ ||v||^2 among recorded pairs of states of the network against h / sigma"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_steep_pairs,
            expected=Expected.VIOLATED,
            because=(
                "recorded pairs are steeper than any exact score allows: the network is the exact score of no "
                "clusters at those levels, and the tube is not promised to hold its trajectories"
            ),
        ),
        Comparison(
            question=(
                "The clip on its schedule with the exact score of clusters at its own frames, a quarter of their "
                "spread wide, started between two frames: round-trip error against the tube's radius"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_with_clusters_at_the_frames,
            because="the theorem, since the predictor is the exact score of these clusters",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("a symmetric tensor's norm is attained on the diagonal (Banach)", "Tweedie's formula"),
    floor=0.999,
    floor_reason="attained by Gaussian data under convention S only, or next to the middle of two clusters",
)
