"""C2: gradient descent on a real adapter, where its loss stops falling, and how sharp it becomes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments.editor import load_editor
from experiments.editor.capture import captured_features
from experiments.editor.spectrum import Spectrum, hessian_product, lanczos
from experiments.editor.steps import MonotoneDescent, gauss_newton_of, temporal_residuals
from experiments.stages import ADAPTER_FILE, Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREEN, GREY, MARKERS, ORANGE, PURPLE, SKY
from theory.descent import certify_step
from theory.temporal_loss import certify_curvature

FRAMES = 4
TIMESTEP = 300
"""Of the fixed noise: in the middle of the shipped schedule, where the network denoises structure and not only texture."""
SHARES = {
    "temporal": (0.1, 0.25, 0.5, 0.95, 1.25, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    "full": (0.1, 0.25, 0.5, 0.95, 1.25, 1.5, 2.0, 4.0),
}
"""Learning rates of the sweeps over 2 / lambda_max at the start; past 4 until the loss rises."""
LONG_RUNS = (("temporal", 1.25), ("full", 0.5), ("full", 1.25))
CHECKS = 12
"""Times at most that the sharpness is measured in a long run."""
TOLERANCE = 0.02
SEGMENT = (0.0, 0.5, 1.0)
BLOW_UP = 1e6
"""A loss that has grown so much has diverged."""


class _Network:
    """The two objectives of the real adapter as functions of its parameters: one noise, one timestep, so nothing is random."""

    def __init__(self, context: Context) -> None:
        frames = context.inputs["clip"].arrays["frames"][:FRAMES]
        settings = context.settings
        self.editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
        self.editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
        self.editor.set_frames(frames)
        self.layer = context.inputs["adapter"].values["layers"][-1]
        self.prompt = context.inputs["clip"].values["source_prompt"]
        self.weight = settings.temporal_weight
        self.timestep = min(TIMESTEP, len(self.editor.alphas_cumprod) - 1)
        latents = self.editor.to_latents(frames)
        generator = torch.Generator().manual_seed(settings.seed)
        self.noise = torch.randn(latents.shape, generator=generator, dtype=torch.float64).to(latents.device)
        alpha = float(self.editor.alphas_cumprod[self.timestep])
        self.noisy = math.sqrt(alpha) * latents + math.sqrt(1 - alpha) * self.noise
        self.named = self.editor.adapter_parameters()
        self.parameters = list(self.named.values())
        self.start = torch.nn.utils.parameters_to_vector(self.parameters).detach().clone()

    def features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted noise and the captured features, attached to the graph."""
        with captured_features(self.editor.pipeline.unet, [self.layer]) as captured:
            predicted = self.editor.predict_noise(
                self.noisy, self.timestep, self.prompt, adapter=True, frame_indices=range(len(self.noisy))
            )
        return predicted, captured[self.layer]

    def residuals(self) -> torch.Tensor:
        return temporal_residuals([self.features()[1]])

    def temporal(self) -> torch.Tensor:
        return torch.mean(self.residuals() ** 2)

    def full(self) -> torch.Tensor:
        """Noise error + weight * temporal loss, the objective the adapter was trained under."""
        predicted, values = self.features()
        return torch.mean((predicted - self.noise) ** 2) + self.weight * torch.mean(temporal_residuals([values]) ** 2)

    def place(self, vector: torch.Tensor) -> None:
        with torch.no_grad():
            # The parameters become views of what they are set from, and descent moves them in place.
            torch.nn.utils.vector_to_parameters(vector.clone(), self.parameters)

    def where(self) -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(self.parameters).detach().clone()

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        rows = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([row.reshape(-1) for row in rows])


Objective = Callable[[], torch.Tensor]


def _spectrum(network: _Network, objective: Objective, start: np.ndarray, both_ends: bool = False) -> Spectrum:
    return lanczos(hessian_product(objective(), network.parameters), start, tolerance=TOLERANCE, both_ends=both_ends)


