"""What a person looks at first: clip, reconstruction, edit without and with adapter, and how alike neighbours are."""

import base64
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, GREY, MARKERS, ORANGE, plain_number

ROWS = (
    ("source", "source"),
    ("reconstruction", "reconstruction"),
    ("edit", "edit,\nno adapter"),
    ("edit_adapter", "edit,\nadapter"),
)
COLOURS = {"source": BLACK, "reconstruction": GREY, "edit": ORANGE, "edit_adapter": BLUE}
SHOWN = 8


def _encode(frames: np.ndarray) -> dict:
    pixels = np.round(255 * np.clip(frames, 0, 1)).astype(np.uint8)
    return {"shape": list(pixels.shape), "rgb8_base64": base64.b64encode(pixels.tobytes()).decode("ascii")}


def _decode(encoded: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(encoded["rgb8_base64"]), dtype=np.uint8).reshape(encoded["shape"])


def measure(context: Context) -> Data:
    """Collects what the stages `clip`, `adapter` and `edit` stored; computes nothing new."""
    clip, edited = context.inputs["clip"], context.inputs["edit"]
    return {
        "clip": clip.values["name"],
        "source_prompt": clip.values["source_prompt"],
        "target_prompt": clip.values["target_prompt"],
        "num_steps": context.settings.num_steps,
        "layer": edited.values["trace_layer"],
        "frames": {name: _encode(edited.arrays[f"frames_{name}"]) for name, _ in ROWS},
        "similarities": {name: edited.values["similarities"][name] for name, _ in ROWS},
        "temporal_losses": {name: edited.values["temporal_losses"][name] for name, _ in ROWS},
        "reconstruction_error": edited.values["relative_reconstruction_error"]["off"],
    }


def draw(data: Data) -> Figure:
    frames = {name: _decode(data["frames"][name]) for name, _ in ROWS}
    total = len(frames["source"])
    shown = np.unique(np.round(np.linspace(0, total - 1, min(SHOWN, total))).astype(int))
    figure = Figure(figsize=(8.4, 0.98 * len(ROWS) + 2.5), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(0.98 * len(ROWS), 2.1), hspace=0.02)
    strips = grid[0].subgridspec(len(ROWS), len(shown), wspace=0.02, hspace=0.02)
    for row, (name, label) in enumerate(ROWS):
        for column, index in enumerate(shown):
            axes = figure.add_subplot(strips[row, column])
            axes.imshow(frames[name][index], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, rotation=0, ha="right", va="center")
            if row == 0:
                axes.set_title(f"frame {index + 1}", fontsize=9, fontweight="normal", loc="center", pad=3)
    axes = figure.add_subplot(grid[1])
    for (name, label), marker in zip(ROWS, MARKERS, strict=False):
        values = data["similarities"][name]
        text = f"{label.replace(chr(10), ' ')}: L = {plain_number(data['temporal_losses'][name], 2)}"
        # Neighbours are so alike that the cosine itself would be a flat line at 1.
        distances = np.maximum(1 - np.asarray(values), np.finfo(np.float64).eps)
        axes.plot(
            np.arange(1, len(values) + 1) + 0.5,
            distances,
            marker=marker,
            color=COLOURS[name],
            label=text,
            markersize=4.5,
        )
    axes.set_xlim(0.5, total + 0.5)
    axes.set_xticks(np.arange(1, total + 1))
    axes.set_xlabel("frame")
    axes.set_yscale("log")
    axes.set_ylabel("1 - cosine of\nneighbouring frames")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def caption(data: Data) -> str:
    return (
        f"Held-out frames of {data['clip']}: source, DDIM reconstruction in {data['num_steps']} steps (relative error "
        f'{data["reconstruction_error"]:.3f}), and the edit to "{data["target_prompt"]}" without and with the trained '
        "adapter. Below: one minus "
        f"the cosine similarity of neighbouring frames in the self-attention features of {data['layer']}, read by the "
        "same network without adapter in every row; L is the temporal loss of each row, which asks that this line be "
        "level and not that it be low."
    )


def alt(data: Data) -> str:
    losses = ", ".join(f"{label.replace(chr(10), ' ')} {data['temporal_losses'][name]:.2g}" for name, label in ROWS)
    return (
        "Four rows of video frames: source, reconstruction, edit without adapter, edit with adapter "
        f"({data['target_prompt']}); below them one minus the similarity of neighbouring frames in each row. Temporal "
        f"losses: {losses}."
    )


def numbers(data: Data) -> Sequence[Number]:
    losses = data["temporal_losses"]
    return (
        Number("temporal loss of the source frames", losses["source"], "measured", "C1"),
        Number("temporal loss of the edit without adapter", losses["edit"], "measured", "C1"),
        Number("temporal loss of the edit with adapter", losses["edit_adapter"], "measured", "C1"),
    )


STUDY = Study(
    name="film_strip",
    groups=("C1", "C2", "C3"),
    needs=("clip", "adapter", "edit"),
    settings=("num_steps",),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
