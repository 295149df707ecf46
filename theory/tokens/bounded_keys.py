r"""However many tokens: with bounded keys near-perfect alignment fails, and more tokens make it worse.

Statement as read. A target among the values of n tokens is aligned to within tau times the values' diameter R, for a
tolerance tau > 0 whatever the bound on the keys, if n is large enough.

**Refuted.** Let the logits of the query have a range of at most G. For a target v_i

    \| o - v_i \| \ge \varphi(n) \operatorname{dist}(v_i, \mathrm{conv}\{v_j : j \ne i\}),   \varphi(n) =
    \frac{(n-1)e^{-G}}{1+(n-1)e^{-G}},

for every choice of keys, and phi(n) grows with n to 1. If the other values coincide the distance is R. So for every
tolerance tau < 1 and every G all n with (n-1) e^{-G} > tau / (1 - tau) are counterexamples.

**Repaired** (H3): with logits of range G >= log((n-1)/tau) some keys align every target in the hull of the values to
within tau R. The range has to grow with the logarithm of the number of tokens.

Hypotheses.
    H1  The target lies in the convex hull of the values.
    H2  The logits have a range of at most G.
    H3  (restored by the repair) G >= log((n-1)/tau).

In the paper: one reading of "sufficiently rich tokens give near-perfect alignment". Proof: paper_notes.md, section
C5.bounded-keys.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Parameters, Problem, Tightness, Verdict
from theory.tokens import instances
from theory.tokens.alignment import dual_value, logit_range_of, operations
from theory.tokens.attention import attend
from theory.tokens.hull import aligned_keys

TOLERANCE = 0.1
"""What the search calls near-perfect where the tolerance is not drawn: a tenth of the diameter of the values."""


def _draw(key: jax.Array, *, num_tokens: int, width: int, dimension: int) -> Parameters:
    keys = jax.random.split(key, 6)
    return {
        "query": jax.random.normal(keys[0], (dimension,)),
        "values": jax.random.normal(keys[1], (num_tokens, width)),
        "weights": jax.random.normal(keys[2], (num_tokens,)),
        "direction": jax.random.normal(keys[3], (width,)),
        "range": jax.random.normal(keys[4]),
        "tolerance": jax.random.normal(keys[5]),
    }


def _any(parameters: Parameters, *, num_tokens: int, width: int, dimension: int) -> Instance:
    """Any values, the first one the target; any bounded range."""
    return {
        "values": parameters["values"],
        "target": parameters["values"][0],
        "direction": instances.unit(parameters["direction"]),
        "logit_range": logit_range_of(parameters["range"]),
        "tolerance": jnp.asarray(TOLERANCE),
    }


def _coinciding(parameters: Parameters, *, num_tokens: int, width: int, dimension: int) -> Instance:
    """The other values coincide; any range, and any tolerance between 1/100 and 0.99 of phi(n)."""
    logit_range = logit_range_of(parameters["range"])
    rest = (num_tokens - 1) * jnp.exp(-logit_range)
    direction = instances.unit(parameters["direction"])
    target = parameters["values"][0]
    others = jnp.arange(num_tokens) > 0
    return {
        "values": target[None, :] + others[:, None] * direction[None, :],
        "target": target,
        "direction": direction,
        "logit_range": logit_range,
        "tolerance": rest / (1 + rest) * (0.01 + 0.98 * jnp.sin(parameters["tolerance"]) ** 2),
    }


def _restored(parameters: Parameters, *, num_tokens: int, width: int, dimension: int) -> Instance:
    """Any target in the hull, any tolerance between 1/50 and 1/2, and the least range that the repair asks for."""
    tolerance = 0.02 + 0.48 * jnp.sin(parameters["tolerance"]) ** 2
    weights = instances.simplex(parameters["weights"])
    return {
        "query": instances.unit(parameters["query"]),
        "values": parameters["values"],
        "weights": weights,
        "target": weights @ parameters["values"],
        "logit_range": jnp.log((num_tokens - 1) / tolerance),
        "tolerance": tolerance,
    }


def _least_error(instance: Instance) -> jax.Array:
    """A lower bound on the error of all keys: the dual value of C5.alignment."""
    values, target = instance["values"], instance["target"]
    value = dual_value(values, target, instance["direction"], instance["logit_range"])
    return instances.rounded_down(value, jnp.max(instances.distances(values, target)), 4 * sum(values.shape) + 16)


def _error_of_keys(instance: Instance) -> jax.Array:
    keys = aligned_keys(instance["query"], instance["weights"], instance["logit_range"])
    error = instances.norm(attend(instance["query"], keys, instance["values"]) - instance["target"])
    count, width = instance["values"].shape
    return instances.rounded_down(error, jnp.max(jnp.abs(instance["values"])) * width**0.5, 4 * (count + width) + 16)


def _bound(instance: Instance) -> jax.Array:
    return instance["tolerance"] * instances.diameter(instance["values"])


SIZES = (
    (("num_tokens", 3), ("width", 2), ("dimension", 2)),
    (("num_tokens", 8), ("width", 3), ("dimension", 3)),
)


def _operations(**size: int) -> int:
    return 8 * operations(**size)


AS_STATED = Problem(sizes=SIZES, draw=_draw, instance=_any, measured=_least_error, bound=_bound, operations=_operations)
COUNTEREXAMPLES = Problem(
    sizes=SIZES, draw=_draw, instance=_coinciding, measured=_least_error, bound=_bound, operations=_operations
)
REPAIRED = Problem(
    sizes=SIZES, draw=_draw, instance=_restored, measured=_error_of_keys, bound=_bound, operations=_operations
)


def witness_parameters(*, num_tokens: int, width: int, dimension: int) -> Parameters:
    """The target at 0, the other values at the first basis vector, G = 1."""
    values = jnp.zeros((num_tokens, width)).at[1:, 0].set(1.0)
    axis = jnp.zeros(width).at[0].set(1.0)
    unused = {"query": jnp.ones(dimension), "weights": jnp.ones(num_tokens), "tolerance": jnp.asarray(0.0)}
    return {"values": values, "direction": axis, "range": jnp.asarray(0.0)} | unused


def witness(*, num_tokens: int, width: int, dimension: int) -> Instance:
    """A counterexample: no keys with logits of range 1 come within a tenth of the diameter."""
    values = np.zeros((num_tokens, width))
    values[1:, 0] = 1.0
    return {
        "values": jnp.asarray(values),
        "target": jnp.zeros(width),
        "direction": jnp.asarray(np.eye(width)[0]),
        "logit_range": jnp.asarray(1.0),
        "tolerance": jnp.asarray(TOLERANCE),
    }


CLAIM = Claim(
    id="C5.bounded-keys",
    title="Enough tokens of bounded keys align near-perfectly",
    statement=(
        "With enough tokens a target among their values is aligned to within any tolerance tau of the values' "
        "diameter, however the keys are "
        "bounded. False: with logits of range at most G the error is at least phi(n) times the distance of the target "
        "from the hull of the "
        "other values, and phi(n) grows with n to 1. True if the range is at least log((n-1)/tau)."
    ),
    latex=r"\|o - t\| \le \tau R;\quad \text{repaired: } G \ge \log\frac{n-1}{\tau}",
    hypotheses=(
        Hypothesis("H1", "The target lies in the convex hull of the values."),
        Hypothesis("H2", "The logits have a range of at most G."),
        Hypothesis("H3", "(restored by the repair) G >= log((n-1)/tau)."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="one reading of the paper's claim on alignment, as one public summary words it",
    problem=AS_STATED,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "a proved lower bound on the error of every choice of keys (repaired: the error of explicit keys), in the "
        "units of the values"
    ),
    bound_in_words="the tolerance times the diameter of the values",
    definitional={
        "H1": "necessity is decided by C5.hull",
        "H2": "it is the bound on the keys that the reading grants",
        "H3": "its absence is what the counterexamples refute",
    },
    planted={
        "the tolerance squared": lambda instance: instance["tolerance"] * _bound(instance),
        "the tolerance shared by the other tokens": lambda instance: (
            _bound(instance) / (instance["values"].shape[0] - 1)
        ),
        "half the diameter": lambda instance: _bound(instance) / 2,
        "mean for the largest distance of two values": lambda instance: (
            instance["tolerance"]
            * jnp.mean(instances.row_norms(instance["values"][:, None] - instance["values"][None]))
        ),
    },
    no_network=(
        "it speaks of the best of all keys for one query, and a trained layer has one set of keys for all of its "
        "queries"
    ),
    relies_on=("C5.alignment", "C5.hull"),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
