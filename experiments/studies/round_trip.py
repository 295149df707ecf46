"""C3: the error of DDIM inversion followed by sampling, its bound, and the steps that cause it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.editor import load_editor
from experiments.editor.evidence import record_round_trip, to_evidence
from experiments.editor.inversion import noise_ladder
from experiments.stages import ADAPTER_FILE, Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREY, ORANGE
from theory.evidence import RoundTripRecord
from theory.inversion import noise_levels, round_trip_bound
from theory.inversion.ddim import Convention, RoundTrip, recorded_round_trip, round_trip
from theory.inversion.predictors import at_levels, paired_predictor
from theory.inversion.round_trip import path_growth, step_growth, two_point_growth

# Data with a known score: (half distance of the two modes, standard deviation of each) per coordinate; 0 is a Gaussian.
IDEAL_DATA = {"Gaussian": (0.0, 0.5), "two modes": (1.0, 0.5)}
STARTS = 64
ADAPTERS = {"off": False, "on": True}


def _lipschitz(half_distance: float, std: float, sigmas: np.ndarray) -> np.ndarray:
    """Lipschitz constant of the exact predictor at each level.

        max(sigma / v, (sigma / v) |1 - a^2 / v|),   v = s^2 + sigma^2

    Source: its derivative is (sigma / v) (1 - (a^2 / v) sech^2(a y / v)).
    """
    variance = std**2 + sigmas**2
    return sigmas / variance * np.maximum(1, np.abs(1 - half_distance**2 / variance))


@jax.jit
def _ideal_trips(half_distances: jax.Array, stds: jax.Array, sigmas: jax.Array, starts: jax.Array) -> RoundTrip:
    """A round trip from each of the starts (count, 1)."""
    predictor = at_levels(paired_predictor(half_distances, stds, jnp.eye(1)), sigmas)
    return jax.vmap(lambda start: round_trip(predictor, sigmas, start, Convention.T))(starts)


def _ideal(sigmas: np.ndarray, half_distance: float, std: float, seed: int) -> dict:
    """Root mean squares, over random data, of the error and of bound A."""
    generator = np.random.default_rng(seed)
    starts = half_distance * generator.choice([-1.0, 1.0], (STARTS, 1)) + std * generator.standard_normal((STARTS, 1))
    # The data end of the ladder is not free of noise.
    starts = starts + sigmas[0] * generator.standard_normal((STARTS, 1))
    trips = _ideal_trips(jnp.asarray([half_distance]), jnp.asarray([std]), jnp.asarray(sigmas), jnp.asarray(starts))
    errors = np.abs(np.asarray(trips.sampling - trips.inversion)[:, 0, 0])
    defects = np.abs(
        np.diff(sigmas) * np.asarray(trips.predictions_at_inversion - trips.inversion_predictions)[:, :, 0]
    )
    growth = step_growth(sigmas, _lipschitz(half_distance, std, sigmas))
    bounds = np.array([float(round_trip_bound(row, growth)) for row in defects])
    scale = float(np.sqrt(np.mean(starts**2)))
    return {"error": float(np.sqrt(np.mean(errors**2))) / scale, "bound": float(np.sqrt(np.mean(bounds**2))) / scale}


def _network(record: RoundTripRecord) -> dict:
    trip = recorded_round_trip(record)
    scale = float(np.linalg.norm(trip.inversion[0]))
    defects = np.linalg.norm(trip.defects, axis=1)
    growth = path_growth(trip)
    passed_on = np.concatenate([[1.0], np.cumprod(growth[:-1])])
    return {
        "error": float(np.linalg.norm(trip.errors[0])) / scale,
        "bound": float(round_trip_bound(defects, two_point_growth(trip))) / scale,
        "path_bound": float(round_trip_bound(defects, growth)) / scale,
        "noise_rms": float(np.sqrt(np.mean(record.inversion[-1] ** 2))),
        "sigmas": [float(sigma) for sigma in trip.sigmas],
        "contributions": [float(value) for value in defects * passed_on / scale],
    }


def measure(context: Context) -> Data:
    """Round trips of the trained UNet over numbers of steps, adapter off and on, beside predictors of known score."""
    settings, clip = context.settings, context.inputs["clip"]
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    editor.set_frames(clip.arrays["frames"])
    latents = editor.to_latents(clip.arrays["frames"])
    # The stage `evidence` has the round trips at the run's own number of steps.
    recorded = to_evidence(context.inputs["evidence"].arrays).round_trips
    network = {
        name: [{"steps": settings.num_steps, **_network(trip)}] for name, trip in zip(ADAPTERS, recorded, strict=False)
    }
    work = [(name, steps) for steps in settings.round_trip_steps if steps != settings.num_steps for name in ADAPTERS]
    total, finished = 3 * sum(steps for _, steps in work), 0
    for name, steps in work:
        record = record_round_trip(
            editor,
            latents,
            clip.values["source_prompt"],
            steps,
            f"adapter {name}",
            adapter=ADAPTERS[name],
            invert_adapter=ADAPTERS[name],
            progress=lambda done, _, offset=finished: context.progress(offset + done, total),
        )
        network[name].append({"steps": steps, **_network(record)})
        finished += 3 * steps
    for rows in network.values():
        rows.sort(key=lambda row: row["steps"])
    ideal = {
        name: [
            {"steps": steps, **_ideal(_sigmas(editor, steps), *shape, settings.seed)} for steps in settings.ideal_steps
        ]
        for name, shape in IDEAL_DATA.items()
    }
    return {"network": network, "ideal": ideal, "num_frames": len(latents)}


def _sigmas(editor, steps: int) -> np.ndarray:
    return noise_levels(noise_ladder(editor.pipeline.scheduler, steps, torch.float64).alphas_cumprod)


def _curve(axes, rows: Sequence[dict], name: str, **style) -> None:
    axes.plot([row["steps"] for row in rows], [row[name] for row in rows], **style)


def _log_axes(axes, ticks: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("DDIM steps")


def _attributed(data: Data) -> dict:
    """The round trip whose steps are shown one by one: 50 steps where there are such, otherwise the most."""
    rows = data["network"]["off"]
    return next((row for row in rows if row["steps"] == 50), rows[-1])


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    top, bottom = figure.add_gridspec(2, 1, height_ratios=(1.25, 1))
    ideal_axes, network_axes = (figure.add_subplot(cell) for cell in top.subgridspec(1, 2))
    dashed = {"color": BOUND, "linestyle": "--", "markerfacecolor": "white"}
    for (name, rows), colour, marker in zip(data["ideal"].items(), (BLACK, GREY), "os", strict=True):
        _curve(ideal_axes, rows, "bound", marker=marker, label=f"bound A, {name}", **dashed)
        _curve(ideal_axes, rows, "error", color=colour, marker=marker, label=f"error, {name}")
    _log_axes(ideal_axes, [10, 20, 50, 100, 200, 500])
    ideal_axes.set_ylabel("relative round-trip error")
    ideal_axes.set_title("exact predictors")
    for (name, rows), colour, marker in zip(data["network"].items(), (ORANGE, BLUE), "os", strict=True):
        path = {"color": colour, "linestyle": ":", "marker": marker, "markerfacecolor": "white"}
        _curve(network_axes, rows, "bound", marker=marker, label=f"bound A, adapter {name}", **dashed)
        _curve(network_axes, rows, "path_bound", label=f"path bound, adapter {name}", **path)
        _curve(network_axes, rows, "error", color=colour, marker=marker, label=f"error, adapter {name}")
    _log_axes(network_axes, [row["steps"] for row in data["network"]["off"]])
    network_axes.set_title(f"trained UNet, {data['num_frames']} frames")
    # Above the curves, which fall from the left to the right, there is room for the words.
    for axes, room in ((ideal_axes, 12), (network_axes, 1)):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * room)
    ideal_axes.legend(loc="upper right", fontsize=8.5)
    network_axes.legend(loc="center right", fontsize=8, bbox_to_anchor=(1, 0.56))
    steps_axes = figure.add_subplot(bottom)
    row = _attributed(data)
    positions = np.arange(1, row["steps"] + 1)
    steps_axes.bar(positions, row["contributions"], color=ORANGE, width=0.8)
    steps_axes.axhline(row["error"], color=BLUE, linewidth=1.4)
    steps_axes.annotate(
        "measured error of the whole round trip",
        (0.99, row["error"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=BLUE,
        fontsize=9,
    )
    steps_axes.set_yscale("log")
    steps_axes.set_ylim(min(row["contributions"]) / 2, 3 * max(row["error"], *row["contributions"]))
    steps_axes.set_xlim(0.3, row["steps"] + 0.7)
    steps_axes.set_xlabel(f"step, from the data end (1) to the noise end ({row['steps']})")
    steps_axes.set_ylabel("share of the\npath bound (relative)")
    steps_axes.grid(axis="x", visible=False)
    return figure


def caption(data: Data) -> str:
    row = _attributed(data)
    order = np.argsort(row["contributions"])[::-1]
    share = np.sum(np.asarray(row["contributions"])[order[:5]]) / np.sum(row["contributions"])
    return (
        "C3: the round-trip error of DDIM inversion is at most the sum of its one-step defects, each multiplied by "
        "the growth of the sampling steps it still has to pass. Top left: predictors with a known score, error and "
        "bound A, root mean square over random data. Top right: the trained UNet; bound A uses the least Lipschitz "
        "constants that the recorded values allow, the path bound the growth that the error met on its way. Both "
        f"hold for these trajectories and certify no others. Bottom: what each of {row['steps']} steps adds to the "
        f"path bound, adapter off; the five largest make up {100 * share:.0f}%."
    )


def alt(data: Data) -> str:
    parts = ", ".join(
        f"{row['error']:.2g} at {row['steps']} steps (bound {row['bound']:.2g})" for row in data["network"]["off"]
    )
    return (
        "Round-trip error against the number of DDIM steps, with bounds above every curve. Trained UNet, adapter "
        f"off: {parts}. Below, bars attribute the bound to single steps."
    )


def numbers(data: Data) -> Sequence[Number]:
    found = []
    for name, rows in data["network"].items():
        row = next((entry for entry in rows if entry["steps"] == 50), rows[-1])
        found += [
            Number(f"relative round-trip error, {row['steps']} steps, adapter {name}", row["error"], "measured", "C3"),
            Number(f"path bound, {row['steps']} steps, adapter {name}", row["path_bound"], "certified", "C3"),
            Number(
                f"bound A with two-point constants, {row['steps']} steps, adapter {name}",
                row["bound"],
                "certified",
                "C3",
            ),
            Number(
                f"root mean square of the inverted latent (1 is noise), adapter {name}",
                row["noise_rms"],
                "measured",
                "C3",
            ),
        ]
    return found


STUDY = Study(
    name="round_trip",
    groups=("C3",),
    needs=("clip", "adapter", "evidence"),
    settings=("device", "pipeline", "seed", "num_steps", "round_trip_steps", "ideal_steps"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
