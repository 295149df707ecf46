r"""Gradient bound: on frames of norm at least m the gradient of the temporal loss is at most G_N / m.

Statement. For N >= 3 frames with ||F_t|| >= m > 0, in any dimension,

    \| \nabla L(F) \| \le \frac{G_N}{m},
    \qquad G_3 = 2\sqrt 6,
    \qquad G_N = \frac{4 \cos(\pi/(2N)) \sqrt{4N - 37/4}}{N-2} < \frac{8}{\sqrt{N-2}} \quad (N \ge 4).

The least constant possible is, in dimension d >= 2, the square root of the maximum over s in [-1, 1]^{N-1} of

    2 \sum_t w_t^2 + 2 \sum_t w_t w_{t+1}, \qquad w_t = |y_t| \sqrt{1 - s_t^2}, \qquad y = \frac{2}{N-2} D^\top D s,

with D the (N-2) x (N-1) difference matrix. `gradient_constant` returns the closed form above, which is proved;
`largest_gradient` searches that reduced maximum and so returns a lower bound on it, attained by explicit frames.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  ||F_t|| >= m > 0 for every frame.

**Attained** for N = 3, in dimension d >= 2. For N >= 4 the closed form is an upper bound: the largest gradient
found is 0.942 (N = 4), 0.970 (5), 0.977 (6), 0.985 (10) of it, each attained by explicit frames.

In the paper: sharpens its Lemma 4.3 on the gradient, whose constant is not known to us. Proof: paper_notes.md, section
C1.gradient.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.optimize

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
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import check_num_frames

SEARCH_STARTS = 8
SIZES = (instances.SIZES[0], instances.SIZES[-1])


def _closed_form(num_frames: int, inner_weight: float = 4.0, coupling: float = 1.0, divisor_shift: int = 2) -> float:
    squares = inner_weight * num_frames - 37 / 4
    return 2 * math.sqrt((2 + 2 * coupling * math.cos(math.pi / num_frames)) * squares) / (num_frames - divisor_shift)


def gradient_constant(num_frames: int) -> float:
    """The constant G_N at m = 1, to rounding: the supremum of the gradient's norm for N = 3, an upper bound on it for N >= 4.

        G_3 = 2 sqrt(6),   G_N = 4 cos(pi / (2N)) sqrt(4N - 37/4) / (N-2)

    Source: paper_notes.md, C1.gradient. How far the supremum may lie below it: `largest_gradient`.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return 2 * math.sqrt(6) if num_frames == 3 else _closed_form(num_frames)


@dataclasses.dataclass(frozen=True)
class LargestGradient:
    """The largest gradient found, over frames of norm at least 1.

    Attributes:
        value: its norm, attained, hence a lower bound on every valid constant. That nothing larger exists is observed,
            not proved (N >= 4).
        similarities: (num_frames - 1,) the similarities s of the frames that attain it.
    """

    value: float
    similarities: np.ndarray


@functools.lru_cache(maxsize=64)
def largest_gradient(num_frames: int, seed: int = 0) -> LargestGradient:
    """Maximise the reduced problem, an exact expression of the supremum in the N - 1 similarities, by multi-start
    quasi-Newton ascent.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    difference = np.diff(np.eye(num_frames - 1), axis=0)
    coupling = 2 / (num_frames - 2) * difference.T @ difference

    def negative(angles: np.ndarray) -> tuple[float, np.ndarray]:
        # With s = cos(angle), v_t = y_t sin(angle_t) and w = |v| the boundary of the cube needs no constraint.
        y, sines = coupling @ np.cos(angles), np.sin(angles)
        signs, w = np.sign(y * sines), np.abs(y * sines)
        neighbours = np.concatenate([[0.0], w, [0.0]])
        slope = (4 * w + 2 * neighbours[:-2] + 2 * neighbours[2:]) * signs
        return -2 * (w @ w + w[1:] @ w[:-1]), -(slope * y * np.cos(angles) - sines * (coupling @ (slope * sines)))

    # Alternating similarities +-1/sqrt(2) maximise the interior terms, so the first start is there and the others are
    # random.
    alternating = np.pi / 4 + np.pi / 2 * (np.arange(num_frames - 1) % 2)
    random = np.random.default_rng(seed).uniform(0, np.pi, (SEARCH_STARTS, num_frames - 1))
    found = [scipy.optimize.minimize(negative, start, jac=True, method="L-BFGS-B") for start in (alternating, *random)]
    best = min(found, key=lambda result: result.fun)
    return LargestGradient(math.sqrt(-best.fun), np.cos(best.x))


def frames_of(similarities: np.ndarray, dimension: int = 2) -> np.ndarray:
    """Unit frames in a plane with these similarities, turned so that the two parts of every frame's gradient add up.

    Returns:
        (num_frames, dimension) float64.

    Raises:
        ValueError: dimension < 2, where the gradient vanishes.
    """
    if dimension < 2:
        raise ValueError(f"dimension = {dimension}; at least 2 is needed: on a line the gradient vanishes")
    difference = np.diff(np.eye(len(similarities)), axis=0)
    y = difference.T @ difference @ similarities
    # The gradient of frame t is v_t (y_t sin theta_t - y_{t-1} sin theta_{t-1}): the signs of y_t sin theta_t
    # alternate.
    turns = (
        np.where(y >= 0, 1.0, -1.0) * (-1.0) ** np.arange(len(similarities)) * np.arccos(np.clip(similarities, -1, 1))
    )
    angles = np.concatenate([[0.0], np.cumsum(turns)])
    frames = np.zeros((len(angles), dimension))
    frames[:, 0], frames[:, 1] = np.cos(angles), np.sin(angles)
    return frames


def gradient_norm(frames):
    """||grad L|| of (frames, dimension) by automatic differentiation; JAX."""
    return jnp.sqrt(jnp.sum(instances.gradient(frames) ** 2))


PROBLEM = Problem(
    sizes=SIZES,
    draw=instances.draw,
    instance=instances.instance,
    measured=lambda instance: gradient_norm(instance["frames"]),
    bound=lambda instance: gradient_constant(instance["frames"].shape[0]) / instance["min_norm"],
    operations=instances.gradient_operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The frames of the largest gradient found, with m = 1; for N = 3 they attain the bound."""
    return {
        "frames": jnp.asarray(frames_of(largest_gradient(num_frames).similarities, dimension)),
        "min_norm": jnp.asarray(1.0),
    }


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return instances.parameters_of(frames_of(largest_gradient(num_frames).similarities, dimension))


