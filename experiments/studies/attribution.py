"""C3: which step and which cause the round-trip error comes from, to first order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.editor import Editor, load_editor
from experiments.editor.attribution import adjoint_sweep, error_direction
from experiments.editor.bilateral import bilateral_filtering
from experiments.editor.evidence import recorded_inversion, sample_back, some_frames, to_evidence
from experiments.editor.inversion import Ladder, PredictNoise, noise_ladder
from experiments.stages import ADAPTER_FILE, Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, GREEN, ORANGE, PURPLE
from theory.evidence import RoundTripRecord

GUIDANCE = 2.0
FILTER_FRAMES = 3
"""The fewest frames that the filter's window of 5 can be reflected in."""
CAUSES = {"discretisation": BLUE, "adapter": ORANGE, "filter": PURPLE, "guidance": GREEN}
TITLES = {
    "off": "adapter off",
    "sampling_only": "adapter in sampling only",
    "filtered": "bilateral filter in sampling only",
    "guided": f"guidance {GUIDANCE:g} in sampling only",
}


def _network(editor: Editor, prompt: str, *, adapter: bool = False, guidance: float = 1.0) -> PredictNoise:
    return lambda latents, timestep: editor.predict_noise(
        latents, timestep, prompt, adapter=adapter, guidance_scale=guidance
    )


def _filtered_network(editor: Editor, prompt: str, num_frames: int) -> PredictNoise:
    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        with bilateral_filtering(editor.pipeline.unet, num_frames=num_frames):
            return editor.predict_noise(latents, timestep, prompt)

    return predict


def _attributed(
    predict: PredictNoise,
    record: RoundTripRecord,
    base: RoundTripRecord,
    cause: str | None,
    ladder: Ladder,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> dict:
    """The contributions to ||E_0|| over ||y_0||; `base` is the round trip that differs from `record` by `cause`
    alone."""
    causes = {"discretisation": (base.predictions_at_inversion, base.inversion_predictions)}
    if cause is not None:
        causes[cause] = (record.predictions_at_inversion, base.predictions_at_inversion)
    direction, size = error_direction(record)
    scale = float(np.linalg.norm(record.inversion[0]) / np.sqrt(record.alphas_cumprod[0]))
    found = adjoint_sweep(predict, record, ladder, direction.to(device), causes, progress=progress)
    return {
        "error": size / scale,
        "contributions": {name: [float(value) / scale for value in values] for name, values in found.items()},
    }


def measure(context: Context) -> Data:
    """First-order contributions to four round trips from one recorded inversion."""
    settings, clip = context.settings, context.inputs["clip"]
    prompt, count = clip.values["source_prompt"], settings.subject_frames
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    if editor.has_prompt_tokens:
        editor.set_frames(clip.arrays["frames"][:count])
    ladder = noise_ladder(editor.pipeline.scheduler, settings.num_steps, torch.float64)
    recorded = to_evidence(context.inputs["evidence"].arrays).round_trips
    off, _, sampling_only = (some_frames(trip, count) for trip in recorded)
    # The filter mixes frames: those it is to see are cut out before, and all go through the network at once.
    unfiltered = some_frames(recorded[0], max(count, FILTER_FRAMES))
    filter_frames = unfiltered.inversion.shape[1]
    total, done = 8 * settings.num_steps, 0

    def part(steps: int) -> Callable[[int, int], None]:
        nonlocal done
        offset, done = done, done + steps
        return lambda now, _: context.progress(offset + now, total)

    plain, adapted = _network(editor, prompt), _network(editor, prompt, adapter=True)
    filtered, guided = _filtered_network(editor, prompt, filter_frames), _network(editor, prompt, guidance=GUIDANCE)
    smoothed, steered = (
        sample_back(
            predict,
            recorded_inversion(base, ladder, editor.device),
            ladder,
            name,
            progress=part(2 * settings.num_steps),
        )
        for name, predict, base in (("filtered", filtered, unfiltered), ("guided", guided, off))
    )
    trips = {
        name: _attributed(predict, record, base, cause, ladder, editor.device, part(settings.num_steps))
        for name, predict, record, base, cause in (
            ("off", plain, off, off, None),
            ("sampling_only", adapted, sampling_only, off, "adapter"),
            ("filtered", filtered, smoothed, unfiltered, "filter"),
            ("guided", guided, steered, off, "guidance"),
        )
    }
    return {
        "trips": trips,
        "steps": settings.num_steps,
        "num_frames": len(off.inversion[0]),
        "filter_frames": filter_frames,
    }


def _trips(data: Data) -> list[tuple[str, Mapping]]:
    return [(name, data["trips"][name]) for name in TITLES]


def _causes(trip: Mapping) -> list[str]:
    # JSON keeps its keys in alphabetical order.
    return [cause for cause in CAUSES if cause in trip["contributions"]]


def _totals(trip: Mapping) -> dict[str, float]:
    return {cause: float(np.sum(trip["contributions"][cause])) for cause in _causes(trip)}


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 7.8), layout="constrained")
    grid = figure.subplots(len(TITLES), 2, width_ratios=(3.2, 1), squeeze=False)
    positions = np.arange(1, data["steps"] + 1)
    for (name, trip), (steps_axes, total_axes) in zip(_trips(data), grid, strict=True):
        above, below = np.zeros(len(positions)), np.zeros(len(positions))
        for cause in _causes(trip):
            heights = np.asarray(trip["contributions"][cause])
            bottoms = np.where(heights >= 0, above, below)
            steps_axes.bar(positions, heights, bottom=bottoms, width=0.85, color=CAUSES[cause], label=cause)
            above, below = above + np.maximum(heights, 0), below + np.minimum(heights, 0)
        steps_axes.axhline(0, color=BLACK, linewidth=0.8)
        steps_axes.set_xlim(0.3, data["steps"] + 0.7)
        steps_axes.set_title(TITLES[name])
        steps_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        steps_axes.grid(axis="x", visible=False)
        steps_axes.legend(loc="upper right", fontsize=8.5)
        totals = _totals(trip)
        sums = {**totals, "all, first order": sum(totals.values()), "measured": trip["error"]}
        colours = [*(CAUSES[cause] for cause in totals), "#aaaaaa", BLACK]
        places = np.arange(len(sums))[::-1]
        bars = total_axes.barh(places, list(sums.values()), color=colours, height=0.7)
        # A cause may be too small for its bar to be seen.
        total_axes.bar_label(bars, fmt="%.2g", padding=2, fontsize=8.5)
        total_axes.margins(x=0.35)
        total_axes.set_yticks(places, list(sums))
        total_axes.axvline(0, color=BLACK, linewidth=0.8)
        total_axes.grid(axis="y", visible=False)
        total_axes.locator_params(axis="x", nbins=3)
    grid[0][1].set_title("sum over steps")
    grid[-1][0].set_xlabel(f"step, from the data end (1) to the noise end ({data['steps']})")
    grid[-1][1].set_xlabel("relative error")
    figure.supylabel("contribution to the relative round-trip error", fontsize=10)
    return figure


