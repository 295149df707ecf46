r"""A certified sensitivity of a cross-attention layer in its tokens and its inputs, from the layer's own weights.

Statement. A layer has H heads of width d with weights W_Q^h, W_K^h, W_V^h and W_O^h; with M_h = W_O^h W_V^h and G_h =
W_Q^{h T} W_K^h its output at input x over the tokens c_1, .., c_n is sum_h M_h sum_j p_j^h c_j + bias, p^h =
softmax_j(<x, G_h c_j> / sqrt(d)). For inputs of norm at most X and tokens of norm at most C

    \| f(x', c') - f(x, c) \| \le S_c \max_j \|c_j' - c_j\| + S_x \|x' - x\|,

    S_c = \sum_h \|M_h\| \sqrt{ 1 + \frac{X^2 C^2 \|G_h\|^2}{d} },   S_x = \sum_h \|M_h\| \frac{C^2 \|G_h\|}{\sqrt d},

whatever the number of tokens. The layer has no biases but that of the output, which drops out.

Hypotheses.
    H1  All inputs have norm at most X.
    H2  All tokens have norm at most C.

**Approached** as the changes tend to 0, for every number of heads of width d >= 2, tokens of width at least 2 and every
even number of tokens: half the tokens at each of two opposite points of norm C along a direction m, an input of norm X
whose logits do not depend on m, and changes of input and tokens that act together.

In the paper: not there. Proof: paper_notes.md, section C5.sensitivity.
"""

import math
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
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import CrossAttentionRecord, Evidence
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.attention import attend, host_array


class Sensitivity(NamedTuple):
    """How much a layer's output can move.

    Attributes:
        tokens: S_c, per largest change of a token (Euclidean norm).
        inputs: S_x, per change of a position's input (Euclidean norm).
    """

    tokens: float
    inputs: float


def _head_norms(query_weight, key_weight, value_weight, output_weight, num_heads: int, norm) -> list[tuple]:
    """(||M_h||, ||G_h||) of every head, by a spectral norm."""
    width = query_weight.shape[0] // num_heads
    found = []
    for head in range(num_heads):
        rows = slice(head * width, (head + 1) * width)
        found.append((norm(output_weight[:, rows] @ value_weight[rows]), norm(query_weight[rows].T @ key_weight[rows])))
    return found


def _constants(norms, width: int, input_radius, token_radius) -> tuple:
    steepness = [input_radius * token_radius * inner / math.sqrt(width) for _, inner in norms]
    tokens = sum(outer * (1 + slope**2) ** 0.5 for (outer, _), slope in zip(norms, steepness, strict=True))
    inputs = sum(outer * token_radius**2 * inner / math.sqrt(width) for outer, inner in norms)
    return tokens, inputs


