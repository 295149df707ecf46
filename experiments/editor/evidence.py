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
from experiments.editor.clips import CLIPS, caption, load_clip, resize_area
from experiments.editor.cross_attention import cross_attention_arrays, cross_attention_records
from experiments.editor.editor import Editor
from experiments.editor.inversion import (
    Ladder,
    PredictNoise,
    Trajectory,
    invert_latents,
    noise_ladder,
    sample_latents,
)
from experiments.editor.inversion_evidence import (
    hypothesis_records,
    inversion_arrays,
    output_layer_records,
    practice_records,
    refined_records,
)
from experiments.editor.objective import train_adapter
from experiments.editor.training_record import number_of_runs, record_trainings, training_arrays, training_records
from experiments.editor.two_layer import FRAME_SIZE, load_two_layer, two_layer_latents
from theory.evidence import AdapterRecord, Evidence, FeatureRecord, RoundTripRecord, TwoLayerRecord
from theory.inversion import noise_levels

ROUND_TRIPS: Mapping[str, tuple[bool, bool]] = {
    "off": (False, False),
    "on": (True, True),
    "sampling_only": (False, True),
}
"""Name of a round trip -> whether the adapter is on in inversion and in sampling."""

_ROUND_TRIP_ARRAYS = tuple(field.name for field in fields(RoundTripRecord) if field.name != "label")
_TWO_LAYER_ARRAYS = tuple(field.name for field in fields(TwoLayerRecord) if field.name != "trip")
TWO_LAYER_FRAMES = 2
"""Frames of the clip that the two-layer network inverts: each takes as long to certify as the first."""
TRAINING_STEPS = 4
"""Of the longer recorded runs of descent on the adapter."""
_LABELS = {"off": "adapter off", "on": "adapter on", "sampling_only": "adapter in sampling only"}


