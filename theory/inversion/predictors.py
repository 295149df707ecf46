r"""Exact noise predictors: data whose score is known in closed form.

With y = x_0 + sigma * noise, the best prediction of the noise is

    e(y, sigma) = E[noise | y] = -sigma grad log p_sigma(y),

p_sigma the density of the data convolved with N(0, sigma^2 I). Source: Tweedie's formula; paper_notes.md, section
"Exact predictors".
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.inversion.ddim import Predictor

NoisePredictor = Callable[[jax.Array, Any], jax.Array]
"""`e(y, sigma)`: y (dimension,), sigma a scalar >= 0; returns (dimension,)."""


def at_levels(predictor: NoisePredictor, sigmas: jax.Array) -> Predictor:
    """The predictor as a function of the state and the index of the noise level."""
    return lambda state, level: predictor(state, sigmas[level])


def _as_vector(name: str, values: Any) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise ValueError(f"{name} has shape {vector.shape}, values {vector}; a finite one-dimensional array is needed")
    return vector


def _spectrum(mean: Any, covariance: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = _as_vector("mean", mean)
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.shape != (mean.size, mean.size) or not np.array_equal(covariance, covariance.T):
        raise ValueError(
            f"covariance has shape {covariance.shape}; a symmetric ({mean.size}, {mean.size}) matrix is needed"
        )
    variances, axes = np.linalg.eigh(covariance)
    if not variances[0] > 0:
        raise ValueError(
            f"covariance has least eigenvalue {variances[0]:.6g}; it must be positive: add a multiple of the identity"
        )
    return mean, variances, axes


def gaussian_predictor(mean: Any, covariance: Any) -> NoisePredictor:
    """Data N(mean, covariance).

        e(y, sigma) = sigma (covariance + sigma^2 I)^{-1} (y - mean)

    Raises:
        ValueError: sizes that differ; a covariance that is not symmetric positive definite.
    """
    mean, variances, axes = _spectrum(mean, covariance)
    return lambda y, sigma: axes @ (sigma / (variances + sigma**2) * (axes.T @ (y - mean)))


def gaussian_flow(mean: Any, covariance: Any, y: Any, sigma_from: float, sigma_to: float) -> np.ndarray:
    """The exact flow of dy/dsigma = e(y, sigma) for data N(mean, covariance).

    along an axis of variance v:  y - mean  ->  sqrt((v + sigma_to^2) / (v + sigma_from^2)) (y - mean)
    """
    mean, variances, axes = _spectrum(mean, covariance)
    factors = np.sqrt((variances + sigma_to**2) / (variances + sigma_from**2))
    return mean + axes @ (factors * (axes.T @ (np.asarray(y) - mean)))


def mixture_predictor(weights: Any, means: Any, std: float) -> NoisePredictor:
    """Data sum_i weights_i N(means_i, std^2 I).

        e(y, sigma) = sigma / v sum_i r_i (y - means_i),   v = std^2 + sigma^2,   r_i ~ weights_i exp(-||y - means_i||^2
        / 2 v)

    Args:
        weights: (components,) positive; normalised here.
        means: (components, dimension).
        std: > 0.

    Raises:
        ValueError: sizes that differ, a weight or std that is not positive.
    """
    weights, means = _as_vector("weights", weights), np.asarray(means, dtype=np.float64)
    if means.ndim != 2 or means.shape[0] != weights.size:
        raise ValueError(
            f"means have shape {means.shape}; ({weights.size}, dimension) is needed for {weights.size} weights"
        )
    if not (weights > 0).all():
        raise ValueError(
            f"weight {int(np.argmin(weights))} is {weights.min():.6g}; every weight must be positive: drop empty "
            "components"
        )
    if not (np.isfinite(std) and std > 0):
        raise ValueError(f"std = {std}; it must be finite and positive")
    log_weights = np.log(weights)

    def predict(y: jax.Array, sigma: Any) -> jax.Array:
        variance = std**2 + sigma**2
        offsets = y[None, :] - means
        responsibilities = jax.nn.softmax(log_weights - jnp.sum(offsets**2, axis=1) / (2 * variance))
        return sigma / variance * (responsibilities @ offsets)

    return predict


def paired_predictor(half_distances: Any, stds: Any, axes: Any) -> NoisePredictor:
    """Independent coordinates, in rotated axes, each an even mixture of N(+a, s^2) and N(-a, s^2). JAX-traceable in
    everything.

        along an axis:  e(y, sigma) = sigma / v (y - a tanh(a y / v)),   v = s^2 + sigma^2

    The data are log-concave if and only if a <= s on every axis, since -(log p)'' = (1 - (a/s)^2 sech^2(a y / s^2)) /
    s^2.

    Args:
        half_distances, stds: (dimension,) a and s > 0.
        axes: (dimension, dimension) orthogonal, an axis per column.
    """

    def predict(y: jax.Array, sigma: Any) -> jax.Array:
        variances = stds**2 + sigma**2
        along = axes.T @ y
        return axes @ (sigma / variances * (along - half_distances * jnp.tanh(half_distances * along / variances)))

    return predict
