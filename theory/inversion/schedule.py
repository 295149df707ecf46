r"""Noise levels, and the variables in which a DDIM step is an explicit Euler step.

With abar_k the value of alphas_cumprod at level k (level 0 nearest the data) and x_k the latent,

    sigma_k = sqrt((1 - abar_k) / abar_k),   y_k = x_k / sqrt(abar_k) = x_k sqrt(1 + sigma_k^2),

DDIM without noise (eta = 0) is explicit Euler for dy/dsigma = eps.

Source: arXiv 2010.02502, equation (14); paper_notes.md, section "DDIM inversion: variables".
"""

from typing import Any

import array_api_compat
import jax
import numpy as np


def is_traced(*arrays: Any) -> bool:
    """Whether any of them stands for values that are not known yet, so that only shapes can be checked."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def as_vector(name: str, values: Any) -> tuple[Any, Any]:
    """`values` as a non-empty one-dimensional floating-point array, and its namespace. Sequences become NumPy float64.

    Raises:
        ValueError: another shape or dtype, or (where values are known) NaN or infinity; the message names the first
            offender.
    """
    array = values if array_api_compat.is_array_api_obj(values) else np.asarray(values)
    xp = array_api_compat.array_namespace(array)
    if not xp.isdtype(array.dtype, "numeric") or xp.isdtype(array.dtype, "complex floating"):
        raise ValueError(f"{name} have dtype {array.dtype}; real numbers are needed")
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(f"{name} have shape {tuple(array.shape)}; a non-empty one-dimensional array is needed")
    array = xp.astype(array, xp.float64)
    if not is_traced(array):
        refuse_first(name, array, ~xp.isfinite(array), "every value must be finite")
    return array, xp


def refuse_first(name: str, values: Any, bad: Any, limit: str, label: str = "step") -> None:
    """Raise ValueError naming the first entry of `values` at which `bad` is true, if there is one."""
    positions = np.flatnonzero(np.asarray(bad))
    if positions.size:
        first = int(positions[0])
        raise ValueError(f"{name} at {label} {first} is {float(values[first]):.6g}; {limit}")


def noise_levels(alphas_cumprod: Any) -> Any:
    """The noise levels of a schedule, from the data end to the noise end.

        sigma = sqrt((1 - abar) / abar)

    Args:
        alphas_cumprod: (levels,) in (0, 1], strictly decreasing; NumPy, JAX or PyTorch array, or a sequence.

    Returns:
        (levels,) float64, strictly increasing, of the same kind.

    Raises:
        ValueError: a value outside (0, 1], or one that does not lie below the value before it; the message gives the
            step, the value and the limit.
    """
    abar, xp = as_vector("alphas_cumprod", alphas_cumprod)
    if not is_traced(abar):
        refuse_first("alphas_cumprod", abar, (abar <= 0) | (abar > 1), "it must lie in (0, 1]")
        stalled = np.concatenate([[False], np.asarray(abar[1:] >= abar[:-1])])
        if stalled.any():
            step = int(np.argmax(stalled))
            raise ValueError(
                f"alphas_cumprod at step {step} is {float(abar[step]):.9g}, the one before it is "
                f"{float(abar[step - 1]):.9g}; it must be smaller, so that the noise level increases: order the levels "
                "from the data to the noise and drop repeated ones"
            )
    return xp.sqrt((1 - abar) / abar)


def check_noise_levels(sigmas: Any) -> None:
    """Raise ValueError unless the noise levels (levels,) are finite, not negative, at least two, and strictly
    increasing."""
    levels, _ = as_vector("noise levels", sigmas)
    if levels.shape[0] < 2:
        raise ValueError(f"{levels.shape[0]} noise level was given; at least 2 are needed for a step")
    if is_traced(levels):
        return
    refuse_first("noise level", levels, levels < 0, "it must not be negative")
    increments = levels[1:] - levels[:-1]
    refuse_first(
        "increment of the noise level",
        increments,
        increments <= 0,
        "noise levels must increase from the data to the noise",
    )
