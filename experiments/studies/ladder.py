"""The figure slot that every claim has: measured / bound on each rung of its ladder, with the bound at 1."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments.studies import Data, Study
from experiments.studies.style import BLUE, BOUND, GREY, ORANGE, bound_line, plain_number, spread

LEAST, USUAL, MOST = 1e-6, 1e-3, 1e4
NARROW = 30
# By the side of the bound on which the ratios have to lie: marker and colour.
LOOKS = {"below": ("o", BLUE), "above": ("D", ORANGE), "recorded": ("s", GREY)}
ROW_LABELS = {
    "witness": "witness",
    "property": "random instances",
    "attack": "adversarial search",
    "necessity": "a hypothesis dropped",
    "power": "planted false bounds",
    "reality": "real network",
}
REFUTED_LABELS = {
    "witness": "counterexample",
    "property": "family of\ncounterexamples",
    "necessity": "hypothesis restored",
    "power": "planted false repairs",
}


def _worst_text(row: dict) -> str:
    value = row["worst"]
    if value == "infinity":
        return r"$\infty$"
    if abs(value - 1) < 0.05:
        # Near the bound the digits that matter are those of the distance to it.
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return plain_number(value)


def draw(data: Data) -> Figure:
    rows = data["rows"]
    figure = Figure(figsize=(6.6, 1.25 + 0.36 * len(rows)))
    axes = figure.add_subplot()
    labels = {**ROW_LABELS, **(REFUTED_LABELS if data["verdict"] == "refuted" else {})}
    bound_line(axes, x=1.0)
    finite = [ratio for row in rows for ratio in row["ratios"] if 0 < ratio < MOST]
    # The real network is shown however far below the bound it lies; a tail of random instances is not worth the axis.
    real = [ratio for row in rows if row["rung"] == "reality" for ratio in row["ratios"] if ratio > 0]
    low = max(LEAST, min(USUAL, *real), min(0.5, *finite)) * 0.7 if real and finite else USUAL
    high = min(MOST, max(2.0, max([*finite, *(MOST if row["worst"] == "infinity" else 0 for row in rows)]))) * 1.5
    for position, row in enumerate(rows):
        ratios = np.asarray(row["ratios"], dtype=float)
        heights = position + 0.55 * spread(len(ratios)) if len(ratios) > 1 else np.full(len(ratios), float(position))
        marker, colour = LOOKS[row["expected"]]
        faint = len(ratios) > 40
        for shown, symbol in (
            (ratios < low, "<"),
            (ratios > high, ">"),
            ((ratios >= low) & (ratios <= high), marker),
        ):
            axes.scatter(
                np.clip(ratios[shown], low, high),
                heights[shown],
                s=8 if faint else 26,
                color=colour,
                marker=symbol,
                alpha=0.45 if faint else 0.9,
                linewidths=0,
                zorder=3,
                clip_on=False,
            )
        text = f"{'least' if row['expected'] == 'above' else 'worst'} {_worst_text(row)}"
        axes.annotate(text, (1.015, position), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    if high < NARROW * low:
        # One power of ten alone would leave the axis without a scale.
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [labels[row["rung"]] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("measured / bound (no unit)")
    axes.set_title(f"{data['id']}  ({data['verdict']}, {data['tightness']})", pad=16)
    axes.annotate(
        "bound",
        (1.0, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        color=BOUND,
        ha="center",
        fontsize=9,
    )
    return figure


def caption(data: Data) -> str:
    if data["verdict"] == "refuted":
        explanation = (
            "The statement says that every ratio stays below 1. Orange diamonds are instances that satisfy its "
            "hypotheses, and break it; of a search every start is drawn, and the best one counts. Blue circles are the "
            "same search once the missing hypothesis is restored, and stay below. Grey squares are what the network "
            "recorded, which a refutation does not need."
        )
    else:
        explanation = (
            "Blue circles satisfy the hypotheses and stay below 1. Orange diamonds must lie above 1: instances in "
            "which one hypothesis fails, and planted false bounds that the same checks reject."
        )
    return f"{data['id']}: {data['statement']} {explanation} Triangles at the edge stand for ratios beyond it."


def alt(data: Data) -> str:
    parts = ", ".join(
        f"{row['rung']} {row['worst'] if isinstance(row['worst'], str) else format(row['worst'], '.4g')}"
        for row in data["rows"]
    )
    return f"Ratio of measured value to bound for {data['id']} on every rung of its ladder; deciding ratios: {parts}."


STUDY = Study(
    name="ladder",
    groups=(),
    needs=(),
    settings=(),
    measure=lambda context: {},
    draw=draw,
    caption=caption,
    alt=alt,
)