def record_trip(
    predict: PredictNoise,
    latents: torch.Tensor,
    ladder: Ladder,
    label: str,
    *,
    invert: PredictNoise | None = None,
    fixed_point_iterations: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RoundTripRecord:
    """Inverts, samples back, and evaluates the sampling predictor once more on each of the inversion's latents.

    Args:
        predict: eps(latents, timestep), which samples.
        latents: (frames, channels, height, width) at level 0, float64.
        invert: the predictor that inverts; None is the one that samples.
        progress: called with (steps and evaluations done, 3 num_steps).

    Raises:
        ValueError: what `inversion.invert_latents` and `sample_latents` raise.
    """
    total = 3 * ladder.num_steps
    with torch.no_grad():
        inversion = invert_latents(
            invert or predict,
            latents,
            ladder,
            fixed_point_iterations=fixed_point_iterations,
            progress=None if progress is None else lambda done, _: progress(done, total),
        )
    return sample_back(
        predict,
        inversion,
        ladder,
        label,
        progress=None if progress is None else lambda done, _: progress(ladder.num_steps + done, total),
    )


def sample_back(
    predict: PredictNoise,
    inversion: Trajectory,
    ladder: Ladder,
    label: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> RoundTripRecord:
    """The second half of `record_trip`, from an inversion that is there already, whatever predictor made it.

    Args:
        progress: called with (steps and evaluations done, 2 num_steps).

    Raises:
        ValueError: what `inversion.sample_latents` raises.
    """
    num_steps = ladder.num_steps
    total = 2 * num_steps
    with torch.no_grad():
        sampling = sample_latents(
            predict,
            inversion.latents[-1],
            ladder,
            progress=None if progress is None else lambda done, _: progress(done, total),
        )
        at_inversion = []
        for level in range(1, num_steps + 1):
            at_inversion.append(predict(inversion.latents[level], int(inversion.timesteps[level])))
            if progress is not None:
                progress(num_steps + level, total)
    return RoundTripRecord(
        label=label,
        alphas_cumprod=inversion.alphas_cumprod,
        inversion=_array(inversion.latents),
        sampling=_array(sampling.latents),
        inversion_predictions=_array(inversion.predictions),
        sampling_predictions=_array(sampling.predictions),
        predictions_at_inversion=_array(torch.stack(at_inversion)),
    )


def recorded_inversion(
    record: RoundTripRecord, ladder: Ladder, device: torch.device | str = "cpu"
) -> Trajectory:
    """The inversion of a record, to sample back from.

    Raises:
        ValueError: the record is of another ladder.
    """
    if not np.array_equal(record.alphas_cumprod, ladder.alphas_cumprod):
        raise ValueError(
            f"{record.label} has {len(record.alphas_cumprod) - 1} steps to alphas_cumprod "
            f"{record.alphas_cumprod[-1]:.6g}, the ladder {ladder.num_steps} to {ladder.alphas_cumprod[-1]:.6g}; they "
            "must be the same: make the ladder with the record's number of steps"
        )
    return Trajectory(
        torch.from_numpy(record.inversion).to(device),
        torch.from_numpy(record.inversion_predictions).to(device),
        ladder.timesteps,
        ladder.alphas_cumprod,
    )


def some_frames(record: RoundTripRecord, count: int) -> RoundTripRecord:
    """The first frames of a record; the network sees each frame by itself, so this is the record of those frames."""
    return RoundTripRecord(
        label=record.label,
        **{
            field: record.alphas_cumprod if field == "alphas_cumprod" else getattr(record, field)[:, :count]
            for field in _ROUND_TRIP_ARRAYS
        },
    )


def record_round_trip(
    editor: Editor,
    latents: torch.Tensor,
    prompt: str | torch.Tensor,
    num_steps: int,
    label: str,
    *,
    adapter: bool = False,
    invert_adapter: bool | None = None,
    guidance_scale: float = 1.0,
    fixed_point_iterations: int = 0,
    inversion: Trajectory | None = None,
    frames_at_once: int | None = None,
    any_dtype: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RoundTripRecord:
    """`record_trip` with the editor's network.

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
        ValueError: the editor is not of dtype float64; what `Editor.predict_noise`, `noise_ladder` and `record_trip`
            raise.
    """
    if not any_dtype:
        _require_float64(editor)

    def network(with_adapter: bool, scale: float) -> PredictNoise:
        return lambda x, timestep: editor.predict_noise(
            x, timestep, prompt, adapter=with_adapter, guidance_scale=scale, frames_at_once=frames_at_once
        )

    ladder = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype)
    predict = network(adapter, guidance_scale)
    if inversion is not None:
        later = None if progress is None else lambda done, _: progress(num_steps + done, 3 * num_steps)
        return sample_back(predict, inversion, ladder, label, progress=later)
    return record_trip(
        predict,
        latents,
        ladder,
        label,
        invert=network(adapter if invert_adapter is None else invert_adapter, 1.0),
        fixed_point_iterations=fixed_point_iterations,
        progress=progress,
    )


def record_two_layer(clip_frames: np.ndarray, ladder: Ladder, label: str) -> TwoLayerRecord:
    """The round trip of the shipped two-layer network on a clip, averaged down to its 8 x 8 pixels.

    Args:
        clip_frames: (frames, height, width, 3) floating in [0, 1].
        ladder: in float64, of the pipeline's own schedule.

    Raises:
        ValueError: what `load_two_layer` and `record_trip` raise.
    """
    network = load_two_layer()
    sigmas = noise_levels(ladder.alphas_cumprod)
    level_of = {int(timestep): level for level, timestep in enumerate(ladder.timesteps)}

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return network(latents, torch.full((len(latents),), sigmas[level_of[timestep]], dtype=latents.dtype))

    trip = record_trip(predict, two_layer_latents(resize_area(clip_frames, FRAME_SIZE)), ladder, label)
    return TwoLayerRecord(trip=trip, **network.matrices(sigmas))


def gather(
    editor: Editor,
    clip_frames: np.ndarray,
    prompt: str,
    *,
    num_steps: int = 50,
    num_levels: int = 3,
    layers: str | Sequence[str] | None = None,
    pairs_everywhere: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Features along the inversion and three round trips of a clip.

    Args:
        editor: of dtype float64, with LoRA, prompt tokens or both; prompt tokens get `clip_frames` as their source
            frames.
        clip_frames: (frames, height, width, 3) floating in [0, 1].
        num_levels: at how many levels features are taken, spread evenly from level 1 to level num_steps.
        layers: self-attentions, see `capture.select_layers`; None means all of the up blocks.
        pairs_everywhere: seek pairs of states at all levels of all round trips, not of the one without adapter alone.
        progress: called with (steps and evaluations done, in all), of the round trips and the features.

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
        "cross/<timestep>/<layer>/<part>"               of the cross-attentions (attn2) beside the first and the last
                                                        of the layers at the first of the timesteps, adapter on, <part>
                                                        the arrays of theory.evidence.CrossAttentionRecord, "counts"
                                                        its numbers of heads, shared tokens and frame tokens
        "round_trip/<name>/inversion"                   (N + 1, x)   z_k
        "round_trip/<name>/sampling"                    (N + 1, x)   w_k
        "round_trip/<name>/inversion_predictions"       (N, x)       eps(z_k, t_{k+1}), the inversion's network
        "round_trip/<name>/sampling_predictions"        (N, x)       eps(w_{k+1}, t_{k+1}), the sampling's network
        "round_trip/<name>/predictions_at_inversion"    (N, x)       eps(z_{k+1}, t_{k+1}), the sampling's network

        "two_layer/<field>"                             of the two-layer network's round trip on the first two frames,
                                                        fields of RoundTripRecord and TwoLayerRecord

        "training/<number>/<kind>/.."                   steps of descent on the adapter, see training_record.py
        and what `inversion_evidence.inversion_arrays` records of the first frame.

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
    total = len(ROUND_TRIPS) * 3 * num_steps + 2 * num_levels + number_of_runs(editor)
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
    ladder = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype)
    timesteps = ladder.timesteps
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
    chosen = select_layers(editor.pipeline.unet, layers)
    middle = int(timesteps[(num_steps + 1) // 2])
    arrays |= training_arrays(record_trainings(editor, latents, middle, prompt, chosen, steps=TRAINING_STEPS, progress=step))
    arrays |= inversion_arrays(
        editor,
        latents,
        prompt,
        trips,
        {name: sampling for name, (_, sampling) in ROUND_TRIPS.items()},
        record_trip=record_round_trip,
        pairs_everywhere=pairs_everywhere,
    )
    beside = [f"{name.removesuffix('.attn1')}.attn2" for name in dict.fromkeys((chosen[0], chosen[-1]))]
    first = torch.from_numpy(trips["on"].inversion[1]).to(editor.device)
    arrays |= cross_attention_arrays(editor, first, int(timesteps[1]), prompt, beside)
    for name, trip in trips.items():
        arrays |= _trip_arrays(f"round_trip/{name}", trip)
    certified = record_two_layer(clip_frames[:TWO_LAYER_FRAMES], ladder, "two-layer")
    arrays |= _trip_arrays("two_layer", certified.trip)
    arrays |= {f"two_layer/{field}": getattr(certified, field) for field in _TWO_LAYER_ARRAYS}
    return arrays


def _trip_arrays(prefix: str, trip: RoundTripRecord) -> dict[str, np.ndarray]:
    return {f"{prefix}/{field}": getattr(trip, field) for field in _ROUND_TRIP_ARRAYS if field != "alphas_cumprod"}


def _trip_record(arrays: Mapping[str, np.ndarray], prefix: str, label: str) -> RoundTripRecord:
    return RoundTripRecord(
        label=label,
        **{
            field: arrays["alphas_cumprod" if field == "alphas_cumprod" else f"{prefix}/{field}"]
            for field in _ROUND_TRIP_ARRAYS
        },
    )


def to_evidence(arrays: Mapping[str, np.ndarray]) -> Evidence:
    """What `gather` returns, as the theorems take it."""
    num_steps = len(arrays["alphas_cumprod"]) - 1
    trips = tuple(
        _trip_record(arrays, f"round_trip/{name}", f"{_LABELS[name]}, {num_steps} steps") for name in ROUND_TRIPS
    )
    two_layer = TwoLayerRecord(
        trip=_trip_record(arrays, "two_layer", f"two-layer network, {num_steps} steps"),
        **{field: arrays[f"two_layer/{field}"] for field in _TWO_LAYER_ARRAYS},
    )
    return Evidence(
        features=tuple(_feature_records(arrays)),
        round_trips=trips,
        adapters=tuple(_adapter_records(arrays)),
        two_layer_trips=(two_layer,),
        trainings=training_records(arrays),
        hypotheses=tuple(hypothesis_records(arrays, _LABELS)),
        practice=practice_records(arrays),
        output_layers=output_layer_records(arrays),
        refined_trips=refined_records(arrays),
        cross_attentions=tuple(cross_attention_records(arrays)),
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
