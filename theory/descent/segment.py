r"""The curvature along a whole step of descent on features, certified before the step is taken.

Statement. Let F be N >= 3 frames of norms r_t > 0, g = grad L(F), eta > 0, m = min r_t, and U(F) >= lambda_max(Hess L(F)) the certificate of
C1.certificate. For every sigma in [0, 1]

    \lambda_{\max}(\nabla^2 L(F - \sigma\eta g)) \le
    \kappa(\eta) := \min\bigl( U(F) + \lambda_{\max}(M(\eta)), \; C^+_N / m^2 \bigr),

so that L(F - eta g) <= L(F) - eta (1 - eta kappa(eta) / 2) ||g||^2. M(eta) is an N x N matrix of entries >= 0 that bounds the third
derivative along the step: with nu_t = arctan(eta ||g_t|| / r_t), k = 2/(N-2), c = 2 / sqrt 3, the angles alpha_t of neighbouring frames and
S_t = max { sin a : |a - alpha_t| <= nu_t + nu_{t+1} } it is the symmetric matrix of the quadratic form

    k \sum_t \bigl[ 2 A_t(\xi) B_t(\xi) + V_t \, Q_t(\xi) + \Delta_t R_t(\xi) \bigr], \qquad \xi_t = |x_t| / r_t,

in which A, V bound the first derivative of s_{t+1} - s_t along x and along the step, B, Q the second (mixed, and along x twice), R the third, and
Delta_t bounds |s_{t+1} - s_t| on the segment. It tends to 0 with eta.

Hypotheses.
    H1  There are N >= 3 frames, none of them zero.
    H2  The step is along the gradient of the temporal loss at its start.

**Upper**: equality in the limit of a short step from a loss of zero, so no factor below 1 can be put in front; how far from
sharp it is for long steps is not known.

Not in the paper. Proof: paper_notes.md, section C2.segment.
"""

import dataclasses
import math
from collections.abc import Sequence
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
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.descent.feature_descent import gradient, steepest_frames
from theory.descent.instances import draw_normals
from theory.descent.remainder import turning
from theory.evidence import Evidence
from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.certificate import certify_gram, upper_curvature
from theory.temporal_loss.gram import banded_gram
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.upper_curvature import upper_curvature_constant

SECOND = 2 / math.sqrt(3)
"""Largest |u''| of a unit vector along a line, u = (F + h x) / |F + h x|, for |x| = |F| = 1."""
THIRD = 3.0
"""Largest |u'''| there."""
LONGEST = 2.0**40
"""How many times the step that is safe everywhere is tried at most; near a critical point no step is too long."""
TINY = float(np.finfo(np.float64).tiny)


def _drift(xp: Any, squared_norms: Any, cosines: Any, turns: Any, cosine_error: float) -> Any:
    """lambda_max(M(eta)) from the norms, the similarities, how far these may be off, and nu = arctan(eta ||g_t|| / r_t)."""
    num_frames = squared_norms.shape[0]
    norms = xp.sqrt(squared_norms)
    at, after = np.eye(num_frames - 1, num_frames), np.eye(num_frames - 1, num_frames, k=1)
    reach = turns[:-1] + turns[1:]
    # The distance of the largest sine's angle from pi/2. 1 - cos a >= 2 a^2 / pi^2: an error e of a cosine is one of pi sqrt(e / 2) of its angle.
    tilt = xp.abs(xp.arccos(xp.clip(cosines, -1.0, 1.0)) - np.pi / 2)
    sines = xp.cos(xp.maximum(tilt - reach - np.pi * math.sqrt(cosine_error / 2), 0.0))
    gaps = xp.abs(cosines[1:] - cosines[:-1]) + 2 * cosine_error
    moved = sines * reach
    gaps = xp.minimum(gaps + moved[1:] + moved[:-1], 2.0)
    first = sines[:, None] * (at + after)  # (N - 1, N), |s'| <= first . xi
    nu, nu_next = turns[:-1, None], turns[1:, None]
    mixed = (SECOND * nu + nu_next) * at + (SECOND * nu_next + nu) * after  # |s''(x, v)| <= mixed . xi

    def square(pair_at: Any, pair_after: Any, pair_both: Any) -> Any:
        """(N - 1, N, N): pair_at xi_t^2 + pair_after xi_{t+1}^2 + 2 pair_both xi_t xi_{t+1}."""
        both = at[:, :, None] * after[:, None, :] + after[:, :, None] * at[:, None, :]
        return (
            pair_at[:, None, None] * at[:, :, None] * at[:, None, :]
            + pair_after[:, None, None] * after[:, :, None] * after[:, None, :]
            + pair_both[:, None, None] * both
        )

    one = xp.ones(num_frames - 1)
    second = square(SECOND * one, SECOND * one, one)  # |s''(x, x)|
    here, there = turns[:-1], turns[1:]
    third = square(  # |s'''(x, x, v)|
        THIRD * here + SECOND * there, THIRD * there + SECOND * here, SECOND * (here + there)
    )

    def neighbours(values: Any) -> Any:
        return values[1:] + values[:-1]

    rising, bending = neighbours(first), neighbours(mixed)
    product = xp.einsum("ti,tj->ij", rising, bending)
    matrix = product + product.T + xp.einsum("t,tij->ij", neighbours(moved), neighbours(second))
    matrix = matrix + xp.einsum("t,tij->ij", gaps, neighbours(third))
    matrix = 2 / (num_frames - 2) * matrix / (norms[:, None] * norms[None, :])
    return np.linalg.eigvalsh(matrix)[-1] if xp is np else instances.extreme_eigenvalue(matrix, largest_magnitude=False)


