"""C4: what the bilateral filter across frames, and its monotone variant, do to a round trip and to an edit."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.editor import LOOKS, Editor, load_editor
from experiments.editor.bilateral import bilateral_filtering, filtered_layers
from experiments.editor.inversion import Ladder, PredictNoise, invert_latents, noise_ladder, sample_latents
from experiments.stages import TRACE_TIMESTEP, Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLUE, BOUND, GREEN, GREY, ORANGE, SKY, plain_number
from theory.bilateral import bilateral_filter, chunked_difference_bound, defect_bound, lipschitz_constant
from theory.temporal_loss import similarities, temporal_loss

FRAMES = 6
STEPS = 8
PUBLIC_SIGMA = 1.0
"""The range width of the public code."""

VARIANTS = ("none", "bilateral_public", "bilateral_narrow", "monotone_public", "monotone_narrow")
COLOURS = dict(zip(VARIANTS, (GREY, BLUE, SKY, ORANGE, GREEN), strict=True))
SHOWN = 3


def _settings(name: str, narrow: float) -> dict | None:
    """The filter's settings of a variant; None is no filter."""
    if name == "none":
        return None
    kind, width = name.split("_")
    return {"sigma_range": PUBLIC_SIGMA if width == "public" else narrow, "monotone": kind == "monotone"}


def _title(name: str, narrow: float) -> str:
    settings = _settings(name, narrow)
    if settings is None:
        return "no filter"
    return f"{'monotone' if settings['monotone'] else 'bilateral'}, {settings['sigma_range']:g}"


def _predictor(editor: Editor, prompt: str, settings: Mapping | None, count: Callable[[], None]) -> PredictNoise:
    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        filtering = nullcontext()
        if settings is not None:
            filtering = bilateral_filtering(editor.pipeline.unet, num_frames=len(latents), **settings)
        with torch.no_grad(), filtering:
            found = editor.predict_noise(latents, timestep, prompt)
        count()
        return found

    return predict


def _relative(measured: torch.Tensor, exact: torch.Tensor) -> float:
    return float((measured - exact).norm() / exact.norm())


def _rounded_down(value: float) -> float:
    """To one significant digit."""
    unit = 10.0 ** np.floor(np.log10(value))
    return float(f"{np.floor(value / unit) * unit:.1g}")


