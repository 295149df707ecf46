"""Instances shared by the theorems on round trips: noise levels and predictors of known Lipschitz constant, drawn or
explicit."""

import jax
import jax.numpy as jnp

from theory.claim import Instance, Parameters, Size
from theory.inversion.ddim import Convention, Predictor, RoundTrip, round_trip
from theory.rounding import relative_budget

DIMENSION = 2
SIZES: tuple[Size, ...] = ((("num_steps", 3),), (("num_steps", 8),))

OPERATIONS_PER_STEP = 40
"""Roundings on the longest chain of one step of inversion, sampling and defect, with a predictor evaluated at each.

A matrix-vector product in two dimensions (4), a tanh (4), blend, scale and offset (6), the convention's ratio (6): 20
for a prediction; the step's increment, product and sum (3), the same in the difference of two predictions (6), a norm
(4). 40 is a round number above their sum.
"""


def operations(*, num_steps: int) -> int:
    """Roundings of a round trip, in units of the round-trip error of the Groenwall predictor.

    The rounding defects of a step are OPERATIONS_PER_STEP roundings of its operands. On uniform steps of [0, s] that
    predictor has states of at most c s^2 / 2, four of which enter a step, and predictions of which the step takes h
    times less: at most 4 c s^2 together, against a defect of at least c h^2 = c s^2 / N^2. A step is thus conditioned 4
    N^2 at worst, and growth acts on both alike.
    """
    return 4 * OPERATIONS_PER_STEP * num_steps**2


def bounded_exp(parameters: jax.Array, limit: float) -> jax.Array:
    """exp of the parameters, held between exp(-limit) and exp(limit) smoothly, so that any real parameter gives a
    finite positive number."""
    return jnp.exp(limit * jnp.tanh(parameters / limit))


def bounded_log(values: jax.Array, limit: float) -> jax.Array:
    """The parameters that `bounded_exp` maps to these values, which must lie between exp(-limit) and exp(limit)."""
    return limit * jnp.arctanh(jnp.log(values) / limit)


def level_parameters(sigmas: jax.Array) -> Parameters:
    """The parameters that `increasing_levels` maps to these levels, by the names under which the families draw them."""
    return {"first_level": jnp.sqrt(sigmas[0]), "increments": bounded_log(jnp.diff(sigmas), 2.0)}


def convention_parameter(chosen: Convention) -> jax.Array:
    """A parameter that `convention` maps to this one."""
    return jnp.asarray({Convention.S: -1.0, Convention.T: 0.0, Convention.Y: 1.0}[chosen])


def table_parameters(table: Instance) -> Parameters:
    """The parameters that `tables` maps to this predictor, whose matrices must be rotations."""

    def angles(matrices: jax.Array) -> jax.Array:
        return jnp.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]) - jnp.pi

    return {
        "log_lipschitz": bounded_log(table["lipschitz"], 2.0),
        "blend": jnp.arccos(jnp.sqrt(table["blend"])),
        "angles": jnp.stack([angles(table["linear"]), angles(table["inner"])], axis=1),
        "shift": table["shift"],
        "offset": table["offset"],
    }


def parameters_of(instance: Instance, chosen: Convention) -> Parameters:
    """The parameters from which `instance` makes this one."""
    return {
        **level_parameters(instance["sigmas"]),
        "start": instance["start"],
        "convention": convention_parameter(chosen),
        "tables": table_parameters(instance),
    }


def rotations(angles: jax.Array) -> jax.Array:
    """(..,) angles to (.., 2, 2) rotations."""
    cosines, sines = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([jnp.stack([cosines, -sines], axis=-1), jnp.stack([sines, cosines], axis=-1)], axis=-2)


def increasing_levels(first: jax.Array, increments: jax.Array) -> jax.Array:
    """sigma_0 >= 0 and positive increments from any real parameters."""
    return jnp.concatenate([first[None] ** 2, first**2 + jnp.cumsum(bounded_exp(increments, 2.0))])


def draw_convention(key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, minval=-1.0, maxval=1.0)


def convention(parameter: jax.Array) -> jax.Array:
    """S below -1/3, T between, Y above 1/3."""
    return jnp.where(parameter < -1 / 3, Convention.S, jnp.where(parameter < 1 / 3, Convention.T, Convention.Y))


def draw_tables(key: jax.Array, *, num_steps: int) -> Parameters:
    """Random parameters of a predictor: near -L y, where errors grow fastest, as often as far from it."""
    keys = jax.random.split(key, 6)
    levels = num_steps + 1
    spread = 10.0 ** jax.random.uniform(keys[0], minval=-3.0, maxval=0.5)
    return {
        "log_lipschitz": jax.random.normal(keys[1], (levels,)),
        "blend": spread * jax.random.normal(keys[2], (levels,)),
        "angles": spread * jax.random.normal(keys[3], (levels, 2)),
        "shift": jax.random.normal(keys[4], (levels, DIMENSION)),
        "offset": jax.random.normal(keys[5], (levels, DIMENSION)),
    }


