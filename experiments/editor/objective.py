r"""Training of adapter and prompt tokens: denoising plus temporal consistency.

Minimised over the parameters of LoRA and prompt tokens, the pipeline frozen:

    E_{w, t, eps} [ mean (eps_hat(x_t, t) - eps)^2 + weight * mean_l L(F^l) ],    x_t = sqrt(abar_t) x_0 + sqrt(1 -
    abar_t) eps,

x_0 a window w of consecutive frames, one timestep t for all of its frames, eps standard normal, F^l the features of
self-attention layer l in the same evaluation and L the temporal consistency loss of `theory.temporal_loss`. The
weight 0.01 is that of the public code of arXiv 2501.04606; there the loss compares two frames at two noise levels,
here it is the published one on all frames.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from experiments.editor.capture import captured_features, select_layers
from experiments.editor.editor import Editor
from experiments.files import whole_file
from theory.temporal_loss import temporal_loss

MINIMUM_FRAMES = 3
_CHECKPOINT_KEY = "framebound_adapter_training"

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, the steps in all and the total loss of the step."""


@dataclass(frozen=True)
class AdapterTraining:
    """The losses of a training run, one entry a step, float64.

    Attributes:
        total: (steps,) noise + temporal_weight * temporal, before the step's update.
        noise: (steps,) mean squared error of the noise prediction.
        temporal: (steps,) temporal loss, mean over the layers.
        layers: the self-attentions whose features the temporal loss was taken of.
    """

    total: np.ndarray
    noise: np.ndarray
    temporal: np.ndarray
    layers: tuple[str, ...]


@dataclass(frozen=True)
class _Settings:
    """Everything that decides the trained parameters, apart from the number of steps and the machine."""

    prompt: str
    learning_rate: float
    temporal_weight: float
    seed: int
    window: int
    optimizer: str
    similarity: str
    layers: tuple[str, ...]
    inputs: str


