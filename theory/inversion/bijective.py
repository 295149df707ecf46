r"""Every sampling step of an exact score is a bijection, whatever the data and however long the step.

Statement. Let e be the exact noise predictor of any data and F(y) = y - h e(y, sigma_t), h = sigma_t - sigma_s, the
sampling step from sigma_t down to sigma_s > 0. With rho = sigma_s / sigma_t,

    I - h \nabla e \succeq \rho I, \qquad \|F(y) - F(y')\| \ge \rho \|y - y'\|,

so F is a bijection of the whole space whose inverse, the exact inversion step, is (1 / rho)-Lipschitz. No condition on
h L: the Lipschitz constant of e may be as large as it likes.

The plain fixed-point iteration may all the same fail to find that inverse: it needs the largest eigenvalue Lambda of
I - h grad e below 2. The damped iteration y <- y - omega (F(y) - y_s) finds it for 0 < omega < 2 / Lambda, at the rate
max(|1 - omega rho|, |1 - omega Lambda|). Guidance is no exact score, and can make F take one value twice
(`guided_pair`).

Hypotheses.
    H1  The predictor is an exact score: e = -sigma grad log p_sigma of some data.
    H2  0 < sigma_s < sigma_t.

**Attained** by data that are one point.

In the paper: not there. Proof: paper_notes.md, section C3.bijective.
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
from theory.inversion.predictors import NoisePredictor, mixture_predictor
from theory.inversion.schedule import check_noise_levels, noise_levels
from theory.rounding import relative_budget

DIMENSION = instances.DIMENSION
SIZES: tuple[Size, ...] = ((("components", 3),),)


def inverse_lipschitz(sigma_from: float, sigma_to: float) -> float:
    """The Lipschitz constant of the exact inversion step from sigma_from up to sigma_to, for every exact score.

        1 / rho = sigma_to / sigma_from

    Raises:
        ValueError: levels that do not satisfy 0 < sigma_from < sigma_to; at sigma_from = 0 the step down may send
            everything to one point.
    """
    check_noise_levels([sigma_from, sigma_to])
    if sigma_from == 0:
        raise ValueError("sigma_from = 0; it must be positive: the step to noise level 0 need not have an inverse")
    return sigma_to / sigma_from


def damping_limit(largest: float) -> float:
    """The dampings omega below this make the iteration y <- y - omega (F(y) - y_s) converge.

        2 / Lambda

    Args:
        largest: Lambda, the largest eigenvalue of I - h grad e anywhere, for example 1 - h sigma / v (1 - R^2 / v) for
            clusters in a ball of radius R.

    Raises:
        ValueError: Lambda not positive or not finite.
    """
    if not (np.isfinite(largest) and largest > 0):
        raise ValueError(f"largest eigenvalue = {largest}; a finite number > 0 is needed")
    return 2 / largest


def damped_contraction(smallest: float, largest: float, damping: float) -> float:
    """The factor by which the damped iteration approaches the inverse step at least.

        q = max(|1 - omega rho|, |1 - omega Lambda|) < 1

    Args:
        smallest, largest: rho and Lambda, between which the eigenvalues of I - h grad e lie everywhere.
        damping: omega in (0, 2 / Lambda).

    Raises:
        ValueError: eigenvalues that do not satisfy 0 < rho <= Lambda; a damping outside the open interval.
    """
    limit = damping_limit(largest)
    if not 0 < smallest <= largest:
        raise ValueError(f"smallest eigenvalue = {smallest}; it must lie in (0, {largest}], below the largest")
    if not 0 < damping < limit:
        raise ValueError(f"damping = {damping}; it must lie between 0 and 2 / Lambda = {limit:.6g}")
    return max(abs(1 - damping * smallest), abs(1 - damping * largest))


def damped_step(
    predictor: NoisePredictor, lower: jax.Array, sigma_from: float, sigma_to: float, damping: float = 1.0
) -> Callable[[jax.Array], jax.Array]:
    """y -> y - omega (y - h e(y, sigma_to) - y_s), to be iterated by `fixed_point.iterates`; omega = 1 is the plain
    iteration."""
    step = sigma_to - sigma_from
    return lambda state: state - damping * (state - step * predictor(state, sigma_to) - lower)


def guided_pair(scale: float) -> NoisePredictor:
    """Guidance that takes one value twice for scale > 1: the condition picks one of two narrow clusters at +-1.

        e_w = w e_c + (1 - w) e_u,   e_c of N(1, 0.01), e_u of (N(1, 0.01) + N(-1, 0.01)) / 2

    Between the clusters e_u has a steep negative slope, which guidance subtracts: there F falls, elsewhere it rises.
    """
    conditional = mixture_predictor([1.0], [[1.0]], 0.1)
    unconditional = mixture_predictor([0.5, 0.5], [[1.0], [-1.0]], 0.1)
    return lambda y, sigma: scale * conditional(y, sigma) + (1 - scale) * unconditional(y, sigma)


def _step_down(instance: Instance, state: jax.Array) -> jax.Array:
    variance = instance["std"] ** 2 + instance["sigma_to"] ** 2
    offsets = state[None, :] - instance["means"]
    responsibilities = jax.nn.softmax(instance["log_weights"] - jnp.sum(offsets**2, axis=1) / (2 * variance))
    prediction = instance["scale"] * instance["sigma_to"] / variance * (responsibilities @ offsets)
    return state - (instance["sigma_to"] - instance["sigma_from"]) * prediction


def measure(instance: Instance):
    """||y - y'|| of an instance."""
    return instances.norms(instance["move"])


