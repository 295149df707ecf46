r"""Shared tokens alone do not align frames with different targets where their queries agree.

Statement as read. Tokens that all frames share bring the output of every frame within tau times the targets' diameter R
of its target, for any tolerance tau > 0, if there are enough tokens.

**Refuted** where the frames' queries are equal: the output is then one point for all frames, so two targets a distance
R apart leave an error of R/2 in one of them, whatever the number of tokens and the bound on their keys. Every tolerance
tau < 1/2 is refuted by all N >= 2 targets that are not all equal.

**Repaired** (H3): a tolerance of tau >= sqrt((N - 1)/(2 N)) is enough: by Jung's theorem N points of diameter R lie in
a ball of radius R sqrt((N-1)/(2N)), and tokens whose values are its centre attain it. For N = 2 that is 1/2.

Hypotheses.
    H1  The query is the same in every frame.
    H2  The keys and values are the same in every frame.
    H3  (restored by the repair) tau >= sqrt((N-1)/(2N)).

In the paper: one reading of its claim on shared tokens. Proof: paper_notes.md, section C5.shared.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Parameters, Problem, Tightness, Verdict
from theory.tokens import instances
from theory.tokens.chebyshev import spread

TOLERANCE = 0.1
"""What the search calls near-perfect where the tolerance is not drawn: a tenth of the diameter of the targets."""

SIZES = (
    (("num_frames", 2), ("width", 2)),
    (("num_frames", 4), ("width", 3)),
)


def _draw(key: jax.Array, *, num_frames: int, width: int) -> Parameters:
    keys = jax.random.split(key, 3)
    return {
        "targets": jax.random.normal(keys[0], (num_frames, width)),
        "multipliers": jax.random.normal(keys[1], (num_frames,)),
        "tolerance": jax.random.normal(keys[2]),
    }


def _any(parameters: Parameters, *, num_frames: int, width: int) -> Instance:
    return {
        "targets": parameters["targets"],
        "multipliers": instances.simplex(parameters["multipliers"]),
        "tolerance": jnp.asarray(TOLERANCE),
    }


def _two_apart(parameters: Parameters, *, num_frames: int, width: int) -> Instance:
    """Any targets that do not all coincide, half the multiplier on each of two that are farthest apart, tolerance
    between 1/100 and 0.49."""
    targets = parameters["targets"]
    targets = targets.at[1].add(jnp.where(instances.diameter(targets) > 1e-3, 0.0, 1.0))
    gaps = instances.row_norms(targets[:, None, :] - targets[None, :, :])
    pair = jnp.argmax(gaps)
    first, second = pair // num_frames, pair % num_frames
    return {
        "targets": targets,
        "multipliers": jnp.zeros(num_frames).at[first].add(0.5).at[second].add(0.5),
        "tolerance": 0.01 + 0.48 * jnp.sin(parameters["tolerance"]) ** 2,
    }


def _restored(parameters: Parameters, *, num_frames: int, width: int) -> Instance:
    """Any targets and multipliers, and the tolerance of Jung's theorem."""
    return _any(parameters, num_frames=num_frames, width=width) | {
        "tolerance": jnp.sqrt((num_frames - 1) / (2.0 * num_frames)),
    }


def _measured(instance: Instance) -> jax.Array:
    targets = instance["targets"]
    value = spread(targets, instance["multipliers"])
    return instances.rounded_down(value, jnp.max(instances.row_norms(targets)), 8 * sum(targets.shape) + 32)


def _bound(instance: Instance) -> jax.Array:
    return instance["tolerance"] * instances.diameter(instance["targets"])


def _operations(*, num_frames: int, width: int) -> int:
    return 32 * (num_frames + width) + 128


AS_STATED = Problem(sizes=SIZES, draw=_draw, instance=_any, measured=_measured, bound=_bound, operations=_operations)
COUNTEREXAMPLES = Problem(
    sizes=SIZES, draw=_draw, instance=_two_apart, measured=_measured, bound=_bound, operations=_operations
)
REPAIRED = Problem(
    sizes=SIZES, draw=_draw, instance=_restored, measured=_measured, bound=_bound, operations=_operations
)


def witness_parameters(*, num_frames: int, width: int) -> Parameters:
    """Two targets a distance 1 apart, each with half the weight; the others coincide with the first."""
    return {
        "targets": jnp.zeros((num_frames, width)).at[1, 0].set(1.0),
        "multipliers": jnp.zeros(num_frames).at[:2].set(1.0),
        "tolerance": jnp.asarray(0.0),
    }


def witness(*, num_frames: int, width: int) -> Instance:
    """A counterexample: one output for all frames errs by 1/2 in one of two targets a distance 1 apart."""
    targets, multipliers = np.zeros((num_frames, width)), np.zeros(num_frames)
    targets[1, 0], multipliers[:2] = 1.0, 0.5
    return {
        "targets": jnp.asarray(targets),
        "multipliers": jnp.asarray(multipliers),
        "tolerance": jnp.asarray(TOLERANCE),
    }


CLAIM = Claim(
    id="C5.shared",
    title="Shared tokens alone align every frame",
    statement=(
        "Tokens that all frames share bring every frame's output within any tolerance tau of the targets' diameter. "
        "False for every tau < 1/2 "
        "where the frames' queries agree: the output is the same for all of them. True for tau >= sqrt((N-1)/(2N))."
    ),
    latex=r"\max_f\|o - t_f\| \le \tau R;\quad \text{repaired: } \tau \ge \sqrt{\tfrac{N-1}{2N}}",
    hypotheses=(
        Hypothesis("H1", "The query is the same in every frame."),
        Hypothesis("H2", "The keys and values are the same in every frame."),
        Hypothesis("H3", "(restored by the repair) tau >= sqrt((N-1)/(2N))."),
    ),
    verdict=Verdict.REFUTED,
    tightness=Tightness.LOWER,
    origin="one reading of the paper's claim on shared tokens, as one public summary words it",
    problem=AS_STATED,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "standard deviation of the targets under weights on the frames, a lower bound on the worst frame's error"
    ),
    bound_in_words="the tolerance times the largest distance of two targets",
    definitional={
        "H1": "necessity is decided by C5.chebyshev",
        "H2": "it is what shared means; necessity is decided by C5.chebyshev",
        "H3": "its absence is what the counterexamples refute",
    },
    planted={
        "half the diameter times the tolerance": lambda instance: _bound(instance) / 2,
        "the tolerance squared": lambda instance: instance["tolerance"] * _bound(instance),
        "the first target's distances for all": lambda instance: (
            instance["tolerance"] * jnp.mean(instances.distances(instance["targets"], instance["targets"][0]))
        ),
        "the least distance of a target from their mean": lambda instance: (
            jnp.min(instances.distances(instance["targets"], jnp.mean(instance["targets"], axis=0))) / 2
        ),
    },
    no_network=(
        "no two frames of a clip have equal queries in the trained UNet; with queries that differ see C5.separation"
    ),
    relies_on=("C5.chebyshev",),
    lemmas=("Jung's theorem",),
    counterexamples=COUNTEREXAMPLES,
    repaired=REPAIRED,
)
