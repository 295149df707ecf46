r"""Tokens that all frames share give equal queries equal outputs, so the worst frame errs by the Chebyshev radius of
the targets.

Statement. Let N frames have targets t_1, .., t_N, one query q each, all equal, and the same n tokens. Then every frame
has the same output o, and for all weights l in the simplex

    \max_f \| o - t_f \| \ge \sqrt{ \sum_f l_f \|t_f\|^2 - \| \sum_f l_f t_f \|^2 },

the largest of which is the Chebyshev radius of the targets, the radius of the least ball that holds them. Half the
largest distance of two targets is a weaker bound (an equilateral triangle of side 1: 0.577 against 0.5).

Hypotheses.
    H1  The query is the same in every frame.
    H2  The keys and values are the same in every frame.

**Attained**: by tokens whose values all lie at the centre of that ball.

In the paper: not there; it decides what shared tokens alone can do. Proof: paper_notes.md, section C5.chebyshev.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict
from theory.tokens import instances
from theory.tokens.attention import attend, host_array
from theory.tokens.enclosing import Bracketed, minimise_over_hull, rounding_slack


def chebyshev_radius(targets: Any) -> Bracketed:
    """Radius of the least ball that holds all targets: the least worst-frame error of one output for all frames.

        min_o max_f ||o - t_f|| = max_l sqrt(sum_f l_f ||t_f||^2 - ||sum_f l_f t_f||^2),  l in the simplex

    Args:
        targets: (N, width) floating NumPy, JAX or PyTorch array.

    Returns:
        The radius as a float, with `.lower` (from the multipliers, rounded down) and `.upper` (the largest distance
        from the centre, rounded up) around the exact one, `.point` the centre (width,) and `.multipliers` l (N,), the
        centre's weights over the targets.

    Raises:
        ValueError: no (N, width) floating array of finite values.

    Source: paper_notes.md, C5.chebyshev.
    """
    targets = host_array("targets", targets, 2)
    count, width = targets.shape
    middle = targets.mean(axis=0)
    shifted = targets - middle
    squares = np.sum(shifted**2, axis=1)
    scale = float(np.sqrt(squares.max()))
    slack = rounding_slack(width, count, scale)
    if scale == 0:
        return Bracketed(0.0, 0.0, 0.0, middle, np.full(count, 1 / count))
    places = {row.tobytes(): index for index, row in reversed(list(enumerate(shifted)))}

    def oracle(point: np.ndarray) -> tuple[np.ndarray, float]:
        index = int(np.argmin(2 * shifted @ point - squares))
        return shifted[index], float(squares[index])

    atoms, shares = minimise_over_hull(oracle, oracle(np.zeros(width)), slack * scale)
    multipliers = np.zeros(count)
    for share, atom in zip(shares, atoms, strict=True):
        multipliers[places[atom.tobytes()]] += share
    centre = multipliers @ shifted
    # Written about the centre, the dual value is a sum of squares and loses nothing to cancellation.
    spread = float(np.sqrt(multipliers @ np.sum((shifted - centre) ** 2, axis=1)))
    radius = float(np.max(np.linalg.norm(shifted - centre, axis=1)))
    return Bracketed(radius, max(0.0, spread - slack), radius + slack, middle + centre, multipliers)


def spread(targets: jax.Array, multipliers: jax.Array) -> jax.Array:
    """sqrt(sum_f l_f ||t_f - sum_g l_g t_g||^2), the dual value; JAX."""
    centre = multipliers @ targets
    return instances.norm(jnp.sqrt(multipliers)[:, None] * (targets - centre[None, :]))


SIZES = (
    (("num_frames", 3), ("num_tokens", 2), ("width", 2)),
    (("num_frames", 5), ("num_tokens", 3), ("width", 3)),
)
DIMENSION = 2


def _draw(key: jax.Array, *, num_frames: int, num_tokens: int, width: int) -> Parameters:
    keys = jax.random.split(key, 5)
    return {
        "targets": jax.random.normal(keys[0], (num_frames, width)),
        "multipliers": jax.random.normal(keys[1], (num_frames,)),
        "query": jax.random.normal(keys[2], (DIMENSION,)),
        "keys": jax.random.normal(keys[3], (num_tokens, DIMENSION)),
        "values": jax.random.normal(keys[4], (num_tokens, width)),
    }


def _instance(parameters: Parameters, *, num_frames: int, num_tokens: int, width: int) -> Instance:
    return {
        "targets": parameters["targets"],
        # The square root of a multiplier is what is drawn, so that its derivative is finite at 0.
        "multipliers": instances.simplex(parameters["multipliers"]),
        "queries": jnp.tile(parameters["query"][None, :], (num_frames, 1)),
        "keys": jnp.tile(parameters["keys"][None], (num_frames, 1, 1)),
        "values": jnp.tile(parameters["values"][None], (num_frames, 1, 1)),
    }


def frame_errors(instance: Instance) -> jax.Array:
    """||o_f - t_f||, (N,), every frame with its own query and tokens; JAX."""
    shifted = instance["values"] - instance["targets"][:, None, :]
    return instances.row_norms(attend(instance["queries"][:, None, :], instance["keys"], shifted)[:, 0, :])


def _measured(instance: Instance) -> jax.Array:
    targets = instance["targets"]
    value = spread(targets, instance["multipliers"])
    return instances.rounded_down(value, jnp.max(instances.row_norms(targets)), 8 * sum(targets.shape) + 32)


def _operations(*, num_frames: int, num_tokens: int, width: int) -> int:
    return 32 * (num_frames + num_tokens + width + DIMENSION) + 128


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: jnp.max(frame_errors(instance)),
    operations=_operations,
)


def _polygon(num_frames: int, width: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(num_frames) / num_frames
    return np.pad(np.stack([np.cos(angles), np.sin(angles)], axis=1), ((0, 0), (0, width - 2)))


def witness_parameters(*, num_frames: int, num_tokens: int, width: int) -> Parameters:
    """Targets at the corners of a regular polygon; all values at its centre."""
    return {
        "targets": jnp.asarray(_polygon(num_frames, width)),
        "multipliers": jnp.ones(num_frames),
        "query": jnp.ones(DIMENSION),
        "keys": jnp.ones((num_tokens, DIMENSION)),
        "values": jnp.zeros((num_tokens, width)),
    }


def witness(*, num_frames: int, num_tokens: int, width: int) -> Instance:
    """A regular polygon of circumradius 1 and equal multipliers: both sides are 1."""
    return {
        "targets": jnp.asarray(_polygon(num_frames, width)),
        "multipliers": jnp.full(num_frames, 1 / num_frames),
        "queries": jnp.ones((num_frames, DIMENSION)),
        "keys": jnp.ones((num_frames, num_tokens, DIMENSION)),
        "values": jnp.zeros((num_frames, num_tokens, width)),
    }


def _different(what: str) -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    targets = instance["targets"]
    if what == "tokens":
        instance["values"] = jnp.repeat(targets[:, None, :], 2, axis=1)
    else:
        # Two tokens a corner apart from the centre: a frame's own query picks the value at its corner.
        instance["values"] = jnp.tile(jnp.stack([targets[0], targets[1]])[None], (3, 1, 1))
        instance["keys"] = jnp.tile(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])[None], (3, 1, 1))
        instance["queries"] = jnp.asarray([[40.0, 0.0], [-40.0, 0.0], [0.0, 0.0]])
        instance["targets"] = targets.at[2].set(jnp.mean(targets[:2], axis=0))
        instance["multipliers"] = jnp.asarray([0.5, 0.5, 0.0])
    return PROBLEM.outcome(instance, size, what)


CLAIM = Claim(
    id="C5.chebyshev",
    title="Shared tokens and equal queries: the Chebyshev radius of the targets",
    statement=(
        "If all frames have one query and share their tokens, the largest distance of a frame's output from its "
        "target is at least the "
        "Chebyshev radius of the targets, and tokens with all values at the Chebyshev centre attain it."
    ),
    latex=(
        r"\max_f \|o - t_f\| \ge \max_{\lambda \in \Delta} "
        r"\sqrt{\textstyle\sum_f \lambda_f \|t_f\|^2 - \|\sum_f \lambda_f t_f\|^2}"
    ),
    hypotheses=(
        Hypothesis("H1", "The query is the same in every frame."),
        Hypothesis("H2", "The keys and values are the same in every frame."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="standard deviation of the targets under weights l on the frames, in the units of the targets",
    bound_in_words="largest distance of a frame's output from its target",
    necessity={"H1": lambda: _different("queries"), "H2": lambda: _different("tokens")},
    planted={
        "mean over the frames for the largest error": lambda instance: jnp.mean(frame_errors(instance)),
        "root mean square for the largest error": lambda instance: jnp.sqrt(jnp.mean(frame_errors(instance) ** 2)),
        "half the largest distance of two targets": lambda instance: instances.diameter(instance["targets"]) / 2,
        "error of the first frame": lambda instance: frame_errors(instance)[0],
    },
    no_network=(
        "no two frames of a clip have equal queries in the trained UNet; C5.separation bounds by how much queries "
        "that differ can help, and is "
        "compared there"
    ),
    floor=0.98,
    floor_reason="the supremum is attained, where several frames err alike, which is a kink of the largest error",
)
