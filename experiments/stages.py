"""What `framebound reproduce` computes on the real network, one function per stored result.

    clip -> adapter -> edit -> features
                            -> evidence

Everything that is compared with a bound is computed in float64; only the adapter is trained in float32. Each stage loads its own editor, so
that no state of one leaks into the next.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.editor import CLIPS, Editor, Trajectory, caption, load_clip, load_editor, read_video, train_adapter
from experiments.settings import MINIMUM_FRAMES, Settings
from experiments.store import Draft, Entry, digest_array
from theory.evidence import Evidence, FeatureRecord, RoundTripRecord
from theory.temporal_loss import similarities, temporal_loss
from theory.temporal_loss.instances import reduce_frames

ADAPTER_FILE = "adapter.safetensors"
ALL_LAYERS = r"attn1$"
# Frame similarities are read off nearly clean latents: at the first level of a 50-step ladder the noise is still invisible.
TRACE_TIMESTEP = 1


@dataclass
class Context:
    """What a stage or a study is given.

    Attributes:
        settings: of the run.
        inputs: the stored results it needs, by name.
        draft: what it fills in.
        scratch: a file that a long stage may keep its state in; it survives a kill, and is removed when the stage ends.
        progress: called with (steps done, steps in all).
    """

    settings: Settings
    inputs: Mapping[str, Entry]
    draft: Draft
    scratch: Path
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)


def _load(settings: Settings, dtype: torch.dtype = torch.float64) -> Editor:
    return load_editor(settings.pipeline, device=settings.device, dtype=dtype)


def _load_with_adapter(context: Context, frames: np.ndarray) -> Editor:
    editor = _load(context.settings)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    editor.set_frames(frames)
    return editor


def frame_size(editor: Editor) -> int:
    """Side of the frames that the pipeline was trained on, in pixels."""
    pipeline = editor.pipeline
    reduction = 1 if pipeline.vae is None else 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return int(pipeline.unet.config.sample_size) * reduction


def _clip_frames(settings: Settings, size: int) -> np.ndarray:
    if settings.video is not None:
        frames = read_video(settings.video, size=size, max_frames=settings.num_frames * settings.frame_stride, min_frames=MINIMUM_FRAMES)
    else:
        frames = load_clip(settings.clip, split="held_out", size=size)
    # Fewer frames than asked for are taken as they are, as long as there are three.
    stride = max(1, min(settings.frame_stride, len(frames) // MINIMUM_FRAMES))
    return frames[::stride][: settings.num_frames]


def clip(context: Context) -> None:
    """Held-out frames of a shipped clip, or the user's video, at the size the pipeline was trained on, and the two prompts."""
    settings = context.settings
    frames = _clip_frames(settings, frame_size(_load(settings, torch.float32)))
    if settings.video is None:
        subject, name = CLIPS[settings.clip].subject, settings.clip
        source, target = caption(subject, "plain"), caption(subject, settings.look)
    else:
        # Without a caption the unconditional prompt is the honest one; the edit then only names the look.
        name, source, target = Path(settings.video).name, "", f"a {settings.look} video"
    context.draft.values = {
        "name": name,
        "source_prompt": settings.source_prompt if settings.source_prompt is not None else source,
        "target_prompt": settings.target_prompt if settings.target_prompt is not None else target,
        "shape": list(frames.shape),
        "sha256": digest_array(frames),
    }
    context.draft.arrays = {"frames": frames}


def adapter(context: Context) -> None:
    """LoRA and prompt tokens, trained on the clip under noise MSE + weight * temporal loss."""
    settings, source = context.settings, context.inputs["clip"]
    editor = _load(settings, torch.float32)
    editor.add_adapter(seed=settings.seed)
    editor.add_prompt_tokens(seed=settings.seed)
    training = train_adapter(
        editor,
        source.arrays["frames"],
        source.values["source_prompt"],
        steps=settings.adapter_steps,
        learning_rate=settings.learning_rate,
        temporal_weight=settings.temporal_weight,
        seed=settings.seed,
        checkpoint=context.scratch,
        progress=lambda done, total, loss: context.progress(done, total),
    )
    editor.save_adapter(context.draft.folder / ADAPTER_FILE)
    context.draft.values = {
        "layers": list(training.layers),
        "update_norms": editor.adapter_update_norms(),
        "first_loss": float(training.total[0]),
        "last_loss": float(training.total[-1]),
    }
    context.draft.arrays = {"total": training.total, "noise": training.noise, "temporal": training.temporal}


