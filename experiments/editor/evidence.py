"""What the editor records of a real clip for the theorems: plain float64 arrays, nothing recomputed later.

One inversion and sampling gives, at every level k = 0 .. N (0 the data end), the latents z_k on the way up and w_k on
the way down (w_N = z_N), and for every step k between levels k and k + 1

    inversion_predictions[k]      e^_k, the eps the inversion used, eps(z_k, t_{k+1})
    sampling_predictions[k]       eps(w_{k+1}, t_{k+1}), the eps the sampling used
    predictions_at_inversion[k]   eps(z_{k+1}, t_{k+1}), the sampling network on the inversion's latents

With y = x / sqrt(abar), sigma = sqrt((1 - abar) / abar) and h_k = sigma_{k+1} - sigma_k these give, without another
evaluation, the errors E_k = (w_k - z_k) / sqrt(abar_k), the defects d_k = h_k (predictions_at_inversion[k] -
inversion_predictions[k]) and the two-point growth of each step, since sampling_predictions - predictions_at_inversion
is the change of eps over E_{k+1}.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch

from experiments.editor.adapters import ADAPTER_NAME, lora_layers
from experiments.editor.capture import select_layers
from experiments.editor.clips import CLIPS, caption, load_clip
from experiments.editor.editor import Editor
from experiments.editor.inversion import Trajectory, noise_ladder
from experiments.editor.objective import train_adapter
from theory.evidence import AdapterRecord, Evidence, FeatureRecord, RoundTripRecord

ROUND_TRIPS: Mapping[str, tuple[bool, bool]] = {
    "off": (False, False),
    "on": (True, True),
    "sampling_only": (False, True),
}
"""Name of a round trip -> whether the adapter is on in inversion and in sampling."""

_ROUND_TRIP_ARRAYS = tuple(field.name for field in fields(RoundTripRecord) if field.name != "label")
_LABELS = {"off": "adapter off", "on": "adapter on", "sampling_only": "adapter in sampling only"}


def record_round_trip(
    editor: Editor,
    latents: torch.Tensor,
    prompt: str | torch.Tensor,
    num_steps: int,
    label: str,
    *,
    adapter: bool = False,
    invert_adapter: bool | None = None,
    fixed_point_iterations: int = 0,
    guidance_scale: float = 1.0,
    inversion: Trajectory | None = None,
    frames_at_once: int | None = None,
    any_dtype: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RoundTripRecord:
    """Inverts, samples back, and evaluates the sampling network once more on each of the inversion's latents.

    Args:
        editor: of dtype float64; prompt tokens, where they are on, with the frames of the latents set.
        latents: (frames, channels, height, width) at level 0, float64.
        adapter: on or off in sampling and in `predictions_at_inversion`.
        invert_adapter: the same in inversion; None means as in sampling.
        guidance_scale: of sampling and of `predictions_at_inversion`; the inversion runs without guidance.
        inversion: one that is known already, from these latents; `invert_adapter` and `fixed_point_iterations` are
            then what they were in it.
        frames_at_once: see `Editor.predict_noise`.
        any_dtype: take an editor of another dtype; the identities of the theorems then hold to the rounding of that
            dtype, and the record's values are those numbers, promoted.
        progress: called with (steps and evaluations done, 3 num_steps).

    Raises:
        ValueError: the editor is not of dtype float64; what `Editor.invert`, `sample` and `predict_noise` raise.
    """
    if not any_dtype:
        _require_float64(editor)
    total = 3 * num_steps
    invert_adapter = adapter if invert_adapter is None else invert_adapter

    def report(offset: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, _: progress(offset + done, total)

    if inversion is None:
        inversion = editor.invert(
            latents,
            prompt,
            num_steps=num_steps,
            adapter=invert_adapter,
            fixed_point_iterations=fixed_point_iterations,
            frames_at_once=frames_at_once,
            progress=report(0),
        )
    network = {"adapter": adapter, "guidance_scale": guidance_scale, "frames_at_once": frames_at_once}
    sampling = editor.sample(
        inversion.latents[-1], prompt, num_steps=num_steps, progress=report(num_steps), **network
    )
    at_inversion = []
    with torch.no_grad():
        for level in range(1, num_steps + 1):
            timestep = int(inversion.timesteps[level])
            at_inversion.append(editor.predict_noise(inversion.latents[level], timestep, prompt, **network))
            if progress is not None:
                progress(2 * num_steps + level, total)
    return RoundTripRecord(
        label=label,
        alphas_cumprod=inversion.alphas_cumprod,
        inversion=_array(inversion.latents),
        sampling=_array(sampling.latents),
        inversion_predictions=_array(inversion.predictions),
        sampling_predictions=_array(sampling.predictions),
        predictions_at_inversion=_array(torch.stack(at_inversion)),
    )


def gather(
    editor: Editor,
    clip_frames: np.ndarray,
    prompt: str,
    *,
    num_steps: int = 50,
    num_levels: int = 3,
    layers: str | Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Features along the inversion and three round trips of a clip.

    Args:
        editor: of dtype float64, with LoRA, prompt tokens or both; prompt tokens get `clip_frames` as their source
            frames.
        clip_frames: (frames, height, width, 3) floating in [0, 1].
        num_levels: at how many levels features are taken, spread evenly from level 1 to level num_steps.
        layers: self-attentions, see `capture.select_layers`; None means all of the up blocks.
        progress: called with (steps and evaluations done, in all).

    Returns:
        Arrays, float64 but for the timesteps (N = num_steps, x = frames, channels, height, width of the latents):

        "alphas_cumprod"                                (N + 1,)     at each level, decreasing
        "timesteps"                                     (N + 1,)     int64, of each level, -1 at level 0
        "features/<off|on>/<timestep>/<layer>"          (frames, channels, height, width) of that layer
                                                        at the inversion's latents of that timestep,
                                                        adapter off or on in both
        "adapter/<timestep>/<layer>/<part>"             of the first of the layers, with LoRA: the output projection
                                                        at the first of the timesteps, <part> the arrays of
                                                        theory.evidence.AdapterRecord
        "round_trip/<name>/inversion"                   (N + 1, x)   z_k
        "round_trip/<name>/sampling"                    (N + 1, x)   w_k
        "round_trip/<name>/inversion_predictions"       (N, x)       eps(z_k, t_{k+1}), the inversion's network
        "round_trip/<name>/sampling_predictions"        (N, x)       eps(w_{k+1}, t_{k+1}), the sampling's network
        "round_trip/<name>/predictions_at_inversion"    (N, x)       eps(z_{k+1}, t_{k+1}), the sampling's network

        <name> is "off", "on" (the adapter on both sides) or "sampling_only" (inversion without, sampling with it).

    Raises:
        ValueError: the editor is not of dtype float64 or has no adapter; num_levels not in 1 .. num_steps; what
            `Editor.to_latents`, `invert`, `sample` and `features` raise.
    """
    _require_float64(editor)
    if not editor.has_adapter:
        raise ValueError(
            "the editor has no adapter to compare with; call add_adapter, add_prompt_tokens or load_adapter first"
        )
    if not 1 <= num_levels <= num_steps:
        raise ValueError(f"num_levels = {num_levels} must lie in 1 .. num_steps = {num_steps}")
    latents = editor.to_latents(clip_frames)
    if editor.has_prompt_tokens:
        editor.set_frames(clip_frames)
    total = len(ROUND_TRIPS) * 3 * num_steps + 2 * num_levels
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    trips = {
        name: record_round_trip(
            editor,
            latents,
            prompt,
            num_steps,
            name,
            adapter=sampling,
            invert_adapter=inversion,
            progress=lambda *_: step(),
        )
        for name, (inversion, sampling) in ROUND_TRIPS.items()
    }
    arrays = {"alphas_cumprod": trips["off"].alphas_cumprod}
    timesteps = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype).timesteps
    arrays["timesteps"] = timesteps
    for name, adapter in (("off", False), ("on", True)):
        for level in _spread(num_steps, num_levels):
            timestep = int(timesteps[level])
            at_level = torch.from_numpy(trips[name].inversion[level]).to(editor.device)
            with torch.no_grad():
                captured = editor.features(at_level, timestep, prompt, adapter=adapter, layers=layers)
            arrays |= {f"features/{name}/{timestep}/{layer}": _array(values) for layer, values in captured.items()}
            step()
    arrays |= _adapter_arrays(editor, trips["on"].inversion[1], int(timesteps[1]), prompt, layers)
    for name, trip in trips.items():
        for field in _ROUND_TRIP_ARRAYS:
            if field != "alphas_cumprod":
                arrays[f"round_trip/{name}/{field}"] = getattr(trip, field)
    return arrays


