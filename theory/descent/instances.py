"""Instances shared by the theorems on descent: frames built from their similarities, and critical points of the loss."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Parameters
from theory.temporal_loss import instances
from theory.temporal_loss.hessian import check_num_frames


def draw_normals(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> Parameters:
    """Independent standard normal arrays of the given shapes.

    They are cut from one call of the generator, because each call costs as much compilation as all the rest of an
    instance.
    """
    counts = [math.prod(shape) for shape in shapes.values()]
    numbers = jax.random.normal(key, (sum(counts),))
    parameters, start = {}, 0
    for (name, shape), count in zip(shapes.items(), counts, strict=True):
        parameters[name] = jnp.reshape(numbers[start : start + count], shape)
        start += count
    return parameters


def normal_direction(unit: jax.Array, turn: jax.Array) -> jax.Array:
    """A unit vector normal to `unit` (d,), d >= 2; every one is reached by some `turn` (d - 1,) of any real numbers.

    The Householder reflection that takes the first basis vector to plus or minus `unit` takes the turn, put into the
    other coordinates, to a normal vector: nothing cancels and no turn is degenerate.
    """
    sign = jnp.where(unit[0] >= 0, 1.0, -1.0)
    axis = unit.at[0].add(sign)
    padded = jnp.pad(instances.unit_rows(turn[None])[0], (1, 0))
    return padded - jnp.sum(axis * padded) / jnp.abs(axis[0]) * axis


def chain(similarities: jax.Array, turns: jax.Array) -> jax.Array:
    """Unit frames with the given similarities, the first along the first axis.

        u_{t+1} = s_t u_t + sqrt(1 - s_t^2) n_t,   n_t normal to u_t

    Where s_t is exactly 1 or -1 the next frame is exactly plus or minus the last.

    Args:
        similarities: (N - 1,) in [-1, 1].
        turns: (N - 1, d - 1) any real numbers, d >= 2, which give the normals (see `normal_direction`).
    """
    first = jnp.zeros(turns.shape[1] + 1).at[0].set(1.0)
    sines = jnp.sqrt(jnp.maximum((1 - similarities) * (1 + similarities), 0.0))

    def follow(unit: jax.Array, step: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        cosine, sine, turn = step
        following = cosine * unit + sine * normal_direction(unit, turn)
        return following, following

    _, others = jax.lax.scan(follow, first, (similarities, sines, turns))
    return jnp.concatenate([first[None], others])


def profile(raw: jax.Array) -> jax.Array:
    """(N - 1,) real numbers, shifted and stretched to run exactly from -1 to 1; a ramp where they are all equal."""
    low, high = jnp.min(raw), jnp.max(raw)
    half = (high - low) / 2
    ramp = jnp.linspace(-1.0, 1.0, raw.shape[0])
    return jnp.where(half > 0, jnp.clip((raw - (low + high) / 2) / jnp.where(half > 0, half, 1.0), -1.0, 1.0), ramp)


def critical_similarities(raw: jax.Array) -> jax.Array:
    """(N - 1,) similarities of a critical point of the loss with a nonzero value.

    Some positions, the ends among them, are knots with s = 1 or -1, two of them of different sign; in between s is
    linear, so that y_t = 0 there. Every pattern of knots is reached: the sign of an entry is the sign of its knot, and
    an inner entry of magnitude above 1/2 is a knot.
    """
    count = raw.shape[0]
    positions = jnp.arange(count)
    knots = (jnp.abs(raw) > 0.5).at[jnp.asarray([0, count - 1])].set(True)
    signs = jnp.where(raw >= 0, 1.0, -1.0)
    constant = jnp.all(~knots | (signs == signs[0]))
    signs = signs.at[-1].set(jnp.where(constant, -signs[-1], signs[-1]))
    before = jax.lax.cummax(jnp.where(knots, positions, 0))
    after = jax.lax.cummin(jnp.where(knots, positions, count - 1), reverse=True)
    share = (positions - before) / jnp.maximum(after - before, 1)
    return signs[before] + share * (signs[after] - signs[before])


def steepest_frames(num_frames: int, dimension: int = 2, offset: float = 0.0) -> np.ndarray:
    """Frames whose neighbours are orthogonal and whose second neighbours are opposite, displaced along the stiffest direction.

    At offset 0 all similarities vanish and the top eigenvalue of the Hessian is (2/(N-2)) ||D_2||^2; the eigenvector is
    tangential, so the displaced frames have norms >= 1. A small offset makes its gradient point along that eigenvector.

    Returns:
        (num_frames, dimension) float64.

    Raises:
        ValueError: fewer than 3 frames, or dimension < 2.
    """
    check_num_frames(num_frames)
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the loss is constant between zero frames")
    # e1, e2, -e1, -e2, e1, ..; the tangent of frame t is the direction of frame t + 1, along which s_{t-1} falls and s_t rises.
    circle = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    frames, tangents = np.zeros((num_frames, dimension)), np.zeros((num_frames, dimension))
    frames[:, :2] = circle[np.arange(num_frames) % 4]
    tangents[:, :2] = circle[(np.arange(num_frames) + 1) % 4]
    # ds_t = x_t - x_{t+1} for F_t + x_t tangent_t, so D s = D_2 x up to sign.
    second_differences = np.diff(np.eye(num_frames), n=2, axis=0)
    amplitudes = np.linalg.eigh(second_differences.T @ second_differences)[1][:, -1]
    return frames + offset * amplitudes[:, None] * tangents
