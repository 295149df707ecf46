r"""Steps of plain gradient descent on the adapter, recorded for the theorems: losses, gradients and curvatures beside the features.

Everything random is drawn once, so that every step of a run descends one and the same function of the adapter's parameters,

    f(\theta) = noise_weight mean (eps_hat(x_t, t) - eps)^2 + temporal_weight mean_l L(F^l),   x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,

with eps drawn for each frame anew, as `objective.train_adapter` draws it. What the theorems say of descent can then be put to it: their
predictions come from one part of the record (loss, gradient, curvature before a step) and are compared with another (the features after it).
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from experiments.editor.adapters import ADAPTER_NAME, lora_layers
from experiments.editor.capture import captured_features
from experiments.editor.editor import Editor
from experiments.editor.steps import residual_jacobian, temporal_residuals
from theory.evidence import TrainingRecord
from theory.temporal_loss import similarities

PUBLISHED_WEIGHT = 0.01
"""Of the temporal loss beside the noise error, in the public code of arXiv 2501.04606."""
SHARE = 0.5
"""Step sizes are this over the curvature along the first gradient: a quarter of the 2 / curvature at which a quadratic stops falling."""
LONG_STEPS = (3.0, 6.0)
"""Step sizes of the "long" runs, over 1 / curvature: 1.5 and 3 times the limit of a quadratic."""
SCALES = (1.0, 100.0)
"""What A is multiplied by in the "scaled" runs, at the step size that suits the first."""
DIFFERENCE = 1e-5
"""Distance in the parameters, relative to 1 + their norm, of the gradients whose difference is the curvature: its square is 1e-10, and
rounding, 1e-16 over it, is smaller than that."""

_ARRAYS = (
    "objectives", "noise_losses", "temporal_losses", "squared_gradients", "curvatures", "similarity_gram",
)  # fmt: skip
_NUMBERS = ("timestep", "noise_weight", "temporal_weight", "scale", "step_size")


class _Objective:
    """f and its derivatives at the adapter's present parameters."""

    def __init__(
        self, editor: Editor, clean: torch.Tensor, timestep: int, prompt: str | torch.Tensor, names: list[str], seed: int
    ) -> None:
        self.editor, self.timestep, self.prompt, self.names = editor, timestep, prompt, names
        self.parameters = list(editor.adapter_parameters().values())
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(clean.shape, generator=generator).to(editor.device, editor.dtype)
        alpha = float(editor.alphas_cumprod[timestep])
        self.noisy = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * self.noise

    def evaluate(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The noise error and the features of each layer, attached to the graph."""
        with torch.enable_grad(), captured_features(self.editor.pipeline.unet, self.names) as features:
            eps = self.editor.predict_noise(self.noisy, self.timestep, self.prompt, adapter=True)
            error = torch.mean((eps - self.noise) ** 2)
        return error, [features[name] for name in self.names]

    def gradient(self, noise_weight: float, temporal_weight: float) -> tuple[tuple[float, float, float], torch.Tensor, list[np.ndarray]]:
        """(objective, noise error, temporal loss), the gradient of the objective in a row, and the features."""
        error, features = self.evaluate()
        temporal = torch.mean(temporal_residuals(features) ** 2)
        total = temporal_weight * temporal if noise_weight == 0 else noise_weight * error + temporal_weight * temporal
        gradients = torch.autograd.grad(total, self.parameters, allow_unused=True)
        row = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.parameters, strict=True)]
        flat = torch.cat([part.reshape(-1) for part in row])
        return tuple(float(x.detach()) for x in (total, error, temporal)), flat, [_array(values) for values in features]

    def similarity_gram(self) -> np.ndarray:
        """Inner products of the gradients of all similarities, layer by layer."""
        _, features = self.evaluate()
        jacobian = residual_jacobian(torch.cat([similarities(values) for values in features]), self.parameters)
        return _array(jacobian @ jacobian.T)

    def point(self) -> torch.Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])

    def move(self, point: torch.Tensor) -> None:
        start = 0
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.copy_(point[start : start + parameter.numel()].reshape(parameter.shape))
                start += parameter.numel()

    def curvature(self, gradient: torch.Tensor, weights: tuple[float, float]) -> float:
        """g^T H g / ||g||^2 by a central difference of gradients; 0 where the gradient is 0."""
        length = float(torch.linalg.vector_norm(gradient))
        if length == 0:
            return 0.0
        here, direction = self.point(), gradient / length
        distance = DIFFERENCE * (1 + float(torch.linalg.vector_norm(here)))
        ahead, behind = (self._gradient_at(here + sign * distance * direction, weights) for sign in (1, -1))
        self.move(here)
        return float((ahead - behind) @ direction) / (2 * distance)

    def _gradient_at(self, point: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
        self.move(point)
        return self.gradient(*weights)[1]


def _run(
    objective: _Objective, kind: str, weights: tuple[float, float], steps: int, share: float, step_size: float | None = None, scale: float = 1.0
) -> TrainingRecord:
    """`steps` steps of size `step_size`, or of `share` over the curvature along the first gradient; the parameters end where they got to."""
    values, gradient, features = objective.gradient(*weights)
    losses, captured, squares, curvatures = [values], [features], [], []
    gram = objective.similarity_gram() if kind == "temporal" else None
    for index in range(steps):
        squares.append(float(gradient @ gradient))
        curvatures.append(objective.curvature(gradient, weights))
        if index == 0 and step_size is None:
            # Where the objective does not curve upwards along its gradient no step is too long for a quadratic; the gradient's own scale serves.
            step_size = share / (curvatures[0] if curvatures[0] > 0 else max(squares[0], 1e-300) / max(values[0], 1e-300))
        objective.move(objective.point() - step_size * gradient)
        values, gradient, features = objective.gradient(*weights)
        losses.append(values)
        captured.append(features)
    totals, errors, temporals = np.array(losses, dtype=np.float64).T
    return TrainingRecord(
        kind=kind,
        layers=tuple(objective.names),
        timestep=objective.timestep,
        noise_weight=weights[0],
        temporal_weight=weights[1],
        scale=scale,
        step_size=step_size,
        objectives=totals,
        noise_losses=errors,
        temporal_losses=temporals,
        squared_gradients=np.array(squares),
        curvatures=np.array(curvatures),
        similarity_gram=gram,
        features=tuple(np.stack(layer) for layer in zip(*captured, strict=True)),
    )


def record_trainings(
    editor: Editor,
    clean: torch.Tensor,
    timestep: int,
    prompt: str | torch.Tensor,
    names: list[str],
    *,
    steps: int,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> list[TrainingRecord]:
    """Runs of descent from the adapter's present parameters; afterwards these are what they were.

    Args:
        editor: of dtype float64, with an adapter and, where it has prompt tokens, its frames set.
        clean: (frames, channels, height, width) latents at level 0, at least 3 frames.
        names: the self-attentions whose features are recorded and enter the loss.
        steps: of the "temporal" and of the "published" run.
        progress: called after each run; there are `number_of_runs(editor)`.

    Raises:
        ValueError: what `Editor.predict_noise` and `theory.temporal_loss.similarities` raise.
    """
    objective = _Objective(editor, clean, timestep, prompt, names, seed)
    start = objective.point()
    found: list[TrainingRecord] = []

    def record(*arguments, **options) -> TrainingRecord:
        found.append(_run(objective, *arguments, **options))
        if progress is not None:
            progress()
        return found[-1]

    try:
        record("temporal", (0.0, 1.0), steps, SHARE)
        objective.move(start)
        record("published", (1.0, PUBLISHED_WEIGHT), steps, SHARE)
        for share in LONG_STEPS:
            objective.move(start)
            record("long", (0.0, 1.0), 1, share)
        step_size = None
        for scale in SCALES if lora_layers(editor.pipeline.unet) else ():
            objective.move(start)
            _to_standard_start(editor, scale)
            step_size = record("scaled", (0.0, 1.0), 1, SHARE, step_size=step_size, scale=scale).step_size
    finally:
        objective.move(start)
    return found


def number_of_runs(editor: Editor) -> int:
    """How many runs `record_trainings` records."""
    return 2 + len(LONG_STEPS) + (len(SCALES) if lora_layers(editor.pipeline.unet) else 0)


def _to_standard_start(editor: Editor, scale: float) -> None:
    """LoRA with B = 0 and A multiplied by `scale`, as it is before training but for the scale."""
    with torch.no_grad():
        for layer in lora_layers(editor.pipeline.unet).values():
            layer.lora_A[ADAPTER_NAME].weight.mul_(scale)
            layer.lora_B[ADAPTER_NAME].weight.zero_()


def training_arrays(records: list[TrainingRecord]) -> dict[str, np.ndarray]:
    """The records as numeric arrays, under "training/<number>/<kind>/..", for a file that holds no text."""
    arrays: dict[str, np.ndarray] = {}
    for number, record in enumerate(records):
        prefix = f"training/{number}/{record.kind}"
        arrays[f"{prefix}/numbers"] = np.array([getattr(record, name) for name in _NUMBERS], dtype=np.float64)
        arrays |= {f"{prefix}/{name}": getattr(record, name) for name in _ARRAYS if getattr(record, name) is not None}
        pairs = zip(record.layers, record.features, strict=True)
        arrays |= {f"{prefix}/features/{index}/{layer}": values for index, (layer, values) in enumerate(pairs)}
    return arrays


def training_records(arrays: Mapping[str, np.ndarray]) -> tuple[TrainingRecord, ...]:
    """What `training_arrays` was given, in its order; nothing where no training was recorded."""
    prefixes = sorted(
        (key.removesuffix("/numbers") for key in arrays if key.startswith("training/") and key.endswith("/numbers")),
        key=lambda prefix: int(prefix.split("/")[1]),
    )
    return tuple(_record_of(arrays, prefix) for prefix in prefixes)


def _record_of(arrays: Mapping[str, np.ndarray], prefix: str) -> TrainingRecord:
    marker = f"{prefix}/features/"
    layers = sorted((int(index), layer) for index, layer in (key.removeprefix(marker).split("/") for key in arrays if key.startswith(marker)))
    return TrainingRecord(
        kind=prefix.split("/")[2],
        layers=tuple(layer for _, layer in layers),
        **dict(zip(_NUMBERS, (float(x) for x in arrays[f"{prefix}/numbers"]), strict=True)),
        **{name: arrays.get(f"{prefix}/{name}") for name in _ARRAYS},
        features=tuple(arrays[f"{marker}{index}/{layer}"] for index, layer in layers),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy().copy()
