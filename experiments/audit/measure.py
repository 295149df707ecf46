"""What an audit measures, one function per stored result; those on clip and schedulers are in `inputs`.

Networks run in the dtype asked for, bounds in float64.

    clip -> inversion of each network -> round trips, fixed-point iterations, edit
                                      -> features, sharpness
    schedulers
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.audit.inputs import check, clip, lines, load, pixel_error, schedulers
from experiments.audit.settings import AuditSettings
from experiments.editor.capture import ReducedFeatures
from experiments.editor.editor import Editor
from experiments.editor.evidence import record_round_trip
from experiments.editor.inversion import Trajectory
from experiments.editor.video import write_video
from experiments.store import Draft, Entry
from theory.descent import feature_step_limit
from theory.evidence import RoundTripRecord
from theory.inversion import adapter_mismatch_bound, instances, round_trip_bound
from theory.inversion.ddim import RoundTrip, recorded_round_trip
from theory.inversion.round_trip import identity_residuals, path_growth, two_point_growth
from theory.rounding import relative_budget
from theory.temporal_loss import degenerate_similarities
from theory.temporal_loss.certificate import certify_gram

__all__ = ["check", "clip", "lines", "load", "schedulers"]  # the run takes all stages from here

EDIT_FILE = "edit.mp4"
NUM_LEVELS = 3
"""Features are taken at the first noisy level, half way, and at the noise end."""


@dataclass
class Context:
    """What a stage is given.

    Attributes:
        settings: of the audit.
        load: the editor with the adapter in it, if there is one; loaded once and only if some stage needs it.
        inputs: the stored results it needs, by name.
        draft: what it fills in.
        progress: called with (steps done, steps in all).
        scratch: a folder that a long stage may keep its state in; it survives a kill, and is removed when the stage
            ends.
    """

    settings: AuditSettings
    load: Callable[[], Editor]
    inputs: Mapping[str, Entry]
    draft: Draft
    progress: Callable[[int, int], None]
    scratch: Path

    @functools.cached_property
    def editor(self) -> Editor:
        """The editor; prompt tokens, where the adapter has some, know the clip's frames."""
        editor = self.load()
        if editor.has_prompt_tokens and "clip" in self.inputs:
            editor.set_frames(self.inputs["clip"].arrays["frames"])
        return editor

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """An array of a stored result, as the editor takes it."""
        return torch.from_numpy(array).to(self.editor.device, self.editor.dtype)

    def array(self, values: torch.Tensor | np.ndarray) -> np.ndarray:
        """Values of the editor's dtype, without loss and without the zeros that a wider dtype would add."""
        dtype = np.float64 if self.settings.dtype == "float64" else np.float32
        if isinstance(values, torch.Tensor):
            values = values.to("cpu").to(torch.float64).numpy()
        return values.astype(dtype)

    def trajectory(self, name: str) -> Trajectory:
        """A stored inversion."""
        arrays = self.inputs[name].arrays
        return Trajectory(
            self.tensor(arrays["latents"]),
            self.tensor(arrays["predictions"]),
            arrays["timesteps"],
            arrays["alphas_cumprod"],
        )


def inversion(context: Context, *, adapter: bool) -> None:
    """The inversion of the clip, as diffusers inverts."""
    settings = context.settings
    found = context.editor.invert(
        context.tensor(context.inputs["clip"].arrays["latents"]),
        settings.prompt,
        num_steps=settings.num_steps,
        adapter=adapter,
        frames_at_once=settings.frames_at_once,
        progress=context.progress,
    )
    context.draft.arrays = {
        "latents": context.array(found.latents),
        "predictions": context.array(found.predictions),
        "timesteps": found.timesteps,
        "alphas_cumprod": found.alphas_cumprod,
    }


