"""The figure slot that every claim has: measured / bound on each rung of its ladder, with the bound at 1."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments.studies import Data, Study
from experiments.studies.style import BLUE, BOUND, GREY, ORANGE, bound_line, plain_number, spread

LEAST, USUAL, MOST = 1e-6, 1e-3, 1e4
NARROW = 30
# By the side of the bound on which the ratios have to lie: marker and colour.
LOOKS = {
    "below": ("o", BLUE),
    "above": ("D", ORANGE),
    "holds": ("o", BLUE),
    "violated": ("D", ORANGE),
    "identity": ("s", GREY),
}
ROW_LABELS = {
    "witness": "witness",
    "property": "random instances",
    "attack": "adversarial search",
    "necessity": "a hypothesis dropped",
    "power": "planted false bounds",
}
REFUTED_LABELS = {
    "witness": "counterexample",
    "property": "family of\ncounterexamples",
    "necessity": "hypothesis restored",
    "power": "planted false repairs",
}
ORIGIN_LABELS = {"network": "real network", "clip": "exact score on the clip", "constructed": "constructed evidence"}


def _label(row: dict, refuted: bool) -> str:
    if "origin" not in row:
        return {**ROW_LABELS, **(REFUTED_LABELS if refuted else {})}[row["rung"]]
    return f"{ORIGIN_LABELS[row['origin']]}:\n{row['tells']}"


def _look(row: dict) -> tuple[str, str]:
    return LOOKS["identity" if row.get("tells") == "identity" else row["expected"]]


def _worst_text(row: dict) -> str:
    value = row["worst"]
    if value == "infinity":
        return r"$\infty$"
    if abs(value - 1) < 0.05:
        # Near the bound the digits that matter are those of the distance to it.
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return plain_number(value)


def _limits(rows: list[dict]) -> tuple[float, float]:
    finite = [ratio for row in rows for ratio in row["ratios"] if 0 < ratio < MOST]
    # Evidence is shown however far below the bound it lies; a tail of random instances is not worth the axis.
    real = [ratio for row in rows if row["rung"] == "reality" for ratio in row["ratios"] if ratio > 0]
    low = max(LEAST, min(USUAL, *real), min(0.5, *finite)) * 0.7 if real and finite else USUAL
    infinite = any(row["worst"] == "infinity" for row in rows)
    return low, min(MOST, max(2.0, *finite, MOST if infinite else 0.0)) * 1.5


def _draw_row(axes: Axes, position: int, row: dict, limits: tuple[float, float]) -> None:
    low, high = limits
    ratios = np.asarray(row["ratios"], dtype=float)
    heights = position + 0.55 * spread(len(ratios)) if len(ratios) > 1 else np.full(len(ratios), float(position))
    marker, colour = _look(row)
    faint = len(ratios) > 40
    for shown, symbol in ((ratios < low, "<"), (ratios > high, ">"), ((ratios >= low) & (ratios <= high), marker)):
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
    # On the last rung one outcome that breaks the inequality is enough, so the largest is quoted there in either case.
    text = f"{'least' if row['expected'] == 'above' else 'largest'} {_worst_text(row)}"
    axes.annotate(text, (1.015, position), xycoords=("axes fraction", "data"), va="center", fontsize=9)


def draw(data: Data) -> Figure:
    rows = data["rows"]
    figure = Figure(figsize=(6.6, 1.25 + 0.4 * len(rows)))
    axes = figure.add_subplot()
    bound_line(axes, x=1.0)
    low, high = _limits(rows)
    for position, row in enumerate(rows):
        _draw_row(axes, position, row, (low, high))
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
    axes.set_yticks(range(len(rows)), [_label(row, data["verdict"] == "refuted") for row in rows])
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
            "The statement says that every ratio stays below 1. Orange diamonds on the first rungs are instances "
            "that satisfy its hypotheses, and break it; of a search every start is drawn, and the best one counts. "
            "Blue circles there are the same search once the missing hypothesis is restored, and stay below."
        )
    else:
        explanation = (
            "Blue circles on the first rungs satisfy the hypotheses and stay below 1. Orange diamonds there must lie "
            "above 1: instances in which one hypothesis fails, and planted false bounds that the same checks reject."
        )
    return (
        f"{data['id']}: {data['statement']} {explanation}{_evidence_words(data['rows'])} Triangles at the edge stand "
        "for ratios beyond it."
    )


def _evidence_words(rows: list[dict]) -> str:
    """What the rows of recorded evidence show, of the kinds that there are."""
    kinds = [row for row in rows if "origin" in row]
    if not kinds:
        return ""
    words = [" Below, recorded evidence by what it was taken from and what it can tell."]
    told = {row["expected"] for row in kinds if row["tells"] != "identity"}
    if "holds" in told:
        words.append("Circles are declared to hold.")
    if "violated" in told:
        words.append("Diamonds are declared to be violated, by one at least.")
    if any(row["tells"] == "identity" for row in kinds):
        words.append("Grey squares are identities, which any recorded numbers satisfy: they are no evidence.")
    return " ".join(words)


def alt(data: Data) -> str:
    parts = ", ".join(
        f"{' '.join(_label(row, data['verdict'] == 'refuted').split())} "
        f"{row['worst'] if isinstance(row['worst'], str) else format(row['worst'], '.4g')}"
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
