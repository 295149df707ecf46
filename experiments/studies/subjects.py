"""What makes round trips in the studies beside the trained network: data fitted to the clip whose score is exact, and
the same network untrained. All go through the editor's inversion code and diffusers' schedulers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from experiments.editor import Editor
from experiments.editor.inversion import Ladder, PredictNoise
from theory.inversion import noise_levels
from theory.inversion.predictors import NoisePredictor, gaussian_predictor, mixture_predictor

GRAIN = 0.1
"""Standard deviation that every fitted density has beside the differences of the frames, in latent units."""


def frame_coordinates(latents: torch.Tensor) -> np.ndarray:
    """Frames rotated into as many dimensions as there are frames, (frames, at most frames).

    Neither their distances nor, for data that live in their span beside an isotropic grain, any round trip from it
    changes: an exact predictor never leaves the span.
    """
    left, sizes, _ = np.linalg.svd(latents.flatten(1).cpu().double().numpy(), full_matrices=False)
    return left * sizes


def fitted_gaussian(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the frames, with the grain's variance on every axis."""
    centred = coordinates - coordinates.mean(axis=0)
    covariance = centred.T @ centred / len(coordinates)
    return coordinates.mean(axis=0), (covariance + covariance.T) / 2 + GRAIN**2 * np.eye(coordinates.shape[1])


def clip_predictors(coordinates: np.ndarray) -> dict[str, NoisePredictor]:
    """The exact predictors of a Gaussian fitted to the frames, and of an even mixture with one component at each."""
    return {
        "Gaussian": gaussian_predictor(*fitted_gaussian(coordinates)),
        "mixture": mixture_predictor(np.ones(len(coordinates)), coordinates, GRAIN),
    }


def as_network(predictor: NoisePredictor, ladder: Ladder) -> PredictNoise:
    """An exact predictor as the editor's inversion code takes one: eps(x, t) = e(x sqrt(1 + sigma^2), sigma)."""
    sigmas = noise_levels(ladder.alphas_cumprod)
    level_of = {int(timestep): level for level, timestep in enumerate(ladder.timesteps)}
    batched: Callable = jax.jit(jax.vmap(predictor, in_axes=(0, None)))

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        sigma = sigmas[level_of[timestep]]
        states = jnp.asarray(latents.numpy() * np.sqrt(1 + sigma**2))
        return torch.from_numpy(np.array(batched(states, sigma)))

    return predict


def untrained(editor: Editor, prompt: str, seed: int) -> PredictNoise:
    """The editor's network with the weights it had before any training: drawn from the seed by the same class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(editor.pipeline.unet.config)
    # diffusers' own method warns about parts kept in float32 even where there are none, as here.
    torch.nn.Module.to(unet, editor.device, editor.dtype)
    unet.requires_grad_(False).eval()
    if editor.dtype == torch.float64:
        unet.set_attn_processor(AttnProcessor())
    with editor.adapters(False):
        context = editor.context(prompt, 1)
    return lambda latents, timestep: unet(
        latents, timestep, encoder_hidden_states=context.expand(len(latents), -1, -1)
    ).sample
