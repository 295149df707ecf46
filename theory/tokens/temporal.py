r"""How much an output changes when the frame-specific tokens change from one frame to the next.

Statement. A query q sees frame tokens, whose keys change by at most a and whose values change by at most b from one
frame to the next, and other tokens, which stay. Let m be the larger of the two frames' attention masses on the frame
tokens, and R_v the diameter of all values of the first frame. Then

    \| o' - o \| \le m b + c(m) \, R_v \, \frac{\|q\| a}{\sqrt d},
    \qquad c(m) = \begin{cases} m (1 - m) & m \le 1/3 \\ (1 + m)^2 / 8 & m \ge 1/3. \end{cases}

Together with C5.separation, for a query that changes too, the output changes by at most R_v' tanh(R_k' ||q' - q|| / (4
sqrt d)) more, with the diameters of the second frame's tokens. So "frame-specific" tokens that change little from frame
to frame keep the outputs together, and c(m) is at most 1/2.

Hypotheses.
    H1  The keys of the frame tokens change by at most a, their values by at most b.
    H2  The query and all other tokens are the same in both frames.

**Approached** as a -> 0 with b = 0: with at least two frame tokens and one other, or one frame token and m <= 1/3.

In the paper: not there; it says what frame-specific tokens cost in temporal consistency. Proof: paper_notes.md, section
C5.temporal.
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
    Plant,
    Problem,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.attention import attend

SIZES = (
    (("num_frame", 1), ("num_others", 2), ("dimension", 2), ("moving_values", 0)),
    (("num_frame", 2), ("num_others", 1), ("dimension", 2), ("moving_values", 0)),
    (("num_frame", 2), ("num_others", 2), ("dimension", 3), ("moving_values", 1)),
)
WIDTH = 2
STEP = 1e-3
"""The witness's change of a key: its ratio falls short of 1 by about this much."""


def mass_factor(mass):
    """c(m), the largest covariance of a change of the frame tokens' logits with values of diameter 1.

    Args:
        mass: m in [0, 1], float or JAX array.

    Source: paper_notes.md, C5.temporal.
    """
    return jnp.where(mass <= 1 / 3, mass * (1 - mass), (1 + mass) ** 2 / 8)


def temporal_bound(mass, key_change, value_change, value_diameter, query_norm, dimension: int):
    """How far one query's output moves when the frame tokens change.

        m b + c(m) R_v ||q|| a / sqrt(d)

    Args:
        mass: m, the larger attention mass on the frame tokens; key_change, value_change: a and b; value_diameter: R_v
            of the first frame;
            query_norm: ||q||. Floats or JAX arrays.
        dimension: d, of a head.

    Source: paper_notes.md, C5.temporal.
    """
    return mass * value_change + mass_factor(mass) * value_diameter * query_norm * key_change / math.sqrt(dimension)


def _draw(key: jax.Array, *, num_frame: int, num_others: int, dimension: int, moving_values: int) -> Parameters:
    keys = jax.random.split(key, 6)
    return {
        "query": jax.random.normal(keys[0], (dimension,)),
        "keys": jax.random.normal(keys[1], (num_frame + num_others, dimension)),
        "values": jax.random.normal(keys[2], (num_frame + num_others, WIDTH)),
        "key_changes": 0.3 * jax.random.normal(keys[3], (num_frame, dimension)),
        "value_changes": 0.3 * jax.random.normal(keys[4], (num_frame, WIDTH)),
    }


def _instance(
    parameters: Parameters, *, num_frame: int, num_others: int, dimension: int, moving_values: int
) -> Instance:
    still = jnp.zeros((num_others, 1))
    key_changes = jnp.concatenate([parameters["key_changes"], still * jnp.zeros((1, dimension))])
    value_changes = moving_values * jnp.concatenate([parameters["value_changes"], still * jnp.zeros((1, WIDTH))])
    return {
        "query": parameters["query"],
        "keys": parameters["keys"],
        "values": parameters["values"],
        "new_keys": parameters["keys"] + key_changes,
        "new_values": parameters["values"] + value_changes,
        "own": jnp.concatenate([jnp.ones(num_frame), jnp.zeros(num_others)]),
    }


def _outputs(instance: Instance) -> tuple[jax.Array, jax.Array]:
    query = instance["query"]
    return attend(query, instance["keys"], instance["values"]), attend(
        query, instance["new_keys"], instance["new_values"]
    )


def _measured(instance: Instance) -> jax.Array:
    before, after = _outputs(instance)
    count, dimension = instance["keys"].shape
    largest_key = jnp.maximum(
        jnp.max(instances.row_norms(instance["keys"])), jnp.max(instances.row_norms(instance["new_keys"]))
    )
    logit_size = instances.norm(instance["query"]) * largest_key / math.sqrt(dimension)
    scale = (1 + logit_size) * (
        jnp.max(instances.row_norms(instance["values"])) + jnp.max(instances.row_norms(instance["new_values"]))
    )
    return instances.rounded_down(instances.norm(after - before), scale, 8 * (count + dimension + WIDTH) + 64)


