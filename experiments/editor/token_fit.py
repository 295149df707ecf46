r"""Prompt tokens fitted to a target: the look of another prompt, layer by layer, or the noise of a clip.

For the look, every cross-attention layer is taken with the inputs that it has under the target prompt. Its heads'
outputs there,

    T = softmax(q k_j / sqrt(d)) v_j over the target text's tokens c_j,   k_j = W_K c_j, v_j = W_V c_j,

are the targets of the same queries over [learned tokens | source text], and the tokens, one set for all layers,
minimise

    mean_l  ||O_l - T_l||^2 / ||B_l - T_l||^2,   B_l the outputs over the source text alone,

so 1 is what no token at all leaves, and 0 is the look itself: if every layer's outputs are the target's, so are the
next layer's inputs.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.editor.cross_attention import captured_cross_attention, cross_attention_layers, layer_weights
from experiments.editor.editor import Editor
from experiments.editor.tokens import INITIAL_DEVIATION
from theory.tokens import attend, attention_sensitivity, rank_error


class FreeTokens(torch.nn.Module):
    """Learned tokens: `shared` (num_shared, dim) for all frames and `own` (frames, num_own, dim), one set a frame.

    Both start at N(0, 0.02^2), drawn in float32 on the CPU.
    """

    def __init__(self, *, num_shared: int, num_own: int, num_frames: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.shared = torch.nn.Parameter(torch.randn((num_shared, dim), generator=generator) * INITIAL_DEVIATION)
        self.own = torch.nn.Parameter(torch.randn((num_frames, num_own, dim), generator=generator) * INITIAL_DEVIATION)

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return self.shared.numel() + self.own.numel()

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """(1, text tokens, dim) -> (frames, tokens, dim): [shared | own | text]."""
        count = len(self.own)
        return torch.cat(
            [self.shared.to(text.dtype).expand(count, -1, -1), self.own.to(text.dtype), text.expand(count, -1, -1)],
            dim=1,
        )


@dataclass(frozen=True)
class FrozenLayer:
    """One cross-attention layer at fixed inputs.

    Attributes:
        name: module path.
        queries: (frames, heads, positions, d).
        key_weight, value_weight: (heads, d, width) and (heads, dv, width).
        targets: (frames, heads, positions, dv) T, under the target prompt.
        text_values: (heads, text tokens, dv) of the source prompt.
        distance: ||B - T||_F, what the source prompt alone leaves.
    """

    name: str
    queries: torch.Tensor
    key_weight: torch.Tensor
    value_weight: torch.Tensor
    targets: torch.Tensor
    text_values: torch.Tensor
    distance: float

    def outputs(self, context: torch.Tensor) -> torch.Tensor:
        """The heads' outputs over a context (frames, tokens, width): (frames, heads, positions, dv)."""
        keys = torch.einsum("hdw,fnw->fhnd", self.key_weight, context)
        values = torch.einsum("hdw,fnw->fhnd", self.value_weight, context)
        return attend(self.queries, keys, values)

    def to(self, dtype: torch.dtype) -> "FrozenLayer":
        """The same layer in another dtype."""
        tensors = (self.queries, self.key_weight, self.value_weight, self.targets, self.text_values)
        return FrozenLayer(self.name, *(tensor.to(dtype) for tensor in tensors), self.distance)


def frozen_layers(editor: Editor, latents: torch.Tensor, timestep: int, source: str, target: str) -> list[FrozenLayer]:
    """Every cross-attention layer of one evaluation under the target prompt, adapter off.

    Raises:
        ValueError: what `Editor.predict_noise` and `cross_attention.layer_weights` raise.
    """
    unet = editor.pipeline.unet
    names = cross_attention_layers(unet)
    with torch.no_grad(), captured_cross_attention(unet, names) as calls:
        editor.predict_noise(latents, timestep, target)
    layers = []
    with torch.no_grad():
        source_text = editor.encode_prompt(source)
        for name in names:
            weights, num_heads = layer_weights(unet, name), unet.get_submodule(name).heads
            split = {
                part: weights[f"{part}_weight"].unflatten(0, (num_heads, -1)) for part in ("query", "key", "value")
            }
            queries = torch.einsum("hdc,fpc->fhpd", split["query"], calls[name].inputs)
            values = torch.einsum("hdw,nw->hnd", split["value"], source_text[0])
            layer = FrozenLayer(name, queries, split["key"], split["value"], queries, values, 0.0)
            targets = layer.outputs(calls[name].context)
            distance = float(torch.linalg.norm(layer.outputs(source_text.expand(len(queries), -1, -1)) - targets))
            layers.append(FrozenLayer(name, queries, split["key"], split["value"], targets, values, distance))
    return layers


