"""C3: what the round-trip error looks like: source, reconstruction, and their difference."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.editor import load_editor
from experiments.editor.evidence import ROUND_TRIPS
from experiments.stages import Context
from experiments.studies import Data, Number, Study

ITERATIONS = 3
COLUMNS = {
    "off": "adapter off",
    "on": "adapter on",
    "sampling_only": "adapter in\nsampling only",
    "fixed_point": f"adapter off, fixed\npoint, {ITERATIONS} iterations",
}


def measure(context: Context) -> Data:
    """The first frame of the recorded round trips, and of one with a fixed-point inversion."""
    settings, clip = context.settings, context.inputs["clip"]
    recorded, prompt = context.inputs["evidence"].arrays, clip.values["source_prompt"]
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    source = clip.arrays["frames"][0]
    results = {name: torch.from_numpy(recorded[f"round_trip/{name}/sampling"][0][:1]) for name in ROUND_TRIPS}
    total = (ITERATIONS + 2) * settings.num_steps
    start = torch.from_numpy(recorded["round_trip/off/inversion"][0][:1]).to(editor.device)
    inversion = editor.invert(
        start,
        prompt,
        num_steps=settings.num_steps,
        fixed_point_iterations=ITERATIONS,
        progress=lambda done, _: context.progress((ITERATIONS + 1) * done, total),
    )
    sampling = editor.sample(
        inversion.latents[-1],
        prompt,
        num_steps=settings.num_steps,
        progress=lambda done, _: context.progress((ITERATIONS + 1) * settings.num_steps + done, total),
    )
    results["fixed_point"] = sampling.latents[0]
    pictures, errors = {}, {}
    for name, latents in results.items():
        latents = latents.to(editor.device)
        frame = editor.to_frames(latents)[0]
        pictures[name] = _as_bytes(frame).tolist()
        difference = frame.astype(np.float64) - source
        errors[name] = {
            "latent": float((latents - start).norm() / start.norm()),
            "pixel": 255 * float(np.sqrt(np.mean(difference**2))),
            # One number a pixel, signed, so that brighter and darker are told apart.
            "difference": np.round(255 * difference.mean(axis=-1), 2).tolist(),
        }
    return {
        "source": _as_bytes(source).tolist(),
        "pictures": pictures,
        "errors": errors,
        "clip": clip.values["name"],
        "steps": settings.num_steps,
    }


def _as_bytes(frame: np.ndarray) -> np.ndarray:
    return np.round(255 * frame).astype(np.uint8)


def _range(data: Data) -> float:
    """The end of the colour scale: the largest difference but for one pixel in a hundred."""
    every = np.abs([entry["difference"] for entry in data["errors"].values()])
    return max(float(np.ceil(np.quantile(every, 0.99))), 1.0)


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    grid = figure.subplots(2, 1 + len(COLUMNS))
    scale = Normalize(-_range(data), _range(data))
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    grid[0, 0].imshow(np.asarray(data["source"], dtype=np.uint8))
    grid[0, 0].set_title("source", fontsize=9)
    grid[1, 0].set_axis_off()
    for column, (name, title) in enumerate(COLUMNS.items(), start=1):
        entry = data["errors"][name]
        grid[0, column].imshow(np.asarray(data["pictures"][name], dtype=np.uint8))
        grid[0, column].set_title(title, fontsize=9)
        grid[1, column].imshow(np.asarray(entry["difference"]), cmap="PuOr", norm=scale)
        sizes = f"latent {100 * entry['latent']:.2g}%\npixels {entry['pixel']:.2g} / 255"
        grid[1, column].set_xlabel(sizes, fontsize=9)
    grid[0, 1].set_ylabel("reconstruction", fontsize=9)
    grid[1, 1].set_ylabel("minus source", fontsize=9)
    bar = figure.colorbar(ScalarMappable(scale, "PuOr"), ax=grid[:, 1:], shrink=0.8, extend="both", aspect=25)
    bar.set_label("difference in 1/255 of the range of a pixel,\nmean over colours", fontsize=9)
    return figure


def caption(data: Data) -> str:
    parts = ", ".join(
        f"{data['errors'][name]['latent']:.3g} ({title.replace(chr(10), ' ')})" for name, title in COLUMNS.items()
    )
    return (
        f"C3: a held-out frame of {data['clip']} inverted and sampled back by the trained UNet in {data['steps']} "
        "steps, and reconstruction minus source on one colour scale that is common to all. Relative error of the "
        f"latent: {parts}. Below each column also the root mean square over the frame's pixels and colours."
    )


def alt(data: Data) -> str:
    parts = "; ".join(
        f"{title.replace(chr(10), ' ')}: {data['errors'][name]['pixel']:.2g} of 255" for name, title in COLUMNS.items()
    )
    return f"A source frame, four reconstructions and their differences from it. Root mean square differences: {parts}."


def numbers(data: Data) -> Sequence[Number]:
    return tuple(
        Number(
            f"root mean square pixel error of a round trip, of 255, {title.replace(chr(10), ' ')}",
            data["errors"][name]["pixel"],
            "measured",
            "C3",
        )
        for name, title in COLUMNS.items()
    )


STUDY = Study(
    name="reconstruction",
    groups=("C3",),
    needs=("clip", "evidence"),
    settings=("device", "pipeline", "num_steps"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
