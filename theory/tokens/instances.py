"""Families of attention instances that satisfy hypotheses by construction, for every real parameter."""

import math

import jax
import jax.numpy as jnp

from theory.rounding import relative_budget
from theory.tokens.attention import attend


def unit(vector: jax.Array) -> jax.Array:
    """The vector scaled to norm 1; a zero vector becomes the first basis vector."""
    largest = jnp.max(jnp.abs(vector))
    scaled = vector / jnp.where(largest > 0, largest, 1.0)
    first = jnp.zeros_like(vector).at[0].set(1.0)
    filled = jnp.where(largest > 0, scaled, first)
    return filled / jnp.sqrt(jnp.sum(filled**2))


def norm(array: jax.Array) -> jax.Array:
    """Euclidean norm of all entries, with derivative 0 at 0."""
    squared = jnp.sum(array**2)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def row_norms(array: jax.Array) -> jax.Array:
    """Euclidean norms along the last axis, with derivative 0 at 0."""
    squared = jnp.sum(array**2, axis=-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def diameter(points: jax.Array) -> jax.Array:
    """Largest distance of two rows of (count, width)."""
    return jnp.max(row_norms(points[:, None, :] - points[None, :, :]))


def simplex(raw: jax.Array) -> jax.Array:
    """raw^2 / sum raw^2, which reaches every point of the simplex; all alike where raw = 0."""
    largest = jnp.max(jnp.abs(raw))
    filled = jnp.where(largest > 0, raw / jnp.where(largest > 0, largest, 1.0), 1.0)
    return filled**2 / jnp.sum(filled**2)


def keys_of_logits(query: jax.Array, logits: jax.Array) -> jax.Array:
    """Keys (n, d) that give a unit query these logits.

    k_j = sqrt(d) a_j q
    """
    return math.sqrt(query.shape[0]) * logits[:, None] * query[None, :]


def rounded_down(value: jax.Array, scale: jax.Array, operations: int) -> jax.Array:
    """A computed magnitude less its rounding, which scales with the operands and not with the value; at least 0."""
    return jnp.maximum(value - relative_budget(operations) * scale, 0.0)


def distances(values: jax.Array, target: jax.Array) -> jax.Array:
    """||v_j - t||, (n,)."""
    return row_norms(values - target[None, :])


def attention_error(query: jax.Array, keys: jax.Array, values: jax.Array, target: jax.Array) -> jax.Array:
    """|| sum_j p_j (v_j - t) ||: the error of one query, with the target subtracted before the sum, so that values
    which coincide with it cost no rounding."""
    return norm(attend(query, keys, values - target[None, :]))
