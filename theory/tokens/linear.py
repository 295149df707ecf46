r"""Frame tokens that are a linear map of features carry every affine dependency of the features, and err by the rest of
a regression.

Statement. Let the frames f = 1, .., N have features phi_f, and let a quantity of each frame be computed as g_f = A
phi_f + b, with any matrix A and vector b: the tokens c_f of the public code, and with them the keys W_K c_f and values
W_V c_f of a layer. With H = (phi_1 1; ..; phi_N 1) and Y any matrix whose columns are orthogonal to those of H, for all
targets T (N x width)

    \| G - T \|_F \ge \frac{|\langle Y, T \rangle|}{\|Y\|_F},

and the largest of the right-hand sides is the residual ||(I - H H^+) T||_F of the linear regression of the targets on
features and constant. So two frames with the same features get the same tokens; and if the features of one frame are
used for all, as one public script does, all tokens are shared, and C5.chebyshev applies.

Hypotheses.
    H1  g_f = A phi_f + b with the same A and b for every frame.
    H2  The columns of Y are orthogonal to those of H.

**Attained**: by the regression.

In the paper: not there; a limit of the architecture in the companion's public code. Proof: paper_notes.md, section
C5.linear.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import Claim, Hypothesis, Instance, Outcome, Parameters, Problem, Tightness, Verdict
from theory.rounding import relative_budget
from theory.tokens import instances
from theory.tokens.attention import host_array

SIZES = (
    (("num_frames", 4), ("num_features", 1), ("width", 2)),
    (("num_frames", 6), ("num_features", 3), ("width", 3)),
)

LEAST_SHARE = 1e-6
"""The least share of a drawn test matrix outside the features' span with which the family keeps it."""


def linear_residual(targets: Any, features: Any) -> float:
    """The least Frobenius distance of the targets from an affine function of the features, rounded down.

        min_{A, b} ( sum_f ||A phi_f + b - t_f||^2 )^(1/2)

    Directions in which features and constant together vary by less than the rounding of their singular values count as
    none, so features that differ by rounding alone count as equal.

    Args:
        targets: (N, width) floating NumPy, JAX or PyTorch array, one row a frame.
        features: (N, m) floating, what the tokens are computed from.

    Raises:
        ValueError: different numbers of frames, or values that are not finite.

    Source: paper_notes.md, C5.linear.
    """
    targets, features = host_array("targets", targets, 2), host_array("features", features, 2)
    if len(targets) != len(features):
        raise ValueError(
            f"there are {len(targets)} targets and {len(features)} frames of features; one of each per frame is needed"
        )
    design = np.column_stack([features / max(float(np.max(np.abs(features))), 1e-300), np.ones(len(features))])
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, sizes > relative_budget(8 * sum(design.shape)) * sizes[0]]
    residual = targets - basis @ (basis.T @ targets)
    slack = relative_budget(8 * (sum(targets.shape) + features.shape[1])) * float(np.linalg.norm(targets))
    return max(0.0, float(np.linalg.norm(residual)) - slack)


def _draw(key: jax.Array, *, num_frames: int, num_features: int, width: int) -> Parameters:
    keys = jax.random.split(key, 5)
    return {
        "features": jax.random.normal(keys[0], (num_frames, num_features)),
        "matrix": jax.random.normal(keys[1], (num_features, width)),
        "offset": jax.random.normal(keys[2], (width,)),
        "targets": 2 * jax.random.normal(keys[3], (num_frames, width)),
        "test": jax.random.normal(keys[4], (num_frames, width)),
    }


def _instance(parameters: Parameters, *, num_frames: int, num_features: int, width: int) -> Instance:
    features = parameters["features"]
    design = jnp.concatenate([features, jnp.ones((num_frames, 1))], axis=1)
    basis, _ = jnp.linalg.qr(design)
    # Projected twice: once would leave a rounding error of the size of the drawn matrix, the second one leaves that of
    # the rest.
    once = _without(basis, parameters["test"])
    twice = _without(basis, once)
    # Where next to nothing is left, all of it is rounding; such a test matrix is replaced by 0, which tells nothing and
    # breaks nothing.
    usable = instances.norm(twice) > LEAST_SHARE * instances.norm(parameters["test"])
    matrix, offset = parameters["matrix"], parameters["offset"]
    return {
        "features": features,
        "made": features @ matrix + offset[None, :],
        "operands": instances.norm(features) * instances.norm(matrix) + num_frames * instances.norm(offset),
        "targets": parameters["targets"],
        "test": jnp.where(usable, twice, 0.0),
    }


def _without(basis: jax.Array, rows: jax.Array) -> jax.Array:
    return rows - basis @ (basis.T @ rows)


