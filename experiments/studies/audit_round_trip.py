"""Of an audit: what each step adds to the round-trip error, what mismatch and guidance cost, what iterating mends."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from experiments.studies import Data, Study
from experiments.studies.style import BLUE, BOUND, GREY, ORANGE

HALF_STEP = 0.5


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    top, bottom = figure.add_gridspec(2, 1)
    steps_axes = figure.add_subplot(top)
    trips_axes, fixed_axes = (figure.add_subplot(cell) for cell in bottom.subgridspec(1, 2))
    contributions = np.asarray(data["contributions"])
    places = np.arange(1, len(contributions) + 1)
    steps_axes.bar(places, contributions, color=ORANGE, width=0.8, label="share of the sum of grown defects")
    steps_axes.axhline(data["error"], color=BLUE, linewidth=1.4, label="measured error of the whole round trip")
    steps_axes.set_yscale("log")
    positive = contributions[contributions > 0]
    if positive.size:
        steps_axes.set_ylim(positive.min() / 2, 6 * max(data["error"], positive.max()))
    steps_axes.set_xlim(0.3, len(contributions) + 0.7)
    steps_axes.set_xlabel(f"step, from the data end (1) to the noise end ({len(contributions)})")
    steps_axes.set_ylabel("relative to the clip")
    steps_axes.set_title("what each step adds")
    steps_axes.grid(axis="x", visible=False)
    steps_axes.legend(loc="upper right", ncols=2, fontsize=8.5)

    places = np.arange(len(data["trips"]))
    trips_axes.bar(places - 0.2, [trip["error"] for trip in data["trips"]], 0.4, color=BLUE, label="measured error")
    trips_axes.bar(
        places + 0.2,
        [trip["bound"] for trip in data["trips"]],
        0.4,
        color="white",
        edgecolor=BOUND,
        hatch="///",
        label="its defects, grown as the path grew them",
    )
    trips_axes.set_yscale("log")
    values = [trip[name] for trip in data["trips"] for name in ("error", "bound") if trip[name] > 0] or [1.0]
    trips_axes.set_ylim(10 ** np.floor(np.log10(min(values) / 1.5)), 10 ** np.ceil(np.log10(4 * max(values))))
    trips_axes.yaxis.set_minor_formatter(NullFormatter())
    trips_axes.set_xlim(-0.8, max(len(places), 2) - 0.2)
    trips_axes.set_xticks(places, [trip["name"] for trip in data["trips"]])
    trips_axes.set_ylabel("relative error of the latents")
    trips_axes.set_title("error and what it is the sum of")
    trips_axes.grid(axis="x", visible=False)
    trips_axes.legend(loc="upper center", ncols=2, fontsize=8.5)

    errors = data["largest_pixel_errors"]
    fixed_axes.plot(range(len(errors)), errors, "o-", color=BLUE, label="largest error of a pixel")
    fixed_axes.axhline(HALF_STEP, color=GREY, linestyle=":", label="half a step of 8 bits: invisible")
    fixed_axes.set_yscale("log")
    low, high = fixed_axes.get_ylim()
    fixed_axes.set_ylim(min(low, HALF_STEP / 2), max(high, HALF_STEP) * 8)
    fixed_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    fixed_axes.set_xlim(-0.3, max(len(errors) - 1, 1) + 0.3)
    fixed_axes.set_xlabel("fixed-point iterations per step")
    fixed_axes.set_ylabel("steps of 8 bits (255 in all)")
    fixed_axes.set_title("what iterating mends")
    fixed_axes.legend(loc="upper right", fontsize=8.5)
    return figure


def caption(data: Data) -> str:
    return (
        "C3: the round-trip error is at most the sum of its one-step defects, each multiplied by the growth of the "
        f"sampling steps it still has to pass. Top: what each of {len(data['contributions'])} steps adds. Bottom left: "
        "errors and bounds when sampling is done by another network than inversion. The bounds hold for these "
        "trajectories and certify no others. Bottom right: the error that is left when every inversion step is "
        "iterated."
    )


def alt(data: Data) -> str:
    trips = ", ".join(
        f"{' '.join(trip['name'].split())} {trip['error']:.2g} (bound {trip['bound']:.2g})" for trip in data["trips"]
    )
    errors = ", ".join(f"{error:.3g}" for error in data["largest_pixel_errors"])
    return (
        f"Bars: the share of every step in the bound. Relative errors of the round trips: {trips}. Largest pixel error "
        f"with 0, 1, .. fixed-point iterations: {errors} steps of 8 bits."
    )


STUDY = Study(
    name="audit_round_trip",
    groups=("C3",),
    needs=(),
    settings=(),
    measure=lambda context: {},
    draw=draw,
    caption=caption,
    alt=alt,
)
