"""The certificate of a two-layer predictor: two recursions of radii, in NumPy with rounding and in JAX for the search.

Source: paper_notes.md, C3.two-layer; the statement is in two_layer.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.inversion import instances
from theory.inversion.ddim import Predictor
from theory.inversion.schedule import is_traced
from theory.rounding import relative_budget

TANH_CURVATURE = 4 / (3 * math.sqrt(3))
"""max |tanh''|, where tanh^2 = 1/3."""
TANH_ROUNDINGS = 8
"""What an implementation of tanh is granted, in roundings; NumPy and PyTorch state errors of at most 4 units in the
last place."""
SMALLEST = 1e-200
"""Added under square roots whose argument can vanish, where they have no gradient."""


class TwoLayer(NamedTuple):
    """The weights of e_k(y) = skip_k y + outer tanh(scales_k inner y + biases_k) + offsets_k; NumPy or JAX.

    Attributes:
        skip, scales: (N + 1,) per level.
        inner: (units, dimension).
        biases: (N + 1, units).
        outer: (dimension, units).
        offsets: (N + 1, dimension).
    """

    skip: Any
    inner: Any
    scales: Any
    biases: Any
    outer: Any
    offsets: Any


class Tube(NamedTuple):
    """Two enclosures of the error E_k = w_k - z_k, level 0 nearest the data.

    Attributes:
        ball: (N + 1,) r_k, with ||E_k|| <= r_k.
        first_order: (N + 1, dimension) the first-order error, up to rounding.
        deviation: (N + 1,) rho_k, with ||E_k - first_order_k|| <= rho_k.
        growth: (N,) g_k = ||I - h_k J_{k+1}(z_{k+1})|| or an upper bound on it.
    """

    ball: Any
    first_order: Any
    deviation: Any
    growth: Any

    @property
    def radii(self):
        """min(r_k, ||first_order_k|| + rho_k), (N + 1,)."""
        around = instances.norms(self.first_order) + self.deviation
        return (jnp if is_traced(around) else np).minimum(self.ball, around)


def network_predictor(network: TwoLayer, sharpness: Any = 1.0) -> Predictor:
    """The network as a function of state and level; JAX. Its activation is tanh(sharpness p) / sharpness."""

    def predict(state: jax.Array, level: jax.Array) -> jax.Array:
        inner = network.scales[level] * (network.inner @ state) + network.biases[level]
        return (
            network.skip[level] * state
            + network.outer @ (jnp.tanh(sharpness * inner) / sharpness)
            + network.offsets[level]
        )

    return predict


def norm_bound(matrix: np.ndarray) -> float:
    """An upper bound on the spectral norm of a float64 matrix, rounding included.

    With W the computed right singular vectors, nearly orthogonal, C = A W^T and G = C^T C nearly diagonal,

        ||A||^2 <= ||C||^2 ||W^{-1}||^2 <= max_i sum_j |G_ij| / (1 - ||W W^T - I||_F).

    Nothing is assumed of the decomposition: were it wrong, the bound would be large. Every product of matrices A B is
    granted gamma_n ||A||_F ||B||_F.

    Raises:
        ValueError: no finite matrix with two axes, or singular vectors so far from orthogonal that nothing follows.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"the matrix has shape {matrix.shape}; finite values and two axes are needed")
    rows, columns = matrix.shape
    if rows < columns:
        matrix, (rows, columns) = matrix.T, (columns, rows)
    right = np.linalg.svd(matrix, full_matrices=False)[2]
    gamma = relative_budget(2 * (rows + columns))
    size, vectors = np.linalg.norm(matrix), np.linalg.norm(right)
    turned = matrix @ right.T
    gram = np.abs(turned.T @ turned).sum(axis=1).max()
    skew = np.linalg.norm(right @ right.T - np.eye(columns)) + gamma * vectors**2
    if not skew < 0.5:
        raise ValueError(f"the singular vectors deviate from orthogonal by {skew:.3g}; less than 0.5 is needed")
    stretched = np.sqrt(gram + gamma * np.linalg.norm(turned) ** 2) + gamma * size * vectors
    return float((1 + gamma) * stretched / np.sqrt(1 - skew))


def planar_norm(matrix: jax.Array) -> jax.Array:
    """An upper bound on the spectral norm of a matrix one side of which is 2, in closed form; JAX."""
    gram = matrix.T @ matrix if matrix.shape[1] == 2 else matrix @ matrix.T
    half_gap = (gram[0, 0] - gram[1, 1]) / 2
    largest = jnp.trace(gram) / 2 + jnp.sqrt(half_gap**2 + gram[0, 1] ** 2 + SMALLEST)
    return (1 + relative_budget(16)) * jnp.sqrt(largest)


def frobenius(matrix: Any) -> Any:
    return (matrix**2).sum() ** 0.5


