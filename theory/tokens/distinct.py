r"""As many tokens as queries align pairwise distinct queries exactly, and how the determinant of their weights goes to
zero.

Statement. Let p queries have projections x_1 < .. < x_p on a direction e, and let p tokens have the keys k_j = sqrt(d)
h j e, j = 0, .., p-1, h > 0. With y_i = exp(h x_i) the matrix of weights P_ij = p_j(q_i) has the determinant

    \det P = \frac{\prod_{i < j} (y_j - y_i)}{\prod_i \sum_{l=0}^{p-1} y_i^l} > 0.

So P is invertible, and the values V = P^{-1} T give every query its target exactly. In any dimension d >= 1 some
direction separates queries that are pairwise distinct. Two equal queries have det P = 0 and equal outputs. The values
are those of a polynomial interpolation at the y_i: their size grows with the product of the inverse gaps, so a bound on
the keys, which bounds h, costs digits (measured, 12 queries equally spaced in [-3, 3]: the condition number of P is 4e5
for h = 1 and 1.2e9 for h = 1/4; C5.separation gives the price of two queries).

Hypotheses.
    H1  The keys form an arithmetic progression along e that starts at 0.
    H2  Values are free: one token per query.

**Identity**.

In the paper: decides "near-perfect with enough tokens" for many queries with unbounded values. Proof: paper_notes.md,
section C5.distinct.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Plant, Problem, Tightness, Verdict
from theory.tokens.attention import attend

SIZES = (
    (("num_queries", 2), ("dimension", 1)),
    (("num_queries", 4), ("dimension", 3)),
)
WOBBLE = 0.4
"""Projections of the family: x_i within 0.4 of i - (p-1)/2, so that neighbours are at least 0.2 apart."""


def _keys(count: int, dimension: int, spacing: float):
    return jnp.zeros((count, dimension)).at[:, 0].set(math.sqrt(dimension) * spacing * jnp.arange(count))


def tokens_for_distinct_queries(
    queries: np.ndarray, targets: np.ndarray, spacing: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (p, d) and values (p, width) that give every query its target, up to the rounding that det P admits.

    k_j = sqrt(d) h j e with e the direction in which the closest two of the queries are farthest apart among 64 drawn
    ones and the axes, V = P^-1 T

    Args:
        queries: (p, d) float64, pairwise distinct.
        targets: (p, width) float64.
        spacing: h > 0.

    Raises:
        ValueError: two equal queries (the message names them), or spacing not positive.

    Source: paper_notes.md, C5.distinct.
    """
    queries, targets = np.asarray(queries, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    count, dimension = queries.shape
    if not spacing > 0:
        raise ValueError(f"spacing = {spacing}; a number > 0 is needed, for example 1")
    _, places, repeats = np.unique(queries, axis=0, return_index=True, return_counts=True)
    if repeats.max() > 1:
        first = int(places[np.argmax(repeats)])
        same = np.flatnonzero(np.all(queries == queries[first], axis=1))
        raise ValueError(
            f"queries {same[0]} and {same[1]} are equal, so their outputs are; give them one target, and one of them "
            "only"
        )
    drawn = np.random.default_rng(0).normal(size=(64, dimension))
    directions = np.vstack([np.eye(dimension), drawn / np.linalg.norm(drawn, axis=1, keepdims=True)])
    gaps = np.diff(np.sort(queries @ directions.T, axis=0), axis=0)
    direction = directions[int(np.argmax(gaps.min(axis=0)))] if count > 1 else directions[0]
    keys = math.sqrt(dimension) * spacing * np.arange(count)[:, None] * direction
    return keys, np.linalg.solve(attend(queries, keys, np.eye(count)), targets)


def _draw(key: jax.Array, *, num_queries: int, dimension: int) -> Parameters:
    first, second = jax.random.split(key)
    return {
        "along": jax.random.normal(first, (num_queries,)),
        "across": jax.random.normal(second, (num_queries, dimension - 1)),
    }


def _instance(parameters: Parameters, *, num_queries: int, dimension: int) -> Instance:
    along = jnp.arange(num_queries) - (num_queries - 1) / 2 + WOBBLE * jnp.sin(parameters["along"])
    return {
        "queries": jnp.concatenate([along[:, None], parameters["across"]], axis=1),
        "keys": _keys(num_queries, dimension, 1.0),
    }


def _determinant(instance: Instance) -> jax.Array:
    count = instance["keys"].shape[0]
    return jnp.linalg.det(attend(instance["queries"], instance["keys"], jnp.eye(count)))


def _nodes(instance: Instance) -> jax.Array:
    return jnp.exp(instance["queries"][:, 0])


def _product(nodes: jax.Array, pairs: list[tuple[int, int]]) -> jax.Array:
    count = nodes.shape[0]
    rows = jnp.sum(nodes[:, None] ** jnp.arange(count)[None, :], axis=1)
    return jnp.prod(jnp.stack([nodes[j] - nodes[i] for i, j in pairs])) / jnp.prod(rows)


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for j in range(count) for i in range(j)]


