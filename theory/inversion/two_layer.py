r"""Bound B1 as a theorem about a trained network: the sampling trajectory of a two-layer predictor, enclosed from the
inversion alone.

Statement. Let the predictor that samples be, at every level,

    e_k(y) = s_k y + V \varphi(U_k y + b_k) + c_k,    U_k = a_k U,    0 \le \varphi' \le 1,  |\varphi''| \le \kappa,

let z be the inversion with defects d_k, A_k = I - h_k J_{k+1}(z_{k+1}) with J = s I + V diag(phi'(p)) U the Jacobian at
p = U z + b, g_k = ||A_k||, c_i = max(phi'(p_i), 1 - phi'(p_i)), and ||w_N - z_N|| \le r_N. Then ||E_k|| \le min(r_k,
||\hat E_k|| + \rho_k) with the ball around the inversion

    r_k = g_k r_{k+1} + |h_k| \min(\tfrac12 M_{k+1} r_{k+1}, \Lambda_{k+1}) r_{k+1} + \|d_k\|,
    M = \kappa \|V\| \|U\| \max_i \|u_i\|,   \Lambda = \|V\| \|U\| \max_i c_i

(u_i the rows of U: this is B1, and M is a Lipschitz constant of J), and the ball around the first-order error

    \hat E_k = A_k \hat E_{k+1} - d_k,   \hat E_N = 0,   \rho_N = r_N,
    \rho_k = g_k \rho_{k+1} + |h_k| \|V\| \min\bigl(\|(\min(\tfrac\kappa2 q_i^2, c_i q_i))_i\|,
                                               \min(\tfrac\kappa2 \max_i q_i, \max_i c_i) \, q\bigr),
    q_i = |u_i \cdot \hat E_{k+1}| + \|u_i\| \rho_{k+1},   q = \|U \hat E_{k+1}\| + \|U\| \rho_{k+1}.

Neither needs the sampling trajectory, a Lipschitz constant of the predictor, or levels that increase. The second keeps
the direction of the error, so that only what the curvature can change has a radius.

Hypotheses.
    H1  The predictor that samples is this network, with these weights, at levels 1, .., N.
    H2  0 <= phi' <= 1 and |phi''| <= kappa; for tanh kappa = 4 / (3 sqrt 3).
    H3  ||w_N - z_N|| <= r_N; 0 where sampling starts where the inversion ended.

**Attained** only where no network is left (V = 0), whatever the direction of the defects. With hidden units it is an upper bound.

Not in the paper. Proof: paper_notes.md, section C3.two-layer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence, TwoLayerRecord
from theory.inversion import instances
from theory.inversion.ddim import Convention, Predictor, RoundTrip, recorded_round_trip
from theory.inversion.ddim import round_trip as simulate
from theory.inversion.round_trip import groenwall_instance
from theory.inversion.schedule import is_traced
from theory.rounding import relative_budget

TANH_CURVATURE = 4 / (3 * math.sqrt(3))
"""max |tanh''|, where tanh^2 = 1/3."""
TANH_ROUNDINGS = 8
"""What an implementation of tanh is granted, in roundings; NumPy and PyTorch state errors of at most 4 units in the
last place."""
ASSUMPTIONS = 4
"""How often assumed radii are enlarged before a recorded certificate is given up."""
UNITS = 3
SMALLEST = 1e-200
"""Added under square roots whose argument can vanish, where they have no gradient."""
SIZES: tuple[Size, ...] = ((("num_steps", 4),),)


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


def _planar_norm(matrix: jax.Array) -> jax.Array:
    """An upper bound on the spectral norm of a matrix one side of which is 2, in closed form; JAX."""
    gram = matrix.T @ matrix if matrix.shape[1] == 2 else matrix @ matrix.T
    half_gap = (gram[0, 0] - gram[1, 1]) / 2
    largest = jnp.trace(gram) / 2 + jnp.sqrt(half_gap**2 + gram[0, 1] ** 2 + SMALLEST)
    return (1 + relative_budget(16)) * jnp.sqrt(largest)


def _frobenius(matrix: Any) -> Any:
    return (matrix**2).sum() ** 0.5


def prediction_rounding(network: TwoLayer, size: Any) -> Any:
    """How far a computed prediction at states of this size, (N + 1,), may lie from the network's, per level, (N + 1,).

    The sum of U y + b has dimension + 1 terms, that of V tanh(.) one for each unit; tanh passes on an error of its
    argument undiminished at most. Each is granted OPERATIONS_PER_STEP roundings more for the change of variables.
    """
    units, dimension = network.inner.shape
    gamma = relative_budget(units + dimension + TANH_ROUNDINGS + 2 * instances.OPERATIONS_PER_STEP)
    arguments = abs(network.scales) * _frobenius(network.inner) * size + instances.norms(network.biases)
    # |tanh(p)| <= min(|p|, 1)
    inside = 2 * _frobenius(network.outer) * arguments
    return gamma * (abs(network.skip) * size + inside + instances.norms(network.offsets))


def _each_in_turn(function: Callable[[int], tuple[Any, ...]], count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.stack(parts) for parts in zip(*map(function, range(count)), strict=True))


def _fold_in_turn(
    function: Callable[[tuple[Any, ...], int], tuple[Any, ...]], start: tuple[Any, ...], count: int
) -> tuple[np.ndarray, ...]:
    states = [start]
    for index in reversed(range(count)):
        states.append(function(states[-1], index))
    return tuple(np.stack(parts[::-1]) for parts in zip(*states, strict=True))


def _fold_at_once(
    function: Callable[[tuple[Any, ...], Any], tuple[Any, ...]], start: tuple[Any, ...], count: int
) -> tuple[jax.Array, ...]:
    def body(state: tuple[Any, ...], index: jax.Array):
        following = function(state, index)
        return following, following

    _, below = jax.lax.scan(body, start, jnp.arange(count), reverse=True)
    return jax.tree.map(lambda part, last: jnp.concatenate([part, last[None]]), below, start)


def _each_at_once(function: Callable[[Any], tuple[Any, ...]], count: int) -> tuple[jax.Array, ...]:
    return jax.vmap(function)(jnp.arange(count))


class _Linearised(NamedTuple):
    """What the recursions need of each step, and of the whole network."""

    matrices: Any  # A_k, (N, dimension, dimension)
    growth: Any  # (N,), bounds on ||A_k||
    errors: Any  # (N,), rounding of A_k
    caps: Any  # (N, units)
    inner_rows: Any
    inner_norm: Any
    outer_norm: Any
    gamma: float


def _linearise(
    xp: Any,
    each: Callable[..., tuple[Any, ...]],
    norm: Callable[[Any], Any],
    network: TwoLayer,
    steps: Any,
    states: Any,
    sharpness: Any = 1.0,
) -> _Linearised:
    """The network's derivative along the inversion, in NumPy or JAX.

    Args:
        each: stacks a function's results over the steps.
        norm: bounds a spectral norm from above.
    """
    units, dimension = network.inner.shape
    gamma = relative_budget(units + dimension + TANH_ROUNDINGS + instances.OPERATIONS_PER_STEP)
    inner_rows = instances.norms(network.inner)
    sizes = _frobenius(network.inner) * _frobenius(network.outer)

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

    return _Linearised(
        *each(linearised, steps.shape[0]), inner_rows, norm(network.inner), norm(network.outer), gamma
    )


def _widen(
    xp: Any,
    fold: Callable[..., tuple[Any, ...]],
    network: TwoLayer,
    linearised: _Linearised,
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
        rounding = errors[step] * given + gamma * (_frobenius(matrices[step]) * given + defect) + slack[step]
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
    linearised = _linearise(np, _each_in_turn, norm_bound, network, steps, inversion)
    return tuple(_widen(np, _fold_in_turn, network, linearised, steps, defects, slack, radius) for radius in radii)


def _network(instance: Instance) -> TwoLayer:
    return TwoLayer(*(instance[name] for name in TwoLayer._fields))


def _simulate(instance: Instance) -> RoundTrip:
    network = _network(instance)
    sampled = network._replace(outer=instance["outer_factor"] * network.outer)
    return simulate(
        network_predictor(sampled, instance["sharpness"]),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        start_offset=instance["start_offset"],
    )


def measure(instance: Instance):
    """||E_0|| of an instance."""
    return instances.norms(_simulate(instance).errors[0])


def _slack(trip: RoundTrip, network: TwoLayer) -> jax.Array:
    sensitivity = abs(network.skip) + abs(network.scales) * _frobenius(network.inner) * _frobenius(network.outer)
    constants = _frobenius(network.outer) * instances.norms(network.biases) + instances.norms(network.offsets)
    return instances.rounding_defects(trip, sensitivity[1:], constants[1:])


def _tube_of(instance: Instance, **changes: Any) -> Tube:
    trip, network = _simulate(instance), _network(instance)
    linearised = _linearise(
        jnp, _each_at_once, _planar_norm, network, trip.steps, trip.inversion, instance["sharpness"]
    )
    slack = _slack(trip, network)
    return _widen(
        jnp, _fold_at_once, network, linearised, trip.steps, trip.defects, slack, instance["start_radius"], **changes
    )


def _bound(instance: Instance):
    return _tube_of(instance).radii[0]


def _draw(key: jax.Array, *, num_steps: int) -> Parameters:
    keys = jax.random.split(key, 10)
    levels, dimension = num_steps + 1, instances.DIMENSION
    spread = 10.0 ** jax.random.uniform(keys[0], (2,), minval=-3.0, maxval=0.5)
    return {
        "first_level": jax.random.normal(keys[1]),
        "increments": jax.random.normal(keys[2], (num_steps,)),
        "start": jax.random.normal(keys[3], (dimension,)),
        "convention": instances.draw_convention(keys[4]),
        "skip": jax.random.normal(keys[5], (levels,)),
        "inner": jax.random.normal(keys[6], (UNITS, dimension)),
        "biases": jax.random.normal(keys[7], (levels, UNITS)),
        "outer": spread[0] * jax.random.normal(keys[8], (dimension, UNITS)),
        "offsets": jax.random.normal(keys[9], (levels, dimension)),
        "start_offset": spread[1] * jax.random.normal(keys[0], (dimension,)),
    }


def _instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Levels that increase, and a network whose slopes are those of a predictor that samples: below about 3."""
    return {
        "sigmas": instances.increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": instances.convention(parameters["convention"]),
        "start_offset": parameters["start_offset"],
        # The smallest number that does for an offset of zero, where a norm has no gradient.
        "start_radius": jnp.sqrt(jnp.sum(parameters["start_offset"] ** 2) + SMALLEST),
        "skip": 3 * jnp.tanh(parameters["skip"] / 3),
        "inner": parameters["inner"],
        "scales": jnp.ones(num_steps + 1),
        "biases": parameters["biases"],
        "outer": parameters["outer"],
        "offsets": parameters["offsets"],
        "outer_factor": jnp.asarray(1.0),
        "sharpness": jnp.asarray(1.0),
    }


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=measure,
    bound=_bound,
    operations=instances.operations,
)


