"""C5: what trained prompt tokens reach, shared by all frames or one set a frame, beside what the theorems allow.

Two tasks, LoRA off. The look: the tokens, beside the source text, take over the cross-attention outputs that another
prompt gives (see `experiments.editor.token_fit`). The retrace: sampling back from an inversion of held-out frames,
without LoRA and with it in the tokens' place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.editor import Editor, load_editor
from experiments.editor.inversion import noise_ladder, sample_latents
from experiments.editor.token_fit import (
    FreeTokens,
    FrozenLayer,
    Retrace,
    fit,
    frozen_layers,
    least_errors,
    look_loss,
    relative_errors,
    retrace,
    sampled_sensitivity,
)
from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREEN, GREY, ORANGE

MODES = {"shared": (1, 0), "own": (0, 1), "both": (1, 1)}
"""Name -> how many shared tokens and how many of each frame's own there are for each token counted."""
TITLES = {"shared": "shared", "own": "frame-specific", "both": "as many of each"}
COLOURS = {"shared": BLUE, "own": ORANGE, "both": GREEN}
MARKS = {"shared": "o", "own": "s", "both": "^"}
LOOK_RATE, RETRACE_RATE, LORA_RATE = 0.3, 0.03, 1e-3
STEPS = 10
"""Of the inversion that the look's latents are the middle of, and that the retrace follows."""
RETRACE_FRAMES = 3


def _tokens(mode: str, count: int, num_frames: int, dim: int, seed: int) -> FreeTokens:
    shared, own = MODES[mode]
    return FreeTokens(num_shared=shared * count, num_own=own * count, num_frames=num_frames, dim=dim, seed=seed)


def _look(context: Context, editor: Editor, latents: torch.Tensor, step: Callable[[], None]) -> dict[str, Any]:
    """Fits every mode and count to the look; and each layer by itself, with the tokens at its disposal alone."""
    settings, clip = context.settings, context.inputs["clip"].values
    source, target = clip["source_prompt"], clip["target_prompt"]
    inversion = editor.invert(latents, source, num_steps=STEPS)
    level = STEPS // 2
    at_level, timestep = inversion.latents[level], int(inversion.timesteps[level])
    layers = frozen_layers(editor, at_level, timestep, source, target)
    text = editor.encode_prompt(source)
    single, single_text = [layer.to(torch.float32) for layer in layers], text.float()
    with torch.no_grad():
        wanted, start = (editor.predict_noise(at_level, timestep, prompt) for prompt in (target, source))
    fits: dict[str, dict[str, Any]] = {}
    for mode, (shared, own) in MODES.items():
        for count in settings.token_counts:
            tokens = _tokens(mode, count, len(latents), text.shape[2], settings.seed)
            made = fit(tokens, look_loss(single, single_text), steps=settings.token_steps, learning_rate=LOOK_RATE)
            with torch.no_grad():
                predicted = editor.pipeline.unet(at_level, timestep, encoder_hidden_states=tokens(text)).sample
            errors = relative_errors(layers, tokens, text)
            fits.setdefault(mode, {})[str(count)] = {
                "layers": errors,
                "error": float(np.sqrt(np.mean(np.square(errors)))),
                "start": float(np.sqrt(made.losses[0])),
                "bounds": least_errors(layers, (shared + own) * count, per_frame=own > 0),
                "prediction": float(torch.linalg.norm(predicted - wanted) / torch.linalg.norm(start - wanted)),
                "parameters": tokens.num_parameters,
            }
            step()
    return {
        "fits": fits,
        "alone": _alone(context, layers, single, text, step),
        "layers": [layer.name for layer in layers],
        "timestep": timestep,
        "sensitivity": sampled_sensitivity(editor, at_level, timestep, target),
    }


def _alone(
    context: Context,
    layers: Sequence[FrozenLayer],
    single: Sequence[FrozenLayer],
    text: torch.Tensor,
    step: Callable[[], None],
) -> dict[str, Any]:
    """Shared tokens fitted to one layer at a time: what having to serve all layers costs."""
    count, errors = max(context.settings.token_counts), []
    for layer, rounded in zip(layers, single, strict=True):
        tokens = _tokens("shared", count, len(layer.queries), text.shape[2], context.settings.seed)
        fit(tokens, look_loss([rounded], text.float()), steps=context.settings.token_steps, learning_rate=LOOK_RATE)
        errors += relative_errors([layer], tokens, text)
    step()
    return {"count": count, "errors": errors}


