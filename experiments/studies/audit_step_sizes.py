"""Of an audit: the step size that is proved safe and the one that the curvature at the features allows, per layer."""

import numpy as np
from matplotlib.figure import Figure

from experiments.studies import Data, Study
from experiments.studies.style import BLACK, BLUE, BOUND, MARKERS


def _rows(data: Data) -> list[str]:
    """Layers in the order of the UNet."""
    return list(dict.fromkeys(record["layer"] for record in data["records"]))


def _short(layer: str) -> str:
    """up_blocks.1.attentions.0.transformer_blocks.0.attn1 as up 1.0."""
    parts = layer.removesuffix(".attn1").replace("transformer_blocks.", "").replace("attentions.", "").split(".")
    return parts[0].replace("_blocks", "").replace("_block", "") + " " + ".".join(parts[1:-1] or parts[1:])


def draw(data: Data) -> Figure:
    rows, records = _rows(data), data["records"]
    figure = Figure(figsize=(7.4, 1.6 + 0.42 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot()
    timesteps = sorted({record["timestep"] for record in records})
    offsets = dict(zip(timesteps, 0.5 * np.linspace(-0.5, 0.5, len(timesteps)) if len(timesteps) > 1 else [0.0]))
    for index, (timestep, offset) in enumerate(offsets.items()):
        marker = MARKERS[index % len(MARKERS)]
        chosen = [record for record in records if record["timestep"] == timestep]
        heights = [rows.index(record["layer"]) + offset for record in chosen]
        axes.plot(
            [record["proved"] for record in chosen],
            heights,
            marker,
            color=BOUND,
            markerfacecolor="white",
            label=f"proved, timestep {timestep}",
        )
        curved = [(record["certified"], height) for record, height in zip(chosen, heights) if record["certified"]]
        if curved:
            axes.plot(*zip(*curved), marker, color=BLUE, label=f"certified curvature, timestep {timestep}")
    axes.set_yticks(range(len(rows)), [_short(layer) for layer in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlabel("step size of gradient descent on the features (units of a squared norm)")
    if records:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16 - 0.5 / max(len(rows), 1)), ncols=2, fontsize=8.5)
    else:
        axes.text(0.5, 0.5, "no layer has a temporal loss", transform=axes.transAxes, ha="center", color=BLACK)
    return figure


def caption(data: Data) -> str:
    return (
        "C2: below the open marks, 2 m^2 / C_N with m the least norm of a frame, every step of gradient descent on the "
        "features lowers the temporal loss, for ever (proved). The full marks are 2 over the certified largest "
        "curvature at these very features: it holds here, and a step of that size may leave the region where it does."
    )


def alt(data: Data) -> str:
    proved = [record["proved"] for record in data["records"]]
    if not proved:
        return "An empty plot: no layer has a temporal loss."
    return (
        f"Step sizes per layer and timestep on a logarithmic axis. Proved safe: from {min(proved):.3g} to "
        f"{max(proved):.3g}; those of the certified curvature lie to the right of them."
    )


STUDY = Study(
    name="audit_step_sizes",
    groups=("C2",),
    needs=(),
    settings=(),
    measure=lambda context: {},
    draw=draw,
    caption=caption,
    alt=alt,
)
