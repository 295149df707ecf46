r"""What descent on the temporal loss does to the mean similarity: with three frames it drives it away from 0; with more it may lower it.

Statement. Along the gradient flow dF/dtau = - grad L(F) of N >= 3 frames of one norm r (the flow keeps norms), with
Delta_t = s_{t+1} - s_t and kappa_t = <u_t, u_{t+2}> - s_t s_{t+1}, kappa_0 = kappa_{N-1} = 0,

    \frac{d}{d\tau} \sum_{t=1}^{N-1} s_t = \frac{2}{(N-2) r^2} \sum_{t=1}^{N-2}
        \bigl[ 2 (s_t + s_{t+1}) \Delta_t^2 + (\kappa_{t-1} - \kappa_{t+1}) \Delta_t \bigr].

For N = 3 it is 4 (s_1 - s_2)^2 (s_1 + s_2) / r^2: the mean keeps its sign, its magnitude never falls, and from a negative mean descent ends in a
clip that flickers more. For N >= 4 the mean cannot fall while |kappa_{t-1} - kappa_{t+1}| <= 2 (s_t + s_{t+1}) |Delta_t| for all t, for example
where all similarities are >= 0 and no two frames at distance 2 are more or less alike than the one between them makes them (kappa = 0).
Without that it can: for every N >= 4 the frames that each turn by arccos 3/5, the last by arccos 4/5, have similarities 3/5, .., 3/5, 4/5, and
the sum falls at the rate exactly 4 / (125 (N-2) r^2), although all are positive and the loss falls.

Hypotheses.
    H1  There are N >= 3 frames, none of them zero.
    H2  All frames have one norm r.

**Identity**: on every instance.

In the paper: not there; its loss is meant to make frames alike. Proof: paper_notes.md, section C2.mean-similarity.
"""

from collections.abc import Sequence
from fractions import Fraction

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
from theory.descent.instances import draw_normals
from theory.evidence import Evidence
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import similarities, temporal_loss

SIZES = instances.SIZES
OFFSET = 64.0
"""Added to both sides, in units of 1 / r^2: more than the rate can be, so that a rate of either sign is compared."""
COUNTEREXAMPLE_RATE = Fraction(-4, 125)
"""(N-2) r^2 times the rate of the sum of similarities at `falling_frames`."""


def falling_frames(num_frames: int, dimension: int = 2) -> np.ndarray:
    """Unit frames in a plane with similarities 3/5, .., 3/5, 4/5, all positive, whose mean falls along descent, for every N >= 4.

    Their coordinates are rational: powers of (3 + 4 i)/5 and one factor (4 + 3 i)/5.

    Returns:
        (num_frames, dimension) float64.

    Source: paper_notes.md, C2.mean-similarity.

    Raises:
        ValueError: fewer than 4 frames, where the mean cannot fall from positive similarities, or dimension < 2.
    """
    check_num_frames(num_frames)
    if num_frames < 4:
        raise ValueError(f"num_frames = {num_frames}; at least 4 are needed: with 3 a positive mean never falls")
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line no similarity moves")
    turns = [complex(1.0)] + [complex(0.6, 0.8)] * (num_frames - 2) + [complex(0.8, 0.6)]
    points = np.cumprod(turns)
    frames = np.zeros((num_frames, dimension))
    frames[:, 0], frames[:, 1] = points.real, points.imag
    return frames


def rate_of_sum(frames: jax.Array) -> jax.Array:
    """d/dtau of the sum of similarities along the gradient flow, by automatic differentiation of both.

    Args:
        frames: (frames, dimension) JAX array, none zero.
    """
    return jax.jvp(lambda values: jnp.sum(similarities(values)), (frames,), (-jax.grad(temporal_loss)(frames),))[1]