def _retrace(context: Context, editor: Editor, latents: torch.Tensor, step: Callable[[], None]) -> dict[str, Any]:
    """Fits every mode and count, and LoRA, to retrace the inversion; relative round-trip errors of the latents."""
    settings, prompt = context.settings, context.inputs["clip"].values["source_prompt"]
    goal, text, unet = retrace(editor, latents, prompt, STEPS), editor.encode_prompt(prompt), editor.pipeline.unet
    ladder = noise_ladder(editor.pipeline.scheduler, STEPS, editor.dtype)

    def error(predict: Callable[[torch.Tensor, int], torch.Tensor]) -> float:
        with torch.no_grad():
            result = sample_latents(predict, goal.latents[-1], ladder).latents[0]
        return float(torch.linalg.norm(result - latents) / torch.linalg.norm(latents))

    def with_tokens(tokens: FreeTokens) -> Callable[[torch.Tensor, int], torch.Tensor]:
        return lambda x, timestep: unet(x, timestep, encoder_hidden_states=tokens(text)).sample

    found: dict[str, Any] = {"off": error(lambda x, timestep: editor.predict_noise(x, timestep, prompt)), "fits": {}}
    for mode in MODES:
        for count in settings.token_counts:
            tokens = _tokens(mode, count, len(latents), text.shape[2], settings.seed)
            fit(
                tokens,
                lambda current, index: goal.loss(with_tokens(current), index),
                steps=settings.retrace_steps,
                learning_rate=RETRACE_RATE,
            )
            found["fits"].setdefault(mode, {})[str(count)] = {"error": error(with_tokens(tokens))}
            step()
    found["lora"] = _lora(editor, goal, prompt, settings.retrace_steps, settings.seed, error)
    step()
    return found


def _lora(
    editor: Editor, goal: Retrace, prompt: str, steps: int, seed: int, error: Callable[..., float]
) -> dict[str, Any]:
    editor.add_adapter(seed=seed)
    try:
        parameters = torch.nn.ParameterList(editor.adapter_parameters().values())

        def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
            return editor.predict_noise(x, timestep, prompt, adapter=True)

        fit(parameters, lambda _, index: goal.loss(predict, index), steps=steps, learning_rate=LORA_RATE)
        return {"error": error(predict), "parameters": sum(parameter.numel() for parameter in parameters)}
    finally:
        editor.remove_adapter()


def measure(context: Context) -> Data:
    """Both tasks on the clip's held-out frames."""
    settings, clip = context.settings, context.inputs["clip"]
    total, done = len(MODES) * len(settings.token_counts) * 2 + 2, 0

    def step() -> None:
        nonlocal done
        done += 1
        context.progress(done, total)

    frames = clip.arrays["frames"]
    exact = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    look = _look(context, exact, exact.to_latents(frames), step)
    rounded = load_editor(settings.pipeline, device=settings.device, dtype=torch.float32)
    return {
        "look": look,
        "retrace": _retrace(context, rounded, rounded.to_latents(frames[:RETRACE_FRAMES]), step),
        "counts": list(settings.token_counts),
        "clip": clip.values["name"],
        "source": clip.values["source_prompt"],
        "target": clip.values["target_prompt"],
        "frames": len(frames),
        "retrace_frames": min(RETRACE_FRAMES, len(frames)),
        "look_steps": settings.token_steps,
        "retrace_steps": settings.retrace_steps,
        "inversion_steps": STEPS,
    }


def _seen(data: Data, mode: str) -> list[int]:
    """How many learned tokens a frame sees, for each count."""
    return [sum(MODES[mode]) * count for count in data["counts"]]


def _entries(data: Data, task: str, mode: str) -> list[Mapping[str, Any]]:
    return [data[task]["fits"][mode][str(count)] for count in data["counts"]]


def _token_axis(axes: Axes, data: Data) -> None:
    places = sorted({count for mode in MODES for count in _seen(data, mode)})
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(count) for count in places])
    axes.set_xlabel("learned tokens that a frame sees")