def _frames_first(latents: torch.Tensor) -> np.ndarray:
    return latents.cpu().numpy()


def edit(context: Context) -> None:
    """Inversion, reconstruction, and the edit without and with the adapter, all in float64."""
    settings, source = context.settings, context.inputs["clip"]
    frames, prompt, target = source.arrays["frames"], source.values["source_prompt"], source.values["target_prompt"]
    editor = _load_with_adapter(context, frames)
    latents = editor.to_latents(frames)
    steps, total = settings.num_steps, 6 * settings.num_steps
    runs = iter(range(6))

    def progress() -> Callable[[int, int], None]:
        offset = next(runs) * steps
        return lambda done, _: context.progress(offset + done, total)

    def sample(start: torch.Tensor, text: str, with_adapter: bool, guidance_scale: float = 1.0) -> Trajectory:
        return editor.sample(
            start, text, num_steps=steps, adapter=with_adapter, guidance_scale=guidance_scale, progress=progress()
        )

    arrays, results = {}, {"source": latents}
    for with_adapter, suffix in ((False, ""), (True, "_adapter")):
        inversion = editor.invert(latents, prompt, num_steps=steps, adapter=with_adapter, progress=progress())
        noise = inversion.latents[-1]
        results[f"reconstruction{suffix}"] = sample(noise, prompt, with_adapter).latents[0]
        results[f"edit{suffix}"] = sample(noise, target, with_adapter, settings.guidance_scale).latents[0]
        arrays[f"inversion{suffix}"] = _frames_first(inversion.latents)
    layer = context.inputs["adapter"].values["layers"][-1]
    traces, losses = {}, {}
    for name, result in results.items():
        text = target if name.startswith("edit") else prompt
        with torch.no_grad():
            features = editor.features(result, TRACE_TIMESTEP, text, layers=[layer])[layer]
        traces[name] = [float(value) for value in similarities(features)]
        losses[name] = float(temporal_loss(features))
        arrays[f"frames_{name}"] = frames if name == "source" else editor.to_frames(result)
    context.draft.arrays = arrays
    context.draft.values = {
        "timesteps": [int(timestep) for timestep in inversion.timesteps],
        "alphas_cumprod": [float(value) for value in inversion.alphas_cumprod],
        "trace_layer": layer,
        "similarities": traces,
        "temporal_losses": losses,
        "relative_reconstruction_error": {
            suffix or "base": float(torch.linalg.norm(results[f"reconstruction{suffix}"] - latents) / torch.linalg.norm(latents))
            for suffix in ("", "_adapter")
        },
        "noise_rms": float(torch.sqrt(torch.mean(torch.from_numpy(arrays["inversion"][-1]) ** 2))),
    }


def chosen_levels(num_steps: int, count: int) -> list[int]:
    """`count` levels of the ladder, spread evenly from the first noisy one to the last."""
    return sorted({int(round(level)) for level in np.linspace(1, num_steps, count)})


def features(context: Context) -> None:
    """Self-attention features along the inversion, every layer, adapter off and on.

    Stored are frames rotated into as many dimensions as there are frames, plus one: the temporal loss depends on inner products only,
    so its gradient and the spectrum of its Hessian are the same there.
    """
    settings, source, edited = context.settings, context.inputs["clip"], context.inputs["edit"]
    frames, prompt = source.arrays["frames"], source.values["source_prompt"]
    editor = _load_with_adapter(context, frames)
    levels = chosen_levels(settings.num_steps, settings.feature_levels)
    records, done = [], 0
    for with_adapter in (False, True):
        trajectory = edited.arrays["inversion_adapter" if with_adapter else "inversion"]
        for level in levels:
            latents = torch.from_numpy(trajectory[level]).to(editor.device)
            timestep = edited.values["timesteps"][level]
            with torch.no_grad():
                captured = editor.features(latents, timestep, prompt, adapter=with_adapter, layers=ALL_LAYERS)
            for layer, values in captured.items():
                name = f"record{len(records):03d}"
                context.draft.arrays[name] = reduce_frames(values.cpu().numpy())
                records.append({
                    "array": name, "layer": layer, "level": level, "timestep": timestep, "adapter": with_adapter,
                    "shape": list(values.shape),
                })
            done += 1
            context.progress(done, 2 * len(levels))
    context.draft.values = records


