r"""The bilateral filter across frames, defined once for NumPy, JAX and PyTorch.

With x_1, .., x_N the values of one entry in N frames, h = (kernel_size - 1) / 2 and a padding that names the frames
beyond the ends, frame i becomes

    y_i = sum_{|k| <= h} w_k x_{i+k} / sum_{|k| <= h} w_k,    w_k = g(k) rho(x_{i+k} - x_i)
    g(k) = exp(-k^2 / (2 sigma_spatial^2)),    rho(d) = exp(-d^2 / (2 sigma_range^2))

so a neighbouring frame counts less the more it differs, entry by entry: the weights are scalars and no entry sees
another one.

Source: C. Tomasi and R. Manduchi, Bilateral filtering for gray and color images, ICCV 1998, along one axis. The public
code of arXiv 2501.04606 applies it to self-attention outputs along the frames, with kernel_size = 5, sigma_spatial =
sigma_range = 1 and reflect padding.
"""

import math
from typing import Any, Literal

import array_api_compat
import jax
import numpy as np

Padding = Literal["reflect", "symmetric", "circular"]
_NUMPY_MODES = {"reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
_FARTHEST = 64.0
"""exp(-64^2 / 2) is 0 in every dtype; a difference of more range widths has weight 0 and derivative 0 already."""


def check_settings(sigma_range: float, sigma_spatial: float, kernel_size: int, padding: str) -> None:
    """Refuses settings that define no filter.

    Raises:
        ValueError: a width that is NaN or not positive; kernel_size not an odd integer of at least 3; an unknown
            padding.
    """
    for name, width in (("sigma_range", sigma_range), ("sigma_spatial", sigma_spatial)):
        if not width > 0:
            raise ValueError(f"{name} = {width}; a positive number is needed, for example 1 (infinity weighs alike)")
    whole = isinstance(kernel_size, int | np.integer) and not isinstance(kernel_size, bool)
    if not (whole and kernel_size >= 3 and kernel_size % 2):
        raise ValueError(
            f"kernel_size = {kernel_size}; an odd integer of at least 3 is needed, so that a frame lies in the middle "
            "of its window; 5 is usual"
        )
    if padding not in _NUMPY_MODES:
        raise ValueError(f"padding = {padding!r}; {', '.join(map(repr, _NUMPY_MODES))} is needed")


def _check_frames(x: Any, kernel_size: int, padding: str) -> Any:
    """The array namespace of the frames, after checking them."""
    if not array_api_compat.is_array_api_obj(x):
        raise ValueError(f"x is a {type(x).__name__}; pass one NumPy, JAX or PyTorch array, frames first")
    xp = array_api_compat.array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise ValueError(f"x has dtype {x.dtype}; a real floating-point dtype is needed, convert it first")
    if x.ndim < 1 or math.prod(x.shape) == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; (frames, ...) with no empty axis is needed")
    needed = kernel_size // 2 + 1
    if padding == "reflect" and x.shape[0] < needed:
        raise ValueError(
            f"{x.shape[0]} frames were given; reflect padding of a window of {kernel_size} needs at least {needed}: "
            "give more frames, a smaller kernel_size, or padding='symmetric'"
        )
    if not isinstance(x, jax.core.Tracer):
        _check_values(xp, x, kernel_size)
    return xp


def _check_values(xp: Any, x: Any, kernel_size: int) -> None:
    # Beyond it the differences, or their sum over a window, can overflow.
    largest = float(xp.finfo(x.dtype).max) / (2 * kernel_size)
    good = xp.abs(x) <= largest
    if bool(xp.all(good)):
        return
    position = int(xp.argmax(xp.reshape(xp.astype(~good, xp.int64), (-1,))))
    value = float(xp.reshape(x, (-1,))[position])
    raise ValueError(
        f"frame {position // (math.prod(x.shape) // x.shape[0])} holds {value:g}; finite values of size at most "
        f"{largest:.3g} are needed: repair or rescale that frame"
    )


def bilateral_filter(
    x: Any,
    *,
    sigma_range: float,
    sigma_spatial: float = 1.0,
    kernel_size: int = 5,
    padding: Padding = "reflect",
) -> Any:
    """The bilateral filter along the frames (axis 0), every entry by itself.

        y_i = sum_k w_k x_{i+k} / sum_k w_k
        w_k = exp(-k^2 / (2 sigma_spatial^2) - (x_{i+k} - x_i)^2 / (2 sigma_range^2))

    Args:
        x: (frames, ...) floating-point NumPy, JAX or PyTorch array. Half precision is computed in float32 and rounded.
        sigma_range: width of the weights in the values, in the units of x; infinity is the linear filter of the
            spatial weights alone.
        sigma_spatial: width of the weights in time, in frames.
        kernel_size: frames in a window, odd.
        padding: the frames beyond the ends. "reflect" mirrors at the end frames and does not repeat them (needs
            kernel_size // 2 + 1 frames), "symmetric" repeats them, "circular" goes on at the other end.

    Returns:
        Same shape, kind, dtype and device; differentiable by the array's own framework. Frames that are all equal come
        back bit for bit.

    Raises:
        ValueError: see `check_settings`; a sigma_range that the dtype cannot divide by; x no floating-point array,
            empty, with too few frames, or (where there are values: not under a JAX transformation) NaN, infinite, or
            within a factor 2 kernel_size of the dtype's largest number. The message names the first offender.
    """
    check_settings(sigma_range, sigma_spatial, kernel_size, padding)
    xp = _check_frames(x, kernel_size, padding)
    wide = xp.astype(x, xp.float32, copy=False) if xp.finfo(x.dtype).bits < 32 else x
    range_of = xp.finfo(wide.dtype)
    least, largest = float(range_of.smallest_normal), float(range_of.max)
    if not (least <= sigma_range <= largest or math.isinf(sigma_range)):
        raise ValueError(
            f"sigma_range = {sigma_range}; {wide.dtype} divides by numbers from {least:.3g} to {largest:.3g}, or "
            "infinity: rescale x with it"
        )
    half, count = kernel_size // 2, x.shape[0]
    indices = np.pad(np.arange(count), half, mode=_NUMPY_MODES[padding]).tolist()
    before, after = (
        [wide[index : index + 1, ...] for index in part] for part in (indices[:half], indices[half + count :])
    )
    padded = xp.concat([*before, wide, *after], axis=0)
    # Sums of differences and not of values, so that equal frames stay equal to the last bit; the frame itself has
    # weight 1 and difference 0.
    total, moved = xp.ones_like(wide), xp.zeros_like(wide)
    for offset in range(-half, half + 1):
        if offset == 0:
            continue
        difference = padded[half + offset : half + offset + count, ...] - wide
        # Clipping leaves the weights as they are and keeps infinity out of their derivatives.
        widths = xp.clip(difference / sigma_range, -_FARTHEST, _FARTHEST)
        apart = offset / sigma_spatial
        weights = math.exp(-apart * apart / 2) * xp.exp(-widths * widths / 2)
        total = total + weights
        moved = moved + weights * difference
    return xp.astype(wide + moved / total, x.dtype, copy=False)
