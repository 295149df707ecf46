r"""Many queries: the least error of n tokens is the tail of the targets' singular values, and r + 1 tokens suffice.

Statement. Let p queries be the rows of Q and their targets the rows of T (p x width), and let s_1 >= s_2 >= .. be the
singular values of T with the mean of its rows subtracted. For every choice of n tokens, whose outputs are the rows of
O,

    \| O - T \|_F \ge \Bigl( \sum_{i \ge n} s_i^2 \Bigr)^{1/2}.

If the rows of Q are linearly independent, n tokens attain it. So they reach the targets exactly if and only if n >= r +
1, r the dimension of the smallest affine space that holds the targets.

With m tokens fixed (the text) and n learned, the outputs lie in an affine space that holds the fixed values and has n
more dimensions. With the s_i of the targets less one fixed value, projected on the complement of the fixed values'
differences,

    \| O - T \|_F \ge \Bigl( \sum_{i > n} s_i^2 \Bigr)^{1/2}.

Hypotheses.
    H1  All queries see the same tokens.

**Attained**: independent queries, and a simplex around the best affine approximation of the targets.

In the paper: not there; it is what "enough tokens" means for more than one query. Proof: paper_notes.md, section
C5.rank.
"""

import math
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
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.attention import attend, host_array


def rank_error(targets: Any, num_tokens: int, fixed_values: Any | None = None) -> float:
    """The least Frobenius distance of the targets from what `num_tokens` tokens can give all queries, rounded down.

        sqrt(sum_{i >= n} s_i^2), or with fixed values sqrt(sum_{i > n} s_i^2): see the module

    Directions in which the fixed values differ by less than the rounding of their singular values count as none.

    Args:
        targets: (p, width) floating NumPy, JAX or PyTorch array, one row a query.
        num_tokens: n, at least 1; with fixed values at least 0.
        fixed_values: (m, width), values that are there already and cannot be changed.

    Raises:
        ValueError: num_tokens out of range, widths that differ, values that are not finite.

    Source: paper_notes.md, C5.rank.
    """
    targets = host_array("targets", targets, 2)
    least = 1 if fixed_values is None else 0
    whole = isinstance(num_tokens, int | np.integer) and not isinstance(num_tokens, bool)
    if not (whole and num_tokens >= least):
        raise ValueError(
            f"num_tokens = {num_tokens}; an integer of at least {least} is needed: a query without a token has no "
            "output"
        )
    if fixed_values is None:
        centred = targets - targets.mean(axis=0)
        kept = num_tokens - 1
    else:
        fixed = host_array("fixed_values", fixed_values, 2)
        if fixed.shape[1] != targets.shape[1]:
            raise ValueError(
                f"fixed_values have width {fixed.shape[1]} and the targets {targets.shape[1]}; give both in the same "
                "space"
            )
        centred = targets - fixed[0]
        if len(fixed) > 1:
            basis, sizes, _ = np.linalg.svd((fixed[1:] - fixed[0]).T, full_matrices=False)
            basis = basis[:, sizes > relative_budget(8 * sum(fixed.shape)) * sizes[0]]
            centred = centred - (centred @ basis) @ basis.T
        kept = num_tokens
    sizes = np.linalg.svd(centred, compute_uv=False)
    slack = relative_budget(8 * sum(targets.shape)) * float(
        np.linalg.norm(targets) + math.sqrt(len(targets)) * np.linalg.norm(targets[0])
    )
    return max(0.0, float(np.linalg.norm(sizes[kept:])) - slack)