def witness(*, num_steps: int) -> Instance:
    """The predictor for which Groenwall is an equality: a network without curvature."""
    groenwall = groenwall_instance(num_steps)
    levels = num_steps + 1
    return {
        **{name: groenwall[name] for name in ("sigmas", "start", "convention", "start_offset")},
        "start_radius": jnp.asarray(SMALLEST**0.5),
        "skip": -groenwall["lipschitz"],
        "inner": jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        "scales": jnp.ones(levels),
        "biases": jnp.zeros((levels, UNITS)),
        "outer": jnp.zeros((instances.DIMENSION, UNITS)),
        "offsets": groenwall["offset"],
        "outer_factor": jnp.asarray(1.0),
        "sharpness": jnp.asarray(1.0),
    }


def witness_parameters(*, num_steps: int) -> Parameters:
    """Parameters from which the family makes the witness."""
    instance = witness(num_steps=num_steps)
    return {
        **instances.level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": instances.convention_parameter(Convention.S),
        "skip": 3 * jnp.arctanh(instance["skip"] / 3),
        **{name: instance[name] for name in ("inner", "biases", "outer", "offsets", "start_offset")},
    }


def _bent(**changes: Any) -> Instance:
    """One unit on a line, at the argument where tanh bends most, and a small defect."""
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    levels = size[0][1] + 1
    instance |= {
        "skip": jnp.zeros(levels),
        "biases": jnp.full((levels, UNITS), math.atanh(1 / math.sqrt(3))) * jnp.asarray([[1.0, 0.0, 0.0]]),
        "outer": jnp.zeros((instances.DIMENSION, UNITS)).at[0, 0].set(-0.5),
        "offsets": jnp.linspace(0.0, 1.0, levels)[:, None] * jnp.asarray([[0.1, 0.0]]),
    }
    return instance | {name: jnp.asarray(value) for name, value in changes.items()}


