r"""What one query can reach with logits of a bounded range, and the least alignment error, certified by its dual.

Statement. Let n >= 2 tokens have values v_j, and let the logits of a query have a range of at most G > 0. With keys
free, the weights that the query can give are exactly

    P = \{ p \text{ in the simplex}: p_j \le e^G p_l \text{ for all } j, l \},

a polytope whose extreme points have the weights 1/c on a nonempty proper subset S of the tokens and e^{-G}/c on the
others, c = |S| + (n - |S|) e^{-G}. So the least distance of an output from a target t is the least norm over a
polytope, and for every unit vector u

    \min_S \langle u, v_S - t \rangle \le \| o - t \|,   v_S = \frac{\sum_{j \in S} v_j + e^{-G} \sum_{j \notin S}
    v_j}{c}.

The minimum over S is over the n - 1 sets of the tokens that come first in the order of <u, v_j>.

Hypotheses.
    H1  The logits of the query have a range of at most G.
    H2  u has norm at most 1.

**Attained**: by the u that points from t to the nearest output, at that output (unless t can be reached, where both
sides are 0).

In the paper: not there; it makes "alignment through cross-attention" a number. Proof: paper_notes.md, section
C5.alignment.
"""

from typing import Any

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
    Plant,
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.attention import attend, check_logit_range, host_array
from theory.tokens.enclosing import Bracketed, minimise_over_hull, rounding_slack


def _lowest_weights(scores: np.ndarray, logit_range: float) -> np.ndarray:
    """The weights in P that minimise sum p_j scores_j."""
    order = np.argsort(scores, kind="stable")
    small = np.exp(-logit_range)
    count, chosen = len(scores), np.arange(1, len(scores) + 1)
    heads = np.cumsum(scores[order])
    means = (heads + small * (heads[-1] - heads)) / (chosen + small * (count - chosen))
    size = int(np.argmin(means)) + 1
    weights = np.full(count, small)
    weights[order[:size]] = 1.0
    return weights / (size + small * (count - size))


def alignment_error(target: Any, values: Any, logit_range: float) -> Bracketed:
    """The least distance of an output from a target, over all keys whose logits have a range of at most `logit_range`.

        min { || sum_j p_j v_j - t || : p in the simplex, p_j <= e^G p_l }

    Args:
        target: (width,) floating, NumPy, JAX or PyTorch.
        values: (n, width) floating.
        logit_range: G > 0; infinity gives the distance to the values' convex hull, an infimum.

    Returns:
        The least error as a float, with `.lower` (from a dual vector, rounded down) and `.upper` (from weights, rounded
        up) around the exact one, `.point` the output (width,) and `.multipliers` the weights (n,) that give it.

    Raises:
        ValueError: logit_range not positive, values that are not finite, or a target that is not as wide as the values.

    Source: paper_notes.md, C5.alignment.
    """
    target, values, logit_range = (
        host_array("target", target, 1),
        host_array("values", values, 2),
        check_logit_range(logit_range),
    )
    if values.shape[1] != len(target):
        raise ValueError(
            f"the target has width {len(target)} and the values {values.shape[1]}; give both in the same space"
        )
    shifted = values - target
    scale = float(np.max(np.linalg.norm(shifted, axis=1)))
    count, width = shifted.shape
    if scale == 0:
        return Bracketed(0.0, 0.0, 0.0, target, np.full(count, 1 / count))
    chosen: dict[bytes, np.ndarray] = {}

    def oracle(point: np.ndarray) -> tuple[np.ndarray, float]:
        weights = _lowest_weights(shifted @ point, logit_range)
        atom = weights @ shifted
        chosen[atom.tobytes()] = weights
        return atom, 0.0

    slack = rounding_slack(width, count, scale)
    atoms, multipliers = minimise_over_hull(oracle, oracle(shifted.mean(axis=0)), slack * scale)
    weights = sum(share * chosen[atom.tobytes()] for share, atom in zip(multipliers, atoms, strict=True))
    point = weights @ shifted
    value = float(np.linalg.norm(point))
    lower = 0.0
    if value > slack:
        direction = point / value
        lower = max(0.0, float(direction @ oracle(direction)[0]) * (1 - relative_budget(width + 8)) - slack)
    return Bracketed(value, lower, value + slack, target + point, weights)


