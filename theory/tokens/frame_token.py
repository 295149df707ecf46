r"""What one token of a frame's own buys against the tokens that all frames share.

Statement. A query sees one frame-specific token, whose value lies within b of the target t, and n other tokens, whose
values lie beyond a plane at distance s from t: <u, v_j - t> >= s for a unit vector u. With logits of range at most G,

    \| o - t \| \ge \max(0, \varphi s - (1 - \varphi) b),   \varphi = \frac{n e^{-G}}{1 + n e^{-G}}.

So a frame token that carries the target itself (b = 0) leaves an error of phi s; its value has to overshoot. At a
distance of b = n e^-G ||c - t|| from the target, c the mean of the others' values, the error can be made 0.

Hypotheses.
    H1  The logits of the query have a range of at most G.
    H2  <u, v_j - t> >= s > 0 for the n other tokens.
    H3  The frame token's value lies within b of the target.

**Attained**: the others coincide at t + s u, and the frame token's value is t - b u.

In the paper: not there; it says what "frame-specific" buys for one query. Proof: paper_notes.md, section
C5.frame-token.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict
from theory.tokens import instances
from theory.tokens.alignment import logit_range_of

SIZES = (
    (("num_others", 1), ("width", 2), ("dimension", 2)),
    (("num_others", 4), ("width", 3), ("dimension", 3)),
)


def _draw(key: jax.Array, *, num_others: int, width: int, dimension: int) -> Parameters:
    keys = jax.random.split(key, 8)
    return {
        "query": jax.random.normal(keys[0], (dimension,)),
        "logits": jax.random.normal(keys[1], (num_others + 1,)),
        "direction": jax.random.normal(keys[2], (width,)),
        "target": jax.random.normal(keys[3], (width,)),
        "others": jax.random.normal(keys[4], (num_others, width)),
        "own": jax.random.normal(keys[5], (width,)),
        "range": jax.random.normal(keys[6]),
        "share": jax.random.normal(keys[7]),
    }


def _instance(parameters: Parameters, *, num_others: int, width: int, dimension: int) -> Instance:
    """Others at t + u + anything that does not come nearer along u; the frame token anywhere in the ball of radius b, b
    a share of 1."""
    logit_range = logit_range_of(parameters["range"])
    query, direction = instances.unit(parameters["query"]), instances.unit(parameters["direction"])
    along = parameters["others"] @ direction
    beyond = parameters["others"] - along[:, None] * direction[None, :] + (1.0 + along**2)[:, None] * direction[None, :]
    reach = jnp.sin(parameters["share"]) ** 2 / 2
    length = instances.norm(parameters["own"])
    inside = parameters["own"] / jnp.maximum(length, 1.0)
    target = parameters["target"]
    return {
        "query": query,
        "keys": instances.keys_of_logits(query, logit_range / 2 * jnp.sin(parameters["logits"])),
        "values": target[None, :] + jnp.concatenate([(reach * inside)[None, :], beyond]),
        "target": target,
        "direction": direction,
        "logit_range": logit_range,
        "distance": jnp.asarray(1.0),
        "reach": reach,
    }


def overshoot_error(num_others, logit_range, distance, reach):
    """The least error that one frame token leaves, its value within `reach` of the target.

        max(0, phi s - (1 - phi) b),   phi = n e^-G / (1 + n e^-G)

    Args:
        num_others: n, the other tokens.
        logit_range: G > 0; distance: s, of the plane beyond which the others' values lie; reach: b >= 0. Floats or JAX
            arrays.

    Source: paper_notes.md, C5.frame-token.
    """
    rest = num_others * jnp.exp(-logit_range)
    return jnp.maximum(0.0, (rest * distance - reach) / (1 + rest))


def _measured(instance: Instance) -> jax.Array:
    count, width = instance["values"].shape
    value = overshoot_error(count - 1, instance["logit_range"], instance["distance"], instance["reach"])
    scale = jnp.max(jnp.abs(instance["values"])) + jnp.max(jnp.abs(instance["target"]))
    return instances.rounded_down(value, scale * width**0.5, 8 * (count + width) + 32)


def _error(instance: Instance) -> jax.Array:
    return instances.attention_error(instance["query"], instance["keys"], instance["values"], instance["target"])


def _operations(*, num_others: int, width: int, dimension: int) -> int:
    return 64 * (num_others + width + dimension) + 256


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=_measured, bound=_error, operations=_operations)


def witness_parameters(*, num_others: int, width: int, dimension: int) -> Parameters:
    """G = 1, the others at u, the frame token at -u b with b = sin(1/2)^2 / 2, the largest logit its own."""
    axis = jnp.zeros(width).at[0].set(1.0)
    return {
        "query": jnp.zeros(dimension).at[0].set(1.0),
        "logits": jnp.pi / 2 * jnp.where(jnp.arange(num_others + 1) == 0, 1.0, -1.0),
        "direction": axis,
        "target": jnp.zeros(width),
        "others": jnp.zeros((num_others, width)),
        "own": -axis,
        "range": jnp.asarray(0.0),
        "share": jnp.asarray(0.5),
    }


def witness(*, num_others: int, width: int, dimension: int) -> Instance:
    """Everything on one line through the target: both sides are (n e^-1 - b)/(1 + n e^-1)."""
    reach = np.sin(0.5) ** 2 / 2
    values = np.zeros((num_others + 1, width))
    values[:, 0] = [-reach, *[1.0] * num_others]
    keys = np.zeros((num_others + 1, dimension))
    keys[:, 0] = dimension**0.5 * np.array([0.5, *[-0.5] * num_others])
    return {
        "query": jnp.asarray(np.eye(dimension)[0]),
        "keys": jnp.asarray(keys),
        "values": jnp.asarray(values),
        "target": jnp.zeros(width),
        "direction": jnp.asarray(np.eye(width)[0]),
        "logit_range": jnp.asarray(1.0),
        "distance": jnp.asarray(1.0),
        "reach": jnp.asarray(reach),
    }


def _broken(change: str) -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    if change == "range":
        instance["keys"] = 2 * instance["keys"]
    elif change == "others":
        instance["values"] = instance["values"].at[1:].multiply(0.5)
    else:
        instance["values"] = instance["values"].at[0].multiply(4.0)
    return PROBLEM.outcome(instance, size, change)


CLAIM = Claim(
    id="C5.frame-token",
    title="What one frame-specific token buys against shared ones",
    statement=(
        "With one token of the frame's own, whose value lies within b of the target, and n others beyond a plane at "
        "distance s from it, one "
        "query errs by at least phi s - (1 - phi) b, phi = n e^-G / (1 + n e^-G), and no larger bound holds."
    ),
    latex=r"\|o - t\| \ge \max\Bigl(0,\ \frac{n e^{-G} s - b}{1 + n e^{-G}}\Bigr)",
    hypotheses=(
        Hypothesis("H1", "The logits of the query have a range of at most G."),
        Hypothesis("H2", "<u, v_j - t> >= s > 0 for the n other tokens, u a unit vector."),
        Hypothesis("H3", "The frame token's value lies within b of the target."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "the error that one frame token cannot go below, in units of the distance of the other values' plane from the "
        "target"
    ),
    bound_in_words="distance of the query's output from the target, in the same units",
    necessity={"H1": lambda: _broken("range"), "H2": lambda: _broken("others"), "H3": lambda: _broken("own")},
    planted={
        "the error squared": lambda instance: _error(instance) ** 2,
        "the frame token's value at the target": lambda instance: (
            jnp.exp(-instance["logit_range"])
            * _error({**instance, "values": instance["values"].at[0].set(instance["target"])})
        ),
        "logits twice as large": lambda instance: _error({**instance, "keys": 2 * instance["keys"]}),
        "half of the logits' range lost": lambda instance: _error(instance) * jnp.exp(-instance["logit_range"] / 2),
    },
    no_network=(
        "it speaks of the best keys and the best value for one query; what trained tokens reach at all positions at "
        "once is measured beside "
        "C5.rank"
    ),
    relies_on=("C5.alignment",),
    floor=0.98,
    floor_reason="the supremum is attained, at the corner of the weights' polytope",
)
