"""C3: the error of DDIM inversion followed by sampling, its bound, and the steps that cause it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.editor import load_editor
from experiments.editor.attribution import adjoint_sweep, error_direction
from experiments.editor.evidence import record_round_trip, record_trip, some_frames, to_evidence
from experiments.editor.inversion import noise_ladder
from experiments.stages import ADAPTER_FILE, Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREEN, GREY, ORANGE, PURPLE
from experiments.studies.subjects import as_network, clip_predictors, fitted_gaussian, frame_coordinates, untrained
from theory.evidence import RoundTripRecord
from theory.inversion import round_trip_bound
from theory.inversion.ddim import recorded_round_trip
from theory.inversion.round_trip import path_growth, two_point_growth

ADAPTERS = {"off": False, "on": True}
ITERATIONS = 3
# Every subject but the exact ones and the trained network without adapter stops here.
LONGEST = 100


def _row(record: RoundTripRecord) -> dict:
    trip = recorded_round_trip(record)
    scale = float(np.linalg.norm(trip.inversion[0]))
    defects = np.linalg.norm(trip.defects, axis=1)
    growth = path_growth(trip)
    return {
        "steps": len(defects),
        "error": float(np.linalg.norm(trip.errors[0])) / scale,
        "bound": float(round_trip_bound(defects, two_point_growth(trip))) / scale,
        "path_bound": float(round_trip_bound(defects, growth)) / scale,
        "noise_rms": float(np.sqrt(np.mean(record.inversion[-1] ** 2))),
        "defects": [float(value) / scale for value in defects],
        "growth": [float(value) for value in growth],
    }


def _gaussian_bound(record: RoundTripRecord, covariance: np.ndarray) -> float:
    """B1 for a predictor without curvature, over ||y_0||.

        growth of step k: ||I - h_k J_{k+1}|| = max over the variances v of |1 - h_k sigma_{k+1} / (v + sigma_{k+1}^2)|
    """
    trip = recorded_round_trip(record)
    variances = np.linalg.eigvalsh(covariance)
    upper = trip.sigmas[1:, None]
    growth = np.abs(1 - trip.steps[:, None] * upper / (variances + upper**2)).max(axis=1)
    bound = round_trip_bound(np.linalg.norm(trip.defects, axis=1), growth)
    return float(bound) / float(np.linalg.norm(trip.inversion[0]))


class _Work:
    """Counts evaluations of the network over all subjects."""

    def __init__(self, context: Context, total: int) -> None:
        self.context, self.total, self.done = context, total, 0

    def part(self, size: int):
        offset, self.done = self.done, self.done + size
        return lambda done, _: self.context.progress(offset + done, self.total)


def measure(context: Context) -> Data:
    """Round trips over numbers of steps: exact predictors fitted to the clip, the trained UNet, and it untrained."""
    settings, clip = context.settings, context.inputs["clip"]
    prompt, frames = clip.values["source_prompt"], clip.arrays["frames"]
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    shown = frames[: settings.subject_frames]
    if editor.has_prompt_tokens:
        editor.set_frames(shown)
    latents = editor.to_latents(shown)
    every = sorted({*settings.round_trip_steps, settings.num_steps})
    short = [steps for steps in every if steps <= LONGEST]
    ladders = {
        steps: noise_ladder(editor.pipeline.scheduler, steps, torch.float64)
        for steps in {*every, *settings.ideal_steps}
    }
    # The stage `evidence` has the round trips at the run's own number of steps.
    recorded = {
        name: some_frames(trip, len(shown))
        for name, trip in zip(ADAPTERS, to_evidence(context.inputs["evidence"].arrays).round_trips, strict=False)
    }
    fresh = {
        name: [steps for steps in (every if name == "off" else short) if steps != settings.num_steps]
        for name in ADAPTERS
    }
    work = _Work(
        context,
        3 * sum(map(sum, fresh.values())) + sum(every) + 3 * sum(short) + (ITERATIONS + 2) * sum(fresh["on"]),
    )

    def plain(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return editor.predict_noise(x, timestep, prompt)

    network, estimates = {}, []
    for name, adapter in ADAPTERS.items():
        records = {settings.num_steps: recorded[name]}
        for steps in fresh[name]:
            records[steps] = record_round_trip(
                editor, latents, prompt, steps, f"adapter {name}", adapter=adapter, progress=work.part(3 * steps)
            )
        network[name] = [_row(records[steps]) for steps in sorted(records)]
        if name == "off":
            for steps in every:
                direction, size = error_direction(records[steps])
                direction = direction.to(editor.device)
                sweep = adjoint_sweep(plain, records[steps], ladders[steps], direction, progress=work.part(steps))
                estimates.append({"steps": steps, "ratio": float(sweep["defect"].sum()) / size})
    for row, estimate in zip(network["off"], estimates, strict=True):
        row["estimate"] = row["error"] * estimate["ratio"]
    random_weights = untrained(editor, prompt, settings.seed)
    network["untrained"] = [
        _row(record_trip(random_weights, latents, ladders[steps], "untrained", progress=work.part(3 * steps)))
        for steps in short
    ]
    fixed_point = []
    for steps in fresh["on"]:
        count = (ITERATIONS + 1) * steps
        solved = editor.invert(
            latents, prompt, num_steps=steps, fixed_point_iterations=ITERATIONS, progress=work.part(count)
        )
        result = editor.sample(solved.latents[-1], prompt, num_steps=steps, progress=work.part(steps)).latents[0]
        fixed_point.append({"steps": steps, "error": float((result - latents).norm() / latents.norm())})
    coordinates = frame_coordinates(editor.to_latents(frames))
    _, covariance = fitted_gaussian(coordinates)
    ideal = {name: [] for name in clip_predictors(coordinates)}
    for steps in settings.ideal_steps:
        for name, predictor in clip_predictors(coordinates).items():
            start = torch.from_numpy(coordinates[: len(shown)])
            trip = record_trip(as_network(predictor, ladders[steps]), start, ladders[steps], name)
            row = _row(trip)
            if name == "Gaussian":
                row["certified"] = _gaussian_bound(trip, covariance)
            ideal[name].append(row)
    return {
        "network": network,
        "fixed_point": fixed_point,
        "ideal": ideal,
        "num_frames": len(shown),
        "fitted_frames": len(frames),
    }


def _curve(axes, rows: Sequence[dict], name: str, **style) -> None:
    axes.plot([row["steps"] for row in rows], [row[name] for row in rows], **style)


def _log_axes(axes, ticks: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    # Whole decades, so that there are ticks to read.
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    axes.set_xlabel("DDIM steps")


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.6, 4.9), layout="constrained")
    ideal_axes, trained_axes, untrained_axes = figure.subplots(1, 3)
    dashed = {"color": BOUND, "linestyle": "--", "markerfacecolor": "white"}
    dotted = {"linestyle": ":", "markerfacecolor": "white"}
    ideal, network = data["ideal"], data["network"]
    _curve(ideal_axes, ideal["Gaussian"], "certified", marker="o", label="B1 (certified), Gaussian", **dashed)
    _curve(ideal_axes, ideal["Gaussian"], "error", color=BLACK, marker="o", label="error, Gaussian")
    _curve(ideal_axes, ideal["mixture"], "path_bound", color=GREY, marker="s", label="path bound, mixture", **dotted)
    _curve(ideal_axes, ideal["mixture"], "error", color=GREY, marker="s", label="error, mixture")
    for name, colour, marker in (("off", ORANGE, "o"), ("on", BLUE, "s")):
        rows = network[name]
        _curve(trained_axes, rows, "bound", marker=marker, label=f"bound A, adapter {name}", **dashed)
        _curve(
            trained_axes, rows, "path_bound", color=colour, marker=marker, label=f"path bound, adapter {name}", **dotted
        )
        _curve(trained_axes, rows, "error", color=colour, marker=marker, label=f"error, adapter {name}")
    cross = {"color": BLACK, "marker": "x", "linestyle": ""}
    _curve(trained_axes, network["off"], "estimate", label="first order, adapter off", **cross)
    solved = {"color": GREEN, "marker": "^", "label": f"error, {ITERATIONS} fixed-point iterations"}
    _curve(trained_axes, data["fixed_point"], "error", **solved)
    rows = network["untrained"]
    _curve(untrained_axes, rows, "bound", marker="o", label="bound A", **dashed)
    _curve(untrained_axes, rows, "path_bound", color=PURPLE, marker="o", label="path bound", **dotted)
    _curve(untrained_axes, rows, "error", color=PURPLE, marker="o", label="error")
    for axes, title, shown in (
        (ideal_axes, "data fitted to the clip", ideal["Gaussian"]),
        (trained_axes, "trained UNet", network["off"]),
        (untrained_axes, "untrained UNet", rows),
    ):
        axes.set_title(title)
        _log_axes(axes, [row["steps"] for row in shown])
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=8)
    ideal_axes.set_ylabel("relative round-trip error")
    return figure


def _usual(rows: Sequence[dict]) -> dict:
    """The row of 50 steps where there is one, otherwise that of the most."""
    return next((row for row in rows if row["steps"] == 50), rows[-1])


def caption(data: Data) -> str:
    row, solved = _usual(data["network"]["off"]), data["fixed_point"][-1]
    unsolved = next(entry for entry in data["network"]["off"] if entry["steps"] == solved["steps"])
    return (
        "C3: the round-trip error of DDIM inversion is at most the sum of its one-step defects, each multiplied by "
        f"the growth of the sampling steps it still has to pass; {data['num_frames']} frames of the clip. Left: exact "
        f"predictors of a Gaussian and of a mixture fitted to {data['fitted_frames']} frames; the Gaussian's bound is "
        "certified. Middle and right: the trained UNet, and the same network with random weights. Bound A uses the "
        "least Lipschitz constants that the recorded values allow, the path bound the growth that the error met on its "
        "way: both are read off the trajectories whose difference they sum up, and certify nothing. Crosses: the "
        "first-order estimate of one adjoint "
        f"sweep, {row['estimate'] / row['error']:.2f} of the error at {row['steps']} steps. With {ITERATIONS} "
        f"fixed-point iterations a step the error at {solved['steps']} steps is {solved['error']:.2g} instead of "
        f"{unsolved['error']:.2g}."
    )


def alt(data: Data) -> str:
    parts = ", ".join(
        f"{row['error']:.2g} at {row['steps']} steps (path bound {row['path_bound']:.2g})"
        for row in data["network"]["off"]
    )
    return (
        "Round-trip error against the number of DDIM steps, with bounds above every curve, for exact predictors, the "
        f"trained and the untrained UNet. Trained UNet, adapter off: {parts}."
    )


def numbers(data: Data) -> Sequence[Number]:
    found = []
    for name, rows in data["network"].items():
        row = _usual(rows)
        which = name if name == "untrained" else f"adapter {name}"
        found += [
            Number(f"relative round-trip error, {row['steps']} steps, {which}", row["error"], "measured", "C3"),
            # Read off the two trajectories whose difference they sum up.
            Number(f"defects, grown by the path, {row['steps']} steps, {which}", row["path_bound"], "measured", "C3"),
            Number(f"the same by two-point constants, {row['steps']} steps, {which}", row["bound"], "measured", "C3"),
            Number(
                f"root mean square of the inverted latent (1 is noise), {which}", row["noise_rms"], "measured", "C3"
            ),
        ]
    row, solved = _usual(data["network"]["off"]), data["fixed_point"][-1]
    exact = _usual(data["ideal"]["Gaussian"])
    return (
        *found,
        Number(f"first-order estimate of it, {row['steps']} steps, adapter off", row["estimate"], "estimated", "C3"),
        Number(
            f"relative round-trip error, {solved['steps']} steps, {ITERATIONS} fixed-point iterations",
            solved["error"],
            "measured",
            "C3",
        ),
        Number(
            f"bound B1 over error, Gaussian fitted to the clip, {exact['steps']} steps",
            exact["certified"] / exact["error"],
            "certified",
            "C3",
        ),
    )


STUDY = Study(
    name="round_trip",
    groups=("C3",),
    needs=("clip", "adapter", "evidence"),
    settings=("device", "pipeline", "seed", "num_steps", "round_trip_steps", "ideal_steps", "subject_frames"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
