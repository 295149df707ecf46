"""The certificate of curvature for the per-pixel loss: one certificate a pixel.

Pixels share no variable, so the Hessian of L_pix = (1/P) sum_p L(F^p) is block diagonal with the blocks Hess L(F^p) /
P. Its largest and least eigenvalue are those of its blocks, and so is the norm of its Gauss-Newton part: what is
certified for every pixel, over P, is a certificate of the whole.

Proof: paper_notes.md, section C1.certificate, "Per pixel".
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss.certificate import CurvatureCertificate, bounds_in_units
from theory.temporal_loss.gram import LARGEST_RATIO, LEAST_SQUARED_NORM, _on_host, is_summable
from theory.temporal_loss.loss import MINIMUM_CHANNELS, MINIMUM_FRAMES

ENTRIES_AT_A_TIME = 1 << 20
"""What is converted to float64 at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class PixelCertificates:
    """Bounds on the spectrum of every pixel's block of the Hessian of L_pix, each (height, width) float64.

    Attributes:
        upper, lower: lower <= every eigenvalue of the pixel's block <= upper.
        spectral: the norm of the pixel's block is at most spectral = max(upper, -lower).
        gauss_newton: the norm of the Gauss-Newton part of the pixel's block.
        margin: the part of upper and of -lower that covers rounding.
        least_norms: the least norm of the pixel's channel vector over the frames.
    """

    upper: np.ndarray
    lower: np.ndarray
    spectral: np.ndarray
    gauss_newton: np.ndarray
    margin: np.ndarray
    least_norms: np.ndarray

    @property
    def worst(self) -> tuple[int, int]:
        """Row and column of the pixel with the largest upper bound."""
        row, column = np.unravel_index(np.argmax(self.upper), self.upper.shape)
        return int(row), int(column)

    @property
    def whole(self) -> CurvatureCertificate:
        """The certificate of L_pix: the extremes over the pixels."""
        return CurvatureCertificate(
            upper=float(np.max(self.upper)),
            lower=float(np.min(self.lower)),
            spectral=float(np.max(self.spectral)),
            gauss_newton=float(np.max(self.gauss_newton)),
            margin=float(np.max(self.margin)),
        )


def _check(features: Any) -> None:
    if not array_api_compat.is_array_api_obj(features):
        raise ValueError(
            f"features are a {type(features).__name__}; for similarity = 'pixel' pass one NumPy, JAX or PyTorch array "
            "(frames, channels, height, "
            "width), on one device"
        )
    if not is_summable(features):
        raise ValueError(
            f"features have dtype {features.dtype}; a real floating-point dtype is needed, convert them first"
        )
    if features.ndim != 4 or math.prod(features.shape) == 0:
        raise ValueError(
            f"features have shape {tuple(features.shape)}; (frames, channels, height, width), none of them 0, is needed"
        )
    if features.shape[0] < MINIMUM_FRAMES:
        raise ValueError(
            f"{features.shape[0]} frames were given, at least {MINIMUM_FRAMES} are needed: the loss compares "
            "neighbouring pairs"
        )
    if features.shape[1] < MINIMUM_CHANNELS:
        raise ValueError(
            f"every pixel has {features.shape[1]} channel (shape {tuple(features.shape)}), at least {MINIMUM_CHANNELS} "
            "are needed: a cosine of "
            "vectors of length one is +1 or -1 and has no curvature; check which axis holds the channels"
        )