def _bound(instance: Instance, factor=lambda lower, upper: upper / lower):
    first = instance["state"]
    second = first + instance["move"]
    moved = instances.norms(_step_down(instance, first) - _step_down(instance, second))
    # Both steps are rounded at the size of their operands, softmax at the size of its exponents.
    operands = instances.norms(first) + instances.norms(second) + jnp.max(instances.norms(instance["means"]))
    exponents = 1 + operands**2 / (instance["std"] ** 2 + instance["sigma_to"] ** 2)
    rounding = relative_budget(instances.OPERATIONS_PER_STEP) * operands * exponents
    return (moved + rounding) * factor(instance["sigma_from"], instance["sigma_to"])


def _draw(key: jax.Array, *, components: int) -> Parameters:
    keys = jax.random.split(key, 7)
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.5)
    return {
        "log_sigma": jax.random.normal(keys[1]),
        "log_ratio": jax.random.normal(keys[2]),
        "means": spread * jax.random.normal(keys[3], (components, DIMENSION)),
        "log_weights": jax.random.normal(keys[4], (components,)),
        "std": jax.random.normal(keys[0]),
        "state": jax.random.normal(keys[5], (DIMENSION,)),
        "move": jax.random.normal(keys[6], (DIMENSION,)),
    }


def _instance(parameters: Parameters, *, components: int) -> Instance:
    """Any number of clusters of any width, a point among them: std may be 0."""
    sigma_to = instances.bounded_exp(parameters["log_sigma"], 2.0)
    length = instances.norms(parameters["move"] + jnp.asarray([1e-3, 0.0]))
    # Moves of length 1/10 to 10 in any direction, so that no instance compares two equal states.
    return {
        "sigma_from": sigma_to / (1 + instances.bounded_exp(parameters["log_ratio"], 2.0)),
        "sigma_to": sigma_to,
        "means": parameters["means"],
        "log_weights": parameters["log_weights"],
        "std": jnp.tanh(parameters["std"]) ** 2,
        "scale": jnp.asarray(1.0),
        "state": parameters["state"],
        "move": (parameters["move"] + jnp.asarray([1e-3, 0.0])) * instances.bounded_exp(jnp.log(length), 2.3) / length,
    }


def _operations(*, components: int) -> int:
    """Roundings in units of the witness's distance 1: its operands are at most 5/2, its exponents at most 6 / 4, and
    the bound multiplies what it adds for them by 1 / rho = 4: 5/2 * 5/2 * 4 < 32, for each side and the softmax."""
    return instances.OPERATIONS_PER_STEP * 32 * (2 + components)


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=measure, bound=_bound, operations=_operations)


def witness(*, components: int) -> Instance:
    """One point: the score pulls every state straight to it, and the step shrinks the space by rho."""
    return {
        "sigma_from": jnp.asarray(0.5),
        "sigma_to": jnp.asarray(2.0),
        "means": jnp.zeros((components, DIMENSION)),
        "log_weights": jnp.zeros(components),
        "std": jnp.asarray(0.0),
        "scale": jnp.asarray(1.0),
        "state": jnp.asarray([1.0, 0.0]),
        "move": jnp.asarray([0.0, 1.0]),
    }


