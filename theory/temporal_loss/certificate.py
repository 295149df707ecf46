r"""A certificate of curvature for given features, from their norms, similarities and second-neighbour cosines only.

Statement. Let r_t = ||F_t|| > 0, u_t = F_t / r_t, s_t = <u_t, u_{t+1}>, c_t = <u_t, u_{t+2}>, S_t^2 = 1 - s_t^2, k = 2/(N-2),
y = k D^T D s with D the difference matrix, and let p_t, q_{t+1} be the unit directions of u_{t+1} - s_t u_t and u_t - s_t u_{t+1}. With s_t'
and s_t'' the first and second derivatives of s_t along x = (r_1 z_1, .., r_N z_N), P_t the projection along u_t, and any theta_t > 0,

    x^\top \nabla^2 L\, x = k |D s'|^2 + \sum_t y_t s_t'',
    s_t' = S_t (\langle p_t, z_t \rangle + \langle q_{t+1}, z_{t+1} \rangle),
    s_t'' = - 2 S_t \langle u_t, z_t \rangle \langle p_t, z_t \rangle
            - 2 S_t \langle u_{t+1}, z_{t+1} \rangle \langle q_{t+1}, z_{t+1} \rangle
            - s_t (|P_t z_t|^2 + |P_{t+1} z_{t+1}|^2)
            + 2 (\langle n_t, n_{t+1}' \rangle - s_t \langle p_t, z_t \rangle \langle q_{t+1}, z_{t+1} \rangle)

with n_t and n_{t+1}' what is left of P_t z_t and P_{t+1} z_{t+1} after p_t and q_{t+1} are taken out. Everything but <n_t, n_{t+1}'> is a
form in the coordinates of z_t along u_t and in span(q_t, p_t), which the inner products at distance 0, 1 and 2 determine; and

    2 |y_t \langle n_t, n_{t+1}' \rangle| \le |y_t| (\theta_t |n_t|^2 + |n_{t+1}'|^2 / \theta_t).

So lambda_max and -lambda_min of the Hessian are at most the top eigenvalues of two explicit symmetric matrices of size 3 N; the norm of the
Gauss-Newton matrix k J^T D^T D J, J = ds/dF, is exactly k lambda_max(D J J^T D^T), of size N - 2.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  No frame is zero (given m: ||F_t|| >= m for every frame).
    H3  The inner products are those of the frames.

**Upper**: attained by collinear frames with alternating similarities (up to the rounding margin), so no factor below 1 can be put in front,
but not an identity; the ratio to the truth by kind of features is in test_certificate.py and in the study of curvature.

Not in the paper. Proof: paper_notes.md, section C1.certificate.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

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
from theory.evidence import Evidence
from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.gram import BandedGram, advised_precision, banded_gram, check_array, error_of_cosines
from theory.temporal_loss.hessian import extremal_frames, hessian_constant

WORTH_REREADING = 2.0**-5
"""A rounding margin above this share of the certificate is not worth the time that single precision saves."""
CLEAR_DIRECTION = 2.0**-6
"""Directions known less well than this are not used. Either way the bound holds; this only decides which way is nearer."""
LIFT = 2.0**-20
"""How far above the top eigenvalue the resolvent is taken that gives positive weights theta."""


@dataclasses.dataclass(frozen=True)
class CurvatureCertificate:
    """Bounds on the spectrum of the Hessian of the temporal loss at given features.

    Attributes:
        upper: lambda_max <= upper.
        lower: lower <= lambda_min.
        spectral: ||Hess L|| <= spectral = max(upper, -lower).
        gauss_newton: the norm of the Gauss-Newton part, a value and not a bound: it has the accuracy of the squared sines.
        margin: upper and -lower hold at most this much to cover rounding.
    """

    upper: float
    lower: float
    spectral: float
    gauss_newton: float
    margin: float


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """What the inner products determine, each array indexed by frame (N), by pair (N - 1), or by pair as seen from its two frames.

    The coordinates of frame t are those along u_t and in span(q_t, p_t), where (u_{t-1} - s_{t-1} u_t, u_{t+1} - s_t u_t) is the square root
    of its Gram matrix; `back` and `ahead` hold these two vectors, (N, 3), `back_direction` and `ahead_direction` their directions, or zero
    where rounding hides them.
    """

    norms: Any
    cosines: Any
    squared_sines: Any
    slopes: Any  # y
    back: Any
    ahead: Any
    back_direction: Any
    ahead_direction: Any
    plane_error: Any  # (N,), of back and ahead
    direction_error: Any  # (N, 2), of the two projections


_TANGENT = np.diag([0.0, 1.0, 1.0])
_RADIAL = np.array([1.0, 0.0, 0.0])
_SIGNS, _SHIFTS = np.array([1.0, 1.0, -1.0, -1.0]), np.array([0.0, 1.0, 0.0, 1.0])
"""The four bounds: on lambda_max and on -lambda_min, each with two choices of weights, that which mostly is the better first."""


def _square_root(xp: Any, squared: Any) -> Any:
    """Square root, 0 with derivative 0 where the argument is not positive."""
    positive = squared > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, squared, 1.0)), 0.0)


def _quotient(xp: Any, numerator: Any, denominator: Any) -> Any:
    """numerator / denominator, 0 where the denominator vanishes."""
    safe = denominator > 0
    return xp.where(safe, numerator / xp.where(safe, denominator, 1.0), 0.0)


def _from_before(xp: Any, pairs: Any) -> Any:
    """(.., N - 1) -> (.., N): each frame's value of the pair it ends, 0 for the first."""
    return xp.concat([xp.zeros((*pairs.shape[:-1], 1)), pairs], axis=-1)