def prediction_rounding(network: TwoLayer, size: Any) -> Any:
    """How far a computed prediction at states of this size, (N + 1,), may lie from the network's, per level, (N + 1,).

    The sum of U y + b has dimension + 1 terms, that of V tanh(.) one for each unit; tanh passes on an error of its
    argument undiminished at most. Each is granted OPERATIONS_PER_STEP roundings more for the change of variables.
    """
    units, dimension = network.inner.shape
    gamma = relative_budget(units + dimension + TANH_ROUNDINGS + 2 * instances.OPERATIONS_PER_STEP)
    arguments = abs(network.scales) * frobenius(network.inner) * size + instances.norms(network.biases)
    # |tanh(p)| <= min(|p|, 1)
    inside = 2 * frobenius(network.outer) * arguments
    return gamma * (abs(network.skip) * size + inside + instances.norms(network.offsets))


def each_in_turn(function: Callable[[int], tuple[Any, ...]], count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.stack(parts) for parts in zip(*map(function, range(count)), strict=True))


def fold_in_turn(
    function: Callable[[tuple[Any, ...], int], tuple[Any, ...]], start: tuple[Any, ...], count: int
) -> tuple[np.ndarray, ...]:
    states = [start]
    for index in reversed(range(count)):
        states.append(function(states[-1], index))
    return tuple(np.stack(parts[::-1]) for parts in zip(*states, strict=True))


def fold_at_once(
    function: Callable[[tuple[Any, ...], Any], tuple[Any, ...]], start: tuple[Any, ...], count: int
) -> tuple[jax.Array, ...]:
    def body(state: tuple[Any, ...], index: jax.Array):
        following = function(state, index)
        return following, following

    _, below = jax.lax.scan(body, start, jnp.arange(count), reverse=True)
    return jax.tree.map(lambda part, last: jnp.concatenate([part, last[None]]), below, start)


def each_at_once(function: Callable[[Any], tuple[Any, ...]], count: int) -> tuple[jax.Array, ...]:
    return jax.vmap(function)(jnp.arange(count))


class Linearised(NamedTuple):
    """What the recursions need of each step, and of the whole network."""

    matrices: Any  # A_k, (N, dimension, dimension)
    growth: Any  # (N,), bounds on ||A_k||
    errors: Any  # (N,), rounding of A_k
    caps: Any  # (N, units)
    inner_rows: Any
    inner_norm: Any
    outer_norm: Any
    gamma: float


def linearise(
    xp: Any,
    each: Callable[..., tuple[Any, ...]],
    norm: Callable[[Any], Any],
    network: TwoLayer,
    steps: Any,
    states: Any,
    sharpness: Any = 1.0,
) -> Linearised:
    """The network's derivative along the inversion, in NumPy or JAX.

    Args:
        each: stacks a function's results over the steps.
        norm: bounds a spectral norm from above.
    """
    units, dimension = network.inner.shape
    gamma = relative_budget(units + dimension + TANH_ROUNDINGS + instances.OPERATIONS_PER_STEP)
    inner_rows = instances.norms(network.inner)
    sizes = frobenius(network.inner) * frobenius(network.outer)

    def linearised(step: Any) -> tuple[Any, Any, Any, Any]:
        scale, state = network.scales[step + 1], states[step + 1]
        arguments = scale * (network.inner @ state) + network.biases[step + 1]
        slopes = 1 - xp.tanh(sharpness * arguments) ** 2
        # Rounding of p, passed on by |phi''|, and of tanh.
        slope_error = gamma * (
            1 + abs(scale) * xp.max(inner_rows) * (state**2).sum() ** 0.5 + xp.max(abs(network.biases[step + 1]))
        )
        bent = scale * (network.outer * slopes[None, :]) @ network.inner
        matrix = xp.eye(dimension) - steps[step] * (network.skip[step + 1] * xp.eye(dimension) + bent)
        error = gamma * dimension**0.5 * (1 + abs(steps[step] * network.skip[step + 1])) + abs(
            steps[step] * scale
        ) * sizes * (gamma + slope_error)
        return matrix, norm(matrix) + error, error, xp.maximum(slopes, 1 - slopes) + slope_error

    return Linearised(*each(linearised, steps.shape[0]), inner_rows, norm(network.inner), norm(network.outer), gamma)


