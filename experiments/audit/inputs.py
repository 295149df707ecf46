"""What an audit is given: pipeline, adapter and clip, each read as its user's own tools read it, and what was read.

The stages `clip` and `schedulers` are here; `measure` holds those that run networks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from experiments.audit.settings import AuditSettings
from experiments.editor.capture import select_layers
from experiments.editor.clip_reading import Clip, open_clip, read_clip
from experiments.editor.clip_reading.pictures import Remarks
from experiments.editor.editor import Editor, load_editor
from experiments.editor.inversion import noise_ladder
from experiments.editor.pipeline import read_scheduler
from experiments.editor.scheduler_audit import SchedulerAudit, audit_schedulers
from experiments.settings import MINIMUM_FRAMES
from experiments.store import digest_array

if TYPE_CHECKING:
    from experiments.audit.measure import Context

LARGEST_LEVEL = 255
"""Pixel errors are in steps of 8 bits."""


def load(settings: AuditSettings) -> Editor:
    """The editor that is audited, its adapter loaded and off. The clip is opened first, which takes no time.

    Raises:
        ValueError: what `open_clip`, `load_editor` and `Editor.load_adapter` raise.
    """
    # Decodes the first picture alone: a clip that cannot be read is known before gigabytes are.
    next(open_clip(Path(settings.video), Remarks()).pictures, None)
    editor = load_editor(settings.pipeline, device=settings.device, dtype=getattr(torch, settings.dtype))
    if settings.adapter is not None:
        editor.load_adapter(settings.adapter)
    return editor


def read_frames(settings: AuditSettings, editor: Editor) -> Clip:
    """The clip's frames, square, of the size asked for or that of the pipeline's training.

    Raises:
        ValueError: what `read_clip` raises: nothing to decode, or fewer than 3 frames.
    """
    return read_clip(
        settings.video,
        size=settings.size or editor.frame_size,
        max_frames=settings.num_frames,
        min_frames=MINIMUM_FRAMES,
    )


def check(settings: AuditSettings, editor: Editor) -> None:
    """Refuses, before anything is written, what a later stage would refuse.

    Raises:
        ValueError: a clip that cannot be read or has fewer than 3 frames, a size that the pipeline does not take,
            layers that are not there, a number of steps that the schedule does not have, captions that are too long.
    """
    frames = read_frames(settings, editor).frames[:1]
    select_layers(editor.pipeline.unet, settings.layers)
    noise_ladder(editor.pipeline.scheduler, settings.num_steps, editor.dtype)
    require_one_evaluation(editor, frames, ("", settings.prompt, settings.edit or ""))


def require_one_evaluation(editor: Editor, frames: np.ndarray, prompts: Sequence[str]) -> None:
    """One evaluation of every network finds what no list of settings does: shapes that do not fit each other.

    Raises:
        ValueError: frames that the autoencoder does not take, a prompt that is too long or has no embedding, an
            evaluation that fails.
    """
    try:
        latents = editor.to_latents(frames)
        for prompt in prompts:
            editor.encode_prompt(prompt)
        with torch.no_grad():
            editor.predict_noise(latents, 1, "")
        editor.to_frames(latents)
    except (ValueError, MemoryError):
        raise
    # Networks that a configuration with odd values describes raise nearly anything.
    except Exception as error:
        if "memory" in str(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the pipeline cannot be evaluated on a frame of {frames.shape[2]} x {frames.shape[1]} pixels ({reason}):"
            " its configuration asks for something else than a Stable Diffusion pipeline gives, or the size does not"
            " suit it"
        ) from error


def clip(context: "Context") -> None:
    """The frames, their latents, what the autoencoder alone makes of them, and what was read on the way."""
    settings, editor = context.settings, context.editor
    read = read_frames(settings, editor)
    frames = read.frames
    latents = editor.to_latents(frames)
    decoded = editor.to_frames(latents)
    parameters = editor.adapter_parameters()
    context.draft.arrays = {"frames": frames, "latents": context.array(latents), "decoded": decoded}
    notes, warnings = list(editor.pipeline.notes), []
    adapter = None
    if settings.adapter is not None:
        adapter = _describe_adapter(editor)
        file = editor.lora_file
        notes += [] if file is None else file.notes
        warnings += [] if file is None else file.warnings
        warnings += _weigh(adapter)
        notes.append(_weight_text(adapter))
    notes.append(f"clip: {', '.join(read.notes)}")
    context.draft.values = {
        "shape": list(frames.shape),
        "latent_shape": list(latents.shape),
        "sha256": digest_array(frames),
        "has_autoencoder": editor.pipeline.vae is not None,
        "decoding_error": pixel_error(decoded, frames),
        "unet_parameters": (
            sum(weight.numel() for weight in editor.pipeline.unet.parameters())
            - sum(weight.numel() for name, weight in parameters.items() if not name.startswith("tokens."))
        ),
        "adapter": adapter,
        "notes": [_printable(text) for text in notes],
        "warnings": [_printable(text) for text in (*warnings, *read.warnings)],
        "equal": list(read.equal),
        "uneven": [list(pair) for pair in read.uneven],
        "still": read.still,
    }


def _printable(text: str) -> str:
    """Names of files may hold control characters, and bytes that are no UTF-8."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def lines(values: Any) -> Iterator[str]:
    """What a stored result has to say on the terminal, whether it was made or reused."""
    if isinstance(values, Mapping):
        yield from values.get("notes", ())
        yield from (f"warning: {text}" for text in values.get("warnings", ()))