@dataclass(frozen=True)
class Fit:
    """What fitting came to.

    Attributes:
        losses: (steps + 1,) float64, before each step and after the last.
        seconds: of the steps, by the wall clock.
    """

    losses: np.ndarray
    seconds: float


def fit(module: torch.nn.Module, loss: Callable[[Any, int], torch.Tensor], *, steps: int, learning_rate: float) -> Fit:
    """Adam with a cosine-annealed rate on loss(module, step), in place.

    Raises:
        ValueError: a loss that is not finite; the message names the step.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.numel()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    losses, began = [], time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad(set_to_none=True)
        value = loss(module, step)
        if not torch.isfinite(value):
            raise ValueError(
                f"step {step}: the loss is {float(value.detach())}; lower the learning rate (it is {learning_rate:g})"
            )
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    seconds = time.perf_counter() - began
    with torch.no_grad():
        losses.append(float(loss(module, steps)))
    return Fit(np.array(losses), seconds)


def look_loss(layers: list[FrozenLayer], text: torch.Tensor) -> Callable[[FreeTokens, int], torch.Tensor]:
    """mean_l ||O_l - T_l||^2 / ||B_l - T_l||^2, as a function of the tokens."""

    def loss(tokens: FreeTokens, step: int) -> torch.Tensor:
        context = tokens(text)
        return torch.stack(
            [torch.sum((layer.outputs(context) - layer.targets) ** 2) / layer.distance**2 for layer in layers]
        ).mean()

    return loss


def relative_errors(layers: list[FrozenLayer], tokens: FreeTokens, text: torch.Tensor) -> list[float]:
    """||O_l - T_l|| / ||B_l - T_l|| of every layer, in the layers' dtype."""
    with torch.no_grad():
        context = tokens(text)
        return [float(torch.linalg.norm(layer.outputs(context) - layer.targets)) / layer.distance for layer in layers]


def least_errors(layers: list[FrozenLayer], num_tokens: int, *, per_frame: bool) -> list[float]:
    """A proved lower bound on `relative_errors` for every choice of the tokens, layer by layer (C5.rank).

    sqrt( sum over heads (and frames) of rank_error(T, n, text values)^2 ) / ||B - T||

    Args:
        num_tokens: learned tokens that a frame sees.
        per_frame: whether each frame has tokens of its own; otherwise one affine space has to serve all frames.
    """
    bounds = []
    for layer in layers:
        total = 0.0
        for head in range(layer.targets.shape[1]):
            rows = layer.targets[:, head]
            groups = rows if per_frame else [rows.flatten(0, 1)]
            total += sum(rank_error(group, num_tokens, layer.text_values[head]) ** 2 for group in groups)
        bounds.append(math.sqrt(total) / layer.distance)
    return bounds


@dataclass(frozen=True)
class Retrace:
    """Sampling that has to retrace an inversion: at every level the prediction that the inversion made.

    Attributes:
        latents: (N, frames, ...) the inversion's latents z_1, .., z_N.
        timesteps: (N,) their timesteps.
        wanted: (N, frames, ...) the predictions of the inversion's steps from level k to k + 1, k = 0, .., N - 1.
        off: (N,) ||eps(z_{k+1}) - wanted_k||^2 without tokens and adapter, what the losses are relative to.
    """

    latents: torch.Tensor
    timesteps: np.ndarray
    wanted: torch.Tensor
    off: np.ndarray

    def loss(self, predict: Callable[[torch.Tensor, int], torch.Tensor], step: int) -> torch.Tensor:
        """||eps(z_{k+1}, t_{k+1}) - wanted_k||^2 / off_k at the level of this step; the levels take turns, 3 apart."""
        level = (3 * step) % len(self.timesteps)
        return (
            torch.sum((predict(self.latents[level], int(self.timesteps[level])) - self.wanted[level]) ** 2)
            / self.off[level]
        )


