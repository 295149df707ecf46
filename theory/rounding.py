"""Rounding budgets: how far a computed value may lie from the exact one, derived and not chosen.

Every comparison of a measured value with a bound allows the relative slack `relative_budget(n)`, where n counts the floating-point
operations on the longest chain from the inputs to the value, at the size of the operands (not of the result).
"""

import numpy as np

UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2


def relative_budget(operations: int, unit_roundoff: float = UNIT_ROUNDOFF) -> float:
    """Bound on the relative error of a chain of roundings.

        gamma_n = n u / (1 - n u)

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1.

    Raises:
        ValueError: if n is not positive, or so large that n u >= 1 and no budget exists.
    """
    if operations <= 0 or operations * unit_roundoff >= 1:
        raise ValueError(
            f"operations = {operations} must lie in [1, {1 / unit_roundoff:.3g}): count the roundings on the longest chain"
        )
    return operations * unit_roundoff / (1 - operations * unit_roundoff)
