"""C3: what the theorems on inversion ask of a predictor, sought on the trained network along its own round trips."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.editor.evidence import to_evidence
from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLUE, BOUND, GREEN, GREY, ORANGE
from theory.evidence import Evidence
from theory.inversion import recorded

NETWORKS = ("adapter off", "adapter on", "adapter in sampling only")
STYLES = {NETWORKS[0]: (ORANGE, "o"), NETWORKS[1]: (BLUE, "s"), NETWORKS[2]: (GREEN, "^")}
Row = dict[str, float]


def _excess_squeeze(row: Row) -> float:
    """How many times more a pair is squeezed than an exact score may: above 1 the hypothesis is violated."""
    return row["ratio"] / row["squeezed"]


def _excess_slope(row: Row) -> float:
    return row["rising"] / (1 - row["ratio"])


PANELS: tuple[tuple[str, str, Callable[[Row], float]], ...] = (
    ("bijective step (C3.bijective)", r"$\rho\,\|v\|\,/\,\|v - h\,\Delta e\|$", _excess_squeeze),
    ("contraction of the iteration (C3.fixed-point)", r"$\|h\,\Delta e\|\,/\,\|v\|$", lambda row: row["steepest"]),
    ("no expansion (C3.log-concave)", r"$\|v - h\,\Delta e\|\,/\,\|v\|$", lambda row: row["stretched"]),
    ("slope of an exact score (C3.mixture-tube)", r"$\sigma\,\langle v, \Delta e\rangle\,/\,\|v\|^2$", _excess_slope),
)


def measure(context: Context) -> Data:
    """What `summarise` finds in the run's own evidence."""
    return summarise(to_evidence(context.inputs["evidence"].arrays))


def summarise(evidence: Evidence) -> Data:
    """The extreme quotients among the recorded pairs of every level, and what the recorded sampling made of its error
    there."""
    rows: dict[str, list[Row]] = {name: [] for name in NETWORKS}
    for record, found, trip in recorded.levels(evidence):
        name = record.trip.rsplit(",", 1)[0]
        row = {name: float(value) for name, value in found._asdict().items() if name != "step"}
        growth = recorded.growth_of_error(trip, found.step)
        row |= {
            "level": record.level,
            "sigma": float(trip.sigmas[record.level]),
            "increments": [float(value) for value in record.increments],
        }
        rows[name].append(row if growth is None else row | {"growth": growth})
    order = [
        {
            "steps": len(trip.sigmas) - 1,
            "error": float(np.linalg.norm(trip.errors[0]) / np.linalg.norm(trip.inversion[0])),
        }
        for trip in map(recorded.first_frame, [*evidence.refined_trips, evidence.round_trips[0]])
    ]
    practice = []
    for record in evidence.practice:
        parts = recorded.practice_parts(record)
        size = float(np.linalg.norm(parts.states[0]))
        norms = {
            name: float(np.linalg.norm(getattr(parts, name), axis=1).sum()) / size
            for name in ("ladder", "guidance", "adapter")
        }
        error = float(np.linalg.norm(parts.sampling[0] - parts.states[0])) / size
        practice.append({"label": record.label, "error": error, **norms})
    return {
        "num_steps": len(evidence.round_trips[0].alphas_cumprod) - 1,
        "networks": rows,
        "order": sorted(order, key=lambda entry: entry["steps"]),
        "practice": practice,
    }


