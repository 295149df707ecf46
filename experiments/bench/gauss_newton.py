"""Sharpness of the temporal loss of a real adapter: Gauss-Newton from one backward pass a residual, against Lanczos to 1 %."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, seconds_of

FRAMES = 4
TIMESTEP = 300
TOLERANCE = 0.01
TARGET = 5.0


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Seconds from parameters to sharpness, forward pass included, on the shipped UNet with LoRA and prompt tokens in float64.

    Lanczos is run on the Hessian, the sharpness proper, and on the Gauss-Newton matrix, which is the same quantity as the exact one; both from a
    random start, to a residual of 1 %. On the last layer alone (N - 2 residuals) and on all of the up blocks together.
    """
    import numpy as np
    import torch

    from experiments.editor import CLIPS, caption, load_clip, load_editor
    from experiments.editor.capture import select_layers
    from experiments.editor.spectrum import hessian_product, lanczos
    from experiments.editor.steps import gauss_newton_of, temporal_residuals

    editor = load_editor(dtype=torch.float64)
    frames = load_clip("carphone", "held_out", editor.frame_size)[:FRAMES]
    editor.add_adapter(seed=seed)
    editor.add_prompt_tokens(seed=seed)
    editor.set_frames(frames)
    generator = torch.Generator().manual_seed(seed)
    parameters = list(editor.adapter_parameters().values())
    with torch.no_grad():
        # B = 0 is a point where half of the gradient vanishes; an adapter in use is not there.
        for parameter in parameters:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    latents = editor.to_latents(frames)
    alpha = float(editor.alphas_cumprod[TIMESTEP])
    noisy = math.sqrt(alpha) * latents + math.sqrt(1 - alpha) * torch.randn(latents.shape, generator=generator, dtype=torch.float64)
    prompt = caption(CLIPS["carphone"].subject, "plain")
    start = np.random.default_rng(seed).normal(size=sum(parameter.numel() for parameter in parameters))
    layers = select_layers(editor.pipeline.unet)
    results: dict[str, Any] = {}
    for name, chosen in (("last layer", layers[-1:]), ("all up blocks", layers)):
        note(f"gauss_newton: {name}, {FRAMES} frames")

        def residuals(chosen=chosen) -> torch.Tensor:
            return temporal_residuals(editor.features(noisy, TIMESTEP, prompt, adapter=True, layers=chosen).values())

        def exact(residuals=residuals):
            return gauss_newton_of(residuals(), parameters)[0]

        def of_hessian(residuals=residuals):
            return lanczos(hessian_product(torch.mean(residuals() ** 2), parameters), start, tolerance=TOLERANCE)

        def of_gauss_newton(residuals=residuals):
            return lanczos(_gauss_newton_product(residuals(), parameters), start, tolerance=TOLERANCE)

        model, hessian, matrix = exact(), of_hessian(), of_gauss_newton()
        seconds = {"gauss_newton": seconds_of(exact), "lanczos_hessian": seconds_of(of_hessian), "lanczos_gauss_newton": seconds_of(of_gauss_newton)}
        results[name] = {
            "residuals": len(residuals()),
            "gauss_newton": model.sharpness,
            "lanczos_hessian": hessian.largest,
            "lanczos_gauss_newton": matrix.largest,
            "products": {"hessian": hessian.products, "gauss_newton": matrix.products},
            "seconds": seconds,
            "speedup": seconds["lanczos_hessian"] / seconds["gauss_newton"],
            "speedup_same_matrix": seconds["lanczos_gauss_newton"] / seconds["gauss_newton"],
        }
    results["target"] = TARGET
    return results


def _gauss_newton_product(residuals: Any, parameters: Sequence[Any]):
    """v -> (2/M) J^T J v without forming J: J v is the derivative of J^T w with respect to w."""
    import torch

    weights = torch.zeros_like(residuals, requires_grad=True)
    rows = torch.autograd.grad(residuals, parameters, weights, create_graph=True, allow_unused=True, materialize_grads=True)
    pulled = torch.cat([row.reshape(-1) for row in rows])

    def product(vector: Any) -> Any:
        (pushed,) = torch.autograd.grad(pulled, weights, torch.from_numpy(vector), retain_graph=True)
        back = torch.autograd.grad(residuals, parameters, pushed, retain_graph=True, allow_unused=True, materialize_grads=True)
        return 2 / len(pushed) * torch.cat([row.reshape(-1) for row in back]).numpy()

    return product


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"gauss_newton, {name}: {entry['gauss_newton']:.4g} in {entry['seconds']['gauss_newton']:.2f} s; Lanczos on the Hessian "
        f"{entry['lanczos_hessian']:.4g} in {entry['seconds']['lanczos_hessian']:.2f} s ({entry['speedup']:.1f} times, aim: {results['target']:g}), "
        f"on the Gauss-Newton matrix {entry['lanczos_gauss_newton']:.4g} in {entry['seconds']['lanczos_gauss_newton']:.2f} s "
        f"({entry['speedup_same_matrix']:.1f} times)"
        for name, entry in results.items()
        if isinstance(entry, dict)
    ]


BENCHMARK = Benchmark("gauss_newton", measure, lines)