def _other_weights() -> Outcome:
    return PROBLEM.outcome(_bent(outer_factor=2.0), SIZES[0], "the sampler's outer weights are twice as large")


def _sharper_activation() -> Outcome:
    instance = _bent(sharpness=8.0, biases=_bent()["biases"] / 8)
    return PROBLEM.outcome(instance, SIZES[0], "tanh(8 p) / 8, which bends 8 times as much")


def _other_start() -> Outcome:
    return PROBLEM.outcome(_bent(start_offset=[0.5, 0.0]), SIZES[0], "sampling starts 0.5 away, r_N = 0")


def _first_order_only(instance: Instance):
    return instances.norms(_tube_of(instance).first_order[0])


def _trip_of_frame(trip: RoundTrip, frame: int, num_frames: int) -> RoundTrip:
    return RoundTrip(
        trip.sigmas, *(part.reshape(len(part), num_frames, -1)[:, frame] for part in trip[1:])
    )


def _recorded_slack(network: TwoLayer, trip: RoundTrip, radii: np.ndarray) -> np.ndarray:
    """How far a recorded step up and down together may lie from the exact ones, (N,), if the sampling stays within these radii.

    Of the recorded sampling nothing is used: a state of it is at most its radius further out than the inversion's, and a prediction there at most the
    Lipschitz constant times that radius larger.
    """
    sizes = instances.norms(trip.inversion)
    steepness = abs(network.skip) + abs(network.scales) * _frobenius(network.inner) * _frobenius(network.outer)
    used, at_inversion = instances.norms(trip.inversion_predictions), instances.norms(trip.predictions_at_inversion)
    sampled = at_inversion + steepness[1:] * radii[1:]
    # As `round_trip.recorded_roundings`: a scheduler's step goes through the latent, with operands sigma eps.
    states = 2 * (sizes[1:] + sizes[:-1]) + radii[1:] + radii[:-1]
    steps = relative_budget(instances.OPERATIONS_PER_STEP) * (
        states + (trip.sigmas[:-1] + trip.sigmas[1:]) * (used + sampled + at_inversion)
    )
    return steps + 2 * np.abs(trip.steps) * prediction_rounding(network, sizes + radii)[1:]


