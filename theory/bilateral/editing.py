r"""A filter inside a noise predictor, and on the latent: the round trips and samplings that three theorems compare.

In the variables y = x / sqrt(abar), sigma = sqrt(1/abar - 1), h_k = sigma_{k+1} - sigma_k, a state has one value a
frame, and the predictor of level k reads features phi_k of the state, which the filter B may smooth on the way:

    e_k(y)   = -r_k * y + post_k phi_k(y),      phi_k(y) = f_k + pre_k sin(y)
    e^B_k(y) = -r_k * y + post_k B(phi_k(y))

with one rate r_k for each frame. In the maximum norm e_k has the Lipschitz constant Lambda_k = max_i |r_k,i| + post_k
pre_k, and the map from the features to the prediction has post_k. The filter moves features by at most K sigma_range
(C4.defect), hence a prediction by at most post_k K sigma_range.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.bilateral import instances
from theory.bilateral.constants import largest_change, neighbour_weight
from theory.bilateral.defect import DISTANCE
from theory.claim import Instance, Parameters, Size
from theory.inversion.instances import bounded_exp

NUM_FRAMES = 5
MIDDLE = 2
SIZES: tuple[Size, ...] = ((("num_steps", 2),), (("num_steps", 4),))
CHANGE = largest_change(neighbour_weight())
"""K of C4.defect."""
PATTERN = DISTANCE * np.array([1.0, 1.0, 0.0, 1.0, 1.0])
"""Frames, in range widths, of which the filter moves the middle one by K and no other by more."""
LARGEST_RATE = 2.0
STEP = 0.3


def operations(*, num_steps: int) -> int:
    """Roundings of an error at the data end, in units of the bound.

    A step is some 150 roundings (the filter's 60, a sine, a norm) at the size of its states and features, which the
    drawn parameters keep below some 1000 times what the filter can move in a step: that is at least h post K
        sigma_range >= 0.11 / e K e^-2 against features of
    some 10 sigma_range and states of some 10. Growth acts on rounding and bound alike.
    """
    return 150_000 * num_steps


def draw(key: jax.Array, *, num_steps: int) -> Parameters:
    """Random levels, predictors and a start; as often with predictors that hardly read the state as with ones that
    do."""
    keys = jax.random.split(key, 9)
    levels = num_steps + 1
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-2.0, maxval=0.3)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "rates": spread * jax.random.normal(keys[3], (levels, NUM_FRAMES)) + jax.random.normal(keys[4], (levels, 1)),
        "pre": spread * jax.random.normal(keys[4], (levels,)),
        "post": jax.random.normal(keys[5], (levels,)),
        "features": 2 * jax.random.normal(keys[6], (levels, NUM_FRAMES)),
        "start": jax.random.normal(keys[7], (NUM_FRAMES,)),
        "log_range": jax.random.normal(keys[8]),
    }


def instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Increasing noise levels and one predictor a level."""
    sigma_range = instances.sigma_of(parameters)
    steps = STEP * bounded_exp(parameters["increments"], 1.0)
    first = jnp.tanh(parameters["first_level"]) ** 2
    return {
        "sigmas": jnp.concatenate([first[None], first + jnp.cumsum(steps)]),
        "rates": LARGEST_RATE * jnp.tanh(parameters["rates"]),
        "pre": jnp.tanh(parameters["pre"]) ** 2,
        "post": bounded_exp(parameters["post"], 1.0),
        "features": sigma_range * parameters["features"],
        "start": sigma_range * parameters["start"],
        "sigma_range": sigma_range,
    }


def prediction(member: Instance, state: jax.Array, level: Any, *, filtered: bool) -> jax.Array:
    """e_k(y), or e^B_k(y)."""
    features = member["features"][level] + member["pre"][level] * jnp.sin(state)
    if filtered:
        features = instances.filtered(features, member["sigma_range"])
    return -member["rates"][level] * state + member["post"][level] * features


def lipschitz(member: Instance, gain: float = 1.0) -> jax.Array:
    """Lambda_k of every level, (num_steps + 1,); `gain` multiplies the way through the features."""
    return _row_maxima(member["rates"]) + gain * member["post"] * member["pre"]


def _row_maxima(values: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(values), axis=1)


def steps(member: Instance) -> jax.Array:
    """h_k, (num_steps,)."""
    return jnp.diff(member["sigmas"])


def growth(member: Instance, gain: float = 1.0) -> jax.Array:
    """prod_{j<k} (1 + h_j Lambda_{j+1}) of every step k, (num_steps,)."""
    factors = 1 + steps(member) * lipschitz(member, gain)[1:]
    return jnp.concatenate([jnp.ones(1), jnp.cumprod(factors[:-1])])


def sample(
    member: Instance,
    noise: jax.Array,
    *,
    filtered: bool = False,
    after_step: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """w_0 from w_N = noise: w_k = w_{k+1} - h_k e_{k+1}(w_{k+1}), and `after_step(w_k, k)` where it is given."""
    lengths = steps(member)

    def step(state: jax.Array, level: jax.Array):
        state = state - lengths[level] * prediction(member, state, level + 1, filtered=filtered)
        return (state if after_step is None else after_step(state, level)), None

    return jax.lax.scan(step, noise, jnp.arange(len(lengths)), reverse=True)[0]


def invert(member: Instance, *, filtered: bool) -> tuple[jax.Array, jax.Array]:
    """The inversion z_{k+1} = z_k + h_k e_{k+1}(z_k) from the start, with diffusers' convention, and its own one-step
    defects.

    Returns:
        z_N, and the maximum norms of d_k = h_k (e_{k+1}(z_{k+1}) - e_{k+1}(z_k)), (num_steps,).
    """
    lengths = steps(member)

    def step(state: jax.Array, level: jax.Array):
        used = prediction(member, state, level + 1, filtered=filtered)
        state = state + lengths[level] * used
        return state, lengths[level] * instances.largest(prediction(member, state, level + 1, filtered=filtered) - used)

    return jax.lax.scan(step, member["start"], jnp.arange(len(lengths)))


def filter_moves(member: Instance) -> jax.Array:
    """h_k post_{k+1} K sigma_range: what the filter can add to a step from inside the predictor, (num_steps,)."""
    return steps(member) * member["post"][1:] * CHANGE * member["sigma_range"]


def explicit_parameters(num_steps: int, rates: np.ndarray, features: np.ndarray) -> Parameters:
    """Parameters of an instance with given rates in (-2, 2) and features, with post = 1, pre = 0 and sigma_range = 1 on
    equal steps."""
    levels = num_steps + 1
    return {
        "first_level": jnp.asarray(0.0),
        "increments": jnp.zeros(num_steps),
        "rates": jnp.arctanh(jnp.broadcast_to(jnp.asarray(rates), (levels, NUM_FRAMES)) / LARGEST_RATE),
        "pre": jnp.zeros(levels),
        "post": jnp.zeros(levels),
        "features": jnp.broadcast_to(jnp.asarray(features), (levels, NUM_FRAMES)) * 1.0,
        "start": jnp.zeros(NUM_FRAMES),
        "log_range": jnp.asarray(0.0),
    }


def explicit_instance(num_steps: int, rates: np.ndarray, features: np.ndarray) -> Instance:
    """The instance of `explicit_parameters`, written down without the family."""
    levels = num_steps + 1
    return {
        "sigmas": STEP * jnp.arange(float(levels)),
        "rates": jnp.broadcast_to(jnp.asarray(rates), (levels, NUM_FRAMES)) * 1.0,
        "pre": jnp.zeros(levels),
        "post": jnp.ones(levels),
        "features": jnp.broadcast_to(jnp.asarray(features), (levels, NUM_FRAMES)) * 1.0,
        "start": jnp.zeros(NUM_FRAMES),
        "sigma_range": jnp.asarray(1.0),
    }
