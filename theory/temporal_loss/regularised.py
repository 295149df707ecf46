r"""The regularised loss is smooth everywhere: no bound on the norms is needed, from either side.

Statement. With s_t = <F_t, F_{t+1}> / sqrt((||F_t||^2 + eps^2) (||F_{t+1}||^2 + eps^2)), eps > 0, and N >= 3 frames,
for all F and G, in any dimension,

    \| \nabla^2 L_\varepsilon(F) \|_{op} \le \frac{Q_N}{\varepsilon^2},
    \qquad \| \nabla L_\varepsilon(F) - \nabla L_\varepsilon(G) \| \le \frac{Q_N}{\varepsilon^2} \| F - G \|,
    \qquad Q_3 = 8, \quad Q_4 = 6, \quad Q_N = \frac{16}{N-2} \quad (N \ge 5).

Odd frames extended to (F, eps, 0) and even ones to (F, 0, eps) have the regularised similarities as plain ones and
norms of at least eps, which gives C_N of C1.hessian; that no direction has a part along the two extra axes gives Q_N <
C_N. The whole space is convex. The supremum is at least R_N / eps^2, approached where every other frame grows without
bound:

    R_N = \frac{2}{N-2} \max_{p \in \{0, 1\}} \|D_2 E_p\|^2, E_p the columns of one parity; R_3 = 8, R_4 = 3 + sqrt 5.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  Every norm is regularised by at least eps > 0.

**Approached** for N = 3, where R_3 = Q_3 = 8, as every other frame grows without bound; no frames attain it that we know
of. For N >= 4 an upper bound: R_N <= eps^2 sup ||Hess|| <= Q_N, with R_N / Q_N = 0.873 (N = 4), 0.797 (5), 0.843 (6),
which tends to 1 as N grows. No curvature above R_N / eps^2 is known.

In the paper: not there; a second repair of Theorem 4.1, which changes the loss instead of the hypothesis. Proof:
paper_notes.md, section C1.regularised.
"""

import dataclasses
from collections.abc import Sequence

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
from theory.temporal_loss import instances
from theory.temporal_loss.hessian import check_num_frames
from theory.temporal_loss.loss import temporal_loss

SIZES = tuple((("num_frames", num_frames), ("dimension", 2)) for num_frames in (3, 4, 5))
FAR = 1e6
"""Norm, in units of eps, of the frames that stand for unbounded ones: their curvature is 1e-12 of the others'."""


