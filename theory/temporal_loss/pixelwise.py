r"""Sharp Hessian bound of the per-pixel loss, as the public code takes its cosines: over the channels of each pixel.

Statement. Let F be the features of N >= 3 frames with P pixels, and let the channel vector of
every pixel of every frame have norm at least m > 0. The mean over pixels of the temporal loss, L_pix = (1/P) sum_p
L(F^p), satisfies

    \| \nabla^2 L_{pix}(F) \|_{op} \le \frac{C_N}{P \, m^2}

with C_N of C1.hessian. The bound on its gradient is C1.pixelwise-gradient.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  The channel vector of every pixel of every frame has norm at least m > 0: no pixel is dead.

**Attained** with 2 channels or more, when one pixel's channel vectors are the extremal frames of C1.hessian, whatever the
other pixels are. (With one channel the loss is locally constant, and the Hessian is 0.)

In the paper: not there; it is the form its companion code uses. Proof: paper_notes.md, section C1.pixelwise.
"""

import functools
from collections.abc import Sequence
from typing import Any

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np

from theory.claim import (
    Claim,
    Comparison,
    Hypothesis,
    Instance,
    Origin,
    Outcome,
    Parameters,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.rounding import relative_budget
from theory.temporal_loss import instances, recorded
from theory.temporal_loss.hessian import extremal_frames, hessian_constant, hessian_norm
from theory.temporal_loss.loss import check_features, is_real_floating, temporal_loss

SIZES: tuple[Size, ...] = tuple(
    (("num_frames", num_frames), ("channels", channels), ("pixels", 2)) for num_frames, channels in ((3, 2), (4, 2))
)
PIXELS_AT_A_TIME = 256


def dead_pixels(features: Any, *, min_norm: float = 0.0) -> list[tuple[int, int, int]]:
    """The pixels whose channel vector is dead, that is, at which the cosine similarity or the bound with m = min_norm
    does not exist.

    Args:
        features: (frames, channels, height, width) floating-point NumPy, JAX or PyTorch array.
        min_norm: m; pixels of a norm below it are listed. At the default 0 those of norm zero, NaN or infinity are.

    Returns:
        (frame, row, column) of each, in that order; empty if none is dead.

    Raises:
        ValueError: features of another shape or dtype; min_norm negative, NaN or infinite.
    """
    if not (0 <= min_norm < float("inf")):
        raise ValueError(f"min_norm = {min_norm}; a finite number >= 0 is needed")
    if not array_api_compat.is_array_api_obj(features) or features.ndim != 4:
        raise ValueError(
            f"features have shape {getattr(features, 'shape', None)}; (frames, channels, height, width) is needed"
        )
    xp = array_api_compat.array_namespace(features)
    if not is_real_floating(features):
        raise ValueError(
            f"features have dtype {features.dtype}; a real floating-point dtype is needed, convert them first"
        )
    wide = xp.astype(features, xp.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is listed
        norms = xp.sqrt(xp.sum(wide * wide, axis=1))
    alive = xp.isfinite(norms) & (norms > 0) & (norms >= min_norm)
    return [
        tuple(int(index) for index in place)
        for place in zip(*(axis.tolist() for axis in xp.nonzero(~alive)), strict=True)
    ]


def least_channel_norm(features):
    """m: the least norm of any pixel's channel vector of (frames, channels, height, width)."""
    return jnp.sqrt(jnp.min(jnp.sum(features**2, axis=1)))


def draw(key: jax.Array, *, num_frames: int, channels: int, pixels: int) -> Parameters:
    """Every pixel drawn like the frames of the other theorems; one least norm for all."""
    keys = jax.random.split(key, pixels)
    drawn = jax.vmap(lambda pixel_key: instances.draw(pixel_key, num_frames=num_frames, dimension=channels))(keys)
    return {**drawn, "log_min_norm": drawn["log_min_norm"][0]}


def instance(parameters: Parameters, *, num_frames: int, channels: int, pixels: int) -> Instance:
    """Features (frames, channels, 1, pixels) whose channel vectors have norm at least m."""

    def pixel(directions, excess):
        drawn = {"directions": directions, "excess": excess, "log_min_norm": parameters["log_min_norm"]}
        return instances.instance(drawn, num_frames=num_frames, dimension=channels)["frames"]

    vectors = jax.vmap(pixel)(parameters["directions"], parameters["excess"])
    return {
        "features": jnp.transpose(vectors, (1, 2, 0))[:, :, None, :],
        "min_norm": jnp.exp(parameters["log_min_norm"]),
    }


def operations(*, num_frames: int, channels: int, pixels: int) -> int:
    """As for whole frames, with the eigensolver on all N C P entries, and the mean over pixels."""
    return instances.operations(num_frames=num_frames, dimension=channels * pixels) + pixels


def pixelwise_hessian_norm(features):
    """||Hess L_pix||_op by dense automatic differentiation over all entries at once; JAX, O((N C P)^3)."""

    def loss(vector):
        return temporal_loss(jnp.reshape(vector, features.shape), similarity="pixel")

    hessian = jax.hessian(loss)(jnp.reshape(features, (-1,)))
    return instances.extreme_eigenvalue((hessian + hessian.T) / 2, largest_magnitude=True)


def num_pixels(features) -> int:
    return features.shape[2] * features.shape[3]


def _planted(power: int = 2, pixel_power: int = 1, shift: int = 0):
    def bound(instance: Instance):
        features = instance["features"]
        return hessian_constant(features.shape[0] + shift) / (
            num_pixels(features) ** pixel_power * instance["min_norm"] ** power
        )

    return bound


def _mean_over_pixels(instance: Instance):
    """The mean over the pixels of 1 / (their own least norm)^2 in the place of the largest."""
    features = instance["features"]
    least = jnp.min(jnp.sum(features**2, axis=1), axis=0)
    return hessian_constant(features.shape[0]) / num_pixels(features) * jnp.mean(1 / least)


PROBLEM = Problem(
    sizes=SIZES,
    draw=draw,
    instance=instance,
    measured=lambda instance: pixelwise_hessian_norm(instance["features"]),
    bound=_planted(),
    operations=operations,
)


def witness(*, num_frames: int, channels: int, pixels: int) -> Instance:
    """One pixel extremal, the others long and all alike; m = 1."""
    features = np.full((num_frames, channels, 1, pixels), 2.0)
    features[:, :, 0, 0] = extremal_frames(num_frames, channels)
    return {"features": jnp.asarray(features), "min_norm": jnp.asarray(1.0)}


def witness_parameters(*, num_frames: int, channels: int, pixels: int) -> Parameters:
    vectors = jnp.transpose(witness(num_frames=num_frames, channels=channels, pixels=pixels)["features"][:, :, 0, :], (2, 0, 1))
    drawn = jax.vmap(instances.parameters_of)(vectors)
    return {**drawn, "log_min_norm": jnp.asarray(0.0)}


def _one_weak_pixel() -> Outcome:
    weak = dict(witness(**dict(SIZES[0])))
    weak["features"] = weak["features"].at[1, :, 0, 0].multiply(0.5)
    return PROBLEM.outcome(weak, SIZES[0], "one pixel of norm m / 2 in one frame")


@functools.cache
def _hessian_norms():
    return jax.jit(jax.vmap(hessian_norm))


def hessian_norm_by_pixel(features: np.ndarray) -> np.ndarray:
    """||Hess L||_op of every pixel's own loss, (height * width,) float64; L_pix has their maximum over P, since pixels
    do not interact.

    Args:
        features: (frames, channels, height, width) float64.
    """
    check_features(features, pixelwise=True)
    reduced = instances.reduce_pixels(features)
    vectors = np.transpose(np.reshape(reduced, (*reduced.shape[:2], -1)), (2, 0, 1))
    # A last, shorter batch would be compiled anew: fill it up with copies.
    count = len(vectors)
    batch = min(PIXELS_AT_A_TIME, count)
    padded = np.concatenate([vectors, np.repeat(vectors[:1], -count % batch, axis=0)])
    norms = [np.asarray(_hessian_norms()(part)) for part in np.split(padded, len(padded) // batch)]
    return np.concatenate(norms)[:count]


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.features:
        num_frames, channels = record.values.shape[:2]
        pixels = num_pixels(record.values)
        norms = hessian_norm_by_pixel(record.values)
        least = float(least_channel_norm(jnp.asarray(record.values)))
        worst = int(np.argmax(norms))
        outcomes.append(
            Outcome(
                label=record.label,
                measured=float(norms[worst]) / pixels,
                bound=hessian_constant(num_frames) / (pixels * least**2),
                budget=relative_budget(instances.operations(num_frames=num_frames, dimension=channels) + pixels),
                witness={
                    "frames": np.reshape(record.values, (num_frames, channels, -1))[:, :, worst],
                    "pixel": np.asarray(worst),
                },
            )
        )
    return outcomes


SECOND_ORDER_TOLERANCE = 0.25


def _second_order(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        for label, before, after in recorded.layer_steps(record):
            found = recorded.expansion(before, after, "pixel")
            error = abs(found["change"] - found["first"] - found["second"])
            outcomes.append(recorded.compared(label, error, SECOND_ORDER_TOLERANCE * abs(found["change"]), before=before, after=after))
    return outcomes


CLAIM = Claim(
    id="C1.pixelwise",
    title="Sharp Hessian bound of the per-pixel loss",
    statement=(
        "With cosines over the channels of each of P pixels, of norm at least m, the Hessian of the mean loss has "
        "norm at most C_N / (P m^2), and with 2 channels or more some features attain it."
    ),
    latex=r"\|\nabla^2 L_{\mathrm{pix}}(F)\|_{\mathrm{op}} \le \frac{C_N}{P\,m^2},\quad m = \min_{t,p}\|F_t^p\|",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames."),
        Hypothesis("H2", "The channel vector of every pixel of every frame has norm at least m > 0."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.ATTAINED,
    origin="not in the paper; the form of its companion code",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "operator norm of the Hessian of the mean per-pixel loss in the features, in units of 1 / (feature norm)^2"
    ),
    bound_in_words=(
        "C_N / (P m^2), P the number of pixels and m the least norm of a pixel's channel vector in any frame, in the "
        "same units"
    ),
    sharpness="attained at every N and P, with 2 channels or more; with one channel the Hessian is 0 where it exists",
    necessity={"H2": _one_weak_pixel},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "P^2 for P": _planted(pixel_power=2),
        "m for m^2": _planted(power=1),
        "the mean over pixels of 1 / m_p^2 for the largest": _mean_over_pixels,
        "the constant of N + 1 frames": _planted(shift=1),
    },
    reality=(
        Comparison(
            question=(
                "Is ||Hess L_pix|| at the UNet's features at most C_N / (P m^2), m the least norm of a pixel's "
                "channel vector?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.pixelwise; that no pixel is dead is read off the same features",
        ),
        Comparison(
            question=(
                "Does the quadratic model of the per-pixel loss at the features before a recorded training step "
                "predict the loss of the features "
                "after it, layer by layer, to within a quarter of its change?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_second_order,
        ),
    ),
    relies_on=("C1.hessian",),
    floor=0.999,
    floor_reason=(
        "the supremum is attained, but at a kink of the norm, which gradient ascent approaches and does not hit"
    ),
)
