r"""ESTIMATES of the round-trip error to first order in the defects: theorems only where the Jacobian is constant.

From E_k = (I - h_k \bar A_{k+1}) E_{k+1} - d_k, with the average Jacobian \bar A_{k+1} replaced by J_{k+1}(z_{k+1}),

    E_0 \approx -\sum_k P_{0k} d_k, \qquad P_{0k} = (I - h_0 J_1) (I - h_1 J_2) \cdots (I - h_{k-1} J_k),

exact if every J_{k+1} is constant on the segment from z_{k+1} to w_{k+1} (M = 0, as on Gaussian data), and in general
off by terms of second order in the error. Nothing here is a bound: the error can be larger than ||sum P d|| and larger
than sum ||P d|| (test_first_order.py has an instance). For a bound use tube.tube_bound.

A linear functional of the error costs one adjoint sweep, without forming any matrix: lambda_0 = l, lambda_{k+1} = (I -
h_k J_{k+1}^T) lambda_k, and <l, E_0> is about -sum_k <lambda_k, d_k>, each term the share of its step.

Source: paper_notes.md, C3.tube.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from theory.inversion.schedule import check_noise_levels


def _checked(sigmas: Any, defects: Any) -> tuple[np.ndarray, np.ndarray]:
    check_noise_levels(sigmas)
    steps, defects = np.diff(np.asarray(sigmas, dtype=np.float64)), np.asarray(defects, dtype=np.float64)
    if defects.ndim != 2 or len(defects) != len(steps):
        raise ValueError(
            f"defects have shape {defects.shape}; ({len(steps)}, dimension) is needed for {len(steps) + 1} noise levels"
        )
    return steps, defects


def first_order_terms(sigmas: Any, jacobians: Any, defects: Any) -> np.ndarray:
    """ESTIMATE: what the defect of each step contributes to E_0, to first order.

        -P_{0k} d_k,   P_{0k} = prod_{j<k} (I - h_j J_{j+1})

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        jacobians: (num_steps, dimension, dimension) J_{k+1} at z_{k+1}.
        defects: (num_steps, dimension) d_k.

    Returns:
        (num_steps, dimension); their sum estimates E_0. Exact where the Jacobians are constant; no bound anywhere else.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ.
    """
    steps, defects = _checked(sigmas, defects)
    jacobians = np.asarray(jacobians, dtype=np.float64)
    num_steps, dimension = defects.shape
    if jacobians.shape != (num_steps, dimension, dimension):
        raise ValueError(f"jacobians have shape {jacobians.shape}; {(num_steps, dimension, dimension)} is needed")
    terms = -defects
    # From the noise down: step j acts on all that was committed above it.
    for step in reversed(range(num_steps - 1)):
        terms[step + 1 :] -= steps[step] * terms[step + 1 :] @ jacobians[step].T
    return terms


def adjoint_terms(
    sigmas: Any, transposed: Callable[[int, np.ndarray], np.ndarray], defects: Any, functional: Any
) -> np.ndarray:
    """ESTIMATE: what the defect of each step contributes to <l, E_0>, to first order, by one adjoint sweep.

        -<lambda_k, d_k>,   lambda_0 = l,   lambda_{k+1} = lambda_k - h_k J_{k+1}^T lambda_k

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        transposed: (step, vector) -> J_{step+1}(z_{step+1})^T vector; called once per step but the last.
        defects: (num_steps, dimension) d_k.
        functional: (dimension,) l.

    Returns:
        (num_steps,); their sum estimates <l, E_0>. Exact where the Jacobians are constant; no bound anywhere else.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ.
    """
    steps, defects = _checked(sigmas, defects)
    adjoint = np.asarray(functional, dtype=np.float64)
    if adjoint.shape != defects.shape[1:]:
        raise ValueError(f"functional has shape {adjoint.shape}; {defects.shape[1:]} is needed")
    terms = np.empty(len(steps))
    for step in range(len(steps)):
        terms[step] = -adjoint @ defects[step]
        if step + 1 < len(steps):
            adjoint = adjoint - steps[step] * np.asarray(transposed(step, adjoint))
    return terms
