"""Linear layers with LoRA, F = (W + B A) X, as instances of the theorems on adapters."""

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Instance, Parameters
from theory.descent.instances import draw_normals
from theory.temporal_loss import instances

LARGEST_EXPONENT = 16.0
"""Of the logarithms of drawn norms."""
CARRIED_EXPONENT = 24.0
"""Of the logarithm of delta: e^-24 is so small that its square is below a rounding beside 1."""


def draw_layer(key: jax.Array, *, num_frames: int, outputs: int, positions: int, extra: int, rank: int, **others) -> Parameters:
    """Parameters of `lora_instance`, and of the scalars that `others` names."""
    return draw_normals(
        key,
        {
            "directions": (num_frames, outputs * positions),
            "excess": (num_frames,),
            "log_min_norm": (),
            "inputs": (num_frames, extra, positions),
            "down": (rank, extra + outputs),
            "up": (outputs, rank),
            "log_down": (),
            "log_up": (),
            "log_carried": (),
        }
        | {name: () for name in others},
    )


def bounded_exp(log: jax.Array) -> jax.Array:
    """exp, kept within e^16 and e^-16."""
    return jnp.exp(LARGEST_EXPONENT * jnp.tanh(log / LARGEST_EXPONENT))


def lora_instance(
    parameters: Parameters, *, num_frames: int, outputs: int, positions: int, extra: int, rank: int
) -> Instance:
    """A linear layer with LoRA, F = (W + B A) X, with features of norms >= m and an adapter of any size.

    The features and `extra` rows of X are free; the other rows of X are delta F, and W = (0, I / delta) - B A is the frozen layer that makes
    the features of them. As delta -> 0 these rows weigh nothing in X, and W grows.
    """
    start = instances.instance(
        {name: parameters[name] for name in ("directions", "excess", "log_min_norm")},
        num_frames=num_frames,
        dimension=outputs * positions,
    )
    frames = jnp.reshape(start["frames"], (num_frames, outputs, positions))
    # At most 1: rows that are much longer than the features make steps whose expansion cancels to nothing.
    carried = jnp.exp(-CARRIED_EXPONENT * jnp.tanh(parameters["log_carried"] ** 2 / CARRIED_EXPONENT))
    return {
        "frames": frames,
        "min_norm": start["min_norm"],
        "inputs": jnp.concatenate([parameters["inputs"], carried * frames], axis=1),
        "down": bounded_exp(3 * parameters["log_down"]) * parameters["down"],
        "up": bounded_exp(3 * parameters["log_up"]) * parameters["up"],
    }


def frozen_weight(instance: Instance) -> np.ndarray:
    """W of the layer F = (W + B A) X: the frozen weight, by least squares, of (outputs, inputs)."""
    frames, inputs = (np.asarray(instance[name]) for name in ("frames", "inputs"))
    rows = np.swapaxes(inputs, 0, 1).reshape(inputs.shape[1], -1)
    features = np.swapaxes(frames, 0, 1).reshape(frames.shape[1], -1)
    return np.linalg.lstsq(rows.T, features.T, rcond=None)[0].T - np.asarray(instance["up"]) @ np.asarray(instance["down"])