def regularised_constant(num_frames: int) -> float:
    """The bound Q_N, to rounding, on the regularised loss's curvature at eps = 1, and so on its gradient's Lipschitz constant.

        Q_3 = 8,   Q_4 = 6,   Q_N = 16 / (N-2) for N >= 5

    Source: paper_notes.md, C1.regularised. Sharp for N = 3, and in the limit of many frames; `regularised_lower_constant` is the supremum's lower end.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    return _cost_of_a_frame(num_frames, outer=4, middle=8) / (num_frames - 2)


def _cost_of_a_frame(num_frames: int, outer: int, middle: int) -> float:
    """The largest sum over the triples that a frame is in, of what each charges it: `outer` at its ends and `middle` between them."""
    places = np.zeros(num_frames)
    for first in range(num_frames - 2):
        places[first : first + 3] += outer, middle, outer
    return float(np.max(places))


def regularised_lower_constant(num_frames: int) -> float:
    """A curvature R_N at eps = 1 that the regularised loss comes arbitrarily close to.

        R_N = 2/(N-2) max_p ||D_2 E_p||^2

    Source: paper_notes.md, C1.regularised. `regularised_constant` is the proved upper bound on the same supremum.

    Raises:
        ValueError: fewer than 3 frames.
    """
    check_num_frames(num_frames)
    second = np.diff(np.eye(num_frames), n=2, axis=0)
    return 2 / (num_frames - 2) * max(float(np.linalg.norm(second[:, parity::2], 2)) ** 2 for parity in (0, 1))


def regularised_hessian_norm(frames, epsilon):
    """||Hess L_eps||_op of (frames, dimension) by dense automatic differentiation; JAX, O((N d)^3)."""
    num_frames, dimension = frames.shape

    def loss(vector):
        return temporal_loss(jnp.reshape(vector, (num_frames, dimension)), epsilon=epsilon)

    hessian = jax.hessian(loss)(jnp.reshape(frames, (-1,)))
    return instances.extreme_eigenvalue((hessian + hessian.T) / 2, largest_magnitude=True)


def augmented_frames(frames: np.ndarray, epsilon: float) -> np.ndarray:
    """Frames (N, d + 2) of norm at least eps whose plain similarities are the regularised ones of the given frames (N,
    d)."""
    extra = np.zeros((frames.shape[0], 2))
    extra[np.arange(frames.shape[0]), np.arange(frames.shape[0]) % 2] = epsilon
    return np.concatenate([frames, extra], axis=1)


def nearly_extremal_frames(num_frames: int, dimension: int, epsilon: float = 1.0, far: float = FAR) -> np.ndarray:
    """Every other frame zero, the others far out along one line with alternating sign; the parity is the better one of
    the two."""
    check_num_frames(num_frames)
    second = np.diff(np.eye(num_frames), n=2, axis=0)
    zero_parity = int(np.argmax([np.linalg.norm(second[:, parity::2], 2) for parity in (0, 1)]))
    frames = np.zeros((num_frames, dimension))
    distant = np.arange(1 - zero_parity, num_frames, 2)
    frames[distant, 0] = far * epsilon * (-1.0) ** np.arange(len(distant))
    return frames


def _draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    direction_key, spread_key, noise_key, radius_key, epsilon_key = jax.random.split(key, 5)
    spread = 10.0 ** jax.random.uniform(spread_key, minval=-6.0, maxval=1.0)
    return {
        "directions": jax.random.normal(direction_key, (num_frames, dimension))
        * jnp.asarray([1.0] + [0.0] * (dimension - 1))[None, :]
        + spread * jax.random.normal(noise_key, (num_frames, dimension)),
        "log_radii": 3.0 * jax.random.normal(radius_key, (num_frames,)),
        "log_epsilon": jax.random.uniform(epsilon_key, minval=-3.0, maxval=3.0),
    }


def _instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Any frames at all, zero included, of norms from far below eps to far above."""
    epsilon = jnp.exp(parameters["log_epsilon"])
    radii = epsilon * jnp.exp(jnp.clip(parameters["log_radii"], -12.0, 12.0))
    return {"frames": radii[:, None] * parameters["directions"], "epsilon": epsilon}


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=lambda instance: regularised_hessian_norm(instance["frames"], instance["epsilon"]),
    bound=lambda instance: regularised_constant(instance["frames"].shape[0]) / instance["epsilon"] ** 2,
    operations=instances.operations,
)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """The frames that come closest, with eps = 1."""
    return {"frames": jnp.asarray(nearly_extremal_frames(num_frames, dimension)), "epsilon": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    # The family keeps radii below e^12 eps; the directions carry the rest.
    return {
        "directions": jnp.asarray(nearly_extremal_frames(num_frames, dimension)),
        "log_radii": jnp.zeros(num_frames),
        "log_epsilon": jnp.asarray(0.0),
    }


def _too_little_regularisation() -> Outcome:
    weaker = dataclasses.replace(
        PROBLEM, measured=lambda instance: regularised_hessian_norm(instance["frames"], instance["epsilon"] / 2)
    )
    return weaker.outcome(witness(**dict(SIZES[0])), SIZES[0], "norms regularised by eps / 2")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    """The network's features, frame-wise, regularised by a tenth of their least norm."""
    return [
        PROBLEM.outcome({"frames": instance["frames"], "epsilon": 0.1 * instance["min_norm"]}, size, label)
        for label, size, instance in instances.frame_instances(evidence)
    ]


def _with_constant(constant, power: int = 2):
    return lambda instance: constant(instance["frames"].shape[0]) / instance["epsilon"] ** power


def _norms_added(instance: Instance):
    """eps^2 plus the largest squared norm in the place of eps^2."""
    squares = jnp.sum(instance["frames"] ** 2, axis=1)
    return regularised_constant(squares.shape[0]) / (instance["epsilon"] ** 2 + jnp.max(squares))


CLAIM = Claim(
    id="C1.regularised",
    title="The regularised loss is smooth everywhere",
    statement=(
        "With norms regularised by eps > 0 the temporal loss has a Hessian of norm at most Q_N / eps^2 at all frames, "
        "zero included, and so a gradient that is Lipschitz everywhere; Q_3 = 8 cannot be lowered, nor can Q_N by any "
        "fixed factor for all N."
    ),
    latex=(
        r"\|\nabla^2 L_\varepsilon(F)\|_{\mathrm{op}} \le \frac{Q_N}{\varepsilon^2}\quad\text{for all "
        r"}F\in\mathbb{R}^{N\times d},\quad Q_3=8,\ Q_4=6,\ Q_N=\frac{16}{N-2}\ (N\ge5)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "Every norm is regularised by at least eps > 0."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.APPROACHED,
    origin="not in the paper; repairs its Theorem 4.1 by changing the loss",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "operator norm of the Hessian of the regularised loss in the features, in units of 1 / (feature norm)^2"
    ),
    bound_in_words="Q_N / eps^2, in the same units",
    sharp_for=lambda num_frames, **_: num_frames == 3,
    sharpness=(
        "approached for N = 3 as every other frame grows without bound. For N >= 4 an upper bound: the largest "
        "curvature known, R_N / eps^2, is 0.873 "
        "(N = 4), 0.797 (5), 0.843 (6) of it, and (N-2) R_N and (N-2) Q_N both tend to 16"
    ),
    necessity={"H2": _too_little_regularisation},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "the middle frame of a triple charged like an outer one": _with_constant(
            lambda num_frames: _cost_of_a_frame(num_frames, outer=4, middle=4) / (num_frames - 2)
        ),
        "every frame in one triple": _with_constant(lambda num_frames: 8 / (num_frames - 1)),
        "eps for eps^2": _with_constant(regularised_constant, power=1),
        "divisor N - 1 for N - 2": _with_constant(lambda num_frames: regularised_constant(num_frames) * (num_frames - 2) / (num_frames - 1)),
        "eps^2 and the largest squared norm for eps^2": _norms_added,
    },
    reality=(
        Comparison(
            question="Is ||Hess L_eps|| at the UNet's features at most Q_N / eps^2, eps a tenth of their least norm?",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.regularised, which asks nothing of the features",
        ),
    ),
    relies_on=("C1.hessian", "C1.lipschitz"),
    floor=0.99,
    floor_reason="asked for at N = 3, where the supremum is a limit at infinity: the search's radii end at e^12 eps",
)
