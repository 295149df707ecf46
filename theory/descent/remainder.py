"""How far the sharpness of the temporal loss may be from that of its Gauss-Newton part, from the inner products of the features."""

from typing import Any

import numpy as np

from theory.temporal_loss import instances
from theory.temporal_loss.gram import banded_gram


def turning(xp: Any, squared_norms: Any, neighbours: Any, second_neighbours: Any) -> tuple[Any, Any, Any, Any]:
    """s (N - 1,), y (N - 1,), sig (N,) and r_t^2 ||grad_t L||^2 (N,) from inner products, in NumPy or JAX."""
    num_frames = squared_norms.shape[0]
    norms = xp.sqrt(squared_norms)
    cosines = neighbours / (norms[:-1] * norms[1:])
    sines = xp.maximum(1 - cosines**2, 0.0)
    difference = np.diff(np.eye(num_frames - 1), axis=0)
    slopes = 2 / (num_frames - 2) * (difference.T @ (difference @ cosines))
    zero = xp.zeros(1)
    before, after = xp.concat([zero, slopes]), xp.concat([slopes, zero])
    # <u_{t-1} - s_{t-1} u_t, u_{t+1} - s_t u_t>
    mixed = second_neighbours / (norms[:-2] * norms[2:]) - cosines[:-1] * cosines[1:]
    pull = before**2 * xp.concat([zero, sines]) + after**2 * xp.concat([sines, zero])
    pull = xp.maximum(pull + 2 * before * after * xp.concat([zero, mixed, zero]), 0.0)
    return cosines, slopes, before * xp.concat([zero, cosines]) + after * xp.concat([cosines, zero]), pull


def band(xp: Any, squared_norms: Any, neighbours: Any, second_neighbours: Any) -> tuple[Any, Any]:
    """a(F) and ||grad_F L||^2 from inner products."""
    norms = xp.sqrt(squared_norms)
    _, slopes, leaning, pull = turning(xp, squared_norms, neighbours, second_neighbours)
    squared = leaning**2 + 4 * pull
    positive = squared > 0
    blocks = (xp.abs(leaning) + xp.where(positive, xp.sqrt(xp.where(positive, squared, 1.0)), 0.0)) / (2 * squared_norms)
    coupling = xp.abs(slopes) / (norms[:-1] * norms[1:])
    matrix = xp.diag(blocks) + xp.diag(coupling, 1) + xp.diag(coupling, -1)
    top = np.linalg.eigvalsh(matrix)[-1] if xp is np else instances.extreme_eigenvalue(matrix, largest_magnitude=False)
    return top, xp.sum(pull / squared_norms)


def gauss_newton_remainder(features: Any, *, jacobian_norm: float = 1.0, curvature_norm: float = 0.0) -> float:
    """How far the sharpness of the temporal loss may be from its Gauss-Newton sharpness.

        J^2 a(F) + H ||grad_F L||

    With the defaults the parameters are the features themselves. For a network J and H have to be known; measured from a few directions they
    make the number an estimate.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array, at least 3 frames, none of them zero.
        jacobian_norm, curvature_norm: J and H, bounds on the norms of the first and second derivative of the map from parameters to features.

    Source: paper_notes.md, C2.gauss-newton.

    Raises:
        ValueError: bad features (see `theory.temporal_loss.certify_curvature`); J or H negative or not finite.
    """
    for name, value in (("jacobian_norm", jacobian_norm), ("curvature_norm", curvature_norm)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} = {value}; a finite number of at least 0 is needed")
    gram = banded_gram(features)
    top, squared = band(np, gram.squared_norms, gram.neighbours, gram.second_neighbours)
    return float(jacobian_norm**2 * top + curvature_norm * np.sqrt(squared))