def _fixed(network: _Network, objective: Objective, step_size: float, num_steps: int, watch: Callable[[int], None] = lambda step: None) -> Data:
    """Plain gradient descent from the start. A loss that leaves every range ends the run and is recorded.

    Returns:
        losses (one more than steps taken), curvatures that the steps saw, the first step that raised the loss (or None), and the divergence.
    """
    network.place(network.start)
    losses, squares, diverged = [], [], None
    for step in range(num_steps + 1):
        watch(step)
        try:
            value = objective()
            loss, gradient = float(value.detach()), network.gradient(value)
        except ValueError:  # a frame whose norm is not finite has no similarity
            loss, gradient = math.inf, network.start
        squared = float(gradient @ gradient)
        if not (math.isfinite(loss) and math.isfinite(squared) and loss <= BLOW_UP * max(losses[0] if losses else loss, 1e-300)):
            diverged = {"step": step, "step_size": step_size}
            break
        losses.append(loss)
        if step < num_steps:
            squares.append(squared)
            network.place(network.where() - step_size * gradient)
    curvatures = [
        2 * (after - before + step_size * squared) / (step_size**2 * squared)
        for before, after, squared in zip(losses[:-1], losses[1:], squares, strict=False)
    ]
    rises = [index for index, (before, after) in enumerate(zip(losses[:-1], losses[1:], strict=True)) if after > before]
    return {
        "losses": losses,
        "curvatures": curvatures,
        "first_rise": rises[0] if rises else (diverged["step"] if diverged else None),
        "rises": rises,
        "diverged": diverged,
    }


def _watched(network: _Network, objective: Objective, step_size: float, num_steps: int, every: int, vector: np.ndarray) -> Data:
    """A long run with the sharpness, the Gauss-Newton sharpness and what is certified for its features every few steps."""
    checks: list[dict[str, Any]] = []

    def watch(step: int) -> None:
        nonlocal vector
        if step % every:
            return
        # A start near the last top eigenvector, with something of every other one.
        mixed = vector + 0.1 * np.random.default_rng(step).normal(size=vector.size) / math.sqrt(vector.size)
        try:
            spectrum = _spectrum(network, objective, mixed)
            values = network.residuals()
            model, _ = gauss_newton_of(values, network.parameters)
            frames = network.features()[1].detach()
        except ValueError:
            return
        vector = spectrum.vector
        checks.append(
            {
                "step": step,
                "sharpness": spectrum.largest,
                "sharpness_error": spectrum.largest_error,
                "gauss_newton": model.sharpness,
                "feature_curvature": certify_curvature(frames).upper,
                "feature_step": certify_step(frames).longest_step,
            }
        )

    return {**_fixed(network, objective, step_size, num_steps, watch), "checks": checks, "step_size": step_size}


def _segment(network: _Network, objective: Objective, step_size: float, vector: np.ndarray) -> Data:
    """The first step: the curvature it sees, and lambda_max at points of it."""
    network.place(network.start)
    loss = objective()
    gradient = network.gradient(loss)
    curvatures = []
    for share in SEGMENT:
        network.place(network.start - share * step_size * gradient)
        curvatures.append(_spectrum(network, objective, vector + 0.1 * np.random.default_rng(1).normal(size=vector.size) / math.sqrt(vector.size)).largest)
    squared = float(gradient @ gradient)
    network.place(network.start - step_size * gradient)
    change = float(objective().detach()) - float(loss.detach())
    return {
        "step_size": step_size,
        "sharpness": curvatures,
        "seen": 2 * (change + step_size * squared) / (step_size**2 * squared),
        "change": change / (step_size * squared),
    }