def _bound_difference(data: Data) -> float:
    """Largest difference, over counts and layers, of the lower bounds for shared and for frame-specific tokens."""
    pairs = zip(_entries(data, "look", "shared"), _entries(data, "look", "own"), strict=True)
    return max(
        abs(first - second)
        for one, other in pairs
        for first, second in zip(one["bounds"], other["bounds"], strict=True)
    )


def _draw_look(axes: Axes, data: Data) -> None:
    for mode in MODES:
        entries = _entries(data, "look", mode)
        axes.plot(
            _seen(data, mode),
            [entry["error"] for entry in entries],
            MARKS[mode] + "-",
            color=COLOURS[mode],
            label=TITLES[mode],
        )
    bounds = [np.sqrt(np.mean(np.square(entry["bounds"]))) for entry in _entries(data, "look", "shared")]
    shown = [(count, bound) for count, bound in zip(data["counts"], bounds, strict=True) if bound > 1e-6]
    axes.plot(*zip(*shown, strict=True), "--", color=BOUND, label="least possible (C5.rank)")
    _token_axis(axes, data)
    axes.set_yscale("log")
    axes.set_ylabel("look left over, of 1")
    axes.set_title("cross-attention of the target look", fontsize=9)
    axes.legend(fontsize=7.5)


def _short(name: str) -> str:
    parts = name.split(".")
    return f"{parts[0].removesuffix('_blocks')}{parts[1]}.{parts[3]}" if parts[0] != "mid_block" else "mid"


def _draw_layers(axes: Axes, data: Data) -> None:
    names, places = [_short(name) for name in data["look"]["layers"]], np.arange(len(data["look"]["layers"]))
    fewest, most = str(min(data["counts"])), str(max(data["counts"]))
    fits = data["look"]["fits"]["shared"]
    axes.plot(places, fits[fewest]["layers"], "o", color=BLUE, label=f"{fewest} shared, all layers")
    axes.plot(
        places,
        fits[fewest]["bounds"],
        "_",
        color=BOUND,
        markersize=14,
        markeredgewidth=2,
        label=f"least possible with {fewest}",
    )
    axes.plot(places, fits[most]["layers"], "s", color=GREEN, label=f"{most} shared, all layers")
    axes.plot(places, data["look"]["alone"]["errors"], "x", color=BLACK, label=f"{most} shared, this layer alone")
    axes.set_yscale("log")
    axes.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("look left over, of 1")
    axes.set_title("layer by layer", fontsize=9)
    axes.legend(fontsize=7)


def _draw_retrace(axes: Axes, data: Data) -> None:
    for mode in MODES:
        entries = _entries(data, "retrace", mode)
        axes.plot(
            _seen(data, mode),
            [entry["error"] for entry in entries],
            MARKS[mode] + "-",
            color=COLOURS[mode],
            label=TITLES[mode],
        )
    axes.axhline(data["retrace"]["off"], color=GREY, linestyle=":", label="no adapter")
    axes.axhline(data["retrace"]["lora"]["error"], color=BLACK, linestyle="-.", label="LoRA, rank 4")
    _token_axis(axes, data)
    axes.set_ylabel("relative error of the round trip")
    axes.set_title(f"reconstruction, {data['inversion_steps']} steps", fontsize=9)
    axes.legend(fontsize=7.5)


