r"""The temporal consistency loss, defined once for NumPy, JAX and PyTorch.

With F_1, .., F_N the features of N frames, each flattened to R^d,

    s_t = <F_t, F_{t+1}> / (||F_t|| ||F_{t+1}||),   t = 1, .., N-1
    L(F) = 1/(N-2) sum_{t=2}^{N-1} (s_t - s_{t-1})^2

Source: arXiv 2504.16016, whose sum runs one index too far for its own frames; with N frames there are N-2 terms and the
weight is 1/(N-2) (paper_notes.md, "The loss").
"""

import math
from typing import Any, Literal

import array_api_compat
import jax
import numpy as np

MINIMUM_FRAMES = 3
MINIMUM_CHANNELS = 2


def _has_values(array: Any) -> bool:
    # Under a JAX transformation, and on torch's "meta" device, an array is a shape and a dtype.
    return not isinstance(array, jax.core.Tracer) and str(getattr(array, "device", "")) != "meta"


def is_real_floating(array: Any) -> bool:
    """Whether an array's library knows its dtype as a real floating-point one."""
    try:
        return bool(array_api_compat.array_namespace(array).isdtype(array.dtype, "real floating"))
    except TypeError:  # of a dtype that the library does not know, as bfloat16 or float8 in NumPy
        return False


def _check_one_array(features: Any) -> None:
    if array_api_compat.is_array_api_obj(features):
        return
    if (
        isinstance(features, list | tuple)
        and features
        and all(array_api_compat.is_array_api_obj(frame) for frame in features)
    ):
        devices = [str(array_api_compat.device(frame)) for frame in features]
        for index, device in enumerate(devices):
            if device != devices[0]:
                raise ValueError(
                    f"frame {index} is on device {device}, frame 0 on {devices[0]}; move all frames to one device and "
                    "stack them"
                )
        raise ValueError(
            f"features are a {type(features).__name__} of {len(features)} arrays; stack them along a first axis of "
            "frames"
        )
    raise ValueError(f"features are a {type(features).__name__}; pass one NumPy, JAX or PyTorch array, frames first")


def check_features(features: Any, *, pixelwise: bool = False, epsilon: float = 0.0) -> Any:
    """The array namespace of the features, after checking them.

    Values are checked only where there are values: under a JAX transformation and on the "meta" device shapes and
    dtypes are.

    Raises:
        ValueError: not one floating-point array, fewer than 3 frames, an empty axis, or (values) a frame (pixelwise: a
            pixel's channel vector) whose squared norm is NaN, infinite, or too small to divide by. The message names
            the first offender. With epsilon = 0 the compared vectors need at least 2 entries: a cosine of vectors of
            length one is +1 or -1 and has no gradient. With epsilon > 0, for the regularised loss, vectors of length
            one and zero vectors pass.
    """
    _check_one_array(features)
    xp = array_api_compat.array_namespace(features)
    if not is_real_floating(features):
        raise ValueError(
            f"features have dtype {features.dtype}; a real floating-point dtype is needed, convert them first"
        )
    if features.ndim < 2 or (pixelwise and features.ndim != 4):
        wanted = "(frames, channels, height, width)" if pixelwise else "(frames, ...) with at least one feature axis"
        raise ValueError(f"features have shape {tuple(features.shape)}; {wanted} is needed")
    if features.shape[0] < MINIMUM_FRAMES:
        raise ValueError(
            f"{features.shape[0]} frames were given, at least {MINIMUM_FRAMES} are needed: the loss compares "
            "neighbouring pairs"
        )
    if math.prod(features.shape) == 0:
        raise ValueError(f"features have shape {tuple(features.shape)}; no axis may be empty")
    regularised = _check_epsilon(epsilon, xp.finfo(_working_dtype(xp, features.dtype)))
    length = features.shape[1] if pixelwise else math.prod(features.shape[1:])
    if length < MINIMUM_CHANNELS and not regularised:
        raise ValueError(
            f"the compared vectors have {length} entry (shape {tuple(features.shape)}), at least {MINIMUM_CHANNELS} "
            "are needed: a cosine of vectors of length one is +1 or -1 and has no gradient; check which axis holds the "
            "channels"
        )
    if _has_values(features):
        _check_values(xp, features, pixelwise, regularised)
    return xp


def _check_epsilon(epsilon: float, precision: Any) -> bool:
    """Whether the loss is regularised, after checking that epsilon^2 is a number the dtype can divide by."""
    if not _has_values(epsilon):
        return True
    least = math.sqrt(_least_squared_norm(precision))
    if not (math.isfinite(epsilon) and (epsilon == 0 or epsilon >= least)):
        raise ValueError(
            f"epsilon = {epsilon}; 0, or a finite number of at least {least:.3g} (the dtype's limit), is needed"
        )
    return epsilon > 0


def _least_squared_norm(precision: Any) -> float:
    # Below it the squares that are summed are subnormal, and the norm has lost its digits.
    return float(precision.smallest_normal) / float(precision.eps)


