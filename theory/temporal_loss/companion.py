r"""The companion code's loss as written: its cosines are over vectors of length one, so it is flat and trains nothing.

Statement. The public code of the companion system unpacks attention features of shape (1, tokens, channels) as
(channels, height, width) and takes the cosine over the first axis, whose length is one. Then every similarity is +1 or
-1, and the gradient of the loss vanishes identically:

    \frac{1}{n} \sum |s| + \sum_t \| F_t \odot \partial_t L \| = 1 \quad \text{for all features without zeros.}

Both terms are dimensionless: the first is the mean of the n similarities' magnitudes, the second the gradient times the
features, entry by entry.

Hypotheses.
    H1  The compared vectors have length one.
    H2  No entry is zero.

**Identity**: on every instance.

In the paper: not there; a fact about the public code of arXiv 2501.04606. Proof: paper_notes.md, section C1.companion.
"""

import math
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
from theory.temporal_loss.loss import pixelwise_similarities, similarities
from theory.temporal_loss.pixelwise import dead_pixels

SIZES: tuple[Size, ...] = ((("num_frames", 3), ("tokens", 2), ("channels", 2)),)
COSINE_OPERATIONS = 16
"""Roundings of a cosine of vectors of length one: two squares, two roots, three products and a quotient, counted twice
over."""


def companion_similarities(features):
    """Similarities of neighbouring frames as the companion code computes them.

    Args:
        features: (frames, tokens, channels) JAX array; each frame is unpacked as (channels, height, width) =
            (1, tokens, channels).

    Returns:
        (frames - 1, tokens, channels), cosines over the axis of length one.
    """
    return _cosines(features[:, None, :, :])


def _cosines(unpacked):
    norms = jnp.sqrt(jnp.sum(unpacked**2, axis=1))
    return jnp.sum(unpacked[:-1] * unpacked[1:], axis=1) / (norms[:-1] * norms[1:])


def _loss(cosines):
    return jnp.mean((cosines[1:] - cosines[:-1]) ** 2)


def flatness(unpacked):
    """mean |s| + sum_t ||F_t * dL/dF_t|| of (frames, length, ...), which is 1 when the vectors have length one and no
    frame is trained."""
    gradient = jax.grad(lambda values: _loss(_cosines(values)))(unpacked)
    pull = jnp.sqrt(jnp.sum((unpacked * gradient) ** 2, axis=tuple(range(1, unpacked.ndim))))
    return jnp.mean(jnp.abs(_cosines(unpacked))) + jnp.sum(pull)


def degenerate_similarities(cosines: Any) -> str | None:
    """The audit's rule: a warning if every similarity is +1 or -1, up to rounding.

    Such a loss has no gradient. Either the compared vectors have length one, as in the companion code, or all
    neighbours are parallel.

    Args:
        cosines: floating-point NumPy, JAX or PyTorch array of any shape, as the user's own loss computes them.

    Returns:
        None if some similarity lies strictly between -1 and 1, else a warning of one sentence.

    Raises:
        ValueError: not a floating-point array, or an empty one, or a value that is NaN or, by more than rounding, above
            1 in magnitude.
    """
    if not array_api_compat.is_array_api_obj(cosines):
        raise ValueError(f"similarities are a {type(cosines).__name__}; pass a NumPy, JAX or PyTorch array")
    xp = array_api_compat.array_namespace(cosines)
    if not xp.isdtype(cosines.dtype, "real floating") or 0 in cosines.shape:
        raise ValueError(
            f"similarities have dtype {cosines.dtype} and shape {tuple(cosines.shape)}; a non-empty "
            "floating-point array is needed"
        )
    budget = relative_budget(COSINE_OPERATIONS, float(xp.finfo(cosines.dtype).eps) / 2)
    magnitudes = xp.abs(cosines)
    largest = xp.max(magnitudes).tolist()
    # A long vector's cosine rounds more than a short one's, so only what no dtype's rounding explains is refused.
    if not largest <= 1 + 2.0**-4:
        raise ValueError(f"a similarity has magnitude {largest:.6g}; cosines of at most 1 are needed")
    if xp.max(xp.abs(magnitudes - 1)).tolist() > budget:
        return None
    return (
        f"all {math.prod(cosines.shape)} similarities are +1 or -1, so the temporal loss has no "
        "gradient: the cosine is probably taken over an axis of length one; check which axis holds the channels"
    )


def similarity_warning(features: Any) -> str | None:
    """`degenerate_similarities` of features, frame by frame and, where they are images, pixel by pixel.

    Args:
        features: (frames, ...) floating-point NumPy, JAX or PyTorch array; with four axes (frames, channels, height,
            width).

    Returns:
        None, or a warning of one sentence that says which of the two losses has no gradient. Per pixel it is given for
        a single channel, and left out where a pixel is dead, which `theory.temporal_loss.dead_pixels` lists.

    Raises:
        ValueError: features without frame-wise similarities, see `similarities`.
    """
    warning = degenerate_similarities(similarities(features))
    if warning is not None:
        return f"frame by frame {warning}"
    if features.ndim != 4:
        return None
    if features.shape[1] == 1:
        return (
            "pixel by pixel all similarities are +1 or -1, so the temporal loss has no gradient: the features have one "
            "channel (shape "
            f"{tuple(features.shape)}); check which axis holds the channels"
        )
    if dead_pixels(features):
        return None
    warning = degenerate_similarities(pixelwise_similarities(features))
    return None if warning is None else f"pixel by pixel {warning}"


