r"""The temporal loss as a function of the adapter's parameters: its gradient, its sharpness and the steps it bears.

The loss is the mean over the chosen layers of the temporal loss of their features, at given latents and one timestep,
with the adapter on: the temporal term of `objective.train_adapter` without its weight. It is a mean of M squares

    L(\theta) = 1/M \sum_i d_i(\theta)^2,   d = the differences s_{t+1} - s_t of the similarities of every layer,

so its gradient and the norm of its Gauss-Newton matrix follow from the gradients of the M residuals alone
(theory/descent/gauss_newton.py). These come from one backward pass a similarity and frame, of a graph of one frame: the
memory for activations does not grow with the number of frames.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from experiments.editor.capture import captured_features, select_layers
from experiments.editor.editor import Editor
from experiments.kept_state import NOTHING, KeptState
from theory.descent.gauss_newton import GaussNewton, gauss_newton_model

Progress = Callable[[int, int], None]

MINIMUM_FRAMES = 3
GROWTH = 2.0**0.25
"""Ratio of neighbouring step sizes that `safe_step` tries."""
LONGEST_SEARCH = 80
"""Step sizes tried at most: a factor of 10^6 above or below the first."""


@dataclasses.dataclass(frozen=True)
class AdapterCurvature:
    """First and second order of the temporal loss in the adapter's parameters, at one timestep.

    Attributes:
        model: loss, squared gradient, Gauss-Newton sharpness and the curvature along the gradient.
        gradient: by the names of `Editor.adapter_parameters`, on the CPU, in the parameters' dtype.
        num_parameters: how many parameters there are.
    """

    model: GaussNewton
    gradient: dict[str, torch.Tensor]
    num_parameters: int


@dataclasses.dataclass(frozen=True)
class SafeStep:
    """The step sizes of plain gradient descent that were tried.

    Attributes:
        largest: the largest tried such that it and every smaller one tried lowered the loss; 0 where none did.
        unsafe: the smallest tried that did not; infinite where the search ended before one was found.
        tried: (step size, loss after the step), in the order of the step sizes.
    """

    largest: float
    unsafe: float
    tried: tuple[tuple[float, float], ...]


def temporal_losses(
    editor: Editor,
    latents: torch.Tensor,
    timestep: int,
    prompt: str | torch.Tensor,
    *,
    layers: str | Sequence[str] | None = None,
    frames_at_once: int | None = None,
) -> float:
    """L, with the adapter on; the similarities are formed in float64.

    Raises:
        ValueError: what `Editor.reduced_features` raises; fewer than 3 frames; a frame without a similarity.
    """
    reduced = editor.reduced_features(
        latents, timestep, prompt, adapter=True, layers=layers, frames_at_once=frames_at_once
    )
    losses = [
        np.mean(np.diff(features.gram().neighbours / (features.norms[:-1] * features.norms[1:])) ** 2)
        for features in reduced.values()
    ]
    return float(np.mean(losses))


def adapter_curvature(
    editor: Editor,
    latents: torch.Tensor,
    timestep: int,
    prompt: str | torch.Tensor,
    *,
    layers: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    state: KeptState = NOTHING,
) -> AdapterCurvature:
    """Gradient and Gauss-Newton sharpness of the temporal loss in the parameters of adapter and prompt tokens.

    Args:
        editor: with an adapter; it is on.
        latents: (frames, channels, height, width), at least 3 frames, of the noise level of `timestep`.
        progress: called with (frames done, frames).
        state: where each pair of frames is kept when it is done; pairs that are there are not computed again. It has to
            be of these very arguments.

    Held at any time are the gradients of the similarities, layers * frames vectors of the parameters' number, and the
    graphs of two frames.

    Raises:
        ValueError: no adapter, fewer than 3 frames, what `Editor.predict_noise` and `capture.select_layers` raise; a
            frame of zeros, or a gradient that is not finite.
    """
    parameters = editor.adapter_parameters()
    if not parameters:
        raise ValueError("the editor has no adapter whose loss could curve; call add_adapter or load_adapter first")
    if len(latents) < MINIMUM_FRAMES:
        raise ValueError(f"{len(latents)} frames were given, at least {MINIMUM_FRAMES} are needed; give a longer clip")
    names = select_layers(editor.pipeline.unet, layers)
    weights = list(parameters.values())
    count = sum(weight.numel() for weight in weights)
    # Similarity t of layer l in row l (N - 1) + t.
    num_pairs = len(latents) - 1
    similarities = np.zeros((len(names), num_pairs))
    dtype = torch.float64 if editor.dtype == torch.float64 else torch.float32
    rows = torch.zeros(len(names) * num_pairs, count, dtype=dtype)
    first, kept = 0, _kept_pair(state, 0, len(names), count)
    while kept is not None:
        _put_pair(first, kept["similarities"], torch.from_numpy(kept["rows"]), similarities, rows)
        first += 1
        kept = _kept_pair(state, first, len(names), count) if first < num_pairs else None
    frames = _frames_with_graphs(editor, latents, timestep, prompt, names, first) if first < num_pairs else iter([{}])
    before = next(frames)
    for pair, after in enumerate(frames, start=first):
        found, gradients = _pair_gradients(before, after, names, weights, pair, count, dtype)
        _put_pair(pair, found, gradients, similarities, rows)
        state.put(f"pair{pair:05d}", {"similarities": found, "rows": gradients.numpy()})
        before = after
        if progress is not None:
            progress(pair + 2, num_pairs + 1)
    if not torch.isfinite(rows).all():
        raise ValueError("the gradient of a similarity is not finite; use a wider dtype or repair the adapter")
    differences = np.diff(similarities, axis=1)
    jacobian = rows.reshape(len(names), num_pairs, count)
    jacobian = (jacobian[:, 1:] - jacobian[:, :-1]).reshape(-1, count)
    residuals = differences.reshape(-1)
    model = gauss_newton_model(residuals, _gram(jacobian))
    flat = torch.from_numpy(2 / residuals.size * residuals).to(jacobian.dtype) @ jacobian
    return AdapterCurvature(model, _unflatten(flat, parameters), count)


def _kept_pair(state: KeptState, pair: int, num_layers: int, count: int) -> dict[str, np.ndarray] | None:
    """What was kept of a pair, if it is what this measurement would have kept."""
    kept = state.get(f"pair{pair:05d}")
    shapes = {"similarities": (num_layers,), "rows": (num_layers, count)}
    fits = kept is not None and {name: array.shape for name, array in kept.items()} == shapes
    return kept if fits else None


def _put_pair(
    pair: int, found: np.ndarray, gradients: torch.Tensor, similarities: np.ndarray, rows: torch.Tensor
) -> None:
    """Files the similarities and gradients of a pair, one a layer, into those of all pairs."""
    num_pairs = similarities.shape[1]
    similarities[:, pair] = found
    rows[pair::num_pairs] = gradients


def _pair_gradients(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    names: Sequence[str],
    weights: Sequence[torch.nn.Parameter],
    pair: int,
    count: int,
    dtype: torch.dtype,
) -> tuple[np.ndarray, torch.Tensor]:
    """The similarity of two frames in every layer, (layers,), and its gradient in the weights, (layers, count)."""
    found, rows = np.zeros(len(names)), torch.zeros(len(names), count, dtype=dtype)
    for number, name in enumerate(names):
        # Each side by itself: the graph of a frame is let go as soon as its second pair is done.
        left, right = _directions(before[name], after[name], pair)
        found[number] = float(torch.sum(left[0] * right[0]))
        for features, (_, cotangent) in ((before[name], left), (after[name], right)):
            gradients = torch.autograd.grad(features, weights, cotangent, retain_graph=True, allow_unused=True)
            _accumulate(rows[number], gradients, weights)
    return found, rows


def safe_step(
    editor: Editor,
    latents: torch.Tensor,
    timestep: int,
    prompt: str | torch.Tensor,
    curvature: AdapterCurvature,
    *,
    layers: str | Sequence[str] | None = None,
    frames_at_once: int | None = None,
    progress: Progress | None = None,
    state: KeptState = NOTHING,
) -> SafeStep:
    """Measures which single steps of plain gradient descent on the adapter lower the temporal loss.

    Step sizes are tried upwards and downwards from 2 / sharpness, by factors of 2^(1/4), until one that does not lower
    the loss lies above one that does. The parameters are afterwards what they were, whatever happens.

    Args:
        curvature: from `adapter_curvature` at the same latents, timestep, prompt and layers.
        progress: called with (step sizes tried, the most that may be).
        state: where the loss after each step is kept; steps that are there are not taken again. It has to be of these
            very arguments.

    Raises:
        ValueError: what `temporal_losses` raises.
    """
    if curvature.model.squared_gradient == 0 or curvature.model.sharpness == 0:
        return SafeStep(0.0, math.inf, ())
    options = {"layers": layers, "frames_at_once": frames_at_once}

    def measured(name: str) -> float:
        kept = state.get(name)
        if kept is not None and kept.keys() == {"loss"} and kept["loss"].shape == (1,):
            return float(kept["loss"][0])
        loss = temporal_losses(editor, latents, timestep, prompt, **options)
        state.put(name, {"loss": np.array([loss])})
        return loss

    # The loss before the step is measured the same way as that after it: the model's has another rounding.
    start = measured("start")
    tried: dict[int, float] = {}

    def falls(exponent: int) -> bool:
        if exponent not in tried:
            with _stepped(editor, curvature.gradient, first * GROWTH**exponent):
                tried[exponent] = measured(f"step{exponent:+d}")
            if progress is not None:
                progress(len(tried), LONGEST_SEARCH)
        return tried[exponent] < start

    first = 2 / curvature.model.sharpness
    exponent = 0
    if falls(0):
        while falls(exponent + 1) and len(tried) < LONGEST_SEARCH:
            exponent += 1
    else:
        while not falls(exponent - 1) and len(tried) < LONGEST_SEARCH:
            exponent -= 1
    exponents = sorted(tried)
    safe = [key for key in exponents if all(tried[lower] < start for lower in exponents if lower <= key)]
    unsafe = [key for key in exponents if tried[key] >= start]
    return SafeStep(
        largest=first * GROWTH ** max(safe) if safe else 0.0,
        unsafe=first * GROWTH ** min(unsafe) if unsafe else math.inf,
        tried=tuple((first * GROWTH**key, tried[key]) for key in exponents),
    )


def _frames_with_graphs(
    editor: Editor, latents: torch.Tensor, timestep: int, prompt: str | torch.Tensor, names: Sequence[str], first: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Each frame's features of the named layers, from the first asked for on, attached to a graph of its own."""
    known = list(range(len(latents))) if editor.has_prompt_tokens else [None] * len(latents)
    for index, known_index in enumerate(known[first:], start=first):
        with torch.enable_grad(), captured_features(editor.pipeline.unet, names) as features:
            editor.predict_noise(
                latents[index : index + 1],
                timestep,
                prompt,
                adapter=True,
                frame_indices=None if known_index is None else [known_index],
            )
        yield features