def _check_values(xp: Any, features: Any, pixelwise: bool, regularised: bool) -> None:
    vectors = _working_precision(xp, features if pixelwise else xp.reshape(features, (features.shape[0], -1)))
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported below, with its frame
        squared_norms = xp.reshape(xp.sum(vectors * vectors, axis=1), (features.shape[0], -1))
    least = 0.0 if regularised else _least_squared_norm(xp.finfo(vectors.dtype))
    good = xp.isfinite(squared_norms) & (squared_norms >= least)
    if bool(xp.all(good)):
        return
    # The first offender: argmax of a boolean is its first True; integers because not every namespace orders booleans.
    position = int(xp.argmax(xp.reshape(xp.astype(~good, xp.int64), (-1,))))
    frame, place = divmod(position, squared_norms.shape[1])
    value = squared_norms[frame, place].tolist()
    where = f"frame {frame}, pixel {divmod(place, features.shape[3])}" if pixelwise else f"frame {frame}"
    if math.isnan(value):
        mend = "drop or repair that frame"
    elif math.isinf(value):
        mend = (
            f"it holds an infinity, or its square overflows {vectors.dtype}: rescale the features or convert them to "
            "float64"
        )
    else:
        mend = (
            "the cosine similarity is undefined at zero: drop or repair that frame, rescale the features, or pass "
            "epsilon > 0"
        )
    raise ValueError(f"{where} has squared norm {value:g}; a finite value of at least {least:.3g} is needed: {mend}")


def _working_dtype(xp: Any, dtype: Any) -> Any:
    # A half-precision square overflows at 256, and a sum of squares long before.
    return xp.float32 if xp.finfo(dtype).bits < 32 else dtype


def _working_precision(xp: Any, features: Any) -> Any:
    return xp.astype(features, _working_dtype(xp, features.dtype), copy=False)


def _cosines(xp: Any, vectors: Any, epsilon: float) -> Any:
    """Cosine similarities of neighbours along axis 0, over axis 1.

    <v_t, v_{t+1}>,   v_t = F_t / sqrt(||F_t||^2 + eps^2)
    """
    vectors = _working_precision(xp, vectors)
    # Dividing before multiplying keeps first and second derivatives in range wherever the norms themselves are.
    scaled = vectors / xp.sqrt(xp.sum(vectors * vectors, axis=1, keepdims=True) + epsilon**2)
    return xp.sum(scaled[:-1, ...] * scaled[1:, ...], axis=1)


def similarities(features: Any, *, epsilon: float = 0.0) -> Any:
    """Cosine similarities of neighbouring frames, over everything but the frame axis.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array; at least 3 frames of at least 2 entries,
            none of them zero. Half precision is computed, and returned, in float32.
        epsilon: regularisation of the norms (see `temporal_loss`).

    Returns:
        (frames - 1,) in [-1, 1] up to rounding, of the same kind, dtype and device.

    Raises:
        ValueError: see `check_features`; epsilon negative, NaN, infinite, or so small that its square vanishes in the
            dtype.
    """
    xp = check_features(features, epsilon=epsilon)
    return _cosines(xp, xp.reshape(features, (features.shape[0], -1)), epsilon)


def pixelwise_similarities(features: Any, *, epsilon: float = 0.0) -> Any:
    """Cosine similarities of neighbouring frames at each pixel, over the channels.

    Args:
        features: (frames, channels, height, width) floating-point array; at least 2 channels, and no pixel's channel
            vector may be zero (`theory.temporal_loss.dead_pixels` finds them).
        epsilon: regularisation of the norms (see `temporal_loss`).

    Returns:
        (frames - 1, height, width) in [-1, 1] up to rounding, of the same kind, dtype and device.

    Raises:
        ValueError: see `similarities`.
    """
    xp = check_features(features, pixelwise=True, epsilon=epsilon)
    return _cosines(xp, features, epsilon)


def temporal_loss(features: Any, *, similarity: Literal["frame", "pixel"] = "frame", epsilon: float = 0.0) -> Any:
    """The temporal consistency loss.

        L(F) = 1/(N-2) sum_{t=2}^{N-1} (s_t - s_{t-1})^2

    For "pixel" the same at every pixel, with cosines over the channels, and then the mean over pixels.

    Args:
        features: (frames, ...), or (frames, channels, height, width) for "pixel"; floating-point NumPy, JAX or PyTorch.
        similarity: cosine over whole frames (the paper's formula) or over the channels of each pixel (its public code).
        epsilon: if positive, ||F||^2 is replaced by ||F||^2 + epsilon^2 in the denominators, which makes the loss
            smooth everywhere.

    Returns:
        A scalar array in [0, 4], of the same kind, dtype and device (float32 for half precision); differentiable by the
        array's own framework.

    Raises:
        ValueError: see `similarities`; an unknown similarity.
    """
    if similarity not in ("frame", "pixel"):
        raise ValueError(f"similarity = {similarity!r}; 'frame' or 'pixel' is needed")
    cosines = (
        similarities(features, epsilon=epsilon)
        if similarity == "frame"
        else pixelwise_similarities(features, epsilon=epsilon)
    )
    xp = array_api_compat.array_namespace(cosines)
    differences = cosines[1:, ...] - cosines[:-1, ...]
    return xp.mean(differences * differences)