def _draw(key: jax.Array, *, num_frames: int, tokens: int, channels: int) -> Parameters:
    return {"features": jax.random.normal(key, (num_frames, tokens, channels))}


def _instance(parameters: Parameters, *, num_frames: int, tokens: int, channels: int) -> Instance:
    """Features without zeros, of both signs."""
    features = parameters["features"]
    features = features + jnp.where(features >= 0, 2.0**-10, -(2.0**-10))
    return {"unpacked": features[:, None, :, :]}


def _operations(*, num_frames: int, tokens: int, channels: int) -> int:
    """A cosine and its derivative, for each entry of a frame, and the sums over frames and entries.

    The two parts of a derivative, each of size |y| / |F| with |y| <= 8, cancel: the rounding that is left is 8 times a
    cosine's for every frame.
    """
    return 16 * num_frames * COSINE_OPERATIONS + num_frames * tokens * channels


PROBLEM = Problem(
    sizes=SIZES,
    draw=_draw,
    instance=_instance,
    measured=lambda instance: flatness(instance["unpacked"]),
    bound=lambda instance: jnp.asarray(1.0),
    operations=_operations,
)


def witness(*, num_frames: int, tokens: int, channels: int) -> Instance:
    """Alternating signs, where the loss is as large as it can be, and still flat."""
    signs = (-1.0) ** (np.arange(num_frames) // 2)
    return {"unpacked": jnp.asarray(np.broadcast_to(signs[:, None, None, None], (num_frames, 1, tokens, channels)))}


def witness_parameters(*, num_frames: int, tokens: int, channels: int) -> Parameters:
    # The family moves every entry away from 0 by 2^-10, exactly.
    signs = witness(num_frames=num_frames, tokens=tokens, channels=channels)["unpacked"][:, 0]
    return {"features": signs * (1 - 2.0**-10)}


def _pairs_of_one_sign(instance: Instance):
    """The share of the similarities that are +1: what the mean of s and not of |s| would count."""
    return jnp.mean(jnp.maximum(_cosines(instance["unpacked"]), 0.0))


def _pull_alone(instance: Instance):
    return flatness(instance["unpacked"]) - jnp.mean(jnp.abs(_cosines(instance["unpacked"])))


def _two_channels() -> Outcome:
    """Vectors of length two: three frames in the plane whose loss does pull."""
    vectors = jnp.asarray([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])[:, :, None, None]
    return PROBLEM.outcome({"unpacked": vectors}, SIZES[0], "vectors of length two")


def _reality(evidence: Evidence) -> Sequence[Outcome]:
    outcomes = []
    for record in evidence.features:
        frames, channels, height, width = record.values.shape
        unpacked = np.transpose(np.reshape(record.values, (frames, 1, channels, height * width)), (0, 1, 3, 2))
        size = (("num_frames", frames), ("tokens", height * width), ("channels", channels))
        outcomes.append(PROBLEM.outcome({"unpacked": jnp.asarray(unpacked)}, size, record.label))
    return outcomes


CLAIM = Claim(
    id="C1.companion",
    title="The companion code's temporal loss is flat",
    statement=(
        "As the companion code unpacks its features, every similarity is +1 or -1 and the gradient of the temporal "
        "loss is zero at all features without zeros."
    ),
    latex=r"F_t\in\mathbb{R}^{1\times h\times w}\;\Rightarrow\; s\in\{-1,1\},\ \nabla L\equiv 0",
    hypotheses=(
        Hypothesis("H1", "The compared vectors have length one."),
        Hypothesis("H2", "No entry is zero."),
    ),
    verdict=Verdict.PROVED,
    tightness=Tightness.IDENTITY,
    origin="not in the paper; its companion's public code",
    problem=PROBLEM,
    witnesses=witness,
    witness_parameters=witness_parameters,
    measured_in_words=(
        "mean magnitude of the similarities plus the gradient times the features, entry by entry (dimensionless)"
    ),
    bound_in_words="1: every similarity is +1 or -1, and no entry is trained",
    necessity={"H1": _two_channels},
    definitional={"H2": "a cosine with a zero entry is 0/0 and has no value"},
    planted={
        "the mean of s for the mean of |s|": _pairs_of_one_sign,
        "the gradient alone": _pull_alone,
        "a sum of magnitudes divided by the frames, not by the pairs": lambda instance: jnp.asarray(
            (instance["unpacked"].shape[0] - 1) / instance["unpacked"].shape[0]
        ),
        "half of the entries zero": lambda instance: jnp.asarray(0.5),
    },
    reality=(
        Comparison(
            question="Is the loss flat on the UNet's features as the companion code unpacks them, one number a vector?",
            origin=Origin.NETWORK,
            tells=Tells.IDENTITY,
            compare=_reality,
        ),
    ),
    floor=0.999,
    floor_reason="an identity: every instance attains it",
)