def _rows(features: Any) -> Iterator[np.ndarray]:
    """The features as host arrays (frames, channels, pixels) in float64, some rows of the image at a time."""
    num_frames, channels, height, width = features.shape
    step = max(1, ENTRIES_AT_A_TIME // (num_frames * channels * width))
    for row in range(0, height, step):
        part = _on_host(features[:, :, row : row + step, :]).astype(np.float64)
        yield part.reshape(num_frames, channels, -1)


def _check_norms(squared_norms: np.ndarray, width: int, min_norm: float | None) -> None:
    """Name the first frame and pixel whose channel vector is dead, or shorter than min_norm; squared norms are (frames,
    pixels)."""
    for frame, place in np.argwhere(~(np.isfinite(squared_norms) & (squared_norms >= LEAST_SQUARED_NORM))):
        raise ValueError(
            f"frame {frame}, pixel {divmod(int(place), width)} has squared norm {squared_norms[frame, place]:g}; a "
            "finite value of at least "
            f"{LEAST_SQUARED_NORM:.3g} is needed, since the cosine similarity is undefined elsewhere: the pixel is dead, leave it "
            "out or repair it "
            "(theory.temporal_loss.dead_pixels(features, min_norm=2**-450) lists all such pixels)"
        )
    for (place,) in np.argwhere(np.max(squared_norms, axis=0) / LARGEST_RATIO > np.min(squared_norms, axis=0)):
        raise ValueError(
            f"pixel {divmod(int(place), width)} has squared norms from {np.min(squared_norms[:, place]):g} to "
            f"{np.max(squared_norms[:, place]):g} in its frames; at most {LARGEST_RATIO:.3g} times the least is possible in "
            "float64: leave it out or rescale it"
        )
    if min_norm is None:
        return
    if not (math.isfinite(min_norm) and min_norm > 0):
        raise ValueError(f"min_norm = {min_norm}; a finite number above 0 is needed")
    norms = np.sqrt(squared_norms)
    for frame, place in np.argwhere(norms < min_norm * (1 - 4 * UNIT_ROUNDOFF)):
        raise ValueError(
            f"frame {frame}, pixel {divmod(int(place), width)} has norm {norms[frame, place]:.9g}, below min_norm = "
            f"{min_norm:.9g}: lower "
            "min_norm, or leave out or rescale that pixel"
        )


def certify_pixels(features: Any, *, min_norm: float | None = None) -> PixelCertificates:
    """Bounds on the curvature of the per-pixel loss at these features, pixel by pixel.

    Args:
        features: (frames, channels, height, width) floating-point NumPy, JAX or PyTorch array on any device.
        min_norm: m, if the caller relies on every pixel's channel vector having norm at least m; a shorter one is
            refused.

    Returns:
        Bounds on the blocks of the Hessian of L_pix (the factor 1 / P is in them), in units of 1 / ||F||^2. Rounding is
        on the safe side.

    Source: paper_notes.md, C1.certificate, "Per pixel".

    Raises:
        ValueError: not one floating-point array of that shape, fewer than 3 frames or 2 channels, a dead pixel (its
            channel vector is zero or holds NaN or infinity in some frame), or one below min_norm. The message names the
            frame, the pixel, the value and the limit.
    """
    _check(features)
    num_frames, channels, height, width = features.shape
    products: list[list[np.ndarray]] = [[], [], []]
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are reported with their pixel
        for part in _rows(features):
            for distance in range(3):
                pairs = part[: num_frames - distance], part[distance:]
                products[distance].append(np.einsum("tcp,tcp->tp", *pairs))
    gram = [np.concatenate(parts, axis=1).T for parts in products]
    _check_norms(gram[0].T, width, min_norm)
    error = relative_budget(channels + 1)
    # Pixel by pixel: a batch of eigenproblems would be solved one by one as well, and each takes longer than what leads
    # to it.
    certified = [bounds_in_units(*entries, error) for entries in zip(*gram, strict=True)]
    upper, downward, gauss_newton, margin = (
        np.asarray(side).reshape(height, width) / (height * width) for side in zip(*certified, strict=True)
    )
    return PixelCertificates(
        upper=upper,
        lower=-downward,
        spectral=np.maximum(upper, downward),
        gauss_newton=gauss_newton,
        margin=margin,
        least_norms=np.sqrt(np.min(gram[0], axis=1)).reshape(height, width),
    )
