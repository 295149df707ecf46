"""Train the shipped pipeline on the three real clips.

Minimised over the weights of the UNet and the text encoder:

    E || eps_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, t, caption) - eps ||^2 / (abar_t number of values)

with x_0 a training frame in one of the looks; t uniform on the scheduler's timesteps; the caption empty in a tenth of
the draws, which makes the empty caption the unconditional one of classifier-free guidance. What is shipped is the
exponential moving average of the weights.

The weight 1/abar_t makes this the squared error of the velocity sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (Salimans and
Ho, 2022). The noise eps is standard normal plus 0.3 times a standard normal colour for the whole frame (offset noise,
Guttenberg, 2023). Independent noise alone averages out over the pixels: the mean colour of a frame shows through all of
it, the network learns to read it there and not in the caption, and an edit then keeps the colours of its source.

The draws of a step depend on (seed, step) alone, and the state is written every minute, so a run that was killed goes
on where it was and ends in the same bytes as one that was not.
"""

import json
import math
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from experiments.editor.clips import CLIPS, LOOKS, PACKAGE, caption, load_clip
from experiments.editor.pipeline import Pipeline, build_pipeline, require_device, require_free, save_pipeline
from experiments.files import whole_file

DEFAULT_STEPS = 3600
_BETAS = (0.9, 0.99)
_WEIGHT_DECAY = 0.01
_MAX_GRADIENT_NORM = 1.0
_COLOUR_OFFSET = 0.3
_NUM_WORKERS = 2
_CHECKPOINT_KEY = "framebound_training"

Progress = Callable[[int, int, float], None]
"""Called after every step with the steps done, the steps in all and the loss of the step."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of the trained pipeline; see build_pipeline."""

    block_out_channels: tuple[int, ...] = (32, 48, 64)
    text_dim: int = 64
    max_tokens: int = 12


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the trained weights, apart from the machine and the versions of the libraries."""

    seed: int = 0
    steps: int = DEFAULT_STEPS
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    caption_dropout: float = 0.1
    architecture: Architecture = field(default_factory=Architecture)

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("steps", 1), ("batch_size", 1), ("warmup_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(
                f"the learning rate is {self.learning_rate}; it must be positive and finite, for example 1e-3"
            )
        for name in ("ema_decay", "caption_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run did and measured.

    losses holds the minimised loss of every step; held_out_loss and untrained_held_out_loss are held_out_loss() of the
    shipped average and of the weights before the first step, by quarter of the timesteps. The seconds leave out the
    steps that a killed run lost.
    """

    settings: TrainingSettings
    num_parameters: int
    losses: tuple[float, ...]
    held_out_loss: tuple[float, ...]
    untrained_held_out_loss: tuple[float, ...]
    wall_seconds: float
    cpu_seconds: float
    device: str
    versions: Mapping[str, str]


