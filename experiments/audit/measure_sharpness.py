"""The longest measurement of an audit: how sharp the loss is in the adapter's parameters, and which steps lower it.

What is done of it survives a kill.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from experiments.audit.measure import Context, chosen_levels, finite
from experiments.editor.sharpness import adapter_curvature, safe_step
from experiments.kept_state import KeptState


def sharpness(context: Context, *, inversion: str) -> None:
    """Sharpness of the temporal loss in the adapter's parameters and the steps that lower it, at three noise levels.

    Without an adapter those of the one that training would start from.
    """
    settings, arrays, editor = context.settings, context.inputs[inversion].arrays, context.editor
    if editor.lora_file is not None and editor.lora_file.composed:
        reason = f"{editor.lora_file.composed}, and its own parameters are not those that are held here."
        context.draft.values = {"not_measured": reason, "fresh": False, "parameters": 0, "levels": []}
        return
    fresh = not editor.has_adapter
    if fresh:
        editor.add_adapter(seed=settings.seed)
    levels = chosen_levels(settings.num_steps)
    state = KeptState(context.scratch)
    try:
        rows = [
            _sharpness_at(context, arrays, level, (number, len(levels)), state.part(f"level{level}-"))
            for number, level in enumerate(levels)
        ]
        parameters = sum(parameter.numel() for parameter in editor.adapter_parameters().values())
    finally:
        if fresh:
            editor.remove_adapter()
    context.draft.values = {"not_measured": None, "fresh": fresh, "parameters": parameters, "levels": rows}


def _sharpness_at(
    context: Context, arrays: Mapping[str, np.ndarray], level: int, position: tuple[int, int], state: KeptState
) -> dict[str, Any]:
    """Sharpness and safe steps at one noise level, as JSON values; position is (levels done, levels)."""
    settings, editor, (number, count) = context.settings, context.editor, position
    latents, timestep = context.tensor(arrays["latents"][level]), int(arrays["timesteps"][level])
    share = 100 // count

    def report(done: int, total: int) -> None:
        context.progress(share * number + share // 2 * done // total, 100)

    def report_step(done: int, total: int) -> None:
        context.progress(share * number + share // 2 + share // 2 * done // total, 100)

    where = (editor, latents, timestep, settings.prompt)
    found = adapter_curvature(*where, layers=settings.layers, progress=report, state=state)
    step = safe_step(
        *where,
        found,
        layers=settings.layers,
        frames_at_once=settings.frames_at_once,
        progress=report_step,
        state=state,
    )
    return {
        "level": level,
        "timestep": timestep,
        **asdict(found.model),
        "largest_safe_step": step.largest,
        "smallest_unsafe_step": finite(step.unsafe),
        "tried": [list(pair) for pair in step.tried],
    }
