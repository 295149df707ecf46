"""Instances shared by the theorems on descent: frames built from their similarities, and critical points of the loss."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from theory.claim import Parameters
from theory.temporal_loss import instances


def draw_normals(key: jax.Array, shapes: Mapping[str, tuple[int, ...]]) -> Parameters:
    """Independent standard normal arrays of the given shapes.

    They are cut from one call of the generator, because each call costs as much compilation as all the rest of an instance.
    """
    counts = [math.prod(shape) for shape in shapes.values()]
    numbers = jax.random.normal(key, (sum(counts),))
    parameters, start = {}, 0
    for (name, shape), count in zip(shapes.items(), counts, strict=True):
        parameters[name] = jnp.reshape(numbers[start : start + count], shape)
        start += count
    return parameters


def normal_direction(unit: jax.Array, turn: jax.Array) -> jax.Array:
    """The unit vector normal to `unit` (d,), d >= 2, in the half plane of `turn`; any one where the turn is parallel to it."""
    normal = turn - jnp.sum(turn * unit) * unit
    basis = jax.nn.one_hot(jnp.argmin(jnp.abs(unit)), unit.shape[0], dtype=unit.dtype)
    spare = basis - jnp.sum(basis * unit) * unit
    # Below that the subtraction has cancelled all but the rounding of the turn, which need not be normal to anything.
    lost = jnp.sum(normal**2) <= 2.0**-40 * jnp.sum(turn**2)
    normal = instances.unit_rows(jnp.where(lost, spare, normal)[None])[0]
    return instances.unit_rows((normal - jnp.sum(normal * unit) * unit)[None])[0]


def chain(similarities: jax.Array, turns: jax.Array) -> jax.Array:
    """Unit frames with the given similarities.

        u_{t+1} = s_t u_t + sqrt(1 - s_t^2) n_t,   n_t normal to u_t, towards turn t + 1

    Where s_t is exactly 1 or -1 the next frame is exactly plus or minus the last.

    Args:
        similarities: (N - 1,) in [-1, 1].
        turns: (N, d) any real numbers, d >= 2; row 0 gives the first frame.
    """
    first = instances.unit_rows(turns[:1])[0]
    sines = jnp.sqrt(jnp.maximum((1 - similarities) * (1 + similarities), 0.0))

    def follow(unit: jax.Array, step: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        cosine, sine, turn = step
        bent = instances.unit_rows((cosine * unit + sine * normal_direction(unit, turn))[None])[0]
        following = jnp.where(sine > 0, bent, jnp.sign(cosine) * unit)
        return following, following

    _, others = jax.lax.scan(follow, first, (similarities, sines, turns[1:]))
    return jnp.concatenate([first[None], others])


def profile(raw: jax.Array) -> jax.Array:
    """(N - 1,) real numbers, shifted and stretched to run exactly from -1 to 1; a ramp where they are all equal."""
    low, high = jnp.min(raw), jnp.max(raw)
    half = (high - low) / 2
    ramp = jnp.linspace(-1.0, 1.0, raw.shape[0])
    return jnp.where(half > 0, jnp.clip((raw - (low + high) / 2) / jnp.where(half > 0, half, 1.0), -1.0, 1.0), ramp)


def critical_similarities(raw: jax.Array) -> jax.Array:
    """(N - 1,) similarities of a critical point of the loss with a nonzero value.

    Some positions, the ends among them, are knots with s = 1 or -1, two of them of different sign; in between s is linear, so that
    y_t = 0 there. Every pattern of knots is reached: the sign of an entry is the sign of its knot, and an inner entry of magnitude above
    1/2 is a knot.
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