def _cosine_error(error: float) -> float:
    """Of a cosine of inner products with this relative error; as in the certificate."""
    return 3 * error + 8 * UNIT_ROUNDOFF


@dataclasses.dataclass(frozen=True, eq=False)
class StepCertificate:
    """What is certain about a step of gradient descent on features, before it is taken.

    Attributes:
        squared_gradient_lower, squared_gradient_upper: ||grad L||^2 lies between them; the lower is 0 where rounding hides the gradient.
        best_step: the longest step found with eta kappa(eta) <= 1: it lowers the loss by at least eta squared_gradient_lower / 2.
        longest_step: the longest found with eta kappa(eta) <= 2: no shorter step raises the loss.
    """

    squared_gradient_lower: float
    squared_gradient_upper: float
    best_step: float
    longest_step: float
    _curvature: Any = dataclasses.field(repr=False)

    def curvature(self, step_size: float) -> float:
        """kappa(eta): lambda_max of the Hessian is at most this on the whole segment from F to F - eta grad L(F).

        Raises:
            ValueError: step_size not a finite number above 0.
        """
        if not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"step_size = {step_size}; a finite learning rate above 0 is needed")
        return self._curvature(step_size)


def certify_step(features: Any) -> StepCertificate:
    """Certify steps of gradient descent on these features from their inner products, in O(N d) operations.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array, or an iterable of frames (see `banded_gram`).

    Source: paper_notes.md, C2.segment.

    Raises:
        ValueError: bad features, see `theory.temporal_loss.certify_curvature`.
    """
    gram = banded_gram(features)
    num_frames, squared_norms = gram.num_frames, gram.squared_norms
    at_start = certify_gram(gram).upper
    budget = 1 + relative_budget(64 * num_frames)
    everywhere = budget * upper_curvature_constant(num_frames) / float(np.min(squared_norms)) * (1 + 4 * gram.error)
    error = _cosine_error(gram.error)
    cosines, slopes, _, pull = turning(np, squared_norms, gram.neighbours, gram.second_neighbours)
    around = np.pad(np.abs(slopes), (1, 0)) + np.pad(np.abs(slopes), (0, 1))
    # Errors e of the cosines are at most 8 e of the Gram matrix of two vectors of length 1, and 5 k e of y (C1.certificate, "Rounding").
    slack, from_slopes = 8 * error * around**2, 20 / (num_frames - 2) * error
    lengths = np.sqrt(pull + slack) + from_slopes
    least = np.maximum(np.sqrt(np.maximum(pull - slack, 0.0)) - from_slopes, 0.0)
    summing = relative_budget(4 * num_frames) + 2 * gram.error

    def curvature(step_size: float) -> float:
        # The step turns a frame by less than a right angle, however long it is.
        turns = np.arctan(step_size * lengths / squared_norms) * (1 + 4 * UNIT_ROUNDOFF)
        return min(at_start + budget * float(_drift(np, squared_norms, cosines, turns, error)), everywhere)

    return StepCertificate(
        squared_gradient_lower=float(np.sum(least**2 / squared_norms)) * (1 - summing),
        squared_gradient_upper=float(np.sum(lengths**2 / squared_norms)) * (1 + 2 * summing),
        best_step=_solve(curvature, 1.0, everywhere),
        longest_step=_solve(curvature, 2.0, everywhere),
        _curvature=curvature,
    )


