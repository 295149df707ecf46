"""The constants of C1 for given features: what the least norm of the frames, or of the pixels, says about the loss
around them."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from theory.temporal_loss.gradient import gradient_constant
from theory.temporal_loss.hessian import hessian_constant
from theory.temporal_loss.lipschitz import lipschitz_constant
from theory.temporal_loss.loss import check_features
from theory.temporal_loss.upper_curvature import upper_curvature_constant


@dataclasses.dataclass(frozen=True)
class FeatureBounds:
    """Bounds that hold at all features of the same shape whose norms are at least `min_norm`.

    Attributes:
        min_norm: m.
        gradient: on ||grad L||: G_N / m, per pixel G_N / (sqrt(P) m).
        hessian: on ||Hess L||: C_N / m^2, per pixel C_N / (P m^2).
        upper: on the largest eigenvalue of the Hessian: C+_N / m^2, per pixel C+_N / (P m^2).
        lipschitz: Lipschitz constant of the gradient: C_N / m^2, per pixel C_N / (P m^2).
    """

    min_norm: float
    gradient: float
    hessian: float
    upper: float
    lipschitz: float


def feature_bounds(
    features: Any, *, similarity: Literal["frame", "pixel"] = "frame", min_norm: float | None = None
) -> FeatureBounds:
    """The constants of C1.gradient, C1.hessian, C1.upper-curvature and C1.lipschitz, or their per-pixel forms, for
    these features.

    Args:
        features: (frames, ...), or (frames, channels, height, width) for "pixel"; floating-point NumPy, JAX or PyTorch.
        similarity: cosine over whole frames or over the channels of each pixel.
        min_norm: m, if it is claimed to hold beyond these features; by default their own least norm.

    Returns:
        Bounds as Python floats. `certify_curvature` is much tighter at the features themselves.

    Raises:
        ValueError: bad features (see `temporal_loss`); a min_norm that is not a finite number above 0, or that a frame
        or pixel
            falls below: the message names the first.
    """
    if similarity not in ("frame", "pixel"):
        raise ValueError(f"similarity = {similarity!r}; 'frame' or 'pixel' is needed")
    pixelwise = similarity == "pixel"
    xp = check_features(features, pixelwise=pixelwise)
    num_frames = features.shape[0]
    vectors = features if pixelwise else xp.reshape(features, (num_frames, -1))
    vectors = xp.astype(vectors, xp.float64, copy=False)
    norms = xp.sqrt(xp.reshape(xp.sum(vectors * vectors, axis=1), (num_frames, -1)))
    norms = np.asarray(norms.tolist())
    least = float(np.min(norms))
    if min_norm is None:
        min_norm = least
    elif not (math.isfinite(min_norm) and min_norm > 0):
        raise ValueError(f"min_norm = {min_norm}; a finite number above 0 is needed")
    elif least < min_norm:
        frame, place = (int(index) for index in np.argwhere(norms < min_norm)[0])
        where = f"frame {frame}, pixel {divmod(place, features.shape[3])}" if pixelwise else f"frame {frame}"
        raise ValueError(
            f"{where} has norm {norms[frame, place]:.6g}, below the claimed min_norm = {min_norm:.6g}; claim at most "
            f"{least:.6g}, the least norm of all"
        )
    pixels = norms.shape[1]
    return FeatureBounds(
        min_norm=float(min_norm),
        gradient=gradient_constant(num_frames) / (math.sqrt(pixels) * min_norm),
        hessian=hessian_constant(num_frames) / (pixels * min_norm**2),
        upper=upper_curvature_constant(num_frames) / (pixels * min_norm**2),
        lipschitz=lipschitz_constant(num_frames) / (pixels * min_norm**2),
    )