def record_round_trip(
    editor: Editor,
    latents: torch.Tensor,
    prompt: str,
    num_steps: int,
    label: str,
    *,
    adapter: bool = False,
    invert_adapter: bool | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RoundTripRecord:
    """Invert, sample back, and evaluate the sampling network once more on the inversion's own latents.

    Args:
        latents: (frames, channels, height, width) at level 0, float64.
        adapter: on or off in sampling, and in `predictions_at_inversion`.
        invert_adapter: the same in inversion; None means as in sampling.
        progress: called with (network evaluations done, network evaluations in all).
    """
    invert_adapter = adapter if invert_adapter is None else invert_adapter
    total = 3 * num_steps
    inversion = editor.invert(
        latents, prompt, num_steps=num_steps, adapter=invert_adapter, progress=lambda done, _: progress(done, total)
    )
    sampling = editor.sample(
        inversion.latents[-1], prompt, num_steps=num_steps, adapter=adapter,
        progress=lambda done, _: progress(num_steps + done, total),
    )
    at_inversion = []
    with torch.no_grad():
        for level in range(1, num_steps + 1):
            timestep = int(inversion.timesteps[level])
            at_inversion.append(editor.predict_noise(inversion.latents[level], timestep, prompt, adapter=adapter))
            progress(2 * num_steps + level, total)
    return RoundTripRecord(
        label=label,
        alphas_cumprod=inversion.alphas_cumprod,
        inversion=_frames_first(inversion.latents),
        sampling=_frames_first(sampling.latents),
        inversion_predictions=_frames_first(inversion.predictions),
        sampling_predictions=_frames_first(sampling.predictions),
        predictions_at_inversion=_frames_first(torch.stack(at_inversion)),
    )


_ROUND_TRIP_ARRAYS = (
    "alphas_cumprod", "inversion", "sampling", "inversion_predictions", "sampling_predictions", "predictions_at_inversion",
)


def evidence(context: Context) -> None:
    """What the reality rung of every claim reads: whole features at three noise levels, and three round trips."""
    settings, source, edited = context.settings, context.inputs["clip"], context.inputs["edit"]
    frames, prompt = source.arrays["frames"], source.values["source_prompt"]
    editor = _load_with_adapter(context, frames)
    arrays, feature_labels, trip_labels = {}, [], []
    for with_adapter in (False, True):
        trajectory = edited.arrays["inversion_adapter" if with_adapter else "inversion"]
        for level in chosen_levels(settings.num_steps, 3):
            timestep = edited.values["timesteps"][level]
            latents = torch.from_numpy(trajectory[level]).to(editor.device)
            with torch.no_grad():
                captured = editor.features(latents, timestep, prompt, adapter=with_adapter)
            for layer, values in captured.items():
                arrays[f"features{len(feature_labels):03d}"] = values.cpu().numpy()
                feature_labels.append(f"{layer}, timestep {timestep}, adapter {'on' if with_adapter else 'off'}")
    latents = editor.to_latents(frames)
    trips = (("adapter off", False, False), ("adapter on", True, True), ("adapter in sampling only", True, False))
    for number, (name, sampling_adapter, inversion_adapter) in enumerate(trips):
        label = f"{name}, {settings.evidence_steps} steps"
        record = record_round_trip(
            editor, latents, prompt, settings.evidence_steps, label, adapter=sampling_adapter, invert_adapter=inversion_adapter,
            progress=lambda done, total, number=number: context.progress(number * total + done, len(trips) * total),
        )
        arrays |= {f"trip{number}.{name}": getattr(record, name) for name in _ROUND_TRIP_ARRAYS}
        trip_labels.append(label)
    context.draft.arrays = arrays
    context.draft.values = {"features": feature_labels, "round_trips": trip_labels}


def load_evidence(entry: Entry) -> Evidence:
    """The evidence as the theorems take it, from the stored stage."""
    return Evidence(
        features=tuple(
            FeatureRecord(label, entry.arrays[f"features{number:03d}"]) for number, label in enumerate(entry.values["features"])
        ),
        round_trips=tuple(
            RoundTripRecord(label, **{name: entry.arrays[f"trip{number}.{name}"] for name in _ROUND_TRIP_ARRAYS})
            for number, label in enumerate(entry.values["round_trips"])
        ),
    )
