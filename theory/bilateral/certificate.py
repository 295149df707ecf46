r"""A numerical certificate of the inequality behind the filter's constant in the l_2 norm, by branch and bound.

Let pi_k = g(k) / G be the neighbours' spatial weights, rho = exp(-u^2 / 2), alpha = rho (1 - u (u - F)), mu = lambda /
G, and E the mean over the neighbours of a window with weights pi. With m = mu (1 + G E rho) and F the window's mean, so
that

    E rho = (m - mu) / lambda,    E rho u = F m / lambda,    mu <= m <= mu + lambda,    |F| <= K,

the inequality to show is E alpha^2 - m E alpha <= (2 + slack) m^2. It follows for a pair (m, F), whatever the window,
from two numbers kappa, nu with

    alpha^2 - m alpha - kappa (rho - (m - mu) / lambda) - nu (rho u - F m / lambda) <= (2 + slack) m^2

for every real u. F >= 0 is enough, by the change of sign of u. The rectangle of all (m, F) is covered by boxes, on each
of which a linear program proposes kappa and nu, and the inequality is checked at every u of a grid for the whole box,
by its derivatives in m and F, and between the grid's points by a bound on its second derivative in u. Arithmetic is
float64 with `MARGIN` to spare, which is more than a hundred times its rounding.
"""

import dataclasses
import math

import numpy as np
from scipy.optimize import linprog

from theory.bilateral.constants import largest_change, negative_share

FARTHEST = 8.0
SPACING = 0.01
MARGIN = 1e-9
"""Covers the rounding of some 30 operations on numbers of at most 1000, and the tail |u| > 8, where rho and its
multiples are below 1e-11."""
LARGEST_MULTIPLIER = 20.0
MAXIMUM_BOXES = 1_000
GRID = np.arange(-FARTHEST, FARTHEST + SPACING / 2, SPACING)
RHO = np.exp(-(GRID**2) / 2)
COARSE = slice(None, None, 10)


@dataclasses.dataclass(frozen=True)
class Box:
    """m within `half_m` of `m`, F within `half_f` of `mean`."""

    m: float
    half_m: float
    mean: float
    half_f: float

    def split(self) -> tuple["Box", ...]:
        return tuple(
            Box(self.m + i * self.half_m / 2, self.half_m / 2, self.mean + j * self.half_f / 2, self.half_f / 2)
            for i in (-1, 1)
            for j in (-1, 1)
        )


def _propose(box: Box, share: float, weight: float) -> tuple[float, float]:
    """kappa and nu that are best at the middle of the box, on a coarse grid."""
    u, rho = GRID[COARSE], RHO[COARSE]
    alpha = rho * (1 - u * (u - box.mean))
    mean_rho, mean_rho_u = (box.m - share / weight) / share, box.mean * box.m / share
    above = np.append(alpha**2 - box.m * alpha, 0.0)
    rows = np.column_stack(
        [-(np.append(rho, 0.0) - mean_rho), -(np.append(rho * u, 0.0) - mean_rho_u), -np.ones(len(above))]
    )
    limits = [(-LARGEST_MULTIPLIER, LARGEST_MULTIPLIER)] * 2 + [(None, None)]
    found = linprog([0, 0, 1], A_ub=rows, b_ub=-above, bounds=limits, method="highs")
    return float(found.x[0]), float(found.x[1])


def _largest(box: Box, kappa: float, nu: float, slack: float, share: float, weight: float) -> float:
    """An upper bound, over the box and all u, of the left side less the right one."""
    m, f, dm, df = box.m, box.mean, box.half_m, box.half_f
    # The last entry stands for |u| > 8, where rho, rho u and alpha vanish but for what MARGIN covers.
    rho, rho_u = np.append(RHO, 0.0), np.append(RHO * GRID, 0.0)
    alpha = np.append(RHO * (1 - GRID**2), 0.0) + f * rho_u
    middle = (
        alpha**2
        - m * alpha
        - kappa * (rho - (m - share / weight) / share)
        - nu * (rho_u - f * m / share)
        - (2 + slack) * m * m
    )
    # The exact expansion in m and F: linear terms, then products; the square of dm enters with a minus and is left out.
    by_m = np.abs(-alpha + (kappa + nu * f) / share - 2 * (2 + slack) * m) * dm
    by_f = np.abs((2 * alpha - m) * rho_u + nu * m / share) * df
    products = rho_u**2 * df * df + (np.abs(rho_u) + abs(nu) / share) * dm * df
    # Between two points of the grid: spacing^2 / 8 times the second derivative in u, with |rho'| <= 0.61, |rho''| <= 1,
    # |(rho u)'| <= 1, |(rho u)''| <= 1.39, and for rho (1 - u^2): first derivative at most 1.39, second at most 3.
    mean = f + df
    size, slope, bend = 1 + mean, 1.39 + mean, 3 + 1.39 * mean
    second = 2 * slope**2 + (2 * size + m + dm) * bend + abs(kappa) + 1.39 * abs(nu)
    return float(np.max(middle + by_m + by_f + products)) + SPACING**2 / 8 * second + MARGIN


def certify(slack: float, weight: float) -> int:
    """Prove the inequality of this module for a kernel whose neighbours weigh G.

    Args:
        slack: by how much the 2 of the inequality is enlarged; the work grows as it falls, and at 0 there is no strict
            inequality to prove.
        weight: G.

    Returns:
        How many boxes were proved.

    Raises:
        ArithmeticError: more than MAXIMUM_BOXES boxes were needed; the inequality may be false there, or the slack too
            small.
    """
    share, largest = negative_share(weight), largest_change(weight)
    root = Box(share / weight + share / 2, share / 2, largest / 2, largest / 2)
    waiting, proved = [(root, (0.0, 0.0))], 0
    while waiting:
        box, multipliers = waiting.pop()
        if _largest(box, *multipliers, slack, share, weight) > 0:
            multipliers = _propose(box, share, weight)
            if _largest(box, *multipliers, slack, share, weight) > 0:
                waiting += [(part, multipliers) for part in box.split()]
                if proved + len(waiting) > MAXIMUM_BOXES:
                    raise ArithmeticError(
                        f"{proved} boxes proved and {len(waiting)} left, the last around m = {box.m:.6g}, F = "
                        f"{box.mean:.6g}; the inequality is false there or slack = {slack:g} is too small: enlarge it"
                    )
                continue
        proved += 1
    return proved


def euclidean_factor(slack: float, share: float) -> float:
    """What the slack costs: (1 + 2 lambda)^2 becomes (1 + 2 lambda) (1 + (2 + slack) lambda); the root of their
    quotient."""
    return math.sqrt((1 + (2 + slack) * share) / (1 + 2 * share))