def _panel(axes: Axes, data: Data, title: str, label: str, quantity: Callable[[Row], float]) -> None:
    for place, name in enumerate(NETWORKS):
        rows, (colour, marker) = data["networks"][name], STYLES[name]
        sigmas, values = [row["sigma"] for row in rows], [quantity(row) for row in rows]
        # Hollow and larger, so that points which coincide are all seen.
        look = {"markersize": 4 + 2.5 * place, "markerfacecolor": "none" if place else colour}
        axes.plot(sigmas, values, color=colour, marker=marker, linestyle="", label=name, **look)
    low, high = axes.get_ylim()
    high = max(high, 1.15)
    axes.axhspan(1, high, color=BOUND, alpha=0.09, linewidth=0)
    axes.axhline(1, color=BOUND, linestyle="--", linewidth=1.2, label="the theorem's hypothesis: at most 1")
    axes.set_ylim(min(low, 0.0), high)
    axes.set_xscale("log")
    axes.set_title(title)
    axes.set_ylabel(label)


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.6, 6.4), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, (title, label, quantity) in zip(panels.ravel(), PANELS, strict=True):
        _panel(axes, data, title, label, quantity)
    for axes in panels[1]:
        axes.set_xlabel(r"noise level $\sigma$")
    rows = [row for row in data["networks"][NETWORKS[0]] if "growth" in row]
    growth = {"color": GREY, "marker": "x", "linestyle": "", "markersize": 4}
    panels[1, 0].plot(
        [row["sigma"] for row in rows],
        [row["growth"] for row in rows],
        label="growth of the recorded error, adapter off",
        **growth,
    )
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _violations(data: Data, quantity: Callable[[Row], float]) -> tuple[int, int, float, float]:
    """Levels with a pair that breaks a hypothesis, levels in all, the worst value and its noise level, adapter off."""
    rows = data["networks"][NETWORKS[0]]
    worst = max(rows, key=quantity)
    return sum(quantity(row) > 1 for row in rows), len(rows), quantity(worst), worst["sigma"]


def caption(data: Data) -> str:
    found = {title: _violations(data, quantity) for title, _, quantity in PANELS}
    parts = "; ".join(
        f"{title}: broken at {broken} of {levels} levels, most at noise level {sigma:.2g} ({value:.2f})"
        for title, (broken, levels, value, sigma) in found.items()
    )
    growing = sum(row.get("growth", 0.0) > 1 for row in data["networks"][NETWORKS[0]])
    return (
        f"C3: hypotheses of the theorems along the levels of {data['num_steps']} steps, on pairs of states of the "
        "network's first frame, a thousandth of the state's norm apart, in the most extreme directions of a Krylov space "
        "of dimension 8. v is a displacement, Δe the network's change, h the step. Above the dashed line a pair breaks the "
        f"hypothesis; a point below it proves nothing about other pairs. Adapter off: {parts}. Where a hypothesis is "
        "broken, the theorem promises nothing: no inverse of a step, no convergence of the iteration, no bound without "
        f"growth. Crosses: what the recorded sampling made of its own error, which grew at {growing} of the levels."
    )


def alt(data: Data) -> str:
    return (
        "Four panels against the noise level, adapter off, on and in sampling only, with a dashed line at 1 above "
        "which a hypothesis is broken. "
        + " ".join(f"{title}: up to {_violations(data, quantity)[2]:.2f}." for title, _, quantity in PANELS)
    )


def numbers(data: Data) -> Sequence[Number]:
    found = []
    for title, _, quantity in PANELS:
        broken, levels, value, sigma = _violations(data, quantity)
        found.append(
            Number(f"{title}: levels of {levels} with a pair that breaks it, adapter off", broken, "measured", "C3")
        )
        found.append(
            Number(f"{title}: worst value found (1 is allowed), at noise level {sigma:.2g}", value, "measured", "C3")
        )
    for before, after in zip(data["order"][:-1], data["order"][1:]):
        slope = np.log(after["error"] / before["error"]) / np.log(after["steps"] / before["steps"])
        found.append(
            Number(
                f"order of the round-trip error from {before['steps']} to {after['steps']} steps",
                float(slope),
                "measured",
                "C3",
            )
        )
    for entry in data["practice"]:
        found.append(Number(f"{entry['label']}: error over the frame's norm", entry["error"], "measured", "C3"))
        for part in ("ladder", "guidance", "adapter"):
            found.append(
                Number(f"{entry['label']}: defects of the {part}, over the frame's norm", entry[part], "measured", "C3")
            )
    return tuple(found)


STUDY = Study(
    name="hypotheses",
    groups=("C3",),
    needs=("evidence",),
    settings=("num_steps",),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