def retrace(editor: Editor, frames: torch.Tensor, prompt: str, num_steps: int) -> Retrace:
    """The inversion of some frames, as `Retrace` takes it.

    Raises:
        ValueError: what `Editor.invert` raises.
    """
    inversion = editor.invert(frames, prompt, num_steps=num_steps)
    latents, timesteps = inversion.latents[1:], inversion.timesteps[1:]
    with torch.no_grad():
        off = [
            float(torch.sum((editor.predict_noise(x, int(timestep), prompt) - wanted) ** 2))
            for x, timestep, wanted in zip(latents, timesteps, inversion.predictions, strict=True)
        ]
    return Retrace(latents, timesteps, inversion.predictions, np.array(off))


def sampled_sensitivity(
    editor: Editor, latents: torch.Tensor, timestep: int, prompt: str, *, positions: int = 16, iterations: int = 20
) -> list[dict]:
    """Certified sensitivity of every cross-attention layer, adapter off, beside the largest one found at recorded
    positions.

    In the inputs: the largest singular value of the exact Jacobian at a position. In the tokens: the largest
    sum_j ||J_j^T w|| over unit vectors w, J_j the Jacobian in token j, approached by alternating maximisation, so a
    lower bound.

    Returns:
        One dict a layer: "layer", "certified" and "sampled" with "inputs" and "tokens", and the radii "input_radius",
        "token_radius" of the ball that holds what was recorded.
    """
    unet, found = editor.pipeline.unet, []
    names = cross_attention_layers(unet)
    with torch.no_grad(), captured_cross_attention(unet, names) as calls:
        editor.predict_noise(latents, timestep, prompt)
    for name in names:
        weights, num_heads = layer_weights(unet, name), unet.get_submodule(name).heads
        inputs, tokens = calls[name].inputs.flatten(0, 1), calls[name].context[0]
        input_radius, token_radius = (float(torch.linalg.norm(rows, dim=-1).max()) for rows in (inputs, tokens))
        certified = attention_sensitivity(
            *(weights[f"{part}_weight"] for part in ("query", "key", "value", "output")),
            num_heads=num_heads,
            input_radius=input_radius,
            token_radius=token_radius,
        )
        chosen = inputs[torch.linspace(0, len(inputs) - 1, positions).long()]
        largest = [_largest_change(weights, num_heads, x, tokens, iterations) for x in chosen]
        found.append(
            {
                "layer": name,
                "certified": {"inputs": certified.inputs, "tokens": certified.tokens},
                "sampled": {"inputs": max(one for one, _ in largest), "tokens": max(other for _, other in largest)},
                "input_radius": input_radius,
                "token_radius": token_radius,
            }
        )
    return found


def _largest_change(
    weights: dict[str, torch.Tensor], num_heads: int, x: torch.Tensor, tokens: torch.Tensor, iterations: int
) -> tuple[float, float]:
    """The largest change of the output at one position per change of its input, and a lower bound on that per largest
    change of a token."""
    by_input, by_tokens = torch.func.jacrev(lambda a, c: _one_output(weights, num_heads, a, c), argnums=(0, 1))(
        x, tokens
    )
    w = torch.linalg.svd(by_tokens.flatten(1))[0][:, 0]
    largest = 0.0
    for _ in range(iterations):
        pulled = torch.einsum("cnd,c->nd", by_tokens, w)
        largest = max(largest, float(torch.linalg.norm(pulled, dim=1).sum()))
        w = torch.einsum("cnd,nd->c", by_tokens, torch.nn.functional.normalize(pulled, dim=1))
        w = torch.nn.functional.normalize(w, dim=0)
    return float(torch.linalg.matrix_norm(by_input, ord=2)), largest


def _one_output(
    weights: dict[str, torch.Tensor], num_heads: int, x: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The layer's output at one position, by its formula, so that it can be differentiated."""
    query, keys, values = (
        weights["query_weight"] @ x,
        tokens @ weights["key_weight"].T,
        tokens @ weights["value_weight"].T,
    )
    parts = (part.unflatten(-1, (num_heads, -1)) for part in (query, keys, values))
    query, keys, values = next(parts), next(parts), next(parts)
    logits = torch.einsum("hd,nhd->hn", query, keys) / math.sqrt(query.shape[1])
    heads = torch.einsum("hn,nhd->hd", torch.softmax(logits, dim=1), values)
    return weights["output_weight"] @ heads.flatten() + weights["output_bias"]