def dual_value(values: jax.Array, target: jax.Array, direction: jax.Array, logit_range: jax.Array) -> jax.Array:
    """min_S <u, v_S - t>, by sorting; JAX."""
    scores = jnp.sort((values - target[None, :]) @ direction)
    count = scores.shape[0]
    small, heads, chosen = jnp.exp(-logit_range), jnp.cumsum(scores), jnp.arange(1, count + 1)
    return jnp.min((heads + small * (jnp.sum(scores) - heads)) / (chosen + small * (count - chosen)))


SIZES = (
    (("num_tokens", 2), ("width", 3), ("dimension", 2)),
    (("num_tokens", 5), ("width", 4), ("dimension", 3)),
)


def _draw(key: jax.Array, *, num_tokens: int, width: int, dimension: int) -> Parameters:
    keys = jax.random.split(key, 6)
    return {
        "query": jax.random.normal(keys[0], (dimension,)),
        "logits": jax.random.normal(keys[1], (num_tokens,)),
        "values": jax.random.normal(keys[2], (num_tokens, width)),
        "target": 2 * jax.random.normal(keys[3], (width,)),
        "direction": jax.random.normal(keys[4], (width,)),
        "range": jax.random.normal(keys[5]),
    }


def logit_range_of(raw: jax.Array) -> jax.Array:
    """A logit range between 1/4 and 4."""
    return 4.0 ** jnp.sin(raw)


def _instance(parameters: Parameters, *, num_tokens: int, width: int, dimension: int) -> Instance:
    logit_range = logit_range_of(parameters["range"])
    query = instances.unit(parameters["query"])
    return {
        "query": query,
        "keys": instances.keys_of_logits(query, logit_range / 2 * jnp.sin(parameters["logits"])),
        "values": parameters["values"],
        "target": parameters["target"],
        "direction": instances.unit(parameters["direction"]),
        "logit_range": logit_range,
    }


def operations(*, num_tokens: int, width: int, dimension: int) -> int:
    """Longest chain of roundings from the arrays to an error or a dual value: inner products of `dimension` and `width`
    entries, sums over the tokens, an exponential, a quotient and a norm, counted twice."""
    return 16 * (num_tokens + width + dimension) + 64


def _scale(instance: Instance) -> jax.Array:
    return jnp.max(instances.distances(instance["values"], instance["target"]))


def _measured(instance: Instance) -> jax.Array:
    count, width = instance["values"].shape
    value = dual_value(instance["values"], instance["target"], instance["direction"], instance["logit_range"])
    return instances.rounded_down(value, _scale(instance), 4 * (count + width) + 16)


def _error(instance: Instance) -> jax.Array:
    return instances.attention_error(instance["query"], instance["keys"], instance["values"], instance["target"])


PROBLEM = Problem(
    sizes=SIZES, draw=_draw, instance=_instance, measured=_measured, bound=_error, operations=operations
)  # fmt: skip


def witness_parameters(*, num_tokens: int, width: int, dimension: int) -> Parameters:
    """The target is the value of the first token, which gets the largest logit; the values of the others coincide at
    distance 1."""
    first = jnp.zeros(num_tokens).at[0].set(1.0)
    axis = jnp.zeros(width).at[0].set(1.0)
    return {
        "query": jnp.ones(dimension),
        "logits": jnp.pi / 2 * (2 * first - 1),
        "values": (1 - first)[:, None] * axis[None, :],
        "target": jnp.zeros(width),
        "direction": axis,
        "range": jnp.asarray(0.0),
    }


