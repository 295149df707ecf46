"""Evidence that is wrong on purpose: what a comparison with the real network has to notice if it calls itself a test.

Each function takes recorded evidence and returns evidence of the same shapes in which one relation is destroyed. A network with random
weights is a further kind, which the editor has to record (`theory/conftest.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from theory.evidence import Evidence, FeatureRecord, RoundTripRecord
from theory.inversion.schedule import noise_levels

SEED = 20


def _noise_like(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise of the root mean square of each leading entry."""
    axes = tuple(range(1, values.ndim))
    return rng.standard_normal(values.shape) * np.sqrt(np.mean(values**2, axis=axes, keepdims=True))


def white_noise_trip(record: RoundTripRecord, rng: np.random.Generator) -> RoundTripRecord:
    """A round trip whose every prediction is white noise of the same strength, and whose states follow from it by the DDIM step.

    With y = x / sqrt(abar) and h_k = sigma_{k+1} - sigma_k: y_{k+1} = y_k + h_k e^_k on the way up, w_k = w_{k+1} - h_k e_k on the way down.
    """
    roots = np.sqrt(np.asarray(record.alphas_cumprod, dtype=np.float64)).reshape(-1, *[1] * (record.inversion.ndim - 1))
    steps = np.diff(noise_levels(record.alphas_cumprod))
    up, down = (_noise_like(values, rng) for values in (record.inversion_predictions, record.sampling_predictions))
    inversion = [record.inversion[0] / roots[0]]
    for step, prediction in zip(steps, up, strict=True):
        inversion.append(inversion[-1] + step * prediction)
    sampling = [inversion[-1]]
    for step, prediction in zip(steps[::-1], down[::-1], strict=True):
        sampling.append(sampling[-1] - step * prediction)
    at_inversion = _noise_like(record.predictions_at_inversion, rng)
    # Level N is one state for both directions, so both have one prediction there.
    at_inversion[-1] = down[-1]
    return dataclasses.replace(
        record,
        inversion=np.stack(inversion) * roots,
        sampling=np.stack(sampling[::-1]) * roots,
        inversion_predictions=up,
        sampling_predictions=down,
        predictions_at_inversion=at_inversion,
    )


def white_noise(evidence: Evidence) -> Evidence:
    """Every prediction, feature and cross-attention output replaced by white noise of its strength.

    Round trips stay consistent.
    """
    rng = np.random.default_rng(SEED)
    return dataclasses.replace(
        evidence,
        features=tuple(dataclasses.replace(record, values=_noise_like(record.values, rng)) for record in evidence.features),
        round_trips=tuple(white_noise_trip(record, rng) for record in evidence.round_trips),
        cross_attentions=tuple(
            dataclasses.replace(record, outputs=_noise_like(record.outputs, rng))
            for record in evidence.cross_attentions
        ),
    )


def frame_order(num_frames: int) -> np.ndarray:
    """A fixed order of the frames in which as few neighbours as possible stay neighbours: 1, 3, 5, .., 0, 2, 4, .."""
    frames = np.arange(num_frames)
    return np.concatenate([frames[1::2], frames[::2]])


def permuted_frames(evidence: Evidence) -> Evidence:
    """The frames of features and cross-attention outputs in another order.

    Of each trip, the predictions at the inversion's states are in another order than the states.
    """

    def features(record: FeatureRecord) -> FeatureRecord:
        return dataclasses.replace(record, values=record.values[frame_order(len(record.values))])

    def trip(record: RoundTripRecord) -> RoundTripRecord:
        order = frame_order(record.inversion.shape[1])
        return dataclasses.replace(record, predictions_at_inversion=record.predictions_at_inversion[:, order])

    return dataclasses.replace(
        evidence,
        features=tuple(features(record) for record in evidence.features),
        round_trips=tuple(trip(record) for record in evidence.round_trips),
        cross_attentions=tuple(
            dataclasses.replace(record, outputs=record.outputs[frame_order(len(record.outputs))])
            for record in evidence.cross_attentions
        ),
    )


def another_layer(evidence: Evidence) -> Evidence:
    """Each feature record under the label of the next one, so that every layer and level holds another one's features."""
    values = [record.values for record in evidence.features]
    return dataclasses.replace(
        evidence,
        features=tuple(
            dataclasses.replace(record, values=values[(index + 1) % len(values)]) for index, record in enumerate(evidence.features)
        ),
    )


SCRAMBLES: Mapping[str, Callable[[Evidence], Evidence]] = {
    "white noise for predictions and features": white_noise,
    "frames permuted": permuted_frames,
    "features of another layer": another_layer,
}
"""Name -> evidence that is wrong in that way."""

UNTRAINED = "an untrained network"
"""The name of evidence recorded from the same network with random weights."""


def scrambled(evidence: Evidence, untrained: Evidence | None = None) -> dict[str, Evidence]:
    """All scrambled evidence by name.

    Args:
        untrained: what the same network with random weights recorded on the same clip; None leaves that kind out.
    """
    found = {name: scramble(evidence) for name, scramble in SCRAMBLES.items()}
    return found if untrained is None else found | {UNTRAINED: untrained}
