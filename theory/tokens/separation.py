r"""How far one set of tokens can separate two queries.

Statement. For two queries q, q' in R^d and the same tokens, whose keys have diameter R_k and whose values have diameter
R_v,

    \| o(q) - o(q') \| \le R_v \tanh\left( \frac{R_k \|q - q'\|}{4 \sqrt d} \right).

So if the targets of the two queries lie a distance D apart, one of the two errs by at least (D - R_v tanh(..))/2, and
an exact alignment of both needs values of diameter D / tanh(..): as the queries come together it grows like 4 sqrt(d) D
/ (R_k ||q - q'||).

Hypotheses.
    H1  Both queries see the same keys.
    H2  Both queries see the same values.

**Attained**: half the tokens at each end of a segment, keys along q - q', queries on either side of the middle.

In the paper: not there; it decides what shared tokens can do where the frames' queries differ. Proof: paper_notes.md,
section C5.separation.
"""

import math

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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.tokens import instances
from theory.tokens.attention import attend

SIZES = (
    (("num_tokens", 2), ("dimension", 2), ("width", 2)),
    (("num_tokens", 4), ("dimension", 3), ("width", 3)),
)


def separation_bound(query_distance, key_diameter, value_diameter, dimension: int):
    """The largest distance of two outputs of the same tokens.

        R_v tanh(R_k ||q - q'|| / (4 sqrt(d)))

    Args:
        query_distance: ||q - q'||, at least 0; a float or a JAX array, like the next two.
        key_diameter, value_diameter: R_k and R_v, at least 0.
        dimension: d, of a head.

    Source: paper_notes.md, C5.separation.
    """
    return value_diameter * jnp.tanh(key_diameter * query_distance / (4 * math.sqrt(dimension)))


def _draw(key: jax.Array, *, num_tokens: int, dimension: int, width: int) -> Parameters:
    keys = jax.random.split(key, 4)
    return {
        "middle": jax.random.normal(keys[0], (dimension,)),
        "half": jax.random.normal(keys[1], (dimension,)),
        "keys": jax.random.normal(keys[2], (num_tokens, dimension)),
        "values": jax.random.normal(keys[3], (num_tokens, width)),
    }


def _instance(parameters: Parameters, *, num_tokens: int, dimension: int, width: int) -> Instance:
    queries = jnp.stack([parameters["middle"] + parameters["half"], parameters["middle"] - parameters["half"]])
    return {
        "queries": queries,
        "keys": jnp.tile(parameters["keys"][None], (2, 1, 1)),
        "values": jnp.tile(parameters["values"][None], (2, 1, 1)),
    }


def _measured(instance: Instance) -> jax.Array:
    first, second = attend(instance["queries"][:, None, :], instance["keys"], instance["values"])[:, 0, :]
    queries, keys, values = instance["queries"], instance["keys"], instance["values"]
    dimension = queries.shape[1]
    # A relative error of a logit of size a is an absolute one of its weight: hence the factor 1 + a.
    logit_size = jnp.max(instances.row_norms(queries)) * jnp.max(instances.row_norms(keys)) / math.sqrt(dimension)
    scale = (1 + logit_size) * jnp.max(instances.row_norms(values))
    return instances.rounded_down(instances.norm(first - second), scale, 8 * sum(values.shape) + 8 * dimension + 32)


def _sides(instance: Instance) -> tuple[jax.Array, jax.Array, jax.Array, int]:
    return (
        instances.norm(instance["queries"][0] - instance["queries"][1]),
        instances.diameter(instance["keys"][0]),
        instances.diameter(instance["values"][0]),
        instance["queries"].shape[1],
    )


def _operations(*, num_tokens: int, dimension: int, width: int) -> int:
    """Counted as in `_measured`, whose rounding scales with 1 + the largest logit; that is at most 16 d where entries
    are at most 4."""
    return 16 * 16 * dimension * (num_tokens + dimension + width + 8)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: separation_bound(*_sides(instance)),
    operations=_operations,
)


def witness_parameters(*, num_tokens: int, dimension: int, width: int) -> Parameters:
    """Keys, values and queries on the first axes, half of each at either end."""
    signs = jnp.where(jnp.arange(num_tokens) % 2 == 0, 1.0, -1.0)
    return {
        "middle": jnp.zeros(dimension),
        "half": jnp.zeros(dimension).at[0].set(1.0),
        "keys": signs[:, None] * jnp.zeros(dimension).at[0].set(1.0)[None, :],
        "values": signs[:, None] * jnp.zeros(width).at[0].set(0.5)[None, :],
    }