def _mass(instance: Instance) -> jax.Array:
    own, query = instance["own"][:, None], instance["query"]
    return jnp.maximum(attend(query, instance["keys"], own)[0], attend(query, instance["new_keys"], own)[0])


def _sides(instance: Instance) -> tuple:
    own = instance["own"]
    return (
        _mass(instance),
        jnp.max(own * instances.row_norms(instance["new_keys"] - instance["keys"])),
        jnp.max(own * instances.row_norms(instance["new_values"] - instance["values"])),
        instances.diameter(instance["values"]),
        instances.norm(instance["query"]),
        instance["keys"].shape[1],
    )


def _change_of_logits(instance: Instance) -> jax.Array:
    """R_v ||q|| a / sqrt(d), what c(m) multiplies."""
    _, key_change, _, value_diameter, query_norm, dimension = _sides(instance)
    return value_diameter * query_norm * key_change / math.sqrt(dimension)


def _operations(*, num_frame: int, num_others: int, dimension: int, moving_values: int) -> int:
    """As in `_measured`; the changes a and b, differences of entries of size at most 4, carry a relative rounding of
    their own."""
    return 256 * (num_frame + num_others + dimension + WIDTH)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: temporal_bound(*_sides(instance)),
    operations=_operations,
)


def _extremal_weights(num_frame: int, num_others: int) -> np.ndarray:
    """m = 1/3 on one frame token; or m = 0.8 split into (1 + m)/4 and the rest on two, and 1 - m on the others."""
    if num_frame == 1:
        return np.array([1 / 3, *[2 / 3 / num_others] * num_others])
    return np.array([0.45, *[0.35 / (num_frame - 1)] * (num_frame - 1), *[0.2 / num_others] * num_others])


def witness_parameters(*, num_frame: int, num_others: int, dimension: int, moving_values: int) -> Parameters:
    """One frame token's logit rises, the others' frame tokens' falls; its value is at one end of a segment and all
    others at the other."""
    count = num_frame + num_others
    axis, first = np.eye(dimension)[0], np.eye(count)[0]
    own_first = np.eye(num_frame)[0]
    return {
        "query": jnp.asarray(axis),
        "keys": jnp.asarray(math.sqrt(dimension) * np.log(_extremal_weights(num_frame, num_others))[:, None] * axis),
        "values": jnp.asarray(first[:, None] * np.eye(WIDTH)[0]),
        "key_changes": jnp.asarray(STEP * (2 * own_first - 1)[:, None] * axis),
        "value_changes": jnp.asarray(STEP * np.ones((num_frame, 1)) * np.eye(WIDTH)[0]),
    }


def witness(*, num_frame: int, num_others: int, dimension: int, moving_values: int) -> Instance:
    """A change of 1/1000 in the keys: the ratio falls short of 1 by about as much."""
    made = witness_parameters(
        num_frame=num_frame, num_others=num_others, dimension=dimension, moving_values=moving_values
    )
    new_keys = made["keys"].at[:num_frame].add(made["key_changes"])
    own = np.zeros(num_frame + num_others)
    own[:num_frame] = 1.0
    return {
        "query": made["query"],
        "keys": made["keys"],
        "values": made["values"],
        "new_keys": new_keys,
        "new_values": made["values"].at[:num_frame].add(moving_values * made["value_changes"]),
        "own": jnp.asarray(own),
    }


def _broken(what: str) -> Outcome:
    size = SIZES[1]
    instance = dict(witness(**dict(size)))
    if what == "others":
        instance["new_keys"] = instance["new_keys"].at[2].add(jnp.asarray([-1.0, 0.0]))
    else:
        # A frame token that is left out of the count changes more than those that are counted.
        instance["own"] = jnp.asarray([0.0, 1.0, 0.0])
        instance["new_keys"] = instance["new_keys"].at[0].add(jnp.asarray([1.0, 0.0]))
    return PROBLEM.outcome(instance, size, what)


