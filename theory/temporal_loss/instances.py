"""Instances shared by the theorems on the temporal loss: drawn frames, and the Hessian they are measured by."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from theory.claim import Instance, Parameters, Size
from theory.evidence import Evidence
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = tuple(
    (("num_frames", num_frames), ("dimension", dimension)) for num_frames, dimension in ((3, 2), (4, 3), (6, 3))
)


def draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Random directions, norms and least norm; collinear frames, where the curvature is extreme, are as likely as
    generic ones."""
    direction_key, sign_key, noise_key, norm_key, least_key = jax.random.split(key, 5)
    # Interpolating a line and a cloud controls the conditioning by construction: spread 0 is collinear.
    line = jax.random.normal(direction_key, (1, dimension)) * jax.random.rademacher(
        sign_key, (num_frames, 1), dtype=float
    )
    cloud_key, spread_key = jax.random.split(noise_key)
    spread = 10.0 ** jax.random.uniform(spread_key, minval=-6.0, maxval=1.0)
    return {
        "directions": line + spread * jax.random.normal(cloud_key, (num_frames, dimension)),
        "excess": jax.random.normal(norm_key, (num_frames,)) * jax.random.bernoulli(least_key, shape=(num_frames,)),
        "log_min_norm": jax.random.uniform(least_key, minval=-3.0, maxval=3.0),
    }


def unit_rows(vectors: jax.Array) -> jax.Array:
    """Rows scaled to norm 1; a zero row becomes the first basis vector, so that every parameter gives an instance."""
    squared = jnp.sum(vectors**2, axis=1, keepdims=True)
    first = jnp.zeros_like(vectors).at[:, 0].set(1.0)
    return jnp.where(squared > 0, vectors / jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), first)


def instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames with norms m (1 + excess^2) >= m, touching the boundary where the excess vanishes."""
    min_norm = jnp.exp(parameters["log_min_norm"])
    norms = min_norm * (1.0 + parameters["excess"] ** 2)
    return {"frames": norms[:, None] * unit_rows(parameters["directions"]), "min_norm": min_norm}


def parameters_of(frames: jax.Array, min_norm: float = 1.0) -> Parameters:
    """Parameters from which `instance` makes these frames: norms m (1 + excess^2)."""
    frames = jnp.asarray(frames)
    norms = jnp.sqrt(jnp.sum(frames**2, axis=1))
    return {
        "directions": frames,
        "excess": jnp.sqrt(jnp.maximum(norms / min_norm - 1.0, 0.0)),
        "log_min_norm": jnp.log(jnp.asarray(min_norm)),
    }


def with_largest_norm(instance: Instance) -> Instance:
    """The same frames with their largest norm in the place of m: what a bound that confuses the two is computed from."""
    largest = jnp.sqrt(jnp.max(jnp.sum(instance["frames"] ** 2, axis=1)))
    return {**instance, "min_norm": jnp.maximum(largest, instance["min_norm"])}


def operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from frames to an eigenvalue of the dense Hessian.

    Second derivatives by two sweeps of automatic differentiation touch each of the d products of a dot product, the
    norms and the division a bounded number of times (counted generously as 16), for each of the N - 2 terms; the
    symmetric eigensolver is backward stable with a modest multiple (counted as 16) of the matrix dimension N d.
    """
    return 16 * (dimension + num_frames) + 16 * num_frames * dimension


@jax.jit
def dense_hessian(frames: jax.Array) -> jax.Array:
    """Hessian of the temporal loss, (N d, N d), by automatic differentiation; shares nothing with the proofs of the
    bounds."""
    num_frames, dimension = frames.shape
    flat = jnp.reshape(frames, (-1,))
    hessian = jax.hessian(lambda vector: temporal_loss(jnp.reshape(vector, (num_frames, dimension))))(flat)
    return (hessian + hessian.T) / 2


def extreme_eigenvalue(matrix: jax.Array, *, largest_magnitude: bool) -> jax.Array:
    """Top eigenvalue, or the one of largest magnitude, of a symmetric matrix, in absolute value or not.

    Its derivative is v^T dM v with the eigenvector v held fixed (envelope theorem), which stays finite at repeated
    eigenvalues, where the derivative of an eigendecomposition does not.
    """
    _, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    top = vectors[:, -1] @ (matrix @ vectors[:, -1])
    if not largest_magnitude:
        return top
    bottom = vectors[:, 0] @ (matrix @ vectors[:, 0])
    return jnp.maximum(jnp.abs(top), jnp.abs(bottom))


