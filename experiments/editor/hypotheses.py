"""What the theorems on inversion ask of a predictor, looked for on the network at the states of a recorded round trip.

In the variables y = x / sqrt(abar), with e(y) = eps(y / sqrt(1 + sigma^2), t), h = sigma_{k+1} - sigma_k and J the
derivative of e at the inversion's state z_{k+1}, the theorems ask for ||(I - hJ) v|| and ||hJ v|| and <v, hJ v> over
all unit vectors v. A Krylov space of J gives directions in which they are extreme; the network is then evaluated at
states a thousandth of ||z|| away in these directions. So every number is one of two evaluations of the network: a pair
that violates a hypothesis violates it, and a pair that does not proves nothing.
"""

from collections.abc import Callable

import numpy as np
import torch

from theory.evidence import HypothesisRecord, RoundTripRecord
from theory.inversion import noise_levels

PredictNoise = Callable[[torch.Tensor, int], torch.Tensor]

PAIR_DISTANCE = 1e-3
"""Distance of the recorded pairs, in norms of the state."""
_SECANT_DISTANCE = 1e-6
"""The same of the pairs that build the Krylov space: 1e-6 is exact to curvature, and 1e-16 / 1e-6 to rounding."""


def measure_hypotheses(
    predict: PredictNoise,
    trip: RoundTripRecord,
    timesteps: np.ndarray,
    level: int,
    *,
    directions: int = 8,
    iterations: int = 4,
    seed: int = 0,
) -> HypothesisRecord:
    """Look for extreme pairs at one level, on the trip's first frame.

    Args:
        predict: eps(latents, timestep) of the first frame alone, the predictor that samples.
        trip: at least one frame, float64.
        timesteps: (num_steps + 1,) of each level.
        level: in 1 .. num_steps.
        directions: dimension of the Krylov space.
        iterations: of the fixed-point iteration, at least 1.
        seed: of its first vector.

    Raises:
        ValueError: a level that the trip does not have; fewer than 2 directions or 1 iteration.
    """
    num_steps = len(trip.alphas_cumprod) - 1
    if not 1 <= level <= num_steps:
        raise ValueError(f"level = {level}; the trip has the levels 1 to {num_steps} above its data")
    if directions < 2 or iterations < 1:
        raise ValueError(f"directions = {directions}, iterations = {iterations}; at least 2 and 1 are needed")
    sigmas = noise_levels(trip.alphas_cumprod)
    scales = np.sqrt(1 + sigmas**2)
    step, shape = sigmas[level] - sigmas[level - 1], trip.inversion[0, :1].shape

    def evaluate(state: np.ndarray) -> np.ndarray:
        latents = torch.from_numpy((state / scales[level]).reshape(shape))
        with torch.no_grad():
            return predict(latents, int(timesteps[level])).cpu().double().numpy().ravel()

    lower, state, sampled = (
        scales[at] * states[at, 0].ravel()
        for at, states in ((level - 1, trip.inversion), (level, trip.inversion), (level, trip.sampling))
    )
    here = trip.predictions_at_inversion[level - 1, 0].ravel()
    error, size = sampled - state, float(np.linalg.norm(state))

    def change(displacement: np.ndarray) -> np.ndarray:
        return evaluate(state + displacement) - here

    basis, images = _krylov(
        lambda vector: change(_SECANT_DISTANCE * size * vector) / (_SECANT_DISTANCE * size),
        np.random.default_rng(seed).standard_normal(state.size),
        directions,
    )
    extremes = PAIR_DISTANCE * size * _extreme_directions(basis, step * images)
    return HypothesisRecord(
        label=f"{trip.label}, level {level}",
        trip=trip.label,
        level=level,
        num_steps=num_steps,
        alphas_cumprod=np.asarray(trip.alphas_cumprod[level - 1 : level + 1]),
        state=state,
        displacements=extremes,
        changes=np.stack([change(displacement) for displacement in extremes]),
        error=error,
        half_error_change=change(error / 2) if error.any() else np.zeros_like(error),
        increments=_increments(evaluate, lower, state, here, scales[level] / scales[level - 1], step, iterations),
    )


def _krylov(apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal vectors of the Krylov space of a start, as columns, and their images; fewer where the space is
    exhausted."""
    basis, images = [start / np.linalg.norm(start)], []
    while True:
        images.append(apply(basis[-1]))
        if len(images) == count:
            break
        following = images[-1]
        for _ in range(2):  # once more, since one pass leaves rounding along the others
            for vector in basis:
                following = following - (vector @ following) * vector
        length = np.linalg.norm(following)
        if length <= 1e-12 * np.linalg.norm(images[-1]):
            break
        basis.append(following / length)
    return np.stack(basis, axis=1), np.stack(images, axis=1)


def _extreme_directions(basis: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Unit vectors of the space, in the order of theory.evidence.PAIR_DIRECTIONS; `images` are hJ times the basis."""
    kept = np.linalg.svd(basis - images, full_matrices=False)[2]
    steepest = np.linalg.svd(images, full_matrices=False)[2][0]
    compressed = basis.T @ images
    axes = np.linalg.eigh((compressed + compressed.T) / 2)[1]
    return np.stack([basis @ weights for weights in (kept[-1], kept[0], steepest, axes[:, 0], axes[:, -1])])


def _increments(
    evaluate: Callable[[np.ndarray], np.ndarray],
    lower: np.ndarray,
    state: np.ndarray,
    here: np.ndarray,
    ratio: float,
    step: float,
    iterations: int,
) -> np.ndarray:
    """||y^(j+1) - y^(j)|| from y^(0) = ratio * lower, the state that convention T evaluates; y^(1) is the inversion's
    own state."""
    iterates = [ratio * lower, state, lower + step * here]
    while len(iterates) <= iterations:
        iterates.append(lower + step * evaluate(iterates[-1]))
    return np.linalg.norm(np.diff(np.stack(iterates[: iterations + 1]), axis=0), axis=1)