def _reality(evidence: Evidence) -> list[Outcome]:
    """Per record and head, over neighbouring frames and positions: the change of the output for the first frame's
    query, when its tokens are replaced by the next frame's, against the bound."""
    outcomes = []
    for record in evidence.cross_attentions:
        if not record.num_frame:
            continue
        queries, keys, values = record.heads()
        first, last = record.num_shared, record.num_shared + record.num_frame
        own = np.zeros((keys.shape[2], 1))
        own[first:last] = 1.0
        for head in range(record.num_heads):
            worst = None
            for frame in range(len(queries) - 1):
                rows, width = queries[frame, head], keys.shape[-1]
                old, new = (keys[frame + i, head] for i in (0, 1))
                old_values, new_values = (values[frame + i, head] for i in (0, 1))
                measured = np.linalg.norm(attend(rows, new, new_values) - attend(rows, old, old_values), axis=1)
                mass = np.maximum(attend(rows, old, own), attend(rows, new, own))[:, 0]
                bounds = np.asarray(
                    temporal_bound(
                        mass,
                        np.max(np.linalg.norm(new - old, axis=1)),
                        np.max(np.linalg.norm(new_values - old_values, axis=1)),
                        float(instances.diameter(jnp.asarray(old_values))),
                        np.linalg.norm(rows, axis=1),
                        width,
                    )
                )
                place = int(np.argmax(measured / bounds))
                found = Outcome(
                    label=f"{record.label}, head {head}, frames {frame} and {frame + 1}, position {place}",
                    measured=float(measured[place]),
                    bound=float(bounds[place]),
                    budget=relative_budget(256 * (len(old) + 2 * width)),
                )
                worst = found if worst is None or found.ratio > worst.ratio else worst
            outcomes.append(worst)
    return outcomes


def _neighbours(evidence: Evidence) -> list[Outcome]:
    """Per record: root mean square change of the layer's recorded output from a frame to the next, against that between
    the first and the last."""
    outcomes = []
    for record in evidence.cross_attentions:
        steps = np.diff(record.outputs, axis=0)
        outcomes.append(
            Outcome(
                label=record.label,
                measured=float(np.sqrt(np.mean(steps**2))),
                bound=float(np.sqrt(np.mean((record.outputs[-1] - record.outputs[0]) ** 2))),
                budget=relative_budget(16 * steps[0].size),
            )
        )
    return outcomes


CLAIM = Claim(
    id="C5.temporal",
    title="How much outputs change when the frame-specific tokens do",
    statement=(
        "From one frame to the next the output of a query changes by at most m b + c(m) R_v ||q|| a / sqrt(d), a and "
        "b the largest changes of a "
        "frame token's key and value, m the attention mass on them; c(m) = m (1 - m) up to 1/3 and (1 + m)^2 / 8 above."
    ),
    latex=(
        r"\|o' - o\| \le m b + c(m) R_v \frac{\|q\| a}{\sqrt d},"
        r"\quad c(m) = m(1-m)\ (m \le \tfrac13),\ \tfrac{(1+m)^2}{8}\ (m \ge \tfrac13)"
    ),
    hypotheses=(
        Hypothesis("H1", "The keys of the frame tokens change by at most a, their values by at most b."),
        Hypothesis("H2", "The query and all other tokens are the same in both frames."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="distance of a query's outputs in two neighbouring frames, in the units of the values",
    bound_in_words=(
        "attention mass times the change of the values, plus c of the mass times the values' diameter times the "
        "change of the logits"
    ),
    sharpness=(
        "as the change a of the keys tends to 0; the coefficient c(m) is reached in that limit with b = 0, for every "
        "m with two frame tokens "
        "and another one, and for m <= 1/3 with one frame token; for one frame token and m > 1/3 the coefficient m (1 "
        "- m) holds, which is "
        "smaller; both terms are reached together when all values of the frame tokens move along the segment as well"
    ),
    necessity={"H1": lambda: _broken("own"), "H2": lambda: _broken("others")},
    planted={
        "m (1 - m) at every m": Plant(
            lambda instance: (
                temporal_bound(*_sides(instance))
                - (mass_factor(_mass(instance)) - _mass(instance) * (1 - _mass(instance))) * _change_of_logits(instance)
            ),
            applies=lambda *, num_frame, **_: num_frame > 1,
            why="with one frame token the coefficient m (1 - m) is true at every m",
        ),
        "d for its square root": lambda instance: temporal_bound(*_sides(instance)[:5], _sides(instance)[5] ** 2),
        "half the diameter of the values": lambda instance: temporal_bound(
            *_sides(instance)[:3], _sides(instance)[3] / 2, *_sides(instance)[4:]
        ),
        "the mass squared": lambda instance: temporal_bound(_mass(instance) ** 2, *_sides(instance)[1:]),
        "1/8 for every mass": lambda instance: (
            _sides(instance)[0] * _sides(instance)[2] + _change_of_logits(instance) / 8
        ),
    },
    reality=(
        Comparison(
            question=(
                "change of a head's output at one position, when the tokens of a frame are replaced by the next "
                "frame's, in the trained UNet with "
                "its prompt tokens, against the bound from the changes of keys and values"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because=(
                "the theorem: shared and text tokens are the same in all frames, and the outputs are computed from "
                "the recorded queries"
            ),
        ),
        Comparison(
            question=(
                "root mean square change of the recorded cross-attention output of the trained UNet from a frame to "
                "the next, against that between "
                "the first and the last frame"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_neighbours,
        ),
    ),
    floor=0.97,
    floor_reason="the supremum is a limit in which the changes vanish, and the search may stop short of it",
)