def attention_sensitivity(
    query_weight: Any,
    key_weight: Any,
    value_weight: Any,
    output_weight: Any,
    *,
    num_heads: int,
    input_radius: float,
    token_radius: float,
) -> Sensitivity:
    """Certified sensitivity of a multi-head cross-attention layer on a ball, rounded up.

        S_c = sum_h ||M_h|| sqrt(1 + X^2 C^2 ||G_h||^2 / d),   S_x = sum_h ||M_h|| C^2 ||G_h|| / sqrt(d)

    Args:
        query_weight: (inner, channels) floating NumPy, JAX or PyTorch array, inner = num_heads * d, head by head.
        key_weight, value_weight: (inner, width) of the tokens.
        output_weight: (channels, inner).
        input_radius: X > 0, the largest norm of an input (of a LayerNorm's output: sqrt(channels) max|gamma| +
            ||beta||).
        token_radius: C > 0, the largest norm of a token.

    Raises:
        ValueError: shapes that do not fit, num_heads that does not divide inner, a radius that is not positive and
        finite, values that are
            not finite.

    Source: paper_notes.md, C5.sensitivity.
    """
    weights = {
        "query_weight": query_weight,
        "key_weight": key_weight,
        "value_weight": value_weight,
        "output_weight": output_weight,
    }
    query, key, value, output = (host_array(name, weight, 2) for name, weight in weights.items())
    inner = len(query)
    if not (len(key) == len(value) == output.shape[1] == inner and key.shape[1] == value.shape[1]):
        shapes = ", ".join(f"{name} {tuple(weight.shape)}" for name, weight in weights.items())
        raise ValueError(
            f"{shapes}: (inner, channels), (inner, width), (inner, width) and (channels, inner) are needed; transpose "
            "them?"
        )
    if num_heads < 1 or inner % num_heads:
        raise ValueError(f"num_heads = {num_heads} must divide inner = {inner}, the rows of the query weight")
    for name, radius in (("input_radius", input_radius), ("token_radius", token_radius)):
        if not (math.isfinite(radius) and radius > 0):
            raise ValueError(f"{name} = {radius}; a finite number > 0 is needed: the largest norm that occurs")
    norms = _head_norms(query, key, value, output, num_heads, lambda matrix: float(np.linalg.norm(matrix, 2)))
    # Products and singular values round at the size of the factors' Frobenius norms.
    slack = relative_budget(16 * (inner + sum(query.shape) + sum(key.shape)))
    padded = [
        (
            outer + slack * float(np.linalg.norm(output) * np.linalg.norm(value)),
            inner_norm + slack * float(np.linalg.norm(query) * np.linalg.norm(key)),
        )
        for outer, inner_norm in norms
    ]
    tokens, inputs = _constants(padded, inner // num_heads, input_radius, token_radius)
    return Sensitivity(tokens * (1 + slack), inputs * (1 + slack))


SIZES = (
    (("num_heads", 1), ("num_tokens", 2)),
    (("num_heads", 2), ("num_tokens", 4)),
)
HEAD_WIDTH, CHANNELS, TOKEN_WIDTH = 2, 3, 2
STEP = 1e-3
"""The witness's changes: its ratio falls short of 1 by about this much."""


def _draw(key: jax.Array, *, num_heads: int, num_tokens: int) -> Parameters:
    keys = jax.random.split(key, 9)
    inner = num_heads * HEAD_WIDTH
    return {
        "query_weight": jax.random.normal(keys[0], (inner, CHANNELS)),
        "key_weight": jax.random.normal(keys[1], (inner, TOKEN_WIDTH)),
        "value_weight": jax.random.normal(keys[2], (inner, TOKEN_WIDTH)),
        "output_weight": jax.random.normal(keys[3], (CHANNELS, inner)),
        "inputs": jax.random.normal(keys[4], (2, CHANNELS)),
        "tokens": jax.random.normal(keys[5], (2, num_tokens, TOKEN_WIDTH)),
        "radii": jax.random.normal(keys[6], (2,)),
        "step": jax.random.normal(keys[7], (2,)),
    }


def _into_ball(rows: jax.Array, radius: jax.Array) -> jax.Array:
    """Rows of norm at most `radius`: those beyond it are brought to its surface."""
    return rows * (radius / jnp.maximum(instances.row_norms(rows), radius))[..., None]


def _instance(parameters: Parameters, *, num_heads: int, num_tokens: int) -> Instance:
    input_radius, token_radius = jnp.exp(jnp.sin(parameters["radii"]))
    inputs, tokens = _into_ball(parameters["inputs"], input_radius), _into_ball(parameters["tokens"], token_radius)
    # The second point lies on the segment from the first to a drawn one, at any share of it, inputs and tokens apart.
    shares = jnp.sin(parameters["step"]) ** 2
    weights = {name: parameters[name] for name in ("query_weight", "key_weight", "value_weight", "output_weight")}
    return weights | {
        "inputs": jnp.stack([inputs[0], inputs[0] + shares[0] * (inputs[1] - inputs[0])]),
        "tokens": jnp.stack([tokens[0], tokens[0] + shares[1] * (tokens[1] - tokens[0])]),
        "input_radius": input_radius,
        "token_radius": token_radius,
    }


def _heads(instance: Instance) -> int:
    return instance["query_weight"].shape[0] // HEAD_WIDTH


def _output(instance: Instance, point: int) -> jax.Array:
    made = []
    for head in range(_heads(instance)):
        rows = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        query = instance["query_weight"][rows] @ instance["inputs"][point]
        keys = instance["tokens"][point] @ instance["key_weight"][rows].T
        made.append(attend(query, keys, instance["tokens"][point] @ instance["value_weight"][rows].T))
    return instance["output_weight"] @ jnp.concatenate(made)


def _measured(instance: Instance) -> jax.Array:
    norm = instances.norm
    # Operand size of the outputs, with the factor 1 + largest logit that a softmax adds to a relative error.
    values = norm(instance["output_weight"]) * norm(instance["value_weight"]) * instance["token_radius"]
    logits = (
        norm(instance["query_weight"])
        * norm(instance["key_weight"])
        * instance["token_radius"]
        * instance["input_radius"]
    )
    count = sum(instance["tokens"].shape) + sum(instance["query_weight"].shape)
    return instances.rounded_down(norm(_output(instance, 1) - _output(instance, 0)), values * (1 + logits), 32 * count)


def _steps(instance: Instance) -> tuple[jax.Array, jax.Array]:
    return (
        jnp.max(instances.row_norms(instance["tokens"][1] - instance["tokens"][0])),
        instances.norm(instance["inputs"][1] - instance["inputs"][0]),
    )


def _norms(instance: Instance) -> list[tuple]:
    weights = (instance[name] for name in ("query_weight", "key_weight", "value_weight", "output_weight"))
    return _head_norms(*weights, _heads(instance), lambda matrix: jnp.linalg.svd(matrix, compute_uv=False)[0])


def _bound(instance: Instance, width: int = HEAD_WIDTH) -> jax.Array:
    tokens, inputs = _constants(_norms(instance), width, instance["input_radius"], instance["token_radius"])
    token_step, input_step = _steps(instance)
    return tokens * token_step + inputs * input_step


def _without_direct_part(instance: Instance) -> jax.Array:
    """X C ||G_h|| / sqrt(d) for the root of 1 plus its square."""
    input_radius, token_radius = instance["input_radius"], instance["token_radius"]
    norms, root = _norms(instance), math.sqrt(HEAD_WIDTH)
    token_step, input_step = _steps(instance)
    slopes = sum(outer * inner for outer, inner in norms) * token_radius / root
    return slopes * (input_radius * token_step + token_radius * input_step)


def _with_other_radius(instance: Instance) -> jax.Array:
    """C X for C^2 in S_x."""
    tokens, inputs = _constants(_norms(instance), HEAD_WIDTH, instance["input_radius"], instance["token_radius"])
    token_step, input_step = _steps(instance)
    return tokens * token_step + inputs * input_step * instance["input_radius"] / instance["token_radius"]


def _operations(*, num_heads: int, num_tokens: int) -> int:
    return 64 * (num_heads * HEAD_WIDTH + num_tokens + CHANNELS + TOKEN_WIDTH + 8)


PROBLEM = Problem(sizes=SIZES, draw=_draw, instance=_instance, measured=_measured, bound=_bound, operations=_operations)


def witness_parameters(*, num_heads: int, num_tokens: int) -> Parameters:
    """X = 1 and C = e. Every head sees the tokens and the first two channels as they are and writes the tokens' first
    coordinate m into the first channel. Half the tokens are at C m, half at -C m; the input is X times the second axis,
    whose logits do not depend on m."""
    rows = np.tile(np.eye(HEAD_WIDTH), (num_heads, 1))
    signs = np.where(np.arange(num_tokens) % 2 == 0, 1.0, -1.0)
    slope = np.e / math.sqrt(HEAD_WIDTH)
    tokens = (1 - STEP) * np.e * signs[:, None] * np.eye(TOKEN_WIDTH)[0]
    moves = STEP * np.stack([np.ones(num_tokens), slope * signs], axis=1) / math.sqrt(1 + slope**2)
    inputs = np.array([[0.0, 1 - STEP, 0.0], [STEP, 1 - STEP, 0.0]])
    return {
        "query_weight": jnp.asarray(np.pad(rows, ((0, 0), (0, CHANNELS - HEAD_WIDTH)))),
        "key_weight": jnp.asarray(rows),
        "value_weight": jnp.asarray(rows),
        "output_weight": jnp.asarray(np.eye(CHANNELS)[0][:, None] * rows[:, 0]),
        "inputs": jnp.asarray(inputs),
        "tokens": jnp.asarray(np.stack([tokens, tokens + moves])),
        "radii": jnp.asarray([0.0, np.pi / 2]),
        "step": jnp.asarray([np.pi / 2, np.pi / 2]),
    }


def witness(*, num_heads: int, num_tokens: int) -> Instance:
    """Tokens and input move by 1/1000 each, so that both push the output along the first channel."""
    made = witness_parameters(num_heads=num_heads, num_tokens=num_tokens)
    kept = {
        name: made[name] for name in ("query_weight", "key_weight", "value_weight", "output_weight", "inputs", "tokens")
    }
    return kept | {"input_radius": jnp.asarray(1.0), "token_radius": jnp.asarray(np.e)}


def _broken(what: str) -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance[what] = 3 * instance[what]
    if what == "inputs":
        # The inputs stay where they are, and the tokens' changes follow the steeper logits.
        instance["inputs"] = jnp.stack([instance["inputs"][0]] * 2)
        signs = jnp.asarray([1.0, -1.0])
        moves = STEP * jnp.stack([0.2 * jnp.ones(2), signs], axis=1)
        instance["tokens"] = jnp.stack([instance["tokens"][0], instance["tokens"][0] + moves])
    return PROBLEM.outcome(instance, size, what)


def _certified(record: CrossAttentionRecord) -> Sensitivity:
    return attention_sensitivity(
        record.query_weight,
        record.key_weight,
        record.value_weight,
        record.output_weight,
        num_heads=record.num_heads,
        input_radius=float(np.max(np.linalg.norm(record.inputs, axis=-1))),
        token_radius=float(np.max(np.linalg.norm(record.context, axis=-1))),
    )


def _reality(evidence: Evidence) -> list[Outcome]:
    """Per record: the recorded outputs of neighbouring frames, against the bound from the changes of their inputs and
    tokens."""
    outcomes = []
    for record in evidence.cross_attentions:
        constants = _certified(record)
        moved = np.linalg.norm(np.diff(record.outputs, axis=0), axis=-1)
        inputs = np.linalg.norm(np.diff(record.inputs, axis=0), axis=-1)
        tokens = np.max(np.linalg.norm(np.diff(record.context, axis=0), axis=-1), axis=-1)
        bounds = constants.tokens * tokens[:, None] + constants.inputs * inputs
        place = np.unravel_index(np.argmax(moved / bounds), moved.shape)
        outcomes.append(
            Outcome(
                label=f"{record.label}, frames {place[0]} and {place[0] + 1}, position {place[1]}",
                measured=float(moved[place]),
                bound=float(bounds[place]),
                budget=relative_budget(256 * (record.inputs.shape[-1] + record.context.shape[-1])),
            )
        )
    return outcomes


CLAIM = Claim(
    id="C5.sensitivity",
    title="Certified sensitivity of a cross-attention layer from its weights",
    statement=(
        "On balls of radius X of inputs and C of tokens the output of a multi-head cross-attention moves by at most "
        "S_c times the largest change "
        "of a token plus S_x times the change of the input, S_c and S_x explicit in the spectral norms of the heads' "
        "weights, and no smaller ones."
    ),
    latex=(
        r"\|f(x',c') - f(x,c)\| \le \sum_h \|M_h\| \Bigl[\sqrt{1 + \tfrac{X^2C^2\|G_h\|^2}{d}}\,\max_j\|c_j'-c_j\| "
        r"+ \tfrac{C^2\|G_h\|}{\sqrt d}\|x'-x\|\Bigr]"
    ),
    hypotheses=(
        Hypothesis("H1", "All inputs have norm at most X."),
        Hypothesis("H2", "All tokens have norm at most C."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="distance of the layer's outputs at two inputs and two sets of tokens",
    bound_in_words="S_c times the largest change of a token plus S_x times the change of the input",
    necessity={"H1": lambda: _broken("inputs"), "H2": lambda: _broken("tokens")},
    planted={
        "d for its square root": lambda instance: _bound(instance, width=HEAD_WIDTH**2),
        "X C for C^2 in the inputs' part": _with_other_radius,
        "the largest head for the sum of the heads, halved": lambda instance: (
            _bound(instance) / (2 * len(_norms(instance)))
        ),
        "no direct part of the tokens": _without_direct_part,
    },
    reality=(
        Comparison(
            question=(
                "change of the recorded cross-attention output of the trained UNet from a frame to the next at one "
                "position, against the certified "
                "sensitivity of the layer times the changes of its input and tokens"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because=(
                "the theorem on the balls that hold the recorded inputs and tokens, since the layer computes what "
                "C5.alignment checks"
            ),
        ),
    ),
    lemmas=("Jensen's inequality", "Popoviciu's inequality on variances"),
    sharpness=(
        "as the changes of tokens and input tend to 0, for every number of heads of width at least 2, tokens of width at "
        "least 2 and every even number of tokens; heads of width 1 and odd numbers of tokens are open"
    ),
    floor=0.97,
    floor_reason="the supremum is a limit in which the changes vanish, and the search may stop short of it",
)