def round_trip(
    context: Context, *, inversion: str, adapter: bool, guided: bool = False, base: str | None = None
) -> None:
    """Sampling from the end of an inversion: error, bound, and what each step adds to it.

    Args:
        inversion: name of the stored inversion.
        adapter: on or off in sampling.
        guided: sample with the guidance asked for.
        base: name of the stored round trip by the network that inverted; the difference of the two networks is then
            told apart from the inversion's own defects.
    """
    settings, source = context.settings, context.inputs["clip"]
    record = record_round_trip(
        context.editor,
        context.tensor(source.arrays["latents"]),
        settings.prompt,
        settings.num_steps,
        "",
        adapter=adapter,
        guidance_scale=settings.guidance_scale if guided else 1.0,
        inversion=context.trajectory(inversion),
        frames_at_once=settings.frames_at_once,
        any_dtype=True,
        progress=lambda done, total: context.progress(done - settings.num_steps, total - settings.num_steps),
    )
    trip = recorded_round_trip(record)
    before = None
    if base is not None:
        before = recorded_round_trip(_replaced(record, context.inputs[base].arrays["predictions_at_inversion"]))
    reconstructed = context.editor.to_frames(context.tensor(record.sampling[0]))
    context.draft.arrays = {"predictions_at_inversion": context.array(record.predictions_at_inversion)}
    context.draft.values = {
        **_explained(trip, before),
        "noise_rms": float(np.sqrt(np.mean(record.inversion[-1] ** 2))),
        "timesteps": [int(timestep) for timestep in context.inputs[inversion].arrays["timesteps"][1:]],
        "pixel_error": pixel_error(reconstructed, source.arrays["decoded"]),
    }


def _replaced(record: RoundTripRecord, predictions_at_inversion: np.ndarray) -> RoundTripRecord:
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return RoundTripRecord(**{**fields, "predictions_at_inversion": predictions_at_inversion.astype(np.float64)})


def _explained(trip: RoundTrip, before: RoundTrip | None) -> dict[str, Any]:
    """Error, bounds and shares of a round trip, all relative to the clip.

    What the recorded steps miss of the exact recursion is the rounding of the networks' dtype. It is measured, and
    counted among the defects, so that the bounds hold in every dtype.
    """
    scale = float(np.linalg.norm(trip.inversion[0]))
    growth, residuals = path_growth(trip), identity_residuals(trip)
    defects = np.linalg.norm(trip.defects, axis=1)
    passed_on = np.concatenate([[1.0], np.cumprod(growth[:-1])])
    values = {
        "error": float(np.linalg.norm(trip.errors[0])) / scale,
        "bound": float(round_trip_bound(defects + residuals, growth)) / scale,
        "two_point_bound": float(round_trip_bound(defects + residuals, two_point_growth(trip))) / scale,
        "rounding_share": float(round_trip_bound(residuals, growth)) / scale,
        "contributions": [float(value) for value in defects * passed_on / scale],
        "budget": relative_budget(instances.operations(num_steps=len(defects))),
    }
    if before is not None:
        own = np.linalg.norm(before.defects, axis=1)
        change = np.linalg.norm(trip.predictions_at_inversion - before.predictions_at_inversion, axis=1)
        steps = np.asarray(trip.steps)
        values |= {
            "mismatch_bound": float(adapter_mismatch_bound(own + residuals, trip.sigmas, change, growth)) / scale,
            "own_contributions": [float(value) for value in own * passed_on / scale],
            "mismatch_contributions": [float(value) for value in steps * change * passed_on / scale],
        }
    return values


def fixed_point(context: Context, *, iterations: int, adapter: bool) -> None:
    """The round trip when every inverse step is iterated towards its fixed point."""
    settings, source = context.settings, context.inputs["clip"]
    latents = context.tensor(source.arrays["latents"])
    options = {"num_steps": settings.num_steps, "adapter": adapter, "frames_at_once": settings.frames_at_once}
    total = 2 * settings.num_steps

    def report(offset: int) -> Callable[[int, int], None]:
        return lambda done, _: context.progress(offset + done, total)

    found = context.editor.invert(
        latents, settings.prompt, fixed_point_iterations=iterations, progress=report(0), **options
    )
    back = context.editor.sample(
        found.latents[-1], settings.prompt, progress=report(settings.num_steps), **options
    ).latents[0]
    error = torch.linalg.vector_norm((back - latents).double()) / torch.linalg.vector_norm(latents.double())
    context.draft.values = {
        "error": float(error),
        "pixel_error": pixel_error(context.editor.to_frames(back), source.arrays["decoded"]),
    }