def widen(
    xp: Any,
    fold: Callable[..., tuple[Any, ...]],
    network: TwoLayer,
    linearised: Linearised,
    steps: Any,
    defects: Any,
    slack: Any,
    start_radius: Any,
    *,
    curvature: float = TANH_CURVATURE,
    growth_shift: int = 0,
) -> Tube:
    """The two recursions, in NumPy or JAX.

    Args:
        fold: stacks the results from the noise end down, each step given that of the one above.
        curvature, growth_shift: other than by default only to plant an error.
    """
    matrices, growth, errors, caps, inner_rows, inner_norm, outer_norm, gamma = linearised

    def widened(state: tuple[Any, Any, Any], step: Any) -> tuple[Any, Any, Any]:
        moved, deviation, ball = state
        scale, length = abs(network.scales[step + 1]), abs(steps[step])
        gain, cap = growth[xp.maximum(step - growth_shift, 0)], caps[step]
        defect, given = instances.norms(defects[step]), (moved**2).sum() ** 0.5
        rows = scale * inner_rows
        lipschitz = curvature * outer_norm * scale * inner_norm * xp.max(rows)
        most = outer_norm * scale * inner_norm * xp.max(cap)
        ball = gain * ball + length * xp.minimum(lipschitz * ball / 2, most) * ball + defect + slack[step]
        straight, width = scale * abs(network.inner @ moved), deviation + gamma * given
        reach = straight + rows * width
        together = (straight**2).sum() ** 0.5 + scale * inner_norm * width
        bent = xp.minimum(
            instances.norms(xp.minimum(curvature / 2 * reach**2, cap * reach)),
            xp.minimum(curvature / 2 * xp.max(reach), xp.max(cap)) * together,
        )
        # The first-order error is known as well as its matrix and one product with it are.
        rounding = errors[step] * given + gamma * (frobenius(matrices[step]) * given + defect) + slack[step]
        deviation = gain * deviation + length * outer_norm * bent + rounding
        return matrices[step] @ moved - defects[step], (1 + gamma) * deviation, (1 + gamma) * ball

    start = (xp.zeros(matrices.shape[-1]), xp.asarray(start_radius), xp.asarray(start_radius))
    first_order, deviation, ball = fold(widened, start, steps.shape[0])
    return Tube(ball, first_order, deviation, growth)


def certify_two_layer(
    network: TwoLayer,
    sigmas: Any,
    inversion: Any,
    defects: Any,
    *,
    slack: Any = 0.0,
    start_radii: Sequence[float] = (0.0,),
) -> tuple[Tube, ...]:
    """Enclosures of every sampling trajectory that starts within a radius of where an inversion ended.

    Rounding is part of the radii: they hold for the exact network with these float64 weights.

    Args:
        network: tanh units, as NumPy arrays.
        sigmas: (N + 1,) noise levels.
        inversion: (N + 1, dimension) the states z_k, in the variables y = x / sqrt(alphas_cumprod).
        defects: (N, dimension) d_k = h_k (e_{k+1}(z_{k+1}) - e^_k).
        slack: how far a step of inversion and sampling together may lie from the exact ones, (N,) or a number >= 0.
        start_radii: values of r_N >= 0, the largest ||w_N - z_N||; the derivative along the inversion is shared.

    Returns:
        A tube for each radius.

    Raises:
        ValueError: sizes that differ; values that are not finite; a negative slack or radius.

    Source: paper_notes.md, C3.two-layer.
    """
    network = TwoLayer(*(np.asarray(weights, dtype=np.float64) for weights in network))
    sigmas, inversion, defects = (np.asarray(value, dtype=np.float64) for value in (sigmas, inversion, defects))
    num_steps = len(sigmas) - 1
    slack = np.broadcast_to(np.asarray(slack, dtype=np.float64), (num_steps,))
    if network.inner.ndim != 2:
        raise ValueError(f"inner has shape {network.inner.shape}; (units, dimension) is needed")
    units, dimension = network.inner.shape
    levels = num_steps + 1
    expected = {
        "skip": (levels,),
        "scales": (levels,),
        "biases": (levels, units),
        "outer": (dimension, units),
        "offsets": (levels, dimension),
    }
    given = {name: getattr(network, name) for name in expected}
    given |= {"inversion": inversion, "defects": defects}
    expected |= {"inversion": (levels, dimension), "defects": (num_steps, dimension)}
    for name, value in given.items():
        if value.shape != expected[name]:
            raise ValueError(
                f"{name} has shape {value.shape}; {expected[name]} is needed for {num_steps} steps, {units} units and "
                f"dimension {dimension}"
            )
    for name, value in {**given, "inner": network.inner, "noise levels": sigmas, "slack": slack}.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"{name} holds {np.count_nonzero(~np.isfinite(value))} values that are not finite; repair them first"
            )
    radii = np.asarray(start_radii, dtype=np.float64)
    if radii.ndim != 1 or not (np.isfinite(radii) & (radii >= 0)).all() or (slack < 0).any():
        raise ValueError(f"start_radii = {start_radii}, slack at least {slack.min()}; finite values >= 0 are needed")
    steps = np.diff(sigmas)
    linearised = linearise(np, each_in_turn, norm_bound, network, steps, inversion)
    return tuple(widen(np, fold_in_turn, network, linearised, steps, defects, slack, radius) for radius in radii)
