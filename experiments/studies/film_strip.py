"""What a person looks at first: clip, reconstruction, edit without and with adapter, and how alike neighbours are."""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
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
DETAIL_KEPT = 0.9
"""The share of the edit's detail that has to stay for an adapter to have helped: chosen, not derived."""


def encode(frames: np.ndarray) -> dict:
    """Frames in [0, 1] as JSON, in 8 bits."""
    pixels = np.round(255 * np.clip(frames, 0, 1)).astype(np.uint8)
    return {"shape": list(pixels.shape), "rgb8_base64": base64.b64encode(pixels.tobytes()).decode("ascii")}


def decode(encoded: dict) -> np.ndarray:
    """What `encode` wrote: (frames, height, width, 3) uint8."""
    return np.frombuffer(base64.b64decode(encoded["rgb8_base64"]), dtype=np.uint8).reshape(encoded["shape"])


def measure(context: Context) -> Data:
    """Collects what the stages `clip`, `adapter` and `edit` stored, and measures detail and change of the frames."""
    clip, edited = context.inputs["clip"], context.inputs["edit"]
    return {
        "clip": clip.values["name"],
        "source_prompt": clip.values["source_prompt"],
        "target_prompt": clip.values["target_prompt"],
        "num_steps": context.settings.num_steps,
        "layer": edited.values["trace_layer"],
        **strip({name: edited.arrays[f"frames_{name}"] for name, _ in ROWS}),
        "similarities": {name: edited.values["similarities"][name] for name, _ in ROWS},
        "temporal_losses": {name: edited.values["temporal_losses"][name] for name, _ in ROWS},
        "reconstruction_error": edited.values["relative_reconstruction_error"]["off"],
    }


