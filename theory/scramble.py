"""Evidence that is wrong on purpose: what a comparison with the real network has to notice if it calls itself a test.

Each function takes recorded evidence and returns evidence of the same shapes in which one relation is destroyed. A network with random
weights is a further kind, which the editor has to record (`theory/conftest.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from theory.evidence import (
    Evidence,
    FeatureRecord,
    HypothesisRecord,
    PracticeRecord,
    RoundTripRecord,
    TrainingRecord,
)
from theory.inversion.schedule import noise_levels

SEED = 20


def _noise_like(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise of the root mean square of each leading entry."""
    axes = tuple(range(1, values.ndim))
    return rng.standard_normal(values.shape) * np.sqrt(np.mean(values**2, axis=axes, keepdims=True))


def white_noise_trip(record: RoundTripRecord, rng: np.random.Generator) -> RoundTripRecord:
    """A round trip whose every prediction is white noise of the same strength, and whose states follow from it by the DDIM step.

    With y = x / sqrt(abar) and h_k = sigma_{k+1} - sigma_k: y_{k+1} = y_k + h_k e^_k on the way up, w_k = w_{k+1} - h_k e_k on the way down.
    The way up is one noise for all records, so that trips which share an inversion still do.
    """
    roots = np.sqrt(np.asarray(record.alphas_cumprod, dtype=np.float64)).reshape(-1, *[1] * (record.inversion.ndim - 1))
    steps = np.diff(noise_levels(record.alphas_cumprod))
    up = _noise_like(record.inversion_predictions, np.random.default_rng(SEED))
    down = _noise_like(record.sampling_predictions, rng)
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


def white_noise_training(record: TrainingRecord, rng: np.random.Generator) -> TrainingRecord:
    """A run whose every captured frame is white noise of the same strength; losses and gradients stay as the editor recorded them."""

    def noise(values: np.ndarray) -> np.ndarray:
        return _noise_like(values.reshape(-1, *values.shape[2:]), rng).reshape(values.shape)

    return dataclasses.replace(record, features=tuple(noise(values) for values in record.features))


def white_noise_pairs(record: HypothesisRecord, rng: np.random.Generator) -> HypothesisRecord:
    """Pairs of states at which the predictor's change is white noise of the same strength."""
    return dataclasses.replace(
        record,
        changes=_noise_like(record.changes, rng),
        half_error_change=_noise_like(record.half_error_change[None], rng)[0],
    )


def white_noise_practice(record: PracticeRecord, rng: np.random.Generator) -> PracticeRecord:
    """The practice of the released tools with every prediction white noise, on the states that the noise leads to.

    Where the adapter is off its predictions are the base network's, in noise as well.
    """
    fine_roots, roots = (
        np.sqrt(np.asarray(values, dtype=np.float64)).reshape(-1, *[1] * (record.states.ndim - 1))
        for values in (record.fine_alphas_cumprod, record.alphas_cumprod)
    )
    fine_steps, steps = np.diff(noise_levels(record.fine_alphas_cumprod)), np.diff(noise_levels(record.alphas_cumprod))
    fine, used, conditional, unconditional = (
        _noise_like(values, rng)
        for values in (record.fine_predictions, record.sampling_predictions, record.conditional, record.unconditional)
    )
    rises = fine_steps.reshape(-1, *[1] * (fine.ndim - 1)) * fine
    path = np.concatenate([record.states[:1] / roots[0], record.states[0] / roots[0] + np.cumsum(rises, axis=0)])
    states = path[np.searchsorted(-fine_roots.ravel(), -roots.ravel())]
    falls = steps.reshape(-1, *[1] * (used.ndim - 1)) * used
    sampling = np.concatenate([states[-1] - np.cumsum(falls[::-1], axis=0)[::-1], states[-1:]])
    on = record.adapter_on.reshape(-1, *[1] * (used.ndim - 1))
    return dataclasses.replace(
        record,
        fine_predictions=fine,
        states=states * roots,
        sampling=sampling * roots,
        sampling_predictions=used,
        conditional=conditional,
        unconditional=unconditional,
        adapted_conditional=np.where(on, _noise_like(record.adapted_conditional, rng), conditional),
        adapted_unconditional=np.where(on, _noise_like(record.adapted_unconditional, rng), unconditional),
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
        trainings=tuple(white_noise_training(record, rng) for record in evidence.trainings),
        hypotheses=tuple(white_noise_pairs(record, rng) for record in evidence.hypotheses),
        practice=tuple(white_noise_practice(record, rng) for record in evidence.practice),
        refined_trips=tuple(white_noise_trip(record, rng) for record in evidence.refined_trips),
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
    """The frames of features and cross-attention outputs in another order; of each trip, the predictions at the inversion's states in
    another order than the states.

    Of a training run the captured frames change places, and its losses and gradients stay those of the order that was trained on.
    """

    def features(record: FeatureRecord) -> FeatureRecord:
        return dataclasses.replace(record, values=record.values[frame_order(len(record.values))])

    def trip(record: RoundTripRecord) -> RoundTripRecord:
        order = frame_order(record.inversion.shape[1])
        return dataclasses.replace(record, predictions_at_inversion=record.predictions_at_inversion[:, order])

    def training(record: TrainingRecord) -> TrainingRecord:
        order = frame_order(record.features[0].shape[1])
        return dataclasses.replace(record, features=tuple(values[:, order] for values in record.features))

    return dataclasses.replace(
        evidence,
        features=tuple(features(record) for record in evidence.features),
        round_trips=tuple(trip(record) for record in evidence.round_trips),
        trainings=tuple(training(record) for record in evidence.trainings),
        cross_attentions=tuple(
            dataclasses.replace(record, outputs=record.outputs[frame_order(len(record.outputs))])
            for record in evidence.cross_attentions
        ),
    )


def another_layer(evidence: Evidence) -> Evidence:
    """Each feature record, and each level's pairs of states, under the label of the next one: every layer and level holds another one's.

    Of a training run each layer gets the next one's features after the first step, and keeps its own before it.
    """
    values = [record.values for record in evidence.features]
    pairs = [(record.displacements, record.changes, record.half_error_change) for record in evidence.hypotheses]
    shifted = [pairs[(index + 1) % len(pairs)] for index in range(len(pairs))]

    def next_of_its_shape(features: tuple[np.ndarray, ...], index: int) -> np.ndarray:
        later = (*features[index + 1 :], *features[: index + 1])
        return next(values for values in later if values.shape == features[index].shape)

    def training(record: TrainingRecord) -> TrainingRecord:
        features = tuple(
            np.concatenate([own[:1], next_of_its_shape(record.features, index)[1:]]) for index, own in enumerate(record.features)
        )
        return dataclasses.replace(record, features=features)

    return dataclasses.replace(
        evidence,
        features=tuple(
            dataclasses.replace(record, values=values[(index + 1) % len(values)]) for index, record in enumerate(evidence.features)
        ),
        trainings=tuple(training(record) for record in evidence.trainings),
        hypotheses=tuple(
            dataclasses.replace(record, displacements=displacements, changes=changes, half_error_change=half)
            for record, (displacements, changes, half) in zip(evidence.hypotheses, shifted, strict=True)
        ),
    )


SCRAMBLES: Mapping[str, Callable[[Evidence], Evidence]] = {
    "white noise for predictions and features": white_noise,
    "frames permuted": permuted_frames,
    "features of another layer, pairs of another level": another_layer,
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
