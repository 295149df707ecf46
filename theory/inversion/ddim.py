r"""DDIM inversion and sampling on exact noise predictors, in JAX, in the variables y and sigma of schedule.py.

Level 0 is the data end, level N the noise end, h_k = sigma_{k+1} - sigma_k, and e_k(y) = eps(y / sqrt(1 + sigma_k^2),
t_k).

    inversion   z_{k+1} = z_k + h_k e^_k        with e^_k by the convention
    sampling    w_k = w_{k+1} - h_k e_{k+1}(w_{k+1}),   w_N = z_N
    S           e^_k = e_k(z_k)                 state and timestep of the lower level
    T           e^_k = e_{k+1}(z_k sqrt((1 + sigma_{k+1}^2) / (1 + sigma_k^2)))
                                                x_k with the timestep of the upper level: diffusers'
                                                    DDIMInverseScheduler
    Y           e^_k = e_{k+1}(z_k)             y_k with the timestep of the upper level
    defect      d_k = h_k (e_{k+1}(z_{k+1}) - e^_k)
    error       E_k = w_k - z_k

Source: paper_notes.md, section "DDIM inversion: variables".
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.evidence import RoundTripRecord
from theory.inversion.schedule import noise_levels

Predictor = Callable[[jax.Array, jax.Array], jax.Array]
"""`predict(y, level)`: y (dimension,), level an integer index into the noise levels; returns (dimension,)."""


class Convention(enum.IntEnum):
    """Where an inversion step evaluates the noise predictor."""

    S = 0
    T = 1
    Y = 2


class RoundTrip(NamedTuple):
    """Inversion and sampling in the variables y; arrays (.., dimension), level 0 nearest the data.

    Attributes:
        sigmas: (N + 1,) noise levels.
        inversion, sampling: (N + 1, dimension) z_k and w_k.
        inversion_predictions: (N, dimension) e^_k.
        sampling_predictions: (N, dimension) e_{k+1}(w_{k+1}).
        predictions_at_inversion: (N, dimension) e_{k+1}(z_{k+1}), by the predictor that samples.
    """

    sigmas: jax.Array
    inversion: jax.Array
    sampling: jax.Array
    inversion_predictions: jax.Array
    sampling_predictions: jax.Array
    predictions_at_inversion: jax.Array

    @property
    def steps(self):
        """h_k, (N,)."""
        return self.sigmas[1:] - self.sigmas[:-1]

    @property
    def errors(self):
        """E_k = w_k - z_k, (N + 1, dimension)."""
        return self.sampling - self.inversion

    @property
    def defects(self):
        """d_k = h_k (e_{k+1}(z_{k+1}) - e^_k), (N, dimension)."""
        return self.steps[:, None] * (self.predictions_at_inversion - self.inversion_predictions)

    @property
    def feedback(self):
        """h_k (e_{k+1}(w_{k+1}) - e_{k+1}(z_{k+1})), (N, dimension): what the error so far changes in the step."""
        return self.steps[:, None] * (self.sampling_predictions - self.predictions_at_inversion)


def evaluate_for_inversion(
    predict: Predictor, sigmas: jax.Array, lower_state: jax.Array, step: jax.Array, convention: jax.Array | Convention
) -> jax.Array:
    """e^_k, the prediction that the inversion step k uses. The convention may be a traced integer."""
    level = jnp.where(convention == Convention.S, step, step + 1)
    ratio = jnp.sqrt((1 + sigmas[step + 1] ** 2) / (1 + sigmas[step] ** 2))
    return predict(jnp.where(convention == Convention.T, ratio, 1.0) * lower_state, level)


def invert(
    predict: Predictor, sigmas: jax.Array, start: jax.Array, convention: jax.Array | Convention
) -> tuple[jax.Array, jax.Array]:
    """The inversion trajectory z_0, .., z_N, (N + 1, dimension), and the predictions it used, (N, dimension)."""

    def step(state: jax.Array, index: jax.Array):
        prediction = evaluate_for_inversion(predict, sigmas, state, index, convention)
        upper = state + (sigmas[index + 1] - sigmas[index]) * prediction
        return upper, (upper, prediction)

    _, (upper, predictions) = jax.lax.scan(step, start, jnp.arange(sigmas.shape[0] - 1))
    return jnp.concatenate([start[None], upper]), predictions


def sample(predict: Predictor, sigmas: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sampling trajectory w_0, .., w_N = start, (N + 1, dimension), and its predictions e_{k+1}(w_{k+1}), (N,
    dimension)."""

    def step(state: jax.Array, index: jax.Array):
        prediction = predict(state, index + 1)
        lower = state - (sigmas[index + 1] - sigmas[index]) * prediction
        return lower, (lower, prediction)

    _, (lower, predictions) = jax.lax.scan(step, start, jnp.arange(sigmas.shape[0] - 1), reverse=True)
    return jnp.concatenate([lower, start[None]]), predictions


def round_trip(
    predict: Predictor,
    sigmas: jax.Array,
    start: jax.Array,
    convention: jax.Array | Convention,
    *,
    sampling_predict: Predictor | None = None,
    start_offset: jax.Array | float = 0.0,
) -> RoundTrip:
    """Inversion from `start`, then sampling from where it ended.

    Args:
        predict: the noise predictor of the inversion.
        sigmas: (N + 1,) increasing noise levels.
        start: (dimension,) y_0.
        convention: S, T or Y.
        sampling_predict: the predictor that samples, when it is another one.
        start_offset: w_N - z_N, other than zero only to show what the theorems need.
    """
    sampler = predict if sampling_predict is None else sampling_predict
    inversion, used = invert(predict, sigmas, start, convention)
    sampling, sampled = sample(sampler, sigmas, inversion[-1] + start_offset)
    at_inversion = jax.vmap(sampler)(inversion[1:], jnp.arange(1, sigmas.shape[0]))
    return RoundTrip(sigmas, inversion, sampling, used, sampled, at_inversion)


def recorded_round_trip(record: RoundTripRecord) -> RoundTrip:
    """A recorded round trip in the variables y, flattened, as NumPy arrays.

    Raises:
        ValueError: the record's arrays disagree in size, or its levels are no noise levels.
    """
    sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
    num_steps = len(sigmas) - 1
    expected = {
        "inversion": num_steps + 1,
        "sampling": num_steps + 1,
        "inversion_predictions": num_steps,
        "sampling_predictions": num_steps,
        "predictions_at_inversion": num_steps,
    }
    flat = {}
    for name, length in expected.items():
        array = np.asarray(getattr(record, name), dtype=np.float64)
        if array.shape != (length, *record.inversion.shape[1:]):
            raise ValueError(
                f"{record.label}: {name} has shape {array.shape}; {(length, *record.inversion.shape[1:])} is needed "
                f"for {num_steps} steps"
            )
        flat[name] = array.reshape(length, -1)
    scale = np.sqrt(1 + sigmas**2)[:, None]
    return RoundTrip(
        sigmas,
        scale * flat["inversion"],
        scale * flat["sampling"],
        flat["inversion_predictions"],
        flat["sampling_predictions"],
        flat["predictions_at_inversion"],
    )