def _from_after(xp: Any, pairs: Any) -> Any:
    """(.., N - 1) -> (.., N): each frame's value of the pair it begins, 0 for the last."""
    return xp.concat([pairs, xp.zeros((*pairs.shape[:-1], 1))], axis=-1)


def _around(xp: Any, pairs: Any) -> Any:
    """(.., N - 1) -> (.., N): the sum over the pairs a frame is in."""
    return _from_before(xp, pairs) + _from_after(xp, pairs)


def _geometry(
    xp: Any, squared_norms: Any, neighbours: Any, second_neighbours: Any, cosine_errors: tuple[float, float]
) -> _Geometry:
    num_frames = squared_norms.shape[0]
    norms = xp.sqrt(squared_norms)
    cosines = neighbours / (norms[:-1] * norms[1:])
    squared_sines = xp.maximum(1 - cosines**2, 0.0)
    steps = cosines[1:] - cosines[:-1]
    slopes = 2 / (num_frames - 2) * (_from_before(xp, steps) - _from_after(xp, steps))  # y = k D^T D s
    # Gram matrix [[S_{t-1}^2, k_t], [k_t, S_t^2]] of the two vectors in the plane of frame t, k_t = c_{t-1} - s_{t-1} s_t; its square root
    # is (G + sqrt(det) I) / sqrt(trace + 2 sqrt(det)). The outer frames have one neighbour, and the other vector zero.
    zero = xp.zeros(1)
    mixed = xp.concat([zero, second_neighbours / (norms[:-2] * norms[2:]) - cosines[:-1] * cosines[1:], zero])
    first, second = _from_before(xp, squared_sines), _from_after(xp, squared_sines)
    # An outer frame has one vector and no plane.
    outer = np.eye(1, num_frames)[0] + np.eye(1, num_frames, k=num_frames - 1)[0]
    # Where rounding hides that the Gram matrix is positive semidefinite, as it is but for its error, a little more on the diagonal makes it so.
    hidden = (first * second <= mixed**2) & (outer == 0)
    gram_error = 5 * cosine_errors[0] + cosine_errors[1]
    lift = xp.where(hidden, gram_error + 2 * cosine_errors[0], 0.0)
    lengths = [_square_root(xp, squared) for squared in (first, second)]
    first, second = first + lift, second + lift
    root = _square_root(xp, first * second - mixed**2)
    trace = first + second
    scale = _square_root(xp, trace + 2 * root)
    radial = xp.zeros(num_frames)
    back = xp.stack([radial, _quotient(xp, first + root, scale), _quotient(xp, mixed, scale)], axis=1)
    ahead = xp.stack([radial, _quotient(xp, mixed, scale), _quotient(xp, second + root, scale)], axis=1)
    # |sqrt(G) - sqrt(H)| <= min(sqrt(|G - H|), |G - H| / sqrt(lambda_min(H))); lambda_min = det / lambda_max >= det / trace.
    gram_error = gram_error + cosine_errors[0] + lift
    # The error of an outer frame is that of a length.
    least = _quotient(xp, root**2, trace) + outer * trace
    plane_error = gram_error / xp.sqrt(xp.maximum(least, gram_error))
    errors = [_quotient(xp, 4 * plane_error, length) for length in lengths]
    clear = [(length > 0) & (error <= CLEAR_DIRECTION) for length, error in zip(lengths, errors, strict=True)]
    # A pair is split along its plane in both of its frames or in neither.
    pair_clear = clear[1][:-1] & clear[0][1:]
    never = xp.zeros(1, dtype=bool)
    used = [xp.concat([never, pair_clear]), xp.concat([pair_clear, never])]
    directions = [
        xp.where(use[:, None], _quotient(xp, vectors, _square_root(xp, xp.sum(vectors**2, axis=1))[:, None]), 0.0)
        for use, vectors in zip(used, (back, ahead), strict=True)
    ]
    errors = [xp.where(use, error, 0.0) for use, error in zip(used, errors, strict=True)]
    return _Geometry(norms, cosines, squared_sines, slopes, back, ahead, *directions, plane_error, xp.stack(errors, axis=1))


