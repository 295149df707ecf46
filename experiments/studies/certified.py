"""C3: the round-trip error of a trained two-layer network, certified from its inversion: how tightly, and how far."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments.editor import load_editor
from experiments.editor.evidence import TWO_LAYER_FRAMES, record_two_layer
from experiments.editor.inversion import noise_ladder
from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLUE, BOUND, GREEN, GREY, ORANGE, plain_number
from theory.evidence import TwoLayerRecord
from theory.inversion.two_layer import recorded_tubes

STEPS = (2, 5, 10, 20, 50, 100, 250)
RADIUS_STEPS = 50
RADII = tuple(float(radius) for radius in np.geomspace(1e-5, 1e1, 13))
"""||w_N - z_N|| as shares of ||z_N||, both in the variables y."""
DIRECTIONS, ASCENT_STEPS = 16, 12


def _row(record: TwoLayerRecord, num_steps: int) -> dict:
    found = [(trip, tube) for trip, (tube,) in recorded_tubes(record)]
    scale = np.sqrt(sum(np.linalg.norm(trip.inversion[0]) ** 2 for trip, _ in found))

    def together(values) -> float:
        return float(np.linalg.norm(list(values)) / scale)

    return {
        "steps": num_steps,
        "error": together(np.linalg.norm(trip.errors[0]) for trip, _ in found),
        "first_order": together(np.linalg.norm(tube.first_order[0]) for _, tube in found),
        "deviation": together(tube.deviation[0] for _, tube in found),
        "around_first_order": together(np.linalg.norm(tube.first_order[0]) + tube.deviation[0] for _, tube in found),
        "ball": together(tube.ball[0] for _, tube in found),
        "largest_growth": float(max(tube.growth.max() for _, tube in found)),
    }


def _largest_found(record: TwoLayerRecord, radius: float, seed: int) -> float:
    """The largest ||E_0|| of the first frame over starts on the sphere of a radius around z_N, by projected ascent."""
    alphas = np.asarray(record.trip.alphas_cumprod)
    sigmas = torch.from_numpy(np.sqrt((1 - alphas) / alphas))
    inner, outer, scales, skip, biases, offsets = (
        torch.from_numpy(np.ascontiguousarray(getattr(record, name)))
        for name in ("inner", "outer", "scales", "skip", "biases", "offsets")
    )
    states = record.trip.inversion[:, 0].reshape(len(alphas), -1) / np.sqrt(alphas)[:, None]
    first, last = torch.from_numpy(states[0]), torch.from_numpy(states[-1])
    directions = torch.from_numpy(np.random.default_rng(seed).standard_normal((DIRECTIONS, states.shape[1])))
    largest = 0.0
    for _ in range(ASCENT_STEPS):
        directions = (directions / directions.norm(dim=1, keepdim=True)).requires_grad_(True)
        moving = last + radius * directions
        for level in range(len(alphas) - 1, 0, -1):
            hidden = torch.tanh(scales[level] * moving @ inner.T + biases[level])
            noise = skip[level] * moving + hidden @ outer.T + offsets[level]
            moving = moving - (sigmas[level] - sigmas[level - 1]) * noise
        errors = (moving - first).norm(dim=1)
        largest = max(largest, float(errors.detach().max()))
        (gradient,) = torch.autograd.grad(errors.sum(), directions)
        # A step of the gradient's own length: near a maximum on the sphere the two are parallel.
        directions = (directions + gradient / gradient.norm(dim=1, keepdim=True)).detach()
    return largest


def measure(context: Context) -> Data:
    """Certificates over numbers of steps, and over radii of the start."""
    settings, frames = context.settings, context.inputs["clip"].arrays["frames"]
    scheduler = load_editor(settings.pipeline, device="cpu").pipeline.scheduler
    total = len(STEPS) + len(RADII)
    rows = []
    for number, steps in enumerate(STEPS):
        record = record_two_layer(frames[:TWO_LAYER_FRAMES], noise_ladder(scheduler, steps, torch.float64), "certified")
        rows.append(_row(record, steps))
        context.progress(number + 1, total)
        if steps == RADIUS_STEPS:
            chosen = record
    noise = chosen.trip.inversion[-1, 0] / np.sqrt(chosen.trip.alphas_cumprod[-1])
    length = float(np.linalg.norm(noise))
    scale = float(np.linalg.norm(chosen.trip.inversion[0, 0]) / np.sqrt(chosen.trip.alphas_cumprod[0]))
    _, tubes = next(recorded_tubes(chosen, start_radii=[length * share for share in RADII]))
    radii = []
    for number, (share, tube) in enumerate(zip(RADII, tubes, strict=True)):
        radii.append(
            {
                "share": share,
                "found": _largest_found(chosen, length * share, settings.seed) / scale,
                "around_first_order": float(np.linalg.norm(tube.first_order[0]) + tube.deviation[0]) / scale,
                "ball": float(tube.ball[0]) / scale,
            }
        )
        context.progress(len(STEPS) + number + 1, total)
    units, dimension = chosen.inner.shape
    return {
        "rows": rows,
        "radii": radii,
        "radius_steps": RADIUS_STEPS,
        "units": units,
        "dimension": dimension,
        "num_frames": min(TWO_LAYER_FRAMES, len(frames)),
    }


def _at(data: Data, steps: int) -> dict:
    return next(row for row in data["rows"] if row["steps"] == steps)


def reach(data: Data) -> float:
    """The largest radius of the study, as a share of ||z_N||, up to which the certificate is within 10 of what is
    found."""
    within = [row["share"] for row in data["radii"] if min(row["around_first_order"], row["ball"]) <= 10 * row["found"]]
    return max(within, default=0.0)


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    steps_axes, radius_axes = figure.subplots(1, 2)
    styles = {
        "ball": {"color": BOUND, "linestyle": ":", "marker": "^", "label": "certified: B1, ball around the inversion"},
        "around_first_order": {
            "color": BOUND,
            "linestyle": "--",
            "marker": "s",
            "label": "certified: ball around the first-order error",
        },
        "deviation": {"color": GREY, "linestyle": "-.", "marker": "D", "label": "of which radius of that ball"},
        "error": {"color": BLUE, "marker": "o", "label": "measured error"},
        "found": {"color": GREEN, "marker": "o", "label": "largest error found by ascent"},
    }
    for name in ("ball", "around_first_order", "deviation", "error"):
        rows = data["rows"]
        steps_axes.plot([row["steps"] for row in rows], [row[name] for row in rows], **styles[name])
    for name in ("ball", "around_first_order", "found"):
        rows = data["radii"]
        radius_axes.plot([row["share"] for row in rows], [row[name] for row in rows], **styles[name])
    for axes in (steps_axes, radius_axes):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.tick_params(which="minor", length=0)
    ticks = [row["steps"] for row in data["rows"]]
    steps_axes.set_xticks(ticks, [str(tick) for tick in ticks])
    steps_axes.set_xticks([], minor=True)
    steps_axes.set_xlabel("DDIM steps")
    steps_axes.set_ylabel("relative round-trip error")
    steps_axes.set_title("sampling from where the inversion ended")
    radius_axes.axvline(reach(data), color=ORANGE, linewidth=1.2, label="within 10 of what is found up to here")
    radius_axes.set_xlabel(r"radius of starts, $\|w_N - z_N\| / \|z_N\|$")
    radius_axes.set_ylabel("relative error at the data end")
    radius_axes.set_title(f"every start in a ball, {data['radius_steps']} steps")
    handles = {
        label: line for axes in (steps_axes, radius_axes) for line, label in zip(*axes.get_legend_handles_labels())
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def caption(data: Data) -> str:
    row = _at(data, data["radius_steps"])
    worst = max(data["rows"], key=lambda entry: entry["around_first_order"] / entry["error"])
    return (
        f"C3.two-layer: a trained network of one hidden layer ({data['units']} tanh units, dimension "
        f"{data['dimension']}), certified in floating point from its inversion and its weights alone. Left: "
        f"{data['num_frames']} held-out frames of 8 x 8 pixels; at {row['steps']} steps the certificate is "
        f"{row['around_first_order'] / row['error']:.2f} times the measured error. It is loosest, "
        f"{worst['around_first_order'] / worst['error']:.0f} times, at {worst['steps']} steps, where defects are so "
        "large that the curvature they meet feeds on itself; B1, which forgets the error's direction, pays a product "
        f"of norms at every step. Right: every sampling from a ball around the inverted latent. Up to "
        f"{plain_number(reach(data), 2)} of the latent's norm the certificate is within 10 of the largest error "
        "that ascent finds; beyond, only the saturation of tanh is left, and it grows as with a global Lipschitz "
        "constant."
    )


def alt(data: Data) -> str:
    parts = ", ".join(
        f"{row['error']:.2g} certified {row['around_first_order']:.2g} at {row['steps']} steps" for row in data["rows"]
    )
    return (
        f"Left: measured round-trip error of the two-layer network under its certificates: {parts}. Right: "
        f"certificates and largest error found against the radius of starts; they separate beyond {reach(data):.2g}."
    )


def numbers(data: Data) -> Sequence[Number]:
    row = _at(data, data["radius_steps"])
    return (
        Number(f"two-layer network: relative round-trip error, {row['steps']} steps", row["error"], "measured", "C3"),
        Number(
            f"two-layer network: bound on it from the inversion alone, {row['steps']} steps",
            row["around_first_order"],
            "certified",
            "C3",
        ),
        Number(f"two-layer network: B1, {row['steps']} steps", row["ball"], "certified", "C3"),
        Number("two-layer network: largest growth of a step", row["largest_growth"], "certified", "C3"),
        Number(
            "two-layer network: radius of starts, relative to the latent, that is certified within 10",
            reach(data),
            "measured",
            "C3",
        ),
    )


STUDY = Study(
    name="certified",
    groups=("C3",),
    needs=("clip",),
    settings=("pipeline", "seed"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
