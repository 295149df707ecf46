r"""Gradient bound of the per-pixel loss: it shrinks with the square root of the number of pixels.

Statement. With N >= 3 frames, P pixels, and every pixel's channel vector of norm at least m > 0,

    \| \nabla L_{pix}(F) \| \le \frac{G_N}{\sqrt P \, m}, \qquad L_{pix} = \frac{1}{P} \sum_p L(F^p),

with G_N of C1.gradient. No pixel's part is larger than G_N / (P m), and the parts of different pixels are orthogonal.

Hypotheses.
    H1  There are N >= 3 frames.
    H2  The channel vector of every pixel of every frame has norm at least m > 0: no pixel is dead.

**Attained** for N = 3 with 2 channels or more, by pixels that are all extremal. For N >= 4 an upper bound, as close as
C1.gradient is (the largest gradient found is 0.942 of it at N = 4, 0.977 at N = 6).

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
    Parameters,
    Problem,
    Size,
    Tells,
    Tightness,
    Verdict,
)
from theory.evidence import Evidence
from theory.temporal_loss import gradient, instances, pixelwise, recorded
from theory.temporal_loss.loss import temporal_loss

SIZES: tuple[Size, ...] = tuple((("num_frames", num_frames), ("channels", 2), ("pixels", 4)) for num_frames in (3, 4))


def pixelwise_gradient_norm(features):
    """||grad L_pix|| of (frames, channels, height, width) by automatic differentiation; JAX."""
    return jnp.sqrt(jnp.sum(jax.grad(lambda values: temporal_loss(values, similarity="pixel"))(features) ** 2))


def operations(*, num_frames: int, channels: int, pixels: int) -> int:
    """As for whole frames of C P entries, and the mean over pixels."""
    return instances.gradient_operations(num_frames=num_frames, dimension=channels * pixels) + pixels


def _planted(pixel_power: float = 0.5, power: int = 1, shift: int = 0):
    def bound(instance: Instance):
        features = instance["features"]
        scale = pixelwise.num_pixels(features) ** pixel_power * instance["min_norm"] ** power
        return gradient.gradient_constant(features.shape[0] + shift) / scale

    return bound


def _largest_norm(instance: Instance):
    largest = jnp.sqrt(jnp.max(jnp.sum(instance["features"] ** 2, axis=1)))
    return _planted()({**instance, "min_norm": largest})


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


def witness_parameters(*, num_frames: int, channels: int, pixels: int) -> Parameters:
    vectors = jnp.transpose(witness(num_frames=num_frames, channels=channels, pixels=pixels)["features"][:, :, 0, :], (2, 0, 1))
    return {**jax.vmap(instances.parameters_of)(vectors), "log_min_norm": jnp.asarray(0.0)}


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


TANGENT_TOLERANCE = 0.75


def _gradient_after_a_step(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in recorded.runs(evidence, "temporal"):
        for label, before, after in recorded.layer_steps(record):
            found = recorded.expansion(before, after, "pixel")
            bound = TANGENT_TOLERANCE * found["gradient_change"]
            outcomes.append(recorded.compared(label, found["gradient_error"], bound, before=before, after=after))
    return outcomes


CLAIM = Claim(
    id="C1.pixelwise-gradient",
    title="Gradient bound of the per-pixel loss",
    statement=(
        "With cosines over the channels of each of P pixels, of norm at least m, the gradient of the mean loss is at "
        "most G_N / (sqrt(P) m); for N = 3 and 2 channels or more some features attain it."
    ),
    latex=r"\|\nabla L_{\mathrm{pix}}(F)\| \le \frac{G_N}{\sqrt P\,m},\quad m = \min_{t,p}\|F_t^p\|",
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
    measured_in_words="norm of the gradient of the mean per-pixel loss in the features, in units of 1 / (feature norm)",
    bound_in_words=(
        "G_N / (sqrt(P) m), P the number of pixels and m the least norm of a pixel's channel vector in any frame, in "
        "the same units"
    ),
    sharp_for=lambda num_frames, **_: num_frames == 3,
    sharpness=(
        "attained for N = 3 and every P, with 2 channels or more. For N >= 4 an upper bound: the largest gradient "
        "found is 0.942 (N = 4), 0.977 (6) "
        "of it, attained by explicit features"
    ),
    necessity={"H2": _one_weak_pixel},
    definitional={"H1": "with fewer than three frames the loss is an empty mean, 0/0, and has no value"},
    planted={
        "P for sqrt(P)": _planted(pixel_power=1.0),
        "m^2 for m": _planted(power=2),
        "the constant of N + 2 frames": _planted(shift=2),
        "the largest norm for the least": _largest_norm,
    },
    reality=(
        Comparison(
            question=(
                "Is ||grad L_pix|| at the UNet's features at most G_N / (sqrt(P) m), m the least norm of a pixel's "
                "channel vector?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.IMPLIED,
            compare=_reality,
            because="C1.pixelwise-gradient; that no pixel is dead is read off the same features",
        ),
        Comparison(
            question=(
                "Does the Hessian of the per-pixel loss at the features before a recorded training step, applied to "
                "the step, predict the change of "
                "its gradient, layer by layer, to within three quarters?"
            ),
            origin=Origin.NETWORK,
            tells=Tells.TEST,
            compare=_gradient_after_a_step,
        ),
    ),
    relies_on=("C1.gradient",),
    floor=0.999,
    floor_reason="asked for at N = 3, where the bound is attained, by all pixels together",
)
