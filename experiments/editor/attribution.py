r"""What each step and each cause contributes to the error of a round trip, to first order, by one adjoint sweep.

With y = x / sqrt(abar), E_k = w_k - z_k and the defects d_k of an inversion z, E_k = E_{k+1} - h_k [e_{k+1}(w_{k+1}) -
e_{k+1}(z_{k+1})] - d_k. To first order in E, with J_k the Jacobian of e_k at z_k, and for any linear functional u,

    <u, E_0> ~ -sum_k <lambda_k, d_k>,    lambda_0 = u,    lambda_{k+1} = (I - h_k J_{k+1}^T) lambda_k.

One vector-Jacobian product a step, from the data end upwards, so one sweep gives the contribution of every step; a
defect that is a sum of causes splits the same way. Nothing of a step is kept but its numbers.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from experiments.editor.inversion import Ladder, PredictNoise
from theory.evidence import RoundTripRecord
from theory.inversion import noise_levels


def adjoint_sweep(
    predict: PredictNoise,
    record: RoundTripRecord,
    ladder: Ladder,
    functional: torch.Tensor,
    causes: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """First-order contributions of every step to <functional, E_0>.

    Args:
        predict: eps(latents, timestep), differentiable: the predictor that samples.
        record: whose inversion is swept over; only `inversion` is read, and the defects where causes are not given.
        ladder: of the record's number of steps.
        functional: of the shape and dtype of one level's latents; for any differentiable functional of E_0 its
            gradient.
        causes: name -> two predictions (num_steps, ...) whose difference g is a part of the defect, d_k = h_k sum g_k.
            The default is the whole, predictions_at_inversion less inversion_predictions, under the name "defect".
        progress: called with (steps done, num_steps).

    Returns:
        name -> (num_steps,) float64, -<lambda_k, h_k g_k>; k = 0 is the step nearest the data. Their sum over steps and
        causes is the first-order estimate of <functional, E_0>.

    Raises:
        ValueError: a record of another ladder; sizes that differ.
    """
    if not np.array_equal(record.alphas_cumprod, ladder.alphas_cumprod):
        raise ValueError(
            f"{record.label} has {len(record.alphas_cumprod) - 1} steps and the ladder {ladder.num_steps}, or other "
            "levels; make the ladder with the record's number of steps"
        )
    if causes is None:
        causes = {"defect": (record.predictions_at_inversion, record.inversion_predictions)}
    shape = record.inversion.shape[1:]
    for name, values, expected in [
        ("functional", functional, shape),
        *((f"cause {name!r}", values, (ladder.num_steps, *shape)) for name, pair in causes.items() for values in pair),
    ]:
        if tuple(values.shape) != tuple(expected):
            raise ValueError(f"{name} has shape {tuple(values.shape)}; {tuple(expected)} is needed")
    sigmas = noise_levels(record.alphas_cumprod)
    steps = np.diff(sigmas)
    weight = functional.detach().clone()
    found = {name: np.empty(ladder.num_steps) for name in causes}
    for step in range(ladder.num_steps):
        lengths = weight.cpu().numpy()
        for name, (more, less) in causes.items():
            found[name][step] = -steps[step] * float(np.vdot(lengths, more[step] - less[step]))
        # No step lies above the last one.
        if step < ladder.num_steps - 1:
            latents = torch.from_numpy(record.inversion[step + 1]).to(weight).requires_grad_(True)
            with torch.enable_grad():
                noise = predict(latents, int(ladder.timesteps[step + 1]))
                (pulled,) = torch.autograd.grad(noise, latents, weight)
            # eps is a function of x = y / sqrt(1 + sigma^2).
            weight = weight - steps[step] / np.sqrt(1 + sigmas[step + 1] ** 2) * pulled
        if progress is not None:
            progress(step + 1, ladder.num_steps)
    return found


def error_direction(record: RoundTripRecord) -> tuple[torch.Tensor, float]:
    """E_0 / ||E_0|| and ||E_0||: the functional that the error's own norm is.

    Raises:
        ValueError: the round trip has no error.
    """
    error = (record.sampling[0] - record.inversion[0]) / np.sqrt(record.alphas_cumprod[0])
    size = float(np.linalg.norm(error))
    if size == 0:
        raise ValueError(f"{record.label}: the round trip has no error, so its direction is undefined")
    return torch.from_numpy(error / size), size