def _measured(instance: Instance) -> jax.Array:
    test, targets = instance["test"], instance["targets"]
    size = instances.norm(test)
    value = jnp.abs(jnp.sum(test * targets)) / jnp.where(size > 0, size, 1.0)
    # Y is orthogonal to the features up to rounding, which the size of A phi + b multiplies.
    scale = instances.norm(targets) + instance["operands"]
    return instances.rounded_down(value, scale, 64 * (sum(targets.shape) + instance["features"].shape[1]))


def _errors(instance: Instance) -> jax.Array:
    return instance["made"] - instance["targets"]


def _operations(*, num_frames: int, num_features: int, width: int) -> int:
    """The slack of `_measured`, at the witness's operands of 1, twice."""
    return 128 * (num_frames + num_features + width)


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=_measured,
    bound=lambda instance: instances.norm(_errors(instance)),
    operations=_operations,
)


def _residual(num_frames: int, width: int) -> np.ndarray:
    """A unit matrix whose columns are orthogonal to the constant and to the features of the witness."""
    residual = np.zeros((num_frames, width))
    residual[:4, 0] = [0.5, -0.5, -0.5, 0.5]
    return residual


def _witness_features(num_frames: int, num_features: int) -> np.ndarray:
    features = np.zeros((num_frames, num_features))
    features[:4, 0] = [1.0, 1.0, -1.0, -1.0]
    for index in range(1, num_features):
        features[3 + index, index] = 1.0
    return features


def witness_parameters(*, num_frames: int, num_features: int, width: int) -> Parameters:
    """Targets that features and constant cannot express; the tokens are 0, their regression."""
    residual = jnp.asarray(_residual(num_frames, width))
    return {
        "features": jnp.asarray(_witness_features(num_frames, num_features)),
        "matrix": jnp.zeros((num_features, width)),
        "offset": jnp.zeros(width),
        "targets": residual,
        "test": residual,
    }


def witness(*, num_frames: int, num_features: int, width: int) -> Instance:
    """Four frames that change sign twice beside features that change sign once: both sides are 1."""
    residual = jnp.asarray(_residual(num_frames, width))
    return {
        "features": jnp.asarray(_witness_features(num_frames, num_features)),
        "made": jnp.zeros((num_frames, width)),
        "operands": jnp.asarray(0.0),
        "targets": residual,
        "test": residual,
    }


def _broken(what: str) -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    if what == "made":
        instance["made"] = 0.9 * instance["targets"]
    else:
        instance["made"] = instance["features"] @ jnp.asarray([[1.0, 0.0]])
        instance["targets"] = 0.9 * instance["made"]
        instance["test"] = instance["made"]
    return PROBLEM.outcome(instance, size, what)


CLAIM = Claim(
    id="C5.linear",
    title="Frame tokens linear in features err by the rest of a regression",
    statement=(
        "Tokens, keys or values that are one affine function of the frames' features miss their targets by at least "
        "the residual of the linear "
        "regression of the targets on features and constant, and the regression attains it. Frames with equal "
        "features get equal tokens."
    ),
    latex=r"\|G - T\|_F \ge \max_{Y \perp [\Phi, 1]} \frac{|\langle Y, T\rangle|}{\|Y\|_F} = \|(I - HH^+)T\|_F",
    hypotheses=(
        Hypothesis("H1", "g_f = A phi_f + b with the same A and b for every frame."),
        Hypothesis("H2", "The columns of Y are orthogonal to those of H = (phi_f 1)."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; a limit of the architecture of its companion's public code",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "inner product of the targets with a unit matrix orthogonal to features and constant, in the units of the "
        "targets"
    ),
    bound_in_words="Frobenius distance of what is computed from the features, from the targets",
    necessity={"H1": lambda: _broken("made"), "H2": lambda: _broken("test")},
    planted={
        "largest error of a frame for the root of the sum of squares": lambda instance: jnp.max(
            instances.row_norms(_errors(instance))
        ),
        "mean over the frames for the sum": lambda instance: (
            instances.norm(_errors(instance)) / _errors(instance).shape[0] ** 0.5
        ),
        "the last frame left out": lambda instance: instances.norm(_errors(instance)[1:]),
        "the sum of squares for its root, halved": lambda instance: jnp.sum(_errors(instance) ** 2) / 2,
    },
    no_network=(
        "the editor's frame tokens come from 192 numbers of each of 8 patches a frame; for up to 24 frames such "
        "features can be affinely "
        "independent, and the regression then fits any targets, so that the floor is 0"
    ),
    floor=0.98,
    floor_reason="the supremum is attained",
)
