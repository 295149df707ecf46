r"""Every target in the values' convex hull is reached up to phi times its largest distance from a value.

Statement. Let n tokens have values v_j, and let t = sum_j p_j v_j with p in the simplex. With logits of range at most G
> 0 some keys give an output o with

    \| o - t \| \le \varphi \max_j \| v_j - t \|,   \varphi = \frac{(n-1) e^{-G}}{1 + (n-1) e^{-G}},

namely those whose weights are proportional to x_j = max(p_j, e^{-G} max_l p_l). So a range of log((n-1) R / e) suffices
for an error of e, R the diameter of the values. If t is the value v_i, then no keys do better than phi dist(v_i, conv
of the other values), so that both ends agree when the other values coincide.

Hypotheses.
    H1  t lies in the convex hull of the values.
    H2  The query is not zero, and its keys are free as long as its logits have a range of at most G.

**Attained**: t a value, the others coinciding.

In the paper: decides "near-perfect alignment with enough tokens" with unbounded logits. Proof: paper_notes.md, section
C5.hull.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.alignment import alignment_error, logit_range_of, operations
from theory.tokens.attention import attend, check_logit_range, host_array, rest_weight


def vertex_error_bounds(values: Any, index: int, logit_range: float) -> tuple[float, float]:
    """Bounds on the least error of aligning one query to the value of one token.

        phi dist(v_i, conv{v_j: j != i}) <= least error <= phi max_j ||v_j - v_i||

    Args:
        values: (n, width) floating NumPy, JAX or PyTorch array, n >= 2.
        index: i, from 0 to n - 1.
        logit_range: G > 0; infinity gives 0 for both.

    Returns:
        (lower, upper), the lower one rounded down and the upper one up.

    Raises:
        ValueError: fewer than two values, an index out of range, logit_range not positive, values that are not finite.

    Source: paper_notes.md, C5.hull.
    """
    values, logit_range = host_array("values", values, 2), check_logit_range(logit_range)
    count, width = values.shape
    if count < 2:
        raise ValueError(
            f"values hold {count} token; at least 2 are needed: a single token's value is the output of every query"
        )
    whole = isinstance(index, int | np.integer) and not isinstance(index, bool)
    if not (whole and 0 <= index < count):
        raise ValueError(
            f"index = {index}; an integer from 0 to {count - 1} is needed, the token whose value is the target"
        )
    share, budget = rest_weight(count, logit_range), relative_budget(4 * width + 32)
    others = np.delete(values, index, axis=0)
    nearest = alignment_error(values[index], others, math.inf).lower
    farthest = float(np.max(np.linalg.norm(others - values[index], axis=1)))
    return share * nearest * (1 - budget), share * farthest * (1 + budget)


def sufficient_logit_range(target: Any, values: Any, error: float) -> float:
    """A logit range with which some keys bring one query's output within `error` of the target.

        G = max(0, log((n - 1) max_j ||v_j - t|| / error))

    Args:
        target: (width,) floating, in the convex hull of the values.
        values: (n, width) floating.
        error: > 0, in the units of the values.

    Raises:
        ValueError: error not positive; a target outside the hull (the message says how far); what `alignment_error`
        raises.

    Source: paper_notes.md, C5.hull.
    """
    if not error > 0:
        raise ValueError(
            f"error = {error}; a number > 0 is needed: a range that is finite leaves some weight on every token"
        )
    outside = alignment_error(target, values, math.inf)
    if outside.lower > 0:
        raise ValueError(
            f"the target lies at least {outside.lower:.6g} outside the convex hull of the values; no keys bring the "
            "output nearer: add tokens "
            "whose values surround it, or move it into the hull"
        )
    values, target = host_array("values", values, 2), host_array("target", target, 1)
    farthest = float(np.max(np.linalg.norm(values - target, axis=1)))
    if len(values) == 1 or farthest == 0:
        return 0.0
    return max(0.0, math.log((len(values) - 1) * farthest / error))


def aligned_keys(query: jax.Array, weights: jax.Array, logit_range: jax.Array) -> jax.Array:
    """Keys (n, d) of a unit query whose logits have a range of at most G and whose weights come close to the given
    ones; JAX.

    x_j = max(p_j, e^-G max_l p_l),  a_j = log x_j,  k_j = sqrt(d) (a_j - mid-range) q
    """
    largest = jnp.max(weights)
    logits = jnp.log(jnp.maximum(weights / largest, jnp.exp(-logit_range)))
    return instances.keys_of_logits(query, logits + logit_range / 2)


SIZES = (
    (("num_tokens", 2), ("width", 2), ("dimension", 2)),
    (("num_tokens", 5), ("width", 3), ("dimension", 3)),
)


def _draw(key: jax.Array, *, num_tokens: int, width: int, dimension: int) -> Parameters:
    keys = jax.random.split(key, 4)
    return {
        "query": jax.random.normal(keys[0], (dimension,)),
        "values": jax.random.normal(keys[1], (num_tokens, width)),
        "weights": jax.random.normal(keys[2], (num_tokens,)),
        "range": jax.random.normal(keys[3]),
    }


def _instance(parameters: Parameters, *, num_tokens: int, width: int, dimension: int) -> Instance:
    weights = instances.simplex(parameters["weights"])
    return {
        "query": instances.unit(parameters["query"]),
        "values": parameters["values"],
        "weights": weights,
        "target": weights @ parameters["values"],
        "logit_range": logit_range_of(parameters["range"]),
    }


def _farthest(instance: Instance) -> jax.Array:
    return jnp.max(instances.distances(instance["values"], instance["target"]))


def _measured(instance: Instance) -> jax.Array:
    keys = aligned_keys(instance["query"], instance["weights"], instance["logit_range"])
    output = attend(instance["query"], keys, instance["values"])
    count, width = instance["values"].shape
    scale = jnp.max(jnp.abs(instance["values"])) * width**0.5
    return instances.rounded_down(instances.norm(output - instance["target"]), scale, 4 * (count + width) + 16)


def _share(instance: Instance, spilled: int = 1, exponent: float = 1.0) -> jax.Array:
    count = instance["values"].shape[0]
    rest = (count - spilled) * jnp.exp(-exponent * instance["logit_range"])
    return rest / (1 + rest)


def _bound(instance: Instance) -> jax.Array:
    return _share(instance) * _farthest(instance)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=_bound,
    operations=lambda **size: 8 * operations(**size),
)


def witness_parameters(*, num_tokens: int, width: int, dimension: int) -> Parameters:
    """The target is the first value, the others coincide."""
    first = jnp.zeros(num_tokens).at[0].set(1.0)
    return {
        "query": jnp.zeros(dimension).at[0].set(1.0),
        "values": (1 - first)[:, None] * jnp.zeros(width).at[0].set(1.0)[None, :],
        "weights": first,
        "range": jnp.asarray(0.0),
    }


def witness(*, num_tokens: int, width: int, dimension: int) -> Instance:
    """Target 0 = v_1, the other values the first basis vector, G = 1."""
    values = np.zeros((num_tokens, width))
    values[1:, 0] = 1.0
    return {
        "query": jnp.asarray(np.eye(dimension)[0]),
        "values": jnp.asarray(values),
        "weights": jnp.asarray(np.eye(num_tokens)[0]),
        "target": jnp.zeros(width),
        "logit_range": jnp.asarray(1.0),
    }


def _target_outside() -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    instance["target"] = jnp.zeros(3).at[1].set(5.0)
    return PROBLEM.outcome(instance, size, "a target outside the hull")


def _no_query() -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    instance["query"] = jnp.zeros(3)
    return PROBLEM.outcome(instance, size, "a zero query weighs all tokens alike")


CLAIM = Claim(
    id="C5.hull",
    title="A target in the values' hull is reached up to a share of its farthest value",
    statement=(
        "With logits of range at most G some keys bring one query's output within phi times the largest distance of a "
        "value from the target, "
        "if the target lies in the convex hull of the n values; phi = (n-1) e^-G / (1 + (n-1) e^-G), and no smaller "
        "factor will do."
    ),
    latex=r"\|o - t\| \le \frac{(n-1)e^{-G}}{1+(n-1)e^{-G}} \max_j \|v_j - t\|",
    hypotheses=(
        Hypothesis("H1", "The target lies in the convex hull of the values."),
        Hypothesis(
            "H2", "The query is not zero, and its keys are free as long as its logits have a range of at most G."
        ),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="repairs the paper's claim on alignment, as one public summary words it",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="distance of the output that explicit keys give from the target, in the units of the values",
    bound_in_words="phi times the largest distance of a value from the target",
    necessity={"H1": _target_outside, "H2": _no_query},
    planted={
        "mean for the largest distance": lambda instance: (
            _share(instance) * jnp.mean(instances.distances(instance["values"], instance["target"]))
        ),
        "n - 2 for n - 1": lambda instance: _share(instance, spilled=2) * _farthest(instance),
        "e^-2G, as if G were the largest logit": lambda instance: _share(instance, exponent=2.0) * _farthest(instance),
        "phi squared": lambda instance: _share(instance) ** 2 * _farthest(instance),
        "half the diameter of the values": lambda instance: (
            _share(instance) * instances.diameter(instance["values"]) / 2
        ),
    },
    no_network=(
        "its keys are free for one query, and the keys of a trained layer serve all positions of a frame at once; "
        "what a layer of the UNet "
        "can reach is C5.rank"
    ),
    relies_on=("C5.alignment",),
    floor=0.98,
    floor_reason=(
        "the supremum is attained, at a vertex of the simplex and at coinciding values, where the derivative vanishes "
        "or has a kink"
    ),
)