def _outer(left: Any, right: Any) -> Any:
    return left[..., :, None] * right[..., None, :]


def _gauss_newton_blocks(xp: Any, geometry: _Geometry) -> list[Any]:
    """k J^T D^T D J in the coordinates of x: its blocks between frames at distance 0, 1 and 2, (N, 3, 3), (N - 1, 3, 3) and (N - 2, 3, 3).

    Row t of J = s' is S_t p_t / r_t at frame t and S_t q_{t+1} / r_{t+1} at frame t + 1; row t of D J is that of t + 1 less that of t.
    """
    num_frames = geometry.norms.shape[0]
    ahead, back = (vectors / geometry.norms[:, None] for vectors in (geometry.ahead, geometry.back))
    rows = (-ahead[:-2], ahead[1:-1] - back[1:-1], back[2:])
    blocks = []
    for distance in range(3):
        total = 0.0
        for place in range(3 - distance):
            product = 2 / (num_frames - 2) * _outer(rows[place], rows[place + distance])
            total = total + xp.concat([xp.zeros((place, 3, 3)), product, xp.zeros((2 - distance - place, 3, 3))])
        blocks.append(total)
    return blocks


def _second_order_blocks(xp: Any, geometry: _Geometry, pull: Any) -> tuple[Any, Any]:
    """Sum_t y_t s_t'' without the normal coupling: diagonal blocks (N, 3, 3) and blocks (N - 1, 3, 3) between neighbours."""
    leaning = _around(xp, geometry.slopes * geometry.cosines)
    column = _outer(pull, _RADIAL[None])
    diagonal = -(column + xp.matrix_transpose(column)) - leaning[:, None, None] * _TANGENT[None]
    products = _outer(geometry.ahead_direction[:-1], geometry.back_direction[1:])
    return diagonal, (-geometry.slopes * geometry.cosines)[:, None, None] * products


def _tridiagonal(xp: Any, diagonal: Any, off_diagonal: Any) -> Any:
    return xp.diag(diagonal) + xp.diag(off_diagonal, 1) + xp.diag(off_diagonal, -1)


def _weights(xp: Any, diagonal: Any, coupling: Any, norms: Any) -> Any:
    """theta_t = (v_{t+1} / r_{t+1}) / (v_t / r_t) from v = (lambda - T)^{-1} 1, lambda just above the top eigenvalue of the tridiagonal T.

    T has off-diagonal entries >= 0, so v > 0 and T v < lambda v: with these weights Young's inequality loses at most lambda - lambda_max(T).
    """
    size = xp.maximum(xp.max(xp.abs(diagonal)), xp.max(coupling)) + float(np.finfo(np.float64).tiny)
    diagonal, coupling = diagonal / size, coupling / size
    if xp is np:
        last = diagonal.shape[0] - 1
        options = {"select": "i", "select_range": (last, last), "check_finite": False}
        shift = scipy.linalg.eigvalsh_tridiagonal(diagonal, coupling, **options)[0] + LIFT
        bands = np.stack([shift - diagonal, np.append(-coupling, 0.0)])
        vector = scipy.linalg.solveh_banded(bands, np.ones(last + 1), lower=True, check_finite=False)
    else:
        matrix = _tridiagonal(xp, diagonal, coupling)
        shift = xp.linalg.eigvalsh(matrix)[-1] + LIFT
        vector = xp.linalg.solve(shift * np.eye(diagonal.shape[0]) - matrix, xp.ones_like(diagonal))
    vector = xp.abs(vector) / norms
    return vector[1:] / vector[:-1]