def strip(rows: Mapping[str, np.ndarray], side: int | None = None) -> Data:
    """What the strip shows of each row, and what is measured of all its frames.

    Args:
        rows: name -> (frames, height, width, 3) floating in [0, 1].
        side: frames larger than this are shown smaller, by every how many-th pixel; None shows them as they are.
    """
    total, height, width, _ = next(iter(rows.values())).shape
    shown = sorted({round(index) for index in np.linspace(0, total - 1, min(SHOWN, total))})
    stride = 1 if side is None else max(1, -(-max(height, width) // side))
    return {
        "num_frames": total,
        "shown": shown,
        "frames": {name: encode(frames[shown][:, ::stride, ::stride]) for name, frames in rows.items()},
        "details": {name: detail(frames) for name, frames in rows.items()},
        "changes": {name: change(frames) for name, frames in rows.items()},
    }


def rows_of(data: Data) -> list[tuple[str, str]]:
    """Name and label of every row that there are frames for, in the order in which they are drawn."""
    return [(name, label) for name, label in ROWS if name in data["frames"]]


def detail(frames: np.ndarray) -> list[float]:
    """Of each frame in [0, 1] the mean absolute difference of pixels that are neighbours in a row or column."""
    across, down = (np.abs(np.diff(frames.astype(np.float64), axis=axis)).mean(axis=(1, 2, 3)) for axis in (2, 1))
    return [float(value) for value in (across + down) / 2]


def change(frames: np.ndarray) -> float:
    """The mean absolute difference of a pixel from one frame to the next, of frames in [0, 1]."""
    return float(np.mean(np.abs(np.diff(frames.astype(np.float64), axis=0))))


def adapter_effect(data: Data) -> str | None:
    """Say whether the adapter helped, from three measures of the edit without and with it; None where one is missing.

    A temporal loss alone can be lowered by blurring the frames, so it does not decide this by itself.
    """
    names = ("edit", "edit_adapter")
    if not all(name in data["frames"] and name in data["temporal_losses"] for name in names):
        return None
    losses, changes = ([data[measured][name] for name in names] for measured in ("temporal_losses", "changes"))
    details = [float(np.mean(data["details"][name])) for name in names]
    kept = details[1] / details[0] if details[0] else 1.0
    asked = (
        (losses[1] < losses[0], "the temporal loss falls", "the temporal loss does not fall"),
        (
            kept >= DETAIL_KEPT,
            f"at least {DETAIL_KEPT:.0%} of the detail stays",
            f"less than {DETAIL_KEPT:.0%} of the detail stays",
        ),
        (
            changes[1] <= changes[0],
            "frames change no more from one to the next",
            "frames change more from one to the next",
        ),
    )
    failed = [words for holds, _, words in asked if not holds]
    verdict = f"No, as {' and '.join(failed)}" if failed else "Yes, by all three measures"
    return (
        f"{verdict}. A yes asks that {', that '.join(words for _, words, _ in asked)}. Without and with it: temporal "
        f"loss {losses[0]:.2g} and {losses[1]:.2g}; detail, the mean difference of neighbouring pixels, "
        f"{details[0]:.3g} and {details[1]:.3g} ({kept:.0%}); mean change of a pixel from frame to frame "
        f"{changes[0]:.3g} and {changes[1]:.3g}, of a full range of 1."
    )


def draw(data: Data) -> Figure:
    rows = rows_of(data)
    frames = {name: decode(data["frames"][name]) for name, _ in rows}
    total, shown = data["num_frames"], data["shown"]
    figure = Figure(figsize=(8.4, 0.98 * len(rows) + 2.5), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(0.98 * len(rows), 2.1), hspace=0.02)
    strips = grid[0].subgridspec(len(rows), len(shown), wspace=0.02, hspace=0.02)
    for row, (name, label) in enumerate(rows):
        for column, index in enumerate(shown):
            axes = figure.add_subplot(strips[row, column])
            axes.imshow(frames[name][column], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, rotation=0, ha="right", va="center")
            if row == 0:
                axes.set_title(f"frame {index + 1}", fontsize=9, fontweight="normal", loc="center", pad=3)
    panels = grid[1].subgridspec(1, 2, wspace=0.04)
    alike, sharp = (figure.add_subplot(panels[column]) for column in range(2))
    _draw_traces(alike, sharp, data)
    for axes in (alike, sharp):
        axes.set_xlim(0.5, total + 0.5)
        axes.set_xticks(np.arange(1, total + 1, max(1, total // 8)))
        axes.set_xlabel("frame")
    figure.legend(*sharp.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_traces(alike: Axes, sharp: Axes, data: Data) -> None:
    """How alike neighbours are in the features, and how much detail the frames have: one without the other misleads."""
    for (name, label), marker in zip(rows_of(data), MARKERS, strict=False):
        look = {"marker": marker, "color": COLOURS[name], "markersize": 4.5}
        text = label.replace(chr(10), " ")
        if name in data["temporal_losses"]:
            values = data["similarities"][name]
            # Neighbours are so alike that the cosine itself would be a flat line at 1.
            distances = np.maximum(1 - np.asarray(values), np.finfo(np.float64).eps)
            alike.plot(np.arange(1, len(values) + 1) + 0.5, distances, **look)
            text += f": L = {plain_number(data['temporal_losses'][name], 2)}"
        sharp.plot(np.arange(1, data["num_frames"] + 1), data["details"][name], label=text, **look)
    alike.set_yscale("log")
    alike.set_ylabel("1 - cosine of\nneighbouring frames")
    sharp.set_ylim(bottom=0)
    sharp.set_ylabel("difference of\nneighbouring pixels")


def caption(data: Data) -> str:
    rows = dict(rows_of(data))
    made = [f"Frames of {data['clip']}: source"]
    if "reconstruction" in rows:
        made.append(
            f"DDIM reconstruction in {data['num_steps']} steps (relative error {data['reconstruction_error']:.3f})"
        )
    both = "edit" in rows and "edit_adapter" in rows
    with_it = "without and with the adapter" if both else "without an adapter" if "edit" in rows else "with the adapter"
    shown = f'{", ".join(made)}, and the edit to "{data["target_prompt"]}" {with_it}.'
    left = ""
    if data["temporal_losses"]:
        left = (
            " Below on the left one minus the cosine similarity of neighbouring frames in the self-attention "
            f"features of {data['layer']}, read by the same network without adapter in every row; L is the temporal "
            "loss of each row, which asks that this line be level and not that it be low."
        )
    right = (
        " On the right the mean absolute difference of neighbouring pixels of each frame (of a full range of 1), "
        "which blurring lowers: where an edit's line lies far below the source's, little is left that could flicker."
    )
    return shown + left + right


def alt(data: Data) -> str:
    rows = rows_of(data)
    measured = [
        f"{label.replace(chr(10), ' ')} {data['temporal_losses'][name]:.2g}"
        for name, label in rows
        if name in data["temporal_losses"]
    ]
    details = ", ".join(f"{label.replace(chr(10), ' ')} {np.mean(data['details'][name]):.2g}" for name, label in rows)
    losses = f" Temporal losses: {', '.join(measured)}." if measured else ""
    return (
        f"{len(rows)} rows of video frames ({data['target_prompt']}): "
        f"{', '.join(label.replace(chr(10), ' ') for _, label in rows)}; below "
        f"them one minus the similarity of neighbouring frames, and the detail of each frame.{losses} Mean detail: "
        f"{details}."
    )


def numbers(data: Data) -> Sequence[Number]:
    losses = data["temporal_losses"]
    where = {"source": "the source frames", "edit": "the edit without adapter", "edit_adapter": "the edit with adapter"}
    found = [
        Number(f"temporal loss of {where[name]}", losses[name], "measured", "C1") for name in where if name in losses
    ]
    for name, words in where.items():
        if name in data["frames"]:
            value = float(np.mean(data["details"][name]))
            found.append(Number(f"mean difference of neighbouring pixels of {words}", value, "measured", "C1"))
    return tuple(found)


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
