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
class CrossAttentionRecord:
    """One evaluation of a cross-attention layer (attn2), its adapter included in the weights.

    With x a position's input, c_j a token, and d = inner / num_heads the width of a head,

        q = W_Q x,  k_j = W_K c_j,  v_j = W_V c_j
        output = W_O [softmax(q_h k_h^T / sqrt(d)) v_h over the heads h] + b

    Attributes:
        label: layer, timestep and whether the adapter was on, for the report.
        inputs: (frames, positions, channels) x.
        context: (frames, tokens, width) c: [shared | frame | text], or the text alone.
        outputs: (frames, positions, channels) what the layer returned.
        query_weight, key_weight, value_weight: (inner, channels), (inner, width), (inner, width).
        output_weight, output_bias: (channels, inner) and (channels,).
        num_heads: number of heads.
        num_shared, num_frame: how many of the tokens are shared learned ones, and how many are computed from the
            frame; the rest is text.
    """

    label: str
    inputs: np.ndarray
    context: np.ndarray
    outputs: np.ndarray
    query_weight: np.ndarray
    key_weight: np.ndarray
    value_weight: np.ndarray
    output_weight: np.ndarray
    output_bias: np.ndarray
    num_heads: int
    num_shared: int
    num_frame: int

    def heads(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries (frames, heads, positions, d), keys and values (frames, heads, tokens, d)."""

        def split(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
            made = rows @ weight.T
            return made.reshape(*made.shape[:2], self.num_heads, -1).transpose(0, 2, 1, 3)

        queries = split(self.inputs, self.query_weight)
        return queries, split(self.context, self.key_weight), split(self.context, self.value_weight)

    def project(self, heads: np.ndarray) -> np.ndarray:
        """(frames, heads, positions, d) -> (frames, positions, channels): the output projection."""
        joined = heads.transpose(0, 2, 1, 3).reshape(*self.inputs.shape[:2], -1)
        return joined @ self.output_weight.T + self.output_bias


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
    cross_attentions: tuple[CrossAttentionRecord, ...] = ()