def caption(data: Data) -> str:
    shares = {
        cause: _totals(data["trips"][name])[cause] / data["trips"][name]["error"]
        for name, cause in (("sampling_only", "adapter"), ("filtered", "filter"), ("guided", "guidance"))
    }
    accuracy = ", ".join(
        f"{sum(_totals(trip).values()) / trip['error']:.2f} ({TITLES[name]})" for name, trip in _trips(data)
    )
    return (
        f"C3: where the round-trip error of the trained UNet comes from, {data['steps']} steps, {data['num_frames']} "
        f"frames ({data['filter_frames']} with the filter, which mixes them). Each bar is what one step's defect adds "
        "to the error's norm after all later sampling steps, by one adjoint sweep; contributions of opposite sign "
        "cancel. The defect of a step is the inversion's own (discretisation) and the change that sampling with the "
        "adapter, with the bilateral filter on self-attention outputs, or with guidance, makes to the prediction "
        "there. First-order estimates and no bounds: their sum is "
        f"{accuracy} times the measured error. The adapter contributes {shares['adapter']:.2g} of its round trip's "
        f"error, the filter {shares['filter']:.2g}, guidance {shares['guidance']:.2g}."
    )


def alt(data: Data) -> str:
    parts = "; ".join(
        f"{TITLES[name]}: "
        + ", ".join(f"{cause} {value:.2g}" for cause, value in _totals(trip).items())
        + f", measured {trip['error']:.2g}"
        for name, trip in _trips(data)
    )
    return f"Bars attribute the relative round-trip error to steps and causes, with their sums beside them. {parts}."


def numbers(data: Data) -> Sequence[Number]:
    found = []
    for name, trip in _trips(data):
        found += [
            Number(
                f"share of the error by first order, {TITLES[name]}: {cause}", value / trip["error"], "estimated", "C3"
            )
            for cause, value in _totals(trip).items()
        ]
    return (
        *found,
        *(
            Number(
                f"relative round-trip error, {TITLES[name]}, {data['steps']} steps",
                data["trips"][name]["error"],
                "measured",
                "C3",
            )
            for name in ("filtered", "guided")
        ),
    )


STUDY = Study(
    name="attribution",
    groups=("C3",),
    needs=("clip", "adapter", "evidence"),
    settings=("device", "pipeline", "num_steps", "subject_frames"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
