r"""Baselines that invert exactly by carrying two states: EDICT, BDIA and O-BELM, and what they cost.

In the variables y and sigma of schedule.py, where DDIM is explicit Euler. EDICT couples two copies x, y of the latent,
with e at the upper level:

    x' = x - h e(y),  y' = y - h e(x'),   then   x <- p x' + (1 - p) y',  y <- p y' + (1 - p) x

BDIA and O-BELM are linear two-step methods and differ in one weight. With h' the step above level i and h that below,

    y_{i-1} = y_i - h e_i(y_i) + a_i (y_{i+1} - y_i - h' e_i(y_i))

    BDIA     a_i = gamma sqrt((1 + sigma_{i-1}^2) / (1 + sigma_{i+1}^2)),  which is the weight gamma on latents
    O-BELM   a_i = (h / h')^2, the only weight for which the step is exact on quadratics

Each line can be solved for the upper states with the same evaluations of e, so every scheme inverts exactly whatever e
is, if BOTH states are kept. What it costs beside the second state:

    scheme   evaluations a step   a rounding error grows on the way up by
    EDICT    2                    p^(-2 N)
    BDIA     1                    prod 1 / a_i, about gamma^(1 - N) (1 + sigma_N^2)
    O-BELM   1                    prod 1 / a_i = (h_{N-1} / h_0)^2

for a predictor that does not depend on the state; one that does adds the growth of its own.

Source: arXiv 2211.12446 (EDICT, p = 0.93), 2307.10829 (BDIA), 2410.07273 (O-BELM); paper_notes.md, section "C3:
two-register schemes", where invertibility and amplification are derived.
"""

import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from theory.inversion.schedule import check_noise_levels

EDICT_MIXING = 0.93
StatePredictor = Callable[[np.ndarray, int], np.ndarray]
"""`predict(y, level)`: y (dimension,), level an index into the noise levels; returns (dimension,)."""


class Scheme(enum.StrEnum):
    EDICT = "EDICT"
    BDIA = "BDIA"
    O_BELM = "O-BELM"


EVALUATIONS_PER_STEP = {Scheme.EDICT: 2, Scheme.BDIA: 1, Scheme.O_BELM: 1}


def two_step_weights(sigmas: Any, scheme: Scheme, gamma: float = 1.0) -> np.ndarray:
    """a_i for i = 1, .., N - 1, (N - 1,).

    Args:
        sigmas: (N + 1,) increasing noise levels, N >= 2.
        scheme: BDIA or O-BELM.
        gamma: of BDIA, in (0, 1].

    Raises:
        ValueError: noise levels that do not increase, or fewer than three; EDICT; a gamma outside (0, 1].
    """
    check_noise_levels(sigmas)
    sigmas = np.asarray(sigmas, dtype=np.float64)
    if sigmas.size < 3:
        raise ValueError(f"{sigmas.size} noise levels were given; a two-step method needs at least 3")
    if scheme is Scheme.O_BELM:
        steps = np.diff(sigmas)
        return (steps[:-1] / steps[1:]) ** 2
    if scheme is not Scheme.BDIA:
        raise ValueError(f"{scheme} is no two-step method; choose BDIA or O-BELM")
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma = {gamma}; it must lie in (0, 1]: at 0 the scheme is DDIM and has no exact inverse")
    return gamma * np.sqrt((1 + sigmas[:-2] ** 2) / (1 + sigmas[2:] ** 2))


def two_step_sample(
    predict: StatePredictor, sigmas: Any, top: Any, below: Any, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From (y_N, y_{N-1}) down to (y_1, y_0), with the weights of `two_step_weights`."""
    steps, upper, state = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(top), np.asarray(below)
    for level in reversed(range(1, len(steps))):
        prediction = predict(state, level)
        lower = state - steps[level - 1] * prediction + weights[level - 1] * (upper - state - steps[level] * prediction)
        upper, state = state, lower
    return upper, state


def two_step_invert(
    predict: StatePredictor, sigmas: Any, bottom: Any, above: Any, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """From (y_0, y_1) up to (y_{N-1}, y_N): the steps of `two_step_sample`, each solved for its upper state."""
    steps, lower, state = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(bottom), np.asarray(above)
    for level in range(1, len(steps)):
        prediction = predict(state, level)
        rest = (lower - state + steps[level - 1] * prediction) / weights[level - 1]
        lower, state = state, state + steps[level] * prediction + rest
    return lower, state


def _check_mixing(mixing: float) -> None:
    if not 0.5 <= mixing <= 1:
        raise ValueError(f"mixing p = {mixing}; it must lie in [0.5, 1]: 0.93 is usual, 1 does not couple the copies")


def edict_sample(
    predict: StatePredictor, sigmas: Any, x: Any, y: Any, mixing: float = EDICT_MIXING
) -> tuple[np.ndarray, np.ndarray]:
    """Both copies from level N down to level 0.

    Raises:
        ValueError: noise levels that do not increase; a mixing outside [0.5, 1].
    """
    check_noise_levels(sigmas)
    _check_mixing(mixing)
    steps, x, y = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(x), np.asarray(y)
    for level in reversed(range(len(steps))):
        x = x - steps[level] * predict(y, level + 1)
        y = y - steps[level] * predict(x, level + 1)
        x = mixing * x + (1 - mixing) * y
        y = mixing * y + (1 - mixing) * x
    return x, y


def edict_invert(
    predict: StatePredictor, sigmas: Any, x: Any, y: Any, mixing: float = EDICT_MIXING
) -> tuple[np.ndarray, np.ndarray]:
    """Both copies from level 0 up to level N: the lines of `edict_sample` undone, the last one first.

    Raises:
        ValueError: as for `edict_sample`.
    """
    check_noise_levels(sigmas)
    _check_mixing(mixing)
    steps, x, y = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(x), np.asarray(y)
    for level in range(len(steps)):
        y = (y - (1 - mixing) * x) / mixing
        x = (x - (1 - mixing) * y) / mixing
        y = y + steps[level] * predict(x, level + 1)
        x = x + steps[level] * predict(y, level + 1)
    return x, y


def rounding_amplification(
    sigmas: Any, scheme: Scheme, *, mixing: float = EDICT_MIXING, gamma: float = 1.0
) -> float:
    """By how much the inversion enlarges a rounding error made at the data end, for a predictor that ignores the state.

    p^(-2 N) for EDICT, on errors of the two copies in the proportion 1 : -p; prod 1 / a_i for the two-step methods, on
    y_1 - y_0.

    Raises:
        ValueError: as for `edict_sample` and `two_step_weights`.
    """
    check_noise_levels(sigmas)
    if scheme is Scheme.EDICT:
        _check_mixing(mixing)
        return float(mixing ** (-2.0 * (len(sigmas) - 1)))
    return float(np.prod(1 / two_step_weights(sigmas, scheme, gamma)))
