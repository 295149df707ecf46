"""C1: how far the curvature of the temporal loss lies below its sharp bound, from the worst case to real features."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREEN, GREY, MARKERS, ORANGE, PURPLE, SKY, bound_line, spread
from theory import ladder, search
from theory.temporal_loss.certificate import certify_curvature
from theory.temporal_loss.hessian import CLAIM, hessian_constant
from theory.temporal_loss.instances import dense_hessian

SHOWN = 400
LAYER_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK, GREY)


def _short(layer: str) -> str:
    """up_blocks.1.attentions.0.transformer_blocks.0.attn1 -> up 1.0"""
    parts = layer.split(".")
    side = parts[0].split("_")[0]
    return f"{side} " + ".".join(part for part in parts[1:4] if part.isdigit())


@jax.jit
def _spectrum_ends(frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    eigenvalues = jnp.linalg.eigvalsh(dense_hessian(frames))
    return eigenvalues[0], eigenvalues[-1]


def _measure_record(record: dict, frames: np.ndarray) -> dict:
    low, high = (float(value) for value in _spectrum_ends(jnp.asarray(frames)))
    min_norm = float(np.min(np.linalg.norm(frames, axis=1)))
    certificate = certify_curvature(frames)
    return {
        "layer": record["layer"],
        "timestep": record["timestep"],
        "adapter": record["adapter"],
        "min_norm": min_norm,
        "hessian_norm": max(abs(low), abs(high)),
        "upper_curvature": max(high, 0.0),
        "certified_norm": float(certificate.spectral),
        "certified_upper": float(certificate.upper),
        "bound": hessian_constant(frames.shape[0]) / min_norm**2,
    }


def measure(context: Context) -> Data:
    """The whole spectrum of the Hessian at every captured feature, and the ratios of the searches of C1.hessian."""
    settings, features = context.settings, context.inputs["features"]
    records = []
    for done, record in enumerate(features.values, start=1):
        records.append(_measure_record(record, features.arrays[record["array"]]))
        context.progress(done, len(features.values) + 1)
    problem = CLAIM.problem
    random = np.concatenate(
        [
            np.divide(
                *search.evaluate(problem, size, search.draw(problem, size, settings.seed, settings.study_instances))
            )
            for size in problem.sizes
        ]
    )
    return {
        "num_frames": features.arrays[features.values[0]["array"]].shape[0],
        "records": records,
        "random": sorted(float(ratio) for ratio in random),
        "attack": [outcome.ratio for outcome in ladder.attack(CLAIM, seed=settings.seed)],
        "witness": [outcome.ratio for outcome in ladder.witness(CLAIM)],
    }


def _ratio(record: dict, name: str) -> float:
    return record[name] / record["bound"]


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(8.4, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.75, 1), sharey=True)
    layers = list(dict.fromkeys(record["layer"] for record in data["records"]))
    for layer, colour, marker in zip(layers, LAYER_COLOURS * 4, MARKERS * 4, strict=False):
        for adapter in (False, True):
            chosen = [record for record in data["records"] if record["layer"] == layer and record["adapter"] == adapter]
            steps = [record["timestep"] for record in chosen]
            if not adapter:
                left.plot(
                    steps,
                    [_ratio(record, "certified_norm") for record in chosen],
                    color=colour,
                    linestyle=":",
                    linewidth=1.1,
                )
            left.plot(
                steps,
                [_ratio(record, "hessian_norm") for record in chosen],
                color=colour,
                marker=marker,
                linestyle="none" if adapter else "-",
                markerfacecolor="white" if adapter else colour,
                label=None if adapter else _short(layer),
                zorder=3 if adapter else 2,
            )
    left.plot([], [], color="black", linestyle="none", marker="o", markerfacecolor="white", label="adapter on")
    left.plot([], [], color="black", linestyle=":", linewidth=1.1, label="certificate")
    left.set_xlabel("timestep of the scheduler (0 = clean)")
    left.set_ylabel(r"$\|\nabla^2 L\|\,/\,(C_N/m^2)$   (no unit)")
    left.set_title(f"trained UNet, {data['num_frames']} frames")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=min(len(layers) + 2, 6))
    real = [_ratio(record, "hessian_norm") for record in data["records"]]
    groups = (
        ("witness", data["witness"], BOUND),
        ("attack", data["attack"], ORANGE),
        ("random", data["random"], SKY),
        ("real", real, BLUE),
    )
    floor = min(real) / 3
    for position, (_, ratios, colour) in enumerate(groups):
        values = np.clip(ratios, floor, None)[
            np.unique(np.round(np.linspace(0, len(ratios) - 1, min(SHOWN, len(ratios)))).astype(int))
        ]
        faint = len(values) > 30
        right.scatter(
            position + 0.6 * spread(len(values)),
            values,
            s=7 if faint else 22,
            color=colour,
            alpha=0.4 if faint else 0.9,
            linewidths=0,
            zorder=3,
        )
    right.set_xticks(range(len(groups)), [name for name, _, _ in groups])
    right.grid(axis="x", visible=False)
    right.set_title("worst case to real")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        bound_line(axes, y=1.0)
    left.set_ylim(floor * 0.8, 6)
    left.annotate(r"sharp bound $C_N/m^2$", (0.01, 1.25), xycoords=("axes fraction", "data"), color=BOUND, fontsize=9)
    return figure


def _worst(data: Data) -> dict:
    return max(data["records"], key=lambda record: _ratio(record, "hessian_norm"))


def _looseness(data: Data) -> tuple[float, float]:
    ratios = [1 / _ratio(record, "hessian_norm") for record in data["records"]]
    return min(ratios), max(ratios)


def caption(data: Data) -> str:
    least, most = _looseness(data)
    slack = [record["certified_norm"] / record["hessian_norm"] for record in data["records"]]
    return (
        "C1: the Hessian of the temporal loss has norm at most C_N / m^2, m the least norm of a frame. Left: the "
        "measured norm over that bound, at the self-attention features of the trained UNet, by layer and timestep "
        "along the inversion (hollow: with the adapter; dotted: the certificate computed from the same features). "
        f"The bound is {least:.3g} to {most:.3g} times the measured norm there, the certificate {min(slack):.3g} to "
        f"{max(slack):.3g} times. Right: the bound is attained by the witness, and random instances (those below the "
        "axis are drawn at its edge) and adversarial search stay below it."
    )


def alt(data: Data) -> str:
    least, most = _looseness(data)
    return (
        "Two panels with the measured curvature divided by its sharp bound on a logarithmic axis. On real features "
        f"the ratio lies between {1 / most:.2g} and {1 / least:.2g}; the witness reaches 1 and no random or "
        "adversarial instance exceeds it."
    )


def numbers(data: Data) -> Sequence[Number]:
    record = _worst(data)
    least, most = _looseness(data)
    where = f"{_short(record['layer'])}, timestep {record['timestep']}, adapter {'on' if record['adapter'] else 'off'}"
    slack = [other["certified_norm"] / other["hessian_norm"] for other in data["records"]]
    return (
        Number(
            f"norm of the Hessian where it comes closest to its bound ({where})",
            record["hessian_norm"],
            "measured",
            "C1",
        ),
        Number("C_N / m^2 there", record["bound"], "proved", "C1"),
        Number("certificate there", record["certified_norm"], "certified", "C1"),
        Number("C_N / m^2 over the measured norm, least", least, "measured", "C1"),
        Number("C_N / m^2 over the measured norm, most", most, "measured", "C1"),
        Number("certificate over the measured norm, most", max(slack), "measured", "C1"),
    )


STUDY = Study(
    name="curvature",
    groups=("C1",),
    needs=("features",),
    settings=("seed", "study_instances"),
    measure=measure,
    draw=draw,
    caption=caption,
    alt=alt,
    numbers=numbers,
)
