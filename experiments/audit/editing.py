"""The edit of an audit, without and with the adapter, and what is measured of both."""

from typing import Any

import numpy as np

from experiments.audit import measure
from experiments.audit.measure import Context
from experiments.editor.capture import select_layers
from experiments.stages import TRACE_TIMESTEP
from experiments.studies.film_strip import strip

SIDE = 96
"""Frames of the film strip are shown at most this large: the page holds it whole."""


def edit(context: Context, *, inversion: str, adapter: bool) -> None:
    """`measure.edit`, and how alike neighbouring frames of the edit are in the last of the chosen layers."""
    measure.edit(context, inversion=inversion, adapter=adapter)
    context.draft.values |= {"trace": trace(context, context.draft.arrays["frames"], context.settings.edit)}


def source_trace(context: Context) -> None:
    """The same of the clip as the pipeline decodes it."""
    frames = context.inputs["clip"].arrays["decoded"]
    context.draft.values = {"trace": trace(context, frames, context.settings.prompt)}


def trace(context: Context, frames: np.ndarray, prompt: str) -> dict[str, Any] | None:
    """Similarities and temporal loss of frames, read without adapter; None where a frame has no features.

    Args:
        frames: (frames, height, width, 3) floating in [0, 1].
    """
    editor, settings = context.editor, context.settings
    layer = select_layers(editor.pipeline.unet, settings.layers)[-1]
    reduced = editor.reduced_features(
        editor.to_latents(frames),
        TRACE_TIMESTEP,
        prompt,
        adapter=False,
        layers=[layer],
        frames_at_once=settings.frames_at_once,
    )[layer]
    described = measure.describe_features(reduced)
    if described["problem"]:
        return None
    return {"layer": layer, "similarities": described["similarities"], "loss": described["loss"]}


def strip_data(clip: str, settings: Any, entries: dict[str, Any]) -> dict[str, Any]:
    """What the film strip of an audit is drawn from.

    Args:
        clip: the clip's name.
        entries: the stored results; "edit", "clip" and "source_trace", and "edit_off" where there is an adapter.
    """
    adapted = "edit_off" in entries
    rows = {"source": entries["clip"].arrays["decoded"]}
    rows |= {"edit": entries["edit_off" if adapted else "edit"].arrays["frames"]}
    traces = {
        "source": entries["source_trace"].values["trace"],
        "edit": entries["edit_off" if adapted else "edit"].values["trace"],
    }
    if adapted:
        rows["edit_adapter"] = entries["edit"].arrays["frames"]
        traces["edit_adapter"] = entries["edit"].values["trace"]
    known = {name: found for name, found in traces.items() if found is not None}
    return {
        "group": "C1",
        "clip": clip,
        "source_prompt": settings.prompt,
        "target_prompt": settings.edit,
        "num_steps": settings.num_steps,
        "layer": next((found["layer"] for found in known.values()), None),
        **strip(rows, SIDE),
        "similarities": {name: found["similarities"] for name, found in known.items()},
        "temporal_losses": {name: found["loss"] for name, found in known.items()},
        "reconstruction_error": entries["round_trip"].values["error"],
    }