def _solve(curvature: Any, product: float, everywhere: float) -> float:
    """The largest eta found with eta kappa(eta) <= product; eta kappa(eta) increases, and is at most the product at product / everywhere."""
    product *= 1 - 4 * UNIT_ROUNDOFF  # what is compared with it is rounded
    low = high = product / everywhere
    while high * curvature(high) <= product and high < low * LONGEST:
        high *= 2
    least = low
    for _ in range(64):
        middle = (least + high) / 2
        least, high = (middle, high) if middle * curvature(middle) <= product else (least, middle)
    return least


def _turns(instance: Instance):
    moves = jnp.sqrt(jnp.maximum(jnp.sum(instance["direction"] ** 2, axis=1), 0.0) + TINY)
    return jnp.arctan(instance["step_size"] * moves / jnp.sqrt(jnp.sum(instance["frames"] ** 2, axis=1)))


def _measured(instance: Instance):
    """At the end of the step: a point inside is the end of a shorter one, and kappa increases."""
    end = instance["frames"] - instance["step_size"] * instance["direction"]
    return jnp.maximum(instances.extreme_eigenvalue(instances.dense_hessian(end), largest_magnitude=False), 0.0)


def _oracle_rounding(instance: Instance):
    """How far the dense Hessian may be off: its terms, of size C_N / min r_t^2, cancel to whatever the curvature is."""
    num_frames, dimension = instance["frames"].shape
    operations = instances.operations(num_frames=num_frames, dimension=dimension)
    return relative_budget(operations) * hessian_constant(num_frames) / jnp.min(jnp.sum(instance["frames"] ** 2, axis=1))


def _compared(power: int = 2, order: int = 2, drift_share: float = 1.0, largest: bool = False):
    """The bound, or a false one: another power of m, differences of another order in C+_N, no drift, the largest norm for the least."""

    def bound(instance: Instance):
        frames = instance["frames"]
        num_frames, dimension = frames.shape
        squared_norms = jnp.sum(frames**2, axis=1)
        neighbours, second = jnp.sum(frames[:-1] * frames[1:], axis=1), jnp.sum(frames[:-2] * frames[2:], axis=1)
        error = relative_budget(dimension)
        at_start = upper_curvature(squared_norms, neighbours, second, error)
        cosines = turning(jnp, squared_norms, neighbours, second)[0]
        drift = _drift(jnp, squared_norms, cosines, _turns(instance), _cosine_error(error))
        constant = 2 / (num_frames - 2) * float(np.linalg.norm(np.diff(np.eye(num_frames), n=order, axis=0), 2)) ** 2
        everywhere = constant / (jnp.max(squared_norms) if largest else jnp.min(squared_norms)) ** (power / 2)
        return jnp.minimum(at_start + drift_share * drift, everywhere) + _oracle_rounding(instance)

    return bound


def draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Random frames, collinear to generic, and the logarithm of the step."""
    frames_key, step_key = jax.random.split(key)
    start = instances.draw(frames_key, num_frames=num_frames, dimension=dimension)
    return {**start, **draw_normals(step_key, {"log_step": ()})}


def instance_of(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """A start and a step of between e^-8 and e^3 times m^2 / C_N."""
    start = instances.instance(parameters, num_frames=num_frames, dimension=dimension)
    unit = start["min_norm"] ** 2 / hessian_constant(num_frames)
    return _along_gradient(start["frames"], unit * jnp.exp(-2.5 + 5.5 * jnp.tanh(parameters["log_step"])))


def _along_gradient(frames: Any, step_size: Any) -> Instance:
    return {"frames": frames, "direction": gradient(frames), "step_size": step_size}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    unit = 0.25 / hessian_constant(num_frames)
    return {
        **instances.parameters_of(jnp.asarray(steepest_frames(num_frames, dimension)) / 2, 0.5),
        "log_step": jnp.arctanh((jnp.log(jnp.asarray(0.1 / unit)) + 2.5) / 5.5),
    }


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Frames of norm 1/2 that each turn by a right angle: the loss and its gradient vanish, and the curvature is the largest there is."""
    return _along_gradient(jnp.asarray(steepest_frames(num_frames, dimension)) / 2, jnp.asarray(0.1))