def _directions(left: torch.Tensor, right: torch.Tensor, pair: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """For both frames of a pair the direction u in float64 and ds/dF = (u' - s u) / r in the features' dtype."""
    wide = [frame.detach().double() for frame in (left, right)]
    norms = [float(torch.linalg.vector_norm(frame)) for frame in wide]
    for offset, norm in enumerate(norms):
        if not (math.isfinite(norm) and norm > 0):
            raise ValueError(
                f"frame {pair + offset} has norm {norm}; the similarity is undefined there: drop that frame"
            )
    units = [frame / norm for frame, norm in zip(wide, norms, strict=True)]
    cosine = torch.sum(units[0] * units[1])
    return tuple(
        (unit, ((other - cosine * unit) / norm).to(left.dtype))
        for unit, other, norm in zip(units, reversed(units), norms, strict=True)
    )


def _accumulate(
    row: torch.Tensor, gradients: Sequence[torch.Tensor | None], weights: Sequence[torch.nn.Parameter]
) -> None:
    start = 0
    for gradient, weight in zip(gradients, weights, strict=True):
        if gradient is not None:
            row[start : start + weight.numel()] += gradient.reshape(-1).to(row.device, row.dtype)
        start += weight.numel()


def _gram(rows: torch.Tensor) -> np.ndarray:
    """Inner products in float64, formed in pieces that are small beside the rows."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(1 << 16, dim=1):
        part = part.double()
        total += part @ part.T
    return total.numpy()


def _unflatten(flat: torch.Tensor, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    gradient, start = {}, 0
    for name, parameter in parameters.items():
        gradient[name] = flat[start : start + parameter.numel()].reshape(parameter.shape).to(parameter.dtype)
        start += parameter.numel()
    return gradient


@contextmanager
def _stepped(editor: Editor, gradient: dict[str, torch.Tensor], step_size: float) -> Iterator[None]:
    """Moves the adapter's parameters by -step_size * gradient for the block."""
    parameters = editor.adapter_parameters()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter -= step_size * gradient[name].to(parameter.device)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(before[name])