@dataclasses.dataclass(frozen=True)
class Extremes:
    """Ends of the Hessian's spectrum, as Lanczos found them: each lies inside the spectrum, and at its end up to the
    tolerance.

    Attributes:
        lower, upper: least and largest eigenvalue; NaN where it was not asked for.
        products: how many Hessian-vector products were taken.
    """

    lower: float
    upper: float
    products: int


@functools.lru_cache(maxsize=16)
def _hessian_product(similarity: str):
    def product(features: jax.Array, direction: jax.Array) -> jax.Array:
        gradient_of = jax.grad(lambda values: temporal_loss(values, similarity=similarity))
        return jax.jvp(gradient_of, (features,), (direction,))[1]

    return jax.jit(product)


def lanczos_extremes(
    features: np.ndarray,
    *,
    similarity: Literal["frame", "pixel"] = "frame",
    tolerance: float = 0.0,
    ends: Sequence[Literal["lower", "upper"]] = ("lower", "upper"),
) -> Extremes:
    """Extreme eigenvalues of the Hessian by Lanczos (scipy) on Hessian-vector products (JAX), which never form the
    matrix.

    Args:
        features: (frames, ...), or (frames, channels, height, width) for "pixel", float64; at least 3 entries in all.
        tolerance: relative accuracy of an eigenvalue; 0 is that of the arithmetic.

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: the iteration ends before an eigenvalue is that accurate.
    """
    product, size, count = _hessian_product(similarity), features.size, 0
    held = jnp.asarray(features)

    def apply(vector: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return np.asarray(product(held, jnp.asarray(vector.reshape(features.shape)))).reshape(-1)

    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=apply, dtype=np.float64)
    # A start from the seed, since scipy's own is drawn anew at every call.
    start = np.random.default_rng(0).standard_normal(size)
    found = {"lower": float("nan"), "upper": float("nan")}
    for end in ends:
        which = {"lower": "SA", "upper": "LA"}[end]
        found[end] = float(
            scipy.sparse.linalg.eigsh(operator, k=1, which=which, v0=start, tol=tolerance, return_eigenvectors=False)[0]
        )
    return Extremes(**found, products=count)


def reduce_frames(features: np.ndarray) -> np.ndarray:
    """Frames of any dimension as (N, min(d, N + 1)), with the same Hessian spectrum up to multiplicity.

    The loss depends on inner products only, so a rotation takes the N frames into R^N; every direction normal to their
    span acts alike, so one spare coordinate keeps the normal part of the spectrum.

    Args:
        features: (frames, ...) float64.
    """
    flat = np.reshape(features, (features.shape[0], -1))
    num_frames, dimension = flat.shape
    if dimension <= num_frames + 1:
        return flat
    triangular = np.linalg.qr(flat.T, mode="r")
    return np.concatenate([triangular.T, np.zeros((num_frames, 1))], axis=1)


def reduce_pixels(features: np.ndarray) -> np.ndarray:
    """Every pixel's channel vectors as (N, min(c, N + 1), height, width), by its own rotation, with the same Hessian
    spectrum of the per-pixel loss up to multiplicity; see `reduce_frames`.

    Args:
        features: (frames, channels, height, width) float64.
    """
    num_frames, channels = features.shape[:2]
    if channels <= num_frames + 1:
        return features
    triangular = np.linalg.qr(np.transpose(features, (2, 3, 1, 0)), mode="r")
    rotated = np.transpose(triangular, (3, 2, 0, 1))
    return np.concatenate([rotated, np.zeros_like(rotated[:, :1])], axis=1)


@functools.partial(jax.jit, static_argnames="similarity")
def gradient(frames: jax.Array, similarity: Literal["frame", "pixel"] = "frame") -> jax.Array:
    """Gradient of the temporal loss, of the shape of the frames, by automatic differentiation; shares nothing with the
    proofs of the bounds."""
    return jax.grad(lambda values: temporal_loss(values, similarity=similarity))(frames)


def gradient_operations(*, num_frames: int, dimension: int) -> int:
    """Longest chain of roundings from frames to the norm of the gradient.

    One reverse sweep touches each of the d products of a dot product, the norms and the division a bounded number of
    times (counted generously as 16); the norm sums N d squares.
    """
    return 16 * (dimension + num_frames) + num_frames * dimension


def frame_instances(evidence: Evidence) -> Iterator[tuple[str, Size, Instance]]:
    """Label, size and instance of every record of the real network's features, frame-wise, with m its least norm."""
    for record in evidence.features:
        frames = reduce_frames(record.values)
        num_frames, dimension = frames.shape
        min_norm = np.min(np.linalg.norm(frames, axis=1))
        size = (("num_frames", num_frames), ("dimension", dimension))
        yield record.label, size, {"frames": jnp.asarray(frames), "min_norm": jnp.asarray(min_norm)}