def _draw_sensitivity(axes: Axes, data: Data) -> None:
    entries = data["look"]["sensitivity"]
    places = np.arange(len(entries))
    for shift, (part, colour, title) in zip(
        (-0.15, 0.15), (("inputs", BLUE, "input"), ("tokens", ORANGE, "tokens")), strict=True
    ):
        axes.plot(
            places + shift,
            [entry["certified"][part] for entry in entries],
            "_",
            color=colour,
            markersize=12,
            markeredgewidth=2,
        )
        axes.plot(
            places + shift, [entry["sampled"][part] for entry in entries], "o", color=colour, label=f"in the {title}"
        )
    axes.plot([], [], "_", color=GREY, markersize=12, markeredgewidth=2, label="certified (C5.sensitivity)")
    axes.set_yscale("log")
    axes.set_xticks(places, [_short(entry["layer"]) for entry in entries], rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("change of output per change")
    axes.set_title("sensitivity, largest sampled", fontsize=9)
    axes.legend(fontsize=7)


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, panel in zip(grid.flat, (_draw_look, _draw_layers, _draw_retrace, _draw_sensitivity), strict=True):
        panel(axes, data)
    return figure


def _best(data: Data, mode: str) -> float:
    return data["look"]["fits"][mode][str(max(data["counts"]))]["error"]


def _best_retrace(data: Data, mode: str) -> tuple[float, int]:
    """The least round-trip error of a mode, and at which count."""
    return min((data["retrace"]["fits"][mode][str(count)]["error"], count) for count in data["counts"])


def caption(data: Data) -> str:
    most = max(data["counts"])
    look, lora = data["look"], data["retrace"]["lora"]
    trips = ", ".join(f"{_best_retrace(data, mode)[0]:.3g} with {TITLES[mode]}" for mode in MODES)
    ratio = _best(data, "own") / _best(data, "shared")
    return (
        f"C5: prompt tokens of the trained UNet, fitted without LoRA to {data['frames']} held-out frames of "
        f"{data['clip']}. Above: the cross-attention outputs of “{data['target']}” over [tokens | "
        f"“{data['source']}”], root mean square over the layers of what is left after {data['look_steps']} steps, "
        f"against no tokens; with {most} tokens a frame's own ones leave {ratio:.3g} times what shared ones leave. One "
        "set of tokens serves all layers. The target is itself given by a text that all frames share, and the proved "
        f"lower bounds for shared and for own tokens differ by at most {_bound_difference(data):.1g} in any layer. "
        f"Below left: {data['retrace_frames']} frames inverted and sampled back in {data['inversion_steps']} steps "
        f"after {data['retrace_steps']} steps of fitting the inversion's predictions: {data['retrace']['off']:.3g} "
        f"without an adapter, {lora['error']:.3g} with LoRA ({lora['parameters']} numbers), least {trips}. Below "
        f"right: sensitivity of each layer at timestep {look['timestep']}, certified on the ball of the recorded inputs "
        "and tokens, and the largest one found there."
    )


def alt(data: Data) -> str:
    errors = "; ".join(
        f"{TITLES[mode]}: " + ", ".join(f"{entry['error']:.3g}" for entry in _entries(data, "look", mode))
        for mode in MODES
    )
    return (
        f"Four panels. Look left over for {', '.join(map(str, data['counts']))} tokens: {errors}. The same layer by "
        "layer. Error of the round "
        "trip with tokens, without an adapter and with LoRA. Certified and sampled sensitivity of each "
        "cross-attention layer."
    )


def numbers(data: Data) -> Sequence[Number]:
    most = max(data["counts"])
    found = [
        Number(f"look left over with {most} tokens, {TITLES[mode]}, of 1", _best(data, mode), "measured", "C5")
        for mode in MODES
    ]
    fewest = str(min(data["counts"]))
    bounds = data["look"]["fits"]["shared"][fewest]["bounds"]
    found.append(
        Number(
            f"least look left over in a layer with {fewest} shared token, largest over the layers",
            max(bounds),
            "proved",
            "C5",
        )
    )
    for mode in MODES:
        entry = data["look"]["fits"][mode][str(most)]
        found.append(Number(f"learned numbers of {most} tokens, {TITLES[mode]}", entry["parameters"], "measured", "C5"))
        found.append(
            Number(
                f"relative round-trip error, best of the {TITLES[mode]} tokens",
                _best_retrace(data, mode)[0],
                "measured",
                "C5",
            )
        )
    found.append(Number("learned numbers of LoRA, rank 4", data["retrace"]["lora"]["parameters"], "measured", "C5"))
    found.append(Number("relative round-trip error with LoRA", data["retrace"]["lora"]["error"], "measured", "C5"))
    found.append(Number("relative round-trip error without an adapter", data["retrace"]["off"], "measured", "C5"))
    gaps = [entry["certified"]["inputs"] / entry["sampled"]["inputs"] for entry in data["look"]["sensitivity"]]
    found.append(
        Number(
            "certified over sampled sensitivity in the inputs, least of the layers", float(min(gaps)), "measured", "C5"
        )
    )
    return tuple(found)


STUDY = Study(
    name="tokens",
    groups=("C5",),
    needs=("clip",),
    settings=("device", "pipeline", "seed", "token_counts", "token_steps", "retrace_steps"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