def tokens_for_independent_queries(
    queries: np.ndarray, targets: np.ndarray, num_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (n, d) and values (n, width) whose outputs are the best approximation of the targets by an affine space of n
    - 1 dimensions.

    The values are a simplex around the approximation, P its barycentric weights, and K = sqrt(d) (pinv(Q) log P)^T.

    Args:
        queries: (p, d) float64 of rank p.
        targets: (p, width) float64.
        num_tokens: n, from 1 to width + 1.

    Raises:
        ValueError: queries that are not independent, or num_tokens out of range.

    Source: paper_notes.md, C5.rank.
    """
    queries, targets = np.asarray(queries, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    count, dimension = queries.shape
    rank = int(np.linalg.matrix_rank(queries))
    if rank < count:
        raise ValueError(
            f"the {count} queries have rank {rank}; independent ones are needed: drop those that depend on others"
        )
    if not 1 <= num_tokens <= targets.shape[1] + 1:
        raise ValueError(
            f"num_tokens = {num_tokens}; from 1 to {targets.shape[1] + 1} is needed, the width of the targets plus 1"
        )
    middle = targets.mean(axis=0)
    rows, sizes, axes = np.linalg.svd(targets - middle, full_matrices=True)
    kept = num_tokens - 1
    padded = np.zeros(targets.shape[1])
    padded[: len(sizes)] = sizes
    coordinates = (targets - middle) @ axes[:kept].T
    # A regular simplex about 0, whose inscribed ball has twice the radius that the coordinates need, so that the
    # weights stay away from 0.
    corners = _regular_simplex(kept) * max(2 * float(np.max(np.linalg.norm(coordinates, axis=1), initial=0.0)), 1.0)
    weights = np.linalg.solve(np.vstack([corners.T, np.ones(num_tokens)]), np.vstack([coordinates.T, np.ones(count)])).T
    keys = math.sqrt(dimension) * (np.linalg.pinv(queries) @ np.log(weights)).T
    return keys, middle + corners @ axes[:kept]


def _regular_simplex(dimension: int) -> np.ndarray:
    """Corners (dimension + 1, dimension) of a regular simplex about 0 whose inscribed ball has radius 1."""
    if dimension == 0:
        return np.zeros((1, 0))
    centred = np.eye(dimension + 1) - 1 / (dimension + 1)
    _, _, axes = np.linalg.svd(centred)
    corners = centred @ axes[:dimension].T
    return corners * dimension / np.linalg.norm(corners[0])


SIZES = (
    (("num_tokens", 2), ("num_queries", 4), ("dimension", 4), ("width", 3)),
    (("num_tokens", 3), ("num_queries", 4), ("dimension", 5), ("width", 4)),
)


def _draw(key: jax.Array, *, num_tokens: int, num_queries: int, dimension: int, width: int) -> Parameters:
    keys = jax.random.split(key, 4)
    return {
        "queries": jax.random.normal(keys[0], (num_queries, dimension)),
        "keys": jax.random.normal(keys[1], (num_tokens, dimension)),
        "values": 3 * jax.random.normal(keys[2], (num_tokens, width)),
        "targets": jax.random.normal(keys[3], (num_queries, width)),
    }


def _instance(parameters: Parameters, *, num_tokens: int, num_queries: int, dimension: int, width: int) -> Instance:
    return {
        "queries": parameters["queries"],
        "keys": jnp.tile(parameters["keys"][None], (num_queries, 1, 1)),
        "values": jnp.tile(parameters["values"][None], (num_queries, 1, 1)),
        "targets": parameters["targets"],
    }


def _errors(instance: Instance) -> jax.Array:
    """||o_i - t_i||, every query with its own tokens; JAX."""
    shifted = instance["values"] - instance["targets"][:, None, :]
    return instances.row_norms(attend(instance["queries"][:, None, :], instance["keys"], shifted)[:, 0, :])


def _tail(instance: Instance) -> jax.Array:
    targets = instance["targets"]
    num_tokens = instance["values"].shape[1]
    sizes = jnp.linalg.svd(targets - jnp.mean(targets, axis=0)[None, :], compute_uv=False)
    return instances.rounded_down(
        instances.norm(sizes[num_tokens - 1 :]), instances.norm(targets), 32 * sum(targets.shape)
    )


def _operations(*, num_tokens: int, num_queries: int, dimension: int, width: int) -> int:
    """The slack of `_tail` at targets of 8 times the tail's size, and the chain of the errors."""
    return 8 * (64 * (num_queries + width) + 16 * (num_tokens + dimension) + 64)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_tail,
    bound=lambda instance: instances.norm(_errors(instance)),
    operations=_operations,
)


def _hadamard_targets(num_tokens: int, width: int) -> np.ndarray:
    """Four targets in orthogonal directions: n - 1 of singular value 4 and one of 2."""
    signs = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=np.float64)
    targets = np.zeros((4, width))
    targets[:, : num_tokens - 1] = 2 * signs[:, : num_tokens - 1]
    targets[:, num_tokens - 1] = signs[:, num_tokens - 1]
    return targets


