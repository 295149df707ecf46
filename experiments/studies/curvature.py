"""C1: how far the curvature of the temporal loss lies below its sharp bound and below its certificate, from the worst
case to real features."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.stages import Context
from experiments.studies import Data, Number, Study
from experiments.studies.style import BLACK, BLUE, BOUND, GREEN, GREY, MARKERS, ORANGE, PURPLE, SKY, bound_line, spread
from theory import search
from theory.claim import attack, witness
from theory.temporal_loss.bounds import feature_bounds
from theory.temporal_loss.certificate import CurvatureCertificate, certify_curvature
from theory.temporal_loss.hessian import CLAIM
from theory.temporal_loss.instances import gradient, lanczos_extremes
from theory.temporal_loss.pixel_certificate import certify_pixels
from theory.temporal_loss.pixelwise import dead_pixels

SHOWN = 400
LAYER_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK, GREY)
LANCZOS_TOLERANCE = 1e-6
KIND_FRAMES, KIND_DIMENSION = 8, 512
DEAD_SHOWN = 3


def _gaussian(rng: np.random.Generator, dimension: int) -> np.ndarray:
    return rng.standard_normal((KIND_FRAMES, dimension))


def _smooth(rng: np.random.Generator, dimension: int) -> np.ndarray:
    """Waves of many phases and speeds around a mean: neighbouring frames at cosines from 0.9 to 1, as in a video."""
    time, phase, speed = (
        np.arange(KIND_FRAMES)[:, None],
        rng.uniform(0, 2 * np.pi, dimension),
        rng.uniform(0.05, 0.4, dimension),
    )
    return 1 + np.sin(speed * time + phase)


def _collinear(rng: np.random.Generator, dimension: int) -> np.ndarray:
    """One direction, random signs and lengths, and a part in a thousand of noise."""
    lengths = rng.choice([-1.0, 1.0], (KIND_FRAMES, 1)) * rng.uniform(1, 2, (KIND_FRAMES, 1))
    return lengths * rng.standard_normal(dimension) + 1e-3 * rng.standard_normal((KIND_FRAMES, dimension))


KINDS: Mapping[str, tuple[Callable[[np.random.Generator, int], np.ndarray], int]] = {
    "gaussian": (_gaussian, KIND_DIMENSION),
    "smooth": (_smooth, KIND_DIMENSION),
    "near-collinear": (_collinear, KIND_DIMENSION),
    "dimension 3": (_gaussian, 3),
    "dimension 2": (_gaussian, 2),
}
"""Kinds of features that the certificate is compared with the truth on, beside the network's."""


def _short(layer: str) -> str:
    """up_blocks.1.attentions.0.transformer_blocks.0.attn1 -> up 1.0"""
    parts = layer.split(".")
    side = parts[0].split("_")[0]
    return f"{side} " + ".".join(part for part in parts[1:4] if part.isdigit())


def _compare(features: np.ndarray, similarity: str, certificate: CurvatureCertificate) -> dict:
    """Gradient and extreme curvature of the temporal loss, measured, certified and bounded by the least norm."""
    found = lanczos_extremes(features, similarity=similarity, tolerance=LANCZOS_TOLERANCE)
    # Each end lies inside the spectrum; radial directions are null vectors, so 0 does as well.
    upper, lower = max(found.upper, 0.0), min(found.lower, 0.0)
    bounds = feature_bounds(features, similarity=similarity)
    return {
        "min_norm": bounds.min_norm,
        "gradient_norm": float(np.linalg.norm(np.asarray(gradient(jnp.asarray(features), similarity=similarity)))),
        "gradient_bound": bounds.gradient,
        "upper_curvature": upper,
        "hessian_norm": max(upper, -lower),
        "certified_upper": certificate.upper,
        "certified_norm": certificate.spectral,
        "gauss_newton": certificate.gauss_newton,
        "bound": bounds.hessian,
    }


def _compare_pixels(features: np.ndarray) -> dict:
    """The same per pixel; where a pixel is dead there is no loss, and the pixel is named instead."""
    dead = [list(place) for place in dead_pixels(features)]
    if dead:
        return {"dead": dead}
    certificates = certify_pixels(features)
    return {"dead": [], "worst": list(certificates.worst), **_compare(features, "pixel", certificates.whole)}