def _range_of_features(features: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Over how much an entry ranges in a window of 5 frames, over all entries, windows and layers."""
    windows = [
        (values[start : start + 5].amax(0) - values[start : start + 5].amin(0)).flatten()
        for values in features.values()
        for start in range(max(1, len(values) - 4))
    ]
    every = torch.cat(windows).cpu().numpy()
    return {name: float(np.quantile(every, share)) for name, share in (("half", 0.5), ("most", 0.99), ("all", 1.0))}


def _filter_effect(values: torch.Tensor, settings: Mapping) -> dict[str, float]:
    """The largest change of a feature by the filter, and what filtering in two pieces changes, beside their bounds."""
    filtered = bilateral_filter(values, **settings)
    found = {
        "change": float((filtered - values).abs().max()),
        "change_bound": float(defect_bound(settings["sigma_range"], monotone=settings["monotone"])),
        "rms_change": float((filtered - values).square().mean().sqrt()),
    }
    if len(values) >= 6 and not settings["monotone"]:
        middle = len(values) // 2
        pieces = torch.cat([bilateral_filter(part, **settings) for part in (values[:middle], values[middle:])])
        found["cut"] = float((filtered - pieces).abs().max())
        found["cut_bound"] = float(chunked_difference_bound(settings["sigma_range"]))
    return found


def _trips(
    editor: Editor,
    latents: torch.Tensor,
    prompts: tuple[str, str],
    ladder: Ladder,
    settings: Mapping | None,
    plain,
    count,
):
    """Round trip with the filter both ways and in the inversion alone, and the edit with it both ways.

    Returns:
        What the two round trips, and the edit, end at.
    """
    source = _predictor(editor, prompts[0], settings, count)
    noise = invert_latents(source, latents, ladder).latents[-1]
    edited = sample_latents(_predictor(editor, prompts[1], settings, count), noise, ladder).latents[0]
    back = {"both_ways": sample_latents(source, noise, ladder).latents[0]}
    if settings is not None:
        back["inversion_alone"] = sample_latents(plain, noise, ladder).latents[0]
    return back, edited


def measure(context: Context) -> Data:
    """Round trips and edits of some frames of the clip by the base network, without and with the filters."""
    settings, clip = context.settings, context.inputs["clip"]
    frames = clip.arrays["frames"][:FRAMES]
    prompts = clip.values["source_prompt"], clip.values["target_prompt"]
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    ladder = noise_ladder(editor.pipeline.scheduler, STEPS, torch.float64)
    latents, layers = editor.to_latents(frames), filtered_layers(editor.pipeline.unet)
    total, done = 3 * STEPS * len(VARIANTS) + STEPS * (len(VARIANTS) - 1), 0

    def count() -> None:
        nonlocal done
        done += 1
        context.progress(done, total)

    with torch.no_grad():
        clean = editor.features(latents, TRACE_TIMESTEP, prompts[0], layers=layers)
    ranges = _range_of_features(clean)
    narrow = _rounded_down(ranges["half"])
    true_look = None
    if settings.video is None and settings.target_prompt is None:
        true_look = editor.to_latents(np.clip(LOOKS[settings.look](frames), 0, 1))
    plain = _predictor(editor, prompts[0], None, count)
    found, pictures, unfiltered = {}, {"source": _as_bytes(frames)}, latents
    if true_look is not None:
        pictures["true_look"] = _as_bytes(editor.to_frames(true_look))
    for name in VARIANTS:
        chosen = _settings(name, narrow)
        back, edited = _trips(editor, latents, prompts, ladder, chosen, plain, count)
        unfiltered = back["both_ways"] if name == "none" else unfiltered
        with torch.no_grad():
            seen = editor.features(edited, TRACE_TIMESTEP, prompts[1], layers=layers[-1:])[layers[-1]]
        found[name] = {
            "errors": {way: _relative(latent, latents) for way, latent in back.items()},
            "moved": {way: _relative(latent, unfiltered) for way, latent in back.items()},
            "edit_error": None if true_look is None else _relative(edited, true_look),
            "temporal_loss": float(temporal_loss(seen)),
            "mean_cosine": float(similarities(seen).mean()),
            "effect": None if chosen is None else _filter_effect(clean[layers[0]], chosen),
        }
        pictures[name] = _as_bytes(editor.to_frames(edited))
    return {
        "clip": clip.values["name"],
        "prompts": list(prompts),
        "steps": STEPS,
        "num_frames": len(frames),
        "layers": layers,
        "sigmas": {"public": PUBLIC_SIGMA, "narrow": narrow},
        "feature_range": ranges,
        "lipschitz_constant": lipschitz_constant(),
        "variants": found,
        "pictures": {name: shown.tolist() for name, shown in pictures.items()},
    }


def _as_bytes(frames: np.ndarray) -> np.ndarray:
    chosen = np.unique(np.round(np.linspace(0, len(frames) - 1, SHOWN)).astype(int))
    return np.round(255 * frames[chosen]).astype(np.uint8)


def _bars(axes: Axes, data: Data, values: Mapping[str, float], title: str) -> None:
    narrow, places = data["sigmas"]["narrow"], np.arange(len(values))[::-1]
    bars = axes.barh(places, list(values.values()), color=[COLOURS[name] for name in values], height=0.7)
    axes.bar_label(bars, labels=[plain_number(value, 3) for value in values.values()], padding=2, fontsize=8)
    axes.set_yticks(places, [_title(name, narrow) for name in values])
    axes.set_title(title, fontsize=9.5)
    axes.margins(x=0.3)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=3)
    axes.ticklabel_format(axis="x", scilimits=(-3, 4))


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    top, bottom = figure.add_gridspec(2, 1, height_ratios=(2.9, 4.4))
    order = [name for name in ("source", "true_look", *VARIANTS) if name in data["pictures"]]
    names = {"source": "source", "true_look": "true look"}
    strips = top.subgridspec(SHOWN, len(order), wspace=0.03, hspace=0.03)
    for column, name in enumerate(order):
        for row, picture in enumerate(data["pictures"][name]):
            axes = figure.add_subplot(strips[row, column])
            axes.imshow(np.asarray(picture, dtype=np.uint8))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if row == 0:
                title = names.get(name) or _title(name, data["sigmas"]["narrow"]).replace(", ", ",\n")
                axes.set_title(title, fontsize=8.5, fontweight="normal", loc="center", pad=3)
    panels = bottom.subgridspec(3, 2)
    axes = [figure.add_subplot(panels[row, column]) for row in range(3) for column in range(2)]
    variants = data["variants"]
    _bars(
        axes[0],
        data,
        {name: variants[name]["errors"]["both_ways"] for name in VARIANTS},
        "error of the round trip, filter both ways",
    )
    alone = {name: variants[name]["moved"]["inversion_alone"] for name in VARIANTS[1:]}
    _bars(axes[1], data, alone, "moved by a filter in the inversion alone")
    _bars(axes[2], data, {name: variants[name]["temporal_loss"] for name in VARIANTS}, "temporal loss of the edit")
    _bars(axes[3], data, {name: 1 - variants[name]["mean_cosine"] for name in VARIANTS}, "1 - mean cosine of the edit")
    if variants["none"]["edit_error"] is None:
        axes[4].set_axis_off()
    else:
        _bars(
            axes[4],
            data,
            {name: variants[name]["edit_error"] for name in VARIANTS},
            "distance of the edit from the true look",
        )
    effects = {name: variants[name]["effect"] for name in VARIANTS[1:]}
    _bars(axes[5], data, {name: effect["change"] for name, effect in effects.items()}, "largest change of a feature")
    bounds = [effect["change_bound"] for effect in effects.values()]
    places = np.arange(len(bounds))[::-1]
    axes[5].plot(bounds, places, marker="|", linestyle="none", color=BOUND, markersize=14, markeredgewidth=2)
    axes[5].set_xscale("log")
    axes[5].margins(x=0.3)
    return figure


def caption(data: Data) -> str:
    variants, narrow, public = data["variants"], data["sigmas"]["narrow"], data["sigmas"]["public"]
    ranges = data["feature_range"]
    trips = ", ".join(f"{variants[name]['errors']['both_ways']:.3g} ({_title(name, narrow)})" for name in VARIANTS)
    within = "all stay within" if ranges["all"] <= public else "some range over more than"
    return (
        f"C4: {data['num_frames']} held-out frames of {data['clip']} inverted and sampled back, or edited to "
        f'"{data["prompts"][1]}", by the trained UNet without adapter in {data["steps"]} steps; the outputs of '
        f"{len(data['layers'])} self-attentions of its last up block filtered along the frames. Titles name filter and "
        f"sigma_range. In a window of 5 frames half of these features range over less than {ranges['half']:.2g}, 99 of "
        f"100 over less than {ranges['most']:.2g}, and one over {ranges['all']:.2g}: {within} the public code's "
        f"sigma_range of {public:g}. Relative round-trip error, filter both ways: {trips}; beside it, how far a filter "
        "in the inversion alone moves the reconstruction, relative to it. Temporal loss and cosines are those of the "
        "edit as the network without filter sees it. Below on the right the first filtered layer's largest change and, "
        "in red, what it can be at most (proved): 0.506 sigma_range, for the monotone filter 0.597 sigma_range. On "
        "round trip and edit there is no bound to draw, because the network's Lipschitz constants in the maximum norm "
        "are not known."
    )


def alt(data: Data) -> str:
    narrow = data["sigmas"]["narrow"]
    parts = "; ".join(
        f"{_title(name, narrow)}: round trip {entry['errors']['both_ways']:.2g}, "
        f"temporal loss {entry['temporal_loss']:.2g}"
        for name, entry in ((name, data["variants"][name]) for name in VARIANTS)
    )
    return f"Frames of an edit without and with filters across frames, above bars that compare them. {parts}."


def _variant_numbers(title: str, entry: Mapping) -> list[Number]:
    errors = entry["errors"]
    found = [Number(f"relative round-trip error, {title} both ways", errors["both_ways"], "measured", "C4")]
    if "inversion_alone" in errors:
        words = f"{title} in the inversion alone"
        found.append(Number(f"relative round-trip error, {words}", errors["inversion_alone"], "measured", "C4"))
        found.append(
            Number(
                f"relative change of the reconstruction by {words}", entry["moved"]["inversion_alone"], "measured", "C4"
            )
        )
    found.append(Number(f"temporal loss of the edit, {title}", entry["temporal_loss"], "measured", "C4"))
    found.append(
        Number(f"mean cosine of the edit's neighbouring frames, {title}", entry["mean_cosine"], "measured", "C4")
    )
    if entry["edit_error"] is not None:
        found.append(
            Number(f"relative distance of the edit from the true look, {title}", entry["edit_error"], "measured", "C4")
        )
    effect = entry["effect"] or {}
    for name, words in (
        ("change", "largest change of a feature"),
        ("cut", "largest effect of filtering in two pieces"),
    ):
        if name in effect:
            found.append(Number(f"{words}, {title}", effect[name], "measured", "C4"))
            found.append(Number(f"{words} at most, {title}", effect[f"{name}_bound"], "proved", "C4"))
    return found


def numbers(data: Data) -> Sequence[Number]:
    ranges = data["feature_range"]
    found = [
        Number("range of a filtered layer's feature in a window of 5 frames, median", ranges["half"], "measured", "C4"),
        Number("range of a filtered layer's feature in a window of 5 frames, largest", ranges["all"], "measured", "C4"),
        Number("Lipschitz constant of the filter in the maximum norm", data["lipschitz_constant"], "proved", "C4"),
    ]
    for name in VARIANTS:
        found += _variant_numbers(_title(name, data["sigmas"]["narrow"]), data["variants"][name])
    return found


STUDY = Study(
    name="bilateral",
    groups=("C4",),
    needs=("clip",),
    settings=("device", "pipeline", "look", "target_prompt", "video"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