def _formula(instance: Instance, second: float = 1.0, square: int = 2, shift: int = 0, diagonal: float = 2.0) -> jax.Array:
    """The right-hand side, or a false one."""
    frames, norm = instance["frames"], instance["norm"]
    units = instances.unit_rows(frames)
    cosines = jnp.sum(units[1:] * units[:-1], axis=1)
    around = jnp.pad(jnp.sum(units[2:] * units[:-2], axis=1) - cosines[1:] * cosines[:-1], 1)
    change = jnp.diff(cosines)
    # kappa_{t-1} and kappa_{t+1} for t = 1 .. N-2; `around` holds kappa_0 .. kappa_{N-1}.
    beside = around[:-2] - around[2:] if shift == 0 else around[1:-1] - around[2:]
    terms = diagonal * (cosines[1:] + cosines[:-1]) * jnp.abs(change) ** square + second * beside * change
    return 2 / (frames.shape[0] - 2) * jnp.sum(terms) / norm**2


def mean_cannot_fall(features) -> bool:
    """Whether the condition holds at these frames under which descent does not lower the mean similarity, to first order.

        |kappa_{t-1} - kappa_{t+1}| <= 2 (s_t + s_{t+1}) |s_{t+1} - s_t|   for all t

    It is sufficient and not necessary, and it is decided in float64: where both sides agree to rounding the answer may be either.

    Args:
        features: (frames, ...) floating-point array of frames of one norm, to 1 part in 10^6.

    Raises:
        ValueError: fewer than 3 frames, a zero frame, or norms that differ by more.
    """
    frames = np.reshape(np.asarray(features, np.float64), (len(features), -1))
    check_num_frames(len(frames))
    norms = np.linalg.norm(frames, axis=1)
    if not (np.min(norms) > 0 and np.max(norms) <= (1 + 1e-6) * np.min(norms)):
        raise ValueError(f"norms lie between {np.min(norms):.6g} and {np.max(norms):.6g}; one positive norm is needed: rescale the frames to it")
    units = frames / norms[:, None]
    cosines = np.sum(units[1:] * units[:-1], axis=1)
    around = np.pad(np.sum(units[2:] * units[:-2], axis=1) - cosines[1:] * cosines[:-1], 1)
    return bool(np.all(np.abs(around[:-2] - around[2:]) <= 2 * (cosines[1:] + cosines[:-1]) * np.abs(np.diff(cosines))))


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    return draw_normals(key, {"directions": (num_frames, dimension), "log_norm": ()})


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames of one norm, between e^-4 and e^4, in any directions."""
    norm = jnp.exp(jnp.clip(parameters["log_norm"], -4.0, 4.0))
    return {"frames": norm * instances.unit_rows(parameters["directions"]), "norm": norm}


def _operations(*, num_frames: int, dimension: int) -> int:
    """Two sweeps of automatic differentiation through the cosines, at the size of the offset, 64 / r^2."""
    return 2 * instances.gradient_operations(num_frames=num_frames, dimension=dimension)


def _both_signs(rate):
    return lambda instance: OFFSET / instance["norm"] ** 2 + rate(instance)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_both_signs(lambda instance: rate_of_sum(instance["frames"])),
    bound=_both_signs(_formula),
    operations=_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The falling frames for N >= 4; for N = 3 frames whose mean is negative and falls: e_1, -e_1, e_2."""
    frames = np.zeros((num_frames, dimension))
    if num_frames == 3:
        frames[:, :2] = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]
    else:
        frames = falling_frames(num_frames, dimension)
    return {"frames": jnp.asarray(frames), "norm": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return {"directions": witness(num_frames=num_frames, dimension=dimension)["frames"], "log_norm": jnp.asarray(0.0)}


def _unequal_norms() -> Outcome:
    # s = (3/5, 4/5), and the first frame 1/3 as long: it turns 9 times as fast, and the smaller similarity rises with it.
    instance = dict(witness(**dict(SIZES[0])))
    instance["frames"] = jnp.asarray([[1.0 / 3, 0.0], [0.6, 0.8], [0.96, 0.28]])
    return PROBLEM.outcome(instance, SIZES[0], "one frame shorter than the others")


TOLERANCE = 0.4
LEAST_GAIN = 0.95


def _mean_after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        change = float(np.mean(recorded.layer_similarities(record, 1) - recorded.layer_similarities(record, 0)))
        predicted = float(np.mean(recorded.predicted_move(record)))
        outcomes.append(recorded.compared(f"step 1 of the {record.label}", abs(change - predicted), TOLERANCE * abs(predicted)))
    return outcomes


def _before_and_after(evidence: Evidence) -> Sequence[Outcome]:
    """1 - mean similarity of the recorded features after the run, beside 0.95 of the same before it: training on L, which asks for no likeness."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        last = len(record.objectives) - 1
        before, after = (float(np.mean(1 - recorded.layer_similarities(record, step))) for step in (0, last))
        outcomes.append(recorded.compared(f"after {last} steps of the {record.label}", after, LEAST_GAIN * before))
    return outcomes


def _identity_on_features(evidence: Evidence) -> Sequence[Outcome]:
    """The identity at the UNet's features, each frame rescaled to norm 1."""
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        instance = {"frames": instances.unit_rows(start["frames"]), "norm": jnp.asarray(1.0)}
        outcomes.append(PROBLEM.outcome(instance, size, label))
    return outcomes


CLAIM = Claim(
    id="C2.mean-similarity",
    title="What descent does to the mean similarity: away from 0 with three frames, either way with more",
    statement=(
        "Along gradient flow on frames of one norm r the sum of similarities changes at the rate (2/((N-2) r^2)) "
        "sum_t [2 (s_t + s_{t+1}) Delta_t^2 + "
        "(kappa_{t-1} - kappa_{t+1}) Delta_t]. For N = 3 the mean keeps its sign and its magnitude never falls; for "
        "every N >= 4 there are frames with positive "
        "similarities whose mean falls, at the rate 4/(125 (N-1)(N-2) r^2) exactly."
    ),
    latex=(
        r"\frac{d}{d\tau}\sum_t s_t = \frac{2}{(N-2)r^2}\sum_{t=1}^{N-2}\bigl[2(s_t+s_{t+1})\Delta_t^2 + (\kappa_{t-1}-\kappa_{t+1})\Delta_t\bigr],"
        r"\quad \Delta_t=s_{t+1}-s_t,\ \kappa_t=\langle u_t,u_{t+2}\rangle-s_ts_{t+1}"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames, none of them zero."),
        Hypothesis("H2", "All frames have one norm r."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.IDENTITY,
    origin="not in the paper; it says what training on the loss does to the consistency that benchmarks report",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "rate of the sum of similarities along the gradient flow, plus 64 / r^2 so that both signs are compared, by "
        "automatic differentiation"
    ),
    bound_in_words="the identity's right-hand side, plus 64 / r^2",
    necessity={"H2": _unequal_norms},
    definitional={"H1": "with fewer than three frames the loss has no term, and a zero frame has no similarity"},
    planted={
        "3/4 of the diagonal part": _both_signs(lambda instance: _formula(instance, diagonal=1.5)),
        "the difference without its square": _both_signs(lambda instance: _formula(instance, square=1)),
        "kappa_t for kappa_{t-1}": _both_signs(lambda instance: _formula(instance, shift=1)),
        "second neighbours left out": Plant(
            _both_signs(lambda instance: _formula(instance, second=0.0)), lambda num_frames, **_: num_frames > 3, "with three frames they cancel"
        ),
        "second neighbours with the other sign": Plant(
            _both_signs(lambda instance: _formula(instance, second=-1.0)), lambda num_frames, **_: num_frames > 3, "with three frames they cancel"
        ),
    },
    reality=(
        Comparison(
            question="Does the identity hold at the UNet's features, rescaled to one norm?",
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_identity_on_features,
        ),
        Comparison(
            question=(
                "Do the gradients of the similarities before a recorded training step predict the change of the mean "
                "similarity of the features, over all "
                "layers, to within 0.4 of the prediction?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_mean_after_a_step,
        ),
        Comparison(
            question=(
                "Is 1 - mean similarity of neighbouring frames, over all layers, after the recorded steps of training "
                "on L alone at most 0.95 of what it was?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_before_and_after,
        ),
    ),
    lemmas=("Abel summation",),
    floor=0.999,
    floor_reason="an identity: every instance attains it",
)