def _describe_adapter(editor: Editor) -> dict[str, Any]:
    file = editor.lora_file
    update, weight = editor.adapter_update_norms(), editor.adapted_weight_norms()
    return {
        "parameters": sum(value.numel() for value in editor.adapter_parameters().values()),
        "layers": len(update),
        "ranks": None if file is None or file.composed else file.ranks,
        "alpha_source": None if file is None else file.alpha_source,
        "text_encoder_layers": 0 if file is None else len(file.text_updates),
        "update_norm": math.sqrt(sum(norm**2 for norm in update.values())),
        "weight_norm": math.sqrt(sum(norm**2 for norm in weight.values())),
    }


def _weight_text(adapter: Mapping[str, Any]) -> str:
    if not adapter["layers"]:
        return "adapter: prompt tokens alone"
    ratio = adapter["update_norm"] / adapter["weight_norm"] if adapter["weight_norm"] else math.inf
    ranks = "" if adapter["ranks"] is None else f", ranks {', '.join(map(str, adapter['ranks']))}"
    return (
        f"adapter: {adapter['layers']} layers of the UNet{ranks}; ||update|| = {adapter['update_norm']:.4g} is"
        f" {ratio:.3g} times ||W|| of these layers"
    )


def _weigh(adapter: Mapping[str, Any]) -> list[str]:
    """Warnings about an update of zero, or larger than the weights it updates."""
    if not adapter["layers"]:
        return []
    if adapter["update_norm"] == 0:
        return ["the adapter changes nothing: its update is zero in every layer of the UNet (was it trained?)"]
    if adapter["update_norm"] > adapter["weight_norm"]:
        return [
            "the adapter's update is larger than the weights that it updates (||update|| ="
            f" {adapter['update_norm']:.4g}, ||W|| = {adapter['weight_norm']:.4g}): is its alpha right?"
        ]
    return []


def pixel_error(frames: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Root mean square and largest difference, in steps of 8 bits."""
    difference = LARGEST_LEVEL * (frames.astype(np.float64) - wanted)
    return {"rms": float(np.sqrt(np.mean(difference**2))), "largest": float(np.max(np.abs(difference)))}


def schedulers(context: "Context") -> None:
    """The sampler that the pipeline's files describe, and the pair that the audit used."""
    settings = context.settings
    found = read_scheduler(settings.pipeline)
    used = context.editor.pipeline.scheduler
    context.draft.values = {
        "stored_class": found.class_name,
        "changed": [asdict(change) for change in found.changes],
        "solver": found.solver,
        "prediction_type": found.prediction_type,
        "stored": (
            None
            if found.solver is not None
            else _scheduler_values(audit_schedulers(found.as_stored(), num_steps=settings.num_steps))
        ),
        "used": _scheduler_values(audit_schedulers(used, num_steps=settings.num_steps)),
    }


def _scheduler_values(found: SchedulerAudit) -> dict[str, Any]:
    return {**asdict(found), "mismatches": [asdict(mismatch) for mismatch in found.mismatches]}