def to_evidence(arrays: Mapping[str, np.ndarray]) -> Evidence:
    """What `gather` returns, as the theorems take it."""
    num_steps = len(arrays["alphas_cumprod"]) - 1
    trips = tuple(
        RoundTripRecord(
            label=f"{_LABELS[name]}, {num_steps} steps",
            **{
                field: arrays["alphas_cumprod" if field == "alphas_cumprod" else f"round_trip/{name}/{field}"]
                for field in _ROUND_TRIP_ARRAYS
            },
        )
        for name in ROUND_TRIPS
    )
    return Evidence(
        features=tuple(_feature_records(arrays)), round_trips=trips, adapters=tuple(_adapter_records(arrays))
    )


def default_evidence(
    editor: Editor,
    *,
    clip: str = "carphone",
    num_frames: int = 5,
    num_steps: int = 10,
    adapter_steps: int = 10,
    seed: int = 0,
) -> Evidence:
    """The evidence of held-out frames of a shipped clip, for an editor in float64.

    An editor without an adapter gets LoRA of rank 4 and prompt tokens for the duration, trained for `adapter_steps`
    steps on the same frames, so that their effect is not zero; afterwards the editor is as it was.

    Raises:
        ValueError: what `clips.load_clip`, `train_adapter` and `gather` raise.
    """
    _require_float64(editor)
    frames = load_clip(clip, "held_out", editor.frame_size)[:num_frames]
    prompt = caption(CLIPS[clip].subject, "plain")
    if editor.has_adapter:
        return to_evidence(gather(editor, frames, prompt, num_steps=num_steps, num_levels=min(3, num_steps)))
    editor.add_adapter(seed=seed)
    editor.add_prompt_tokens(seed=seed)
    try:
        train_adapter(editor, frames, prompt, steps=adapter_steps, learning_rate=1e-3, seed=seed)
        return to_evidence(gather(editor, frames, prompt, num_steps=num_steps, num_levels=min(3, num_steps)))
    finally:
        editor.remove_adapter()