def train_adapter(
    editor: Editor,
    frames: np.ndarray,
    prompt: str,
    *,
    steps: int,
    learning_rate: float,
    temporal_weight: float = 0.01,
    seed: int = 0,
    window: int = 8,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    similarity: Literal["frame", "pixel"] = "frame",
    layers: str | Sequence[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Progress | None = None,
) -> AdapterTraining:
    """Trains the editor's adapter and prompt tokens on a clip, in place.

    The draws of a step (window, timestep, noise) depend on (seed, step) alone and are made on the CPU in float32, so
    they are the same on every device and in every dtype; equal arguments give equal bytes on one CPU with one number
    of threads.

    Args:
        editor: with LoRA, prompt tokens or both; its parameters are the start. Prompt tokens get `frames` as their
            source frames.
        frames: (frames, height, width, 3) floating in [0, 1], consecutive, at least 3.
        prompt: caption of the clip.
        temporal_weight: weight of the temporal loss, at least 0.
        window: consecutive frames in a step, at least 3; a shorter clip is taken whole.
        optimizer: "adamw" (torch's defaults) or "sgd" (no momentum: the gradient descent that the theorems are about).
        similarity: of the temporal loss, see `theory.temporal_loss.temporal_loss`.
        layers: self-attentions, see `capture.select_layers`; None means all of the up blocks.
        checkpoint: file that the state is written to every `checkpoint_seconds` and that a run with the same
            arguments continues from; it is removed at the end. None keeps no state.
        progress: called after every step with (steps done, steps, total loss).

    Raises:
        ValueError: an argument out of range, no adapter, fewer than 3 frames, what `Editor.to_latents` and
            `Editor.predict_noise` raise, a checkpoint of another run or a corrupted one, features without a temporal
            loss (a frame of zeros), or a loss that is not finite; the last two name the step, and leave the
            parameters as they were before it.
    """
    _check_arguments(steps, learning_rate, temporal_weight, seed, window, optimizer, similarity)
    if not checkpoint_seconds >= 0:
        raise ValueError(f"checkpoint_seconds = {checkpoint_seconds} must be at least 0")
    if not editor.has_adapter:
        raise ValueError("the editor has no adapter to train; call add_adapter or add_prompt_tokens first")
    latents = editor.to_latents(frames)
    if len(latents) < MINIMUM_FRAMES:
        raise ValueError(
            f"{len(latents)} frames were given and the temporal loss needs {MINIMUM_FRAMES}; give a longer clip"
        )
    names = tuple(select_layers(editor.pipeline.unet, layers))
    if editor.has_prompt_tokens:
        editor.set_frames(frames)
    parameters = editor.adapter_parameters()
    settings = _Settings(
        prompt=prompt,
        learning_rate=learning_rate,
        temporal_weight=temporal_weight,
        seed=seed,
        window=min(window, len(latents)),
        optimizer=optimizer,
        similarity=similarity,
        layers=names,
        inputs=_digest({"latents": latents, **parameters}),
    )
    state = _State(parameters, settings)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is not None and checkpoint.exists():
        state.restore(checkpoint)
        if len(state.losses) > steps:
            raise ValueError(
                f"the checkpoint {checkpoint} is at step {len(state.losses)}, past steps = {steps}; remove it to start"
                " again"
            )
    written = time.monotonic()
    while len(state.losses) < steps:
        state.take(_step_losses(editor, latents, settings, len(state.losses)))
        if checkpoint is not None and time.monotonic() - written >= checkpoint_seconds:
            state.write(checkpoint)
            written = time.monotonic()
        if progress is not None:
            progress(len(state.losses), steps, state.losses[-1][0])
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    total, noise, temporal = np.array(state.losses, dtype=np.float64).T
    return AdapterTraining(total, noise, temporal, names)


class _State:
    """Parameters, optimiser and losses: what a step changes and a checkpoint holds."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], settings: _Settings) -> None:
        self.parameters = parameters
        self.settings = settings
        self.losses: list[tuple[float, float, float]] = []
        optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
        self.optimizer = optimizer(list(parameters.values()), lr=settings.learning_rate)

    def take(self, losses: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        """Steps along the gradient of the first loss and records all three."""
        self.optimizer.zero_grad(set_to_none=True)
        losses[0].backward()
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                self.optimizer.zero_grad(set_to_none=True)
                raise ValueError(
                    f"step {len(self.losses)}: the gradient of {name} is not finite; lower the learning rate"
                    f" (it is {self.settings.learning_rate:g})"
                )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(tuple(float(loss.detach()) for loss in losses))

    def write(self, path: Path) -> None:
        """Writes the checkpoint, whole or not at all."""
        tensors = {f"parameters.{name}": value.detach().cpu().contiguous() for name, value in self.parameters.items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{name}": value.cpu().contiguous()
                for name, value in entries.items()
                if isinstance(value, torch.Tensor)
            }
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        content = save(tensors, metadata={_CHECKPOINT_KEY: _to_json(self.settings)})
        with whole_file(path) as temporary:
            temporary.write_bytes(content)

    def restore(self, path: Path) -> None:
        """Takes up a checkpoint of the same settings; ValueError for any other file."""
        try:
            with safe_open(path, framework="pt") as content:
                metadata = content.metadata() or {}
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, not a mapping
        except (SafetensorError, OSError) as error:
            raise ValueError(f"the checkpoint {path} is corrupted ({error}); remove it to start again") from error
        if metadata.get(_CHECKPOINT_KEY) != _to_json(self.settings):
            raise ValueError(f"the checkpoint {path} belongs to another run; remove it, or name another checkpoint")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameters.{name}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.losses = [tuple(row) for row in tensors["losses"].tolist()]


def _step_losses(
    editor: Editor, latents: torch.Tensor, settings: _Settings, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(total, noise, temporal) of one step, attached to the graph."""
    window, timestep, noise = _draw(editor, latents.shape, settings, step)
    noise = noise.to(editor.device, editor.dtype)
    alpha = float(editor.alphas_cumprod[timestep])
    noisy = math.sqrt(alpha) * latents[window] + math.sqrt(1 - alpha) * noise
    indices = range(window.start, window.stop) if editor.has_prompt_tokens else None
    with torch.enable_grad(), captured_features(editor.pipeline.unet, settings.layers) as features:
        eps = editor.predict_noise(noisy, timestep, settings.prompt, adapter=True, frame_indices=indices)
        # Half precision has neither the range nor the digits for squared norms.
        wide = torch.promote_types(editor.dtype, torch.float32)
        noise_loss = torch.mean((eps - noise).to(wide) ** 2)
        _require_finite_loss(noise_loss, "noise", step, settings)
        try:
            temporal = torch.stack(
                [temporal_loss(features[name].to(wide), similarity=settings.similarity) for name in settings.layers]
            ).mean()
        except ValueError as error:
            raise ValueError(f"step {step}: the features have no temporal loss: {error}") from error
        _require_finite_loss(temporal, "temporal", step, settings)
        total = noise_loss + settings.temporal_weight * temporal
    return total, noise_loss, temporal


def _draw(editor: Editor, shape: torch.Size, settings: _Settings, step: int) -> tuple[slice, int, torch.Tensor]:
    """Window, timestep and noise of a step, from (seed, step) alone."""
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence([settings.seed, step]).generate_state(1, np.uint64)[0])
    )
    start = int(torch.randint(shape[0] - settings.window + 1, (), generator=generator))
    timestep = int(torch.randint(editor.pipeline.scheduler.config.num_train_timesteps, (), generator=generator))
    noise = torch.randn((settings.window, *shape[1:]), generator=generator)
    return slice(start, start + settings.window), timestep, noise


def _check_arguments(
    steps: int, learning_rate: float, temporal_weight: float, seed: int, window: int, optimizer: str, similarity: str
) -> None:
    if steps < 1:
        raise ValueError(f"steps = {steps} must be at least 1")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate = {learning_rate} must be positive and finite; 1e-3 is usual")
    if not (math.isfinite(temporal_weight) and temporal_weight >= 0):
        raise ValueError(
            f"temporal_weight = {temporal_weight} must be at least 0 and finite; the published weight is 0.01"
        )
    if seed < 0:
        raise ValueError(f"seed = {seed} must be at least 0")
    if window < MINIMUM_FRAMES:
        raise ValueError(
            f"window = {window} must be at least {MINIMUM_FRAMES}; the temporal loss compares neighbouring pairs"
        )
    if optimizer not in ("adamw", "sgd"):
        raise ValueError(f"optimizer = {optimizer!r} must be 'adamw' or 'sgd'")
    if similarity not in ("frame", "pixel"):
        raise ValueError(f"similarity = {similarity!r} must be 'frame' or 'pixel'")


def _require_finite_loss(loss: torch.Tensor, name: str, step: int, settings: _Settings) -> None:
    if not torch.isfinite(loss):
        raise ValueError(
            f"step {step}: the {name} loss is {float(loss.detach())}; it must be finite: lower the learning rate"
            f" (it is {settings.learning_rate:g})"
        )


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _to_json(settings: _Settings) -> str:
    content: dict[str, Any] = dataclasses.asdict(settings)
    return json.dumps(content, sort_keys=True)
