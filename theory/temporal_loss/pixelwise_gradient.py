r"""Gradient bound of the per-pixel loss: it shrinks with the square root of the number of pixels.

Statement. With N >= 3 frames, P pixels, at least 2 channels, and every pixel's channel vector of norm at least m > 0,

    \| \nabla L_{pix}(F) \| \le \frac{G_N}{\sqrt P \, m}, \qquad L_{pix} = \frac{1}{P} \sum_p L(F^p),

with G_N of C1.gradient. No pixel's part is larger than G_N / (P m), and the parts of different pixels are orthogonal.

Hypotheses.
    H1  There are N >= 3 frames and at least 2 channels.
    H2  The channel vector of every pixel of every frame has norm at least m > 0: no pixel is dead.

**Upper**: exact and attained for N = 3, by pixels that are all extremal. For N >= 4 as close as C1.gradient is (0.942
at N = 4, 0.977 at N = 6).

In the paper: not there; it is the form its companion code uses. Proof: paper_notes.md, section C1.pixelwise-gradient.
"""

from collections.abc import Sequence

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
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.temporal_loss import gradient, instances, pixelwise
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = ((("num_frames", 3), ("channels", 2), ("pixels", 4)),)


def pixelwise_gradient_norm(features):
    """||grad L_pix|| of (frames, channels, height, width) by automatic differentiation; JAX."""
    return jnp.sqrt(jnp.sum(jax.grad(lambda values: temporal_loss(values, similarity="pixel"))(features) ** 2))


def operations(*, num_frames: int, channels: int, pixels: int) -> int:
    """As for whole frames of C P entries, and the mean over pixels."""
    return instances.gradient_operations(num_frames=num_frames, dimension=channels * pixels) + pixels


def _planted(pixel_power: float = 0.5, power: int = 1, factor: float = 1.0):
    def bound(instance: Instance):
        features = instance["features"]
        scale = pixelwise.num_pixels(features) ** pixel_power * instance["min_norm"] ** power
        return factor * gradient.gradient_constant(features.shape[0]) / scale

    return bound


PROBLEM = Problem(
    sizes=SIZES,
    draw=pixelwise.draw,
    instance=pixelwise.instance,
    measured=lambda instance: pixelwise_gradient_norm(instance["features"]),
    bound=_planted(),
    operations=operations,
)


def witness(*, num_frames: int, channels: int, pixels: int) -> Instance:
    """Every pixel at the largest gradient found; m = 1. Attained for N = 3."""
    frames = gradient.frames_of(gradient.largest_gradient(num_frames).similarities, channels)
    return {"features": jnp.asarray(np.repeat(frames[:, :, None, None], pixels, axis=3)), "min_norm": jnp.asarray(1.0)}


def _one_weak_pixel() -> Outcome:
    weak = dict(witness(**dict(SIZES[0])))
    weak["features"] = weak["features"].at[1, :, 0, 0].multiply(0.5)
    return PROBLEM.outcome(weak, SIZES[0], "one pixel of norm m / 2 in one frame")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.features:
        features = jnp.asarray(record.values)
        num_frames, channels = features.shape[:2]
        size = (("num_frames", num_frames), ("channels", channels), ("pixels", pixelwise.num_pixels(features)))
        features_and_norm = {"features": features, "min_norm": pixelwise.least_channel_norm(features)}
        outcomes.append(PROBLEM.outcome(features_and_norm, size, record.label))
    return outcomes


CLAIM = Claim(
    id="C1.pixelwise-gradient",
    title="Gradient bound of the per-pixel loss",
    statement=(
        "With cosines over the channels of each of P pixels, of norm at least m, the gradient of the mean loss is at "
        "most G_N / (sqrt(P) m)."
    ),
    latex=r"\|\nabla L_{\mathrm{pix}}(F)\| \le \frac{G_N}{\sqrt P\,m},\quad m = \min_{t,p}\|F_t^p\|",
    hypotheses=(
        Hypothesis("H1", "There are N >= 3 frames and at least 2 channels."),
        Hypothesis("H2", "The channel vector of every pixel of every frame has norm at least m > 0."),
    ),
    verdict=Verdict.REPAIRED,
    tightness=Tightness.UPPER,
    origin="not in the paper; the form of its companion code",
    problem=PROBLEM,
    witnesses=witness,
    necessity={"H2": _one_weak_pixel},
    definitional={"H1": "with fewer frames the loss has no term, and with one channel it is constant (C1.companion)"},
    planted={
        "G_3 x 0.98": _planted(factor=0.98),
        "P for sqrt(P)": _planted(pixel_power=1.0),
        "m^2 for m": _planted(power=2),
    },
    reality=(
        Comparison(
            question="the claim's inequality",
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="the theorem, whose hypotheses hold for these numbers by the way they are read off",
        ),
    ),
    floor=0.999,
    floor_reason="searched at N = 3, where the bound is attained, by all pixels together",
)