def _compare_kind(kind: str, seed: int) -> dict[str, float]:
    draw, dimension = KINDS[kind]
    features = draw(np.random.default_rng(seed), dimension)
    compared = _compare(features, "frame", certify_curvature(features))
    return {
        "norm": compared["certified_norm"] / compared["hessian_norm"],
        "upper": compared["certified_upper"] / compared["upper_curvature"],
    }


def measure(context: Context) -> Data:
    """Both ends of the Hessian's spectrum by Lanczos at every captured feature, frame by frame and pixel by pixel, with
    certificate and bound; the certificate's ratio to the truth by kind of features; the ratios of the searches of
    C1.hessian.
    """
    settings, features = context.settings, context.inputs["features"]
    records = []
    for done, record in enumerate(features.values, start=1):
        measured = {name: record[name] for name in ("layer", "timestep", "adapter", "training_step")}
        frames = features.arrays[record["array"]]
        measured |= _compare(frames, "frame", certify_curvature(frames))
        measured["pixel"] = None if record["pixels"] is None else _compare_pixels(features.arrays[record["pixels"]])
        records.append(measured)
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
        "kinds": {kind: _compare_kind(kind, settings.seed) for kind in KINDS},
        "random": sorted(float(ratio) for ratio in random),
        "attack": [outcome.ratio for outcome in attack(CLAIM, seed=settings.seed)],
        "witness": [outcome.ratio for outcome in witness(CLAIM)],
    }


def _ratio(record: dict, name: str) -> float:
    return record[name] / record["bound"]


def _frame_records(data: Data) -> list[dict]:
    return data["records"]


def _pixel_records(data: Data) -> list[dict]:
    """Per-pixel comparisons, with the layer, the timestep and the training step of their records; those with a dead
    pixel left out."""
    return [
        {**record, **record["pixel"]}
        for record in data["records"]
        if record["pixel"] is not None and not record["pixel"]["dead"]
    ]


def _dead(data: Data) -> list[str]:
    """Where pixels are dead: layer, frame, row and column of the first few."""
    return [
        f"{_short(record['layer'])}, timestep {record['timestep']}: frame {place[0]}, pixel ({place[1]}, {place[2]})"
        for record in data["records"]
        if record["pixel"] is not None
        for place in record["pixel"]["dead"]
    ]


