"""What `framebound reproduce` computes on the real network, one function per stored result.

    clip -> adapter -> evidence -> edit
                                -> features

Everything that is compared with a bound is computed in float64; only the adapter is trained in float32. Each stage
loads its own editor, so that no state of one leaks into the next.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from experiments.editor import CLIPS, Editor, caption, load_clip, load_editor, read_video, train_adapter
from experiments.editor.evidence import ROUND_TRIPS, gather
from experiments.errors import reading
from experiments.settings import MINIMUM_FRAMES, Settings
from experiments.store import Draft, Entry, digest_array
from theory.temporal_loss import similarities, similarity_warning, temporal_loss
from theory.temporal_loss.instances import reduce_frames, reduce_pixels

ADAPTER_FILE = "adapter.safetensors"
ALL_LAYERS = r"attn1$"
# Frame similarities are read off nearly clean latents: at the first level of a 50-step ladder the noise is still
# invisible.
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
    with reading(f"the pipeline {settings.pipeline}", "copy the pipeline folder again"):
        return load_editor(settings.pipeline, device=settings.device, dtype=dtype)


def _load_with_adapter(context: Context, frames: np.ndarray) -> Editor:
    editor = _load(context.settings)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    editor.set_frames(frames)
    return editor


def _clip_frames(settings: Settings, size: int) -> np.ndarray:
    if settings.video is not None:
        most = settings.num_frames * settings.frame_stride
        with reading(f"the clip {settings.video}", "give an mp4, a gif or a folder of images"):
            frames = read_video(settings.video, size=size, max_frames=most, min_frames=MINIMUM_FRAMES)
    else:
        frames = load_clip(settings.clip, split="held_out", size=size)
    # Fewer frames than asked for are taken as they are, as long as there are three.
    stride = max(1, min(settings.frame_stride, len(frames) // MINIMUM_FRAMES))
    return frames[::stride][: settings.num_frames]


def clip(context: Context) -> None:
    """Held-out frames of a shipped clip, or the user's video, at the size the pipeline was trained on, and the two
    prompts, refused here rather than after the training if the text encoder does not take them.
    """
    settings = context.settings
    editor = _load(settings, torch.float32)
    frames = _clip_frames(settings, editor.frame_size)
    if settings.video is None:
        subject, name = CLIPS[settings.clip].subject, settings.clip
        source, target = caption(subject, "plain"), caption(subject, settings.look)
    else:
        # Without a caption the unconditional prompt is the honest one; the edit then only names the look.
        name, source, target = Path(settings.video).name, "", f"a {settings.look} video"
    source = settings.source_prompt if settings.source_prompt is not None else source
    target = settings.target_prompt if settings.target_prompt is not None else target
    for prompt in (source, target):
        editor.encode_prompt(prompt)
    context.draft.values = {
        "name": name,
        "source_prompt": source,
        "target_prompt": target,
        "shape": list(frames.shape),
        "sha256": digest_array(frames),
    }
    context.draft.arrays = {"frames": frames}


def adapter(context: Context) -> None:
    """LoRA and prompt tokens, trained on the clip under noise MSE + weight * temporal loss, with snapshots along the
    training."""
    settings, source = context.settings, context.inputs["clip"]
    editor = _load(settings, torch.float32)
    editor.add_adapter(seed=settings.seed)
    editor.add_prompt_tokens(seed=settings.seed)
    snapshots = sorted({round(step) for step in np.linspace(0, settings.adapter_steps, settings.training_snapshots)})

    def keep(step: int) -> None:
        # Beside the training's own state, so that a run that was killed finds those of the steps it will not take
        # again.
        if step in snapshots:
            editor.save_adapter(_snapshot(context.scratch, step))

    def progress(done: int, total: int, loss: float) -> None:
        keep(done)
        context.progress(done, total)

    keep(0)
    training = train_adapter(
        editor,
        source.arrays["frames"],
        source.values["source_prompt"],
        steps=settings.adapter_steps,
        learning_rate=settings.learning_rate,
        temporal_weight=settings.temporal_weight,
        seed=settings.seed,
        checkpoint=context.scratch,
        progress=progress,
    )
    editor.save_adapter(context.draft.folder / ADAPTER_FILE)
    for step in snapshots:
        shutil.move(_snapshot(context.scratch, step), _snapshot(context.draft.folder / ADAPTER_FILE, step))
    context.draft.values = {
        "snapshots": snapshots,
        "layers": list(training.layers),
        "update_norms": editor.adapter_update_norms(),
        "first_loss": float(training.total[0]),
        "last_loss": float(training.total[-1]),
    }
    context.draft.arrays = {"total": training.total, "noise": training.noise, "temporal": training.temporal}


def evidence(context: Context) -> None:
    """Three round trips (adapter off, on, in sampling only) and features at three noise levels: what the theorems are
    compared with.
    """
    settings, source = context.settings, context.inputs["clip"]
    frames = source.arrays["frames"]
    context.draft.arrays = gather(
        _load_with_adapter(context, frames),
        frames,
        source.values["source_prompt"],
        num_steps=settings.num_steps,
        pairs_everywhere=settings.profile == "full",
        progress=context.progress,
    )


def edit(context: Context) -> None:
    """The edit without and with the adapter, from the recorded inversions, beside the reconstruction; in float64."""
    settings, source, recorded = context.settings, context.inputs["clip"], context.inputs["evidence"].arrays
    frames, prompt, target = source.arrays["frames"], source.values["source_prompt"], source.values["target_prompt"]
    editor = _load_with_adapter(context, frames)
    results = {
        "source": recorded["round_trip/off/inversion"][0],
        "reconstruction": recorded["round_trip/off/sampling"][0],
    }
    for number, (name, adapter) in enumerate((("off", False), ("on", True))):
        noise = torch.from_numpy(recorded[f"round_trip/{name}/inversion"][-1]).to(editor.device)
        sampling = editor.sample(
            noise,
            target,
            num_steps=settings.num_steps,
            adapter=adapter,
            guidance_scale=settings.guidance_scale,
            progress=lambda done, total, number=number: context.progress(number * total + done, 2 * total),
        )
        results["edit_adapter" if adapter else "edit"] = sampling.latents[0].cpu().numpy()
    layer = context.inputs["adapter"].values["layers"][-1]
    traces, losses, arrays = {}, {}, {}
    for name, result in results.items():
        latents = torch.from_numpy(result).to(editor.device)
        with torch.no_grad():
            seen = editor.features(
                latents, TRACE_TIMESTEP, target if name.startswith("edit") else prompt, layers=[layer]
            )[layer]
        traces[name] = [float(value) for value in similarities(seen)]
        losses[name] = float(temporal_loss(seen))
        arrays[f"frames_{name}"] = frames if name == "source" else editor.to_frames(latents)
    context.draft.arrays = arrays
    context.draft.values = {
        "trace_layer": layer,
        "similarities": traces,
        "temporal_losses": losses,
        "relative_reconstruction_error": {
            name: _relative_error(recorded[f"round_trip/{name}/sampling"][0], results["source"]) for name in ROUND_TRIPS
        },
        "noise_rms": float(np.sqrt(np.mean(recorded["round_trip/off/inversion"][-1] ** 2))),
    }


def _relative_error(measured: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(measured - exact) / np.linalg.norm(exact))


def chosen_levels(num_steps: int, count: int) -> list[int]:
    """`count` levels of the ladder, spread evenly from the first noisy one to the last."""
    return sorted({round(level) for level in np.linspace(1, num_steps, count)})


def _snapshot(path: Path, step: int) -> Path:
    return path.with_name(f"{path.name}.step{step:05d}")


def features(context: Context) -> None:
    """Self-attention features of every layer: along the inversion, adapter off and on, and of one noisy clip along the
    adapter's training.

    Stored are frames rotated into as many dimensions as there are frames, plus one: the temporal loss depends on inner
    products only, so its gradient and the spectrum of its Hessian are the same there. Along the inversion without the
    adapter, and along the training, every pixel's channel vectors are stored in the same way.
    """
    settings, source, recorded = context.settings, context.inputs["clip"], context.inputs["evidence"].arrays
    trained = context.inputs["adapter"]
    frames, prompt = source.arrays["frames"], source.values["source_prompt"]
    editor = _load_with_adapter(context, frames)
    levels = chosen_levels(settings.num_steps, settings.feature_levels)
    middle, snapshots = levels[len(levels) // 2], trained.values["snapshots"]
    total, done = 2 * len(levels) + len(snapshots), 0
    records: list[dict] = []

    def capture(trajectory: str, level: int, *, adapter: bool, pixels: bool, step: int | None = None) -> None:
        nonlocal done
        latents = torch.from_numpy(recorded[f"round_trip/{trajectory}/inversion"][level]).to(editor.device)
        timestep = int(recorded["timesteps"][level])
        with torch.no_grad():
            captured = editor.features(latents, timestep, prompt, adapter=adapter, layers=ALL_LAYERS)
        for layer, values in captured.items():
            name, host = f"record{len(records):03d}", values.cpu().numpy()
            context.draft.arrays[name] = reduce_frames(host)
            if pixels:
                context.draft.arrays[f"{name}_pixels"] = reduce_pixels(host)
            records.append(
                {
                    "array": name,
                    "pixels": f"{name}_pixels" if pixels else None,
                    "layer": layer,
                    "level": level,
                    "timestep": timestep,
                    "adapter": adapter,
                    "training_step": step,
                    "shape": list(values.shape),
                    "warning": similarity_warning(host),
                }
            )
        done += 1
        context.progress(done, total)

    for with_adapter in (False, True):
        for level in levels:
            capture("on" if with_adapter else "off", level, adapter=with_adapter, pixels=not with_adapter)
    for step in snapshots:
        editor.load_adapter(_snapshot(trained.folder / ADAPTER_FILE, step))
        capture("off", middle, adapter=True, pixels=True, step=step)
    context.draft.values = records


def similarity_warnings(records: Sequence[Mapping]) -> list[str]:
    """A line for each layer whose features have similarities of +1 and -1 only, at every timestep: a loss on them
    trains nothing."""
    by_layer: dict[str, list[str | None]] = {}
    for record in records:
        by_layer.setdefault(record["layer"], []).append(record["warning"])
    return [f"{layer}: {warnings[0]}" for layer, warnings in by_layer.items() if None not in warnings]