def _ruled(network: _Network, budget: int, **options: Any) -> Data:
    """A run of the rule until it has used so many passes through the network: losses after each step, and the passes so far."""
    network.place(network.start)
    descent = MonotoneDescent(network.named, **options)
    losses, passes, warrants = [], [], []
    while descent.passes.total < budget:
        step = descent.step()
        losses.append(step.loss)
        passes.append(descent.passes.total)
        warrants.append(str(step.warrant))
        if step.size == 0:
            break
    return {"losses": losses, "passes": passes, "warrants": sorted(set(warrants))}


def measure(context: Context) -> Data:
    """Sweeps of the learning rate on both objectives, two long runs, the rule against fixed rates, and the spectrum where it ends."""
    settings = context.settings
    network = _Network(context)
    random = np.random.default_rng(settings.seed).normal(size=network.start.numel())
    total, done = sum(map(len, SHARES.values())) + len(LONG_RUNS) + 4, 0

    def tick() -> None:
        nonlocal done
        done += 1
        context.progress(done, total)

    steps = settings.descent_steps
    objectives = {"temporal": network.temporal, "full": network.full}
    sweeps, spectra = {}, {}
    for name, objective in objectives.items():
        network.place(network.start)
        spectrum = spectra[name] = _spectrum(network, objective, random, both_ends=True)
        sweeps[name] = {"sharpness": spectrum.largest, "smallest": spectrum.smallest, "runs": []}
        for share in SHARES[name]:
            run = _fixed(network, objective, share * 2 / spectrum.largest, steps)
            sweeps[name]["runs"].append({"share": share, "step_size": share * 2 / spectrum.largest, **run})
            tick()
    network.place(network.start)
    model, _ = gauss_newton_of(network.residuals(), network.parameters)
    unit = 2 / spectra["temporal"].largest
    long_runs = []
    every = max(3, -(-settings.long_descent_steps // CHECKS))
    for name, share in LONG_RUNS:
        rate, vector = share * 2 / spectra[name].largest, spectra[name].vector
        run = _watched(network, objectives[name], rate, settings.long_descent_steps, every, vector)
        long_runs.append({"objective": name, "share": share, **run})
        tick()
    segment = _segment(network, network.temporal, 0.95 * unit, spectra["temporal"].vector)
    tick()
    budget = 2 * steps + 1
    rules = {
        "armijo": _ruled(network, budget, objective=network.temporal, learning_rate=unit / 2),
        "rule": _ruled(network, budget, residuals=network.residuals, sharpness_every=settings.sharpness_every),
    }
    tick()
    rules["long"] = _ruled(network, 3 * settings.long_descent_steps, residuals=network.residuals, sharpness_every=settings.sharpness_every)
    tick()
    squared = float(network.gradient(network.temporal()).square().sum())
    end = _spectrum(network, network.temporal, random, both_ends=True)
    tick()
    network.place(network.start)
    return {
        "frames": len(network.noisy),
        "layer": network.layer,
        "timestep": network.timestep,
        "num_parameters": network.start.numel(),
        "gauss_newton": {"sharpness": model.sharpness, "along_gradient": model.along_gradient, "loss": model.loss},
        "sweeps": sweeps,
        "long_runs": long_runs,
        "segment": segment,
        "rules": rules,
        "end": {
            "loss": rules["long"]["losses"][-1],
            "squared_gradient": squared,
            "largest": end.largest,
            "smallest": end.smallest,
            "smallest_error": end.smallest_error,
        },
    }


def _phase(axes: Any, sweep: Data, title: str) -> None:
    """Which steps raised the loss: one column a learning rate, one row a step."""
    runs = sweep["runs"]
    steps = max(len(run["losses"]) for run in runs) - 1
    cells = np.full((steps, len(runs)), 2.0)
    for column, run in enumerate(runs):
        taken = len(run["losses"]) - 1
        cells[:taken, column] = 0.0
        cells[run["rises"], column] = 1.0
    axes.pcolormesh(
        np.arange(len(runs) + 1) - 0.5, np.arange(steps + 1) + 0.5, cells, cmap=ListedColormap([SKY, ORANGE, BLACK]), vmin=0, vmax=2,
        edgecolors="white", linewidth=0.4,
    )
    axes.axvline(sum(run["share"] < 1 for run in runs) - 0.5, color=BOUND, linestyle="--", linewidth=1.6)
    axes.set_xticks(range(len(runs)), [f"{2 * run['share']:g}" for run in runs], fontsize=8)
    axes.set_yticks(sorted({1, (steps + 1) // 2, steps}))
    axes.set_xlabel(r"$\eta\,\lambda_{\max}(\theta_0)$  (no unit)")
    axes.set_ylabel("step")
    axes.set_title(title)
    axes.grid(False)


LABELS = {"temporal": "temporal loss", "full": "noise error + temporal loss"}


def _change(axes: Any, data: Data) -> None:
    scaled = np.geomspace(0.2, 128, 50)
    for name, colour, marker in zip(LABELS, (BLUE, GREEN), MARKERS, strict=False):
        sweep = data["sweeps"][name]
        moved = [(2 * run["share"], run["curvatures"][0] / sweep["sharpness"]) for run in sweep["runs"] if run["curvatures"]]
        axes.plot([x for x, _ in moved], [-1 + x * seen / 2 for x, seen in moved], color=colour, marker=marker, markersize=4, linewidth=1.1,
                  label=LABELS[name])
    axes.plot(scaled, -1 + scaled / 2, color=BOUND, linestyle="--", label=r"curvature $\lambda_{\max}(\theta_0)$ throughout")
    axes.axhline(0, color=GREY, linewidth=0.9)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.25, 1, 2, 4, 16, 64], ["1/4", "1", "2", "4", "16", "64"])
    axes.set_xlim(0.18, 140)
    axes.set_ylim(-1.08, 1.3)
    axes.set_xlabel(r"$\eta\,\lambda_{\max}(\theta_0)$  (no unit)")
    axes.set_ylabel(r"$(L_1-L_0)\,/\,\eta\|\nabla L\|^2$  (no unit)")
    axes.set_title("first step")
    axes.legend(loc="upper right", fontsize=7.5)


def _long_label(run: Data) -> str:
    name = "temporal" if run["objective"] == "temporal" else "noise + temporal"
    return rf"{name}, $\eta\lambda_{{\max}}(\theta_0)={2 * run['share']:g}$"


def _compare(axes: Any, data: Data) -> None:
    runs = data["sweeps"]["temporal"]["runs"]
    best = _best_fixed(data)
    for run in runs:
        chosen = run is best
        passes = 2 * np.arange(len(run["losses"])) + 1
        label = rf"best fixed rate, $\eta\lambda_{{\max}}={2 * run['share']:g}$" if chosen else ("other fixed rates" if run is runs[0] else None)
        axes.plot(passes, np.maximum(run["losses"], FLOOR), color=BLUE if chosen else GREY, linewidth=1.8 if chosen else 0.6, zorder=3 if chosen else 1,
                  label=label)
    for name, colour, marker, label in (("armijo", GREEN, "s", "Armijo backtracking"), ("rule", PURPLE, "o", "step-size rule")):
        run = data["rules"][name]
        axes.plot([1, *run["passes"]], np.maximum([runs[0]["losses"][0], *run["losses"]], FLOOR), color=colour, marker=marker, markersize=3.5, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("network passes, forward + backward")
    axes.set_ylabel("temporal loss L (no unit)")
    axes.set_title("loss for its price")
    axes.legend(loc="lower left", fontsize=7.5)


FLOOR = 1e-32
"""Losses below it are rounding of similarities; drawn at it."""


def _best_fixed(data: Data) -> Data:
    runs = [run for run in data["sweeps"]["temporal"]["runs"] if run["diverged"] is None]
    return min(runs, key=lambda run: run["losses"][-1])


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(12.4, 7.0), layout="constrained")
    (phase, loss, price), (other, sharp, change) = figure.subplots(2, 3, width_ratios=(1.1, 1, 1))
    _phase(phase, data["sweeps"]["temporal"], "temporal loss: falls (blue), rises (orange)")
    _phase(other, data["sweeps"]["full"], "noise error + temporal loss")
    # The noise error falls by a part and the temporal loss by orders of magnitude.
    inset = loss.inset_axes((0.56, 0.56, 0.42, 0.36))
    for run, colour, marker in zip(data["long_runs"], (BLUE, GREEN, PURPLE), MARKERS, strict=False):
        target = loss if run["objective"] == "temporal" else inset
        target.plot(np.maximum(np.asarray(run["losses"]) / run["losses"][0], FLOOR), color=colour)
        steps = [check["step"] for check in run["checks"]]
        scale = run["step_size"] / 2
        sharp.plot(steps, [check["sharpness"] * scale for check in run["checks"]], color=colour, marker=marker, markersize=4, label=_long_label(run))
        if run["objective"] == "temporal":
            sharp.plot(steps, [check["gauss_newton"] * scale for check in run["checks"]], color=colour, linestyle=":", label="temporal, Gauss-Newton")
    loss.set_yscale("log")
    loss.set_xlabel("step")
    loss.set_ylabel("loss over its start (no unit)")
    loss.set_title("long runs: loss")
    loss.annotate("temporal loss", (0.04, 0.06), xycoords="axes fraction", color=BLUE, fontsize=8.5)
    inset.set_title("noise error + temporal loss", fontsize=8)
    inset.tick_params(labelsize=7)
    sharp.axhline(1, color=BOUND, linestyle="--", linewidth=1.6)
    sharp.set_yscale("log")
    sharp.set_xlabel("step")
    sharp.set_ylabel(r"sharpness over $2/\eta$  (no unit)")
    sharp.set_title(r"long runs: sharpness against $2/\eta$")
    sharp.legend(loc="best", fontsize=7.5)
    _compare(price, data)
    _change(change, data)
    return figure


def _first_breaks(data: Data) -> dict[str, float | None]:
    """The least eta lambda_max(theta_0) of the sweep at which a step raised the loss, by objective; None where none did."""
    return {
        name: min((2 * run["share"] for run in sweep["runs"] if run["first_rise"] is not None), default=None)
        for name, sweep in data["sweeps"].items()
    }


def _breaking(value: float | None) -> str:
    return "no rate of the sweep" if value is None else f"{value:g}"


def _edge(data: Data) -> dict[str, float]:
    """Sharpness over 2 / eta at the last check of each long run."""
    return {
        f"{run['objective']} at {2 * run['share']:g}": run["checks"][-1]["sharpness"] * run["step_size"] / 2 for run in data["long_runs"] if run["checks"]
    }


def _edge_in_words(data: Data) -> str:
    """Where the sharpness of each long run started, how high it came and where it ended."""
    words = []
    for run in data["long_runs"]:
        ratios = [check["sharpness"] * run["step_size"] / 2 for check in run["checks"]]
        words.append(f"{LABELS[run['objective']]}: {ratios[0]:.2g} to {ratios[-1]:.2g}, at most {max(ratios):.2g}" if ratios else "no value")
    return "; ".join(words)


def caption(data: Data) -> str:
    breaks = _first_breaks(data)
    return (
        f"C2 on the real adapter: gradient descent in float64 on {data['num_parameters']} parameters of LoRA and prompt tokens, {data['frames']} frames, "
        f"fixed noise at timestep {data['timestep']}, features of {data['layer']}, from the trained adapter. Left: which steps raise the loss, by "
        "learning rate; black is after divergence; left of the dashed line eta < 2 / lambda_max at the start. A step is sure to descend where eta "
        "is below 2 over the largest curvature on its segment, and the gradient mostly sees less: the least rate at which the loss rises is "
        f"eta lambda_max = {_breaking(breaks['temporal'])} (temporal) and {_breaking(breaks['full'])} (with the noise error, whose curvature grows "
        f"on the way). Middle: long runs; below the dashed line the sharpness allows the step; {_edge_in_words(data)}. Right: loss against passes through the network (the price of the sweep that finds the best rate is not "
        "counted), and the change in the first step, under the line that constant curvature lambda_max would give."
    )


def alt(data: Data) -> str:
    edge = ", ".join(f"{name}: {value:.3g}" for name, value in _edge(data).items())
    return (
        "Six panels. Left: grids of steps by learning rate, coloured by whether the loss fell. Middle: loss and sharpness over 2/eta of three long "
        f"runs, at the last check {edge}. Right: loss against network passes for fixed rates, Armijo backtracking and the step-size rule, and the "
        "relative change of the first step below the line of constant curvature."
    )


def numbers(data: Data) -> Sequence[Number]:
    temporal, rules, end, segment = data["sweeps"]["temporal"], data["rules"], data["end"], data["segment"]
    breaks = _first_breaks(data)
    best = _best_fixed(data)
    start, last = data["long_runs"][0]["checks"][0], data["long_runs"][0]["checks"][-1]
    found = [
        Number("lambda_max of the temporal loss at the trained adapter (parameters)", temporal["sharpness"], "measured", "C2"),
        Number("its Gauss-Newton sharpness there, exact", data["gauss_newton"]["sharpness"], "measured", "C2"),
        Number("smallest Hessian eigenvalue there", temporal["smallest"], "measured", "C2"),
        Number("least eta lambda_max of the sweep at which the temporal loss rose", _breaking(breaks["temporal"]), "measured", "C2"),
        Number("least eta lambda_max of the sweep at which noise error + temporal loss rose", _breaking(breaks["full"]), "measured", "C2"),
        Number("largest lambda_max at three points of a step of 0.95 * 2 / lambda_max", max(segment["sharpness"]), "measured", "C2"),
        Number("curvature that this step saw", segment["seen"], "measured", "C2"),
        Number("step certified to lower the temporal loss of the features at the start (units of the features)", start["feature_step"], "certified", "C2"),
        Number("the same at the end of the long run", last["feature_step"], "certified", "C2"),
    ]
    found += [Number(f"sharpness over 2 / eta at the end of the long run, {name}", value, "measured", "C2") for name, value in _edge(data).items()]
    found += [
        Number(f"temporal loss after {2 * len(best['losses']) - 1} passes, best fixed rate (eta lambda_max = {2 * best['share']:g})", best["losses"][-1],
               "measured", "C2"),
        Number(f"temporal loss after {rules['armijo']['passes'][-1]} passes, Armijo backtracking", rules["armijo"]["losses"][-1], "measured", "C2"),
        Number(f"temporal loss after {rules['rule']['passes'][-1]} passes, step-size rule", rules["rule"]["losses"][-1], "measured", "C2"),
        Number("warrants that the rule gave", ", ".join(rules["rule"]["warrants"]), "measured", "C2"),
        Number("temporal loss where the long run of the rule ended", end["loss"], "measured", "C2"),
        Number("smallest Hessian eigenvalue there, over the largest", end["smallest"] / end["largest"], "measured", "C2"),
        Number("uncertainty of that ratio", end["smallest_error"] / end["largest"], "measured", "C2"),
    ]
    for name, label in LABELS.items():
        sweep = data["sweeps"][name]
        found += [
            Number(f"{label}: step at which eta = {run['step_size']:.3g} (eta lambda_max = {2 * run['share']:g}) diverged", run["diverged"]["step"],
                   "measured", "C2")
            for run in sweep["runs"]
            if run["diverged"]
        ]
    return tuple(found)


STUDY = Study(
    name="adapter_descent",
    groups=("C2",),
    needs=("clip", "adapter"),
    settings=("device", "pipeline", "seed", "temporal_weight", "descent_steps", "long_descent_steps", "sharpness_every"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
