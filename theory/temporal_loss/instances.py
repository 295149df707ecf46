"""Instances shared by the theorems on the temporal loss: drawn frames, and the Hessian they are measured by."""

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Instance, Parameters, Size
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = tuple(
    (("num_frames", num_frames), ("dimension", dimension)) for num_frames, dimension in ((3, 2), (4, 3), (6, 3))
)


def draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Random directions, norms and least norm; collinear frames, where the curvature is extreme, are as likely as generic ones."""
    direction_key, sign_key, noise_key, norm_key, least_key = jax.random.split(key, 5)
    # Interpolating a line and a cloud controls the conditioning by construction: spread 0 is collinear.
    line = jax.random.normal(direction_key, (1, dimension)) * jax.random.rademacher(sign_key, (num_frames, 1), dtype=float)
    cloud_key, spread_key = jax.random.split(noise_key)
    spread = 10.0 ** jax.random.uniform(spread_key, minval=-6.0, maxval=1.0)
    return {
        "directions": line + spread * jax.random.normal(cloud_key, (num_frames, dimension)),
        "excess": jax.random.normal(norm_key, (num_frames,)) * jax.random.bernoulli(least_key, shape=(num_frames,)),
        "log_min_norm": jax.random.uniform(least_key, minval=-3.0, maxval=3.0),
    }


def unit_rows(vectors: jax.Array) -> jax.Array:
    """Rows scaled to norm 1; a zero row becomes the first basis vector, so that every parameter gives an instance."""
    squared = jnp.sum(vectors**2, axis=1, keepdims=True)
    first = jnp.zeros_like(vectors).at[:, 0].set(1.0)
    return jnp.where(squared > 0, vectors / jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), first)


def instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames with norms m (1 + excess^2) >= m, touching the boundary where the excess vanishes."""
    min_norm = jnp.exp(parameters["log_min_norm"])
    norms = min_norm * (1.0 + parameters["excess"] ** 2)
    return {"frames": norms[:, None] * unit_rows(parameters["directions"]), "min_norm": min_norm}


def operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from frames to an eigenvalue of the dense Hessian.

    Second derivatives by two sweeps of automatic differentiation touch each of the d products of a dot product, the norms and the division a
    bounded number of times (counted generously as 16), for each of the N - 2 terms; the symmetric eigensolver is backward stable with a
    modest multiple (counted as 16) of the matrix dimension N d.
    """
    return 16 * (dimension + num_frames) + 16 * num_frames * dimension


def dense_hessian(frames: jax.Array) -> jax.Array:
    """Hessian of the temporal loss, (N d, N d), by automatic differentiation; shares nothing with the proofs of the bounds."""
    num_frames, dimension = frames.shape
    flat = jnp.reshape(frames, (-1,))
    hessian = jax.hessian(lambda vector: temporal_loss(jnp.reshape(vector, (num_frames, dimension))))(flat)
    return (hessian + hessian.T) / 2


def extreme_eigenvalue(matrix: jax.Array, *, largest_magnitude: bool) -> jax.Array:
    """Top eigenvalue, or the one of largest magnitude, of a symmetric matrix, in absolute value or not.

    Its derivative is v^T dM v with the eigenvector v held fixed (envelope theorem), which stays finite at repeated eigenvalues, where the
    derivative of an eigendecomposition does not.
    """
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    top = vectors[:, -1] @ (matrix @ vectors[:, -1])
    if not largest_magnitude:
        return top
    bottom = vectors[:, 0] @ (matrix @ vectors[:, 0])
    return jnp.maximum(jnp.abs(top), jnp.abs(bottom))


def reduce_frames(features: np.ndarray) -> np.ndarray:
    """Frames of any dimension as (N, min(d, N + 1)), with the same Hessian spectrum up to multiplicity.

    The loss depends on inner products only, so a rotation takes the N frames into R^N; every direction normal to their span acts alike, so
    one spare coordinate keeps the normal part of the spectrum.

    Args:
        features: (frames, ...) float64.
    """
    flat = np.reshape(features, (features.shape[0], -1))
    num_frames, dimension = flat.shape
    if dimension <= num_frames + 1:
        return flat
    triangular = np.linalg.qr(flat.T, mode="r")
    return np.concatenate([triangular.T, np.zeros((num_frames, 1))], axis=1)