def _bound(instance: Instance) -> jax.Array:
    nodes = _nodes(instance)
    return _product(nodes, _pairs(nodes.shape[0]))


def _operations(*, num_queries: int, dimension: int) -> int:
    """A perturbation of P changes det P by ||P^-1|| times its size, relatively; P = D^-1 W with W the Vandermonde
    matrix of y, whose inverse has rows of sum at most prod_{j != i} (1 + y_j)/|y_j - y_i| (Gautschi 1962), and D_i =
    sum_l y_i^l. Every factor is bounded over the family, and an elimination of p rows rounds p^2 times."""
    centres = np.arange(num_queries) - (num_queries - 1) / 2
    lowest, highest = np.exp(centres - WOBBLE), np.exp(centres + WOBBLE)
    largest = 0.0
    for i in range(num_queries):
        factor = 1.0
        for j in range(num_queries):
            if j != i:
                gap = lowest[max(i, j)] - highest[min(i, j)]
                factor *= (1 + highest[j]) / gap
        largest += factor * np.sum(highest[-1] ** np.arange(num_queries))
    return 4 * num_queries**2 * math.ceil(largest) + 16 * dimension


PROBLEM = Problem(
    sizes=SIZES, draw=_draw, instance=_instance, measured=_determinant, bound=_bound, operations=_operations
)


def witness_parameters(*, num_queries: int, dimension: int) -> Parameters:
    """Equally spaced queries on a line."""
    return {"along": jnp.zeros(num_queries), "across": jnp.zeros((num_queries, dimension - 1))}


def witness(*, num_queries: int, dimension: int) -> Instance:
    """Queries 1 apart along the first axis, centred."""
    queries = np.zeros((num_queries, dimension))
    queries[:, 0] = np.arange(num_queries) - (num_queries - 1) / 2
    return {"queries": jnp.asarray(queries), "keys": _keys(num_queries, dimension, 1.0)}


def _wider_keys() -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    instance["keys"] = 2 * instance["keys"]
    return PROBLEM.outcome(instance, size, "keys twice as far apart")


CLAIM = Claim(
    id="C5.distinct",
    title="As many tokens as queries align pairwise distinct queries exactly",
    statement=(
        "With one token per query and keys in arithmetic progression along a direction that separates the queries, "
        "the matrix of attention "
        "weights has a positive determinant in closed form, so some values give every query its target exactly. Equal "
        "queries have equal "
        "outputs."
    ),
    latex=(
        r"\det P = \frac{\prod_{i<j}(y_j - y_i)}{\prod_i \sum_{l=0}^{p-1} y_i^l} > 0,"
        r"\quad y_i = e^{h\langle q_i, e\rangle}"
    ),
    hypotheses=(
        Hypothesis("H1", "The keys form an arithmetic progression along e that starts at 0."),
        Hypothesis("H2", "Values are free: one token per query."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.IDENTITY,
    origin="repairs the paper's claim on alignment, as one public summary words it, for many queries",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="determinant of the attention weights of p queries over p tokens",
    bound_in_words="product of the differences of exp(h x_i) over the product of their geometric sums",
    necessity={"H1": _wider_keys},
    definitional={
        "H2": "the identity is about the weights alone; the values enter the conclusion that is drawn from it"
    },
    planted={
        "gaps of neighbours alone": Plant(
            lambda instance: _product(_nodes(instance), [(i, i + 1) for i in range(instance["keys"].shape[0] - 1)]),
            applies=lambda *, num_queries, dimension: num_queries > 2,
            why="two queries have one gap",
        ),
        "every gap squared": lambda instance: _bound(instance) ** 2,
        "one power too many in the geometric sums": lambda instance: (
            _bound(instance) / jnp.prod(1 + _nodes(instance) ** instance["keys"].shape[0])
        ),
        "the largest node for each in the geometric sums": lambda instance: (
            _bound(instance)
            * jnp.prod(jnp.sum(_nodes(instance)[:, None] ** jnp.arange(instance["keys"].shape[0])[None, :], axis=1))
            / jnp.sum(jnp.max(_nodes(instance)) ** jnp.arange(instance["keys"].shape[0])) ** instance["keys"].shape[0]
        ),
    },
    no_network=(
        "a frame of the trained UNet has more queries in a head than any prompt has tokens, so the hypothesis never "
        "holds there"
    ),
    lemmas=("Vandermonde determinant",),
    floor=0.99,
    floor_reason="both sides are equal on every instance",
)