def tables(parameters: Parameters) -> Instance:
    """Per level a Lipschitz constant and a predictor that has it; see `predictor`."""
    return {
        "lipschitz": bounded_exp(parameters["log_lipschitz"], 2.0),
        "blend": jnp.cos(parameters["blend"]) ** 2,
        "linear": rotations(jnp.pi + parameters["angles"][:, 0]),
        "inner": rotations(jnp.pi + parameters["angles"][:, 1]),
        "shift": parameters["shift"],
        "offset": parameters["offset"],
    }


def predictor(table: Instance) -> Predictor:
    """A predictor with Lipschitz constant L_k at level k.

        e_k(y) = L_k (m_k R_k y + (1 - m_k) tanh(Q_k y + c_k)) + b_k,   R_k, Q_k rotations, 0 <= m_k <= 1

    A rotation is an isometry and tanh is 1-Lipschitz, so the constant is at most L_k, and exactly L_k for m_k = 1.
    """

    def predict(state: jax.Array, level: jax.Array) -> jax.Array:
        blend = table["blend"][level]
        linear = table["linear"][level] @ state
        bent = jnp.tanh(table["inner"][level] @ state + table["shift"][level])
        return table["lipschitz"][level] * (blend * linear + (1 - blend) * bent) + table["offset"][level]

    return predict


def draw(key: jax.Array, *, num_steps: int) -> Parameters:
    """Random levels, start, convention and predictor."""
    keys = jax.random.split(key, 5)
    return {
        "first_level": jax.random.normal(keys[0]),
        "increments": jax.random.normal(keys[1], (num_steps,)),
        "start": jax.random.normal(keys[2], (DIMENSION,)),
        "convention": draw_convention(keys[3]),
        "tables": draw_tables(keys[4], num_steps=num_steps),
    }


def instance(parameters: Parameters, *, num_steps: int) -> Instance:
    """Increasing noise levels, one predictor for both directions, sampling from where the inversion ended."""
    return {
        "sigmas": increasing_levels(parameters["first_level"], parameters["increments"]),
        "start": parameters["start"],
        "convention": convention(parameters["convention"]),
        "start_offset": jnp.zeros(DIMENSION),
        **tables(parameters["tables"]),
    }


def table_round_trip(instance: Instance) -> RoundTrip:
    """The round trip of an instance."""
    return round_trip(
        predictor(instance),
        instance["sigmas"],
        instance["start"],
        instance["convention"],
        start_offset=instance["start_offset"],
    )


def norms(vectors):
    """Euclidean norms along the last axis, of NumPy or JAX arrays."""
    return (vectors**2).sum(axis=-1) ** 0.5


def operands(trip: RoundTrip):
    """Norms of the states and of the predictions that enter each step up and down, each (N,); NumPy or JAX as the
    trip."""
    levels = norms(trip.inversion) + norms(trip.sampling)
    predictions = (
        norms(trip.inversion_predictions) + norms(trip.sampling_predictions) + norms(trip.predictions_at_inversion)
    )
    return levels[1:] + levels[:-1], predictions


def rounding_defects(trip: RoundTrip, sensitivity: jax.Array, constants: jax.Array) -> jax.Array:
    """What floating-point arithmetic adds to each defect, (N,): a step is exact up to its roundings, scaled to its
    operands.

    A prediction L (R y + ..) + b is rounded by at most gamma (L ||y|| + constants), a step by gamma times its operands.
    The theorem holds for the computed trajectories with these defects added, and without them a bound that is exactly
    zero would be broken by rounding.

    Args:
        sensitivity: (N,) Lipschitz constant of the predictor at the upper level of each step.
        constants: (N,) norm of its parts that do not depend on the state.
    """
    states, used = operands(trip)
    return relative_budget(OPERATIONS_PER_STEP) * (
        states + jnp.abs(trip.steps) * (used + sensitivity * states + constants)
    )


def table_constants(table: Instance) -> jax.Array:
    """Norm of the parts of a table's predictions that do not depend on the state, per level, (N + 1,)."""
    return table["lipschitz"] * norms(table["shift"]) + norms(table["offset"])


def table_rounding(trip: RoundTrip, table: Instance) -> jax.Array:
    """Rounding defects of a round trip with the predictor of `tables`, (N,)."""
    return rounding_defects(trip, table["lipschitz"][1:], table_constants(table)[1:])