SIZES: tuple[Size, ...] = ((("num_frames", 4), ("dimension", 2)),)
"""One size, for the sake of compilation: others are in test_segment.py."""

PROBLEM = Problem(
    sizes=SIZES,
    draw=draw,
    instance=instance_of,
    measured=_measured,
    bound=_compared(),
    operations=instances.operations,
)


def _towards_the_origin() -> Outcome:
    instance = dict(witness(**dict(SIZES[0])))
    instance |= {"direction": instance["frames"], "step_size": jnp.asarray(0.5)}
    return PROBLEM.outcome(instance, SIZES[0], "a step towards the origin")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, start in instances.frame_instances(evidence):
        for fraction in (1e-2, 1.0):
            unit = start["min_norm"] ** 2 / hessian_constant(dict(size)["num_frames"])
            outcomes.append(PROBLEM.outcome(_along_gradient(start["frames"], fraction * unit), size, f"{label}, {fraction:g} m^2 / C_N"))
    return outcomes


LEAST_SHARE = 0.75
"""How much of the longest certified step has to be left after a recorded step: chosen."""


def _after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, *features in recorded.first_steps(evidence):
        before, after = (certify_step(values).longest_step for values in features)
        outcomes.append(recorded.compared(label, LEAST_SHARE * before, after))
    return outcomes


CLAIM = Claim(
    id="C2.segment",
    title="The curvature along a whole step, certified from its start",
    statement=(
        "Before a step of gradient descent on features is taken, norms, similarities and second-neighbour cosines "
        "bound the largest curvature "
        "on the whole segment, and with it from below how much the loss falls."
    ),
    latex=(
        r"\max_{0\le\sigma\le1}\lambda_{\max}(\nabla^2 L(F-\sigma\eta g)) \le "
        r"\min\bigl(U(F) + \lambda_{\max}(M(\eta)),\; C^+_N/m^2\bigr)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames, none of them zero."),
        Hypothesis("H2", "The step is along the gradient of the temporal loss at its start."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.UPPER,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "largest eigenvalue of the Hessian at the end of a step of descent on features, in units of 1 / (feature "
        "norm)^2"
    ),
    bound_in_words=(
        "kappa(eta), from norms and inner products of the start and the length of the step, in the same units"
    ),
    sharpness=(
        "equality in the limit of a short step from a loss of zero; for long steps it is not known how far from sharp "
        "it is"
    ),
    necessity={"H2": _towards_the_origin},
    definitional={
        "H1": (
            "with fewer than three frames the loss is an empty mean, 0/0; at a zero frame it is not defined"
        ),
    },
    planted={
        "the certificate of the start alone": _compared(drift_share=0.0),
        "first differences for second": _compared(order=1),
        "the largest norm for the least": _compared(largest=True),
        "m for m^2": _compared(power=1),
    },
    reality=(
        Comparison(
            question=(
                "Is lambda_max(Hess L) at the end of a step on the UNet's features, of 0.01 and 1 times m^2 / C_N, at "
                "most what is certified at its start?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C2.segment; the step is along the gradient of the loss at the recorded features",
        ),
        Comparison(
            question=(
                "Is the longest certified step on the features after a recorded step of training at least three quarters of that before it, layer "
                "by layer, so that a certificate of the step before serves?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_after_a_step,
        ),
    ),
    relies_on=("C1.certificate", "C1.upper-curvature", "C2.descent"),
    lemmas=("the norm of a symmetric multilinear form is that of its diagonal (Banach 1938)", "Perron-Frobenius", "Taylor's formula"),
    floor=0.999,
    floor_reason="attained where the loss is zero, and the search may descend to it",
)
