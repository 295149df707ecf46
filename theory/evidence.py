"""What the real network hands to the theorems: plain float64 arrays, recorded by the editor and never recomputed here."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureRecord:
    """Self-attention (attn1) output of one layer on a clip.

    Attributes:
        label: layer, timestep and whether the adapter was on, for the report.
        values: (frames, channels, height, width) float64.
    """

    label: str
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class RoundTripRecord:
    """One DDIM inversion followed by sampling, in float64. Level 0 is the data end, level num_steps the noise end.

    Attributes:
        label: adapter, guidance and number of steps, for the report.
        alphas_cumprod: (num_steps + 1,) the schedulers' own values at the levels, decreasing.
        inversion: (num_steps + 1, ...) latents x_k on the way up.
        sampling: (num_steps + 1, ...) latents on the way down; sampling[num_steps] = inversion[num_steps].
        inversion_predictions: (num_steps, ...) the eps used by the step from level k to k + 1.
        sampling_predictions: (num_steps, ...) the eps used by the step from level k + 1 to k.
        predictions_at_inversion: (num_steps, ...) eps at the inversion's latents of level k + 1, with the timestep of that level.
    """

    label: str
    alphas_cumprod: np.ndarray
    inversion: np.ndarray
    sampling: np.ndarray
    inversion_predictions: np.ndarray
    sampling_predictions: np.ndarray
    predictions_at_inversion: np.ndarray


@dataclasses.dataclass(frozen=True)
class AdapterRecord:
    """LoRA in the output projection of a self-attention, whose outputs (W + factor B A) X + bias are features.

    Attributes:
        label: layer and timestep, for the report.
        inputs: (frames, inputs, positions) X, what the projection was given.
        outputs: (frames, outputs, positions) what it returned, the adapter included.
        down, up: A (rank, inputs) and B (outputs, rank).
        factor: alpha / rank.
    """

    label: str
    inputs: np.ndarray
    outputs: np.ndarray
    down: np.ndarray
    up: np.ndarray
    factor: float


@dataclasses.dataclass(frozen=True)
class TwoLayerRecord:
    """A round trip of a trained network with one hidden layer, and its weights; see theory/inversion/two_layer.py.

    The network acts on each frame by itself. In the variables y of a frame, at level k,

        e_k(y) = skip[k] y + outer tanh(scales[k] inner y + biases[k]) + offsets[k]

    Attributes:
        trip: (num_steps + 1, frames, ...) as recorded by the editor's inversion code.
        skip, scales: (num_steps + 1,) float64.
        inner: (units, dimension); biases: (num_steps + 1, units).
        outer: (dimension, units); offsets: (num_steps + 1, dimension).
    """

    trip: RoundTripRecord
    skip: np.ndarray
    inner: np.ndarray
    scales: np.ndarray
    biases: np.ndarray
    outer: np.ndarray
    offsets: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything one run of the editor recorded for the theorems."""

    features: tuple[FeatureRecord, ...]
    round_trips: tuple[RoundTripRecord, ...]
    adapters: tuple[AdapterRecord, ...] = ()
    two_layer_trips: tuple[TwoLayerRecord, ...] = ()
