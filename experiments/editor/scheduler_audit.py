r"""Whether a pair of diffusers' DDIM schedulers undo each other: measured on a network known in closed form, and named.

Three measurements, on the exact predictor of Gaussian data, each in float64 on the schedulers' own tables:

    one step            every step of both schedulers against the closed form of convention T, between the levels that
                        the sampling scheduler evaluates (theory/inversion/convention.py)
    undoing             the sampling step after the inverse step, for one and the same output of the network
    round trip          inversion and sampling, naive as diffusers inverts, and with every inverse step solved for its
                        fixed point

None of them replaces the others: a wrong pair can have a SMALLER naive round-trip error than the right one, and a pair
that steps between levels it never evaluates closes its fixed-point round trip to rounding. `settings_table` measures
what each setting does; paper_notes.md, section C3.convention, has the numbers.
"""

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from experiments.editor.inversion import check_num_steps
from experiments.editor.scheduler_mismatches import PAST_THE_TABLE, Mismatch, setting_mismatches, step_mismatches
from theory.inversion.convention import STEP_OPERATIONS, gaussian_step
from theory.inversion.ddim import Convention
from theory.rounding import relative_budget

MEAN = np.array([0.3, -1.0, 0.0, 2.0])
VARIANCES = np.array([0.04, 0.25, 1.0, 4.0])
"""Gaussian data narrower and wider than the noise at usual levels, centred and not."""

START = np.array([0.2, -0.7, 1.1, 0.5])
UNDOING_OPERATIONS = 32
"""Roundings of a step up and a step down: 10 each at most (1 - abar, two roots, three products, two sums, a quotient,
one to spare), and as many again for the roots and levels that both read."""

SOLVER_ITERATIONS = 6
"""Of Steffensen's method for one inverse step. The step is affine in the state, coordinate by coordinate, so the first
iteration solves it and the others remove rounding; a step that clips is affine in pieces."""

STABLE_DIFFUSION: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
"""The settings of Stable Diffusion, from which `SETTINGS` departs one by one."""

