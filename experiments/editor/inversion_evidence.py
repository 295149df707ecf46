"""What the theorems on inversion are shown of the network beside its round trips, as named arrays and as the theory's
records."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

import numpy as np
import torch

from experiments.editor.editor import Editor
from experiments.editor.hypotheses import measure_hypotheses
from experiments.editor.inversion import noise_ladder
from experiments.editor.practice import record_output_layer, record_practice
from theory.evidence import HypothesisRecord, OutputLayerRecord, PracticeRecord, RoundTripRecord

REFINEMENTS = (0.5, 2.0)
"""Numbers of steps of the further round trips, as multiples of the evidence's own."""
_WORDS = ("label", "trip", "level", "num_steps")
_HYPOTHESIS_ARRAYS = tuple(field.name for field in fields(HypothesisRecord) if field.name not in _WORDS)
_PRACTICE_ARRAYS = tuple(field.name for field in fields(PracticeRecord) if field.name != "label")
_OUTPUT_ARRAYS = tuple(field.name for field in fields(OutputLayerRecord) if field.name != "label")
_TRIP_ARRAYS = tuple(field.name for field in fields(RoundTripRecord) if field.name != "label")


def refined_counts(editor: Editor, num_steps: int) -> list[int]:
    """The numbers of steps of the further round trips that the schedule has."""
    found = []
    for factor in REFINEMENTS:
        try:
            found.append(noise_ladder(editor.pipeline.scheduler, round(factor * num_steps), editor.dtype).num_steps)
        except ValueError:  # the schedule has no such number of steps
            continue
    return found


def hypothesis_levels(num_steps: int, every: bool, count: int) -> list[int]:
    """Levels at which pairs are sought: all of them, or a few spread from the first to the last."""
    return (
        list(range(1, num_steps + 1))
        if every
        else sorted({round(level) for level in np.linspace(1, num_steps, min(count, num_steps))})
    )


def inversion_arrays(
    editor: Editor,
    latents: torch.Tensor,
    prompt: str,
    trips: Mapping[str, RoundTripRecord],
    adapters: Mapping[str, bool],
    *,
    record_trip: Callable[..., RoundTripRecord],
    pairs_everywhere: bool = False,
    num_levels: int = 3,
) -> dict[str, np.ndarray]:
    """Pairs of states along the trips, the practice of the released tools, refined trips and the last layers' weights.

    Args:
        editor: of dtype float64 with an adapter, the prompt tokens' frames set.
        latents: (frames, channels, height, width) at level 0; the first frame is used.
        trips: name -> round trip; pairs are sought at all levels of the first, and of the others at `num_levels` levels
            or everywhere.
        adapters: name -> whether the adapter is on in the sampling.
        record_trip: `evidence.record_round_trip`.

    Returns:
        "hypothesis/<name>/<level>/<field>", "practice/<field>", "output_layer/<field>" and "refined/<number of
        steps>/<field>" with the fields of the theory's records; "output_layer" is missing where the UNet has other last
        layers.
    """
    num_steps = len(next(iter(trips.values())).alphas_cumprod) - 1
    ladder = noise_ladder(editor.pipeline.scheduler, num_steps, editor.dtype)
    frame = (0,)
    arrays: dict[str, np.ndarray] = {}
    for place, (name, trip) in enumerate(trips.items()):

        def predict(state: torch.Tensor, timestep: int, on: bool = adapters[name]) -> torch.Tensor:
            return editor.predict_noise(state, timestep, prompt, adapter=on, frame_indices=frame)

        for level in hypothesis_levels(num_steps, place == 0 or pairs_everywhere, num_levels):
            record = measure_hypotheses(predict, trip, ladder.timesteps, level)
            arrays |= {f"hypothesis/{name}/{level}/{field}": getattr(record, field) for field in _HYPOTHESIS_ARRAYS}
    practice = record_practice(editor, latents[:1], prompt, num_steps, frame_indices=frame)
    arrays |= {
        f"practice/{field}": _stored(getattr(practice, field)) for field in _PRACTICE_ARRAYS
    }
    try:
        layer = record_output_layer(editor)
    except ValueError:
        layer = None
    if layer is not None:
        arrays |= {
            f"output_layer/{field}": _stored(getattr(layer, field)) for field in _OUTPUT_ARRAYS
        }
    for count in refined_counts(editor, num_steps):
        trip = record_trip(editor, latents[:1], prompt, count, "refined")
        arrays |= {f"refined/{count}/{field}": getattr(trip, field) for field in _TRIP_ARRAYS}
    return arrays


def _stored(value: object) -> np.ndarray:
    """As float64 with at least one axis, which is what a run's store keeps."""
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def hypothesis_records(arrays: Mapping[str, np.ndarray], labels: Mapping[str, str]) -> Iterator[HypothesisRecord]:
    """The hypothesis records among the arrays.

    Args:
        labels: name of a trip -> what it is called in the report.
    """
    num_steps = len(arrays["alphas_cumprod"]) - 1
    for key in arrays:
        if key.startswith("hypothesis/") and key.endswith("/state"):
            prefix = key.removesuffix("/state")
            _, name, level = prefix.split("/")
            yield HypothesisRecord(
                label=f"{labels[name]}, level {level} of {num_steps}",
                trip=f"{labels[name]}, {num_steps} steps",
                level=int(level),
                num_steps=num_steps,
                **{field: arrays[f"{prefix}/{field}"] for field in _HYPOTHESIS_ARRAYS},
            )


def practice_records(arrays: Mapping[str, np.ndarray]) -> tuple[PracticeRecord, ...]:
    """The practice record among the arrays, if there is one."""
    if "practice/states" not in arrays:
        return ()
    parts = {field: arrays[f"practice/{field}"] for field in _PRACTICE_ARRAYS}
    parts |= {"guidance_scale": float(parts["guidance_scale"][0]), "adapter_on": parts["adapter_on"].astype(bool)}
    fine, coarse = len(parts["fine_predictions"]), len(parts["sampling_predictions"])
    on = int(parts["adapter_on"].sum())
    label = f"{fine} steps up unguided, {coarse} down at guidance {parts['guidance_scale']:g}, adapter on at {on}"
    return (PracticeRecord(label=label, **parts),)


def output_layer_records(arrays: Mapping[str, np.ndarray]) -> tuple[OutputLayerRecord, ...]:
    """The weights of the last layers among the arrays, if they are there."""
    if "output_layer/kernel" not in arrays:
        return ()
    parts = {field: arrays[f"output_layer/{field}"] for field in _OUTPUT_ARRAYS}
    parts["num_groups"] = int(parts["num_groups"][0])
    parts["frame_size"] = tuple(int(size) for size in parts["frame_size"])
    return (OutputLayerRecord(label="the UNet's last normalisation and convolution", **parts),)


def refined_records(arrays: Mapping[str, np.ndarray]) -> tuple[RoundTripRecord, ...]:
    """The round trips with other numbers of steps among the arrays, fewest steps first."""
    counts = sorted(
        int(key.split("/")[1]) for key in arrays if key.startswith("refined/") and key.endswith("/inversion")
    )
    return tuple(
        RoundTripRecord(
            label=f"adapter off, first frame, {count} steps",
            **{field: arrays[f"refined/{count}/{field}"] for field in _TRIP_ARRAYS},
        )
        for count in counts
    )