def train(
    folder: str | Path,
    *,
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.998,
    caption_dropout: float = 0.1,
    architecture: Architecture | None = None,
    device: str | torch.device | None = "cpu",
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
) -> TrainingRecord:
    """Train a pipeline and write it, with its model card README.md, to folder; the folder appears whole or not at all.

    The defaults (seed 0, 3600 steps of 16 images, learning rate 1e-3 with 100 steps of warm-up and cosine decay to
    zero, on the CPU) are those of the shipped pipeline. They took 25 minutes on two busy cores.

    Next to folder lies NAME.checkpoint.safetensors while the run goes on: weights, their average, the optimiser's state
    and the losses, written every checkpoint_seconds. A run with the same settings goes on from it; it is removed at the
    end. Equal settings give equal bytes on one machine. While it runs, torch uses one thread an operation.

    Raises ValueError for settings out of range, a folder that holds something else, a checkpoint of other settings, a
    device that is not there, or a loss that is not finite.
    """
    settings = TrainingSettings(
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        caption_dropout=caption_dropout,
        architecture=architecture or Architecture(),
    )
    folder = Path(folder)
    require_free(folder)
    target = require_device(device)
    pipeline = build_pipeline(seed, **asdict(settings.architecture)).to(target)
    untrained = held_out_loss(pipeline)
    state = _TrainingState(pipeline, settings)
    checkpoint = folder.with_name(f"{folder.name}.checkpoint.safetensors")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state.restore(checkpoint)

    clips = {name: _to_pixels(load_clip(name, "train")) for name in CLIPS}
    wall, cpu = time.monotonic() - state.wall_seconds, time.process_time() - state.cpu_seconds
    written = time.monotonic()
    with _workers() as workers:
        while len(state.losses) < steps:
            batch = draw_batch(clips, settings, len(state.losses), pipeline.scheduler.config["num_train_timesteps"])
            loss = state.step(batch, workers)
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} at step {len(state.losses)} with learning rate {learning_rate}; "
                    "it must stay finite: train with a lower learning rate"
                )
            if progress is not None:
                progress(len(state.losses), steps, loss)
            if time.monotonic() - written >= checkpoint_seconds:
                state.wall_seconds, state.cpu_seconds = time.monotonic() - wall, time.process_time() - cpu
                state.save(checkpoint)
                written = time.monotonic()
    state.load_average()
    record = TrainingRecord(
        settings=settings,
        num_parameters=pipeline.num_parameters,
        losses=tuple(state.losses),
        held_out_loss=held_out_loss(pipeline),
        untrained_held_out_loss=untrained,
        wall_seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        device=str(target),
        versions={"torch": torch.__version__, "diffusers": diffusers.__version__},
    )
    save_pipeline(pipeline.to("cpu"), folder, card=model_card(record))
    checkpoint.unlink(missing_ok=True)
    return record


@dataclass(frozen=True)
class Batch:
    """Clean images (batch, 3, height, width) in [-1, 1], their noise, integer timesteps (batch,), and captions."""

    images: Tensor
    noise: Tensor
    timesteps: Tensor
    captions: list[str]


def draw_batch(clips: Mapping[str, Tensor], settings: TrainingSettings, step: int, num_timesteps: int = 1000) -> Batch:
    """The batch of a step, a function of (settings.seed, step) alone.

    clips maps clip names to pixels (frames, 3, height, width) in [-1, 1]. Frames are drawn uniformly over all clips;
    looks take turns; timesteps are one uniform draw in each of batch_size equal ranges, which lowers the variance.
    """
    generator = np.random.default_rng([settings.seed, step])
    size = settings.batch_size
    names = [name for name, frames in clips.items() for _ in range(len(frames))]
    every_frame = torch.cat(list(clips.values()))
    drawn = generator.integers(len(every_frame), size=size)
    looks = np.array(list(LOOKS))[(generator.integers(len(LOOKS)) + np.arange(size)) % len(LOOKS)]
    images = torch.stack([in_look(every_frame[index], look) for index, look in zip(drawn, looks, strict=True)])
    timesteps = (generator.permutation(size) + generator.random(size)) * (num_timesteps / size)
    unconditional = generator.random(size) < settings.caption_dropout
    captions = [
        "" if empty else caption(CLIPS[names[index]].subject, look)
        for index, look, empty in zip(drawn, looks, unconditional, strict=True)
    ]
    noise = generator.standard_normal(images.shape, dtype=np.float32)
    noise += _COLOUR_OFFSET * generator.standard_normal((size, 3, 1, 1), dtype=np.float32)
    return Batch(images, torch.from_numpy(noise), torch.from_numpy(timesteps.astype(np.int64)), captions)


def in_look(pixels: Tensor, look: str) -> Tensor:
    """Pixels (..., 3, height, width) in [-1, 1] in one of LOOKS, in the same range."""
    frames = LOOKS[look](pixels.movedim(-3, -1).numpy() / 2 + 0.5)
    return torch.from_numpy(frames).movedim(-1, -3) * 2 - 1


def noise_error(pipeline: Pipeline, batch: Batch) -> Tensor:
    """The predicted noise minus the noise, (batch, 3, height, width), differentiable."""
    device = pipeline.unet.device
    images, noise, timesteps = (part.to(device) for part in (batch.images, batch.noise, batch.timesteps))
    noisy = pipeline.scheduler.add_noise(images, noise, timesteps)
    return pipeline.unet(noisy, timesteps, pipeline.encode_prompts(batch.captions)).sample - noise


