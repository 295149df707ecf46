r"""The temporal consistency loss, defined once for NumPy, JAX and PyTorch.

With F_1, .., F_N the features of N frames, each flattened to R^d,

    s_t = <F_t, F_{t+1}> / (||F_t|| ||F_{t+1}||),   t = 1, .., N-1
    L(F) = 1/(N-2) sum_{t=2}^{N-1} (s_t - s_{t-1})^2

Source: arXiv 2504.16016, whose sum runs one index too far for its own frames; with N frames there are N-2 terms and the weight is
1/(N-2) (paper_notes.md, "The loss").
"""

import math
from typing import Any, Literal

import array_api_compat
import jax

MINIMUM_FRAMES = 3


def _is_traced(array: Any) -> bool:
    return isinstance(array, jax.core.Tracer)


def check_features(features: Any, *, pixelwise: bool = False, allow_zero: bool = False) -> Any:
    """The array namespace of the features, after checking them.

    Values are checked only where there are values: under a JAX transformation shapes and dtypes are.

    Raises:
        ValueError: not a floating-point array, fewer than 3 frames, no feature axis, or (values) NaN, infinity, or a frame (pixelwise: a
            pixel's channel vector) whose squared norm is zero or overflows. The message names the first offender. With `allow_zero`, for
            the regularised loss, a squared norm of zero passes.
    """
    if not array_api_compat.is_array_api_obj(features):
        raise ValueError(f"features are a {type(features).__name__}; pass a NumPy, JAX or PyTorch array")
    xp = array_api_compat.array_namespace(features)
    if not xp.isdtype(features.dtype, "real floating"):
        raise ValueError(f"features have dtype {features.dtype}; a floating-point dtype is needed, convert them first")
    if features.ndim < 2 or (pixelwise and features.ndim != 4):
        wanted = "(frames, channels, height, width)" if pixelwise else "(frames, ...) with at least one feature axis"
        raise ValueError(f"features have shape {tuple(features.shape)}; {wanted} is needed")
    if features.shape[0] < MINIMUM_FRAMES:
        raise ValueError(f"{features.shape[0]} frames were given, at least {MINIMUM_FRAMES} are needed: the loss compares neighbouring pairs")
    if math.prod(features.shape) == 0:
        raise ValueError(f"features have shape {tuple(features.shape)}; no axis may be empty")
    if not _is_traced(features):
        _check_values(xp, features, pixelwise, allow_zero)
    return xp


def _check_values(xp: Any, features: Any, pixelwise: bool, allow_zero: bool) -> None:
    vectors = features if pixelwise else xp.reshape(features, (features.shape[0], -1))
    squared_norms = xp.reshape(xp.sum(vectors * vectors, axis=1), (features.shape[0], -1))
    good = xp.isfinite(squared_norms) & ((squared_norms > 0) | allow_zero)
    if bool(xp.all(good)):
        return
    # The first offender: argmax of a boolean is its first True; integers because not every namespace orders booleans.
    position = int(xp.argmax(xp.reshape(xp.astype(~good, xp.int64), (-1,))))
    frame, place = divmod(position, squared_norms.shape[1])
    value = float(squared_norms[frame, place])
    where = f"frame {frame}, pixel {divmod(place, features.shape[3])}" if pixelwise else f"frame {frame}"
    raise ValueError(
        f"{where} has squared norm {value:g}; a finite value above 0 is needed, since the cosine similarity is undefined elsewhere: "
        "drop or repair that frame, or rescale the features"
    )


def _cosines(xp: Any, vectors: Any, epsilon: float) -> Any:
    """Cosine similarities of neighbours along axis 0, over axis 1.

        <F_t, F_{t+1}> / sqrt((||F_t||^2 + eps^2) (||F_{t+1}||^2 + eps^2))
    """
    products = xp.sum(vectors[:-1, ...] * vectors[1:, ...], axis=1)
    norms = xp.sqrt(xp.sum(vectors * vectors, axis=1) + epsilon**2)
    return products / (norms[:-1, ...] * norms[1:, ...])


def _check_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon = {epsilon}; a finite number >= 0 is needed")


def similarities(features: Any, *, epsilon: float = 0.0) -> Any:
    """Cosine similarities of neighbouring frames, over everything but the frame axis.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array; at least 3 frames, none of them zero.
        epsilon: regularisation of the norms (see `temporal_loss`).

    Returns:
        (frames - 1,) in [-1, 1], of the same kind and dtype.

    Raises:
        ValueError: see `check_features`; epsilon negative, NaN or infinite.
    """
    _check_epsilon(epsilon)
    xp = check_features(features, allow_zero=epsilon > 0)
    return _cosines(xp, xp.reshape(features, (features.shape[0], -1)), epsilon)


def pixelwise_similarities(features: Any, *, epsilon: float = 0.0) -> Any:
    """Cosine similarities of neighbouring frames at each pixel, over the channels.

    Args:
        features: (frames, channels, height, width) floating-point array; no pixel's channel vector may be zero.
        epsilon: regularisation of the norms (see `temporal_loss`).

    Returns:
        (frames - 1, height, width) in [-1, 1].

    Raises:
        ValueError: see `check_features`; epsilon negative, NaN or infinite.
    """
    _check_epsilon(epsilon)
    xp = check_features(features, pixelwise=True, allow_zero=epsilon > 0)
    return _cosines(xp, features, epsilon)


def temporal_loss(features: Any, *, similarity: Literal["frame", "pixel"] = "frame", epsilon: float = 0.0) -> Any:
    """The temporal consistency loss.

        L(F) = 1/(N-2) sum_{t=2}^{N-1} (s_t - s_{t-1})^2

    For "pixel" the same at every pixel, with cosines over the channels, and then the mean over pixels.

    Args:
        features: (frames, ...), or (frames, channels, height, width) for "pixel"; floating-point NumPy, JAX or PyTorch.
        similarity: cosine over whole frames (the paper's formula) or over the channels of each pixel (its public code).
        epsilon: if positive, ||F||^2 is replaced by ||F||^2 + epsilon^2 in the denominators, which makes the loss smooth everywhere.

    Returns:
        A scalar array in [0, 4], of the same kind and dtype; differentiable by the array's own framework.

    Raises:
        ValueError: see `check_features`; an unknown similarity; epsilon negative, NaN or infinite.
    """
    if similarity not in ("frame", "pixel"):
        raise ValueError(f"similarity = {similarity!r}; 'frame' or 'pixel' is needed")
    cosines = similarities(features, epsilon=epsilon) if similarity == "frame" else pixelwise_similarities(features, epsilon=epsilon)
    xp = array_api_compat.array_namespace(cosines)
    differences = cosines[1:, ...] - cosines[:-1, ...]
    return xp.mean(differences * differences)