def witness_parameters(*, num_tokens: int, num_queries: int, dimension: int, width: int) -> Parameters:
    """Queries along the axes, and the tokens of the construction."""
    queries, targets = np.eye(num_queries, dimension), _hadamard_targets(num_tokens, width)
    keys, values = tokens_for_independent_queries(queries, targets, num_tokens)
    return {
        name: jnp.asarray(array)
        for name, array in (("queries", queries), ("keys", keys), ("values", values), ("targets", targets))
    }


def witness(*, num_tokens: int, num_queries: int, dimension: int, width: int) -> Instance:
    """Four targets, all but one direction of which the tokens reach: both sides are 2."""
    made = witness_parameters(num_tokens=num_tokens, num_queries=num_queries, dimension=dimension, width=width)
    return {
        **made,
        "keys": jnp.stack([made["keys"]] * num_queries),
        "values": jnp.stack([made["values"]] * num_queries),
    }


def _own_tokens() -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["values"] = jnp.repeat(instance["targets"][:, None, :] * (1 + 1e-3), 2, axis=1)
    return PROBLEM.outcome(instance, size, "every query has tokens of its own")


def _reality(evidence: Evidence) -> list[Outcome]:
    """Per record and head: over all frames and positions at once, the tail after the text's tokens alone, against the
    distance between what the head gives with its learned tokens and what it gives with the text alone."""
    outcomes = []
    for record in evidence.cross_attentions:
        own = record.num_shared + record.num_frame
        if not own:
            continue
        queries, keys, values = record.heads()
        for head in range(record.num_heads):
            with_own = np.concatenate(
                [attend(*rows) for rows in zip(queries[:, head], keys[:, head], values[:, head], strict=True)]
            )
            text = np.concatenate(
                [attend(rows, keys[0, head, own:], values[0, head, own:]) for rows in queries[:, head]]
            )
            outcomes.append(
                Outcome(
                    label=f"{record.label}, head {head}",
                    measured=rank_error(with_own, 0, values[0, head, own:]),
                    bound=float(np.linalg.norm(with_own - text)),
                    budget=relative_budget(64 * sum(with_own.shape)),
                )
            )
    return outcomes


CLAIM = Claim(
    id="C5.rank",
    title="The least error of n tokens over many queries is a tail of singular values",
    statement=(
        "Whatever the n tokens, the outputs of p queries miss their targets by at least the tail from the n-th "
        "singular value on of the "
        "centred targets. Independent queries attain it; so r + 1 tokens suffice and are needed, r the affine rank of "
        "the targets."
    ),
    latex=r"\|O - T\|_F \ge \Bigl(\sum_{i \ge n} s_i(T - \mathbf 1 \bar t^\top)^2\Bigr)^{1/2}",
    hypotheses=(Hypothesis("H1", "All queries see the same tokens."),),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="root of the sum of squares of the centred targets' singular values from the n-th on",
    bound_in_words="Frobenius distance of the outputs from the targets",
    necessity={"H1": _own_tokens},
    planted={
        "largest error of a query for the root of the sum of squares": lambda instance: jnp.max(_errors(instance)),
        "mean over the queries for the sum": lambda instance: (
            instances.norm(_errors(instance)) / instance["queries"].shape[0] ** 0.5
        ),
        "all queries but the first": lambda instance: instances.norm(_errors(instance)[1:]),
        "sum of squares without its root, over the targets' size": lambda instance: (
            jnp.sum(_errors(instance) ** 2) / instances.norm(instance["targets"])
        ),
    },
    reality=(
        Comparison(
            question=(
                "what the learned tokens of the trained UNet add to a head's outputs in directions that no weights "
                "over the text's values "
                "reach, against all that they add (both Frobenius norms over frames and positions)"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because=(
                "the theorem for 0 learned tokens and the text's fixed values, since both outputs are computed from "
                "the recorded queries"
            ),
        ),
    ),
    lemmas=("Eckart-Young theorem",),
    floor=0.98,
    floor_reason="the supremum is attained; the search stops where two singular values cross, which is a kink",
)