def training_loss(pipeline: Pipeline, batch: Batch) -> Tensor:
    """The minimised loss of each image (batch,), differentiable; see the formula at the top of this file."""
    alphas_cumprod = pipeline.scheduler.alphas_cumprod[batch.timesteps].to(pipeline.unet.device)
    return noise_error(pipeline, batch).square().mean(dim=(1, 2, 3)) / alphas_cumprod


@torch.no_grad()
def held_out_loss(pipeline: Pipeline, *, frame_stride: int = 4) -> tuple[float, ...]:
    """The squared error of the noise on held-out frames, averaged over each quarter of the timesteps: 4 numbers.

    The pipeline works on pixels. It sees every frame_stride-th held-out frame of each clip in each look, with its
    caption, at one timestep of each quarter. The draws are fixed, so that two pipelines can be compared.
    """
    generator = np.random.default_rng(0)
    quarter = pipeline.scheduler.config["num_train_timesteps"] // 4
    losses = []
    for clip in CLIPS.values():
        frames = _to_pixels(load_clip(clip.name, "held_out")[::frame_stride])
        for look in LOOKS:
            images = in_look(frames, look).repeat_interleave(4, dim=0)
            timesteps = np.tile(np.arange(4) * quarter, len(frames)) + generator.integers(quarter, size=len(images))
            noise = torch.from_numpy(generator.standard_normal(images.shape, dtype=np.float32))
            captions = [caption(clip.subject, look)] * len(images)
            error = noise_error(pipeline, Batch(images, noise, torch.from_numpy(timesteps), captions))
            losses.append(error.square().mean(dim=(1, 2, 3)).cpu().double().reshape(-1, 4))
    return tuple(torch.cat(losses).mean(0).tolist())


