"""C2: when a step of gradient descent on the features lowers the temporal loss, and where descent ends."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLUE, BOUND, GREEN, GREY, ORANGE, PURPLE, SKY
from theory.descent.feature_descent import descend, exact_step_limit, steepest_frames, step_curvature
from theory.temporal_loss import instances, upper_curvature_constant

# eta C+_N / m^2; 2 is the limit of the theorem.
SCALED_STEPS = tuple(2.0**power for power in np.arange(-2, 16.25, 0.25))
CURVE_STEPS = (0.5, 1.9, 16.0, 256.0)
CURVE_LENGTH = 400
OFFSET = 1e-6
DIMENSION = 3


@jax.jit
def _change(frames: jax.Array, step_size: jax.Array) -> jax.Array:
    """[L(F - eta g) - L(F)] / (eta ||g||^2) = -1 + eta kappa / 2, in the form that does not cancel."""
    return -1 + step_size * step_curvature(frames, step_size) / 2


def _scaled_changes(frames: np.ndarray) -> list[float]:
    min_norm = float(np.min(np.linalg.norm(frames, axis=1)))
    unit = exact_step_limit(frames.shape[0], min_norm) / 2
    return [float(_change(jnp.asarray(frames), jnp.asarray(scaled * unit))) for scaled in SCALED_STEPS]


def _random_changes(num_frames: int, seed: int, count: int) -> np.ndarray:
    """(count, steps): the change of the loss for random starts, at every scaled step."""
    size = {"num_frames": num_frames, "dimension": DIMENSION}
    keys = jax.random.split(jax.random.key(seed), count)

    def one(key: jax.Array) -> jax.Array:
        start = instances.instance(instances.draw(key, **size), **size)
        unit = start["min_norm"] ** 2 / upper_curvature_constant(num_frames)
        return jax.vmap(lambda scaled: _change(start["frames"], scaled * unit))(jnp.asarray(SCALED_STEPS))

    return np.asarray(jax.jit(jax.vmap(one))(keys))


def _curve(frames: np.ndarray, scaled: float) -> list[float]:
    min_norm = float(np.min(np.linalg.norm(frames, axis=1)))
    unit = exact_step_limit(frames.shape[0], min_norm) / 2
    return [float(loss) for loss in descend(frames, scaled * unit, CURVE_LENGTH).losses]


def measure(context: Context) -> Data:
    """The first step from random, steepest and real starts over step sizes, and long runs from one real start."""
    settings, features = context.settings, context.inputs["features"]
    real = [record for record in features.values if not record["adapter"]]
    num_frames = features.arrays[real[0]["array"]].shape[0]
    total = len(real) + 2
    changes = []
    for done, record in enumerate(real, start=1):
        changes.append(_scaled_changes(features.arrays[record["array"]]))
        context.progress(done, total)
    random = _random_changes(num_frames, settings.seed, settings.study_instances)
    context.progress(len(real) + 1, total)
    # The start with the largest loss has the furthest to fall.
    start = max(real, key=lambda record: _loss(features.arrays[record["array"]]))
    frames = features.arrays[start["array"]]
    min_norm = float(np.min(np.linalg.norm(frames, axis=1)))
    measured = max(float(step_curvature(jnp.asarray(frames), jnp.asarray(1e-3 * min_norm**2))), 0.0)
    return {
        "num_frames": num_frames,
        "scaled_steps": list(SCALED_STEPS),
        "random": {
            name: [float(value) for value in np.quantile(random, level, axis=0)]
            for name, level in (("lowest", 0.0), ("median", 0.5), ("highest", 1.0))
        },
        "steepest": _scaled_changes(steepest_frames(num_frames, DIMENSION, OFFSET)),
        "real": changes,
        "start": {
            "layer": start["layer"],
            "timestep": start["timestep"],
            "min_norm": min_norm,
            "curvature_seen": measured,
        },
        "step_limit": exact_step_limit(num_frames, min_norm),
        "curves": {f"{scaled:g}": _curve(frames, scaled) for scaled in CURVE_STEPS},
        "least_positive_critical_value": 4 / (num_frames - 2) ** 2,
    }


def _loss(frames: np.ndarray) -> float:
    return float(descend(frames, 1.0, 0).losses[0])


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    steps = np.asarray(data["scaled_steps"])
    left.axhspan(0, 4, color=ORANGE, alpha=0.10, linewidth=0)
    left.axhline(0, color=GREY, linewidth=0.9)
    left.axvline(2, color=GREY, linewidth=0.9, linestyle=":")
    left.fill_between(
        steps,
        data["random"]["lowest"],
        data["random"]["highest"],
        color=SKY,
        alpha=0.35,
        linewidth=0,
        label="random starts",
    )
    left.plot(steps, data["random"]["median"], color=SKY, linewidth=1.2)
    for number, changes in enumerate(data["real"]):
        left.plot(steps, changes, color=BLUE, linewidth=0.8, alpha=0.7, label="real features" if number == 0 else None)
    left.plot(steps, -1 + steps / 2, color=BOUND, linestyle="--", label="bound", zorder=4)
    left.plot(
        steps, data["steepest"], color=PURPLE, marker="D", markersize=3.2, linewidth=0, label="steepest start", zorder=5
    )
    left.set_xscale("log", base=2)
    left.set_xticks([0.25, 2, 16, 128, 1024, 8192, 65536], ["1/4", "2", "16", "128", "1024", "8192", "65536"])
    left.set_xlim(steps[0], steps[-1])
    left.set_ylim(-1.15, 1.0)
    left.set_xlabel(r"scaled step $\eta\,C_N^+/m^2$  (no unit)")
    left.set_ylabel(r"$(L_1-L_0)\,/\,\eta\|\nabla L\|^2$  (no unit)")
    left.set_title("one step of descent")
    left.annotate("loss rises", (0.28, 0.93), color="#9a5b00", fontsize=8.5, va="top")
    left.annotate("loss falls", (0.28, -0.06), color=GREY, fontsize=8.5, va="top")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4)
    for (scaled, losses), colour in zip(
        sorted(data["curves"].items(), key=lambda item: float(item[0])), (BLUE, GREEN, ORANGE, PURPLE), strict=True
    ):
        right.plot(
            np.arange(len(losses)), np.maximum(losses, 1e-32), color=colour, label=rf"$\eta\,C_N^+/m^2 = {scaled}$"
        )
    right.set_xscale("symlog", linthresh=1, linscale=0.5)
    right.set_xlim(0, CURVE_LENGTH)
    right.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    right.set_yscale("log")
    right.axhline(data["least_positive_critical_value"], color=BOUND, linestyle="--", linewidth=1.4)
    right.annotate(
        r"$4/(N-2)^2$: only minima below",
        (0.98, data["least_positive_critical_value"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color=BOUND,
        fontsize=9,
    )
    right.set_xlabel("step")
    right.set_ylabel("temporal loss L (no unit)")
    right.set_title("descent from real features")
    right.legend(loc="lower left", fontsize=8.5)
    return figure


def _highest_safe(data: Data) -> float:
    """The largest scaled step at which no real start rises."""
    worst = np.max(np.asarray(data["real"]), axis=0)
    safe = [step for step, change in zip(data["scaled_steps"], worst, strict=True) if change <= 0]
    return max(safe, default=0.0)


def caption(data: Data) -> str:
    return (
        "C2: for eta < 2 m^2 / C+_N every step of descent on the features lowers the temporal loss, by at least eta "
        "(1 - eta C+_N / 2 m^2) times the squared gradient. Left: change of the loss in one step, N = "
        f"{data['num_frames']} frames; random starts (band: lowest to highest), real features (one line a layer and "
        "timestep), which tolerate far longer steps, and the steepest start, which lies on the bound; that crosses zero "
        "at 2. "
        f"Right: descent from the real features with the largest loss ({data['start']['layer']}, timestep "
        f"{data['start']['timestep']}); below the dashed line every critical point is a global minimum."
    )


def alt(data: Data) -> str:
    return (
        "Left panel: relative change of the loss in one step against the scaled step size; every start lies below "
        "the straight bound, which reaches zero at 2; the loss of the real features falls up to a scaled step of "
        f"{_highest_safe(data):.3g}. Right panel: loss against the number of steps for four step sizes."
    )


def numbers(data: Data) -> Sequence[Number]:
    start = data["start"]
    return (
        Number(
            f"step size below which the loss must fall, {start['layer']}, timestep {start['timestep']}",
            data["step_limit"],
            "proved",
            "C2",
        ),
        Number("curvature that a small step sees there", start["curvature_seen"], "measured", "C2"),
        Number("C+_N / m^2 there", 2 / data["step_limit"], "proved", "C2"),
        Number(
            "largest scaled step tried at which no real start rises (2 is proved)",
            _highest_safe(data),
            "measured",
            "C2",
        ),
        Number(
            f"temporal loss after {CURVE_LENGTH} steps at 1.9 m^2 / C+_N", data["curves"]["1.9"][-1], "measured", "C2"
        ),
        Number("temporal loss at the start of that run", data["curves"]["1.9"][0], "measured", "C2"),
    )


STUDY = Study(
    name="descent",
    groups=("C2",),
    needs=("features",),
    settings=("seed", "study_instances"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