def _short_frames() -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"].at[1].multiply(0.5)
    return PROBLEM.outcome(instance, size, "one frame of norm m / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    return [PROBLEM.outcome(instance, size, label) for label, size, instance in instances.frame_instances(evidence)]


FIRST_ORDER_TOLERANCE = 0.5


def _first_order(evidence: Evidence) -> Sequence[Outcome]:
    """The mean over the layers, which is what the step descends."""
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        found = [recorded.expansion(before, after) for _, before, after in recorded.layer_steps(record)]
        change, first = (float(np.mean([layer[name] for layer in found])) for name in ("change", "first"))
        outcomes.append(recorded.compared(f"step 1 of the {record.label}", abs(change - first), FIRST_ORDER_TOLERANCE * abs(change)))
    return outcomes


def _planted_closed_form(**changes: float):
    def bound(instance: Instance):
        return _closed_form(instance["frames"].shape[0], **changes) / instance["min_norm"]

    return bound


def _uncoupled(instance: Instance):
    # For three frames the maximum of 2 (w_1^2 + w_2^2) is 16.
    num_frames = instance["frames"].shape[0]
    return (4.0 if num_frames == 3 else _closed_form(num_frames, coupling=0.0)) / instance["min_norm"]


CLAIM = Claim(
    id="C1.gradient",
    title="Gradient bound on frames bounded away from zero",
    statement=(
        "On N frames of norm at least m the gradient of the temporal loss has norm at most G_N / m. For N = 3, G_3 = "
        "2 sqrt 6 is attained in "
        "every dimension d >= 2; for N >= 4 the closed form is an upper bound."
    ),
    latex=(
        r"\|\nabla L(F)\| \le \frac{G_N}{m},\quad G_3 = 2\sqrt6,\quad G_N = "
        r"\frac{4\cos(\pi/(2N))\sqrt{4N-37/4}}{N-2}\ (N\ge4)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "||F_t|| >= m > 0 for every frame."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="sharpens the paper's Lemma 4.3",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words="norm of the gradient of the temporal loss in the features, in units of 1 / (feature norm)",
    bound_in_words="G_N / m, m the least norm of a frame, in the same units",
    sharp_for=lambda num_frames, **_: num_frames == 3,
    sharpness=(
        "attained for N = 3 in dimension d >= 2. For N >= 4 an upper bound: the largest gradient found is 0.942 (N = "
        "4), 0.970 (5), 0.977 (6) of "
        "it, attained by explicit frames; the supremum is not known in closed form, for N = 4 it is enclosed in "
        "[4.52115, 4.52563] / m"
    ),
    necessity={"H2": _short_frames},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "inner pairs of similarities counted 3 for 4": Plant(
            _planted_closed_form(inner_weight=3.0), lambda num_frames, **_: num_frames > 3, "three frames have no inner pair of similarities"
        ),
        "neighbouring frames uncoupled": _uncoupled,
        "m^2 for m": lambda instance: gradient_constant(instance["frames"].shape[0]) / instance["min_norm"] ** 2,
        "the constant of N + 1 frames": lambda instance: gradient_constant(instance["frames"].shape[0] + 1) / instance["min_norm"],
        "the largest norm for the least": lambda instance: PROBLEM.bound(instances.with_largest_norm(instance)),
    },
    reality=(
        Comparison(
            question="Is ||grad L|| at the UNet's features at most G_N / m, m the least norm of their frames?",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.gradient; that no frame is zero is read off the same features",
        ),
        Comparison(
            question=(
                "Does the gradient of L at the features before a recorded training step predict the change of the "
                "loss, mean over the layers, "
                "to within a half?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_first_order,
        ),
    ),
    lemmas=("Cauchy-Schwarz", "eigenvalues of a tridiagonal Toeplitz matrix"),
    enclosure=(
        "theory/temporal_loss/enclosure.py: the supremum for N = 3 and 4 in ball arithmetic, [4.89890, 4.90349] and "
        "[4.52115, 4.52563]"
    ),
    floor=0.999,
    floor_reason="asked for at N = 3, where the supremum is attained in the interior of the search's domain",
)
