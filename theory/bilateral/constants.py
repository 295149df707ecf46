r"""The filter's constants, for every odd kernel and every spatial width, and what several theorems say in common.

With g(k) = exp(-k^2 / (2 sigma_spatial^2)), h = (kernel_size - 1) / 2, G = 2 (g(1) + .. + g(h)) and Lambert's W,

    lambda = 2 W(G e^{-3/2})      the largest share of a frame's derivatives that is negative
    K = s / sqrt(1 + s),  s = 2 W(G / (2 sqrt e))      the largest change of a value, in range widths

Nothing here depends on sigma_range beyond a factor, since B_sigma(x) = sigma B_1(x / sigma).
"""

import math
from typing import Any

import array_api_compat
import numpy as np
from scipy.special import lambertw

from theory.bilateral.filter import check_settings, spatial_weights


def check_sigma_range(sigma_range: Any) -> None:
    """Refuse a range width that gives no finite bound.

    Raises:
        ValueError: an entry that is NaN, infinite or not positive.
    """
    values = np.asarray(sigma_range, dtype=np.float64)
    bad = values[~((values > 0) & np.isfinite(values))]
    if bad.size:
        raise ValueError(f"sigma_range = {bad.flat[0]}; a finite number > 0 is needed for a bound in its units")


def neighbour_weight(kernel_size: int = 5, sigma_spatial: float = 1.0) -> float:
    """G, the spatial weights of a window without its middle.

        G = 2 sum_{k=1}^{h} exp(-k^2 / (2 sigma_spatial^2))

    Raises:
        ValueError: settings that define no filter.
    """
    check_settings(1.0, sigma_spatial, kernel_size, "reflect")
    return 2 * math.fsum(spatial_weights(kernel_size, sigma_spatial))


def negative_share(weight: float) -> float:
    """lambda = 2 W(G e^{-3/2}), the root of max_u exp(-u^2 / 2) (u^2 - 1 - lambda) = lambda / G."""
    return 2 * float(lambertw(weight * math.exp(-1.5)).real)


def largest_change(weight: float) -> float:
    """K = s / sqrt(1 + s), s = 2 W(G / (2 sqrt e)): the root of max_u exp(-u^2 / 2) (u - K) = K / G."""
    root = 2 * float(lambertw(weight / (2 * math.sqrt(math.e))).real)
    return root / math.sqrt(1 + root)


def lipschitz_constant(kernel_size: int = 5, sigma_spatial: float = 1.0) -> float:
    """The filter's exact Lipschitz constant in the maximum norm, for every sigma_range in (0, infinity).

        1 + 2 lambda = 1 + 4 W(G e^{-3/2});  2.0249284 for the public code's kernel of 5 and sigma_spatial of 1

    It is attained from kernel_size frames on; fewer have a smaller one. In the l_2 norm see `euclidean_bound`.

    Raises:
        ValueError: settings that define no filter.

    Source: paper_notes.md, C4.lipschitz.
    """
    return 1 + 2 * negative_share(neighbour_weight(kernel_size, sigma_spatial))


def defect_bound(sigma_range: Any, kernel_size: int = 5, sigma_spatial: float = 1.0, *, monotone: bool = False) -> Any:
    """The most that filtering can change any value: |B(x)_i - x_i| <= K sigma_range, the best constant.

        K = s / sqrt(1 + s),  s = 2 W(G / (2 sqrt e));  0.5061296 for kernel 5 and sigma_spatial 1
        with `monotone`  K = G / (1 + G);  0.5973801, which is approached and not attained

    Args:
        sigma_range: number or array (NumPy, JAX, PyTorch), in the units of the values.

    Returns:
        Of the same kind and units. In the l_2 norm over N frames it is at most sqrt(N) times as much.

    Raises:
        ValueError: settings that define no filter; a sigma_range that is not finite and positive.

    Source: paper_notes.md, C4.defect and C4.monotone.
    """
    check_sigma_range(_host(sigma_range))
    weight = neighbour_weight(kernel_size, sigma_spatial)
    return (weight / (1 + weight) if monotone else largest_change(weight)) * sigma_range


def _host(value: Any) -> Any:
    """The values of an array of any framework, for a check; a scalar as it is."""
    if array_api_compat.is_torch_array(value):
        return value.detach().cpu().numpy()
    return value