SMALLEST_TURN = 1.0 / 16
"""Least angle between the two members of a pair, so that their difference keeps all but 5 bits."""


def draw_pair(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """A drawn instance and the turn of each frame that leads to a second one; small turns are as likely as half
    circles."""
    first_key, turn_key, weight_key, angle_key, excess_key = jax.random.split(key, 5)
    first = draw(first_key, num_frames=num_frames, dimension=dimension)
    return {
        **first,
        "other_excess": first["excess"] * jax.random.normal(excess_key, (num_frames,)),
        "turns": jax.random.normal(turn_key, (num_frames, dimension)),
        "weights": jax.random.normal(weight_key, (num_frames,)),
        "logit_angle": 4.0 * jax.random.normal(angle_key),
    }


def pair_directions(parameters: Parameters) -> tuple[jax.Array, jax.Array]:
    """Unit directions of both members: (N, d) each, in dimension d >= 2.

    Frame t turns by the angle w_t phi, max |w_t| = 1, with phi between SMALLEST_TURN and pi, so that the members always
    differ, and at pi a frame goes to its opposite.
    """
    first = unit_rows(parameters["directions"])
    turns = parameters["turns"]
    normal = turns - jnp.sum(turns * first, axis=1, keepdims=True) * first
    # A turn along the frame itself has no direction: the basis vector least aligned with the frame gives one.
    basis = jax.nn.one_hot(jnp.argmin(jnp.abs(first), axis=1), first.shape[1], dtype=first.dtype)
    spare = basis - jnp.sum(basis * first, axis=1, keepdims=True) * first
    lost = jnp.sum(normal**2, axis=1, keepdims=True) <= 2.0**-20 * jnp.sum(turns**2, axis=1, keepdims=True)
    normal = unit_rows(jnp.where(lost, spare, normal))
    weights = parameters["weights"]
    largest = jnp.max(jnp.abs(weights))
    weights = jnp.where(largest > 0, weights / jnp.where(largest > 0, largest, 1.0), 1.0)
    angle = SMALLEST_TURN + (jnp.pi - SMALLEST_TURN) * jax.nn.sigmoid(parameters["logit_angle"])
    angles = (angle * weights)[:, None]
    return first, jnp.cos(angles) * first + jnp.sin(angles) * normal


def pair_instance(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Two sets of frames of norms at least m, at distance at least m SMALLEST_TURN / pi from each other."""
    min_norm = jnp.exp(parameters["log_min_norm"])
    first, second = pair_directions(parameters)
    return {
        "frames": (min_norm * (1.0 + parameters["excess"] ** 2))[:, None] * first,
        "others": (min_norm * (1.0 + parameters["other_excess"] ** 2))[:, None] * second,
        "min_norm": min_norm,
    }


def difference_quotient(instance: Instance) -> jax.Array:
    """||grad L(F) - grad L(G)|| / ||F - G|| of the pair (frames, others)."""
    difference = gradient(instance["frames"]) - gradient(instance["others"])
    return jnp.sqrt(jnp.sum(difference**2) / jnp.sum((instance["frames"] - instance["others"]) ** 2))


def pair_operations(*, num_frames: int, dimension: int) -> int:
    """Roundings of a difference quotient, counted at the size of the bound.

    The two gradients, of size G_N / m <= C_N / m, are subtracted and divided by a distance of at least m / 32: an error
    of theirs grows by at most 2 * 32.
    """
    return 64 * gradient_operations(num_frames=num_frames, dimension=dimension)


def pair_instances(evidence: Evidence) -> Iterator[tuple[str, Size, Instance]]:
    """Pairs of the real network's features: each record with the next one of its shape, or else with itself played
    backwards."""
    for index, record in enumerate(evidence.features):
        later = [other for other in evidence.features[index + 1 :] if other.values.shape == record.values.shape]
        label, values = (
            (f"{record.label} to {later[0].label}", later[0].values)
            if later
            else (f"{record.label} to itself played backwards", record.values[::-1])
        )
        both = reduce_frames(np.concatenate([record.values, values]))
        frames, others = np.split(both, 2)
        size = (("num_frames", frames.shape[0]), ("dimension", frames.shape[1]))
        min_norm = np.min(np.linalg.norm(both, axis=1))
        yield (
            label,
            size,
            {"frames": jnp.asarray(frames), "others": jnp.asarray(others), "min_norm": jnp.asarray(min_norm)},
        )