SETTINGS: Mapping[str, tuple[int, Mapping[str, Any], Mapping[str, Any]]] = {
    "both alike": (50, {}, {}),
    "set_alpha_to_one in both": (
        50,
        {"set_alpha_to_one": True, "steps_offset": 0},
        {"set_alpha_to_one": True, "steps_offset": 0},
    ),
    "trailing in both": (50, {"timestep_spacing": "trailing"}, {"timestep_spacing": "trailing"}),
    "leading, 30 does not divide 1000": (30, {}, {}),
    "leading, 600 does not divide 1000": (600, {}, {}),
    "trailing, 30 does not divide 1000": (30, {"timestep_spacing": "trailing"}, {"timestep_spacing": "trailing"}),
    "first step empty": (50, {"steps_offset": 0}, {"steps_offset": 0}),
    "steps_offset beyond the stride": (30, {"steps_offset": 40}, {"steps_offset": 40}),
    "steps_offset past the table": (50, {"steps_offset": 30}, {"steps_offset": 30}),
    "clip_sample in both": (50, {"clip_sample": True}, {"clip_sample": True}),
    "clip_sample in the inverse only": (50, {}, {"clip_sample": True}),
    "thresholding": (50, {"thresholding": True}, {}),
    "set_alpha_to_one differs": (50, {}, {"set_alpha_to_one": True}),
    "steps_offset differs": (50, {}, {"steps_offset": 0}),
    "spacing differs": (50, {}, {"timestep_spacing": "trailing"}),
    "betas differ": (50, {}, {"beta_schedule": "linear"}),
    "linspace": (50, {"timestep_spacing": "linspace"}, {"timestep_spacing": "linspace"}),
    "v_prediction": (50, {"prediction_type": "v_prediction"}, {"prediction_type": "v_prediction"}),
    "sample": (50, {"prediction_type": "sample"}, {"prediction_type": "sample"}),
    "sample, set_alpha_to_one": (
        50,
        {"prediction_type": "sample", "set_alpha_to_one": True, "steps_offset": 0},
        {"prediction_type": "sample", "set_alpha_to_one": True, "steps_offset": 0},
    ),
    "zero terminal SNR, trailing": (
        50,
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
}
"""Name -> number of steps, and what the sampling and the inverse scheduler change in `STABLE_DIFFUSION`."""


@dataclasses.dataclass(frozen=True)
class SchedulerAudit:
    """What a pair of schedulers does, measured. A value is None where it is no finite number or a scheduler refused.

    Attributes:
        num_steps: of the inversion and of the sampling.
        convention: "T" if every inverse step is the closed form of convention T on the sampling scheduler's levels,
            else "none".
        formal_inverse: for one and the same output of the network every sampling step undoes its inverse step.
        mismatches: the settings that stand against the theorems, in a fixed order; empty if they apply.
        one_step_residual: largest deviation of a step of either scheduler from the closed form, relative to the step's
            operands; rounding is of order 1e-15.
        naive_round_trip: relative error of inversion and sampling on the closed-form predictor.
        fixed_point_round_trip: the same with every inverse step solved for its fixed point.
    """

    num_steps: int
    convention: str
    formal_inverse: bool
    mismatches: tuple[Mismatch, ...]
    one_step_residual: float | None
    naive_round_trip: float | None
    fixed_point_round_trip: float | None


def audit_schedulers(
    forward: DDIMScheduler | Mapping[str, Any],
    inverse: DDIMInverseScheduler | Mapping[str, Any] | None = None,
    num_steps: int = 50,
) -> SchedulerAudit:
    """Measures a pair of schedulers and names every setting that stands against the theorems on DDIM inversion.

    Args:
        forward: the scheduler that samples, or its configuration.
        inverse: the scheduler that inverts, or its configuration; None for what diffusers makes of `forward`'s.
        num_steps: of both.

    The schedulers passed in are copied and stay as they are.

    Raises:
        ValueError: another class of scheduler; a configuration with a setting that neither class has (diffusers would
            ignore it in silence); num_steps out of range.
    """
    forward = _scheduler(DDIMScheduler, forward)
    inverse = _scheduler(DDIMInverseScheduler, dict(forward.config) if inverse is None else inverse)
    num_steps = check_num_steps(num_steps, min(forward.config.num_train_timesteps, inverse.config.num_train_timesteps))
    mismatches = setting_mismatches(forward, inverse)
    if any(mismatch.value.endswith("'linspace'") for mismatch in mismatches if mismatch.setting == "timestep_spacing"):
        return SchedulerAudit(num_steps, "none", False, mismatches, None, None, None)
    for scheduler in (forward, inverse):
        scheduler.set_timesteps(num_steps)
    mismatches += step_mismatches(forward, inverse, num_steps)
    if any(mismatch.effect == PAST_THE_TABLE for mismatch in mismatches):
        return SchedulerAudit(num_steps, "none", False, mismatches, None, None, None)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        residual = _one_step_residual(forward, inverse)
        formal_inverse = _undoes(forward, inverse)
        naive, solved = (_round_trip_error(forward, inverse, iterations) for iterations in (0, SOLVER_ITERATIONS))
    is_closed_form = residual is not None and residual <= relative_budget(STEP_OPERATIONS)
    return SchedulerAudit(
        num_steps, "T" if is_closed_form else "none", formal_inverse, mismatches, residual, naive, solved
    )


def settings_table() -> dict[str, SchedulerAudit]:
    """What each of `SETTINGS` does: its name -> the audit of the pair."""
    return {
        name: audit_schedulers({**STABLE_DIFFUSION, **forward}, {**STABLE_DIFFUSION, **inverse}, num_steps)
        for name, (num_steps, forward, inverse) in SETTINGS.items()
    }


def _scheduler(scheduler_class: type, given: Any) -> Any:
    """A copy of the scheduler, or one made of the configuration, with its float32 tables promoted to float64."""
    if isinstance(given, Mapping):
        known = {
            name for cls in (DDIMScheduler, DDIMInverseScheduler) for name in inspect.signature(cls.__init__).parameters
        }
        unknown = sorted(name for name in given if name not in known and not name.startswith("_"))
        if unknown:
            raise ValueError(
                f"the configuration has {unknown[0]} = {given[unknown[0]]!r}, which {scheduler_class.__name__} does "
                "not know and would ignore; remove it"
            )
        own = inspect.signature(scheduler_class.__init__).parameters
        scheduler = scheduler_class.from_config(
            {name: value for name, value in given.items() if name in own or name.startswith("_")}
        )
    elif isinstance(given, scheduler_class):
        scheduler = copy.deepcopy(given)
    else:
        raise ValueError(
            f"the scheduler is a {type(given).__name__}; a {scheduler_class.__name__} is needed: use "
            f"{scheduler_class.__name__}.from_config(scheduler.config)"
        )
    for name in ("alphas_cumprod", "final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).to("cpu", torch.float64))
    return scheduler


def _lower_alphas(scheduler: Any) -> np.ndarray:
    """alphas_cumprod at the lower level of each step, in the order of the scheduler's timesteps, as it reads it."""
    timesteps = scheduler.timesteps.numpy()
    lower = timesteps - scheduler.config.num_train_timesteps // len(timesteps)
    lower = np.minimum(lower, scheduler.config.num_train_timesteps - 1)
    clean = scheduler.final_alpha_cumprod if isinstance(scheduler, DDIMScheduler) else scheduler.initial_alpha_cumprod
    return np.where(lower >= 0, scheduler.alphas_cumprod.numpy()[lower], float(clean))


def _ladder(forward: DDIMScheduler) -> np.ndarray:
    """alphas_cumprod of the levels a sampling should pass: those it evaluates, and the one it ends at, (N + 1,)."""
    upper = forward.alphas_cumprod.numpy()[forward.timesteps.numpy()[::-1]]
    return np.concatenate([_lower_alphas(forward)[-1:], upper])


def _predict(latent: np.ndarray, abar: float, prediction_type: str) -> np.ndarray:
    """The exact network of data N(MEAN, diag(VARIANCES)), of any prediction type."""
    noise = 1 - abar
    eps = noise**0.5 * (latent - abar**0.5 * MEAN) / (abar * VARIANCES + noise)
    if prediction_type == "epsilon":
        return eps
    clean = (abar**0.5 * VARIANCES * latent + noise * MEAN) / (abar * VARIANCES + noise)
    return clean if prediction_type == "sample" else abar**0.5 * eps - noise**0.5 * clean


def _step(scheduler: Any, output: np.ndarray, timestep: int, latent: np.ndarray) -> np.ndarray:
    # Thresholding takes a quantile over all but the first axis, so a batch axis goes in front.
    options = {"eta": 0.0} if isinstance(scheduler, DDIMScheduler) else {}
    output, latent = (torch.from_numpy(np.array(array, dtype=np.float64))[None, None] for array in (output, latent))
    return scheduler.step(output, timestep, latent, **options).prev_sample[0, 0].numpy()


def _call_and_step(scheduler: Any, timestep: int, latent: np.ndarray, called: np.ndarray | None = None) -> np.ndarray:
    """One step as diffusers' pipelines make it: the network sees the loop's timestep and the state `called`."""
    abar = float(scheduler.alphas_cumprod[timestep])
    output = _predict(latent if called is None else called, abar, scheduler.config.prediction_type)
    return _step(scheduler, output, timestep, latent)


def _one_step_residual(forward: DDIMScheduler, inverse: DDIMInverseScheduler) -> float | None:
    ladder = _ladder(forward)
    sigmas = ((1 - ladder) / ladder) ** 0.5
    generator = np.random.default_rng(0)
    ratios = []
    upper_timesteps = forward.timesteps.numpy()[::-1]
    if len(inverse.timesteps) != len(upper_timesteps):
        return None
    for step, (timestep, inverse_timestep) in enumerate(zip(upper_timesteps.tolist(), inverse.timesteps.tolist())):
        (abar_from, abar_to), (sigma_from, sigma_to) = ladder[step : step + 2], sigmas[step : step + 2]
        latent = generator.normal(size=START.size)
        # Rounding of eps itself: its numerator cancels where the latent meets the mean.
        scale = 2 * (1 - abar_to) ** 0.5 * (np.abs(latent) + np.abs(MEAN)) / (abar_to * VARIANCES + 1 - abar_to)
        up = abar_to**0.5 * gaussian_step(latent / abar_from**0.5, MEAN, VARIANCES, sigma_from, sigma_to, Convention.T)
        up_operands = abar_to**0.5 * (np.abs(latent) / abar_from**0.5 + (sigma_from + sigma_to) * scale)
        ratios.append(np.abs(_call_and_step(inverse, inverse_timestep, latent) - up) / up_operands)
        state = latent / abar_to**0.5
        down = abar_from**0.5 * (state - (sigma_to - sigma_from) * _predict(latent, abar_to, "epsilon"))
        down_operands = abar_from**0.5 * (np.abs(state) + (sigma_from + sigma_to) * scale)
        ratios.append(np.abs(_call_and_step(forward, timestep, latent) - down) / down_operands)
    return _finite(np.max(ratios))


def _undoes(forward: DDIMScheduler, inverse: DDIMInverseScheduler) -> bool:
    """Whether each sampling step undoes the inverse step for one random output of the network, to rounding."""
    upper_timesteps = forward.timesteps.numpy()[::-1]
    if not np.array_equal(upper_timesteps, inverse.timesteps.numpy()):
        return False
    generator = np.random.default_rng(1)
    by_sample = forward.config.prediction_type == "sample"
    for timestep, lower in zip(upper_timesteps.tolist(), _lower_alphas(forward)[::-1]):
        # Three times the size of real latents, so that a clip at 1 is met.
        latent, output = 3 * generator.normal(size=(2, START.size))
        raised = _step(inverse, output, timestep, latent)
        returned = _step(forward, output, timestep, raised)
        a, b = lower**0.5, (1 - lower) ** 0.5
        upper = float(forward.alphas_cumprod[timestep])
        a_up, b_up = upper**0.5, (1 - upper) ** 0.5
        # Operands of the way down, and those of the way up that the way down multiplies by a / a' or by b / b'.
        if by_sample:
            operands = np.abs(latent) + b / b_up * np.abs(raised) + 2 * (a + a_up * b / b_up) * np.abs(output)
        else:
            operands = np.abs(latent) + a / a_up * np.abs(raised) + 2 * (b + b_up * a / a_up) * np.abs(output)
        if not (np.abs(returned - latent) <= relative_budget(UNDOING_OPERATIONS) * operands).all():
            return False
    return True


def _solve(inverse: DDIMInverseScheduler, timestep: int, lower: np.ndarray, iterations: int) -> np.ndarray:
    """The inverse step from `lower`; with iterations, at its fixed point by Steffensen's method for each coordinate."""
    upper = _call_and_step(inverse, timestep, lower)
    for _ in range(iterations):
        once = _call_and_step(inverse, timestep, lower, upper)
        twice = _call_and_step(inverse, timestep, lower, once)
        curvature = twice - 2 * once + upper
        safe = np.where(curvature == 0, 1.0, curvature)
        accelerated = upper - (once - upper) ** 2 / safe
        upper = np.where((curvature == 0) | ~np.isfinite(accelerated), twice, accelerated)
    return upper


def _round_trip_error(forward: DDIMScheduler, inverse: DDIMInverseScheduler, iterations: int) -> float | None:
    latent = START
    for timestep in inverse.timesteps.tolist():
        latent = _solve(inverse, timestep, latent, iterations)
    for timestep in forward.timesteps.tolist():
        latent = _call_and_step(forward, timestep, latent)
    return _finite(np.linalg.norm(latent - START) / np.linalg.norm(START))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