def _bands(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """(.., 9, 3 N), the lower diagonals as LAPACK stores them, of a symmetric matrix of blocks at distance 0, 1 and 2."""
    *batch, num_frames, _, _ = blocks[0].shape
    bands = np.zeros((*batch, 9, num_frames, 3))
    for distance, block in enumerate(blocks):
        for row in range(3):
            for column in range(row if distance == 0 else 0, 3):
                bands[..., 3 * distance + column - row, : num_frames - distance, row] = block[..., row, column]
    return bands.reshape(*batch, 9, 3 * num_frames)


def _dense(xp: Any, blocks: Sequence[Any]) -> Any:
    """(3 N, 3 N), the same matrix; not for a batch of them."""
    num_frames = blocks[0].shape[0]
    matrix = 0.0
    for distance, block in enumerate(blocks):
        block = xp.concat([block, xp.zeros((distance, 3, 3))]) * (0.5 if distance == 0 else 1.0)
        matrix = matrix + np.eye(num_frames, k=distance)[:, None, :, None] * block[:, :, None, :]
    matrix = xp.reshape(matrix, (3 * num_frames, 3 * num_frames))
    return matrix + matrix.T


def _top_of_bands(bands: np.ndarray) -> float:
    """lambda_max of a symmetric matrix of which the lower diagonals are given."""
    last = bands.shape[1] - 1
    options = {"lower": True, "eigvals_only": True, "select": "i", "select_range": (last, last), "check_finite": False}
    return scipy.linalg.eig_banded(bands, **options)[0]


def _is_above(level: float, bands: np.ndarray) -> bool:
    """Whether level > lambda_max, by a Cholesky factorisation; near equality either answer may come out."""
    shifted = -bands
    shifted[0] += level
    try:
        scipy.linalg.cholesky_banded(shifted, overwrite_ab=True, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return False
    return True


def _smaller(bands: np.ndarray, normal: np.ndarray, margins: np.ndarray) -> float:
    """The smaller of two bounds max(lambda_max, normal) + margin. The second one's eigenvalue is computed only where it is the smaller."""
    first = max(_top_of_bands(bands[0]), normal[0]) + margins[0]
    level = first - margins[1]
    if normal[1] >= level or not _is_above(level, bands[1]):
        return first
    return min(first, max(_top_of_bands(bands[1]), normal[1]) + margins[1])


def _margins(
    xp: Any, geometry: _Geometry, blocks: Sequence[Any], share_ahead: Any, share_back: Any, weights: Any, cosine_error: float
) -> Any:
    """How far rounding of the inner products and of the eigenvalue may have lowered a bound; paper_notes.md, C1.certificate, "Rounding".

    Norms of the errors of the blocks, summed along the rows (every matrix norm is at most the largest row sum of a symmetric matrix).
    """
    num_frames = geometry.norms.shape[0]
    norms, slopes = geometry.norms, xp.abs(geometry.slopes)
    curvature = 2 / (num_frames - 2)
    slope_error = 5 * curvature * cosine_error
    sines = _square_root(xp, geometry.squared_sines)
    inner = _around(xp, slope_error * (sines + 1) + slopes * cosine_error)
    inner = inner + _around(xp, slopes + slope_error) * geometry.plane_error
    young = share_ahead * geometry.direction_error[:, 1] + share_back * geometry.direction_error[:, 0]
    young = young + slope_error * (_from_after(xp, weights) + _from_before(xp, 1 / weights))
    coupling = slope_error + (slopes + slope_error) * (
        cosine_error + geometry.direction_error[:-1, 1] + geometry.direction_error[1:, 0]
    )
    coupling = coupling / (norms[:-1] * norms[1:])
    rows = xp.max((inner + young) / norms**2 + _around(xp, coupling), axis=-1)
    # |J^T Q J - J'^T Q J'| <= |Q| (2 |J| |J - J'| + |J - J'|^2), |Q| <= 4 k; |J|^2 = |J J^T| is at most the largest row sum, of the J at hand.
    ahead, back = (xp.sum(vectors**2, axis=1) / norms**2 for vectors in (geometry.ahead, geometry.back))
    _, off_diagonal = _similarity_gram(xp, geometry)
    jacobian = _square_root(xp, xp.max(ahead[:-1] + back[1:] + _around(xp, xp.abs(off_diagonal))))
    jacobian_error = 2 * xp.max(geometry.plane_error / norms)
    gauss_newton = 4 * curvature * jacobian_error * (2 * jacobian + jacobian_error)
    squared = sum((1 + (distance > 0)) * xp.sum(block**2, axis=(-3, -2, -1)) for distance, block in enumerate(blocks))
    return rows + gauss_newton + relative_budget(16 * 3 * num_frames) * _square_root(xp, squared)


def _bounds(
    xp: Any, squared_norms: Any, neighbours: Any, second_neighbours: Any, error: float, cosine_errors: tuple[float, float]
) -> tuple[Any, Any, Any, Any]:
    """Bounds on lambda_max and -lambda_min with their margins included, the Gauss-Newton norm, and the larger margin."""
    geometry = _geometry(xp, squared_norms, neighbours, second_neighbours, cosine_errors)
    norms, slopes = geometry.norms, xp.abs(geometry.slopes)
    coupling = slopes / (norms[:-1] * norms[1:])
    pull = _from_before(xp, geometry.slopes)[:, None] * geometry.back + _from_after(xp, geometry.slopes)[:, None] * geometry.ahead
    # -sig_t with sig_t = y_{t-1} s_{t-1} + y_t s_t: what sum_t y_t s_t'' is on directions normal to the neighbours.
    normal = -_around(xp, geometry.slopes * geometry.cosines)
    # The first choice of weights is best where normal directions dominate; with the second the bound is never above the sum of the
    # Gauss-Newton norm and of the norm of the matrix of block norms.
    widest = _square_root(xp, normal**2 + 4 * xp.sum(pull**2, axis=1))
    choices = [((1 - shift / 2) * sign * normal + shift / 2 * widest) / norms**2 for sign, shift in zip(_SIGNS, _SHIFTS, strict=True)]
    if xp is np:
        weights = np.stack([_weights(np, diagonal, coupling, norms) for diagonal in choices])
    else:
        weights = jax.vmap(lambda diagonal: _weights(xp, diagonal, coupling, norms))(xp.stack(choices))
        # Any weights give a bound, so a search may hold them fixed: their derivative is that of an eigenvector.
        weights = jax.lax.stop_gradient(weights)

    at, between = _second_order_blocks(xp, geometry, pull)
    first_order = _gauss_newton_blocks(xp, geometry)

    def choose(sign: Any, weights: Any) -> tuple[list[Any], Any, Any]:
        """Blocks of sign * (Gauss-Newton + second order) + Young's share of the normal coupling, the largest normal value, and the margin.

        sign (.., 1) and weights (.., N - 1): NumPy takes the four bounds at once along a leading axis.
        """
        share_ahead, share_back = _from_after(xp, slopes * weights), _from_before(xp, slopes / weights)
        split = [
            share[..., None, None] * (_TANGENT[None] - _outer(direction, direction))
            for share, direction in ((share_ahead, geometry.ahead_direction), (share_back, geometry.back_direction))
        ]
        signs = sign[..., None, None]
        blocks = [
            signs * first_order[0] + (signs * at + split[0] + split[1]) / (norms**2)[:, None, None],
            signs * (first_order[1] + between / (norms[:-1] * norms[1:])[:, None, None]),
            signs * first_order[2],
        ]
        largest = xp.max((sign * normal + share_ahead + share_back) / norms**2, axis=-1)
        return blocks, largest, _margins(xp, geometry, blocks, share_ahead, share_back, weights, cosine_errors[0])

    def choose_top(sign: Any, weights: Any) -> tuple[Any, Any]:
        blocks, largest, margin = choose(sign, weights)
        return xp.maximum(instances.extreme_eigenvalue(_dense(xp, blocks), largest_magnitude=False), largest), margin

    if xp is np:
        blocks, tops, margins = choose(_SIGNS[:, None], weights)
        bands = _bands(blocks)
        upper, downward = (_smaller(bands[half], tops[half], margins[half]) for half in (slice(0, 2), slice(2, 4)))
    else:
        tops, margins = jax.vmap(choose_top)(_SIGNS[:, None], weights)
        margins = jax.lax.stop_gradient(margins)
        upper, downward = xp.min(xp.reshape(tops + margins, (2, 2)), axis=1)
    upper, downward = (xp.maximum((1 + 4 * error) * side, 0.0) for side in (upper, downward))
    return upper, downward, _gauss_newton_norm(xp, geometry), xp.max(margins) + 4 * error * xp.maximum(upper, downward)


def bounds_in_units(
    squared_norms: np.ndarray,
    neighbours: np.ndarray,
    second_neighbours: np.ndarray,
    error: float,
    cosine_errors: tuple[float, float] | None = None,
) -> tuple[float, float, float, float]:
    """Bounds on lambda_max and -lambda_min, the Gauss-Newton norm and the margin, computed at frames whose least norm is about 1.

    In these units, a power of 2 and so exact, no square of a curvature leaves the range of float64 wherever the inner products are in it.

    Args:
        squared_norms, neighbours, second_neighbours: (N,), (N - 1,) and (N - 2,), entries of a `BandedGram`.
        error, cosine_errors: of these entries and of their cosines, see `BandedGram`.
    """
    unit = 2.0 ** math.floor(math.log2(np.min(squared_norms)))
    cosine_errors = cosine_errors or (error_of_cosines(error),) * 2
    found = _bounds(np, squared_norms / unit, neighbours / unit, second_neighbours / unit, error, cosine_errors)
    upper, downward, gauss_newton, margin = (float(value) / unit for value in found)
    return upper, downward, gauss_newton, margin


def upper_curvature(squared_norms: Any, neighbours: Any, second_neighbours: Any, error: float) -> Any:
    """`certify_gram(..).upper` as a JAX-traceable function of the inner products and of their error (see `BandedGram`)."""
    return _bounds(jnp, squared_norms, neighbours, second_neighbours, error, (error_of_cosines(error),) * 2)[0]


def _gauss_newton_norm(xp: Any, geometry: _Geometry) -> Any:
    """lambda_max(k D J J^T D^T)."""
    scale = 2 / (geometry.norms.shape[0] - 2)
    diagonal, off_diagonal = _similarity_gram(xp, geometry)
    # Of D M D^T, M tridiagonal: M_tt + M_{t+1,t+1} - 2 M_{t,t+1}, then M_{t,t+1} + M_{t+1,t+2} - M_{t+1,t+1}, then -M_{t+1,t+2}.
    diagonals = [
        scale * (diagonal[:-1] + diagonal[1:] - 2 * off_diagonal),
        scale * (off_diagonal[:-1] + off_diagonal[1:] - diagonal[1:-1]),
        -scale * off_diagonal[1:-1],
    ]
    if xp is not np:
        matrix = sum(xp.diag(entries, distance) for distance, entries in enumerate(diagonals) if entries.shape[0])
        matrix = matrix + xp.triu(matrix, 1).T
        return instances.extreme_eigenvalue(matrix, largest_magnitude=False)
    size = len(diagonals[0])
    bands = np.stack([np.append(entries, np.zeros(size - len(entries))) for entries in diagonals[: min(3, size)]])
    return max(_top_of_bands(bands), 0.0)


def _similarity_gram(xp: Any, geometry: _Geometry) -> tuple[Any, Any]:
    """Diagonal and off-diagonal of the tridiagonal J J^T, from the cosines alone.

        M_tt = (1 - s_t^2) (1/r_t^2 + 1/r_{t+1}^2),   M_{t,t+1} = (c_t - s_t s_{t+1}) / r_{t+1}^2
    """
    inverse = 1 / geometry.norms**2
    mixed = xp.sum(geometry.back * geometry.ahead, axis=1)[1:-1]
    return geometry.squared_sines * (inverse[:-1] + inverse[1:]), mixed * inverse[1:-1]


def _check_min_norm(gram: BandedGram, min_norm: float | None) -> None:
    if min_norm is None:
        return
    if not (math.isfinite(min_norm) and min_norm > 0):
        raise ValueError(f"min_norm = {min_norm}; a finite number above 0 is needed")
    norms = np.sqrt(gram.squared_norms)
    for frame in np.flatnonzero(norms < min_norm * (1 - gram.error - 2 * UNIT_ROUNDOFF)):
        raise ValueError(
            f"frame {frame} has norm {norms[frame]:.9g}, below min_norm = {min_norm:.9g}: lower min_norm, or drop or rescale that frame"
        )


def certify_gram(gram: BandedGram, *, min_norm: float | None = None) -> CurvatureCertificate:
    """Certify the curvature of the temporal loss from inner products alone, so that the features need not be held.

    Args:
        gram: from `banded_gram`, or reduced by the caller as the features were captured.
        min_norm: m, if the caller relies on ||F_t|| >= m; a frame below it is refused.

    Returns:
        Bounds that hold for every set of features with these inner products, whatever its dimension. O(N^2) operations, none of the size
        of the features.

    Source: paper_notes.md, C1.certificate.

    Raises:
        ValueError: min_norm not positive and finite, or a frame below it (its index, its norm and the limit are named).
    """
    _check_min_norm(gram, min_norm)
    upper, downward, gauss_newton, margin = bounds_in_units(
        gram.squared_norms, gram.neighbours, gram.second_neighbours, gram.error, gram.cosine_errors
    )
    return CurvatureCertificate(
        upper=float(upper),
        lower=-float(downward),
        spectral=float(max(upper, downward)),
        gauss_newton=float(gauss_newton),
        margin=float(margin),
    )


def certify_curvature(
    features: Any, *, similarity: Literal["frame", "pixel"] = "frame", min_norm: float | None = None
) -> CurvatureCertificate:
    """Bounds on the curvature of the temporal loss at these features, in O(N d + N^2) operations and with no copy of the features.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array on any device, or an iterable of frames (see `banded_gram`).
            Large arrays of float32 are summed in float32, of products or of products of differences, where the rounding margin stays below
            1/32 of the certificate, else in float64. For "pixel" one array (frames, channels, height, width).
        similarity: cosine over whole frames, or over the channels of each pixel (`certify_pixels` returns the certificate of every pixel).
        min_norm: m, if the caller relies on ||F_t|| >= m (per pixel: on every pixel's channel vector); one that is shorter by more than the
            rounding of its computed norm, at most 7e-5 of it in float32, is refused.

    Returns:
        upper (lambda_max <= upper), lower, spectral (||Hess L|| <= spectral) and gauss_newton (the norm of the Gauss-Newton matrix), of the
        Hessian with respect to the features, in units of 1 / ||F||^2. Rounding is on the safe side of the bounds; gauss_newton is a value, and
        where neighbouring frames are parallel to 1e-7 and less rounding is all that is left of it.

    Source: paper_notes.md, C1.certificate.

    Raises:
        ValueError: not of a floating-point dtype, fewer than 3 frames, fewer than 2 features a frame, frames on different devices, a frame that
            is (almost) zero or holds NaN or infinity, two whose squared norms are more than 2^1000 apart, or one below min_norm; per pixel the
            same of a pixel's channel vector. The message names the frame (and the pixel), the value and the limit. An unknown similarity.
    """
    if similarity not in ("frame", "pixel"):
        raise ValueError(f"similarity = {similarity!r}; 'frame' or 'pixel' is needed")
    if similarity == "pixel":
        from theory.temporal_loss.pixel_certificate import certify_pixels  # it is built on this file

        return certify_pixels(features, min_norm=min_norm).whole
    if array_api_compat.is_array_api_obj(features):
        check_array(features)
        precision = advised_precision(features)
        if precision != "double":
            certificate = certify_gram(banded_gram(features, precision=precision), min_norm=min_norm)
            if certificate.margin <= WORTH_REREADING * min(certificate.upper, certificate.spectral):
                return certificate
    return certify_gram(banded_gram(features), min_norm=min_norm)


def _two_ends(frames: Any) -> tuple[Any, Any]:
    hessian = instances.dense_hessian(frames)
    return (instances.extreme_eigenvalue(hessian, largest_magnitude=magnitude) for magnitude in (False, True))


def _measured(instance: Instance):
    upper, spectral = _two_ends(instance["frames"])
    # Radial directions are null vectors of the form, so lambda_max >= 0; rounding may leave it just below.
    return jnp.where(instance["two_sided"], spectral, jnp.maximum(upper, 0.0))


def _certified(instance: Instance) -> tuple[Any, Any, Any, Any]:
    error = relative_budget(instance["frames"].shape[1])
    products = (instance[name] for name in ("squared_norms", "neighbours", "second_neighbours"))
    return _bounds(jnp, *products, error, (error_of_cosines(error),) * 2)


def _oracle_rounding(instance: Instance):
    """How far the dense Hessian may be off: its terms, of size C_N / min r_t^2, cancel to whatever the curvature is."""
    num_frames, dimension = instance["frames"].shape
    operations = instances.operations(num_frames=num_frames, dimension=dimension)
    return relative_budget(operations) * hessian_constant(num_frames) / jnp.min(instance["squared_norms"])


def _compared(certified: Callable[[Instance], Any]) -> Callable[[Instance], Any]:
    return lambda instance: certified(instance) + _oracle_rounding(instance)


def _chosen_side(instance: Instance):
    upper, downward, _, _ = _certified(instance)
    return jnp.where(instance["two_sided"], jnp.maximum(upper, downward), upper)


_bound = _compared(_chosen_side)


def _with_gram(frames: Any, two_sided: Any) -> Instance:
    return {
        "frames": frames,
        "squared_norms": jnp.sum(frames**2, axis=1),
        "neighbours": jnp.sum(frames[:-1] * frames[1:], axis=1),
        "second_neighbours": jnp.sum(frames[:-2] * frames[2:], axis=1),
        "two_sided": two_sided,
    }


def draw(key: jax.Array, *, num_frames: int, dimension: int) -> Parameters:
    """Random frames, collinear to generic, and whether lambda_max or the norm is compared."""
    frames_key, side_key = jax.random.split(key)
    return {
        **instances.draw(frames_key, num_frames=num_frames, dimension=dimension),
        "side": jax.random.normal(side_key),
    }


def instance_of(parameters: Parameters, *, num_frames: int, dimension: int) -> Instance:
    """Frames with their inner products; the norm is compared where the side is positive, lambda_max elsewhere."""
    frames = instances.instance(parameters, num_frames=num_frames, dimension=dimension)["frames"]
    return _with_gram(frames, parameters["side"] > 0)


def witness(*, num_frames: int, dimension: int) -> Instance:
    """Collinear frames with alternating similarities, where the certificate is attained."""
    return _with_gram(jnp.asarray(extremal_frames(num_frames, dimension)), jnp.asarray(True))


def witness_parameters(*, num_frames: int, dimension: int) -> Parameters:
    return {**instances.parameters_of(extremal_frames(num_frames, dimension)), "side": jnp.asarray(1.0)}


SIZES: tuple[Size, ...] = ((("num_frames", 4), ("dimension", 3)),)
"""One size, for the sake of compilation: other numbers of frames and dimensions are in test_certificate.py."""

PROBLEM = Problem(
    sizes=SIZES,
    draw=draw,
    instance=instance_of,
    measured=_measured,
    bound=_bound,
    operations=instances.operations,
)


def _inner_products_of_others() -> Outcome:
    size = SIZES[0]
    instance = dict(witness(**dict(size)))
    instance["frames"] = instance["frames"] / 2
    return PROBLEM.outcome(instance, size, "inner products recorded before the frames were halved")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, size, instance in instances.frame_instances(evidence):
        for side, two_sided in (("norm", True), ("lambda_max", False)):
            compared = _with_gram(instance["frames"], jnp.asarray(two_sided))
            outcomes.append(PROBLEM.outcome(compared, size, f"{label}, {side}"))
    return outcomes


MARGIN = 1.25
"""How far above the certificate of the features before a recorded step the curvature after it may lie: chosen."""


def _after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for label, before, after in recorded.first_steps(evidence):
        certified = certify_curvature(before)
        upper, spectral = _two_ends(jnp.asarray(instances.reduce_frames(after)))
        outcomes.append(recorded.compared(f"{label}, lambda_max", float(upper), MARGIN * certified.upper))
        outcomes.append(recorded.compared(f"{label}, norm", float(spectral), MARGIN * certified.spectral))
    return outcomes


def _orthogonal_second_neighbours(instance: Instance):
    return _bound({**instance, "second_neighbours": 0 * instance["second_neighbours"]})


CLAIM = Claim(
    id="C1.certificate",
    title="Certificate of curvature for given features",
    statement=(
        "Norms, neighbouring similarities and second-neighbour cosines of N frames determine bounds on the largest "
        "eigenvalue and on the norm of "
        "the Hessian of the temporal loss, and the exact norm of its Gauss-Newton part."
    ),
    latex=(
        r"\lambda_{\max}(\nabla^2 L) \le \min_\theta \lambda_{\max}\bigl(k J^\top D^\top D J + A(y, s, c) + |y|\,Y(\theta)\bigr),\quad "
        r"\|k J^\top D^\top D J\| = k\,\lambda_{\max}(D J J^\top D^\top)"
    ),
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "No frame is zero."),
        Hypothesis("H3", "The inner products are those of the frames."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.UPPER,
    origin="not in the paper",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "largest eigenvalue, or norm, of the Hessian of the temporal loss in the features, in units of 1 / (feature "
        "norm)^2"
    ),
    bound_in_words=(
        "the certificate computed from norms and inner products at distance 1 and 2, in the same units, with what it "
        "holds for rounding"
    ),
    sharpness=(
        "attained by collinear frames with similarities 1, -1, 1, .., so no factor below 1 can be put in front; "
        "elsewhere an upper bound"
    ),
    necessity={"H3": _inner_products_of_others},
    definitional={
        "H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value",
        "H2": "at a zero frame the loss is not defined",
    },
    planted={
        "certificate x 0.98": _compared(lambda instance: 0.98 * _chosen_side(instance)),
        "Gauss-Newton norm alone": _compared(lambda instance: _certified(instance)[2]),
        "bound on lambda_max for both ends": _compared(lambda instance: _certified(instance)[0]),
        "second neighbours taken as orthogonal": _orthogonal_second_neighbours,
    },
    reality=(
        Comparison(
            question=(
                "Are ||Hess L|| and lambda_max(Hess L) at the UNet's features at most what their inner products "
                "certify?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.certificate; the inner products are those of the recorded features",
        ),
        Comparison(
            question=(
                "Does what the inner products of the features before a recorded step of training certify cover lambda_max and norm of the "
                "Hessian at the features after the step, layer by layer, to within a quarter?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_after_a_step,
        ),
    ),
    lemmas=("Young", "M-matrices have positive inverses", "backward stability of the symmetric eigensolver (LAPACK)"),
    floor=0.999,
    floor_reason=(
        "attained by collinear frames with alternating similarities, where the search ends; the rounding margin is "
        "below 1e-5 there"
    ),
)