def witness(*, num_tokens: int, dimension: int, width: int) -> Instance:
    """Queries at distance 2, keys of diameter 2, values of diameter 1: both sides are tanh(1/sqrt(d))."""
    signs = (-1.0) ** np.arange(num_tokens)
    keys, values = signs[:, None] * np.eye(dimension)[0], signs[:, None] * np.eye(width)[0] / 2
    return {
        "queries": jnp.asarray(np.stack([np.eye(dimension)[0], -np.eye(dimension)[0]])),
        "keys": jnp.asarray(np.stack([keys, keys])),
        "values": jnp.asarray(np.stack([values, values])),
    }


def _own(what: str) -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance[what] = instance[what].at[1].multiply(4.0)
    return PROBLEM.outcome(instance, size, what)


def _reality(evidence: Evidence) -> list[Outcome]:
    """Per record, head and pair of neighbouring frames: the position whose outputs are farthest apart relative to the
    bound, over the text's tokens alone, which all frames share."""
    outcomes = []
    for record in evidence.cross_attentions:
        queries, keys, values = record.heads()
        own = record.num_shared + record.num_frame
        for head in range(record.num_heads):
            text_keys, text_values = keys[0, head, own:], values[0, head, own:]
            outputs = np.stack([attend(rows, text_keys, text_values) for rows in queries[:, head]])
            measured = np.linalg.norm(np.diff(outputs, axis=0), axis=-1)
            gaps = np.linalg.norm(np.diff(queries[:, head], axis=0), axis=-1)
            key_diameter, value_diameter = (
                float(instances.diameter(jnp.asarray(rows))) for rows in (text_keys, text_values)
            )
            bounds = np.asarray(separation_bound(gaps, key_diameter, value_diameter, keys.shape[-1]))
            place = np.unravel_index(np.argmax(measured / bounds), measured.shape)
            outcomes.append(
                Outcome(
                    label=f"{record.label}, head {head}, frames {place[0]} and {place[0] + 1}, position {place[1]}",
                    measured=float(measured[place]),
                    bound=float(bounds[place]),
                    budget=PROBLEM.budget(
                        (("num_tokens", len(text_keys)), ("dimension", keys.shape[-1]), ("width", values.shape[-1]))
                    ),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C5.separation",
    title="How far one set of tokens can separate two queries",
    statement=(
        "The outputs of two queries over the same tokens lie at most R_v tanh(R_k ||q - q'|| / (4 sqrt d)) apart, R_k "
        "and R_v the diameters of "
        "keys and values, and no smaller function of these will do."
    ),
    latex=r"\|o(q) - o(q')\| \le R_v \tanh\frac{R_k \|q - q'\|}{4\sqrt d}",
    hypotheses=(
        Hypothesis("H1", "Both queries see the same keys."),
        Hypothesis("H2", "Both queries see the same values."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="distance of the outputs of two queries, in the units of the values",
    bound_in_words="diameter of the values times tanh(diameter of the keys * distance of the queries / (4 sqrt(d)))",
    necessity={"H1": lambda: _own("keys"), "H2": lambda: _own("values")},
    planted={
        "d for its square root": lambda instance: separation_bound(*_sides(instance)[:3], _sides(instance)[3] ** 2),
        "largest norm of a key for the keys' diameter": lambda instance: separation_bound(
            _sides(instance)[0], jnp.max(instances.row_norms(instance["keys"][0])), *_sides(instance)[2:]
        ),
        "x / (1 + x) for tanh x": lambda instance: (
            _sides(instance)[2] / (1 + 4 * math.sqrt(_sides(instance)[3]) / (_sides(instance)[0] * _sides(instance)[1]))
        ),
        "half the diameter of the values": lambda instance: separation_bound(*_sides(instance)) / 2,
        "the linear bound with 8 for 4": lambda instance: (
            _sides(instance)[0] * _sides(instance)[1] * _sides(instance)[2] / (8 * math.sqrt(_sides(instance)[3]))
        ),
    },
    reality=(
        Comparison(
            question=(
                "distance of a head's text outputs at one position of two neighbouring frames, in the trained UNet's "
                "cross-attention, against "
                "the bound from the distance of the two recorded queries"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because=(
                "the theorem: the text's tokens are the same in all frames, and the outputs are computed from the "
                "recorded queries"
            ),
        ),
    ),
    floor=0.98,
    floor_reason=(
        "the supremum is attained, where the farthest pair of keys, and that of values, changes: kinks of the diameters"
    ),
)