def _draw_axis(axes: Axes, layers: Sequence[str], chosen: Sequence[dict], along: str) -> None:
    for layer, colour, marker in zip(layers, LAYER_COLOURS * 4, MARKERS * 4, strict=False):
        for adapter in (False, True):
            shown = [record for record in chosen if record["layer"] == layer and record["adapter"] == adapter]
            if not shown:
                continue
            positions = [record[along] for record in shown]
            hollow = adapter and along == "timestep"
            if not hollow:
                axes.plot(
                    positions,
                    [_ratio(record, "certified_norm") for record in shown],
                    color=colour,
                    linestyle=":",
                    linewidth=1.1,
                )
            axes.plot(
                positions,
                [_ratio(record, "hessian_norm") for record in shown],
                color=colour,
                marker=marker,
                markersize=4,
                linestyle="none" if hollow else "-",
                markerfacecolor="white" if hollow else colour,
                label=None if hollow else _short(layer),
                zorder=3 if hollow else 2,
            )


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, width_ratios=(1.2, 1.2, 1))
    layers = list(dict.fromkeys(record["layer"] for record in data["records"]))
    for row, (name, records) in enumerate((("frame", _frame_records(data)), ("pixel", _pixel_records(data)))):
        denoising = [record for record in records if record["training_step"] is None]
        training = [record for record in records if record["training_step"] is not None]
        _draw_axis(panels[row, 0], layers, denoising, "timestep")
        _draw_axis(panels[row, 1], layers, training, "training_step")
        scale = "C_N/m^2" if name == "frame" else "C_N/(P m^2)"
        panels[row, 0].set_ylabel(rf"$\|\nabla^2 L\|\,/\,({scale})$   (no unit)")
        panels[row, 0].set_title(f"per {name}, along the inversion", fontsize=10)
        panels[row, 1].set_title(f"per {name}, along training", fontsize=10)
        panels[row, 0].set_xlabel("timestep of the scheduler (0 = clean)")
        timesteps = sorted({record["timestep"] for record in training})
        panels[row, 1].set_xlabel(f"training step (at timestep {', '.join(map(str, timesteps))})")
    panels[0, 0].plot(
        [], [], color="black", linestyle="none", marker="o", markersize=4, markerfacecolor="white", label="adapter on"
    )
    panels[0, 0].plot([], [], color="black", linestyle=":", linewidth=1.1, label="certificate")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    frames = [_ratio(record, "hessian_norm") for record in _frame_records(data)]
    pixels = [_ratio(record, "hessian_norm") for record in _pixel_records(data)]
    floor = min(frames + pixels) / 3
    groups = (
        ("witness", data["witness"], BOUND),
        ("attack", data["attack"], ORANGE),
        ("random", data["random"], SKY),
        ("real,\nframe", frames, BLUE),
        ("real,\npixel", pixels, GREEN),
    )
    _draw_groups(panels[0, 2], groups, floor)
    _draw_kinds(panels[1, 2], data)
    for axes in (*panels[:, :2].flat, panels[0, 2]):
        bound_line(axes, y=1.0)
        axes.set_yscale("log")
        axes.set_ylim(floor * 0.8, 6)
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes, scale in ((panels[0, 0], "C_N/m^2"), (panels[1, 0], "C_N/(P m^2)")):
        axes.annotate(
            rf"sharp bound ${scale}$", (0.01, 1.25), xycoords=("axes fraction", "data"), color=BOUND, fontsize=8
        )
    return figure


def _draw_groups(axes: Axes, groups: Sequence[tuple[str, Sequence[float], str]], floor: float) -> None:
    for position, (_, ratios, colour) in enumerate(groups):
        if not ratios:
            continue
        chosen = np.unique(np.round(np.linspace(0, len(ratios) - 1, min(SHOWN, len(ratios)))).astype(int))
        values = np.clip(ratios, floor, None)[chosen]
        faint = len(values) > 30
        offsets = position + 0.6 * spread(len(values))
        axes.scatter(
            offsets, values, s=7 if faint else 22, color=colour, alpha=0.4 if faint else 0.9, linewidths=0, zorder=3
        )
    axes.set_xticks(range(len(groups)), [name for name, _, _ in groups], fontsize=7.5)
    axes.grid(axis="x", visible=False)
    axes.set_title("worst case to real", fontsize=10)


