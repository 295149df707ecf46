"""What one-step defects can grow to: the sum behind every bound on a round trip, and its growth factors.

Source: paper_notes.md, C3.any-inversion.
"""

from typing import Any

import numpy as np

from theory.inversion.schedule import as_vector, check_noise_levels, is_traced, refuse_first


def round_trip_bound(defects: Any, growth: Any) -> Any:
    """The round-trip error that given defects can cause at most.

        sum_k defects[k] prod_{j<k} growth[j]

    Args:
        defects: (num_steps,) norms ||d_k|| >= 0; k = 0 is the step nearest the data.
        growth: (num_steps,) factor >= 0 by which sampling step k can enlarge an error, for example 1 + h_k L_{k+1}. The
            last entry belongs to the first sampling step, which starts without error, and does not enter.

    Returns:
        A float64 scalar array of the same kind (NumPy, JAX or PyTorch).

    Raises:
        ValueError: sizes that differ; an entry negative, NaN or infinite; a bound above the largest float.

    Source: paper_notes.md, C3.round-trip.
    """
    defects, xp = as_vector("defects", defects)
    growth, growth_namespace = as_vector("growth", growth)
    if defects.shape != growth.shape:
        raise ValueError(
            f"{defects.shape[0]} defects and {growth.shape[0]} growth factors were given; one of each is needed per "
            "step"
        )
    if growth_namespace is not xp:
        raise ValueError(
            f"defects are a {type(defects).__name__}, growth a {type(growth).__name__}; pass arrays of one kind"
        )
    if not is_traced(defects, growth):
        refuse_first("defect", defects, defects < 0, "a norm is at least 0")
        refuse_first("growth", growth, growth < 0, "a factor is at least 0")
    with np.errstate(over="ignore", invalid="ignore"):
        weights = (
            xp.concat([xp.ones_like(growth[:1]), xp.cumulative_prod(growth[:-1])])
            if growth.shape[0] > 1
            else xp.ones_like(growth)
        )
        total = xp.sum(defects * weights)
    if not is_traced(total) and not bool(xp.isfinite(total)):
        refuse_first(
            "product of the growth factors",
            weights,
            ~xp.isfinite(defects * weights),
            f"the bound exceeds the largest float {np.finfo(np.float64).max:.3g}: use more local growth factors",
        )
        raise ValueError(
            f"the bound is {float(total)}, above the largest float {np.finfo(np.float64).max:.3g}; rescale the defects"
        )
    return total


def step_growth(sigmas: Any, lipschitz: Any) -> Any:
    """1 + h_k L_{k+1}, the growth factors of bound A.

    Args:
        sigmas: (num_steps + 1,) increasing noise levels.
        lipschitz: (num_steps + 1,) Lipschitz constant of the predictor at each level, in the variable y; that of level
            0 does not enter.

    Raises:
        ValueError: noise levels that do not increase; sizes that differ; a negative constant.
    """
    check_noise_levels(sigmas)
    sigmas, _ = as_vector("noise levels", sigmas)
    lipschitz, _ = as_vector("Lipschitz constants", lipschitz)
    if sigmas.shape != lipschitz.shape:
        raise ValueError(
            f"{sigmas.shape[0]} noise levels and {lipschitz.shape[0]} Lipschitz constants were given; one per level is "
            "needed"
        )
    if not is_traced(lipschitz):
        refuse_first("Lipschitz constant", lipschitz, lipschitz < 0, "it must be at least 0", label="level")
    return 1 + (sigmas[1:] - sigmas[:-1]) * lipschitz[1:]