class _TrainingState:
    """Weights, their moving average, AdamW's moments and the losses so far."""

    def __init__(self, pipeline: Pipeline, settings: TrainingSettings) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.losses: list[float] = []
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        # oneDNN's convolutions are about a tenth faster in this layout.
        pipeline.unet.to(memory_format=torch.channels_last)
        self.weights = {
            f"{name}.{key}": weight
            for name, model in pipeline.models.items()
            for key, weight in model.named_parameters()
        }
        self.average = {key: weight.detach().clone() for key, weight in self.weights.items()}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=settings.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
        )

        for weight in self.weights.values():
            # What AdamW would make at its first step, made now so that restore() can fill it.
            self.optimizer.state[weight] = {
                "step": torch.zeros((), device=weight.device),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by a name of its own."""
        tensors = {}
        for key, weight in self.weights.items():
            moments = self.optimizer.state[weight]
            tensors[f"weights.{key}"] = weight.detach()
            tensors[f"average.{key}"] = self.average[key]
            tensors[f"exp_avg.{key}"] = moments["exp_avg"].detach()
            tensors[f"exp_avg_sq.{key}"] = moments["exp_avg_sq"].detach()
        return tensors

    def step(self, batch: Batch, workers: Executor) -> float:
        """One step of AdamW and of the average; returns the loss before the step."""
        settings, done = self.settings, len(self.losses)
        # lr_k = lr min(1, (k+1)/warmup) (1 + cos(pi k / steps)) / 2
        warm = min(1.0, (done + 1) / max(1, settings.warmup_steps))
        rate = settings.learning_rate * warm * (1 + math.cos(math.pi * done / settings.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, gradients = zip(*workers.map(self._half_gradient, _halves(batch)), strict=True)
        for weight, *parts in zip(self.weights.values(), *gradients, strict=True):
            weight.grad = sum(parts[1:], start=parts[0])
        torch.nn.utils.clip_grad_norm_(self.weights.values(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        # A constant decay would keep the random start for 1/(1 - decay) steps; a growing one forgets it.
        decay = min(settings.ema_decay, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)
        self.losses.append(sum(losses))
        return self.losses[-1]

    def _half_gradient(self, half: tuple[Batch, float]) -> tuple[float, tuple[Tensor, ...]]:
        """A part of the batch's loss, and its gradient by weight; share is the part's share of the batch."""
        batch, share = half
        loss = share * training_loss(self.pipeline, batch).mean()
        return loss.item(), torch.autograd.grad(loss, list(self.weights.values()))

    def load_average(self) -> None:
        """Put the averaged weights into the pipeline."""
        with torch.no_grad():
            for key, weight in self.weights.items():
                weight.copy_(self.average[key])
        # The safetensors format knows one layout.
        self.pipeline.unet.to(memory_format=torch.contiguous_format)

    def save(self, path: Path) -> None:
        """Write the whole state to one safetensors file, replaced in one move."""
        state = {
            "settings": asdict(self.settings),
            "losses": self.losses,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        with whole_file(path) as temporary:
            save_file(
                {key: tensor.contiguous() for key, tensor in self._tensors().items()},
                temporary,
                {_CHECKPOINT_KEY: json.dumps(state)},
            )

    def restore(self, path: Path) -> None:
        """Go on from a written state; ValueError if it is unreadable or of other settings."""
        mend = f"delete {path} to start anew, or choose another folder"
        try:
            with safe_open(path, framework="pt", device=str(self.pipeline.unet.device)) as file:
                state = json.loads((file.metadata() or {}).get(_CHECKPOINT_KEY, "null"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"the checkpoint {path} cannot be read ({error}); {mend}") from error
        expected = json.loads(json.dumps(asdict(self.settings)))
        found = state.get("settings") if isinstance(state, dict) else None
        if found != expected:
            differing = {key: (found or {}).get(key) for key in expected if (found or {}).get(key) != expected[key]}
            raise ValueError(f"the checkpoint {path} is of another run (there {differing}); {mend}")
        self.losses = state["losses"]
        self.wall_seconds, self.cpu_seconds = state["wall_seconds"], state["cpu_seconds"]
        with torch.no_grad():
            # copy_ keeps each tensor's memory layout, which the fused step takes for granted.
            for key, tensor in self._tensors().items():
                tensor.copy_(tensors[key])
            for moments in self.optimizer.state.values():
                moments["step"].fill_(len(self.losses))


def _to_pixels(frames: np.ndarray) -> Tensor:
    """Frames (frames, height, width, 3) in [0, 1] as pixels (frames, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, 1).contiguous() * 2 - 1


@contextmanager
def _workers() -> Iterator[Executor]:
    """Two workers whose operations use one thread each; every step gives each of them half of the batch.

    On two cores this is faster than to split every operation between them, above all on a busy machine, and the trained
    bytes do not depend on the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(_NUM_WORKERS) as workers:
            yield workers
    finally:
        torch.set_num_threads(threads)


def _halves(batch: Batch) -> list[tuple[Batch, float]]:
    """The batch in two parts, or one if it is a single image, each with its share of the batch."""
    size = len(batch.captions)
    cuts = sorted({0, size // 2, size})
    return [
        (
            Batch(batch.images[a:b], batch.noise[a:b], batch.timesteps[a:b], batch.captions[a:b]),
            (b - a) / size,
        )
        for a, b in pairwise(cuts)
    ]


def model_card(record: TrainingRecord) -> str:
    """README.md of a trained pipeline, from what the run measured."""
    settings, architecture = record.settings, record.settings.architecture
    clips = [
        [clip.file, clip.subject, *(str(len(load_clip(clip.name, split))) for split in ("train", "held_out"))]
        for clip in CLIPS.values()
    ]
    losses = np.array(record.losses)
    curve = [
        [f"{part[0] + 1} to {part[-1] + 1}", f"{losses[part].mean():.4f}"]
        for part in np.array_split(np.arange(len(losses)), 10)
        if len(part)
    ]
    held_out = [
        [timesteps, f"{before:.4f}", f"{after:.4f}"]
        for timesteps, before, after in zip(
            ["0 to 249", "250 to 499", "500 to 749", "750 to 999", "all"],
            [*record.untrained_held_out_loss, np.mean(record.untrained_held_out_loss)],
            [*record.held_out_loss, np.mean(record.held_out_loss)],
            strict=True,
        )
    ]
    example = caption(CLIPS["carphone"].subject, "night")
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    sections = [
        "---\nlicense: apache-2.0\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---",
        "# A small captioned pixel-space diffusion pipeline",
        f"""A UNet2DConditionModel of 32 x 32 RGB images with a CLIP text encoder, in diffusers' folder format,
        {record.num_parameters:,} parameters in float32. It exists to be edited and measured: DDIM inversion and
        sampling of three short clips, with the look chosen by the caption. This file was written by the training run,
        from what it measured.""",
        f"""There is no autoencoder: the UNet works on pixels in [-1, 1]. It has
        {_listed(architecture.block_out_channels)} channels at full, half and quarter resolution, has cross-attention
        at the last two, and adds the pooled prompt to the timestep's embedding; the text encoder is
        {architecture.text_dim} wide and reads {architecture.max_tokens} tokens. The UNet predicts the noise. The
        schedule is Stable Diffusion's: scaled linear, 1000 timesteps, leading spacing, no clipping.""",
        "## Data",
        f"""The mp4 files of the package {PACKAGE}, cropped to the central square and averaged down to 32 x 32. The
        last fifth of each clip is held out; no step saw it.""",
        _table(["file", "subject", "training frames", "held-out frames"], clips),
        f"""Every frame comes in the looks {_listed(LOOKS)}, captioned as in "{example}". The caption is empty in
        {settings.caption_dropout:.0%} of the draws, which makes the empty caption the unconditional one of
        classifier-free guidance.""",
        "## Command",
        f"    {_command(settings)}",
        f"""Seed {settings.seed}; {settings.steps} steps of {settings.batch_size} images; AdamW with learning rate
        {settings.learning_rate:g}, betas {_BETAS[0]:g} and {_BETAS[1]:g}, weight decay {_WEIGHT_DECAY:g},
        {settings.warmup_steps} steps of warm-up and cosine decay to zero; the gradient's norm is cut at
        {_MAX_GRADIENT_NORM:g}. The weights are the exponential moving average with decay {settings.ema_decay:g}.""",
        "## Measured",
        f"""Wall time {record.wall_seconds / 60:.1f} minutes and CPU time {record.cpu_seconds / 60:.1f} minutes,
        summed over cores, on {record.device} with {_NUM_WORKERS} workers of one thread ({versions}). Where the wall
        time exceeds half of the CPU time, the machine had other work to do as well.""",
        f"""Loss in training: the mean square of the noise's error over the timestep's cumulative alpha, where the noise
        is standard normal plus {_COLOUR_OFFSET:g} times a standard normal colour for the whole frame.""",
        _table(["steps", "mean loss"], curve),
        """Mean square of the noise's error on held-out frames with standard normal noise, on the same draws before and
        after training; predicting zero gives 1.""",
        _table(["timesteps", "untrained", "trained"], held_out),
        "## Limits",
        """It knows three clips. With another caption, or a frame of another video, the inversion still runs, but the
        edit means little. No other size than 32 x 32 was trained.""",
        "## Licence",
        f"""The weights are under the Apache License 2.0, like the rest of the repository. No frame is distributed
        with them. The clips come with {PACKAGE}, which is under a BSD licence. Big Buck Bunny is (c) Blender
        Foundation, CC BY 3.0, www.bigbuckbunny.org. The package states no licence of their own for bikes.mp4 and
        carphone_pristine.mp4.""",
    ]
    return "\n\n".join(map(_filled, sections)) + "\n"


def _command(settings: TrainingSettings) -> str:
    """The shell command of a run; in Python where a setting has no option on the command line."""
    if settings == TrainingSettings(seed=settings.seed, steps=settings.steps):
        return f"framebound train --out DIR --seed {settings.seed} --steps {settings.steps}"
    defaults = TrainingSettings()
    changed = [part.name for part in fields(settings) if getattr(settings, part.name) != getattr(defaults, part.name)]
    arguments = "".join(f", {name}={getattr(settings, name)!r}" for name in changed)
    return f"from experiments.editor.train import Architecture, train; train('DIR'{arguments})"


def _listed(items: Iterable[object]) -> str:
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _filled(section: str) -> str:
    """A paragraph wrapped to 120 columns; tables, front matter and indented commands as they are."""
    if section.startswith(("|", "---", "    ")):
        return section
    return textwrap.fill(" ".join(section.split()), 120)