def _draw_kinds(axes: Axes, data: Data) -> None:
    entries = _slack_by_kind(data)
    for position, (least, most) in enumerate(entries.values()):
        axes.plot([position, position], [least, most], color=BLUE, marker="o", markersize=4, linewidth=2.2, zorder=3)
    bound_line(axes, y=1.0)
    axes.annotate("exact", (0.5, 1.0), xytext=(0, 3), textcoords="offset points", ha="center", color=BOUND, fontsize=8)
    axes.set_xticks(range(len(entries)), list(entries), rotation=38, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.grid(axis="x", visible=False)
    axes.set_title("certificate / measured norm", fontsize=10)


def _slack_by_kind(data: Data) -> dict[str, tuple[float, float]]:
    """Kind of features -> least and largest certificate over the measured norm."""
    entries = {kind: (ratios["norm"], ratios["norm"]) for kind, ratios in data["kinds"].items()}
    for name, records in (("real, frame", _frame_records(data)), ("real, pixel", _pixel_records(data))):
        slack = [record["certified_norm"] / record["hessian_norm"] for record in records if record["hessian_norm"] > 0]
        if slack:
            entries[name] = min(slack), max(slack)
    return entries


def _worst(data: Data) -> dict:
    return max(_frame_records(data), key=lambda record: _ratio(record, "hessian_norm"))


def _looseness(records: Sequence[dict]) -> tuple[float, float]:
    ratios = [1 / _ratio(record, "hessian_norm") for record in records if record["hessian_norm"] > 0]
    return min(ratios), max(ratios)


def caption(data: Data) -> str:
    frames, pixels, slack = _frame_records(data), _pixel_records(data), _slack_by_kind(data)
    least, most = _looseness(frames)
    words = (
        "C1: the Hessian of the temporal loss has norm at most C_N / m^2, m the least norm of a frame (per pixel: C_N "
        "/ (P m^2), m the least "
        "norm of a pixel's channels). Measured norm (Lanczos) over that bound at the self-attention features of the "
        "trained UNet, by layer, "
        "along the inversion (hollow: with the adapter) and, for one noisy clip, along the adapter's training; dotted: "
        "the certificate "
        f"computed from the same features. Frame by frame the bound is {least:.3g} to {most:.3g} times the measured "
        "norm, the certificate "
        f"{slack['real, frame'][0]:.4g} to {slack['real, frame'][1]:.4g} times"
    )
    if pixels:
        least, most = _looseness(pixels)
        words += (
            f"; pixel by pixel {least:.3g} to {most:.3g} times, and {slack['real, pixel'][0]:.4g} to "
            f"{slack['real, pixel'][1]:.4g} times"
        )
    words += (
        ". Top right: the bound is attained by the witness, and random instances (those below the axis are drawn at "
        "its edge) and adversarial "
        "search stay below it. Bottom right: certificate over measured norm by kind of features."
    )
    dead = _dead(data)
    if dead:
        count = "One pixel is dead and has" if len(dead) == 1 else f"{len(dead)} pixels are dead and have"
        words += f" {count} no per-pixel loss: {'; '.join(dead[:DEAD_SHOWN])}{', ..' if dead[DEAD_SHOWN:] else ''}."
    return words


def alt(data: Data) -> str:
    least, most = _looseness(_frame_records(data))
    return (
        "Five panels with the measured curvature divided by its sharp bound on a logarithmic axis, and one with its "
        "certificate. On real features, frame "
        f"by frame, the ratio to the bound lies between {1 / most:.2g} and {1 / least:.2g}; the witness reaches 1 and "
        "no random or "
        "adversarial instance exceeds it. The certificate is at most "
        f"{max(most for _, most in _slack_by_kind(data).values()):.2f} times the measured norm on every kind of "
        "features."
    )


def _spread_numbers(name: str, records: Sequence[dict], scale: str) -> list[Number]:
    least, most = _looseness(records)
    gradients = [
        record["gradient_bound"] / record["gradient_norm"] for record in records if record["gradient_norm"] > 0
    ]
    return [
        Number(f"{scale} over the measured norm, {name}, least", least, "measured", "C1"),
        Number(f"{scale} over the measured norm, {name}, most", most, "measured", "C1"),
        Number(f"bound on the gradient over the measured gradient, {name}, least", min(gradients), "measured", "C1"),
        Number(f"bound on the gradient over the measured gradient, {name}, most", max(gradients), "measured", "C1"),
    ]


def numbers(data: Data) -> Sequence[Number]:
    record, pixels = _worst(data), _pixel_records(data)
    where = f"{_short(record['layer'])}, timestep {record['timestep']}, adapter {'on' if record['adapter'] else 'off'}"
    found = [
        Number(
            f"norm of the Hessian where it comes closest to its bound ({where})",
            record["hessian_norm"],
            "measured",
            "C1",
        ),
        Number("C_N / m^2 there", record["bound"], "proved", "C1"),
        Number("certificate there", record["certified_norm"], "certified", "C1"),
        *_spread_numbers("frame by frame", _frame_records(data), "C_N / m^2"),
    ]
    if pixels:
        found += _spread_numbers("pixel by pixel", pixels, "C_N / (P m^2)")
    found += [
        Number(f"certificate over the measured norm, {kind}, most", most, "measured", "C1")
        for kind, (_, most) in _slack_by_kind(data).items()
    ]
    found += [
        Number(f"certificate over the largest eigenvalue, {kind}", ratios["upper"], "measured", "C1")
        for kind, ratios in data["kinds"].items()
    ]
    if _dead(data):
        found.append(Number("dead pixels", "; ".join(_dead(data)[:DEAD_SHOWN]), "measured", "C1"))
    return found


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