def _certify_recorded(network: TwoLayer, trip: RoundTrip, start_radii: Sequence[float]) -> tuple[Tube, ...]:
    """The certificate of a recorded trip, from its inversion alone.

    The slack needs radii and the radii need slack: radii are assumed, and it is checked that those which follow are no larger. By induction from the
    noise end down the assumption then holds, since the slack of a step uses the radii of its own two levels and the recursion only adds to them.

    Raises:
        ValueError: the radii that follow exceed the assumed ones even when these are enlarged.
    """
    largest = max(start_radii)
    assumed = np.full(len(trip.sigmas), largest)
    for _ in range(ASSUMPTIONS):
        slack = _recorded_slack(network, trip, assumed)
        tubes = certify_two_layer(network, trip.sigmas, trip.inversion, trip.defects, slack=slack, start_radii=start_radii)
        found = np.max([tube.radii for tube in tubes], axis=0)
        if (found <= assumed).all():
            return tubes
        assumed = np.maximum(assumed, 2 * found)
    raise ValueError(
        f"the tube of radius {found.max():.3g} does not close on itself after {ASSUMPTIONS} assumptions; its rounding slack is {slack.max():.3g}: "
        "take shorter steps"
    )


def recorded_tubes(
    record: TwoLayerRecord, *, start_radii: Sequence[float] = (0.0,)
) -> Iterator[tuple[RoundTrip, tuple[Tube, ...]]]:
    """Of every frame of a recorded round trip the frame's own round trip, and its certificate for each radius.

    The network sees each frame by itself. The certificate uses the recorded inversion, the weights and the rounding of both directions' steps and
    predictions, which it bounds from the inversion; of the recorded sampling it uses nothing.
    """
    network = TwoLayer(record.skip, record.inner, record.scales, record.biases, record.outer, record.offsets)
    whole = recorded_round_trip(record.trip)
    num_frames = record.trip.inversion.shape[1]
    for frame in range(num_frames):
        trip = _trip_of_frame(whole, frame, num_frames)
        yield trip, _certify_recorded(network, trip, start_radii)


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.two_layer_trips:
        for frame, (trip, (tube,)) in enumerate(recorded_tubes(record)):
            outcomes.append(
                Outcome(
                    f"{record.trip.label}, frame {frame}",
                    float(np.linalg.norm(trip.errors[0])),
                    float(tube.radii[0]),
                    relative_budget(trip.errors.shape[1] + instances.OPERATIONS_PER_STEP),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C3.two-layer",
    title="Certified round-trip error of a trained two-layer network",
    statement=(
        "For a noise predictor with one hidden layer of smooth units the whole sampling trajectory lies in an explicit "
        "tube around the inversion, computed from the inversion, the weights and their rounding alone; so does the "
        "round-trip error."
    ),
    latex=(
        r"\|E_0\| \le \|\hat E_0\| + \rho_0,\quad \rho_k \le g_k \rho_{k+1} + h_k \|V\| \, \bigl\|\tfrac{\kappa}{2} "
        r"q^2\bigr\|,\quad q = |U \hat E_{k+1}| + \rho_{k+1} (\|u_i\|)_i"
    ),
    hypotheses=(
        Hypothesis("H1", "The predictor that samples is this network, with these weights."),
        Hypothesis("H2", "The activation's slope lies in [0, 1], and its second derivative is at most kappa."),
        Hypothesis("H3", "Sampling starts within r_N of where the inversion ended."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    sharpness="attained only without hidden units (V = 0), that is, by no network; with them it is an upper bound, whose gap the report's study shows",
    origin="not in the paper",
    measured_in_words="norm of the round-trip error in the variables y = x / sqrt(alphas_cumprod)",
    bound_in_words="smaller of the two radii at the data's level, in the same variables",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    necessity={"H1": _other_weights, "H2": _sharper_activation, "H3": _other_start},
    planted={
        "the first-order error for a bound": _first_order_only,
        "half the curvature of tanh": lambda instance: _tube_of(instance, curvature=TANH_CURVATURE / 2).radii[0],
        "the sum of the defects without growth": lambda instance: instances.norms(jnp.sum(_simulate(instance).defects, axis=0)),
        "growth of the step below": lambda instance: _tube_of(instance, growth_shift=1).radii[0],
    },
    no_network="It is about networks with one hidden layer, and the UNet has many; the trained network that it is checked on is another one.",
    reality=(
        Comparison(
            question=(
                "Round-trip error of each recorded frame of the trained two-layer network against its certificate, from the inversion, the weights and "
                "rounding alone"
            ),
            origin=Origin.CONSTRUCTED,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="the theorem, whose network and weights these are",
        ),
    ),
    relies_on=("C3.any-inversion",),
    lemmas=("Taylor's formula", "mean value theorem"),
    floor=0.99,
    floor_reason="attained without curvature; ascent takes it out gradually, and aligns start and defects",
)