def _adapter_arrays(
    editor: Editor, latents: np.ndarray, timestep: int, prompt: str | torch.Tensor, layers: str | Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Inputs, outputs and weights of the adapted output projection of the first chosen self-attention; its outputs are
    that layer's features. Empty where the editor has no LoRA (prompt tokens alone)."""
    layer = select_layers(editor.pipeline.unet, layers)[0]
    projection = lora_layers(editor.pipeline.unet).get(f"{layer}.to_out.0")
    if projection is None:
        return {}
    seen: dict[str, torch.Tensor] = {}

    def remember(module, arguments, output):
        # Tokens run along axis 1: (frames, tokens, channels) -> (frames, channels, tokens).
        seen["inputs"], seen["outputs"] = arguments[0].transpose(1, 2), output.transpose(1, 2)

    hook = projection.register_forward_hook(remember)
    try:
        with torch.no_grad():
            editor.predict_noise(torch.from_numpy(latents).to(editor.device), timestep, prompt, adapter=True)
    finally:
        hook.remove()
    seen["down"] = projection.lora_A[ADAPTER_NAME].weight
    seen["up"] = projection.lora_B[ADAPTER_NAME].weight
    prefix = f"adapter/{timestep}/{layer}"
    factor = np.array([projection.scaling[ADAPTER_NAME]], dtype=np.float64)
    return {f"{prefix}/{part}": _array(values) for part, values in seen.items()} | {f"{prefix}/factor": factor}


def _adapter_records(arrays: Mapping[str, np.ndarray]) -> Iterator[AdapterRecord]:
    for key in arrays:
        if key.startswith("adapter/") and key.endswith("/factor"):
            prefix = key.removesuffix("/factor")
            _, timestep, layer = prefix.split("/")
            parts = {part: arrays[f"{prefix}/{part}"] for part in ("inputs", "outputs", "down", "up")}
            yield AdapterRecord(f"LoRA of {layer}.to_out.0, timestep {timestep}", **parts, factor=float(arrays[key][0]))


def _feature_records(arrays: Mapping[str, np.ndarray]) -> Iterator[FeatureRecord]:
    for key, values in arrays.items():
        if key.startswith("features/"):
            _, adapter, timestep, layer = key.split("/")
            yield FeatureRecord(f"{layer}, timestep {timestep}, adapter {adapter}", values)


def _spread(num_steps: int, num_levels: int) -> list[int]:
    return sorted({round(level) for level in np.linspace(1, num_steps, num_levels)})


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).contiguous().numpy()


def _require_float64(editor: Editor) -> None:
    if editor.dtype != torch.float64:
        raise ValueError(
            f"the editor has dtype {editor.dtype}; evidence is compared with bounds: load it with torch.float64"
        )
