r"""DDIM inversion and sampling on one ladder of noise levels, by diffusers' schedulers.

Level 0 is the data end, level N = num_steps the noise end. With a_k = sqrt(abar_k), b_k = sqrt(1 - abar_k), abar_k
the value of alphas_cumprod at level k and t_k its timestep, both directions move along the same line (DDIM with eta =
0, formula (12) of arXiv 2010.02502):

    sampling   x_k     = a_k (x_{k+1} - b_{k+1} eps) / a_{k+1} + b_k eps,       eps = eps(x_{k+1}, t_{k+1})
    inversion  x_{k+1} = a_{k+1} (x_k - b_k eps) / a_k + b_{k+1} eps,           eps = eps(x_k, t_{k+1})

so for one and the same eps they undo each other. What differs is where eps is evaluated: the inversion has x_{k+1}
not yet, and takes x_k with the timestep of the upper level. A fixed-point iteration replaces eps by eps(x_{k+1},
t_{k+1}) at the x_{k+1} last found; where it converges, sampling retraces the inversion.

diffusers keeps alphas_cumprod in float32. Those numbers are the schedule; in float64 they are only promoted, so that
the square roots are those of the stated values to float64 rounding. In other dtypes diffusers' own tables are used
untouched.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

CLEAN_TIMESTEP = -1

PredictNoise = Callable[[torch.Tensor, int], torch.Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Trajectory:
    """One inversion or one sampling. In both, index 0 is the data end and index num_steps the noise end.

    Attributes:
        latents: (num_steps + 1, frames, channels, height, width) the latents at each level.
        predictions: (num_steps, frames, channels, height, width) the eps used by the step between levels k and k + 1.
        timesteps: (num_steps + 1,) int64 the timestep of each level; -1 at level 0, which is the scheduler's final
            alpha.
        alphas_cumprod: (num_steps + 1,) float64 the scheduler's value at each level, decreasing.
    """

    latents: torch.Tensor
    predictions: torch.Tensor
    timesteps: np.ndarray
    alphas_cumprod: np.ndarray

    @property
    def num_steps(self) -> int:
        """The number of steps, one less than the number of levels."""
        return len(self.predictions)


@dataclass(frozen=True)
class Ladder:
    """The noise levels of a number of steps and the two schedulers that step between them.

    Attributes:
        sampler, inverter: diffusers' schedulers, set to the same levels.
        timesteps: (num_steps + 1,) int64, -1 at level 0.
        alphas_cumprod: (num_steps + 1,) float64, decreasing.
    """

    sampler: DDIMScheduler
    inverter: DDIMInverseScheduler
    timesteps: np.ndarray
    alphas_cumprod: np.ndarray

    @property
    def num_steps(self) -> int:
        """The number of steps, one less than the number of levels."""
        return len(self.timesteps) - 1

    def step_down(self, eps: torch.Tensor, level: int, latents: torch.Tensor) -> torch.Tensor:
        """The sampling step from level + 1 to level."""
        return self.sampler.step(eps, int(self.timesteps[level + 1]), latents, eta=0.0).prev_sample

    def step_up(self, eps: torch.Tensor, level: int, latents: torch.Tensor) -> torch.Tensor:
        """The inversion step from level to level + 1."""
        return self.inverter.step(eps, int(self.timesteps[level + 1]), latents).prev_sample


def check_scheduler(scheduler: DDIMScheduler) -> None:
    """Refuses a scheduler whose sampling steps diffusers' inverse scheduler does not undo.

    Raises:
        ValueError: another class than DDIMScheduler; clip_sample or thresholding on (a clipped step has no inverse); a
            prediction type other than epsilon (the pair converts "v_prediction" and "sample" at different levels);
            linspace spacing (the inverse scheduler has none); a table that is not the one its configuration
            describes, or that is not strictly between 0 and 1 and decreasing.
    """
    if not isinstance(scheduler, DDIMScheduler):
        raise ValueError(
            f"the scheduler is a {type(scheduler).__name__}; inversion needs a DDIMScheduler:"
            " use DDIMScheduler.from_config(scheduler.config, clip_sample=False)"
        )
    config = scheduler.config
    allowed = {
        "clip_sample": (False,),
        "thresholding": (False,),
        "prediction_type": ("epsilon",),
        "timestep_spacing": ("leading", "trailing"),
    }
    for name, values in allowed.items():
        if config[name] not in values:
            limit = " or ".join(repr(value) for value in values)
            raise ValueError(
                f"the scheduler has {name} = {config[name]!r}, which DDIM inversion does not undo; it must be {limit}:"
                f" use DDIMScheduler.from_config(scheduler.config, {name}={values[0]!r})"
                + (" with a UNet that predicts eps" if name == "prediction_type" else "")
            )
    table = scheduler.alphas_cumprod
    described = DDIMScheduler.from_config(config)
    if not torch.equal(table.to(described.alphas_cumprod), described.alphas_cumprod) or not torch.equal(
        scheduler.final_alpha_cumprod.to(described.final_alpha_cumprod), described.final_alpha_cumprod
    ):
        raise ValueError(
            "the scheduler's alphas_cumprod is not the table its configuration describes, so the inverse scheduler"
            " would use another one; pass the table as trained_betas in the configuration"
        )
    if not (torch.all(table > 0) and torch.all(table < 1) and torch.all(table[1:] < table[:-1])):
        raise ValueError(
            f"the scheduler's alphas_cumprod runs from {table[0]:.6g} to {table[-1]:.6g}; it must decrease strictly"
            " between 1 and 0 (rescale_betas_zero_snr ends at 0, where the data are gone); choose another noise"
            " schedule"
        )


def check_num_steps(num_steps: int, training_steps: int) -> int:
    """The number of steps as an int.

    Raises:
        ValueError: it is no integer from 1 to training_steps.
    """
    whole = isinstance(num_steps, int | np.integer) and not isinstance(num_steps, bool)
    if not (whole and 1 <= num_steps <= training_steps):
        raise ValueError(f"num_steps = {num_steps} must be an integer from 1 to {training_steps}; 50 is usual")
    return int(num_steps)


def noise_ladder(scheduler: DDIMScheduler, num_steps: int, dtype: torch.dtype = torch.float32) -> Ladder:
    """The levels of `num_steps` steps, with both schedulers set to them and checked against each other.

    The steps are those of diffusers: it goes from timestep t to t - num_train_timesteps // num_steps. Under "leading"
    spacing those are the neighbouring timesteps for every num_steps, but 600 steps of 1000 then have stride 1 and end
    at timestep 600, far from the noise: a num_steps whose strides leave out more than a tenth of the training steps is
    refused. Under "trailing" spacing a num_steps that does not divide num_train_timesteps steps to timesteps that are
    not on the ladder, although the round trip still closes: refused.

    Raises:
        ValueError: see `check_scheduler`; num_steps out of range or one of the cases above; a steps_offset with which
            sampling does not end at the clean level; levels that are not strictly decreasing in alphas_cumprod
            (set_alpha_to_one=False with steps_offset=0: levels 0 and 1 coincide).
    """
    check_scheduler(scheduler)
    training_steps = scheduler.config.num_train_timesteps
    num_steps = check_num_steps(num_steps, training_steps)
    stride = training_steps // num_steps
    sampler = DDIMScheduler.from_config(scheduler.config)
    inverter = DDIMInverseScheduler.from_config(scheduler.config)
    sampler.set_timesteps(num_steps)
    inverter.set_timesteps(num_steps)
    upper = inverter.timesteps.numpy()
    if not np.array_equal(sampler.timesteps.numpy()[::-1], upper) or not np.all(np.diff(upper) == stride):
        raise ValueError(
            f"num_steps = {num_steps} does not divide the {training_steps} training steps under"
            f" {scheduler.config.timestep_spacing!r} spacing, where diffusers steps to timesteps it never evaluates;"
            f" use {nearest_divisor(training_steps, num_steps)} steps"
        )
    if upper[-1] >= training_steps:
        raise ValueError(
            f"num_steps = {num_steps} with steps_offset = {scheduler.config.steps_offset} needs timestep {upper[-1]},"
            f" past the last, {training_steps - 1}; use fewer steps or a smaller steps_offset"
        )
    if 10 * stride * num_steps < 9 * training_steps:
        raise ValueError(
            f"num_steps = {num_steps} has strides of {stride} and ends at timestep {upper[-1]} of {training_steps},"
            f" where the data are not yet noise; use {nearest_divisor(training_steps, num_steps)} steps"
        )
    if dtype == torch.float64:
        sampler.alphas_cumprod = sampler.alphas_cumprod.double()
        sampler.final_alpha_cumprod = sampler.final_alpha_cumprod.double()
        inverter.alphas_cumprod = inverter.alphas_cumprod.double()
        inverter.initial_alpha_cumprod = inverter.initial_alpha_cumprod.double()
    table = sampler.alphas_cumprod.double().numpy()
    clean = float(sampler.final_alpha_cumprod)
    alphas_cumprod = np.concatenate([[clean], table[upper]])
    if upper[0] >= stride and table[upper[0] - stride] != clean:
        raise ValueError(
            f"steps_offset = {scheduler.config.steps_offset} with num_steps = {num_steps} must lie below the stride,"
            f" {stride}: the last sampling step would end at timestep {upper[0] - stride} and not at the clean level;"
            " use fewer steps or a smaller steps_offset"
        )
    same_table = torch.equal(sampler.alphas_cumprod, inverter.alphas_cumprod)
    if not same_table or clean != float(inverter.initial_alpha_cumprod):
        raise ValueError(
            "DDIMInverseScheduler read another noise schedule from the configuration than DDIMScheduler; give every"
            " field of the schedule explicitly in the scheduler's configuration"
        )
    if not np.all(np.diff(alphas_cumprod) < 0):
        level = int(np.argmax(np.diff(alphas_cumprod) >= 0))
        raise ValueError(
            f"levels {level} and {level + 1} have alphas_cumprod {alphas_cumprod[level]:.8g} and"
            f" {alphas_cumprod[level + 1]:.8g}, which must decrease; with set_alpha_to_one=False use steps_offset=1"
        )
    return Ladder(sampler, inverter, np.concatenate([[CLEAN_TIMESTEP], upper]), alphas_cumprod)


def invert_latents(
    predict_noise: PredictNoise,
    latents: torch.Tensor,
    ladder: Ladder,
    *,
    fixed_point_iterations: int = 0,
    progress: Progress | None = None,
) -> Trajectory:
    """Runs the inversion from level 0 to level num_steps.

    Args:
        predict_noise: eps(latents, timestep), of the shape and dtype of the latents.
        latents: (frames, channels, height, width) at level 0.
        fixed_point_iterations: how often each step replaces its eps by eps(x_{k+1}, t_{k+1}) at the x_{k+1} found so
            far; 0 is diffusers' inversion. The recorded prediction is the last one used.
        progress: called with (steps done, num_steps).

    Raises:
        ValueError: fixed_point_iterations negative; latents stop being finite.
    """
    if fixed_point_iterations < 0:
        raise ValueError(f"fixed_point_iterations = {fixed_point_iterations} must be at least 0")
    levels, predictions = [latents], []
    for level in range(ladder.num_steps):
        timestep = int(ladder.timesteps[level + 1])
        eps = predict_noise(levels[-1], timestep)
        upper = ladder.step_up(eps, level, levels[-1])
        for _ in range(fixed_point_iterations):
            eps = predict_noise(upper, timestep)
            upper = ladder.step_up(eps, level, levels[-1])
        _require_finite(upper, f"inversion to level {level + 1} (timestep {timestep})")
        levels.append(upper)
        predictions.append(eps)
        if progress is not None:
            progress(level + 1, ladder.num_steps)
    return Trajectory(torch.stack(levels), torch.stack(predictions), ladder.timesteps, ladder.alphas_cumprod)


def sample_latents(
    predict_noise: PredictNoise, latents: torch.Tensor, ladder: Ladder, *, progress: Progress | None = None
) -> Trajectory:
    """Runs the sampling from level num_steps to level 0; arguments and result as for `invert_latents`.

    Raises:
        ValueError: latents stop being finite.
    """
    levels, predictions = [latents], []
    for level in reversed(range(ladder.num_steps)):
        timestep = int(ladder.timesteps[level + 1])
        eps = predict_noise(levels[-1], timestep)
        lower = ladder.step_down(eps, level, levels[-1])
        _require_finite(lower, f"sampling to level {level} (from timestep {timestep})")
        levels.append(lower)
        predictions.append(eps)
        if progress is not None:
            progress(ladder.num_steps - level, ladder.num_steps)
    levels.reverse()
    predictions.reverse()
    return Trajectory(torch.stack(levels), torch.stack(predictions), ladder.timesteps, ladder.alphas_cumprod)


def _require_finite(latents: torch.Tensor, stage: str) -> None:
    if not torch.isfinite(latents).all():
        count = int((~torch.isfinite(latents)).sum())
        raise ValueError(
            f"{count} of {latents.numel()} latents are not finite after the {stage}; lower the guidance scale or the"
            " adapter's learning rate, or use a wider dtype"
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that lies closest to the wanted one, the smaller of two."""
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    return min(divisors, key=lambda divisor: abs(divisor - wanted))
