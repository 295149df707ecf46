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


PAIR_DIRECTIONS = ("squeezed", "stretched", "steepest", "falling", "rising")
"""What the directions of a `HypothesisRecord` were sought for, in the order of its rows.

With J the derivative of e and h the step: least ||(I - hJ) v||, largest ||(I - hJ) v||, largest ||hJ v||, least and
largest <v, hJ v>, each among unit vectors v of one small Krylov space. So each is the most extreme that was found, and
not the most extreme there is.
"""


@dataclasses.dataclass(frozen=True)
class HypothesisRecord:
    """Pairs of states at one level of a round trip and what the predictor makes of them, for one frame.

    All arrays are in the variables y = x / sqrt(alphas_cumprod) of theory/inversion/schedule.py. e is the predictor
    that samples, z the state of the inversion at the upper level of the step, w that of the sampling.

    Attributes:
        label: adapter, number of steps and level, for the report.
        trip: the label of the round trip that z and w belong to.
        level: k + 1, the upper level of step k.
        num_steps: of the round trip.
        alphas_cumprod: (2,) at the levels k and k + 1.
        state: (dimension,) z.
        displacements: (directions, dimension) y - z, in the order of PAIR_DIRECTIONS; a thousandth of the state's norm
            long.
        changes: (directions, dimension) e(y) - e(z).
        error: (dimension,) w - z; zero at the last level.
        half_error_change: (dimension,) e(z + (w - z) / 2) - e(z), an evaluation that belongs to neither trajectory.
        increments: (iterations,) ||y^(j+1) - y^(j)|| of the fixed-point iteration y^(j+1) = z_k + h e(y^(j)), from the
            y^(0) at which the inversion evaluated its predictor, so that y^(1) = z.
    """

    label: str
    trip: str
    level: int
    num_steps: int
    alphas_cumprod: np.ndarray
    state: np.ndarray
    displacements: np.ndarray
    changes: np.ndarray
    error: np.ndarray
    half_error_change: np.ndarray
    increments: np.ndarray


@dataclasses.dataclass(frozen=True)
class PracticeRecord:
    """Inversion on a fine ladder without guidance and adapter; sampling on a coarse one, guided, the adapter on for some
    timesteps only.

    Attributes:
        label: numbers of steps, guidance and window, for the report.
        guidance_scale: w.
        fine_alphas_cumprod: (fine steps + 1,) of the inversion's ladder, decreasing.
        fine_predictions: (fine steps, ...) the eps that the inversion used.
        alphas_cumprod: (num_steps + 1,) of the sampling's ladder; each value is one of the fine ladder's.
        states: (num_steps + 1, ...) the inversion's latents at the levels of the sampling.
        sampling: (num_steps + 1, ...) latents on the way down; sampling[num_steps] = states[num_steps].
        sampling_predictions: (num_steps, ...) the guided eps of the step from level k + 1 to k.
        conditional, unconditional: (num_steps, ...) the base network's two predictions at states[k + 1].
        adapted_conditional, adapted_unconditional: (num_steps, ...) the same with the adapter where it is on, else
            without.
        adapter_on: (num_steps,) bool, whether the adapter is on at level k + 1.
    """

    label: str
    guidance_scale: float
    fine_alphas_cumprod: np.ndarray
    fine_predictions: np.ndarray
    alphas_cumprod: np.ndarray
    states: np.ndarray
    sampling: np.ndarray
    sampling_predictions: np.ndarray
    conditional: np.ndarray
    unconditional: np.ndarray
    adapted_conditional: np.ndarray
    adapted_unconditional: np.ndarray
    adapter_on: np.ndarray


@dataclasses.dataclass(frozen=True)
class OutputLayerRecord:
    """The weights of a network's last layers, conv(SiLU(GroupNorm(.))); see theory/inversion/bounded.py.

    Attributes:
        label: whose they are, for the report.
        kernel: (outputs, channels, 3, 3); bias: (outputs,), of the convolution with padding 1.
        gain, shift: (channels,) of the normalisation.
        num_groups: of the normalisation.
        frame_size: (height, width) of a frame, in latent pixels.
    """

    label: str
    kernel: np.ndarray
    bias: np.ndarray
    gain: np.ndarray
    shift: np.ndarray
    num_groups: int
    frame_size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Everything one run of the editor recorded for the theorems.

    Attributes:
        refined_trips: the round trip of the first frame, adapter off, at other numbers of steps.
    """

    features: tuple[FeatureRecord, ...]
    round_trips: tuple[RoundTripRecord, ...]
    adapters: tuple[AdapterRecord, ...] = ()
    two_layer_trips: tuple[TwoLayerRecord, ...] = ()
    cross_attentions: tuple[CrossAttentionRecord, ...] = ()
    hypotheses: tuple[HypothesisRecord, ...] = ()
    practice: tuple[PracticeRecord, ...] = ()
    output_layers: tuple[OutputLayerRecord, ...] = ()
    refined_trips: tuple[RoundTripRecord, ...] = ()
    trainings: tuple["TrainingRecord", ...] = ()


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """Steps of plain gradient descent on the parameters of the editor's adapter, at one noisy clip and one timestep that stay the same.

    The objective is

        noise_weight * mean (eps_hat - eps)^2 + temporal_weight * mean_l L(F^l),

    F^l the self-attention features of layer l and L the temporal loss. Losses, gradients and curvatures are the editor's own, from backward
    passes through the UNet; the features are what the same passes captured. So either can be predicted from the other.

    Attributes:
        kind: "temporal" (L alone), "published" (noise error and 0.01 L), "long" (one step of L, several times 2 / curvature), or
            "scaled" (one step of L from LoRA's standard start, B = 0, with A multiplied by `scale`).
        layers: names of the L layers.
        timestep: of all passes.
        noise_weight, temporal_weight: of the objective.
        scale: what A was multiplied by before the first step; 1 elsewhere.
        step_size: eta, the same for all steps.
        objectives, noise_losses, temporal_losses: (steps + 1,) before the first step and after each; temporal_losses is the mean over layers.
        squared_gradients: (steps,) ||grad||^2 of the objective in the parameters, before each step.
        curvatures: (steps,) g^T H g / ||g||^2 of the objective there, g the gradient; by a central difference of gradients.
        similarity_gram: (L (N - 1), L (N - 1)) inner products of the gradients of the similarities s_t in the parameters at the start, layer
            by layer; None where it was not recorded.
        features: for each layer (steps + 1, frames, channels, height, width) float64.
    """

    kind: str
    layers: tuple[str, ...]
    timestep: float
    noise_weight: float
    temporal_weight: float
    scale: float
    step_size: float
    objectives: np.ndarray
    noise_losses: np.ndarray
    temporal_losses: np.ndarray
    squared_gradients: np.ndarray
    curvatures: np.ndarray
    similarity_gram: np.ndarray | None
    features: tuple[np.ndarray, ...]

    @property
    def label(self) -> str:
        """Kind, timestep, step size and scale, for the report."""
        scaled = f", A times {self.scale:g}" if self.kind == "scaled" else ""
        return f"{self.kind} run, timestep {self.timestep:g}, step size {self.step_size:.3g}{scaled}"