def witness(**size: int) -> Instance:
    """Weights of one preferred token and coinciding others, G = 1: both sides are (n - 1) e^-1 / (1 + (n - 1) e^-1)."""
    count, width, dimension = size["num_tokens"], size["width"], size["dimension"]
    logits = np.full(count, -0.5)
    logits[0] = 0.5
    values = np.zeros((count, width))
    values[1:, 0] = 1.0
    query = np.full(dimension, dimension**-0.5)
    return {
        "query": jnp.asarray(query),
        "keys": jnp.asarray(dimension**0.5 * logits[:, None] * query),
        "values": jnp.asarray(values),
        "target": jnp.zeros(width),
        "direction": jnp.zeros(width).at[0].set(1.0),
        "logit_range": jnp.asarray(1.0),
    }


def _broken(change: str) -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    if change == "range":
        instance["keys"] = 2 * instance["keys"]
    else:
        instance["direction"] = 2 * instance["direction"]
    return PROBLEM.outcome(instance, size, change)


def _reality(evidence: Evidence) -> list[Outcome]:
    """Per record: the largest difference between the recorded output and the one that `attend` gives, against its
    rounding."""
    outcomes = []
    for record in evidence.cross_attentions:
        queries, keys, values = record.heads()
        heads = np.stack([attend(queries[:, h], keys[:, h], values[:, h]) for h in range(record.num_heads)], axis=1)
        outputs = record.project(heads)
        width = record.inputs.shape[-1] + record.context.shape[-1] + keys.shape[-2]
        # Operand size of the last sum: the heads' outputs times the output weights, and the bias.
        size = np.max(np.linalg.norm(values, axis=-1)) * np.linalg.norm(record.output_weight) + np.linalg.norm(
            record.output_bias
        )
        logit_size = (
            np.max(np.linalg.norm(queries, axis=-1)) * np.max(np.linalg.norm(keys, axis=-1)) / np.sqrt(keys.shape[-1])
        )
        outcomes.append(
            Outcome(
                label=record.label,
                measured=float(np.max(np.abs(outputs - record.outputs))),
                # An error of a logit is one of its weight, relatively: logits of size a cost a factor 1 + a.
                bound=float(relative_budget(16 * width) * (1 + logit_size) * size),
                budget=relative_budget(16 * width),
            )
        )
    return outcomes


CLAIM = Claim(
    id="C5.alignment",
    title="What one query can reach with logits of a bounded range",
    statement=(
        "With logits of range at most G the weights are exactly those whose ratios are at most e^G, so the least "
        "alignment error is a least "
        "norm over a polytope; every unit vector gives a lower bound on the error of every attention, and the best of "
        "them is the least error."
    ),
    latex=(
        r"\max_{\|u\| \le 1} \min_{S} \langle u, v_S - t\rangle = "
        r"\min_{p_j \le e^{G} p_l} \Bigl\|\sum_j p_j v_j - t\Bigr\|"
    ),
    hypotheses=(
        Hypothesis("H1", "The logits of the query have a range of at most G."),
        Hypothesis("H2", "u has norm at most 1."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="the dual value of a unit vector u, in the units of the values",
    bound_in_words="distance of the query's output from the target, in the units of the values",
    necessity={"H1": lambda: _broken("range"), "H2": lambda: _broken("direction")},
    planted={
        "the error squared": Plant(lambda instance: _error(instance) ** 2),
        "logits twice as large": Plant(lambda instance: _error({**instance, "keys": 2 * instance["keys"]})),
        "the largest coordinate for the Euclidean norm": Plant(
            lambda instance: jnp.max(
                jnp.abs(attend(instance["query"], instance["keys"], instance["values"]) - instance["target"])
            )
        ),
        "distance to the nearest token, weighted by e^-G": Plant(
            lambda instance: (
                jnp.exp(-instance["logit_range"]) * jnp.min(instances.distances(instance["values"], instance["target"]))
            )
        ),
    },
    reality=(
        Comparison(
            question=(
                "largest difference of an entry between the recorded cross-attention output of the trained UNet and "
                "W_O attend(W_Q x, W_K c, "
                "W_V c) + b from its recorded inputs, tokens and weights, against the rounding of that formula"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_reality,
        ),
    ),
    lemmas=("minimax theorem for a norm over a polytope",),
    floor=0.98,
    floor_reason=(
        "the supremum is attained, at a corner of the polytope of weights, which gradient ascent through a sort comes "
        "close to"
    ),
)