def edit(context: Context, *, inversion: str, adapter: bool) -> None:
    """The edit: the inversion sampled under the caption of the edit, with guidance."""
    settings, source = context.settings, context.inputs["clip"]
    top = context.trajectory(inversion).latents[-1]
    sampled = context.editor.sample(
        top,
        settings.edit,
        num_steps=settings.num_steps,
        adapter=adapter,
        guidance_scale=settings.guidance_scale,
        frames_at_once=settings.frames_at_once,
        progress=context.progress,
    )
    frames = context.editor.to_frames(sampled.latents[0])
    # Encoded once and kept: the encoder's threads make other bytes of the same frames the next time.
    write_video(context.draft.folder / EDIT_FILE, frames)
    context.draft.arrays = {"frames": frames}
    context.draft.values = {"change": pixel_error(frames, source.arrays["decoded"])}


def chosen_levels(num_steps: int) -> list[int]:
    """The levels at which features are taken."""
    return sorted({round(level) for level in np.linspace(1, num_steps, NUM_LEVELS)})


def features(context: Context, *, inversion: str, adapter: bool) -> None:
    """Norms, similarities and curvature of every chosen layer at three noise levels of the inversion."""
    settings, arrays = context.settings, context.inputs[inversion].arrays
    levels = chosen_levels(settings.num_steps)
    records = []
    for number, level in enumerate(levels):
        timestep = int(arrays["timesteps"][level])
        reduced = context.editor.reduced_features(
            context.tensor(arrays["latents"][level]),
            timestep,
            settings.prompt,
            adapter=adapter,
            layers=settings.layers,
            frames_at_once=settings.frames_at_once,
        )
        records += [
            {"layer": layer, "level": level, "timestep": timestep, **describe_features(layer_features)}
            for layer, layer_features in reduced.items()
        ]
        context.progress(number + 1, len(levels))
    context.draft.values = records


def describe_features(reduced: ReducedFeatures) -> dict[str, Any]:
    """What the reduced features of one layer say about the temporal loss, as JSON values."""
    norms, cosines = reduced.norms, reduced.similarities
    pixel_norms, pixel_cosines = reduced.pixel_norms, reduced.pixel_similarities
    alive = np.isfinite(pixel_norms) & (pixel_norms > 0)
    dead = np.argwhere(~alive)
    values: dict[str, Any] = {
        "shape": [reduced.num_frames, *reduced.shape],
        "norms": finite(norms),
        "similarities": finite(cosines),
        "problem": None,
        "flat": _flat(cosines),
        "pixels": {
            "count": int(pixel_norms.size),
            "dead": len(dead),
            "first_dead": [int(index) for index in dead[0]] if len(dead) else None,
            "least_living_norm": float(np.min(pixel_norms[alive])) if alive.any() else None,
            "flat": _flat(pixel_cosines),
        },
    }
    try:
        gram = reduced.gram()
    except ValueError as error:
        return {**values, "problem": str(error), "loss": None, "certificate": None, "proved_step": None}
    return {
        **values,
        "loss": float(np.mean(np.diff(cosines) ** 2)),
        "certificate": asdict(certify_gram(gram)),
        # Rounding could have raised the least norm by this much.
        "proved_step": feature_step_limit(gram.num_frames, float(np.min(norms)) * (1 - gram.error)),
    }


def _flat(cosines: np.ndarray) -> str | None:
    """The rule of the companion code's loss; where no similarity exists it has nothing to say."""
    known = cosines[np.isfinite(cosines)]
    return degenerate_similarities(known) if known.size else None


def finite(values: Any) -> Any:
    """JSON values, None where a number is not finite."""
    if np.ndim(values) == 0:
        return float(values) if np.isfinite(values) else None
    return [finite(value) for value in np.asarray(values)]


def largest_contributions(contributions: Sequence[float], count: int = 5) -> tuple[list[int], float]:
    """The steps that add most to a bound, the largest first, and their share of it."""
    order = np.argsort(contributions)[::-1][:count]
    total = float(np.sum(contributions))
    return [int(step) for step in order], float(np.sum(np.asarray(contributions)[order])) / total if total else 0.0