def witness_parameters(*, components: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(components=components)
    ratio = instance["sigma_to"] / instance["sigma_from"]
    return {
        "log_sigma": instances.bounded_log(instance["sigma_to"], 2.0),
        "log_ratio": instances.bounded_log(ratio - 1, 2.0),
        "means": instance["means"],
        "log_weights": instance["log_weights"],
        "std": jnp.asarray(0.0),
        "state": instance["state"],
        "move": instance["move"] - jnp.asarray([1e-3, 0.0]),
    }


def _broken(label: str, **changes: Any) -> Outcome:
    size = SIZES[0]
    return PROBLEM.outcome(
        dict(witness(**dict(size))) | {name: jnp.asarray(value) for name, value in changes.items()}, size, label
    )


def _scaled_score() -> Outcome:
    """The score times 1 / (1 - rho), as guidance may make it: the step sends everything to one point."""
    return _broken("4 / 3 times the score", scale=4 / 3)


def _step_to_more_noise() -> Outcome:
    """Towards more noise rho exceeds 1, and data of any width expand by less."""
    return _broken("a step to a higher noise level", sigma_from=4.0, std=1.0)


def _with_exact_score(evidence: Evidence) -> Sequence[Outcome]:
    """Every step of the real schedule, between the real network's two states of its upper level, with the exact
    predictor of data that are the clip's own frames: a network is no exact score, its trajectories are real."""
    outcomes = []
    for record in evidence.round_trips:
        abar = np.asarray(record.alphas_cumprod, dtype=np.float64)
        sigmas, size = noise_levels(abar), record.inversion[0][0].size
        frames = (np.asarray(record.inversion[0], dtype=np.float64) / np.sqrt(abar[0])).reshape(-1, size)
        worst = None
        for step in range(1 if sigmas[0] == 0 else 0, len(sigmas) - 2):
            # At level N the two trajectories meet, so the steps below it are compared.
            pair = [
                np.asarray(states[step + 1], dtype=np.float64).reshape(-1, size)[0] / np.sqrt(abar[step + 1])
                for states in (record.inversion, record.sampling)
            ]
            lowered = []
            for state in pair:
                logits = -np.sum((state - frames) ** 2, axis=1) / (2 * sigmas[step + 1] ** 2)
                responsibilities = np.exp(logits - logits.max())
                mean = responsibilities @ frames / responsibilities.sum()
                lowered.append(state - (sigmas[step + 1] - sigmas[step]) / sigmas[step + 1] * (state - mean))
            rounding = relative_budget(instances.OPERATIONS_PER_STEP + size) * (
                np.linalg.norm(pair, axis=1).sum() * (1 + np.abs(logits).max())
            )
            outcome = Outcome(
                f"{record.label}: step {step}, the clip's frames as data",
                float(np.linalg.norm(pair[0] - pair[1])),
                float(np.linalg.norm(lowered[0] - lowered[1]) + rounding) * inverse_lipschitz(*sigmas[step : step + 2]),
                relative_budget(instances.OPERATIONS_PER_STEP + size),
            )
            worst = outcome if worst is None or outcome.ratio > worst.ratio else worst
        outcomes.append(worst)
    return outcomes


@recorded.at_every_level
def _squeezed_pairs(record, found, trip):
    return found.ratio, found.squeezed


CLAIM = Claim(
    id="C3.bijective",
    title="Every sampling step of an exact score has an inverse",
    statement=(
        "A sampling step with the exact score of any data moves two states apart by at least sigma_s / sigma_t times "
        "their distance, so it is a bijection whose inverse, the exact inversion step, is Lipschitz with constant "
        "sigma_t / sigma_s, whatever the step size and the Lipschitz constant of the score."
    ),
    latex=(
        r"\|y - y'\| \le \frac{\sigma_t}{\sigma_s}\, \|F(y) - F(y')\|,\quad F(y) = y - (\sigma_t - \sigma_s)\, "
        r"e(y, \sigma_t)"
    ),
    hypotheses=(
        Hypothesis("H1", "The predictor is the exact score of some data."),
        Hypothesis("H2", "0 < sigma_s < sigma_t."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    measured_in_words="distance of two states before a sampling step, in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words=(
        "their distance after it, times the ratio of the upper noise level to the lower, in the same variables"
    ),
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _scaled_score, "H2": _step_to_more_noise},
    planted={
        "the root of the ratio of noise levels": lambda instance: _bound(
            instance, lambda lower, upper: (upper / lower) ** 0.5
        ),
        "no amplification": lambda instance: _bound(instance, lambda lower, upper: 1.0),
        "1 + h for 1 + h / sigma_s": lambda instance: _bound(instance, lambda lower, upper: 1 + upper - lower),
        "the ratio of the latents' scales": lambda instance: _bound(
            instance, lambda lower, upper: jnp.sqrt((1 + upper**2) / (1 + lower**2))
        ),
    },
    reality=(
        Comparison(
            question=(
                "A sampling step of the network keeps of the distance of two recorded states, a thousandth of the "
                "state's norm apart, at least the share that every exact score keeps: sigma_s / sigma_t against what "
                "is kept"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_squeezed_pairs,
            expected=Expected.VIOLATED,
            because=(
                "the network squeezes some pairs of states more than any exact score can: so it is the exact score of "
                "no data there, its step need not have an inverse, and an inverse, where it exists, may magnify an "
                "error by more than sigma_t / sigma_s"
            ),
        ),
        Comparison(
            question=(
                "The network's states of both trajectories, stepped down with the exact score of the clip's own "
                "frames as data: distance before the step against distance after it times sigma_t / sigma_s"
            ),
            origin=Origin.CLIP,
            tells=Tells.IMPLIED,
            compare=_with_exact_score,
            because="the theorem, since the predictor is an exact score",
        ),
    ),
    lemmas=("Tweedie's formula", "a strongly convex function attains its minimum"),
    floor=0.999,
    floor_reason=(
        "attained by data that are one point; the ascent has to pull the clusters together and their width to 0"
    ),
)
