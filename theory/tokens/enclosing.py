"""Least norms and enclosing balls over convex hulls, by an active set, with both ends certified."""

from collections.abc import Callable

import numpy as np

from theory.rounding import relative_budget

MAX_ITERATIONS = 2000


class Bracketed(float):
    """A least value as a float, with a certified bracket around the exact one.

    The float is the value at the point that was found; rounding is not added to it, so it may lie outside the bracket
    by rounding only.

    Attributes:
        lower: proved lower end, from a dual point, rounded down.
        upper: proved upper end, from the point itself, rounded up.
        point: (width,) float64, where the value is taken.
        multipliers: (count,) float64 of sum 1, the convex combination that makes `point`; what it is a combination of,
            the function that returns it says.
    """

    lower: float
    upper: float
    point: np.ndarray
    multipliers: np.ndarray

    def __new__(
        cls, value: float, lower: float, upper: float, point: np.ndarray, multipliers: np.ndarray
    ) -> "Bracketed":
        made = super().__new__(cls, value)
        made.lower, made.upper, made.point, made.multipliers = lower, upper, point, multipliers
        return made

    def __repr__(self) -> str:
        return f"{float(self):.9g} in [{self.lower:.17g}, {self.upper:.17g}]"


def rounding_slack(width: int, count: int, scale: float) -> float:
    """Absolute rounding of norms and inner products of `width` entries and sums of `count` terms, at operands of size
    `scale`."""
    return relative_budget(8 * (width + count) + 32) * scale


def _equality_point(atoms: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Multipliers of sum 1, of any sign, that minimise ||sum l_i a_i||^2 - sum l_i b_i."""
    if len(atoms) == 1:
        return np.ones(1)
    # x = a_0 + D mu with D^T x = (b_i - b_0)/2 for i >= 1, the stationarity in mu.
    differences = (atoms[1:] - atoms[0]).T
    inverse = np.linalg.pinv(differences)
    shares = inverse @ (inverse.T @ (offsets[1:] - offsets[0]) / 2 - atoms[0])
    return np.concatenate([[1 - shares.sum()], shares])


def minimise_over_hull(
    oracle: Callable[[np.ndarray], tuple[np.ndarray, float]], start: tuple[np.ndarray, float], tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise ||sum l_i a_i||^2 - sum l_i b_i over convex combinations l of atoms (a_i, b_i) that an oracle lists.

    Source: P. Wolfe, Finding the nearest point in a polytope, Mathematical Programming 11 (1976), with a linear term.

    Args:
        oracle: x -> the atom (a, b) that minimises 2 <x, a> - b.
        start: any atom.
        tolerance: a new atom must undercut the active ones by more than this.

    Returns:
        The active atoms (count, width) and their multipliers (count,).
    """
    atoms, offsets, multipliers = start[0][None, :], np.array([start[1]]), np.ones(1)
    for _ in range(MAX_ITERATIONS):
        point = multipliers @ atoms
        new, offset = oracle(point)
        if 2 * point @ new - offset >= np.max(2 * atoms @ point - offsets) - tolerance:
            break
        atoms, offsets, multipliers = np.vstack([atoms, new]), np.append(offsets, offset), np.append(multipliers, 0.0)
        while True:
            target = _equality_point(atoms, offsets)
            if np.all(target > 0):
                multipliers = target
                break
            # Walk towards the stationary point until a multiplier vanishes, and drop it.
            falling = target <= 0
            gaps = multipliers[falling] - target[falling]
            reach = np.min(np.divide(multipliers[falling], gaps, out=np.zeros_like(gaps), where=gaps > 0))
            multipliers = multipliers + min(reach, 1.0) * (target - multipliers)
            kept = multipliers > 0
            kept[np.argmin(np.where(falling, multipliers, np.inf))] = False
            if not kept.any():
                kept[np.argmax(multipliers)] = True
            atoms, offsets, multipliers = atoms[kept], offsets[kept], np.maximum(multipliers[kept], 0.0)
            multipliers = multipliers / multipliers.sum()
            if len(atoms) == 1:
                break
    return atoms, multipliers
