"""The similarities along a curve of frames, expanded without cancellation: what a step that is not tangential does to
the loss."""

import jax
import jax.numpy as jnp


def similarities_along(
    frames: jax.Array, velocity: jax.Array, bend: jax.Array, step_size: jax.Array, epsilon: jax.Array | float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """The similarities after a step along a parabola, regularised or not.

        s(F - eta V + eta^2 Q) = s(F) + eta first + eta^2 second,   exactly, first = - ds(F)[V]

    With n^2 = ||F_t||^2 + eps^2 and y = n_+ / n its ratio after and before the step, 1 / y = 1 + eta a + eta^2 c for

        a = <F_t, V_t> / n^2,   c = - (||V_t||^2 + 2 <F_t, Q_t> - 2 eta <V_t, Q_t> + eta^2 ||Q_t||^2) / (2 n^2)
                                    + (beta^2 / 2) (y + 2) / (y (1 + y)^2),   1 + eta beta = y^2

    and s is the product of <F_t, F_{t+1}> after the step and of two such factors. Source: paper_notes.md, C2.one-step.

    Args:
        frames, velocity, bend: F, V, Q of (frames, dimension).
        step_size: eta.
        epsilon: the regularisation of the norms; at 0 no frame may vanish before or after the step.
    """

    def pairs(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.sum(left[:-1] * right[1:], axis=1)

    def rows(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.sum(left * right, axis=1)

    squares = rows(frames, frames) + epsilon**2
    moved = frames - step_size * velocity + step_size**2 * bend
    growth = jnp.sqrt((rows(moved, moved) + epsilon**2) / squares)
    pull = rows(frames, velocity) / squares
    curved = rows(velocity, velocity) + 2 * rows(frames, bend) - 2 * step_size * rows(velocity, bend)
    curved = (curved + step_size**2 * rows(bend, bend)) / squares
    beta = step_size * curved - 2 * pull
    second = beta**2 * (growth + 2) / (2 * growth * (1 + growth) ** 2) - curved / 2

    norms = jnp.sqrt(squares[:-1] * squares[1:])
    product = pairs(frames, frames)
    linear = pairs(velocity, frames) + pairs(frames, velocity)
    quadratic = pairs(velocity, velocity) + pairs(bend, frames) + pairs(frames, bend)
    quadratic = quadratic - step_size * (pairs(velocity, bend) + pairs(bend, velocity))
    quadratic = quadratic + step_size**2 * pairs(bend, bend)
    # (1 + eta a + eta^2 c)(1 + eta a' + eta^2 c') = 1 + eta pulls + eta^2 rest.
    pulls = pull[:-1] + pull[1:]
    rest = second[:-1] + second[1:] + pull[:-1] * pull[1:] + step_size**2 * second[:-1] * second[1:]
    rest = rest + step_size * (pull[:-1] * second[1:] + second[:-1] * pull[1:])
    first = (product * pulls - linear) / norms
    beyond = product * rest - linear * pulls + quadratic
    beyond = beyond + step_size * (quadratic * pulls - linear * rest) + step_size**2 * quadratic * rest
    return first, beyond / norms


def averaged_curvature(
    frames: jax.Array,
    velocity: jax.Array,
    bend: jax.Array,
    step_size: jax.Array,
    squared_step: jax.Array,
    epsilon: jax.Array | float = 0.0,
) -> jax.Array:
    """The curvature that a step of an objective L(Phi(theta)) sees, averaged along it; 0 where there is no step.

        kappa = 2 [L(F - eta V + eta^2 Q) - L(F) + eta <grad L(F), V>] / (eta^2 ||v||^2)
              = 2 [<y, second> + |D (first + eta second)|^2 / (N-2)] / ||v||^2

    since L is quadratic in s and <y, first> = - <grad L(F), V>: the terms of first order have cancelled.

    Args:
        frames, velocity, bend, step_size, epsilon: as for `similarities_along`, for theta - eta v.
        squared_step: ||v||^2, the squared norm of the direction in the parameters.
    """
    first, second = similarities_along(frames, velocity, bend, step_size, epsilon)
    norms = jnp.sqrt(jnp.sum(frames**2, axis=1) + epsilon**2)
    cosines = jnp.sum(frames[:-1] * frames[1:], axis=1) / (norms[:-1] * norms[1:])
    steps = jnp.pad(jnp.diff(cosines), 1)
    slopes = 2 / (frames.shape[0] - 2) * (steps[:-1] - steps[1:])
    remainder = jnp.sum(slopes * second) + jnp.mean(jnp.diff(first + step_size * second) ** 2)
    return 2 * remainder / jnp.where(squared_step > 0, squared_step, 1.0)
