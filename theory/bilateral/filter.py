r"""The bilateral filter across frames, defined once for NumPy, JAX and PyTorch.

With x_1, .., x_N the values of one entry in N frames, h = (kernel_size - 1) / 2 and a padding that names the frames
beyond the ends, frame i becomes

    y_i = sum_{|k| <= h} w_k x_{i+k} / sum_{|k| <= h} w_k,    w_k = g(k) rho(x_{i+k} - x_i)
    g(k) = exp(-k^2 / (2 sigma_spatial^2)),    rho(d) = exp(-d^2 / (2 sigma_range^2))

so a neighbouring frame counts less the more it differs, entry by entry: the weights are scalars and no entry sees
another one.

The monotone variant moves a frame by its neighbours' differences, each bent so that it saturates,

    y_i = x_i + (1 + G)^{-1} sum_{0 < |k| <= h} g(k) psi(x_{i+k} - x_i),    psi(d) = d / sqrt(1 + (d / sigma_range)^2)

with G = sum_{0 < |k| <= h} g(k). Its derivatives are all positive, which makes it non-expansive (C4.monotone); both
filters are one and the same for an infinite sigma_range.

Source: C. Tomasi and R. Manduchi, Bilateral filtering for gray and color images, ICCV 1998, along one axis. The public
code of arXiv 2501.04606 applies it to self-attention outputs along the frames, with kernel_size = 5, sigma_spatial =
sigma_range = 1 and reflect padding. The monotone variant is ours; as a smooth saturating influence function it is one
of the robust estimators that F. Durand and J. Dorsey, Fast bilateral filtering, SIGGRAPH 2002, compare with the
bilateral filter.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import array_api_compat
import jax
import numpy as np

Padding = Literal["reflect", "symmetric", "circular"]
_NUMPY_MODES = {"reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
_FARTHEST = 64.0
"""exp(-64^2 / 2) is 0 in every dtype; a difference of more range widths has weight 0 and derivative 0 already."""
_SATURATED = 1e9
"""d / sqrt(1 + d^2) is 1 in every dtype from there on, and 1 + d^2 is finite."""
_BLOCK = 1 << 16
"""Values filtered at a time: few enough for what a block needs to stay in the cache, enough for the calls not to cost
more than the work."""
_ACCELERATOR_BLOCK = 1 << 24
"""The same on an accelerator, which is idle between small calls."""


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
    """The array namespace of the frames, after checking their kind and number."""
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
    return xp


def _largest(xp: Any, dtype: Any, kernel_size: int) -> float:
    """The largest value taken: beyond it the differences, or their sum over a window, can overflow."""
    return float(xp.finfo(dtype).max) / (2 * kernel_size)


def _in_range(xp: Any, x: Any, kernel_size: int) -> bool:
    largest = _largest(xp, x.dtype, kernel_size)
    # A NaN is both the least and the greatest value.
    return bool((xp.min(x) >= -largest) & (xp.max(x) <= largest))


def _check_values(xp: Any, x: Any, kernel_size: int) -> None:
    if isinstance(x, jax.core.Tracer):
        return
    if _in_range(xp, x, kernel_size):
        return
    largest = _largest(xp, x.dtype, kernel_size)
    position = int(xp.argmax(xp.reshape(xp.astype(~(xp.abs(x) <= largest), xp.int64), (-1,))))
    value = float(xp.reshape(x, (-1,))[position])
    raise ValueError(
        f"frame {position // (math.prod(x.shape) // x.shape[0])} holds {value:g}; finite values of size at most "
        f"{largest:.3g} are needed: repair or rescale that frame"
    )


def spatial_weights(kernel_size: int = 5, sigma_spatial: float = 1.0) -> list[float]:
    """g(1), .., g(h), h = (kernel_size - 1) / 2.

    g(k) = exp(-k^2 / (2 sigma_spatial^2))
    """
    return [math.exp(-((k / sigma_spatial) ** 2) / 2) for k in range(1, kernel_size // 2 + 1)]


def _pad(xp: Any, x: Any, half: int, padding: str) -> Any:
    """The frames with `half` more at each end."""
    indices = np.pad(np.arange(x.shape[0]), half, mode=_NUMPY_MODES[padding]).tolist()
    ends = indices[:half], indices[half + x.shape[0] :]
    before, after = ([x[index : index + 1, ...] for index in part] for part in ends)
    return xp.concat([*before, x, *after], axis=0)


def _bilateral(xp: Any, x: Any, weights: Sequence[float], sigma_range: float, padding: str) -> Any:
    half, count = len(weights), x.shape[0]
    padded = _pad(xp, x, half, padding)
    # Sums of differences and not of values, so that equal frames stay equal to the last bit; the frame itself has
    # weight 1 and difference 0. A pair of frames is seen from both of them, with one weight and opposite differences.
    total, moved = xp.ones_like(x), xp.zeros_like(x)
    for k, weight in enumerate(weights, start=1):
        difference = padded[half : half + count + k, ...] - padded[half - k : half + count, ...]
        # Clipping leaves the weights as they are and keeps infinity out of their derivatives.
        widths = xp.clip(difference / sigma_range, -_FARTHEST, _FARTHEST)
        alike = weight * xp.exp(-widths * widths / 2)
        pull = alike * difference
        total = total + alike[k:, ...] + alike[:count, ...]
        moved = moved + (pull[k:, ...] - pull[:count, ...])
    return x + moved / total


def _monotone(xp: Any, x: Any, weights: Sequence[float], sigma_range: float, padding: str) -> Any:
    half, count = len(weights), x.shape[0]
    padded = _pad(xp, x, half, padding)
    moved = xp.zeros_like(x)
    for k, weight in enumerate(weights, start=1):
        difference = padded[half : half + count + k, ...] - padded[half - k : half + count, ...]
        if math.isinf(sigma_range):
            bent = difference
        else:
            widths = xp.clip(difference / sigma_range, -_SATURATED, _SATURATED)
            bent = sigma_range * (widths / xp.sqrt(1 + widths * widths))
        moved = moved + weight * (bent[k:, ...] - bent[:count, ...])
    return x + moved / (1 + 2 * sum(weights))


def bilateral_filter(
    x: Any,
    *,
    sigma_range: float,
    sigma_spatial: float = 1.0,
    kernel_size: int = 5,
    padding: Padding | None = None,
    monotone: bool = False,
) -> Any:
    """The bilateral filter along the frames (axis 0), every entry by itself.

        y_i = sum_k w_k x_{i+k} / sum_k w_k
        w_k = exp(-k^2 / (2 sigma_spatial^2) - (x_{i+k} - x_i)^2 / (2 sigma_range^2))

    It can drive clips apart, up to `lipschitz_constant()` times. With `monotone` it never does, in any l_p norm:

        y_i = x_i + sum_{k != 0} g(k) psi(x_{i+k} - x_i) / sum_k g(k)
        psi(d) = d / sqrt(1 + (d / sigma_range)^2),   g(k) = exp(-k^2 / (2 sigma_spatial^2))

    Args:
        x: (frames, ...) floating-point NumPy, JAX or PyTorch array. Half precision is computed in float32 and rounded.
        sigma_range: width of the weights in the values, in the units of x; infinity is the linear filter of the
            spatial weights alone.
        sigma_spatial: width of the weights in time, in frames.
        kernel_size: frames in a window, odd.
        padding: the frames beyond the ends. "reflect" mirrors at the end frames and does not repeat them (needs
            kernel_size // 2 + 1 frames), "symmetric" repeats them, "circular" goes on at the other end. None is
            "reflect", as in the public code, and "symmetric" with `monotone`: with "reflect" that filter is
            non-expansive in the maximum norm only.
        monotone: the variant that is non-expansive.

    Returns:
        Same shape, kind, dtype and device; differentiable by the array's own framework. Frames that are all equal come
        back bit for bit. NumPy arrays, and PyTorch tensors that ask for no gradient, are filtered a few columns at a
        time, so that memory beside x and the result does not grow with the number of entries.

    Raises:
        ValueError: see `check_settings`; a sigma_range that the dtype cannot divide by; x no floating-point array,
            empty, with too few frames, or (where there are values: not under a JAX transformation) NaN, infinite, or
            within a factor 2 kernel_size of the dtype's largest number. The message names the first offender.
    """
    padding = ("symmetric" if monotone else "reflect") if padding is None else padding
    check_settings(sigma_range, sigma_spatial, kernel_size, padding)
    xp = _check_frames(x, kernel_size, padding)
    computed = xp.float32 if xp.finfo(x.dtype).bits < 32 else x.dtype
    range_of = xp.finfo(computed)
    least, largest = float(range_of.smallest_normal), float(range_of.max)
    if not (least <= sigma_range <= largest or math.isinf(sigma_range)):
        raise ValueError(
            f"sigma_range = {sigma_range}; {computed} divides by numbers from {least:.3g} to {largest:.3g}, or "
            "infinity: rescale x with it"
        )
    weights = spatial_weights(kernel_size, sigma_spatial)

    def filtered(part: Any) -> Any:
        wide = xp.astype(part, computed, copy=False)
        run = _monotone if monotone else _bilateral
        # A difference of infinitely many range widths is clipped.
        with np.errstate(over="ignore"):
            return xp.astype(run(xp, wide, weights, sigma_range, padding), x.dtype, copy=False)

    columns = math.prod(x.shape[1:])
    on_cpu = str(array_api_compat.device(x)) == "cpu"
    width = max(1, (_BLOCK if on_cpu else _ACCELERATOR_BLOCK) // x.shape[0])
    in_place = array_api_compat.is_numpy_array(x) or (array_api_compat.is_torch_array(x) and not x.requires_grad)
    if not in_place or columns <= width:
        _check_values(xp, x, kernel_size)
        return filtered(x)
    flat = xp.reshape(x, (x.shape[0], columns))
    result = xp.empty_like(flat)
    for start in range(0, columns, width):
        part = flat[:, start : start + width]
        if not _in_range(xp, part, kernel_size):
            _check_values(xp, x, kernel_size)
        result[:, start : start + width] = filtered(part)
    return xp.reshape(result, x.shape)
